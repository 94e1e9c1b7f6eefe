//! The element table of a page, and the keys and values that it points to.

use crate::boltdb::page::{HEADER, Header, IS_BUCKET, Kind, Pair, u32_at, u64_at};

/// Maximum length of a key in bytes (bbolt `MaxKeySize`).
const MAX_KEY_BYTES: u32 = 32768;

/// The position of an element's key and value, from the element table at the beginning of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableEntry {
    /// From the first byte of the page.
    pub start: u64,
    pub key: u32,
    /// Bytes of the value; 0 in a branch.
    pub value: u32,
    /// The value is a bucket; never in a branch.
    pub is_bucket: bool,
    /// The page below; 0 in a leaf.
    pub child: u64,
}

impl TableEntry {
    #[must_use]
    pub fn end(&self) -> u64 {
        self.start + u64::from(self.key) + u64::from(self.value)
    }
}

/// Iterates over the element table of a page and checks each entry against what bbolt writes.
///
/// bbolt (`internal/common/inode.go`, `WriteInodeToPage`; before 1.4 `node.go`, `write`) stores keys and values after
/// the table, in order and without gaps, and panics when it reads (`ReadInodeFromPage`) or stores an empty key.
#[derive(Clone, Copy, Debug)]
pub struct Table<'p> {
    bytes: &'p [u8],
    kind: Kind,
    count: usize,
    index: usize,
    next: u64,
}

impl<'p> Table<'p> {
    /// For a page of `kind`; `bytes` reach from its beginning to the end of the table at least.
    #[must_use]
    pub fn new(bytes: &'p [u8], kind: Kind, count: u16) -> Self {
        let count = usize::from(count);
        Self { bytes, kind, count, index: 0, next: Self::length(count) as u64 }
    }

    /// Bytes up to the end of a table with this many entries.
    #[must_use]
    pub const fn length(count: usize) -> usize {
        HEADER + count * HEADER
    }

    /// The next entry; nothing after the last one.
    pub fn entry(&mut self) -> Result<Option<TableEntry>, String> {
        if self.index == self.count {
            return Ok(None);
        }
        let index = self.index;
        let entry = self.at(index).ok_or_else(|| format!("the table of a page is cut off at element {index}"))?;
        if entry.start != self.next {
            return Err(format!("element {index} of a page does not begin where the previous one ends"));
        }
        if entry.key == 0 || entry.key > MAX_KEY_BYTES {
            return Err(format!("element {index} of a page has a key of {} bytes", entry.key));
        }
        self.next = entry.end();
        self.index += 1;
        Ok(Some(entry))
    }

    /// Used bytes of the page, up to the end of the last returned entry.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.next
    }

    fn at(&self, index: usize) -> Option<TableEntry> {
        let at = HEADER + index * HEADER;
        let word = |skip: usize| u32_at(self.bytes, at + skip);
        let start = |position: u32| at as u64 + u64::from(position);
        if self.kind == Kind::Branch {
            let child = u64_at(self.bytes, at + 8)?;
            return Some(TableEntry { start: start(word(0)?), key: word(4)?, value: 0, is_bucket: false, child });
        }
        let flags = word(0).filter(|flags| flags & !IS_BUCKET == 0)?;
        Some(TableEntry { start: start(word(4)?), key: word(8)?, value: word(12)?, is_bucket: flags != 0, child: 0 })
    }
}

/// The pairs of a leaf page in memory.
#[derive(Clone, Copy, Debug)]
pub struct TablePairs<'p> {
    table: Table<'p>,
}

impl<'p> TablePairs<'p> {
    /// Of `page`, which begins with `header`.
    #[must_use]
    pub fn new(page: &'p [u8], header: Header) -> Self {
        Self { table: Table::new(page, Kind::Leaf, header.count) }
    }

    /// The next pair; nothing after the last one.
    pub fn pair(&mut self) -> Result<Option<Pair<'p>>, String> {
        let index = self.table.index;
        let Some(entry) = self.table.entry()? else { return Ok(None) };
        let body = slice(self.table.bytes, entry.start, entry.end());
        let (key, value) = body
            .and_then(|body| body.split_at_checked(entry.key as usize))
            .ok_or_else(|| format!("element {index} of a leaf ends outside of the page"))?;
        Ok(Some(Pair { key, value, is_bucket: entry.is_bucket }))
    }

    /// Used bytes of the page, up to the end of the last returned pair.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.table.used()
    }
}

/// The keys and children of a branch page in memory.
pub fn children(page: &[u8], header: Header) -> Result<Vec<(&[u8], u64)>, String> {
    let mut table = Table::new(page, Kind::Branch, header.count);
    let mut children = Vec::with_capacity(usize::from(header.count));
    while let Some(entry) = table.entry()? {
        let key = slice(page, entry.start, entry.end());
        children.push((key.ok_or("an element of a branch ends outside of the page")?, entry.child));
    }
    match is_length_of(header, table.used(), page.len()) {
        _ if children.is_empty() => Err("a branch has no children".into()),
        false => Err("a page is longer than its content".into()),
        true => Ok(children),
    }
}

/// Whether bbolt allocates a page of this length for this many used bytes: no overflow page too many. (Up to bbolt
/// 1.3.5, `node.go`, `spill`, there is one more if the last would be full to its last byte.)
#[must_use]
pub fn is_length_of(header: Header, used: u64, length: usize) -> bool {
    let page_size = length as u64 / (u64::from(header.overflow) + 1);
    u64::from(header.overflow) * page_size <= used
}

fn slice(bytes: &[u8], start: u64, end: u64) -> Option<&[u8]> {
    bytes.get(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
}
