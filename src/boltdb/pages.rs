//! bbolt's file (`member/snap/db`), as far as it tells whether a bucket holds anything.
//!
//! Format (go.etcd.io/bbolt `internal/common`, the same for etcd 3.4 to 3.7), all little-endian: pages of a fixed size, each with
//! a header of 16 bytes (id u64, flags u16, count u16, overflow u32). Pages 0 and 1 are metas: magic, version, page size and flags
//! as u32, then root page, sequence, freelist, high-water mark, transaction as u64, and the FNV-1a-64 of those. The valid meta
//! with the highest transaction counts. A leaf has elements of 16 bytes (flags, position from the element, key length, value
//! length); an element with flag 1 is a bucket, its value a root page and a sequence, and a root of 0 is a page that follows
//! within the value.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;
const HEADER: usize = 16;
const META: usize = 64;
const ELEMENT: usize = 16;
const BUCKET: usize = 16;
const LEAF: u16 = 0x02;
const IS_BUCKET: u32 = 0x01;
/// bbolt uses the page size of the machine that made the file.
const PAGE_SIZES: [u32; 4] = [4096, 8192, 16384, 65536];
/// Pages that one leaf may run over, as a bound against damage.
const LONGEST_RUN: u32 = 1 << 14;

/// Whether any of these top-level buckets holds something.
///
/// # Errors
/// If the file cannot be read, or is damaged or too unusual to tell.
pub fn any_bucket_holds(path: &Path, buckets: &[&str]) -> io::Result<bool> {
    let file = File::open(path)?;
    let (page_size, root) = root(&file)?;
    let page = page(&file, page_size, root)?;
    for element in 0..count(&page)? {
        let (flags, name, value) = leaf_element(&page, element)?;
        let is_wanted = buckets.iter().any(|wanted| wanted.as_bytes() == name);
        // A page of its own is only given to a bucket that has outgrown its parent's.
        if is_wanted && flags & IS_BUCKET != 0 && (u64_at(value, 0)? != 0 || count(part(value, BUCKET, HEADER)?)? > 0) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Page size and root page of the newest valid meta.
fn root(file: &File) -> io::Result<(u32, u64)> {
    let mut newest: Option<(u64, u32, u64)> = None;
    // The second meta begins where the first page ends, and the size of that is in the first, which may be torn.
    for offset in [0].into_iter().chain(PAGE_SIZES.map(u64::from)) {
        let mut bytes = [0; HEADER + META];
        if file.read_exact_at(&mut bytes, offset).is_err() {
            continue;
        }
        let meta = &bytes[HEADER..];
        let page_size = u32_at(meta, 8)?;
        let is_here = offset == 0 || offset == u64::from(page_size);
        let is_valid = u32_at(meta, 0)? == MAGIC && u32_at(meta, 4)? == VERSION && PAGE_SIZES.contains(&page_size);
        if is_here && is_valid && u64_at(meta, 56)? == fnv_1a(&meta[..56]) {
            let transaction = u64_at(meta, 48)?;
            if newest.is_none_or(|(known, ..)| known < transaction) {
                newest = Some((transaction, page_size, u64_at(meta, 16)?));
            }
        }
    }
    newest.map(|(_, page_size, root)| (page_size, root)).ok_or_else(damaged)
}

/// A leaf with the pages that it runs over.
fn page(file: &File, page_size: u32, id: u64) -> io::Result<Vec<u8>> {
    let offset = id.checked_mul(u64::from(page_size)).ok_or_else(damaged)?;
    let mut header = [0; HEADER];
    file.read_exact_at(&mut header, offset)?;
    let overflow = u32_at(&header, 12)?;
    let flags = u16::from_le_bytes([header[8], header[9]]);
    if u64_at(&header, 0)? != id || flags & LEAF == 0 || overflow > LONGEST_RUN {
        return Err(damaged());
    }
    let mut bytes = vec![0; page_size as usize * (overflow as usize + 1)];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

fn count(page: &[u8]) -> io::Result<usize> {
    let bytes = part(page, 10, 2)?;
    Ok(usize::from(u16::from_le_bytes([bytes[0], bytes[1]])))
}

fn leaf_element(page: &[u8], index: usize) -> io::Result<(u32, &[u8], &[u8])> {
    let at = HEADER + index * ELEMENT;
    let element = part(page, at, ELEMENT)?;
    let size = |offset| u32_at(element, offset).map(|size| size as usize);
    let (position, key, value) = (size(4)?, size(8)?, size(12)?);
    let start = at + position;
    Ok((u32_at(element, 0)?, part(page, start, key)?, part(page, start + key, value)?))
}

fn part(bytes: &[u8], start: usize, length: usize) -> io::Result<&[u8]> {
    bytes.get(start..).and_then(|rest| rest.get(..length)).ok_or_else(damaged)
}

fn u32_at(bytes: &[u8], at: usize) -> io::Result<u32> {
    part(bytes, at, 4)?.try_into().map(u32::from_le_bytes).map_err(|_| damaged())
}

fn u64_at(bytes: &[u8], at: usize) -> io::Result<u64> {
    part(bytes, at, 8)?.try_into().map(u64::from_le_bytes).map_err(|_| damaged())
}

/// <http://www.isthe.com/chongo/tech/comp/fnv/>, 64 bits, variant 1a.
fn fnv_1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

fn damaged() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "the database file is damaged")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PAGE: usize = 4096;

    /// Two metas and a root leaf with the buckets `key` (with an element or not) and `meta` (on a page of its own).
    fn database(has_key: bool) -> Vec<u8> {
        let mut file = vec![0; 4 * PAGE];
        for (index, transaction) in [(0u64, 6u64), (1, 7)] {
            let at = usize::try_from(index).unwrap() * PAGE;
            file[at..at + 8].copy_from_slice(&index.to_le_bytes());
            file[at + 8] = 4;
            let mut meta = Vec::new();
            for word in [MAGIC, VERSION, 4096, 0] {
                meta.extend(word.to_le_bytes());
            }
            // The older meta points nowhere.
            for word in [if transaction == 7 { 3 } else { 99 }, 0, 2, 4, transaction] {
                meta.extend(u64::to_le_bytes(word));
            }
            let sum = fnv_1a(&meta);
            meta.extend(sum.to_le_bytes());
            file[at + HEADER..at + HEADER + META].copy_from_slice(&meta);
        }
        let mut inline = [0u8; BUCKET + HEADER];
        inline[BUCKET + 8] = 2;
        inline[BUCKET + 10] = u8::from(has_key);
        let mut outgrown = [0u8; BUCKET];
        outgrown[0] = 2;
        let root = 3 * PAGE;
        file[root] = 3;
        file[root + 8] = 2;
        file[root + 10] = 2;
        let mut data = root + HEADER + 2 * ELEMENT;
        for (index, (name, value)) in [("key", &inline[..]), ("meta", &outgrown[..])].into_iter().enumerate() {
            let at = root + HEADER + index * ELEMENT;
            for (offset, word) in [1, data - at, name.len(), value.len()].into_iter().enumerate() {
                file[at + 4 * offset..at + 4 * offset + 4].copy_from_slice(&u32::try_from(word).unwrap().to_le_bytes());
            }
            for bytes in [name.as_bytes(), value] {
                file[data..data + bytes.len()].copy_from_slice(bytes);
                data += bytes.len();
            }
        }
        file
    }

    fn holds(bytes: &[u8], buckets: &[&str]) -> io::Result<bool> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        any_bucket_holds(file.path(), buckets)
    }

    #[test]
    fn a_bucket_with_an_element_or_a_page_of_its_own_holds_something() {
        assert!(!holds(&database(false), &["key", "lease"]).unwrap());
        assert!(holds(&database(true), &["key"]).unwrap());
        assert!(!holds(&database(true), &["lease"]).unwrap());
        assert!(holds(&database(false), &["meta"]).unwrap());
    }

    #[test]
    fn damage_is_never_taken_for_an_empty_database() {
        let good = database(true);
        for broken in [&good[..0], &good[..PAGE], &good[..3 * PAGE + 20]] {
            assert!(holds(broken, &["key"]).is_err());
        }
        let mut torn = good.clone();
        torn[PAGE + HEADER + 50] ^= 1;
        assert!(holds(&torn, &["key"]).is_err(), "the other meta's root is not there");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(at in 0usize..4 * PAGE, byte: u8, cut in 0usize..4 * PAGE) {
            let mut bytes = database(true);
            bytes[at] = byte;
            let _ = holds(&bytes, &["key"]);
            let _ = holds(&bytes[..cut], &["key"]);
        }
    }
}
