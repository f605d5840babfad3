//! `cargo xtask cluster`: test clusters for people.

use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use clap::{Subcommand, ValueEnum};

use crate::provider::native::plan::{Places, ProxyMode, Request, check_name};
use crate::provider::native::{self, Descriptor};
use crate::provider::{self, Install, Provider};
use crate::run;

/// The name of a cluster when none is given.
pub const DEFAULT_NAME: &str = "bookaccess";

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a cluster; a second start with the same name finds it running
    Up(UpArgs),
    /// End a cluster, also what a killed start left
    Down(DownArgs),
    /// Say what runs
    Status(StatusArgs),
    /// Run a shell, or the command after --, on a node, the client or the gateway
    Shell(ShellArgs),
    /// Print a kubeconfig for the external client (the public address)
    Kubeconfig(NameArgs),
}

/// What a cluster shall be like.
#[derive(clap::Args, Clone, Debug)]
pub struct UpArgs {
    #[arg(long, default_value = DEFAULT_NAME)]
    pub name: String,
    #[arg(long, value_enum, default_value_t)]
    pub provider: Provider,
    /// Worker nodes beside the control plane
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(0..=50))]
    pub workers: u8,
    /// By default v1.37.2; of kind the newest that it runs on this machine, of k3d v1.35.5 (v1.34.4 with cgroup v1)
    #[arg(long)]
    pub kubernetes_version: Option<String>,
    #[arg(long, value_enum, default_value_t)]
    pub proxy_mode: ProxyMode,
    /// The nodes look like EC2 instances: hardware tables and metadata service
    #[arg(long)]
    pub ec2: bool,
    /// Nodes, pods and Services have IPv6 addresses besides their IPv4 ones
    #[arg(long)]
    pub dual_stack: bool,
    /// Refuse with a list where Debian packages are missing, instead of installing them
    #[arg(long)]
    pub no_install: bool,
    /// Install Docker where it is missing, and start a daemon of our own where none answers (provider kind; Debian, root)
    #[arg(long, conflicts_with = "no_install")]
    pub install: bool,
}

#[derive(clap::Args)]
struct DownArgs {
    #[arg(long, default_value = DEFAULT_NAME)]
    name: String,
    /// Every cluster of which anything is left
    #[arg(long, conflicts_with_all = ["name", "keep_client"])]
    all: bool,
    /// Leave the external client, with what runs in it, for the next cluster of this name
    #[arg(long)]
    keep_client: bool,
}

#[derive(clap::Args)]
struct StatusArgs {
    /// One cluster; without it all
    #[arg(long)]
    name: Option<String>,
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum Output {
    #[default]
    Text,
    /// The cluster's descriptor
    Json,
}

#[derive(clap::Args)]
struct NameArgs {
    #[arg(long, default_value = DEFAULT_NAME)]
    name: String,
}

#[derive(clap::Args)]
struct ShellArgs {
    #[arg(long, default_value = DEFAULT_NAME)]
    name: String,
    /// A node (`cluster status` shows them; cp1, w1, w2, … of provider native), client or gateway
    member: String,
    #[arg(last = true)]
    command: Vec<String>,
}

/// Runs one of the commands.
pub fn run(args: Args) -> Result<ExitCode> {
    match args.command {
        Command::Up(args) => {
            ensure!(
                args.provider != Provider::Testcontainers,
                "the node of provider testcontainers ends with the command that starts it: use cargo xtask e2e --provider testcontainers"
            );
            let descriptor = up(&args)?;
            print!("{}", how_to_use(&descriptor));
        }
        Command::Down(args) => down(&args)?,
        Command::Status(args) => return status(&args),
        Command::Shell(args) => return shell(&args),
        Command::Kubeconfig(args) => {
            let text = client_kubeconfig(&loaded(&args.name)?)?;
            print!("{text}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Starts a cluster.
pub fn up(args: &UpArgs) -> Result<Descriptor> {
    up_of(args, None)
}

/// Starts a cluster whose nodes are of this image, where one is named.
pub fn up_of(args: &UpArgs, image: Option<&str>) -> Result<Descriptor> {
    let request = Request {
        name: args.name.clone(),
        version: args.kubernetes_version.clone().unwrap_or_else(|| args.provider.default_version().to_owned()),
        workers: args.workers,
        proxy_mode: args.proxy_mode,
        ec2: args.ec2,
        dual_stack: args.dual_stack,
        image: image.map(str::to_owned),
    };
    let install = match (args.install, args.no_install) {
        (true, _) => Install::Docker,
        (false, true) => Install::Nothing,
        (false, false) => Install::Usual,
    };
    provider::up(args.provider, request, install)
}

fn how_to_use(descriptor: &Descriptor) -> String {
    let name = if descriptor.name == DEFAULT_NAME { String::new() } else { format!(" --name {}", descriptor.name) };
    format!(
        "  cargo xtask cluster shell{name} {}                           a root shell on the control plane
  cargo xtask cluster shell{name} client -- kubectl get nodes   the external client, by https://{}:6443
  cargo xtask cluster down{name}\n",
        descriptor.nodes[0].name, descriptor.public_address
    )
}

fn down(args: &DownArgs) -> Result<()> {
    let names = if args.all {
        provider::names()
    } else {
        check_name(&args.name)?;
        vec![args.name.clone()]
    };
    if names.is_empty() {
        println!("no cluster is left");
    }
    let mut failed = Vec::new();
    for name in names {
        if let Err(error) = down_one(&name, args) {
            failed.push(format!("{name}: {error:#}"));
        }
    }
    if args.all
        && let Err(error) = provider::close()
    {
        failed.push(format!("{error:#}"));
    }
    if !failed.is_empty() {
        bail!("{}", failed.join("\n"));
    }
    Ok(())
}

fn down_one(name: &str, args: &DownArgs) -> Result<()> {
    if !provider::names().iter().any(|n| n == name) {
        println!("there is no cluster {name}");
        return Ok(());
    }
    let _lock = native::lock(name)?;
    provider::down(name, args.keep_client)?;
    let client = if args.keep_client { ", its client stays" } else { "" };
    println!("cluster {name} is gone{client}");
    Ok(())
}

/// The description of a cluster that runs.
pub fn loaded(name: &str) -> Result<Descriptor> {
    check_name(name)?;
    Descriptor::load(&Places::new(name))?
        .with_context(|| format!("there is no cluster {name}: start it with cargo xtask cluster up --name {name}"))
}

fn status(args: &StatusArgs) -> Result<ExitCode> {
    if let (Output::Json, name) = (args.output, args.name.as_deref().unwrap_or(DEFAULT_NAME)) {
        println!("{}", serde_json::to_string_pretty(&loaded(name)?)?);
        return Ok(ExitCode::SUCCESS);
    }
    let mut names = provider::names();
    if let Some(name) = &args.name {
        check_name(name)?;
        names.retain(|n| n == name);
        if names.is_empty() {
            bail!("there is no cluster {name}");
        }
    }
    if names.is_empty() {
        println!("no cluster runs");
    }
    let mut good = true;
    for name in names {
        let members = provider::running(&name);
        match Descriptor::load(&Places::new(&name)) {
            Ok(Some(descriptor)) => {
                let missing: Vec<_> =
                    descriptor.members().into_iter().filter(|m| !members.iter().any(|r| r == m)).collect();
                println!(
                    "{name}: Kubernetes {}, kube-proxy {}, public address {}{}{}",
                    descriptor.kubernetes_version,
                    descriptor.proxy_mode,
                    descriptor.public_address,
                    descriptor.public_address_v6.as_ref().map_or_else(String::new, |v6| format!(" and {v6}")),
                    if descriptor.ec2 { ", EC2's shape" } else { "" }
                );
                if missing.is_empty() {
                    let nodes = run::output(
                        run::command(&descriptor.nodes[0].enter)
                            .args(["kubectl", "--kubeconfig", descriptor.admins_kubeconfig(), "--request-timeout=5s"])
                            .args(["get", "nodes", "-o", "wide"]),
                    );
                    good &= nodes.is_ok();
                    println!("{}", nodes.unwrap_or_else(|e| format!("the API server does not answer: {e:#}")));
                } else {
                    good = false;
                    println!(
                        "  broken: {} ended; clean up with cargo xtask cluster down --name {name}",
                        missing.join(", ")
                    );
                }
            }
            _ if members == ["client"] => println!("{name}: only its external client is kept"),
            _ if native::busy(&name) => println!("{name}: a command is working on it ({})", members.join(", ")),
            _ => {
                good = false;
                println!(
                    "{name}: left by a killed start ({}); clean up with cargo xtask cluster down --name {name}",
                    members.join(", ")
                );
            }
        }
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn shell(args: &ShellArgs) -> Result<ExitCode> {
    let descriptor = loaded(&args.name)?;
    let Some(enter) = descriptor.enter(&args.member) else {
        bail!("cluster {} has no member {:?}: it has {}", args.name, args.member, descriptor.members().join(", "));
    };
    let mut enter = enter.to_vec();
    let path = std::env::var("PATH").unwrap_or_default();
    if args.command.is_empty()
        && let Some(at) = enter.iter().position(|word| word == "exec")
    {
        // A person's shell: `docker exec` gives it a terminal only when told so.
        enter.insert(at + 1, "--tty".to_owned());
    }
    let mut command = run::command(&enter);
    command.env("PATH", format!("{}:/usr/local/bin:{path}", descriptor.bin));
    if args.command.is_empty() {
        let prompt = format!("PS1=[{} \\u@{} \\w]\\$ ", args.name, args.member);
        command.args(["env", &prompt]);
        if descriptor.is_control_plane(&args.member) {
            // As the operator has it; commands behind -- get a bare environment.
            command.arg(format!("KUBECONFIG={}", descriptor.admins_kubeconfig()));
        }
        // k3s' nodes have no bash.
        command.args(["sh", "-c", "command -v bash >/dev/null && exec bash --norc || exec sh"]);
    } else {
        command.args(&args.command);
    }
    Err(command.exec()).with_context(|| format!("cannot start {}", enter[0]))
}

fn client_kubeconfig(descriptor: &Descriptor) -> Result<String> {
    run::output(run::command(&descriptor.client.enter).args(["cat", &descriptor.kubeconfig]))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn up_has_the_documented_defaults() {
        let Command::Up(up) = Cli::try_parse_from(["x", "up"]).unwrap().args.command else {
            unreachable!("up was asked for");
        };
        assert_eq!((up.name.as_str(), up.workers, up.ec2, up.dual_stack), ("bookaccess", 2, false, false));
        assert_eq!((up.kubernetes_version, up.proxy_mode), (None, ProxyMode::Iptables));
    }

    #[test]
    fn a_shell_takes_a_command_behind_two_dashes() {
        let Command::Shell(shell) =
            Cli::try_parse_from(["x", "shell", "cp1", "--", "kubectl", "-n", "a"]).unwrap().args.command
        else {
            unreachable!("shell was asked for");
        };
        assert_eq!(shell.command, ["kubectl", "-n", "a"]);
        assert!(Cli::try_parse_from(["x", "down", "--all", "--keep-client"]).is_err());
        assert!(Cli::try_parse_from(["x", "up", "--workers", "200"]).is_err());
    }
}
