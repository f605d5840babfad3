//! What holds the clusters of the providers with containers: the user's Docker daemon where one answers, else one of our own,
//! or for kind podman; and what is the same of all such clusters.

pub mod around;
pub mod cluster;
pub mod daemon;
pub mod evidence;
pub mod network;
pub mod nodes;
pub mod stand_in;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use super::native::descriptor::Node;
use super::native::packages::{self, Package};
use crate::run;

/// How long a daemon may take to say that it is there.
const ANSWER: Duration = Duration::from_secs(10);

/// What a daemon of our own needs of Debian. containerd and runc come with docker.io.
const PACKAGES: &[Package] = &[
    ("docker.io", &["/usr/sbin/dockerd"]),
    ("iptables", &["/usr/sbin/iptables"]),
    ("iproute2", &["/usr/bin/ip", "/sbin/ip"]),
];

/// A client program. podman takes docker's commands, and needs no daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    Docker,
    Podman,
}

impl Client {
    /// Its name, which is kind's name for it too.
    pub fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
        }
    }

    /// What an image is called here once it was loaded from an archive that names no registry.
    pub fn loaded(self, image: &str) -> String {
        match self {
            Self::Docker => image.to_owned(),
            Self::Podman => format!("localhost/{image}"),
        }
    }

    /// What its `info` calls the folder of images and containers.
    fn data_root(self) -> &'static str {
        match self {
            Self::Docker => "{{.DockerRootDir}}",
            Self::Podman => "{{.Store.GraphRoot}}",
        }
    }

    /// Where it lies, or nothing where it is not on PATH.
    pub fn on_path(self) -> Option<PathBuf> {
        find_in(&std::env::var_os("PATH")?, self.name())
    }
}

/// A daemon that answers, or podman.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Docker {
    pub client: Client,
    /// The client program.
    program: String,
    /// None: the one that the user's environment means.
    host: Option<String>,
}

impl Docker {
    fn new(host: Option<String>) -> Self {
        Self { client: Client::Docker, program: Client::Docker.name().to_owned(), host }
    }

    fn podman() -> Self {
        Self { client: Client::Podman, program: Client::Podman.name().to_owned(), host: None }
    }

    /// The words before a docker command.
    pub fn words(&self) -> Vec<String> {
        let host = self.host.iter().flat_map(|host| ["--host".to_owned(), host.clone()]);
        [self.program.clone()].into_iter().chain(host).collect()
    }

    /// The words before a command that make it run in a container.
    pub fn enter(&self, container: &str) -> Vec<String> {
        let mut words = self.words();
        words.extend(["exec", "-i", container].map(String::from));
        words
    }

    /// A docker command.
    pub fn command<S: AsRef<str>>(&self, args: &[S]) -> Command {
        let mut words = self.words();
        words.extend(args.iter().map(|arg| arg.as_ref().to_owned()));
        run::command(&words)
    }

    /// Runs a docker command to its end.
    pub fn run<S: AsRef<str>>(&self, args: &[S]) -> Result<String> {
        run::output(&mut self.command(args)).map_err(|error| self.explained(error))
    }

    /// The lines that a docker command prints.
    pub fn lines<S: AsRef<str>>(&self, args: &[S]) -> Result<Vec<String>> {
        Ok(self.run(args)?.lines().map(str::to_owned).collect())
    }

    /// Runs a command in a container.
    pub fn exec<S: AsRef<str>>(&self, container: &str, argv: &[S]) -> Result<String> {
        self.feed(container, argv, "")
    }

    /// As [`Docker::exec`], with input.
    pub fn feed<S: AsRef<str>>(&self, container: &str, argv: &[S], input: &str) -> Result<String> {
        let mut words = self.enter(container);
        words.extend(argv.iter().map(|arg| arg.as_ref().to_owned()));
        run::feed(&mut run::command(&words), input).with_context(|| format!("in {container}"))
    }

    /// Runs a shell line in each of these nodes at the same time.
    pub fn on_each(&self, nodes: &[Node], line: &str) -> Result<()> {
        let jobs = nodes.iter().map(|node| -> Box<dyn FnOnce() -> Result<()> + Send + '_> {
            Box::new(|| self.exec(&node.name, &["sh", "-ec", line]).map(drop))
        });
        run::parallel(jobs.collect())
    }

    /// A program that speaks to this daemon by itself. On Linux it ends when this process is killed: nothing goes on making
    /// what nobody waits for.
    pub fn user(&self, program: &Path) -> Command {
        let words = ["setpriv", "--pdeathsig", "KILL"].map(String::from);
        let words = if cfg!(target_os = "linux") { &words[..] } else { &[] };
        let mut command = run::command(&[words, &[program.display().to_string()]].concat());
        command.envs(self.environment());
        command
    }

    /// Whether it is the one of our own, which has no way out of this machine.
    pub fn is_own(&self) -> bool {
        self.host.is_some()
    }

    /// What a program that speaks to this daemon by itself has in its environment.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        self.host.iter().map(|host| ("DOCKER_HOST", host.clone())).collect()
    }

    /// Says what can be done where the disk is full.
    pub fn explained(&self, error: anyhow::Error) -> anyhow::Error {
        if !format!("{error:#}").contains("no space left on device") {
            return error;
        }
        let root = run::output(&mut self.command(&["info", "--format", self.client.data_root()]));
        let root = root.map_or_else(|_| "its data root".to_owned(), |root| root.trim().to_owned());
        let name = self.client.name();
        error.context(format!(
            "{name}'s disk is full ({root}): a node image and three nodes need 4 GB there ({name} system prune frees what is not in use)"
        ))
    }
}

/// The first program of that name.
pub fn find_in(path: &std::ffi::OsStr, name: &str) -> Option<PathBuf> {
    std::env::split_paths(path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// The daemon to use: our own while it runs, the user's where it answers, else, with `install`, a new one of our own.
pub fn find(install: bool) -> Result<Docker> {
    if let Some(own) = own()? {
        return Ok(own);
    }
    let refusal = match Client::Docker.on_path() {
        None => Refusal::Absent,
        Some(_) => match asked(&Docker::new(None)) {
            Ok(_) => return Ok(Docker::new(None)),
            Err(error) => refusal(&format!("{error:#}")),
        },
    };
    run::check()?;
    if !may_start(install) {
        bail!("{}", refusal.sentence());
    }
    packages::ensure_these(PACKAGES, true)?;
    println!("no Docker daemon answers: one of our own is started, for this run");
    daemon::start()?;
    own()?.context("the daemon of our own does not answer")
}

/// podman, where it works.
pub fn podman() -> Result<Docker> {
    if Client::Podman.on_path().is_none() {
        bail!("there is no podman on PATH");
    }
    let podman = Docker::podman();
    asked(&podman).context("podman does not work here")?;
    Ok(podman)
}

/// Whether a daemon of our own may be started where none answers.
pub fn may_start(install: bool) -> bool {
    install && rustix::process::geteuid().is_root()
}

/// The daemons that answer now, and podman, to look for what is left.
pub fn reachable() -> Vec<Docker> {
    let users = Client::Docker.on_path().map(|_| Docker::new(None));
    let own = if users.is_some() { own().ok().flatten() } else { None };
    let users = users.filter(|docker| asked(docker).is_ok());
    own.into_iter().chain(users).chain(podman().ok()).collect()
}

/// Our own, if it runs and answers.
pub fn own() -> Result<Option<Docker>> {
    if daemon::processes()?.is_empty() {
        return Ok(None);
    }
    let own = Docker::new(Some(format!("unix://{}", daemon::socket()?.display())));
    Ok(asked(&own).ok().map(|_| own))
}

/// The daemon's version, or podman's.
fn asked(docker: &Docker) -> Result<String> {
    run::output_within(&mut docker.command(&["version", "--format", "{{.Server.Version}}"]), ANSWER)
}

/// Why the user's daemon cannot be used.
#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    /// No client program.
    Absent,
    /// The socket is there, and not for this user.
    NotPermitted,
    /// Nobody answers, with what the client says.
    Silent(String),
}

/// Reads what the client says.
fn refusal(said: &str) -> Refusal {
    if said.contains("permission denied") {
        return Refusal::NotPermitted;
    }
    let line = said.lines().find(|line| line.contains("Cannot connect") || line.contains("no answer"));
    let line = line.or_else(|| said.lines().next()).unwrap_or_default();
    Refusal::Silent(line.rsplit_once("): ").map_or(line, |(_, words)| words).trim().to_owned())
}

impl Refusal {
    fn sentence(&self) -> anyhow::Error {
        let instead = "as root on Debian, --provider kind --install installs Docker and starts a daemon of its own for the run; --provider native needs no Docker";
        match self {
            Self::Absent => {
                anyhow!("there is no docker on PATH, and this provider needs it\n  install Docker; {instead}")
            }
            Self::NotPermitted => anyhow!(
                "this user may not use Docker's socket\n  join the group docker (usermod -aG docker USER, then log in again), or run this as root; {instead}"
            ),
            Self::Silent(said) => {
                anyhow!("no Docker daemon answers: {said}\n  start Docker, or set DOCKER_HOST; {instead}")
            }
        }
    }
}

/// Programs that stand in for Docker and kind in tests.
#[cfg(test)]
pub mod fake {
    #![allow(clippy::unwrap_used)]
    use super::Docker;
    use std::path::{Path, PathBuf};
    use std::process::Command;

    /// A program that is this shell script. Another process writes it: what this one holds open for writing cannot be
    /// started while a third is being forked.
    pub fn program(folder: &Path, name: &str, script: &str) -> PathBuf {
        let file = folder.join(name);
        let line = "printf '#!/bin/sh\n%s\n' \"$2\" >\"$1\"; chmod 755 \"$1\"";
        assert!(Command::new("sh").args(["-ec", line, "sh"]).arg(&file).arg(script).status().unwrap().success());
        file
    }

    /// As [`docker`], of a daemon of our own. The script sees the words behind those that name the daemon.
    pub fn own(folder: &Path, script: &str) -> Docker {
        let script = format!("shift 2; {script}");
        Docker { host: Some("unix:///own.sock".to_owned()), ..docker(folder, &script) }
    }

    /// A daemon whose client is this shell script.
    pub fn docker(folder: &Path, script: &str) -> Docker {
        Docker { program: program(folder, "docker", script).display().to_string(), ..Docker::new(None) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// What is said where the client says this.
    fn sentence(script: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let error = asked(&fake::docker(folder.path(), script)).unwrap_err();
        refusal(&format!("{error:#}")).sentence().to_string()
    }

    #[test]
    fn what_the_client_says_is_told_in_a_sentence() {
        let denied = "echo 'permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock' >&2; exit 1";
        let silent = "echo 'Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?' >&2; exit 1";
        let absent = Refusal::Absent.sentence().to_string();
        for (said, words) in [
            (sentence(denied), "this user may not use Docker's socket"),
            (
                sentence(silent),
                "no Docker daemon answers: Cannot connect to the Docker daemon at unix:///var/run/docker.sock",
            ),
            (absent, "there is no docker on PATH"),
        ] {
            assert!(said.starts_with(words), "{said}");
            assert!(said.contains("--install") && said.contains("--provider native"), "{said}");
        }
    }

    #[test]
    fn a_full_disk_is_named_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let script = "test \"$1\" = info && echo /var/lib/docker && exit; \
                      echo 'write /layer.tar: no space left on device' >&2; exit 1";
        let error = fake::docker(folder.path(), script).run(&["load", "--input", "a.tar"]).unwrap_err();
        assert!(error.to_string().starts_with("docker's disk is full (/var/lib/docker)"), "{error}");
    }

    #[test]
    fn our_own_daemon_is_named_and_the_users_is_not() {
        let own = Docker::new(Some("unix:///c/docker.sock".into()));
        assert_eq!(own.enter("n").join(" "), "docker --host unix:///c/docker.sock exec -i n");
        assert_eq!(Docker::new(None).enter("n").join(" "), "docker exec -i n");
        assert!(own.is_own() && own.environment()[0].1 == "unix:///c/docker.sock");
    }
}
