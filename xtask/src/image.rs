//! Container images made without a container engine: an archive as `docker save` writes it, one layer an image. The
//! layer is one static program, or a system that lies in an archive of its own.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use ring::digest::{Context as Digest, SHA256};
use serde_json::{Value, json};

use crate::hash::{hex, sha256};
use crate::run;

/// The time of everything in an image, in seconds: the same content is the same image.
pub const TIME: u64 = 946_684_800;
/// [`TIME`] as configurations write it.
const CREATED: &str = "2000-01-01T00:00:00Z";

/// One image of an archive, with a static program.
pub struct Image<'a> {
    /// Repository and tag.
    pub name: &'a str,
    /// The static program on this machine.
    pub program: &'a Path,
    /// Its place in the image, which is also the entrypoint.
    pub entrypoint: &'a str,
    /// Empty folders, for mounts.
    pub folders: &'a [&'a str],
}

/// An image whose layer lies in an archive of its own, as [`pack`] writes it.
pub struct System<'a> {
    /// Repository and tag.
    pub name: &'a str,
    pub layer: &'a Path,
    /// The same, compressed by gzip, where the image shall hold it so.
    pub compressed: Option<&'a Path>,
    pub entrypoint: &'a str,
    /// What ends it; SIGTERM where it is None.
    pub stop_signal: Option<&'a str>,
}

/// Packs a layer: of each folder these paths, without what lies below them.
pub fn pack(layer: &Path, folders: &[(&Path, Vec<String>)]) -> Result<()> {
    let mut tar = tar(layer);
    tar.arg("--no-recursion");
    for (folder, paths) in folders {
        tar.arg("--directory").arg(folder).args(paths);
    }
    run::output(&mut tar).map(drop)
}

/// Packs a layer of all that lies in a folder.
pub fn pack_all(layer: &Path, folder: &Path) -> Result<()> {
    run::output(tar(layer).arg("--directory").arg(folder).arg(".")).map(drop)
}

/// What makes the same archive of the same files.
fn tar(layer: &Path) -> Command {
    let mut tar = Command::new("tar");
    tar.args(["--create", "--format=gnu", "--sort=name", "--numeric-owner"]);
    tar.arg(format!("--mtime=@{TIME}")).arg("--file").arg(layer);
    tar
}

/// Writes an archive with these images; it appears whole or not at all.
pub fn write(archive: &Path, images: &[Image<'_>]) -> Result<()> {
    write_parts(archive, &|out, manifest| {
        for image in images {
            let layer = layer(image)?;
            let diff = sha256(&layer);
            let name = format!("{diff}/layer.tar");
            entry(out, &name, 0o644, &layer)?;
            describe(out, manifest, image.name, &name, &config(image.entrypoint, None, &diff))?;
        }
        Ok(())
    })
}

/// As [`write`], with layers that are packed already.
pub fn write_systems(archive: &Path, systems: &[System<'_>]) -> Result<()> {
    write_parts(archive, &|out, manifest| {
        for system in systems {
            let shown = || format!("cannot read {}", system.layer.display());
            let diff = File::open(system.layer).map_err(Into::into).and_then(sum).with_context(shown)?;
            let mut stored = File::open(system.compressed.unwrap_or(system.layer)).with_context(shown)?;
            let name = format!("{diff}/layer.tar");
            entry_from(out, &name, 0o644, stored.metadata()?.len(), &mut stored)?;
            describe(out, manifest, system.name, &name, &config(system.entrypoint, system.stop_signal, &diff))?;
        }
        Ok(())
    })
}

/// Writes images into an archive, and each into its manifest.
type Parts<'a> = dyn Fn(&mut dyn Write, &mut Vec<Value>) -> Result<()> + 'a;

fn write_parts(archive: &Path, parts: &Parts<'_>) -> Result<()> {
    let folder = archive.parent().context("an archive lies in a folder")?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    {
        let mut out = BufWriter::new(file.as_file_mut());
        let mut manifest = Vec::new();
        parts(&mut out, &mut manifest)?;
        entry(&mut out, "manifest.json", 0o644, json!(manifest).to_string().as_bytes())?;
        finish(&mut out)?;
        out.flush()?;
    }
    file.persist(archive).with_context(|| format!("cannot write {}", archive.display()))?;
    Ok(())
}

/// Puts an image's configuration out, and the image into the manifest.
fn describe(out: &mut dyn Write, manifest: &mut Vec<Value>, image: &str, layer: &str, config: &Value) -> Result<()> {
    let config = config.to_string();
    let name = format!("{}.json", sha256(config.as_bytes()));
    entry(out, &name, 0o644, config.as_bytes())?;
    manifest.push(json!({ "Config": name, "RepoTags": [image], "Layers": [layer] }));
    Ok(())
}

/// A file's SHA-256.
fn sum(mut file: File) -> Result<String> {
    let mut digest = Digest::new(&SHA256);
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(digest.finish().as_ref())),
            read => digest.update(&buffer[..read]),
        }
    }
}

fn layer(image: &Image<'_>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut folders: Vec<String> = Vec::new();
    for path in image.folders.iter().copied().chain([parent(image.entrypoint)]) {
        let mut above = String::new();
        for part in path.split('/').filter(|p| !p.is_empty()) {
            above.push_str(part);
            above.push('/');
            if !folders.contains(&above) {
                folders.push(above.clone());
            }
        }
    }
    for folder in &folders {
        let mode = if folder == "tmp/" { 0o1777 } else { 0o755 };
        entry(&mut bytes, folder, mode, &[])?;
    }
    let mut program = Vec::new();
    File::open(image.program)
        .and_then(|mut f| f.read_to_end(&mut program))
        .with_context(|| format!("cannot read {}", image.program.display()))?;
    entry(&mut bytes, image.entrypoint.trim_start_matches('/'), 0o755, &program)?;
    finish(&mut bytes)?;
    Ok(bytes)
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(above, _)| above)
}

/// The image's configuration (OCI image-spec, config.md).
fn config(entrypoint: &str, stop_signal: Option<&str>, diff: &str) -> Value {
    let mut config = json!({
        "Entrypoint": [entrypoint],
        "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        "WorkingDir": "/",
    });
    if let Some(signal) = stop_signal {
        config["StopSignal"] = json!(signal);
    }
    json!({
        "architecture": if std::env::consts::ARCH == "aarch64" { "arm64" } else { "amd64" },
        "os": "linux",
        "created": CREATED,
        "config": config,
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{diff}")] },
        "history": [{ "created": CREATED, "created_by": "xtask" }],
    })
}

/// Appends a file, or a folder if the name ends with a slash (POSIX ustar).
fn entry(out: &mut dyn Write, name: &str, mode: u32, content: &[u8]) -> Result<()> {
    entry_from(out, name, mode, u64::try_from(content.len())?, &mut &*content)
}

/// As [`entry`], with `length` bytes that `content` gives.
fn entry_from(out: &mut dyn Write, name: &str, mode: u32, length: u64, content: &mut dyn Read) -> Result<()> {
    /// What the header's twelve octal digits can say.
    const LARGEST: u64 = 0o777_7777_7777;
    if length > LARGEST {
        bail!("{name:?} is larger than the 8 GiB that an archive's header can say");
    }
    if name.len() > 100 {
        bail!("{name:?} is too long for an archive's header");
    }
    let mut header = tar::Header::new_ustar();
    header.set_path(name).with_context(|| format!("{name:?} in an archive"))?;
    header.set_entry_type(if name.ends_with('/') { tar::EntryType::Directory } else { tar::EntryType::Regular });
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(length);
    header.set_cksum();
    out.write_all(header.as_bytes())?;
    let written = std::io::copy(&mut content.take(length), out)?;
    if written != length {
        bail!("{name:?} became shorter while it was read");
    }
    let padding = usize::try_from(length.next_multiple_of(512) - length)?;
    out.write_all(&vec![0; padding])?;
    Ok(())
}

/// Two empty blocks end an archive.
fn finish(out: &mut dyn Write) -> Result<()> {
    out.write_all(&[0; 1024])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_archive_is_what_tar_reads() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("program");
        std::fs::write(&program, vec![7; 700]).unwrap();
        let archive = folder.path().join("a.tar");
        let image = Image { name: "bookaccess.local/x:1", program: &program, entrypoint: "/opt/x", folders: &["/tmp"] };
        write(&archive, &[image]).unwrap();
        let list = |file: &Path| {
            let out = std::process::Command::new("tar").arg("-tf").arg(file).output().unwrap();
            assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
            String::from_utf8(out.stdout).unwrap()
        };
        let names = list(&archive);
        assert!(names.ends_with("manifest.json\n"), "{names}");
        let out = std::process::Command::new("tar").args(["-xf", "a.tar"]).current_dir(folder.path()).status().unwrap();
        assert!(out.success());
        let layer = folder.path().join(names.lines().next().unwrap());
        assert_eq!(list(&layer), "tmp/\nopt/\nopt/x\n");
        let manifest: serde_json::Value =
            serde_json::from_slice(&std::fs::read(folder.path().join("manifest.json")).unwrap()).unwrap();
        assert_eq!(manifest[0]["RepoTags"][0], "bookaccess.local/x:1");
        let config: serde_json::Value = serde_json::from_slice(
            &std::fs::read(folder.path().join(manifest[0]["Config"].as_str().unwrap())).unwrap(),
        )
        .unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{}", sha256(&std::fs::read(layer).unwrap())));
    }

    #[test]
    fn a_system_is_its_archive_and_is_stopped_as_it_says() {
        let folder = tempfile::tempdir().unwrap();
        let layer = folder.path().join("layer.tar");
        std::fs::write(&layer, vec![1; 70_001]).unwrap();
        let archive = folder.path().join("a.tar");
        let system = System {
            name: "x/node:1",
            layer: &layer,
            compressed: None,
            entrypoint: "/init",
            stop_signal: Some("SIGRTMIN+3"),
        };
        write_systems(&archive, std::slice::from_ref(&system)).unwrap();
        let first = std::fs::read(&archive).unwrap();
        write_systems(&archive, &[system]).unwrap();
        assert!(first == std::fs::read(&archive).unwrap());
        let out = std::process::Command::new("tar").args(["-xf", "a.tar"]).current_dir(folder.path()).status().unwrap();
        assert!(out.success());
        let read = |name: &str| -> Value {
            serde_json::from_slice(&std::fs::read(folder.path().join(name)).unwrap()).unwrap()
        };
        let manifest = read("manifest.json");
        let inside = folder.path().join(manifest[0]["Layers"][0].as_str().unwrap());
        assert_eq!(std::fs::read(inside).unwrap(), std::fs::read(&layer).unwrap());
        let config = read(manifest[0]["Config"].as_str().unwrap());
        assert_eq!(config["config"]["StopSignal"], "SIGRTMIN+3");
        assert_eq!(config["config"]["Entrypoint"], json!(["/init"]));
    }
}
