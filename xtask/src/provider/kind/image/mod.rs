//! A node image for kind, from Debian packages and Go modules alone: for machines that reach no image registry.
//!
//! It is made as the files of one layer: Debian's system, Kubernetes' programs and containerd, and the images of the
//! control plane and the add-ons, already in containerd's store. What a node needs of the machine it runs on, its
//! entrypoint finds out when it starts; so kind's own configuration needs no patch for it.

mod packages;
mod preload;
mod programs;
mod system;

use std::fs::File;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, bail};

use crate::hash;
use crate::image::{self, System};
use crate::provider::native::{build, coredns, plan};
use programs::Programs;

/// The newest Kubernetes that kind v0.30.0 knows, which is the newest kind for cgroup v1.
pub const VERSION: &str = "v1.34.4";

/// The pod network's program, which is `cni/main.go`.
const CNI: &str = include_str!("cni/main.go");

/// The copier of a containerd's database.
const STORE: &str = include_str!("store/main.go");

/// What systemd takes for the wish to shut down in order.
const STOP_SIGNAL: &str = "SIGRTMIN+3";

/// A node image that can be loaded.
#[derive(Debug)]
pub struct NodeImage {
    /// As `docker load` reads it.
    pub archive: PathBuf,
    /// Its repository and tag.
    pub name: String,
}

/// Builds the image for a Kubernetes version if it is not in the cache; with `install` the Debian packages that the
/// building needs are installed.
pub fn ensure(version: &str, install: bool) -> Result<NodeImage> {
    plan::minor(version)?;
    let tag = format!("{version}-{}", hash::short(&inputs(version)));
    let cache = build::cache_folder()?;
    let image =
        NodeImage { archive: cache.join(format!("node-{tag}.tar")), name: format!("kubectl-bookaccess/node:{tag}") };
    if image.archive.exists() {
        return Ok(image);
    }
    require_root()?;
    std::fs::create_dir_all(&cache)?;
    let lock = File::create(cache.join("node-image.lock"))?;
    build::lock_with_words(&lock, "the node image")?;
    if image.archive.exists() {
        return Ok(image);
    }
    build::remove_leftovers(&cache, "node-image")?;
    packages::require(install)?;
    let programs = Programs::ensure(version)?;
    let base = packages::ensure(install)?;
    let started = Instant::now();
    println!("putting the node image {} together (once; kept in {})", image.name, image.archive.display());
    let work = tempfile::Builder::new().prefix("node-image.tmp-").tempdir_in(&cache)?;
    let step = |what: &str| println!("  {:5.1} s  {what}", started.elapsed().as_secs_f32());
    let root = system::unpack(work.path(), &base)?;
    step("Debian's system unpacked");
    let archive = preload::archive(work.path(), &root, &programs)?;
    step("images of the control plane and the add-ons packed");
    preload::import(&archive, &root, &programs)?;
    std::fs::remove_file(&archive)?;
    step("images in containerd's store");
    system::complete(&root, version, &programs)?;
    let layer = work.path().join("layer.tar");
    image::pack_all(&layer, &root)?;
    let system = System {
        name: &image.name,
        layer: &layer,
        compressed: None,
        entrypoint: system::ENTRYPOINT,
        stop_signal: Some(STOP_SIGNAL),
    };
    image::write_systems(&image.archive, &[system])?;
    step("archive written");
    Ok(image)
}

/// All that the image depends on, but for new packages within the distribution's release.
fn inputs(version: &str) -> String {
    let sources: [&[u8]; 6] = [
        include_bytes!("mod.rs"),
        include_bytes!("preload.rs"),
        include_bytes!("programs.rs"),
        include_bytes!("system.rs"),
        include_bytes!("../../native/build.rs"),
        include_bytes!("../../../image.rs"),
    ];
    let sources: Vec<_> = sources.iter().map(|text| hash::sha256(text)).collect();
    let arch = std::env::consts::ARCH;
    let coredns = coredns::source();
    [version, arch, CNI, STORE, &coredns, &sources.join(" "), &packages::inputs(), &system::inputs()].join("\n")
}

fn require_root() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!(
            "building a node image needs root: its files belong to several users\n  run: sudo env \"PATH=$PATH\" cargo xtask node-image"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_changes_with_what_is_in_it() {
        let one = hash::short(&inputs("v1.34.4"));
        assert_eq!(one.len(), 12);
        assert_eq!(one, hash::short(&inputs("v1.34.4")));
        assert_ne!(one, hash::short(&inputs("v1.34.5")));
    }
}
