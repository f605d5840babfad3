//! The first process of a member (a node, the client, the gateway): it makes the member's private view of the
//! machine and reaps what is left to it. It is process 1 of a PID namespace, so that its end is the end of all that
//! runs in the member, and of every mount made here.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use rustix::fs::CWD;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive, mount_change, unmount,
};

use super::{cgroup, files};

/// Said on stdout when the member's view is complete.
pub const READY: &str = "ready";

/// Host-wide settings that kubelet writes (setupKernelTunables), with the values it wants. A member sees files of its own in their
/// place: kubelet finds what it wants and the machine's stay as they are.
pub const KUBELET_SYSCTLS: &[(&str, &str)] = &[
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// What /sys/class/dmi/id says on an EC2 instance (Nitro).
const EC2_DMI: &[(&str, &str)] = &[
    ("sys_vendor", "Amazon EC2"),
    ("product_name", "t3.medium"),
    ("product_uuid", "ec2f1d3a-6f7b-4b52-9d3c-5a8f6f3b0c11"),
    ("product_serial", "ec2f1d3a-6f7b-4b52-9d3c-5a8f6f3b0c11"),
    ("product_version", ""),
    ("bios_vendor", "Amazon EC2"),
    ("bios_version", "1.0"),
    ("board_vendor", "Amazon EC2"),
    ("board_asset_tag", "i-0bookaccess0000001"),
    ("chassis_vendor", "Amazon EC2"),
    ("chassis_asset_tag", "Amazon EC2"),
];

#[derive(clap::Args)]
pub struct Args {
    /// The cluster this member belongs to
    #[arg(long)]
    pub cluster: String,
    /// The member's name
    #[arg(long)]
    pub member: String,
    /// The member's private data
    #[arg(long)]
    pub data: PathBuf,
    /// The member is a node: it gets a cgroup, kubelet's and containerd's folders, and forwards packets
    #[arg(long)]
    pub node: bool,
    /// The member forwards packets without being a node
    #[arg(long)]
    pub router: bool,
    /// The member's hardware says that it is an EC2 instance
    #[arg(long)]
    pub ec2: bool,
    /// The member has IPv6 addresses besides its IPv4 ones
    #[arg(long)]
    pub dual_stack: bool,
    /// The name server in /etc/resolv.conf
    #[arg(long)]
    pub resolver: Option<String>,
    /// Folders of the machine that stay visible though they lie below a private one
    #[arg(long)]
    pub visible: Vec<PathBuf>,
    /// Put into the member's /usr/local/bin
    #[arg(long)]
    pub program: Vec<PathBuf>,
}

/// Makes the view, says so, and reaps until it is killed.
pub fn run(args: &Args) -> Result<ExitCode> {
    let mut children = signal_hook::iterator::Signals::new([signal_hook::consts::SIGCHLD])?;
    if args.node {
        cgroup::enter(&args.cluster, &args.member)?;
    }
    make_view(args).with_context(|| format!("{}'s private view of the machine", args.member))?;
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{READY}")?;
    stdout.flush()?;
    for _ in children.forever() {
        while let Ok(Some(_)) = rustix::process::wait(rustix::process::WaitOptions::NOHANG) {}
    }
    Ok(ExitCode::SUCCESS)
}

fn make_view(args: &Args) -> Result<()> {
    let data = &args.data;
    fs::create_dir_all(data)?;
    mount("proc", "/proc", "proc", MountFlags::empty(), None).context("/proc")?;
    if on_overlay(data)? {
        // An overlay cannot lie on an overlay (a machine that is itself a container): memory instead of disk.
        tmpfs_with_content(data)?;
    }
    fresh_sysfs(data)?;
    overlay("/etc", data)?;
    overlay("/var/lib", data)?;
    overlay("/usr/local", data)?;
    let home = data.join("root");
    let run = data.join("run");
    fs::create_dir_all(&home)?;
    fs::create_dir_all(&run)?;
    mount("tmpfs", &run, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, Some(c"mode=755")).context("/run")?;
    for folder in ["lock", "netns", "user"] {
        fs::create_dir_all(run.join(folder))?;
    }
    // What lies below a folder that is about to be hidden is bound into its replacement first.
    for visible in &args.visible {
        for (hidden, replacement) in [("/root", &home), ("/run", &run)] {
            if let Ok(rest) = visible.strip_prefix(hidden) {
                let target = replacement.join(rest);
                if visible.is_dir() && fs::create_dir_all(&target).is_ok() {
                    mount_bind_recursive(visible, &target).with_context(|| visible.display().to_string())?;
                }
            }
        }
    }
    mount_bind_recursive(&home, "/root").context("/root")?;
    mount_bind_recursive(&run, "/run").context("/run")?;
    if args.node {
        for (inside, name) in
            [("/var/log", "log"), ("/var/lib/containerd", "containerd"), ("/var/lib/kubelet", "kubelet")]
        {
            let own = data.join(name);
            fs::create_dir_all(&own)?;
            fs::create_dir_all(inside)?;
            mount_bind(&own, inside).with_context(|| inside.to_owned())?;
        }
        for (setting, value) in KUBELET_SYSCTLS {
            let real = Path::new("/proc/sys").join(setting);
            let own = data.join("sysctl").join(setting);
            files::write(&own, &format!("{value}\n"))?;
            if real.exists() {
                mount_bind(&own, &real).with_context(|| real.display().to_string())?;
            }
        }
    }
    if args.ec2 {
        ec2_hardware(data)?;
    }
    for program in &args.program {
        let link = Path::new("/usr/local/bin").join(program.file_name().unwrap_or_default());
        fs::create_dir_all("/usr/local/bin")?;
        let _ = fs::remove_file(&link);
        std::os::unix::fs::symlink(program, link)?;
    }
    identity(args)?;
    if args.node || args.router {
        for setting in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            let _ = fs::write(Path::new("/proc/sys").join(setting), "1");
        }
    }
    if args.dual_stack {
        second_family(args)?;
    }
    if args.router {
        // The gateway's bridge is a switch: what passes it must not be translated. (A setting of this namespace.)
        let _ = fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", "0");
        // "No route" is said to everybody and at once: a program that tries before kube-proxy has written its rules
        // would otherwise sit out its timeout.
        let _ = fs::write("/proc/sys/net/ipv4/icmp_ratelimit", "0");
        let _ = fs::write("/proc/sys/net/ipv4/conf/all/send_redirects", "0");
        let _ = fs::write("/proc/sys/net/ipv4/conf/default/send_redirects", "0");
    }
    crate::run::output(&mut crate::run::command(&["ip", "link", "set", "lo", "up"]))?;
    // Pods may ask for mount propagation, as on a systemd machine; it ends at this member.
    mount_change("/", MountPropagationFlags::SHARED | MountPropagationFlags::REC)?;
    Ok(())
}

/// What a member with IPv6 needs besides; settings of its network namespace all.
fn second_family(args: &Args) -> Result<()> {
    // Nobody else has an address of ours: without the wait for an objection each can be used at once.
    for which in ["all", "default"] {
        fs::write(format!("/proc/sys/net/ipv6/conf/{which}/accept_dad"), "0").context("does the kernel have IPv6?")?;
    }
    if args.router {
        let _ = fs::write("/proc/sys/net/bridge/bridge-nf-call-ip6tables", "0");
        let _ = fs::write("/proc/sys/net/ipv6/icmp/ratelimit", "0");
    }
    Ok(())
}

/// Kubernetes' names of the machine.
fn identity(args: &Args) -> Result<()> {
    fs::write("/proc/sys/kernel/hostname", &args.member)?;
    replace("/etc/hostname", &format!("{}\n", args.member))?;
    replace(
        "/etc/hosts",
        &format!("127.0.0.1\tlocalhost\n127.0.1.1\t{}\n::1\tlocalhost ip6-localhost ip6-loopback\n", args.member),
    )?;
    let resolver = args.resolver.as_ref().map_or(String::new(), |r| format!("nameserver {r}\n"));
    replace("/etc/resolv.conf", &resolver)
}

/// These may be links into folders that the member does not see.
fn replace(path: &str, text: &str) -> Result<()> {
    let _ = fs::remove_file(path);
    fs::write(path, text).with_context(|| path.to_owned())
}

/// The member's own writable copy of a folder of the machine: what it changes stays below its data.
fn overlay(folder: &str, data: &Path) -> Result<()> {
    let base = data.join("overlay").join(folder.trim_start_matches('/').replace('/', "-"));
    let (upper, work) = (base.join("upper"), base.join("work"));
    fs::create_dir_all(&upper)?;
    fs::create_dir_all(&work)?;
    let options = format!("lowerdir={folder},upperdir={},workdir={}", upper.display(), work.display());
    mount("overlay", folder, "overlay", MountFlags::empty(), Some(&*std::ffi::CString::new(options)?))
        .with_context(|| format!("an overlay on {folder} (does the kernel have overlayfs?)"))
}

/// A sysfs of this network namespace, with the machine's cgroups where they were.
pub fn fresh_sysfs(data: &Path) -> Result<()> {
    let kept = data.join("cgroup");
    fs::create_dir_all(&kept)?;
    mount_bind_recursive("/sys/fs/cgroup", &kept).context("/sys/fs/cgroup")?;
    mount("sysfs", "/sys", "sysfs", MountFlags::empty(), None).context("/sys")?;
    mount_bind_recursive(&kept, "/sys/fs/cgroup").context("/sys/fs/cgroup")?;
    unmount(&kept, UnmountFlags::DETACH)?;
    Ok(())
}

/// sysfs takes no new folders, so the one above gets an overlay.
fn ec2_hardware(data: &Path) -> Result<()> {
    overlay("/sys/class", data)?;
    let id = Path::new("/sys/class/dmi/id");
    // Where the machine has one it is a link to its real tables.
    if id.is_symlink() {
        fs::remove_file(id)?;
    }
    for (name, value) in EC2_DMI {
        files::write(&id.join(name), &format!("{value}\n"))?;
    }
    Ok(())
}

fn on_overlay(path: &Path) -> Result<bool> {
    /// OVERLAYFS_SUPER_MAGIC of linux/magic.h.
    const OVERLAY: i64 = 0x794c_7630;
    Ok(rustix::fs::statfs(path)?.f_type == OVERLAY)
}

/// A tmpfs over `folder`, with what lay in it.
fn tmpfs_with_content(folder: &Path) -> Result<()> {
    let real = rustix::fs::openat(
        CWD,
        folder,
        rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )?;
    mount("tmpfs", folder, "tmpfs", MountFlags::empty(), None)?;
    let source = format!("/proc/{}/fd/{}/.", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&real));
    crate::run::output(&mut crate::run::command(&["cp", "-a", &source, &folder.display().to_string()]))?;
    Ok(())
}
