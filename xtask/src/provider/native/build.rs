//! The Go programs of a cluster, built once from their modules into the user's cache folder.
//!
//! Kubernetes' own go.mod replaces its staging modules by folders, so `go install` refuses it. A module of our own
//! that requires it and replaces each of them by the released module of the same version builds.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::{coredns, plan};
use crate::{hash, run};

/// containerd's module version.
pub const CONTAINERD: &str = "v2.4.2";
/// CoreDNS' module version.
pub const COREDNS: &str = "v1.12.1";

const KUBERNETES_PROGRAMS: &[&str] =
    &["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl"];

/// Holds a pod's namespaces: waits for its end and reaps what a shared process namespace leaves.
const PAUSE_SOURCE: &str = r#"package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGCHLD)
	for got := range signals {
		if got != syscall.SIGCHLD {
			return
		}
		for {
			if pid, _ := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 {
				break
			}
		}
	}
}
"#;

/// The folders with the built programs.
#[derive(Clone, Debug)]
pub struct Programs {
    pub kubernetes: PathBuf,
    pub containerd: PathBuf,
    pub coredns: PathBuf,
    pub pause: PathBuf,
}

/// The folder of all that may be deleted and made again.
pub fn cache_folder() -> Result<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let base = set("XDG_CACHE_HOME")
        .filter(|p| p.is_absolute())
        .or_else(|| set("HOME").map(|home| home.join(".cache")))
        .context("neither XDG_CACHE_HOME nor HOME is set: there is no cache folder")?;
    Ok(base.join("kubectl-bookaccess"))
}

/// Where the programs of a build lie once they are built.
pub fn folder_of(name: &str, version: &str) -> Result<PathBuf> {
    Ok(cache_folder()?.join(format!("{name}-{version}")))
}

/// Builds what is not in the cache yet.
pub fn ensure(version: &str) -> Result<Programs> {
    Ok(Programs {
        containerd: containerd(CONTAINERD)?,
        coredns: coredns(COREDNS)?,
        pause: pause()?,
        kubernetes: kubernetes(version)?,
    })
}

/// The folder with the programs of nodes and control planes, and kubectl.
pub fn kubernetes(version: &str) -> Result<PathBuf> {
    of_kubernetes("kubernetes", version, KUBERNETES_PROGRAMS)
}

/// The folder with kubeadm.
pub fn kubeadm(version: &str) -> Result<PathBuf> {
    of_kubernetes("kubeadm", version, &["kubeadm"])
}

fn of_kubernetes(name: &str, version: &str, programs: &[&str]) -> Result<PathBuf> {
    let minor = plan::minor(version)?;
    let symbol = "k8s.io/component-base/version";
    Recipe {
        name,
        source: Source::Module("k8s.io/kubernetes"),
        version,
        ldflags: format!("-s -w -X {symbol}.gitVersion={version} -X {symbol}.gitMajor=1 -X {symbol}.gitMinor={minor}"),
        packages: programs.iter().map(|p| format!("k8s.io/kubernetes/cmd/{p}")).collect(),
    }
    .ensure()
}

/// The folder with containerd, its shim and ctr.
pub fn containerd(version: &str) -> Result<PathBuf> {
    let module = "github.com/containerd/containerd/v2";
    Recipe {
        name: "containerd",
        source: Source::Module(module),
        version,
        ldflags: format!("-s -w -X {module}/version.Version={version}"),
        packages: ["containerd", "containerd-shim-runc-v2", "ctr"]
            .iter()
            .map(|p| format!("{module}/cmd/{p}"))
            .collect(),
    }
    .ensure()
}

/// The folder with coredns: of its plugins those that kubeadm's Corefile names. The rest is as much again to compile,
/// most of it clients of clouds.
pub fn coredns(version: &str) -> Result<PathBuf> {
    own("coredns", &coredns::source(), &[(coredns::MODULE, version)])
}

/// The folder with etcd, whose program Go names `server`.
pub fn etcd(version: &str) -> Result<PathBuf> {
    let module = "go.etcd.io/etcd/server/v3";
    let packages = vec![module.to_owned()];
    Recipe { name: "etcd", source: Source::Module(module), version, ldflags: "-s -w".into(), packages }.ensure()
}

/// The folder with what holds a pod's namespaces.
pub fn pause() -> Result<PathBuf> {
    own("pause", PAUSE_SOURCE, &[])
}

/// The folder with one program out of a module. Not by `go install`: where a registry has no list of the module's versions,
/// that takes no version at all.
pub fn program(name: &str, module: &str, package: &str, version: &str, ldflags: String) -> Result<PathBuf> {
    Recipe { name, source: Source::Module(module), version, ldflags, packages: vec![package.to_owned()] }.ensure()
}

/// The folder with a program of our own: one file, and the modules that it needs with their versions. Its name changes
/// with them.
pub fn own(name: &str, text: &str, requires: &[(&str, &str)]) -> Result<PathBuf> {
    let packages = vec![".".to_owned()];
    let version = &hash::short(&format!("{requires:?}\n{text}"));
    Recipe { name, source: Source::Own { text, requires }, version, ldflags: "-s -w".into(), packages }.ensure()
}

struct Recipe<'a> {
    name: &'a str,
    source: Source<'a>,
    version: &'a str,
    ldflags: String,
    packages: Vec<String>,
}

enum Source<'a> {
    Module(&'a str),
    Own {
        /// The text of its `main.go`.
        text: &'a str,
        requires: &'a [(&'a str, &'a str)],
    },
}

impl Recipe<'_> {
    /// The folder with the programs, built if it is not there. Two that want it at once: the second waits.
    fn ensure(&self) -> Result<PathBuf> {
        let cache = &cache_folder()?;
        let folder = folder_of(self.name, self.version)?;
        if folder.is_dir() {
            return Ok(folder);
        }
        std::fs::create_dir_all(cache).with_context(|| format!("cannot make {}", cache.display()))?;
        let lock = File::create(cache.join(format!("{}.lock", self.name)))?;
        lock_with_words(&lock, self.name)?;
        if folder.is_dir() {
            return Ok(folder);
        }
        require_go()?;
        remove_leftovers(cache, self.name)?;
        let work = tempfile::Builder::new().prefix(&format!("{}.tmp-", self.name)).tempdir_in(cache)?;
        let started = Instant::now();
        println!("building {} {} with Go (once; kept in {})", self.name, self.version, folder.display());
        self.build(work.path(), started)?;
        std::fs::rename(work.path().join("bin"), &folder)?;
        println!("built {} {} in {} s", self.name, self.version, started.elapsed().as_secs());
        Ok(folder)
    }

    fn build(&self, work: &Path, started: Instant) -> Result<()> {
        // Of a program of our own the file is named, of a module the folder: Go names what it builds by itself there.
        let program = match self.source {
            Source::Own { text, requires } => {
                let requires: String =
                    requires.iter().map(|(module, version)| format!("\nrequire {module} {version}\n")).collect();
                let text_of_mod = format!("module e2e.local/{}\n\ngo 1.24.0\n{requires}", self.name);
                std::fs::write(work.join("go.mod"), text_of_mod)?;
                std::fs::write(work.join("main.go"), text)?;
                self.name
            }
            Source::Module(module) => {
                let upstream = download(module, self.version)?;
                std::fs::write(work.join("go.mod"), go_mod(self.name, module, self.version, &upstream)?)?;
                ""
            }
        };
        let bin = work.join("bin");
        std::fs::create_dir(&bin)?;
        let mut command = go();
        command
            .args(["build", "-v", "-trimpath", "-ldflags", &self.ldflags, "-o"])
            .arg(format!("{}/{program}", bin.display()))
            .args(&self.packages)
            .current_dir(work)
            .env("CGO_ENABLED", "0")
            .env("GOFLAGS", "-mod=mod")
            .env("GOWORK", "off")
            // It runs here.
            .env_remove("GOOS")
            .env_remove("GOARCH")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0);
        let mut child = command.spawn().context("cannot start go build")?;
        let progress = child.stderr.take().map(|stderr| {
            let name = self.name.to_owned();
            std::thread::spawn(move || follow(&name, stderr, started))
        });
        let status = run::wait(&mut child)?;
        let last = progress.and_then(|p| p.join().ok()).unwrap_or_default();
        if !status.success() {
            bail!("go build of {} {} failed:\n{}", self.name, self.version, last.join("\n"));
        }
        Ok(())
    }
}

/// Counts the packages `go build -v` names, says a line now and then, and keeps what was no package for the error.
fn follow(name: &str, stderr: impl std::io::Read, started: Instant) -> Vec<String> {
    let (mut packages, mut modules) = (0, 0);
    let mut said = Instant::now();
    let mut last = Vec::new();
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        if line.starts_with("go: downloading ") {
            modules += 1;
        } else if line.contains(' ') || line.starts_with('#') {
            last.push(line);
            if last.len() > 30 {
                last.remove(0);
            }
        } else {
            packages += 1;
        }
        if said.elapsed() > Duration::from_secs(10) {
            println!(
                "  {name}: {packages} packages compiled, {modules} modules downloaded, {} s",
                started.elapsed().as_secs()
            );
            said = Instant::now();
        }
    }
    last
}

/// Takes the lock, saying so where another holds it.
pub fn lock_with_words(lock: &File, name: &str) -> Result<()> {
    use rustix::fs::{FlockOperation, flock};
    if flock(lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
        return Ok(());
    }
    println!("waiting for another build of {name}");
    run::wait_for("the other build", Duration::from_secs(3600), || {
        Ok(flock(lock, FlockOperation::NonBlockingLockExclusive)?)
    })
}

/// What a killed build left; only called under the lock.
pub fn remove_leftovers(cache: &Path, name: &str) -> Result<()> {
    for entry in std::fs::read_dir(cache)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&format!("{name}.tmp-")) {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Go, which ends too where this program is killed; only Linux can do that.
fn go() -> Command {
    if !cfg!(target_os = "linux") {
        return Command::new("go");
    }
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "go"]);
    command
}

fn require_go() -> Result<()> {
    run::output(Command::new("go").arg("version")).map(drop).map_err(|_| {
        anyhow::anyhow!(
            "Go is not on PATH, and the cluster's programs are not built yet\n  install Go 1.24 or later (https://go.dev/dl/; it fetches a newer toolchain by itself where one is needed) and put its bin folder on PATH\n  under sudo: sudo env PATH=\"$PATH\" cargo xtask …"
        )
    })
}

/// The text of a module's own go.mod.
fn download(module: &str, version: &str) -> Result<String> {
    let json = run::output(
        Command::new("go")
            .args(["mod", "download", "-json", &format!("{module}@{version}")])
            .env("GOFLAGS", "")
            .current_dir("/"),
    )
    .map_err(|error| cannot_download(module, version, error))?;
    let answer: serde_json::Value = serde_json::from_str(&json)?;
    let path = answer["GoMod"].as_str().context("go mod download names no go.mod")?;
    Ok(std::fs::read_to_string(path)?)
}

/// What to say where a module's version cannot be had: which can, if it is the version's fault.
fn cannot_download(module: &str, version: &str, error: anyhow::Error) -> anyhow::Error {
    let mut list = Command::new("go");
    list.args(["list", "-m", "-versions", module]).env("GOFLAGS", "-mod=mod").current_dir("/");
    match run::output(&mut list) {
        Ok(versions) if !versions.split_whitespace().any(|v| v == version) => {
            anyhow::anyhow!("{module} has no version {version}\n  the newest are {}", newest(&versions).join(", "))
        }
        _ => error.context(format!("cannot download {module} {version}: is the Go module proxy reachable?")),
    }
}

/// Of each minor version the newest, of the newest six, from `go list -m -versions`.
fn newest(versions: &str) -> Vec<&str> {
    let mut found: Vec<&str> = Vec::new();
    for version in versions.split_whitespace().rev().filter(|v| v.starts_with('v') && !v.contains('-')) {
        let minor = |v: &str| v.rsplit_once('.').map(|(minor, _)| minor.to_owned());
        if !found.iter().any(|known| minor(known) == minor(version)) {
            found.push(version);
        }
    }
    found.truncate(6);
    found
}

/// A go.mod that requires `module` and repeats of its own go.mod what only counts in the main module.
fn go_mod(name: &str, module: &str, version: &str, upstream: &str) -> Result<String> {
    let go = upstream.lines().find(|l| l.starts_with("go ")).context("no go line in the upstream go.mod")?;
    let mut text = format!("module e2e.local/{name}\n\n{go}\n\n");
    if let Some(start) = upstream.find("\ngodebug ") {
        let rest = &upstream[start + 1..];
        let end = if rest.starts_with("godebug (") { rest.find(')').map(|i| i + 1) } else { rest.find('\n') };
        text.push_str(&rest[..end.unwrap_or(rest.len())]);
        text.push_str("\n\n");
    }
    text.push_str(&format!("require {module} {version}\n"));
    // Staging modules are released as v0.MINOR.PATCH beside vMAJOR.MINOR.PATCH.
    let staged = version.split_once('.').map_or(String::new(), |(_, rest)| format!("v0.{rest}"));
    for line in upstream.lines() {
        if let Some((path, _)) = line.trim().trim_start_matches("replace ").split_once(" => ./staging/") {
            text.push_str(&format!("replace {path} => {path} {staged}\n"));
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{go_mod, newest};

    #[test]
    fn repeats_what_counts_in_the_main_module_only() {
        let upstream = "module k8s.io/kubernetes\n\ngo 1.26.0\n\ngodebug default=go1.26\n\nrequire (\n\tk8s.io/api v0.0.0\n)\n\nreplace (\n\tk8s.io/api => ./staging/src/k8s.io/api\n\tk8s.io/kubelet => ./staging/src/k8s.io/kubelet\n)\n";
        assert_eq!(
            go_mod("kubernetes", "k8s.io/kubernetes", "v1.37.2", upstream).unwrap(),
            "module e2e.local/kubernetes\n\ngo 1.26.0\n\ngodebug default=go1.26\n\nrequire k8s.io/kubernetes v1.37.2\nreplace k8s.io/api => k8s.io/api v0.37.2\nreplace k8s.io/kubelet => k8s.io/kubelet v0.37.2\n"
        );
    }

    #[test]
    fn the_newest_of_each_minor_version_is_offered() {
        let said = "k8s.io/kubernetes v1.9.1 v1.33.0 v1.34.3 v1.34.4 v1.35.0-rc.1 v1.35.0\n";
        assert_eq!(newest(said), ["v1.35.0", "v1.34.4", "v1.33.0", "v1.9.1"]);
    }
}
