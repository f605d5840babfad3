//! Archives in memory, tar.gz and zip, made of nothing but what is given: no clock, no owner, no order of a folder.

mod zip;

use std::fs::File;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, bail};
use flate2::read::GzDecoder;
use flate2::{Compression, GzBuilder};

pub use zip::zip;

/// A file of an archive.
pub struct Entry {
    pub name: String,
    pub mode: u32,
    pub content: Vec<u8>,
}

/// The times that both kinds of archives can hold, in seconds since 1970: the years 1980 to 2107.
pub fn times() -> Range<u64> {
    315_532_800..4_354_819_200
}

/// A tar.gz with these files in this order.
pub fn tar_gz(entries: &[Entry], time: u64) -> Result<Vec<u8>> {
    // 255 is an unknown system: which one packed makes no difference (RFC 1952, 2.3.1).
    let gzip = GzBuilder::new().mtime(0).operating_system(255).write(Vec::new(), Compression::best());
    let mut tar = tar::Builder::new(gzip);
    for entry in entries {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(entry.mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(time);
        header.set_size(u64::try_from(entry.content.len())?);
        tar.append_data(&mut header, &entry.name, entry.content.as_slice())?;
    }
    Ok(tar.into_inner()?.finish()?)
}

/// The names in an archive, sorted.
pub fn names(archive: &Path) -> Result<Vec<String>> {
    read(archive).with_context(|| format!("{} is no archive that can be read", archive.display()))
}

fn read(archive: &Path) -> Result<Vec<String>> {
    let name = archive.to_string_lossy();
    let mut names: Vec<String> = if name.ends_with(".tar.gz") {
        let mut tar = tar::Archive::new(GzDecoder::new(File::open(archive)?));
        let entries = tar.entries()?;
        entries.map(|entry| Ok(entry?.path()?.to_string_lossy().into_owned())).collect::<Result<_>>()?
    } else if name.ends_with(".zip") {
        zip::names(&std::fs::read(archive)?).context("its directory is not that of a zip")?
    } else {
        bail!("its name ends neither with .tar.gz nor with .zip");
    };
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_no_archive_is_named() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.tar.gz", "a.zip", "a.tar.xz"] {
            let path = folder.path().join(name);
            for content in ["", "no archive at all, though it is not so very short"] {
                std::fs::write(&path, content).unwrap();
                let said = names(&path).map_err(|error| format!("{error:#}"));
                assert!(said.as_ref().is_err_and(|said| said.contains(name)), "{name} with {content:?}: {said:?}");
            }
        }
    }
}
