//! A program of others that Go builds, kept in the cache folder; of `kind` and `k3d` the user's own where it is the
//! version that is needed here.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::provider::docker::find_in;
use crate::provider::native::build;
use crate::run;

/// Which command, in which version.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    pub name: &'static str,
    pub module: &'static str,
    /// Its main package.
    pub package: &'static str,
    pub version: &'static str,
    /// The variable that holds the version it says, where a build by Go alone leaves it empty.
    pub stamp: Option<&'static str>,
}

impl Program {
    /// Where one of this version lies; it is said where it is not the one on PATH.
    pub fn ensure(&self) -> Result<PathBuf> {
        let Self { name, version, .. } = *self;
        let path = std::env::var_os("PATH").unwrap_or_default();
        let users = find_in(&path, name);
        let found = users.as_deref().map(version_of).transpose()?;
        if let (Some(program), Some(found)) = (&users, &found)
            && found == version
        {
            return Ok(program.clone());
        }
        if let (Some(program), Some(found)) = (&users, &found) {
            println!("{} is {name} {found}; {version} is used instead", program.display());
        }
        self.built(|| self.wanted(found.as_deref()))
    }

    /// The one in the cache folder, built where it is not there yet; `without_go` says what to do where it cannot be.
    pub fn built(&self, without_go: impl FnOnce() -> String) -> Result<PathBuf> {
        let Self { name, module, package, version, .. } = *self;
        let own = build::folder_of(name, version)?.join(name);
        if own.is_file() {
            return Ok(own);
        }
        if find_in(&std::env::var_os("PATH").unwrap_or_default(), "go").is_none() {
            bail!("{}", without_go());
        }
        let folder = build::program(name, module, package, version, self.ldflags())?;
        Ok(folder.join(name))
    }

    /// What to do where the version is not there and cannot be built.
    fn wanted(&self, found: Option<&str>) -> String {
        let Self { name, package, version, .. } = self;
        let what = found
            .map_or_else(|| format!("there is no {name} on PATH"), |found| format!("the {name} on PATH is {found}"));
        format!(
            "{what}, and this machine needs {version}\n  install it (go install {package}@{version}), or put Go on PATH, with which it is built into the cache folder"
        )
    }

    /// What the linker is told.
    fn ldflags(&self) -> String {
        let stamp = self.stamp.map_or_else(String::new, |variable| format!(" -X {variable}={}", self.version));
        format!("-s -w{stamp}")
    }
}

/// As `kind version` and `k3d version` say it in their first line: `kind v0.30.0 go1.24.6 linux/amd64`.
fn version_of(program: &Path) -> Result<String> {
    let said = run::output(Command::new(program).arg("version"))?;
    let first = said.lines().next().unwrap_or_default();
    Ok(read(first).unwrap_or_else(|| first.trim().to_owned()))
}

fn read(line: &str) -> Option<String> {
    line.split_whitespace().find(|word| word.starts_with('v') && word.contains('.')).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::provider::docker::fake;

    const KIND: Program = Program {
        name: "kind",
        module: "sigs.k8s.io/kind",
        package: "sigs.k8s.io/kind",
        version: "v0.30.0",
        stamp: None,
    };

    #[test]
    fn a_version_is_read_from_what_the_command_says() {
        assert_eq!(read("kind v0.30.0 go1.24.6 linux/amd64").as_deref(), Some("v0.30.0"));
        assert_eq!(read("kind (unknown)"), None);
        let folder = tempfile::tempdir().unwrap();
        for (name, said, version) in [
            ("kind", "kind v0.11.1 go1.16 linux/amd64", "v0.11.1"),
            ("k3d", "k3d version v5.9.0\nk3s version v1.35.5-k3s1 (default)", "v5.9.0"),
            // Built by Go alone: k3s's version is not its own.
            ("k3d", "k3d version v5-dev\nk3s version v1.35.5-k3s1 (default)", "k3d version v5-dev"),
        ] {
            let program = fake::program(folder.path(), name, &format!("test \"$1\" = version && echo '{said}'"));
            assert_eq!(version_of(&program).unwrap(), version);
        }
    }

    #[test]
    fn another_version_is_named_with_the_one_that_is_needed() {
        let said = KIND.wanted(Some("v0.11.1"));
        assert!(said.starts_with("the kind on PATH is v0.11.1, and this machine needs v0.30.0"), "{said}");
        assert!(said.contains("go install sigs.k8s.io/kind@v0.30.0"), "{said}");
        assert!(KIND.wanted(None).starts_with("there is no kind on PATH"));
    }

    #[test]
    fn a_version_is_stamped_where_go_does_not() {
        assert_eq!(KIND.ldflags(), "-s -w");
        assert_eq!(Program { stamp: Some("a/b.Version"), ..KIND }.ldflags(), "-s -w -X a/b.Version=v0.30.0");
    }
}
