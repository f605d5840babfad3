//! Container images made without a container engine: an archive as `docker save` writes it, one layer an image, with
//! one static program.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use ring::digest::{SHA256, digest};
use serde_json::json;

/// One image of an archive.
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

/// Writes an archive with these images; it appears whole or not at all.
pub fn write(archive: &Path, images: &[Image<'_>]) -> Result<()> {
    let folder = archive.parent().context("an archive lies in a folder")?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    {
        let mut out = BufWriter::new(file.as_file_mut());
        let mut manifest = Vec::new();
        for image in images {
            let layer = layer(image)?;
            let diff = hex(&layer);
            let config = config(image, &diff).to_string();
            let config_name = format!("{}.json", hex(config.as_bytes()));
            let layer_name = format!("{diff}/layer.tar");
            entry(&mut out, &layer_name, 0o644, &layer)?;
            entry(&mut out, &config_name, 0o644, config.as_bytes())?;
            manifest.push(json!({ "Config": config_name, "RepoTags": [image.name], "Layers": [layer_name] }));
        }
        entry(&mut out, "manifest.json", 0o644, json!(manifest).to_string().as_bytes())?;
        finish(&mut out)?;
        out.flush()?;
    }
    file.persist(archive).with_context(|| format!("cannot write {}", archive.display()))?;
    Ok(())
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

/// The image's configuration (OCI image-spec, config.md). Its time is fixed: the same program is the same image.
fn config(image: &Image<'_>, diff: &str) -> serde_json::Value {
    json!({
        "architecture": if std::env::consts::ARCH == "aarch64" { "arm64" } else { "amd64" },
        "os": "linux",
        "created": "2000-01-01T00:00:00Z",
        "config": { "Entrypoint": [image.entrypoint], "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"], "WorkingDir": "/" },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{diff}")] },
        "history": [{ "created": "2000-01-01T00:00:00Z", "created_by": "xtask" }],
    })
}

fn hex(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

/// Appends a file, or a folder if the name ends with a slash (POSIX ustar).
fn entry(out: &mut impl Write, name: &str, mode: u32, content: &[u8]) -> Result<()> {
    if name.len() > 100 {
        bail!("{name:?} is too long for an archive's header");
    }
    let mut header = [0u8; 512];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, &format!("{mode:07o}"));
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{:011o}", content.len()));
    put(136, "00000000000");
    put(148, "        ");
    put(156, if name.ends_with('/') { "5" } else { "0" });
    put(257, "ustar\x0000");
    let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    out.write_all(&header)?;
    out.write_all(content)?;
    out.write_all(&vec![0; content.len().next_multiple_of(512) - content.len()])?;
    Ok(())
}

/// Two empty blocks end an archive.
fn finish(out: &mut impl Write) -> Result<()> {
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
        assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{}", hex(&std::fs::read(layer).unwrap())));
    }
}
