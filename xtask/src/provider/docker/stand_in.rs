//! Standing in for `docker`, for kind's process only: where this machine's root lacks CAP_SYS_RESOURCE, a container that
//! asks for every capability is refused (`--privileged`, which kind always passes). It gets all that there are instead.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

/// Names the real program.
const REAL: &str = "BOOKACCESS_DOCKER";
/// The name under which this program stands in.
const NAME: &str = "docker";
/// CAP_SYS_RESOURCE of linux/capability.h.
const SYS_RESOURCE: u32 = 24;

/// What `docker run --privileged` gives besides capabilities. The kubelet opens /dev/kmsg.
const INSTEAD: [&str; 8] = [
    "--cap-add=ALL",
    "--cap-drop=SYS_RESOURCE",
    "--security-opt",
    "systempaths=unconfined",
    "--device-cgroup-rule",
    "a *:* rwm",
    "--device",
    "/dev/kmsg",
];

/// Whether containers may have every capability here: those of this process are the most that a child of it gets.
pub fn is_needed() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    lacks_sys_resource(&status)
}

fn lacks_sys_resource(status: &str) -> bool {
    let bounding = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    let bounding = bounding.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    bounding.is_some_and(|mask| mask & (1 << SYS_RESOURCE) == 0)
}

/// Makes the folder that goes first on kind's PATH, and says what its environment needs besides.
pub fn put(folder: &Path, real: PathBuf) -> Result<Vec<(&'static str, OsString)>> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let link = folder.join(NAME);
    // Of an earlier build of this program.
    let _ = std::fs::remove_file(&link);
    std::os::unix::fs::symlink(std::env::current_exe()?, &link)?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths([folder.to_owned()].into_iter().chain(std::env::split_paths(&path)))?;
    Ok(vec![("PATH", path), (REAL, real.into_os_string())])
}

/// Whether this process was started under the name it stands in for.
pub fn is_meant(program: Option<OsString>) -> bool {
    program.is_some_and(|program| Path::new(&program).file_name().is_some_and(|name| name == NAME))
}

/// Becomes the real program, with other words.
pub fn run() -> ExitCode {
    let Some(real) = std::env::var_os(REAL) else {
        eprintln!("{NAME}: {REAL} is not set: this stands in for docker while xtask runs kind, and for nothing else");
        return ExitCode::FAILURE;
    };
    let error = Command::new(&real).args(translated(std::env::args_os().skip(1).collect())).exec();
    eprintln!("{NAME}: cannot start {}: {error}", real.display());
    ExitCode::FAILURE
}

/// The same command without `--privileged`.
fn translated(args: Vec<OsString>) -> Vec<OsString> {
    let verb = args.first().cloned().unwrap_or_default();
    let found = args.iter().position(|arg| arg == "--privileged");
    // Of exec it is kind's first flag; further behind it is a word of the command that is run.
    let (at, instead): (usize, &[&str]) = match found {
        Some(at) if verb == "run" => (at, &INSTEAD),
        Some(1) if verb == "exec" => (1, &[]),
        _ => return args,
    };
    let (before, after) = (args[..at].iter().cloned(), args[at + 1..].iter().cloned());
    before.chain(instead.iter().map(OsString::from)).chain(after).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> String {
        let args = translated(line.split(' ').map(OsString::from).collect());
        args.iter().map(|arg| arg.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn privileged_is_replaced_where_kind_asks_for_it() {
        assert_eq!(
            words("run --name a --privileged --tmpfs /tmp image"),
            "run --name a --cap-add=ALL --cap-drop=SYS_RESOURCE --security-opt systempaths=unconfined --device-cgroup-rule a *:* rwm --device /dev/kmsg --tmpfs /tmp image"
        );
        assert_eq!(words("exec --privileged -i a cat"), "exec -i a cat");
        for same in [
            "exec a echo --privileged",
            "ps -a --filter label=x",
            "inspect --privileged",
            "run --name a image",
            "version",
        ] {
            assert_eq!(words(same), same);
        }
    }

    #[test]
    fn a_capability_is_read_from_the_kernels_mask() {
        assert!(lacks_sys_resource("Name:\tx\nCapBnd:\t000001fffeffffff\n"));
        assert!(!lacks_sys_resource("CapBnd:\t000001ffffffffff\n"));
        assert!(!lacks_sys_resource(""));
    }

    #[test]
    fn the_name_decides() {
        assert!(is_meant(Some("/x/docker".into())) && is_meant(Some("docker".into())));
        assert!(!is_meant(Some("target/debug/xtask".into())) && !is_meant(None));
    }
}
