//! The right edge of a bucket's tree: its last keys, without reading the pages before.

use crate::boltdb::page::{Corruption, Header, Kind, Pair, ReadError};
use crate::boltdb::read_at::ReadAt;
use crate::boltdb::table::{Table, TablePairs};
use crate::boltdb::walk::{MAX_WHOLE_LEAF_BYTES, OpenPage, read};

/// The pages along the right edge of a bucket's tree.
#[derive(Debug)]
pub struct Edge {
    /// From the root down, each read completely.
    pub branches: Vec<(Vec<u8>, Header)>,
    pub leaf: Leaf,
}

/// A leaf that was located but not read.
#[derive(Debug)]
pub enum Leaf {
    /// Stored inline in the page of the parent bucket.
    Inline(Vec<u8>),
    Page(u64, OpenPage),
}

impl Leaf {
    /// Its bytes; `None` if it is larger than what is read at once.
    pub(super) fn bytes<I: ReadAt + ?Sized>(&self, image: &I) -> Result<Option<Vec<u8>>, ReadError> {
        match self {
            Self::Inline(bytes) => Ok(Some(bytes.clone())),
            Self::Page(_, page) => {
                let length = usize::try_from(page.length).ok().filter(|length| *length <= MAX_WHOLE_LEAF_BYTES);
                let Some(length) = length else { return Ok(None) };
                let mut bytes = vec![0; length];
                read(image, &mut bytes, page.offset)?;
                Ok(Some(bytes))
            }
        }
    }

    /// Its first and its last key. Reads only the element table and these keys.
    fn key<I: ReadAt + ?Sized>(&self, image: &I, is_last: bool) -> Result<Option<Vec<u8>>, ReadError> {
        let page = match self {
            Self::Inline(bytes) => {
                let Some(header) = Header::read(bytes) else { return Ok(None) };
                let pairs = pairs(bytes, header)?;
                let pair = if is_last { pairs.last() } else { pairs.first() };
                return Ok(pair.map(|pair| pair.key.to_vec()));
            }
            Self::Page(_, page) => page,
        };
        let mut head = vec![0; Table::length(usize::from(page.header.count))];
        read(image, &mut head, page.offset)?;
        let mut table = Table::new(&head, Kind::Leaf, page.header.count);
        let mut found = None;
        while let Some(entry) = table.entry().map_err(|what| page.corruption(what))? {
            found = Some(entry);
            if !is_last {
                break;
            }
        }
        let Some(entry) = found else { return Ok(None) };
        if entry.end() > page.length {
            return Err(page.corruption("an element of a leaf ends outside of the page"));
        }
        let mut key = vec![0; entry.key as usize];
        read(image, &mut key, page.offset + entry.start)?;
        Ok(Some(key))
    }

    pub(super) fn first_key<I: ReadAt + ?Sized>(&self, image: &I) -> Result<Option<Vec<u8>>, ReadError> {
        self.key(image, false)
    }

    pub(super) fn last_key<I: ReadAt + ?Sized>(&self, image: &I) -> Result<Option<Vec<u8>>, ReadError> {
        self.key(image, true)
    }
}

/// All pairs of a leaf in memory.
pub(super) fn pairs(bytes: &[u8], header: Header) -> Result<Vec<Pair<'_>>, Corruption> {
    let mut pairs = TablePairs::new(bytes, header);
    let mut all = Vec::new();
    while let Some(pair) = pairs.pair().map_err(|what| Corruption::new(0, what))? {
        all.push(pair);
    }
    Ok(all)
}
