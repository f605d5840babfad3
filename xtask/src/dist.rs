//! `cargo xtask dist`: the archive of a release for one target, the same bytes of the same program wherever it is packed.

pub mod archive;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};

use crate::hash::sha256;
use crate::readme::top;
use crate::{run, suite};
use archive::Entry;

/// What every archive and the program in it are called.
pub const PROGRAM: &str = "kubectl-bookaccess";
/// What lies in an archive beside the program; krew refuses a plugin without its licence.
const DOCUMENTS: [&str; 3] = ["LICENSE", "README.ko.md", "README.md"];

#[derive(clap::Args)]
pub struct Args {
    /// What it is for, as rustc names it; without it, this machine
    #[arg(long, value_parser = Target::parse)]
    target: Option<Target>,
    /// Where the archive and its checksum are written
    #[arg(long, default_value = "target/dist")]
    out: PathBuf,
    /// A program that was built for the target elsewhere; without it, it is built here
    #[arg(long, value_name = "FILE", requires = "target")]
    binary: Option<PathBuf>,
}

/// What a program is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    triple: &'static str,
    /// As Go and krew say it.
    pub os: &'static str,
    pub arch: &'static str,
}

/// The targets that a release can have. Of two for the same system and processor a release has one.
const TARGETS: [Target; 8] = [
    Target { triple: "x86_64-unknown-linux-musl", os: "linux", arch: "amd64" },
    Target { triple: "aarch64-unknown-linux-musl", os: "linux", arch: "arm64" },
    Target { triple: "x86_64-unknown-linux-gnu", os: "linux", arch: "amd64" },
    Target { triple: "aarch64-unknown-linux-gnu", os: "linux", arch: "arm64" },
    Target { triple: "x86_64-apple-darwin", os: "darwin", arch: "amd64" },
    Target { triple: "aarch64-apple-darwin", os: "darwin", arch: "arm64" },
    Target { triple: "x86_64-pc-windows-msvc", os: "windows", arch: "amd64" },
    Target { triple: "x86_64-pc-windows-gnu", os: "windows", arch: "amd64" },
];

impl Target {
    fn parse(triple: &str) -> Result<Self> {
        TARGETS.into_iter().find(|target| target.triple == triple).with_context(|| {
            let known: Vec<_> = TARGETS.iter().map(|target| target.triple).collect();
            format!("no release is made for {triple}; releases are made for {}", known.join(", "))
        })
    }

    /// The one that rustc builds for when it is told none.
    fn of_this_machine() -> Result<Self> {
        let said = run::output(Command::new("rustc").arg("-vV"))?;
        Self::parse(said.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc -vV names no host")?)
    }

    /// The program's file.
    pub fn program(self) -> String {
        format!("{PROGRAM}{}", if self.os == "windows" { ".exe" } else { "" })
    }

    /// The archive's file, for a tag such as v1.2.3.
    pub fn archive(self, tag: &str) -> String {
        let end = if self.os == "windows" { "zip" } else { "tar.gz" };
        format!("{PROGRAM}-{tag}-{}-{}.{end}", self.os, self.arch)
    }
}

/// Builds and packs.
pub fn run(args: &Args) -> Result<ExitCode> {
    run::catch_interrupts()?;
    let target = args.target.map_or_else(Target::of_this_machine, Ok)?;
    let time = time()?;
    let binary = args.binary.clone().map_or_else(|| build(target), Ok)?;
    let written = pack(&top(), target, &binary, time, &args.out)?;
    println!("{}", written.display());
    Ok(ExitCode::SUCCESS)
}

/// Packs a program and its documents, which lie in `folder`, and puts the checksum beside it.
fn pack(folder: &Path, target: Target, binary: &Path, time: u64, out: &Path) -> Result<PathBuf> {
    let read = |path: &Path| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let mut entries = vec![Entry { name: target.program(), mode: 0o755, content: read(binary)? }];
    ensure!(!entries[0].content.is_empty(), "{} is empty: no program was built", binary.display());
    for name in DOCUMENTS {
        entries.push(Entry { name: name.to_owned(), mode: 0o644, content: read(&folder.join(name))? });
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    let bytes = if target.os == "windows" { archive::zip(&entries, time)? } else { archive::tar_gz(&entries, time)? };
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let name = target.archive(&format!("v{}", env!("CARGO_PKG_VERSION")));
    let path = out.join(&name);
    let write = |path: &Path, bytes: &[u8]| {
        std::fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
    };
    write(&path, &bytes)?;
    // As sha256sum writes it, and checks it by -c.
    write(&checksum_beside(&path), format!("{}  {name}\n", sha256(&bytes)).as_bytes())?;
    Ok(path)
}

/// Where the checksum of an archive lies.
pub fn checksum_beside(archive: &Path) -> PathBuf {
    let mut path = archive.as_os_str().to_owned();
    path.push(".sha256");
    path.into()
}

fn build(target: Target) -> Result<PathBuf> {
    let command = ["build", "--release", "--locked", "--bin", PROGRAM, "--target", target.triple];
    let built = suite::cargo(&command, &[])?;
    ensure!(
        built.good(),
        "{PROGRAM} cannot be built for {triple}: is the target there (rustup target add {triple}), and a C compiler and linker for it?",
        triple = target.triple
    );
    let own = std::env::current_exe().context("where this program lies")?;
    // This program lies in TARGET_FOLDER/PROFILE, what was built for a target in TARGET_FOLDER/TRIPLE/release.
    let folder = own.ancestors().nth(2).context("this program lies in no target folder")?;
    Ok(folder.join(target.triple).join("release").join(target.program()))
}

/// The time of everything in the archive: what SOURCE_DATE_EPOCH says, else the commit's.
fn time() -> Result<u64> {
    match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => seconds(&text).with_context(|| format!("SOURCE_DATE_EPOCH is {text:?}")),
        Err(_) => {
            let said = run::output(Command::new("git").args(["log", "-1", "--format=%ct"]).current_dir(top()));
            seconds(
                said.context("the time of the commit is not known: set SOURCE_DATE_EPOCH to seconds since 1970")?
                    .trim(),
            )
        }
    }
}

fn seconds(text: &str) -> Result<u64> {
    match text.parse() {
        Ok(seconds) if archive::times().contains(&seconds) => Ok(seconds),
        Ok(_) => bail!("an archive can hold times from 1980 to 2107 only"),
        Err(_) => bail!("seconds since 1970 are wanted, such as 1767225600"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// 2026-03-04 05:06:08 UTC.
    const TIME: u64 = 1_772_600_768;

    /// Packs a small stand-in for the program, and gives the archive.
    fn packed(folder: &Path, triple: &str, out: &str) -> PathBuf {
        for name in DOCUMENTS {
            std::fs::write(folder.join(name), format!("this is {name}\n")).unwrap();
        }
        std::fs::write(folder.join("built"), "#!/bin/sh\necho I am the program\n").unwrap();
        pack(folder, Target::parse(triple).unwrap(), &folder.join("built"), TIME, &folder.join(out)).unwrap()
    }

    #[test]
    fn archives_are_named_as_krew_names_systems() {
        let name = |triple: &str| Target::parse(triple).unwrap().archive("v1.2.3");
        assert_eq!(name("x86_64-unknown-linux-musl"), "kubectl-bookaccess-v1.2.3-linux-amd64.tar.gz");
        assert_eq!(name("aarch64-apple-darwin"), "kubectl-bookaccess-v1.2.3-darwin-arm64.tar.gz");
        assert_eq!(name("x86_64-pc-windows-msvc"), "kubectl-bookaccess-v1.2.3-windows-amd64.zip");
        let said = Target::parse("riscv64gc-unknown-linux-gnu").unwrap_err().to_string();
        assert!(said.contains("riscv64gc") && said.contains("aarch64-unknown-linux-musl"), "{said}");
    }

    #[test]
    fn an_archive_is_what_tar_unpacks_and_runs() {
        let folder = tempfile::tempdir().unwrap();
        let archive = packed(folder.path(), "x86_64-unknown-linux-musl", "out");
        let there = folder.path().join("there");
        std::fs::create_dir(&there).unwrap();
        run::output(Command::new("tar").arg("-xzf").arg(&archive).current_dir(&there)).unwrap();
        assert_eq!(run::output(&mut Command::new(there.join(PROGRAM))).unwrap(), "I am the program\n");
        assert_eq!(std::fs::read_to_string(there.join("LICENSE")).unwrap(), "this is LICENSE\n");
        let listed = run::output(Command::new("tar").env("TZ", "UTC0").arg("-tvzf").arg(&archive)).unwrap();
        let lines: Vec<_> = listed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
        let names: Vec<_> = lines.iter().map(|words| words[5]).collect();
        assert_eq!(names, ["LICENSE", "README.ko.md", "README.md", PROGRAM]);
        assert_eq!(lines[0][..2], ["-rw-r--r--", "0/0"]);
        assert_eq!(lines[3][0], "-rwxr-xr-x");
        assert!(lines.iter().all(|words| words[3..5] == ["2026-03-04", "05:06"]), "{listed}");
        run::output(
            Command::new("sha256sum").arg("-c").arg(checksum_beside(&archive)).current_dir(archive.parent().unwrap()),
        )
        .unwrap();
    }

    #[test]
    fn the_same_program_is_the_same_archive() {
        for triple in ["aarch64-unknown-linux-musl", "x86_64-pc-windows-msvc"] {
            let folder = tempfile::tempdir().unwrap();
            let first = std::fs::read(packed(folder.path(), triple, "first")).unwrap();
            assert!(first == std::fs::read(packed(folder.path(), triple, "second")).unwrap(), "{triple}");
        }
    }

    #[test]
    fn for_windows_it_is_a_zip_with_an_exe() {
        let folder = tempfile::tempdir().unwrap();
        let archive = packed(folder.path(), "x86_64-pc-windows-gnu", "out");
        let names = archive::names(&archive).unwrap();
        assert_eq!(names, ["LICENSE", "README.ko.md", "README.md", "kubectl-bookaccess.exe"]);
    }

    #[test]
    fn what_was_not_built_is_not_packed() {
        let folder = tempfile::tempdir().unwrap();
        packed(folder.path(), "x86_64-unknown-linux-musl", "out");
        let target = TARGETS[0];
        std::fs::write(folder.path().join("built"), "").unwrap();
        for (binary, word) in [("built", "is empty"), ("nothing", "cannot read")] {
            let path = folder.path().join(binary);
            let said = pack(folder.path(), target, &path, TIME, folder.path()).unwrap_err().to_string();
            assert!(said.contains(binary) && said.contains(word), "{said}");
        }
    }

    #[test]
    fn a_time_is_in_seconds_and_fits() {
        assert_eq!(seconds("1772600768").unwrap(), TIME);
        for (bad, word) in [("yesterday", "seconds since 1970"), ("-1", "seconds since 1970"), ("0", "1980 to 2107")] {
            assert!(seconds(bad).unwrap_err().to_string().contains(word), "{bad}");
        }
    }
}
