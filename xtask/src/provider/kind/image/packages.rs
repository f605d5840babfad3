//! The system below a node: Debian packages in an archive of files, made once and kept in the cache.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::provider::native::{build, packages};
use crate::{hash, image, run};

/// What a node runs, and what the suites run on nodes, client and gateway.
const INCLUDED: &[&str] = &[
    "ca-certificates",
    "conntrack",
    "containernetworking-plugins",
    "curl",
    "hostname",
    "ipset",
    "iproute2",
    "iptables",
    "iputils-ping",
    "kmod",
    "mount",
    "netbase",
    "nftables",
    "procps",
    "runc",
    "systemd-sysv",
    "util-linux",
];

/// What nobody reads in a node.
const LEFT_OUT: &[&str] = &["doc", "info", "lintian", "locale", "man"];

/// What makes the system, on this machine.
const NEEDED: &[packages::Package] = &[
    ("mmdebstrap", &["/usr/bin/mmdebstrap"]),
    ("debian-archive-keyring", &["/usr/share/keyrings/debian-archive-keyring.gpg"]),
];

/// What the archive depends on besides the distribution.
pub fn inputs() -> String {
    format!("{INCLUDED:?} {LEFT_OUT:?} {}", hash::sha256(include_bytes!("packages.rs")))
}

/// Fails where this machine cannot make the system, and installs what it lacks for that.
pub fn require(install: bool) -> Result<()> {
    if archive()?.exists() { Ok(()) } else { packages::ensure_these(NEEDED, install) }
}

/// The archive with the system, built if it is not in the cache.
pub fn ensure(install: bool) -> Result<PathBuf> {
    let archive = archive()?;
    if archive.exists() {
        return Ok(archive);
    }
    let release = this_release()?;
    let sources = sources(&release, install)?;
    let work = tempfile::Builder::new().prefix("node-image.tmp-").tempdir_in(build::cache_folder()?)?;
    let started = Instant::now();
    println!(
        "installing {} Debian packages into a node's system (once; kept in {})",
        INCLUDED.len(),
        archive.display()
    );
    let draft = work.path().join("base.tar");
    bootstrap(&draft, work.path(), &release, &sources, started)?;
    std::fs::rename(&draft, &archive)?;
    println!("installed them in {} s", started.elapsed().as_secs());
    Ok(archive)
}

fn archive() -> Result<PathBuf> {
    Ok(build::cache_folder()?.join(format!("node-base-{}-{}.tar", this_release()?, hash::short(&inputs()))))
}

fn this_release() -> Result<String> {
    release(&std::fs::read_to_string("/etc/os-release").unwrap_or_default())
}

/// The Debian release that this machine is, from the text of os-release(5).
fn release(text: &str) -> Result<String> {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).map(unquoted);
    match (field("ID"), field("VERSION_CODENAME")) {
        (Some("debian"), Some(release)) => Ok(release.to_owned()),
        (id, _) => bail!(
            "a node image is built from the packages of a Debian machine, and this one is {}\n  build it on a Debian machine, or use one that can pull kindest/node",
            id.unwrap_or("unknown")
        ),
    }
}

fn unquoted(value: &str) -> &str {
    value.trim_matches('"')
}

/// The lines of sources.list(5) with which this machine reaches Debian's own packages.
fn sources(release: &str, install: bool) -> Result<Vec<String>> {
    let ask = || {
        let mut apt = Command::new("apt-get");
        apt.args(["indextargets", "--format", "$(REPO_URI) $(RELEASE) $(CODENAME) $(COMPONENT)"]);
        run::output(apt.args(["Created-By: Packages", "Origin: Debian"])).map(|text| lines(&text, release))
    };
    let mut found = ask()?;
    if found.is_empty() && install {
        packages::refresh()?;
        found = ask()?;
    }
    if found.is_empty() {
        bail!("apt knows no package list of Debian {release}: run apt-get update");
    }
    Ok(found)
}

fn lines(targets: &str, release: &str) -> Vec<String> {
    let mut lines: Vec<_> = targets
        .lines()
        .filter_map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
            [uri, suite, codename, "main"] if codename.starts_with(release) => Some(format!("deb {uri} {suite} main")),
            _ => None,
        })
        .collect();
    lines.sort();
    lines.dedup();
    lines
}

fn bootstrap(archive: &Path, work: &Path, release: &str, sources: &[String], started: Instant) -> Result<()> {
    // setpriv and unshare: all of it ends with an xtask that is killed, and none of its mounts, /proc and /sys among them,
    // is ever seen by the machine, on which its folder is removed.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "unshare", "--fork", "--kill-child", "--pid", "--mount-proc"]);
    command.args(["--mount", "--propagation", "private"]);
    command.args(["mmdebstrap", "--mode=root", "--variant=minbase", "--format=tar"]);
    command.arg(format!("--include={}", INCLUDED.join(",")));
    for folder in LEFT_OUT {
        command.arg(format!("--dpkgopt=path-exclude=/usr/share/{folder}/*"));
    }
    command.arg(release).arg(archive).args(sources);
    // mmdebstrap gives all files this time.
    command.env("SOURCE_DATE_EPOCH", image::TIME.to_string()).env("TMPDIR", work).env("LC_ALL", "C.UTF-8");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().context("cannot start mmdebstrap")?;
    let progress = child.stderr.take().map(|stderr| std::thread::spawn(move || follow(stderr, started)));
    let status = run::wait(&mut child)?;
    let last = progress.and_then(|p| p.join().ok()).unwrap_or_default();
    if !status.success() {
        bail!("mmdebstrap failed:\n{}", last.join("\n"));
    }
    Ok(())
}

/// Says now and then what mmdebstrap is at, and keeps the end of what it says for the error.
fn follow(stderr: impl std::io::Read, started: Instant) -> Vec<String> {
    let mut said = Instant::now();
    let mut last = Vec::new();
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        if let Some(step) = line.strip_prefix("I: ")
            && said.elapsed() > Duration::from_secs(5)
        {
            println!("  packages: {}, {} s", step.trim_end_matches('.'), started.elapsed().as_secs());
            said = Instant::now();
        }
        last.push(line);
        if last.len() > 30 {
            last.remove(0);
        }
    }
    last
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_release_is_debians() {
        assert_eq!(release("ID=debian\nVERSION_ID=\"12\"\nVERSION_CODENAME=bookworm\n").unwrap(), "bookworm");
        let said = release("ID=\"fedora\"\nID_LIKE=debian\n").unwrap_err().to_string();
        assert!(said.contains("this one is fedora"), "{said}");
    }

    #[test]
    fn only_debians_own_suites_are_sources() {
        let targets = "http://a/debian/ bookworm bookworm main\nhttp://a/debian/ bookworm bookworm main\nhttp://a/debian/ bookworm bookworm contrib\nhttp://s/ bookworm-security bookworm-security main\nhttp://a/debian/ sid sid main\n";
        assert_eq!(
            lines(targets, "bookworm"),
            ["deb http://a/debian/ bookworm main", "deb http://s/ bookworm-security main"]
        );
    }
}
