//! The number of entries of a zip archive, from its end record.
//!
//! Of two entries with the same name, one reader shows the first and another reader the second. So their number is read
//! separately (APPNOTE.TXT 4.3.16; of archives with more than 65,534 entries 4.3.14 and 4.3.15).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// The end of an archive without its comment, and the longest comment.
const END: usize = 22;
const MAX_COMMENT_BYTES: u64 = 65535;
/// The locator of the end record of a large archive.
const LOCATOR: usize = 20;

/// The number of entries; `None` if it is missing.
pub fn count(file: &File) -> io::Result<Option<u64>> {
    let size = file.metadata()?.len();
    let from = size.saturating_sub(END as u64 + MAX_COMMENT_BYTES);
    let mut tail = vec![0; usize::try_from(size - from).map_err(io::Error::other)?];
    file.read_exact_at(&mut tail, from)?;
    let is_end = |at: &usize| {
        let comment = tail.get(at + 20..at + 22).map(|bytes| usize::from(u16::from_le_bytes([bytes[0], bytes[1]])));
        tail[*at..].starts_with(b"PK\x05\x06") && comment == Some(tail.len() - at - END)
    };
    let Some(at) = (0..=tail.len().saturating_sub(END)).rev().find(is_end).filter(|_| tail.len() >= END) else {
        return Ok(None);
    };
    let count = u16::from_le_bytes([tail[at + 10], tail[at + 11]]);
    if count != u16::MAX {
        return Ok(Some(u64::from(count)));
    }
    let Some(locator) = (from + at as u64).checked_sub(LOCATOR as u64) else { return Ok(None) };
    let mut bytes = [0; LOCATOR];
    file.read_exact_at(&mut bytes, locator)?;
    if !bytes.starts_with(b"PK\x06\x07") {
        return Ok(Some(u64::from(count)));
    }
    let large = bytes[8..16].try_into().map_or(u64::MAX, u64::from_le_bytes);
    let mut bytes = [0; 40];
    file.read_exact_at(&mut bytes, large)?;
    let count = bytes[32..40].try_into().map_or(u64::MAX, u64::from_le_bytes);
    Ok(bytes.starts_with(b"PK\x06\x06").then_some(count))
}
