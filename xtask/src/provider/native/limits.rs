//! A limit of the machine that clusters exhaust sooner than memory: how many inotify instances a user may have.

use std::fs;
use std::os::unix::fs::MetadataExt;

use anyhow::{Result, bail};

const LIMIT: &str = "/proc/sys/fs/inotify/max_user_instances";

/// What the programs of a provider's clusters use.
pub struct Use {
    control_plane: usize,
    node: usize,
}

/// API server and controller-manager watch their certificates; counted on v1.37.2. On each node kubelet (6), containerd
/// (2) and kube-proxy (1).
pub const NATIVE: Use = Use { control_plane: 9, node: 9 };
/// kubeadm's controller-manager watches more files, and each node has a systemd (3); counted on v1.34.4.
pub const KIND: Use = Use { control_plane: 14, node: 12 };

/// Fails where the programs of so many nodes would not get their inotify instances: kubelet says "too many open
/// files" then, and its node never becomes Ready.
pub fn check(each: &Use, nodes: usize) -> Result<()> {
    let Some(limit) = fs::read_to_string(LIMIT).ok().and_then(|t| t.trim().parse::<usize>().ok()) else {
        return Ok(());
    };
    judge(limit, in_use(), each, nodes)
}

fn judge(limit: usize, used: usize, each: &Use, nodes: usize) -> Result<()> {
    let needed = each.control_plane + each.node * nodes;
    if used + needed > limit {
        bail!(
            "the machine allows root {limit} inotify instances, {used} are in use and this cluster needs {needed}\n  end another cluster (cargo xtask cluster status shows them), or: sysctl -w fs.inotify.max_user_instances=1024"
        );
    }
    Ok(())
}

/// The instances of root's processes.
fn in_use() -> usize {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter(|process| process.metadata().is_ok_and(|m| m.uid() == 0))
        .filter_map(|process| fs::read_dir(process.path().join("fd")).ok())
        .flatten()
        .flatten()
        .filter_map(|fd| fs::read_link(fd.path()).ok())
        .filter(|target| target.to_string_lossy() == "anon_inode:inotify")
        .count()
}

#[cfg(test)]
mod tests {
    use super::{KIND, NATIVE, judge};

    #[test]
    fn three_clusters_fit_into_the_usual_limit_and_a_fourth_does_not() {
        assert!(judge(128, 0, &NATIVE, 3).is_ok());
        assert!(judge(128, 72, &NATIVE, 3).is_ok());
        assert!(judge(128, 108, &NATIVE, 3).is_err());
        assert!(judge(128, 72, &KIND, 3).is_ok() && judge(128, 90, &KIND, 3).is_err());
    }
}
