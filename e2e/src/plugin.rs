//! The product as a person runs it: `kubectl bookaccess …`, found by kubectl on PATH, at some place.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::cluster::{Cluster, Ended, Place};

/// The environment variable that names the binary under test.
pub const BINARY: &str = "BOOKACCESS_BIN";
/// Where it is put at each place, and where its state lies there: both vanish with the place.
pub const FOLDER: &str = "/run/bookaccess-e2e";
/// Where k3s' nodes have iptables and nft, as their own PATH says.
const K3S: &str = "/bin/aux";
const STATE: &str = "/var/lib/kubectl-bookaccess";
/// What a question about a file may take.
const ASKED: Duration = Duration::from_secs(10);
/// `fix` waits up to 60 s for a rollout and verifies each step.
const LIMIT: Duration = Duration::from_secs(150);

/// The plugin at one place, run as root there.
#[derive(Debug, Clone)]
pub struct Plugin {
    pub place: Place,
    /// The words that set up its environment.
    env: Vec<String>,
}

impl Plugin {
    /// On the control plane, as an operator with a shell there and no kubeconfig of their own.
    pub fn on_control_plane(cluster: &Cluster) -> Result<Self> {
        Self::operator(cluster, &binary()?)
    }

    /// As [`Plugin::on_control_plane`], with a binary that no environment variable names.
    pub fn operator(cluster: &Cluster, binary: &Path) -> Result<Self> {
        Self::at(cluster, cluster.control_plane()?.place.clone(), None, binary)
    }

    /// On the outside client, which is no node: a laptop with a kubeconfig.
    pub fn on_client(cluster: &Cluster) -> Result<Self> {
        Self::at(cluster, cluster.client.clone(), Some(&cluster.kubeconfig), &binary()?)
    }

    fn at(cluster: &Cluster, place: Place, kubeconfig: Option<&PathBuf>, binary: &Path) -> Result<Self> {
        put(&place, binary, "kubectl-bookaccess")?;
        // Nothing of the developer's own settings may reach the program.
        let mut env: Vec<String> = ["env", "-i", "HOME=/root", "LANG=C.UTF-8", "TERM=dumb"].map(str::to_owned).into();
        env.push(format!(
            "PATH={FOLDER}:{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:{K3S}",
            cluster.bin.display()
        ));
        env.extend(kubeconfig.map(|path| format!("KUBECONFIG={}", path.display())));
        Ok(Self { place, env })
    }

    /// The same with one more environment variable.
    pub fn with(mut self, variable: &str, value: &str) -> Self {
        self.env.push(format!("{variable}={value}"));
        self
    }

    /// Runs `kubectl bookaccess ARGS`.
    pub fn run(&self, args: &[&str]) -> Result<Ended> {
        self.run_within(args, LIMIT)
    }

    pub fn run_within(&self, args: &[&str], limit: Duration) -> Result<Ended> {
        let env = self.env.iter().map(String::as_str);
        let argv: Vec<&str> = env.chain(["kubectl", "bookaccess"]).chain(args.iter().copied()).collect();
        self.place.run(&argv, limit)
    }

    /// Runs a shell line in the same environment.
    pub fn shell(&self, line: &str) -> Result<Ended> {
        let env = self.env.iter().map(String::as_str);
        let argv: Vec<&str> = env.chain(["sh", "-c", line]).collect();
        self.place.run(&argv, LIMIT)
    }

    /// Runs it and insists on the exit code; the error shows all that it printed.
    pub fn must(&self, args: &[&str], code: i32) -> Result<Ended> {
        let ended = self.run(args)?;
        ensure!(
            ended.code == Some(code),
            "`kubectl bookaccess {}` on {}: exit code {:?}, not {code}\n--- stdout\n{}\n--- stderr\n{}",
            args.join(" "),
            self.place.name,
            ended.code,
            ended.stdout.trim_end(),
            ended.stderr.trim_end()
        );
        Ok(ended)
    }

    /// `diagnose -o json` with its exit code insisted on.
    pub fn diagnose(&self, targets: &[&str], code: i32) -> Result<Diagnosis> {
        let ended = self.must(&[&["diagnose", "-o", "json"], targets].concat(), code)?;
        let json = serde_json::from_str(&ended.stdout)
            .with_context(|| format!("diagnose printed no JSON: {}", ended.stdout))?;
        Ok(Diagnosis(json))
    }

    /// Ends whatever fixes and forwards left running here, and forgets their state.
    pub fn clear(&self) -> Result<()> {
        self.run_within(&["forward", "stop"], Duration::from_secs(20))?;
        self.place.shell(&format!("rm -rf {STATE}")).map(drop)
    }
}

/// The binary under test, as the environment names it.
fn binary() -> Result<PathBuf> {
    std::env::var_os(BINARY).map(PathBuf::from).with_context(|| format!("{BINARY} is not set"))
}

/// Copies a program to the place unless this very one is there, and gives its path there.
pub fn put(place: &Place, program: &Path, name: &str) -> Result<PathBuf> {
    let size = std::fs::metadata(program).with_context(|| format!("no {}", program.display()))?;
    let modified = size.modified()?.duration_since(std::time::UNIX_EPOCH)?.as_nanos();
    let stamp = format!("{FOLDER}/{name}.stamp-{modified}-{}", size.len());
    let path = Path::new(FOLDER).join(name);
    // Asked first: who ends without reading what is sent makes the sender fail now and then.
    if place.run(&["test", "-e", &stamp], ASKED)?.code == Some(0) {
        return Ok(path);
    }
    // The file reaches the place by standard input, which every provider's `enter` passes on.
    let line = format!(
        "mkdir -p {FOLDER}; rm -f {FOLDER}/{name} {FOLDER}/{name}.stamp-*; \
         cat > {FOLDER}/{name}; chmod 755 {FOLDER}/{name}; touch {stamp}"
    );
    let bytes = std::fs::File::open(program)?;
    let mut command = std::process::Command::new("env");
    let status = command.args(&place.enter).args(["sh", "-ec", &line]).stdin(bytes).status()?;
    ensure!(status.success(), "cannot copy {name} to {}", place.name);
    Ok(path)
}

/// What `diagnose -o json` printed.
#[derive(Debug, Clone)]
pub struct Diagnosis(pub Value);

impl Diagnosis {
    pub fn findings(&self) -> Vec<&Value> {
        self.0["findings"].as_array().map(|list| list.iter().collect()).unwrap_or_default()
    }

    /// The codes in their order; the leading one first.
    pub fn codes(&self) -> Vec<&str> {
        self.findings().iter().filter_map(|finding| finding["code"].as_str()).collect()
    }

    /// Insists on the leading code.
    pub fn leads(&self, code: &str) -> Result<&Self> {
        ensure!(
            self.codes().first() == Some(&code),
            "the leading code is not {code}: {:?}\n{:#}",
            self.codes(),
            self.0["findings"]
        );
        Ok(self)
    }

    /// Insists on a code anywhere, and gives its finding.
    pub fn finding(&self, code: &str) -> Result<&Value> {
        let found = self.findings().into_iter().find(|finding| finding["code"] == code);
        found.with_context(|| format!("no {code} among {:?}", self.codes()))
    }
}
