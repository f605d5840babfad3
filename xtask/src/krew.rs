//! `cargo xtask krew`: the plugin's manifest for krew, out of a release's archives, held against what krew's index asks.

mod rules;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};

use crate::dist::{PROGRAM, archive, checksum_beside};
use crate::hash::sha256;
use crate::run;

/// The plugin's name: what follows `kubectl`.
const NAME: &str = "bookaccess";
/// One line of `kubectl krew search`.
const SHORT: &str = "Find out why a NodePort page does not open, fix it";
const DESCRIPTION: &str = "\
Looks from several places at once where the path from a browser to a Service
breaks: Service, workload, kube-proxy, node, the network between nodes, or the
way to the node. Names the cause with its evidence, in English or Korean, opens
a fallback so that the page is back at once, repairs what it is allowed to, and
takes everything back on request. Bookinfo's product page and Grafana are its
targets when none is named.
";
const CAVEATS: &str = "\
Shell completion: kubectl bookaccess completion --help
";

#[derive(clap::Args)]
pub struct Args {
    /// The folder of the archives and their checksums; the manifest is written into it
    #[arg(long)]
    dir: PathBuf,
    /// The release, such as v1.2.3
    #[arg(long)]
    tag: String,
    /// Where the release is published, such as https://github.com/OWNER/NAME; in GitHub's workflows it is known
    #[arg(long, value_name = "URL")]
    repository: Option<String>,
}

/// What krew is told.
#[derive(Clone, Debug)]
struct Manifest {
    name: String,
    version: String,
    homepage: String,
    short: String,
    description: String,
    caveats: String,
    platforms: Vec<Platform>,
}

/// One archive.
#[derive(Clone, Debug)]
struct Platform {
    os: String,
    arch: String,
    uri: String,
    sha256: String,
    bin: String,
    /// The names in the archive.
    files: Vec<String>,
}

/// Writes the manifest.
pub fn run(args: &Args) -> Result<ExitCode> {
    run::catch_interrupts()?;
    let repository = args.repository.clone().map_or_else(of_the_workflow, Ok)?;
    let manifest = manifest(&args.dir, &args.tag, repository.trim_end_matches('/'))?;
    let broken = rules::broken(&manifest);
    ensure!(broken.is_empty(), "krew would refuse this plugin:\n  {}", broken.join("\n  "));
    let path = args.dir.join(format!("{NAME}.yaml"));
    std::fs::write(&path, yaml(&manifest)).with_context(|| format!("cannot write {}", path.display()))?;
    println!("{}", path.display());
    Ok(ExitCode::SUCCESS)
}

/// The repository whose workflow this is.
fn of_the_workflow() -> Result<String> {
    let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let (server, name) = set("GITHUB_SERVER_URL").zip(set("GITHUB_REPOSITORY")).context(
        "it is not known where the release is published: name it by --repository https://github.com/OWNER/NAME",
    )?;
    Ok(format!("{server}/{name}"))
}

/// The manifest of the archives that lie in a folder.
fn manifest(folder: &Path, tag: &str, repository: &str) -> Result<Manifest> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with(PROGRAM) && !name.ends_with(".sha256") {
            names.push(name);
        }
    }
    names.sort();
    ensure!(
        !names.is_empty(),
        "{} holds no archive {PROGRAM}-{tag}-…: make them by cargo xtask dist",
        folder.display()
    );
    let platforms = names.iter().map(|name| platform(&folder.join(name), name, tag, repository));
    Ok(Manifest {
        name: NAME.to_owned(),
        version: tag.to_owned(),
        homepage: repository.to_owned(),
        short: SHORT.to_owned(),
        description: DESCRIPTION.to_owned(),
        caveats: CAVEATS.to_owned(),
        platforms: platforms.collect::<Result<_>>()?,
    })
}

fn platform(path: &Path, name: &str, tag: &str, repository: &str) -> Result<Platform> {
    let place = name.strip_prefix(&format!("{PROGRAM}-{tag}-"));
    let place = place.and_then(|rest| rest.strip_suffix(".tar.gz").or_else(|| rest.strip_suffix(".zip")));
    let Some((os, arch)) = place.and_then(|place| place.split_once('-')) else {
        bail!("{name} is not called {PROGRAM}-{tag}-OS-ARCH.tar.gz or .zip: is it of another release?");
    };
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let beside = checksum_beside(path);
    let written = std::fs::read_to_string(&beside).with_context(|| format!("{name} has no checksum beside it"))?;
    let sha256 = sha256(&bytes);
    ensure!(
        written == format!("{sha256}  {name}\n"),
        "{} is not the checksum of {name}, which is {sha256}: pack it again by cargo xtask dist",
        beside.display()
    );
    Ok(Platform {
        os: os.to_owned(),
        arch: arch.to_owned(),
        uri: format!("{repository}/releases/download/{tag}/{name}"),
        sha256,
        bin: format!("{PROGRAM}{}", if os == "windows" { ".exe" } else { "" }),
        files: archive::names(path)?,
    })
}

/// The manifest as krew reads it. What comes from outside is written in JSON's form, which is one of YAML's.
fn yaml(manifest: &Manifest) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let block = |text: &str| text.lines().map(|line| format!("    {line}\n")).collect::<String>();
    let mut text = format!(
        "apiVersion: krew.googlecontainertools.github.com/v1alpha2
kind: Plugin
metadata:
  name: {}
spec:
  version: {}
  homepage: {}
  shortDescription: {}
  description: |
{}  caveats: |
{}  platforms:
",
        manifest.name,
        quoted(&manifest.version),
        quoted(&manifest.homepage),
        quoted(&manifest.short),
        block(&manifest.description),
        block(&manifest.caveats),
    );
    for Platform { os, arch, uri, sha256, bin, .. } in &manifest.platforms {
        text.push_str(&format!(
            "  - selector:
      matchLabels:
        os: {}
        arch: {}
    uri: {}
    sha256: {}
    bin: {}
",
            quoted(os),
            quoted(arch),
            quoted(uri),
            quoted(sha256),
            quoted(bin)
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::dist::archive::{Entry, tar_gz, zip};

    const REPOSITORY: &str = "https://github.com/owner/kubectl-bookaccess";

    /// An archive with these files, and its checksum.
    fn archive(folder: &Path, place: &str, names: &[&str]) {
        let entries: Vec<_> = names
            .iter()
            .map(|name| Entry { name: (*name).to_owned(), mode: 0o755, content: b"content".to_vec() })
            .collect();
        let pack = if place.ends_with(".zip") { zip } else { tar_gz };
        let bytes = pack(&entries, 1_772_600_768).unwrap();
        let path = folder.join(format!("{PROGRAM}-{place}"));
        let name = path.file_name().unwrap().to_str().unwrap();
        std::fs::write(checksum_beside(&path), format!("{}  {name}\n", sha256(&bytes))).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    #[test]
    fn a_release_becomes_a_manifest_that_krew_takes() {
        let folder = tempfile::tempdir().unwrap();
        for place in ["linux-amd64.tar.gz", "linux-arm64.tar.gz", "darwin-arm64.tar.gz"] {
            archive(folder.path(), &format!("v1.2.3-{place}"), &["LICENSE", PROGRAM]);
        }
        archive(folder.path(), "v1.2.3-windows-amd64.zip", &["LICENSE", "kubectl-bookaccess.exe"]);
        let manifest = manifest(folder.path(), "v1.2.3", REPOSITORY).unwrap();
        assert_eq!(rules::broken(&manifest), [""; 0]);
        let text = yaml(&manifest);
        let uri = format!("    uri: \"{REPOSITORY}/releases/download/v1.2.3/{PROGRAM}-v1.2.3-windows-amd64.zip\"\n");
        assert!(text.contains(&uri), "{text}");
        let last = &manifest.platforms[3];
        assert!(text.ends_with(&format!("    sha256: \"{}\"\n    bin: \"kubectl-bookaccess.exe\"\n", last.sha256)));
        let places: Vec<_> = manifest.platforms.iter().map(|p| (p.os.as_str(), p.arch.as_str())).collect();
        assert_eq!(places, [("darwin", "arm64"), ("linux", "amd64"), ("linux", "arm64"), ("windows", "amd64")]);
    }

    #[test]
    fn a_folder_that_is_no_release_is_refused_in_one_sentence() {
        let said = |folder: &Path| format!("{:#}", manifest(folder, "v1.2.3", REPOSITORY).unwrap_err());
        let folder = tempfile::tempdir().unwrap();
        assert!(said(folder.path()).contains("cargo xtask dist"), "{}", said(folder.path()));

        archive(folder.path(), "v1.2.2-linux-amd64.tar.gz", &["LICENSE", PROGRAM]);
        assert!(said(folder.path()).contains("of another release"), "{}", said(folder.path()));

        let folder = tempfile::tempdir().unwrap();
        archive(folder.path(), "v1.2.3-linux-amd64.tar.gz", &["LICENSE", PROGRAM]);
        let path = folder.path().join("kubectl-bookaccess-v1.2.3-linux-amd64.tar.gz");
        std::fs::write(&path, "changed afterwards").unwrap();
        assert!(said(folder.path()).contains("is not the checksum of"), "{}", said(folder.path()));

        std::fs::remove_file(checksum_beside(&path)).unwrap();
        assert!(said(folder.path()).contains("no checksum beside it"), "{}", said(folder.path()));
        assert!(said(&folder.path().join("nowhere")).contains("cannot read"));
    }
}
