//! A zip of a few files, as far as a release needs it (PKWARE's APPNOTE 6.3, sections 4.3.7, 4.3.12 and 4.3.16). The
//! libraries for it bring the code for encrypted ones into whatever is built beside them.

use std::io::Write as _;

use anyhow::{Context, Result};
use flate2::write::DeflateEncoder;
use flate2::{Compression, Crc};

use super::Entry;

const DAY: u64 = 86_400;
/// The first four bytes of a file, of its entry in the directory, and of the directory's end.
const FILE: u32 = 0x0403_4b50;
const DIRECTORY: u32 = 0x0201_4b50;
const END: u32 = 0x0605_4b50;
/// The directory's end without a comment.
const END_SIZE: usize = 22;
/// An entry of the directory, without the name.
const ENTRY_SIZE: usize = 46;
/// What a reader must know to unpack: version 2.0, for deflate.
const NEEDS: u16 = 20;
/// Made on Unix, so that the mode counts.
const MADE_BY: u16 = 3 << 8 | NEEDS;
/// Names are UTF-8.
const UTF8: u16 = 1 << 11;
const DEFLATED: u16 = 8;
/// A regular file, in the mode's upper bits.
const REGULAR: u32 = 0o100_000;

/// A zip with these files in this order.
pub fn zip(entries: &[Entry], time: u64) -> Result<Vec<u8>> {
    let (date, time) = date(time)?;
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    for entry in entries {
        let offset = u32::try_from(bytes.len())?;
        let mut crc = Crc::new();
        crc.update(&entry.content);
        let mut deflate = DeflateEncoder::new(Vec::new(), Compression::best());
        deflate.write_all(&entry.content)?;
        let packed = deflate.finish()?;
        // What the file's header and the directory's entry have in common.
        let mut common = Vec::new();
        shorts(&mut common, &[NEEDS, UTF8, DEFLATED, time, date]);
        longs(&mut common, &[crc.sum(), u32::try_from(packed.len())?, u32::try_from(entry.content.len())?]);
        shorts(&mut common, &[u16::try_from(entry.name.len())?, 0]);

        longs(&mut bytes, &[FILE]);
        bytes.extend(&common);
        bytes.extend(entry.name.as_bytes());
        bytes.extend(packed);

        longs(&mut directory, &[DIRECTORY]);
        shorts(&mut directory, &[MADE_BY]);
        directory.extend(common);
        // No comment, the first disk, binary.
        directory.extend([0; 6]);
        longs(&mut directory, &[(REGULAR | entry.mode) << 16, offset]);
        directory.extend(entry.name.as_bytes());
    }
    let (start, size) = (u32::try_from(bytes.len())?, u32::try_from(directory.len())?);
    let count = u16::try_from(entries.len())?;
    bytes.extend(directory);
    longs(&mut bytes, &[END]);
    shorts(&mut bytes, &[0, 0, count, count]);
    longs(&mut bytes, &[size, start]);
    bytes.extend([0; 2]);
    Ok(bytes)
}

fn shorts(bytes: &mut Vec<u8>, fields: &[u16]) {
    bytes.extend(fields.iter().flat_map(|field| field.to_le_bytes()));
}

fn longs(bytes: &mut Vec<u8>, fields: &[u32]) {
    bytes.extend(fields.iter().flat_map(|field| field.to_le_bytes()));
}

/// The names in a zip that has no comment; None where it is none.
pub fn names(bytes: &[u8]) -> Option<Vec<String>> {
    let short = |at: usize| Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let long = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let end = bytes.len().checked_sub(END_SIZE).filter(|end| long(*end) == Some(END))?;
    let mut at = usize::try_from(long(end + 16)?).ok()?;
    let mut names = Vec::new();
    for _ in 0..short(end + 10)? {
        if long(at)? != DIRECTORY {
            return None;
        }
        let name = bytes.get(at + ENTRY_SIZE..at + ENTRY_SIZE + usize::from(short(at + 28)?))?;
        names.push(String::from_utf8_lossy(name).into_owned());
        at += ENTRY_SIZE + name.len() + usize::from(short(at + 30)?) + usize::from(short(at + 32)?);
    }
    Some(names)
}

/// Seconds since 1970 as the civil date and the time of day of UTC, each in the 16 bits of MS-DOS; in steps of two seconds.
fn date(time: u64) -> Result<(u16, u16)> {
    // Counted in years that begin with March, the day that a leap year has more is the last one. 719468 days lie between
    // 1 March of the year 0 and 1970, 146097 are an era of 400 years.
    let days = time / DAY + 719_468;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + days / 146_097 * 400 + u64::from(month <= 2);
    let since =
        year.checked_sub(1980).filter(|since| *since < 128).context("a zip holds times from 1980 to 2107 only")?;
    let of_day = time % DAY;
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    Ok((u16::try_from(since << 9 | month << 5 | day)?, u16::try_from(hour << 11 | minute << 5 | (second / 2))?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;
    use std::process::Command;

    use super::super::times;
    use super::*;
    use crate::run;

    #[test]
    fn a_time_is_a_civil_date() {
        let shown = |time| {
            let (date, time) = date(time).unwrap();
            let (year, month, day) = (1980 + (date >> 9), date >> 5 & 15, date & 31);
            format!("{year}-{month:02}-{day:02} {:02}:{:02}:{:02}", time >> 11, time >> 5 & 63, (time & 31) * 2)
        };
        for (time, text) in [
            (times().start, "1980-01-01 00:00:00"),
            (951_782_400, "2000-02-29 00:00:00"),
            (1_709_251_198, "2024-02-29 23:59:58"),
            (1_709_251_200, "2024-03-01 00:00:00"),
            (1_772_600_768, "2026-03-04 05:06:08"),
            (times().end - 2, "2107-12-31 23:59:58"),
        ] {
            assert_eq!(shown(time), text);
        }
        assert!(date(0).is_err() && date(times().end).is_err());
    }

    /// Python's own reader, where there is one: none of ours.
    fn python(archive: &Path, code: &str) -> Option<String> {
        let mut python = Command::new("python3");
        python.args(["-c", &format!("import sys, zipfile\nz = zipfile.ZipFile(sys.argv[1])\n{code}")]).arg(archive);
        Command::new("python3").arg("--version").output().ok()?;
        Some(run::output(&mut python).unwrap())
    }

    #[test]
    fn a_zip_is_what_others_read() {
        let folder = tempfile::tempdir().unwrap();
        let archive = folder.path().join("a.zip");
        let words = b"words ".repeat(1000);
        let entry = |name: &str, mode, content: &[u8]| Entry { name: name.to_owned(), mode, content: content.to_vec() };
        let entries = [entry("b.exe", 0o755, &words), entry("한국어.md", 0o644, b"")];
        let bytes = zip(&entries, 1_772_600_768).unwrap();
        assert!(bytes.len() < words.len());
        assert_eq!(names(&bytes).unwrap(), ["b.exe", "한국어.md"]);
        std::fs::write(&archive, &bytes).unwrap();
        let code = "assert z.testzip() is None\nassert z.read('b.exe') == b'words ' * 1000\n\
                    for i in z.infolist(): print(ascii(i.filename), oct(i.external_attr >> 16), i.date_time, i.file_size)";
        match python(&archive, code) {
            Some(said) => assert_eq!(
                said,
                "'b.exe' 0o100755 (2026, 3, 4, 5, 6, 8) 6000\n\
                 '\\ud55c\\uad6d\\uc5b4.md' 0o100644 (2026, 3, 4, 5, 6, 8) 0\n"
            ),
            None => eprintln!("not compared with another reader: there is no python3"),
        }
    }

    #[test]
    fn what_is_cut_off_is_no_zip() {
        let entry = Entry { name: "a".to_owned(), mode: 0o644, content: vec![1; 100] };
        let bytes = zip(&[entry], times().start).unwrap();
        for length in 0..bytes.len() {
            assert_eq!(names(&bytes[..length]), None, "{length}");
            assert!(length == 0 || names(&bytes[length..]).is_none(), "{length}");
        }
    }
}
