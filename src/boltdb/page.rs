//! What the bytes of one page mean.
//!
//! Format (go.etcd.io/bbolt `internal/common`, the same for etcd 3.4 to 3.7), all little-endian. A page begins with 16 bytes: id u64,
//! flags u16, count u16, overflow u32; it runs over `overflow` further pages. A meta follows in pages 0 and 1: magic, version,
//! page size, flags as u32, then root page, sequence, freelist, high-water mark, transaction as u64, and the FNV-1a-64 of those.
//! Elements have 16 bytes each after the page's first 16. Of a branch: position from the element, key length, u64 child. Of a leaf:
//! flags, position, key length, value length. A leaf element with flag 1 is a bucket; its value is a root page and a sequence, and if
//! the root is 0, a page that follows in the value.

use std::fmt;
use std::io;

/// Length of a page header, and of an element.
pub const HEADER: usize = 16;
pub const META: usize = 64;
/// Length of the header of a bucket's value: root page and sequence.
pub const BUCKET: usize = 16;

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;
const BRANCH: u16 = 0x01;
const LEAF: u16 = 0x02;
const META_PAGE: u16 = 0x04;
const FREELIST: u16 = 0x10;
pub(super) const IS_BUCKET: u32 = 0x01;

/// The freelist page id of a database without a freelist, such as every etcd database.
pub const NO_FREELIST: u64 = u64::MAX;
/// bbolt takes the page size of the operating system that created the file.
pub const PAGE_SIZES: [u32; 7] = [1024, 2048, 4096, 8192, 16384, 32768, 65536];

#[derive(Debug, PartialEq, Eq)]
pub struct Corruption {
    /// Offset in the file, in bytes.
    pub offset: u64,
    pub what: String,
}

impl Corruption {
    pub fn new(offset: u64, what: impl Into<String>) -> Self {
        Self { offset, what: what.into() }
    }
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at byte {}: {}", self.offset, self.what)
    }
}

impl std::error::Error for Corruption {}

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error(transparent)]
    Damaged(#[from] Corruption),
    /// The system could not read it.
    #[error("cannot read at byte {offset}")]
    Io { offset: u64, source: io::Error },
    #[error("cancelled")]
    Cancelled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    pub page_size: u32,
    /// Root page of the top-level bucket.
    pub root: u64,
    /// The sequence of the top-level bucket, which etcd does not use.
    pub sequence: u64,
    /// Page of the freelist, or [`NO_FREELIST`].
    pub freelist: u64,
    /// The high-water mark: the first page id that was never used, which is the length of the file in pages.
    pub high_water_mark: u64,
    pub transaction: u64,
}

impl Meta {
    /// Parses a meta page; `offset` is its position in the file.
    pub fn read(page: &[u8], offset: u64) -> Result<Self, Corruption> {
        let wrong = |what: &str| Corruption::new(offset, format!("the meta page is damaged: {what}"));
        let meta = page.get(HEADER..HEADER + META).ok_or_else(|| wrong("it is cut off"))?;
        let (word, long) = (|at| u32_at(meta, at).unwrap_or_default(), |at| u64_at(meta, at).unwrap_or_default());
        if word(0) != MAGIC {
            return Err(wrong("its magic number is wrong"));
        }
        if word(4) != VERSION {
            return Err(wrong("its version is unknown"));
        }
        if long(56) != fnv_1a(&meta[..56]) {
            return Err(wrong("its checksum is wrong"));
        }
        let page_size = word(8);
        if !PAGE_SIZES.contains(&page_size) {
            return Err(wrong("its page size is impossible"));
        }
        Ok(Self {
            page_size,
            root: long(16),
            sequence: long(24),
            freelist: long(32),
            high_water_mark: long(40),
            transaction: long(48),
        })
    }

    /// Bytes of the database; `None` on overflow.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        self.high_water_mark.checked_mul(u64::from(self.page_size))
    }

    /// The message for a file of `length` bytes whose meta page says another length.
    pub(super) fn too_short(&self, length: u64) -> String {
        let (pages, size) = (self.high_water_mark, self.page_size);
        format!("the database has {length} bytes, but its meta page says {pages} pages of {size}")
    }

    /// The page `id`, 0 or 1, that holds it.
    #[must_use]
    pub fn page(&self, id: u64) -> Vec<u8> {
        let mut page = header(id, META_PAGE, 0, 0).to_vec();
        page.extend([MAGIC, VERSION, self.page_size, 0].into_iter().flat_map(u32::to_le_bytes));
        let longs = [self.root, self.sequence, self.freelist, self.high_water_mark, self.transaction];
        page.extend(longs.into_iter().flat_map(u64::to_le_bytes));
        let sum = fnv_1a(&page[HEADER..]);
        page.extend(sum.to_le_bytes());
        page.resize(self.page_size as usize, 0);
        page
    }
}

fn header(id: u64, kind: u16, count: u16, overflow: u32) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(&id.to_le_bytes());
    header[8..10].copy_from_slice(&kind.to_le_bytes());
    header[10..12].copy_from_slice(&count.to_le_bytes());
    header[12..].copy_from_slice(&overflow.to_le_bytes());
    header
}

/// The leaf page `id` with these pairs, without padding; `None` if there are more than a page can count.
#[must_use]
pub fn leaf(id: u64, pairs: &[Pair<'_>], page_size: u32) -> Option<Vec<u8>> {
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).ok();
    let bodies: usize = pairs.iter().map(|pair| pair.key.len() + pair.value.len()).sum();
    let whole = HEADER + pairs.len() * HEADER + bodies;
    let overflow = u32::try_from(whole.div_ceil(page_size as usize).saturating_sub(1)).ok()?;
    let mut page = header(id, LEAF, u16::try_from(pairs.len()).ok()?, overflow).to_vec();
    let mut body = HEADER + pairs.len() * HEADER;
    for pair in pairs {
        let position = u32::try_from(body - page.len()).ok()?;
        let flags = if pair.is_bucket { IS_BUCKET } else { 0 };
        let fields = [flags, position, length(pair.key)?, length(pair.value)?];
        page.extend(fields.into_iter().flat_map(u32::to_le_bytes));
        body += pair.key.len() + pair.value.len();
    }
    for pair in pairs {
        page.extend_from_slice(pair.key);
        page.extend_from_slice(pair.value);
    }
    Some(page)
}

/// The branch page `id` with these keys and child pages, without padding; `None` if there are more than a page can
/// count.
#[must_use]
pub fn branch(id: u64, children: &[(&[u8], u64)], page_size: u32) -> Option<Vec<u8>> {
    let whole = HEADER + children.len() * HEADER + children.iter().map(|(key, _)| key.len()).sum::<usize>();
    let overflow = u32::try_from(whole.div_ceil(page_size as usize).saturating_sub(1)).ok()?;
    let mut page = header(id, BRANCH, u16::try_from(children.len()).ok()?, overflow).to_vec();
    let mut body = HEADER + children.len() * HEADER;
    for (key, child) in children {
        page.extend(u32::try_from(body - page.len()).ok()?.to_le_bytes());
        page.extend(u32::try_from(key.len()).ok()?.to_le_bytes());
        page.extend(child.to_le_bytes());
        body += key.len();
    }
    for (key, _) in children {
        page.extend_from_slice(key);
    }
    Some(page)
}

/// <http://www.isthe.com/chongo/tech/comp/fnv/>, 64 bits, variant 1a.
fn fnv_1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Branch,
    Leaf,
    Freelist,
}

/// The first 16 bytes of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub id: u64,
    /// The kind of page; `None` for impossible flags.
    pub kind: Option<Kind>,
    pub count: u16,
    pub overflow: u32,
}

impl Header {
    /// Parses it; `None` if there are fewer bytes.
    #[must_use]
    pub fn read(page: &[u8]) -> Option<Self> {
        let kind = match u16_at(page, 8)? {
            BRANCH => Some(Kind::Branch),
            LEAF => Some(Kind::Leaf),
            FREELIST => Some(Kind::Freelist),
            _ => None,
        };
        Some(Self { id: u64_at(page, 0)?, kind, count: u16_at(page, 10)?, overflow: u32_at(page, 12)? })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair<'a> {
    pub key: &'a [u8],
    pub value: &'a [u8],
    pub is_bucket: bool,
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_le_bytes)
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn meta(id: u64, transaction: u64, high_water_mark: u64, root: u64) -> Vec<u8> {
        let meta = Meta { page_size: 4096, root, sequence: 0, freelist: NO_FREELIST, high_water_mark, transaction };
        meta.page(id)
    }

    #[test]
    fn a_head_is_read_and_its_faults_are_named() {
        let good = meta(1, 7, 8, 3);
        let expected =
            Meta { page_size: 4096, root: 3, sequence: 0, freelist: NO_FREELIST, high_water_mark: 8, transaction: 7 };
        assert_eq!(Meta::read(&good, 0), Ok(expected));
        for (at, what) in [(16, "magic number"), (20, "version"), (24, "checksum"), (75, "checksum")] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(Meta::read(&bad, 4096).unwrap_err().to_string().contains(what), "{at}");
        }
        assert!(Meta::read(&good[..50], 0).is_err());
    }
}
