//! A cluster whose members are containers, whichever command makes its nodes: begun, found, ended. On the machine itself it
//! leaves two folders named after it, and with Docker two networks and what is attached to them.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use tempfile::NamedTempFile;

use super::nodes::Maker;
use super::{Client, Docker, daemon, network, reachable};
use crate::provider::host_settings;
use crate::provider::native::descriptor::Descriptor;
use crate::provider::native::plan::{self, Places, Request};
use crate::provider::native::{lock, teardown};
use crate::run;
use network::LABEL;

/// k3d's label with a cluster's name, on containers and volumes.
pub const K3D_CLUSTER: &str = "k3d.cluster";
/// How long its end may take.
const ENDING: Duration = Duration::from_secs(60);

/// Keeps what can be learnt of a cluster, and says where.
pub type Evidence = fn(&str) -> Result<Option<PathBuf>>;

/// Starts a cluster of Docker's unless it runs as asked; on any failure nothing of it is left.
pub fn begin(
    maker: &Maker,
    docker: &Docker,
    request: &Request,
    evidence: Evidence,
    start: impl FnOnce(&Places) -> Result<Descriptor>,
) -> Result<Descriptor> {
    let _lock = lock(&request.name)?;
    let places = Places::new(&request.name);
    fs::create_dir_all(&places.run)?;
    let started = Instant::now();
    let made = already(maker, docker, request, &places).and_then(|running| match running {
        Some(running) => Ok(running),
        None => {
            let made = start(&places)?;
            println!("cluster {} is ready after {:.1} s", request.name, started.elapsed().as_secs_f32());
            Ok(made)
        }
    });
    made.map_err(|error| undo(request, &places, evidence, error))
}

/// Takes a failed start down, a client that was kept for it as well. What can be learnt of it is kept.
fn undo(request: &Request, places: &Places, evidence: Evidence, error: anyhow::Error) -> anyhow::Error {
    let was_interrupted = run::forget_interrupt();
    let error = if was_interrupted {
        error
    } else {
        match evidence(&request.name) {
            Ok(Some(folder)) => error.context(format!("the cluster did not start (logs: {})", folder.display())),
            _ => error,
        }
    };
    println!("taking down what was started");
    let kept = teardown::generation(places).ok().flatten().is_some();
    let result = down(&request.name, kept);
    if was_interrupted {
        run::remember_interrupt();
    }
    match result {
        Ok(()) => error,
        Err(left) => error.context(format!("and the clean-up failed too: {left:#}")),
    }
}

/// A file for the command that makes the nodes. What a kill leaves of it goes with the cluster's folder.
pub fn config_file(places: &Places, text: &str) -> Result<NamedTempFile> {
    // k3d tells the format by the ending.
    let mut file = tempfile::Builder::new().suffix(".yaml").tempfile_in(&places.run)?;
    file.write_all(text.as_bytes())?;
    Ok(file)
}

/// The description of a cluster that runs as asked; what is left of a broken one is cleaned away.
fn already(maker: &Maker, docker: &Docker, request: &Request, places: &Places) -> Result<Option<Descriptor>> {
    let name = &request.name;
    let ours = containers(docker, name)?;
    maker.must_be_ours(docker, name, &ours)?;
    let alive = running(name);
    if let Ok(Some(found)) = Descriptor::load(places)
        && found.members().iter().all(|member| alive.iter().any(|running| running == member))
    {
        found.must_be(request)?;
        println!("cluster {name} runs already");
        return Ok(Some(found));
    }
    let is_kept = ours == [network::client(name)];
    if !is_kept && (!ours.is_empty() || !networks(docker, name)?.is_empty()) {
        println!("cleaning up what is left of an earlier cluster {name}");
        remove(docker, name, false)?;
    }
    Ok(None)
}

/// The networks of a cluster.
fn networks(docker: &Docker, cluster: &str) -> Result<Vec<String>> {
    docker.lines(&["network", "ls", "--format", "{{.Name}}", "--filter", &format!("label={LABEL}={cluster}")])
}

/// All containers of a cluster: those on its networks.
fn containers(docker: &Docker, cluster: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for network in networks(docker, cluster)? {
        let filter = format!("network={network}");
        found.extend(docker.lines(&["ps", "--all", "--format", "{{.Names}}", "--filter", &filter])?);
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// The clusters of which anything is left with a daemon that answers.
pub fn names() -> Vec<String> {
    let mut names: Vec<_> = reachable().iter().filter_map(|docker| names_with(docker).ok()).flatten().collect();
    names.sort();
    names.dedup();
    names
}

fn names_with(docker: &Docker) -> Result<Vec<String>> {
    let networks = docker.lines(&["network", "ls", "--quiet", "--filter", &format!("label={LABEL}")])?;
    if networks.is_empty() {
        return Ok(Vec::new());
    }
    let format = format!("{{{{index .Labels \"{LABEL}\"}}}}");
    let args = ["network", "inspect", "--format", &format].map(str::to_owned);
    docker.lines(&[&args[..], &networks].concat())
}

/// The members that run, by the names that the descriptor has.
pub fn running(cluster: &str) -> Vec<String> {
    let mut members = Vec::new();
    for docker in reachable() {
        let of_cluster = containers(&docker, cluster).unwrap_or_default();
        let running = docker.lines(&["ps", "--format", "{{.Names}}"]).unwrap_or_default();
        for container in running.into_iter().filter(|container| of_cluster.contains(container)) {
            let member = match container.strip_prefix(&format!("{cluster}-")) {
                Some(member @ ("client" | "gateway")) => member.to_owned(),
                _ => container,
            };
            members.push(member);
        }
    }
    members
}

/// Ends all that belongs to the cluster, and the daemon of our own where it holds no other. With `keep_client` the client
/// stays, with what runs in it, for the next cluster of this name.
pub fn down(cluster: &str, keep_client: bool) -> Result<()> {
    let places = Places::new(cluster);
    let generation = teardown::generation(&places)?;
    let mut kept = false;
    for docker in reachable() {
        let has_client = containers(&docker, cluster)?.contains(&network::client(cluster));
        remove(&docker, cluster, keep_client && has_client)?;
        kept |= keep_client && has_client;
    }
    teardown::forget(&places, kept.then_some(generation.unwrap_or(0)))?;
    close()
}

/// What is done once no cluster is left: the daemon of our own ends, and the machine's settings are as they were.
pub fn close() -> Result<()> {
    if names().is_empty() {
        if !daemon::processes()?.is_empty() {
            daemon::stop()?;
        }
        daemon::clean()?;
        host_settings::restore()?;
        let _ = fs::remove_dir(plan::run_root());
    }
    Ok(())
}

/// Removes a cluster's containers and networks; again, where a kind that was killed still made one meanwhile.
fn remove(docker: &Docker, cluster: &str, keep_client: bool) -> Result<()> {
    let client = network::client(cluster);
    let clients = network::clients_network(cluster);
    run::wait_for("removing the cluster's containers and networks", ENDING, || {
        let ending: Vec<_> =
            containers(docker, cluster)?.into_iter().filter(|name| !(keep_client && *name == client)).collect();
        if !ending.is_empty() {
            // With the volumes that kind gives its nodes.
            let words = ["rm", "--force", "--volumes"].map(String::from);
            docker.run(&[&words[..], &ending].concat())?;
        }
        for network in networks(docker, cluster)?.into_iter().filter(|name| !(keep_client && *name == clients)) {
            docker.run(&["network", "rm", &network])?;
        }
        remove_volumes(docker, cluster)
    })
}

/// What has a name stays when its container goes: k3d's one for the images that it carries to the nodes; and podman has no
/// nameless volumes with options of their own, so kind names them, and labels each with its node's name.
fn remove_volumes(docker: &Docker, cluster: &str) -> Result<()> {
    let found = if docker.client == Client::Podman {
        let all = docker.lines(&["volume", "ls", "--format", "{{.Name}} {{.Labels}}"])?;
        all.iter().filter_map(|line| volume_of(line, cluster)).map(str::to_owned).collect()
    } else {
        // That of somebody else's cluster of this name is in use.
        let label = format!("label={K3D_CLUSTER}={cluster}");
        docker.lines(&["volume", "ls", "--quiet", "--filter", "dangling=true", "--filter", &label])?
    };
    if !found.is_empty() {
        docker.run(&[&["volume", "rm", "--force"].map(String::from)[..], &found].concat())?;
    }
    Ok(())
}

/// The volume of a line such as `6142… map[lab-worker2:true]`, where that is a node of this cluster.
fn volume_of<'l>(line: &'l str, cluster: &str) -> Option<&'l str> {
    let (name, label) = line.split_once(" map[")?;
    let node = label.strip_suffix(":true]")?.strip_prefix(cluster)?;
    let number = node.strip_prefix("-worker").filter(|number| number.chars().all(|c| c.is_ascii_digit()));
    (node == "-control-plane" || number.is_some()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::volume_of;

    #[test]
    fn a_volume_is_known_by_the_name_of_its_node() {
        for (label, ours) in [
            ("map[lab-control-plane:true]", true),
            ("map[lab-worker:true]", true),
            ("map[lab-worker2:true]", true),
            ("map[lab-worker-control-plane:true]", false),
            ("map[other-worker:true]", false),
            ("map[]", false),
        ] {
            assert_eq!(volume_of(&format!("6142ab {label}"), "lab"), ours.then_some("6142ab"), "{label}");
        }
    }
}
