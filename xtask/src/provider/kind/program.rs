//! The `kind` command: the user's own where it is the version that this machine needs, else one built with Go.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::provider::docker::find_in;
use crate::provider::native::build::cache_folder;
use crate::run;

const MODULE: &str = "sigs.k8s.io/kind";

/// A kind of this version; it is said where it is not the one on PATH.
pub fn ensure(version: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let users = find_in(&path, "kind");
    let found = users.as_deref().map(version_of).transpose()?;
    if let (Some(program), Some(found)) = (&users, &found)
        && found == version
    {
        return Ok(program.clone());
    }
    let folder = cache_folder()?.join(format!("kind-{version}"));
    let own = folder.join("kind");
    if let (Some(program), Some(found)) = (&users, &found) {
        println!("{} is kind {found}; {version} is used instead", program.display());
    }
    if own.is_file() {
        return Ok(own);
    }
    if find_in(&path, "go").is_none() {
        bail!("{}", wanted(version, found.as_deref()));
    }
    println!("building kind {version} with Go (once; kept in {})", folder.display());
    build(version, &folder)?;
    Ok(own)
}

/// What to do where the version is not there and cannot be built.
fn wanted(version: &str, found: Option<&str>) -> String {
    let what =
        found.map_or_else(|| "there is no kind on PATH".to_owned(), |found| format!("the kind on PATH is {found}"));
    format!(
        "{what}, and this machine needs {version}\n  install it (go install {MODULE}@{version}), or put Go on PATH, with which it is built into the cache folder"
    )
}

/// As `kind version` says it: `kind v0.30.0 go1.24.6 linux/amd64`.
fn version_of(program: &Path) -> Result<String> {
    let said = run::output(Command::new(program).arg("version"))?;
    Ok(read(&said).unwrap_or_else(|| said.trim().to_owned()))
}

fn read(said: &str) -> Option<String> {
    said.split_whitespace().find(|word| word.starts_with('v') && word.contains('.')).map(str::to_owned)
}

fn build(version: &str, folder: &Path) -> Result<()> {
    let work = tempfile::Builder::new().prefix("kind.tmp-").tempdir_in(made(&cache_folder()?)?)?;
    let mut go = Command::new("go");
    go.args(["install", "-trimpath", "-ldflags", "-s -w", &format!("{MODULE}@{version}")]);
    // Of another system or processor it would not lie where GOBIN says.
    go.env("GOBIN", work.path()).env("CGO_ENABLED", "0").env("GOFLAGS", "").env_remove("GOOS").env_remove("GOARCH");
    run::output(go.current_dir("/"))?;
    made(folder)?;
    std::fs::rename(work.path().join("kind"), folder.join("kind"))?;
    Ok(())
}

fn made(folder: &Path) -> Result<&Path> {
    std::fs::create_dir_all(folder)?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::provider::docker::fake;

    #[test]
    fn a_version_is_read_from_what_kind_says() {
        assert_eq!(read("kind v0.30.0 go1.24.6 linux/amd64\n").as_deref(), Some("v0.30.0"));
        assert_eq!(read("kind (unknown)"), None);
        let folder = tempfile::tempdir().unwrap();
        let script = "test \"$1\" = version && echo kind v0.11.1 go1.16 linux/amd64";
        let program = fake::program(folder.path(), "kind", script);
        assert_eq!(version_of(&program).unwrap(), "v0.11.1");
    }

    #[test]
    fn another_version_is_named_with_the_one_that_is_needed() {
        let said = wanted("v0.30.0", Some("v0.11.1"));
        assert!(said.starts_with("the kind on PATH is v0.11.1, and this machine needs v0.30.0"), "{said}");
        assert!(wanted("v0.30.0", None).starts_with("there is no kind on PATH"));
    }
}
