//! A cgroup a node, below one a cluster, in every hierarchy the machine has.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::run;

const MOUNT: &str = "/sys/fs/cgroup";
/// The folder of all clusters in every hierarchy.
const TOP: &str = "kubectl-bookaccess";

/// kubelet's cgroupRoot of a node.
pub fn root(cluster: &str, node: &str) -> String {
    format!("/{TOP}/{cluster}/{node}")
}

/// True where the machine has the one hierarchy of version 2.
pub fn unified() -> bool {
    Path::new(MOUNT).join("cgroup.controllers").exists()
}

/// The hierarchies: the mount itself (version 2), or one a controller (version 1).
fn hierarchies() -> Vec<PathBuf> {
    if unified() {
        return vec![PathBuf::from(MOUNT)];
    }
    let Ok(entries) = fs::read_dir(MOUNT) else {
        return Vec::new();
    };
    entries
        .filter_map(|e| e.ok().map(|e| e.path()))
        .filter(|p| !p.is_symlink() && p.join("cgroup.procs").exists())
        .collect()
}

/// Makes a node's cgroup with a leaf for its daemons in every hierarchy.
pub fn make(cluster: &str, node: &str) -> Result<()> {
    for hierarchy in hierarchies() {
        let mut folder = hierarchy.clone();
        let mut above = vec![hierarchy.clone()];
        for part in [TOP, cluster, node, "daemons"] {
            folder.push(part);
            fs::create_dir_all(&folder).with_context(|| format!("cannot make cgroup {}", folder.display()))?;
            // A new cpuset is empty, and takes no process before it has processors and memory.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let parent = above.last().map(|p| p.join(file));
                if let Some(value) = parent.and_then(|p| fs::read_to_string(p).ok())
                    && !unified()
                {
                    fs::write(folder.join(file), value.trim())?;
                }
            }
            above.push(folder.clone());
        }
        if unified() {
            // kubelet wants the controllers handed down to its cgroupRoot; the leaf below it needs none.
            for folder in &above[..above.len() - 1] {
                let controllers = fs::read_to_string(folder.join("cgroup.controllers"))?;
                for controller in controllers.split_whitespace() {
                    // One that the machine keeps for itself is not ours to have.
                    let _ = fs::write(folder.join("cgroup.subtree_control"), format!("+{controller}"));
                }
            }
        }
    }
    Ok(())
}

/// Moves this process into the node's leaf.
pub fn enter(cluster: &str, node: &str) -> Result<()> {
    for hierarchy in hierarchies() {
        let procs = hierarchy.join(TOP).join(cluster).join(node).join("daemons/cgroup.procs");
        fs::write(&procs, "0").with_context(|| format!("cannot enter {}", procs.display()))?;
    }
    Ok(())
}

/// The processes in a cluster's cgroups.
pub fn processes(cluster: &str) -> Vec<u32> {
    fn collect(folder: &Path, found: &mut Vec<u32>) {
        if let Ok(text) = fs::read_to_string(folder.join("cgroup.procs")) {
            found.extend(text.lines().filter_map(|l| l.parse::<u32>().ok()).filter(|p| *p > 0));
        }
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                collect(&entry.path(), found);
            }
        }
    }
    let mut found = Vec::new();
    for hierarchy in hierarchies() {
        collect(&hierarchy.join(TOP).join(cluster), &mut found);
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// The clusters that have cgroups.
pub fn clusters() -> Vec<String> {
    let mut names: Vec<String> = hierarchies()
        .iter()
        .filter_map(|h| fs::read_dir(h.join(TOP)).ok())
        .flatten()
        .flatten()
        .filter(|e| e.path().is_dir())
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names.dedup();
    names
}

/// Removes a cluster's cgroups.
pub fn remove(cluster: &str) -> Result<()> {
    remove_below(&format!("{TOP}/{cluster}"))?;
    for hierarchy in hierarchies() {
        // The folder of all clusters goes with the last one.
        let _ = fs::remove_dir(hierarchy.join(TOP));
    }
    Ok(())
}

/// Removes what is at this path of every hierarchy; its processes must have ended, but the kernel may still be busy with
/// them.
pub fn remove_below(path: &str) -> Result<()> {
    run::wait_for(&format!("removing the cgroups of {path}"), Duration::from_secs(20), || {
        hierarchies().iter().try_for_each(|hierarchy| remove_tree(&hierarchy.join(path)))
    })
}

fn remove_tree(folder: &Path) -> Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    match fs::remove_dir(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("cannot remove cgroup {}", folder.display()))
        }
        _ => Ok(()),
    }
}
