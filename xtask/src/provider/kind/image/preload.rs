//! The images that a node has from its beginning: packed here, and put into the store that its containerd will find.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use super::programs::{Image, Programs};
use super::system::take;
use crate::image::{self, System};
use crate::run;

/// Where the node's containerd keeps images.
const STORE: &str = "var/lib/containerd";

/// Of the store what images are; the rest is for containers.
const KEPT: [&str; 2] = ["io.containerd.content.v1.content", "io.containerd.metadata.v1.bolt"];

/// What images there are; of it the times of their coming are a fixed one, so that the same images are the same file.
const DATABASE: &str = "io.containerd.metadata.v1.bolt/meta.db";

/// Its configuration and its socket, in the folder it runs in: a socket's whole path may be too long for the kernel.
const CONFIG: &str = "config.toml";
const SOCKET: &str = "/proc/self/cwd/containerd.sock";

/// Packs the images into one archive.
pub fn archive(work: &Path, root: &Path, programs: &Programs) -> Result<PathBuf> {
    let layers: Vec<_> = (0..programs.images.len()).map(|number| work.join(format!("layer-{number}.tar"))).collect();
    let jobs = programs.images.iter().zip(&layers);
    run::parallel(
        jobs.map(|(image, layer)| -> Box<dyn FnOnce() -> Result<()> + Send + '_> {
            Box::new(move || pack(image, layer, root).with_context(|| format!("packing {}", image.name)))
        })
        .collect(),
    )?;
    let compressed: Vec<_> = layers.iter().map(|layer| gzipped(layer)).collect();
    let entrypoints: Vec<_> = programs.images.iter().map(|image| format!("/{}", image.place)).collect();
    let systems: Vec<_> = programs
        .images
        .iter()
        .enumerate()
        .map(|(number, image)| System {
            name: &image.name,
            layer: &layers[number],
            compressed: Some(&compressed[number]),
            entrypoint: &entrypoints[number],
            stop_signal: None,
        })
        .collect();
    let archive = work.join("images.tar");
    image::write_systems(&archive, &systems)?;
    for file in layers.iter().chain(&compressed) {
        fs::remove_file(file)?;
    }
    Ok(archive)
}

fn gzipped(layer: &Path) -> PathBuf {
    layer.with_extension("tar.gz")
}

fn pack(image: &Image, layer: &Path, root: &Path) -> Result<()> {
    let stage = layer.with_extension("stage");
    take(&image.program, &stage.join(image.place))?;
    let mut folders: Vec<(&Path, Vec<String>)> = vec![(&stage, vec![image.place.to_owned()])];
    if !image.tools.is_empty() {
        folders.push((root, tools(root, image.tools)?));
    }
    image::pack(layer, &folders)?;
    fs::remove_dir_all(&stage)?;
    run::output(Command::new("gzip").args(["--keep", "--no-name"]).arg(layer)).map(drop)
}

/// Programs of the system with all that they load, as paths from its root.
fn tools(root: &Path, programs: &[&str]) -> Result<Vec<String>> {
    let mut files: BTreeSet<String> = BTreeSet::new();
    for program in programs {
        files.extend(chain(root, program)?);
    }
    if programs.iter().any(|program| program.ends_with("iptables")) {
        // Its matches and targets, which it opens by name.
        let folder = format!("usr/lib/{}-linux-gnu/xtables", std::env::consts::ARCH);
        for entry in fs::read_dir(root.join(&folder)).with_context(|| folder.clone())? {
            files.extend(chain(root, &format!("{folder}/{}", entry?.file_name().to_string_lossy()))?);
        }
    }
    let mut ask = Command::new("chroot");
    ask.arg(root).arg("ldd").args(files.iter().filter(|f| f.starts_with("usr/")).map(|file| format!("/{file}")));
    for library in libraries(&run::output(&mut ask)?) {
        files.extend(chain(root, library.trim_start_matches('/'))?);
    }
    // Where the root has links to the folders below usr.
    for link in ["bin", "lib", "lib64", "sbin"] {
        if root.join(link).is_symlink() {
            files.insert(link.to_owned());
        }
    }
    Ok(files.into_iter().collect())
}

/// The files that ldd found.
fn libraries(said: &str) -> BTreeSet<&str> {
    said.lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/') && !word.ends_with(':')))
        .collect()
}

/// A file and, where it is a link, what it leads to.
fn chain(root: &Path, path: &str) -> Result<Vec<String>> {
    let root = root.canonicalize()?;
    let (mut found, mut next) = (Vec::new(), PathBuf::from(path));
    loop {
        let (folder, name) = (next.parent().unwrap_or(Path::new("")), next.file_name().unwrap_or_default());
        let folder = root.join(folder).canonicalize().with_context(|| format!("/{}", next.display()))?;
        let file = folder.join(name);
        let inside = file.strip_prefix(&root).with_context(|| format!("{} leads out of the system", next.display()))?;
        found.push(inside.display().to_string());
        match fs::read_link(&file) {
            Ok(target) => {
                next = match target.strip_prefix("/") {
                    Ok(absolute) => absolute.to_owned(),
                    Err(_) => inside.parent().unwrap_or(Path::new("")).join(target),
                }
            }
            Err(_) => {
                fs::metadata(&file).with_context(|| format!("/{}", inside.display()))?;
                return Ok(found);
            }
        }
    }
}

/// Puts the archive's images into the store of the system below `root`, by a containerd of our own for this time.
pub fn import(archive: &Path, root: &Path, programs: &Programs) -> Result<()> {
    let state = archive.with_extension("state");
    fs::create_dir(&state)?;
    let store = root.join(STORE);
    fs::write(state.join(CONFIG), configuration(&store, &state))?;
    let log = state.join("log");
    let running = Running::start(&programs.containerd.join("containerd"), &state, &log)?;
    let ctr = |args: &[&str]| {
        let mut command = Command::new(programs.containerd.join("ctr"));
        command.current_dir(&state).args(["--address", SOCKET, "--namespace", "k8s.io"]);
        run::output(command.args(args))
    };
    let said = || {
        let log = fs::read_to_string(&log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    };
    run::wait_for("containerd", Duration::from_secs(30), || ctr(&["version"])).with_context(said)?;
    ctr(&["images", "import", "--no-unpack", &archive.display().to_string()]).with_context(said)?;
    drop(running);
    for entry in fs::read_dir(&store)? {
        let entry = entry?;
        if !KEPT.iter().any(|kept| entry.file_name() == *kept) {
            if entry.file_type()?.is_dir() { fs::remove_dir_all(entry.path())? } else { fs::remove_file(entry.path())? }
        }
    }
    let (database, copy) = (store.join(DATABASE), state.join("copy.db"));
    let mut store = Command::new(programs.store.join("store"));
    run::output(store.arg(&database).arg(&copy).arg(image::TIME.to_string()))?;
    fs::copy(&copy, &database)?;
    fs::remove_dir_all(&state)?;
    Ok(())
}

fn configuration(store: &Path, state: &Path) -> String {
    format!(
        "version = 3
root = {store:?}
state = {state:?}
disabled_plugins = [\"io.containerd.cri.v1.images\", \"io.containerd.cri.v1.runtime\", \"io.containerd.grpc.v1.cri\", \
\"io.containerd.nri.v1.nri\"]

[grpc]
  address = {SOCKET:?}
"
    )
}

/// A containerd that ends with this value.
struct Running(Child);

impl Running {
    fn start(program: &Path, folder: &Path, log: &Path) -> Result<Self> {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(program).args(["--config", CONFIG]).current_dir(folder);
        let log = fs::File::create(log)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        Ok(Self(command.spawn().context("cannot start containerd")?))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        use rustix::process::{Pid, Signal, kill_process};
        // It closes its store on SIGTERM.
        if let Some(pid) = Pid::from_raw(self.0.id().cast_signed()) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn libraries_are_what_ldd_names() {
        let said = "/usr/sbin/nft:\n\tlinux-vdso.so.1 (0x7ffd)\n\tlibm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x7f)\n\t/lib64/ld-linux-x86-64.so.2 (0x7f)\n";
        assert_eq!(
            libraries(said).into_iter().collect::<Vec<_>>(),
            ["/lib/x86_64-linux-gnu/libm.so.6", "/lib64/ld-linux-x86-64.so.2"]
        );
    }

    #[test]
    fn a_link_is_followed_within_the_system() {
        use std::os::unix::fs::symlink;
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        fs::create_dir_all(at("usr/sbin")).unwrap();
        fs::create_dir_all(at("etc/alternatives")).unwrap();
        symlink("usr/sbin", at("sbin")).unwrap();
        symlink("/etc/alternatives/iptables", at("usr/sbin/iptables")).unwrap();
        symlink("/usr/sbin/iptables-nft", at("etc/alternatives/iptables")).unwrap();
        symlink("multi", at("usr/sbin/iptables-nft")).unwrap();
        fs::write(at("usr/sbin/multi"), "").unwrap();
        assert_eq!(
            chain(root.path(), "sbin/iptables").unwrap(),
            ["usr/sbin/iptables", "etc/alternatives/iptables", "usr/sbin/iptables-nft", "usr/sbin/multi"]
        );
        assert!(chain(root.path(), "usr/sbin/absent").is_err());
    }
}
