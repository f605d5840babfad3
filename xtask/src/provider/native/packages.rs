//! The Debian packages a cluster needs, installed by the command itself.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::provider::standin;
use crate::run;

/// A file of each package shows that it is there; where a folder is open, several distributions' places count.
const NEEDED: &[Package] = &[
    ("runc", &["/usr/sbin/runc", "/usr/bin/runc"]),
    ("containernetworking-plugins", &["/usr/lib/cni/bridge"]),
    ("iptables", &["/usr/sbin/iptables"]),
    ("nftables", &["/usr/sbin/nft"]),
    ("netbase", &["/etc/protocols"]),
    ("iproute2", &["/usr/sbin/ip", "/sbin/ip", "/usr/bin/ip"]),
    ("conntrack", &["/usr/sbin/conntrack"]),
    ("util-linux", &["/usr/bin/nsenter"]),
    ("mount", &["/usr/bin/mount", "/bin/mount"]),
    ("curl", &["/usr/bin/curl"]),
    ("etcd-server", &["/usr/bin/etcd"]),
    ("procps", &["/usr/bin/pgrep"]),
    standin::BUSYBOX,
    ("kmod", &["/usr/bin/kmod", "/bin/kmod"]),
    ("ca-certificates", &["/usr/sbin/update-ca-certificates"]),
];

/// Says "do not start" to every packaged service; Debian's invoke-rc.d asks it (policy-rc.d interface).
const POLICY: &str = "/usr/sbin/policy-rc.d";
const DO_NOT_START: &str = "#!/bin/sh\n# put here by xtask while it installs packages\nexit 101\n";

/// A package and files of which one shows that it is there.
pub type Package = (&'static str, &'static [&'static str]);

/// The packages of which no file is there.
fn missing(needed: &[Package]) -> Vec<&'static str> {
    needed
        .iter()
        .filter(|(_, files)| !files.iter().any(|f| Path::new(f).exists()))
        .map(|(package, _)| *package)
        .collect()
}

/// Installs what a cluster lacks, after saying so; with `install` false it refuses with the list.
pub fn ensure(install: bool) -> Result<()> {
    ensure_these(NEEDED, install)
}

/// As [`ensure`], for other packages.
pub fn ensure_these(needed: &[Package], install: bool) -> Result<()> {
    let wanted = missing(needed);
    if wanted.is_empty() {
        return Ok(());
    }
    let list = wanted.join(" ");
    if !install {
        bail!(
            "these Debian packages are missing: {list}\n  install them yourself (apt-get install -y --no-install-recommends {list}), or run without --no-install"
        );
    }
    if !Path::new("/usr/bin/apt-get").exists() {
        bail!(
            "these programs are missing and this is no Debian: {list}\n  install their equivalents, so that the files lie where Debian has them"
        );
    }
    let _lock = one_at_a_time()?;
    let wanted = missing(needed);
    if wanted.is_empty() {
        return Ok(());
    }
    println!("installing Debian packages: {}", wanted.join(" "));
    let policy = Policy::put()?;
    let first = apt(&wanted);
    if first.is_err() {
        refresh()?;
        apt(&wanted)?;
    }
    drop(policy);
    run::check()?;
    let still = missing(needed);
    if !still.is_empty() {
        bail!("installed, but their programs are not where Debian has them: {}", still.join(" "));
    }
    Ok(())
}

/// A second command waits for the first one's installation.
fn one_at_a_time() -> Result<std::fs::File> {
    use rustix::fs::{FlockOperation, flock};
    std::fs::create_dir_all("/run/lock")?;
    let file = std::fs::File::create("/run/lock/kubectl-bookaccess-packages.lock")?;
    run::wait_for("the other installation", Duration::from_secs(900), || {
        Ok(flock(&file, FlockOperation::NonBlockingLockExclusive)?)
    })?;
    Ok(file)
}

fn apt(packages: &[&str]) -> Result<()> {
    let mut args = vec!["install", "-y", "-qq", "--no-install-recommends"];
    args.extend(packages);
    apt_get(&args)
}

/// Fetches the lists of packages anew.
pub fn refresh() -> Result<()> {
    println!("refreshing the package lists (apt-get update)");
    apt_get(&["update", "-qq"])
}

/// Not interruptible: a package manager that is killed leaves a half-configured system. It waits for another one
/// that runs at the same time.
fn apt_get(args: &[&str]) -> Result<()> {
    use std::os::unix::process::CommandExt;
    let output = Command::new("apt-get")
        .args(["-o", "DPkg::Lock::Timeout=300"])
        .args(args)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .process_group(0)
        .output()
        .context("cannot start apt-get")?;
    if !output.status.success() {
        bail!("apt-get {} failed: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// A policy-rc.d of ours, gone when dropped; one that was there is left alone.
struct Policy(bool);

impl Policy {
    fn put() -> Result<Self> {
        use std::os::unix::fs::PermissionsExt;
        // Ours may have been left by a killed command.
        if std::fs::read_to_string(POLICY).is_ok_and(|text| text != DO_NOT_START) {
            return Ok(Self(false));
        }
        std::fs::write(POLICY, DO_NOT_START)
            .and_then(|()| std::fs::set_permissions(POLICY, std::fs::Permissions::from_mode(0o755)))
            .with_context(|| format!("cannot write {POLICY}"))?;
        Ok(Self(true))
    }
}

impl Drop for Policy {
    fn drop(&mut self) {
        if self.0 {
            let _ = std::fs::remove_file(POLICY);
        }
    }
}
