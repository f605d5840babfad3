//! Provider `native`: a real Kubernetes, shaped as kubeadm's, out of processes in namespaces of this machine.
//!
//! A member (node, client, gateway) is a first process with mount, network, PID, UTS and IPC namespaces of its own.
//! All that a member runs descends from it, and every mount is made inside it: when it is killed the kernel ends
//! the rest. On the machine itself a cluster leaves only cgroups and two folders, all named after it.

pub mod build;
pub mod cgroup;
mod control_plane;
pub mod coredns;
pub mod descriptor;
mod dual_stack;
pub mod files;
mod images;
pub mod imds;
mod kube_proxy;
pub mod limits;
pub mod member;
pub mod net;
pub mod node;
pub mod packages;
mod pki;
pub mod plan;
pub mod processes;
pub mod teardown;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::standin;
use crate::run;
use build::Programs;
pub use descriptor::Descriptor;
use plan::{METADATA_ADDRESS, Node, PUBLIC_ADDRESS, Places, Plan, Request};
use processes::{Running, Start};

/// The Kubernetes version when none is given.
pub const DEFAULT_VERSION: &str = "v1.37.2";

/// The hidden subcommand of a member's first process; members are found by it.
pub const MEMBER_COMMAND: &str = "cluster-member";

/// Fails with what to do where this machine cannot hold a cluster.
pub fn require_machine() -> Result<()> {
    if !cfg!(target_os = "linux") {
        bail!(
            "provider native needs Linux (its nodes are namespaces of the kernel)\n  use a Linux machine or virtual machine"
        );
    }
    if !rustix::process::geteuid().is_root() {
        bail!(
            "provider native needs root (namespaces, mounts, cgroups)\n  run: sudo env \"PATH=$PATH\" cargo xtask cluster up"
        );
    }
    Ok(())
}

/// Brings a cluster up and gives its description; on any failure nothing of it is left.
pub fn up(request: Request, install: bool) -> Result<Descriptor> {
    plan::check_name(&request.name)?;
    plan::minor(&request.version)?;
    require_machine()?;
    run::catch_interrupts()?;
    packages::ensure(install)?;
    let programs = build::ensure(&request.version)?;
    let archive = images::ensure(&request.version, &programs)?;
    let _lock = lock(&request.name)?;
    let places = Places::new(&request.name);
    if let Some(running) = already(&request, &places)? {
        return Ok(running);
    }
    limits::check(&limits::NATIVE, usize::from(request.workers) + 1)?;
    let generation = match teardown::generation(&places)? {
        Some(last) => last.checked_add(1).unwrap_or(0),
        None => 0,
    };
    let plan = Plan::new(request, generation);
    let started = Instant::now();
    match start(&plan, &programs, &archive) {
        Ok(descriptor) => {
            println!("cluster {} is ready after {:.1} s", plan.request.name, started.elapsed().as_secs_f32());
            Ok(descriptor)
        }
        Err(error) => Err(undo(&plan, error)),
    }
}

/// Takes a failed start down. A client that was kept for it is kept again.
fn undo(plan: &Plan, error: anyhow::Error) -> anyhow::Error {
    let was_interrupted = run::forget_interrupt();
    println!("taking down what was started");
    let error = if was_interrupted {
        error
    } else {
        match keep_logs(&plan.places) {
            Ok(folder) => error.context(format!("the cluster did not start (logs: {})", folder.display())),
            Err(_) => error,
        }
    };
    let kept = plan.generation > 0;
    let result = teardown::down(&plan.request.name, kept);
    if was_interrupted {
        run::remember_interrupt();
    }
    match result {
        Ok(()) => error,
        Err(left) => error.context(format!("and the clean-up failed too: {left:#}")),
    }
}

fn keep_logs(places: &Places) -> Result<PathBuf> {
    let folder = build::cache_folder()?.join("logs-of-failed-start");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    for entry in fs::read_dir(places.run.join("logs"))? {
        let entry = entry?;
        fs::copy(entry.path(), folder.join(entry.file_name()))?;
    }
    Ok(folder)
}

/// One command at a time works on a cluster. The lock's file lies beside the clusters' folders and stays.
pub fn lock(name: &str) -> Result<fs::File> {
    use rustix::fs::{FlockOperation, flock};
    let path = plan::lock_root().join(format!("kubectl-bookaccess-cluster-{name}.lock"));
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let file = fs::File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    // `status` holds it for a moment when it looks whether anybody does.
    run::wait_for("the lock", Duration::from_millis(300), || {
        Ok(flock(&file, FlockOperation::NonBlockingLockExclusive)?)
    })
    .map_err(|_| anyhow::anyhow!("another command is working on cluster {name}: wait for its end"))?;
    Ok(file)
}

/// The description of a cluster that runs as asked; what is left of a broken one is cleaned away.
fn already(request: &Request, places: &Places) -> Result<Option<Descriptor>> {
    let name = &request.name;
    let members = processes::members(Some(name));
    let nodes = members.iter().any(|m| m.member != "client");
    match Descriptor::load(places) {
        Ok(Some(found)) if found.members().iter().all(|m| members.iter().any(|r| r.member == *m)) => {
            found.must_be(request)?;
            println!("cluster {name} runs already");
            Ok(Some(found))
        }
        _ => {
            let kept = !nodes && !members.is_empty();
            if !kept && (nodes || places.run.exists() || places.data.exists()) {
                println!("cleaning up what is left of an earlier cluster {name}");
                teardown::down(name, false)?;
            }
            Ok(None)
        }
    }
}

/// Everything that runs, once it is started.
struct Members {
    gateway: Running,
    client: Running,
    nodes: Vec<Running>,
}

fn start(plan: &Plan, programs: &Programs, archive: &Path) -> Result<Descriptor> {
    let clock = Instant::now();
    let step = |what: &str| println!("  {:5.1} s  {what}", clock.elapsed().as_secs_f32());
    fs::create_dir_all(&plan.places.run)?;
    let standin = plan.places.data.join("images/standin.tar");
    standin::build(&standin)?;
    let archives = [archive.to_owned(), standin];
    step("images made");
    let pki = write_files(plan)?;
    let members = start_members(plan, programs)?;
    net::connect(plan, &members.gateway, &members.client, &members.nodes)?;
    let client_config = members.client.path(descriptor::CLIENT_KUBECONFIG);
    pki.client(&client_config)?;
    if plan.request.ec2 {
        start_metadata(plan, &members.gateway)?;
    }
    step("members connected");

    let first = &members.nodes[0];
    let mut jobs: Vec<Box<dyn FnOnce() -> Result<()> + Send + '_>> = vec![Box::new(|| {
        control_plane::start_api(plan, programs, first)?;
        step("API server ready");
        control_plane::start_controllers(plan, programs, first)?;
        let mut objects = control_plane::objects(plan);
        objects.extend(kube_proxy::objects(plan));
        objects.extend(coredns::objects());
        control_plane::apply(first, programs, &objects)
    })];
    for running in &members.nodes {
        let archives = &archives;
        jobs.push(Box::new(move || {
            node::start_containerd(plan, programs, running)?;
            for archive in archives {
                import(programs, running, archive)?;
            }
            Ok(())
        }));
    }
    run::parallel(jobs)?;
    step("images imported, objects created");
    for (node, running) in plan.nodes.iter().zip(&members.nodes) {
        node::start_kubelet(plan, programs, node, running)?;
    }
    wait_until_ready(plan, programs, first)?;
    let descriptor = Descriptor::new(plan, &programs.kubernetes, &members.gateway, &members.client, &members.nodes);
    descriptor.save(&plan.places)?;
    Ok(descriptor)
}

/// What members read when they start: certificates and configurations.
fn write_files(plan: &Plan) -> Result<pki::Pki> {
    let pki = pki::Pki::new()?;
    for node in &plan.nodes {
        let folder = node::etc(&plan.places.member(&node.name)).join("kubernetes");
        if node.control_plane {
            pki.control_plane(plan, &folder)?;
        }
        pki.node(plan, &node.name, &folder)?;
        node::write_files(plan, node)?;
    }
    Ok(pki)
}

fn start_members(plan: &Plan, programs: &Programs) -> Result<Members> {
    for node in &plan.nodes {
        cgroup::make(&plan.request.name, &node.name)?;
    }
    let kept = processes::members(Some(&plan.request.name)).into_iter().find(|r| r.member == "client");
    let resolver = plan.gateway().to_string();
    let begin = |member: &str, mut args: Vec<String>| {
        if plan.request.dual_stack {
            args.push("--dual-stack".to_owned());
        }
        for folder in visible()? {
            args.extend(["--visible".to_owned(), folder.display().to_string()]);
        }
        for program in [programs.kubernetes.join("kubectl"), programs.containerd.join("ctr")] {
            args.extend(["--program".to_owned(), program.display().to_string()]);
        }
        processes::start(&Start {
            cluster: &plan.request.name,
            member,
            data: &plan.places.member(member),
            log: &plan.places.log(member, "member"),
            args,
        })
    };
    let node_args = |_: &Node| {
        let mut args = vec!["--node".to_owned(), "--resolver".into(), resolver.clone()];
        if plan.request.ec2 {
            args.push("--ec2".into());
        }
        args
    };
    let begin = &begin;
    std::thread::scope(|scope| {
        let gateway = scope.spawn(move || begin("gateway", vec!["--router".into()]));
        let client = scope.spawn(move || kept.map_or_else(|| begin("client", Vec::new()), Ok));
        let nodes: Vec<_> = plan
            .nodes
            .iter()
            .map(|node| {
                let args = node_args(node);
                scope.spawn(move || begin(&node.name, args))
            })
            .collect();
        let join = |handle: std::thread::ScopedJoinHandle<'_, Result<Running>>| {
            handle.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a member's start panicked")))
        };
        // All are joined before the first error is returned, so that the clean-up meets no start in progress.
        let (gateway, client) = (join(gateway), join(client));
        let nodes: Vec<_> = nodes.into_iter().map(join).collect();
        Ok(Members { gateway: gateway?, client: client?, nodes: nodes.into_iter().collect::<Result<_>>()? })
    })
}

/// Folders that members must see though they may lie in root's home: the workspace, the programs, this program.
fn visible() -> Result<Vec<PathBuf>> {
    let mut folders = vec![standin::workspace(), build::cache_folder()?];
    if let Some(folder) = std::env::current_exe()?.parent() {
        folders.push(folder.to_owned());
    }
    Ok(folders)
}

fn start_metadata(plan: &Plan, gateway: &Running) -> Result<()> {
    let exe = std::env::current_exe()?.display().to_string();
    let instance = plan.control_plane().address;
    gateway.daemon(
        &plan.places.log("gateway", "imds"),
        &[],
        &[
            exe,
            "imds".into(),
            format!("--listen={METADATA_ADDRESS}:80"),
            format!("--instance={instance}"),
            format!("--public={PUBLIC_ADDRESS}"),
        ],
    )
}

/// Loads an archive into a node's containerd.
fn import(programs: &Programs, on: &Running, archive: &Path) -> Result<()> {
    import_with(&programs.containerd.join("ctr"), on, archive)
}

fn import_with(ctr: &Path, on: &Running, archive: &Path) -> Result<()> {
    on.run(&[
        ctr.display().to_string(),
        format!("--address={}", node::CONTAINERD_SOCKET),
        "--namespace=k8s.io".into(),
        "images".into(),
        "import".into(),
        archive.display().to_string(),
    ])
    .map(drop)
}

fn wait_until_ready(plan: &Plan, programs: &Programs, on: &Running) -> Result<()> {
    let wait = |args: &'static [&'static str]| -> Box<dyn FnOnce() -> Result<()> + Send + '_> {
        Box::new(move || control_plane::kubectl(on, programs, args).map(drop))
    };
    let result = run::parallel(vec![
        wait(&["wait", "node", "--all", "--for=condition=Ready", "--timeout=90s", "--request-timeout=0"]),
        wait(&[
            "-n",
            "kube-system",
            "rollout",
            "status",
            "daemonset/kube-proxy",
            "--timeout=90s",
            "--request-timeout=0",
        ]),
        wait(&["-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=90s", "--request-timeout=0"]),
    ]);
    result.map_err(|error| {
        if run::interrupted() {
            return error;
        }
        let seen = control_plane::kubectl(on, programs, &["get", "nodes,pods", "-A", "-o", "wide"]).unwrap_or_default();
        let events = control_plane::kubectl(on, programs, &["get", "events", "-A", "--field-selector=type=Warning"])
            .unwrap_or_default();
        control_plane::with_log(error, plan, &on.member, "kubelet").context(format!("{seen}\n{events}"))
    })
}

/// True while another command works on the cluster.
pub fn busy(name: &str) -> bool {
    lock(name).is_err()
}

/// The running members of a cluster, by name.
pub fn running(name: &str) -> Vec<String> {
    processes::members(Some(name)).into_iter().map(|r| r.member).collect()
}
