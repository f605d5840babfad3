//! The images that stand in for those of a real cluster: of the applications, built from this workspace, and one with a
//! shell, as some image of every real node has.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::native::packages::Package;
use crate::image::{self, Image};
use crate::run;

/// The name manifests' images are replaced by.
pub const IMAGE: &str = "bookaccess.local/standin:1";
/// A shell and its programs.
const SHELL: &str = "bookaccess.local/busybox:1";
/// Where Debian has them.
pub const BUSYBOX: Package = ("busybox-static", &["/bin/busybox", "/usr/bin/busybox"]);

/// This workspace's folder.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/")).to_owned()
}

fn target() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

fn folder() -> PathBuf {
    workspace().join("target/standin")
}

/// Where the static program lies once it is built.
pub fn program() -> PathBuf {
    folder().join(target()).join("release/standin")
}

/// Builds the static program and puts it into an archive at `archive`.
pub fn build(archive: &Path) -> Result<()> {
    let (target, folder) = (target(), folder());
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // A target folder of its own: other flags would throw the others' work away.
    let mut child = Command::new(cargo)
        .args(["build", "--quiet", "--release", "-p", "standin", "--target", &target, "--target-dir"])
        .arg(&folder)
        .current_dir(workspace())
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .stdin(Stdio::null())
        .process_group(0)
        .spawn()
        .context("cannot start cargo: is it on PATH? Under sudo: sudo env PATH=\"$PATH\" cargo xtask …")?;
    if !run::wait(&mut child)?.success() {
        bail!("the stand-in applications (crate standin) do not build");
    }
    let program = program();
    if let Some(above) = archive.parent() {
        std::fs::create_dir_all(above)?;
    }
    let standin = Image { name: IMAGE, program: &program, entrypoint: "/standin", folders: &["/tmp"] };
    // Where it is missing and may not be installed, the scenario of the probe pod fails, and no other.
    let shell = BUSYBOX.1.iter().map(Path::new).find(|p| p.exists());
    let shell = shell.map(|program| Image { name: SHELL, program, entrypoint: "/bin/sh", folders: &["/tmp"] });
    image::write(archive, &[standin].into_iter().chain(shell).collect::<Vec<_>>())
}
