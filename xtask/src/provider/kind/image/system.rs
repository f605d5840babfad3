//! The files of a node's system: Debian's, less what a node does not need, plus Kubernetes and what kind looks for.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::programs::{CNI_IMAGE, Programs};
use crate::run;

/// Where the first program lies, with the leading slash.
pub const ENTRYPOINT: &str = "/usr/local/bin/entrypoint";

/// A file of ours: where it lies, its mode and its text.
type Text = (&'static str, u32, &'static str);

const TEXTS: &[Text] = &[
    ("usr/local/bin/entrypoint", 0o755, include_str!("overlay/entrypoint")),
    ("etc/systemd/system/containerd.service", 0o644, include_str!("overlay/containerd.service")),
    ("etc/systemd/system/kubelet.service", 0o644, include_str!("overlay/kubelet.service")),
    ("etc/containerd/config.toml", 0o644, include_str!("overlay/containerd.toml")),
    ("kind/manifests/default-cni.yaml", 0o644, include_str!("overlay/default-cni.yaml")),
    ("kind/manifests/default-storage.yaml", 0o644, include_str!("overlay/default-storage.yaml")),
];

/// What systemd starts, and by which target. All else of Debian's is not for a container, or acts on the whole machine.
const UNITS: &[(&str, &str)] = &[
    ("sysinit.target", "/usr/lib/systemd/system/systemd-journald.service"),
    ("sockets.target", "/usr/lib/systemd/system/systemd-journald-dev-log.socket"),
    ("sockets.target", "/usr/lib/systemd/system/systemd-journald.socket"),
    ("multi-user.target", "/etc/systemd/system/containerd.service"),
    ("multi-user.target", "/etc/systemd/system/kubelet.service"),
];

/// What would be started all the same: sockets that journald wants, and the machine's audit is not a container's.
const MASKED: [&str; 1] = ["systemd-journald-audit.socket"];

/// Network plugins that the pod network names, or containerd itself does.
const PLUGINS: [&str; 4] = ["host-local", "loopback", "portmap", "ptp"];

/// Folders that are emptied: what the packages' installation left, which is another each time.
const EMPTIED: &[&str] = &["run", "tmp", "var/cache", "var/lib/apt/lists", "var/log", "var/tmp"];

/// What was this machine's.
const FOREIGN: &[&str] = &["etc/hostname", "etc/resolv.conf"];

/// What the image depends on of this file's neighbours.
pub fn inputs() -> String {
    TEXTS.iter().map(|(path, mode, text)| format!("{path} {mode:o}\n{text}")).collect()
}

/// Unpacks Debian's system into a folder in `work`, and gives the folder.
pub fn unpack(work: &Path, base: &Path) -> Result<PathBuf> {
    let root = work.join("root");
    fs::create_dir(&root)?;
    fs::set_permissions(&root, fs::Permissions::from_mode(0o755))?;
    // A container gets a /dev of its own.
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--numeric-owner", "--exclude=./dev/*", "--directory"]).arg(&root).arg("--file").arg(base);
    run::output(&mut tar)?;
    for folder in EMPTIED {
        empty(&root.join(folder), |_| true)?;
    }
    for file in FOREIGN {
        let _ = fs::remove_file(root.join(file));
    }
    empty(&root.join("usr/lib/cni"), |name| !PLUGINS.contains(&name))?;
    for folder in ["etc/systemd/system", "usr/lib/systemd/system"] {
        for entry in fs::read_dir(root.join(folder))? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().ends_with(".wants") {
                empty(&entry.path(), |_| true)?;
            }
        }
    }
    Ok(root)
}

/// Adds Kubernetes, containerd and what kind looks for.
pub fn complete(root: &Path, version: &str, programs: &Programs) -> Result<()> {
    let places = [
        (&programs.kubernetes, &["kubectl", "kubelet"][..]),
        (&programs.kubeadm, &["kubeadm"]),
        (&programs.containerd, &["containerd", "containerd-shim-runc-v2", "ctr"]),
    ];
    for (folder, names) in places {
        for name in names {
            take(&folder.join(name), &root.join("usr/bin").join(name))?;
        }
    }
    for (path, mode, text) in TEXTS {
        write(&root.join(path), *mode, &named(text, &programs.pause))?;
    }
    write(&root.join("kind/version"), 0o644, version)?;
    // Each node makes its own.
    write(&root.join("etc/machine-id"), 0o644, "")?;
    fs::create_dir(root.join("kind/kubelet.conf.d"))?;
    for (target, unit) in UNITS {
        let folder = root.join(format!("etc/systemd/system/{target}.wants"));
        fs::create_dir_all(&folder)?;
        symlink(unit, folder.join(Path::new(unit).file_name().unwrap_or_default()))?;
    }
    for unit in MASKED {
        symlink("/dev/null", root.join("etc/systemd/system").join(unit))?;
    }
    let default = root.join("etc/systemd/system/default.target");
    let _ = fs::remove_file(&default);
    symlink("/usr/lib/systemd/system/multi-user.target", default)?;
    Ok(())
}

/// A text of ours with the images' names in it.
fn named(text: &str, pause: &str) -> String {
    text.replace("@PAUSE@", pause).replace("@CNI@", CNI_IMAGE)
}

/// Gives a program another place: by a link where that can be, since these files are large.
pub fn take(program: &Path, place: &Path) -> Result<()> {
    if let Some(folder) = place.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::hard_link(program, place)
        .or_else(|_| fs::copy(program, place).map(drop))
        .with_context(|| format!("cannot copy {} to {}", program.display(), place.display()))
}

fn write(path: &Path, mode: u32, text: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    Ok(())
}

/// Removes of a folder's entries those whose name is unwanted.
fn empty(folder: &Path, unwanted: impl Fn(&str) -> bool) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry?;
        if !unwanted(&entry.file_name().to_string_lossy()) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn text(path: &str) -> String {
        let (_, _, text) = TEXTS.iter().find(|(at, ..)| at.ends_with(path)).unwrap();
        named(text, "registry.k8s.io/pause:3.10.1")
    }

    #[test]
    fn every_name_is_filled_in() {
        assert!(text("config.toml").contains("sandbox = \"registry.k8s.io/pause:3.10.1\""));
        assert!(text("default-cni.yaml").contains("image: bookaccess.local/pod-network:1\n"));
        for (path, ..) in TEXTS {
            assert!(!text(path).contains('@'), "{path}");
        }
    }

    #[test]
    fn kind_finds_its_words() {
        let network = text("default-cni.yaml");
        for words in ["would you kindly template this file", "would you kindly patch this file", "{{ .PodSubnet }}"] {
            assert!(network.contains(words), "{words}");
        }
        assert!(text("entrypoint").contains("'detected cgroup v1'"));
    }

    #[test]
    fn the_entrypoint_is_a_shell_script() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("entrypoint");
        fs::write(&script, text("entrypoint")).unwrap();
        run::output(Command::new("sh").arg("-n").arg(script)).unwrap();
    }

    #[test]
    fn only_what_is_unwanted_goes() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("old/below")).unwrap();
        symlink("/nowhere", at("link")).unwrap();
        fs::write(at("ptp"), "").unwrap();
        empty(folder.path(), |name| !PLUGINS.contains(&name)).unwrap();
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["ptp"]);
    }
}
