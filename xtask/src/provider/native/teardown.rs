//! The end of a cluster: also of one whose start was interrupted or killed.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::cgroup;
use super::plan::{Places, data_root, run_root};
use super::processes::{self, Running};

/// The file in the run folder of a kept client that remembers which generation of cluster it last saw.
const KEPT: &str = "kept-generation";

/// The names of all clusters of which anything is left.
pub fn names() -> Vec<String> {
    let mut names: BTreeSet<String> = processes::members(None).into_iter().map(|r| r.cluster).collect();
    names.extend(cgroup::clusters());
    for root in [run_root(), data_root()] {
        for entry in fs::read_dir(root).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                names.insert(entry.file_name().to_string_lossy().into_owned());
            }
        }
    }
    names.into_iter().collect()
}

/// Ends all that belongs to the cluster. With `keep_client` the client stays, with what runs in it, for the next
/// cluster of this name.
pub fn down(name: &str, keep_client: bool) -> Result<()> {
    let places = Places::new(name);
    let members = processes::members(Some(name));
    let keep = keep_client && members.iter().any(|m| m.member == "client");
    let ending: Vec<Running> = members.into_iter().filter(|m| !(keep && m.member == "client")).collect();
    let generation = generation(&places)?;
    processes::end(name, &ending)?;
    cgroup::remove(name)?;
    forget(&places, keep.then_some(generation.unwrap_or(0)))
}

/// Removes a cluster's folders; those of a client that is kept stay, with the generation that it saw.
pub fn forget(places: &Places, kept: Option<u8>) -> Result<()> {
    if let Some(generation) = kept {
        remove_all_but(&places.run, "client")?;
        remove_all_but(&places.data, "client")?;
        fs::create_dir_all(&places.run)?;
        fs::write(places.run.join(KEPT), generation.to_string())?;
    } else {
        for folder in [&places.run, &places.data] {
            if folder.exists() {
                fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
            }
        }
    }
    for root in [run_root(), data_root()] {
        // Goes with the last cluster.
        let _ = fs::remove_dir(root);
    }
    Ok(())
}

/// The generation of the cluster that runs, or that a kept client last saw.
pub fn generation(places: &Places) -> Result<Option<u8>> {
    if let Some(descriptor) = super::Descriptor::load(places).ok().flatten() {
        return Ok(Some(descriptor.generation));
    }
    Ok(fs::read_to_string(places.run.join(KEPT)).ok().and_then(|t| t.trim().parse().ok()))
}

fn remove_all_but(folder: &Path, kept: &str) -> Result<()> {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name() == kept {
            continue;
        }
        let path = entry.path();
        if entry.file_type()?.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) }
            .with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}
