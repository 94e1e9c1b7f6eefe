//! Reads a whole database in key order and checks its structure.
//!
//! Every referenced page is inside the file, has the right type, is no longer than its content, and is referenced once;
//! keys are not empty, ascend within a page and are between those of the parent branch. Unreferenced pages are free,
//! and a freelist, if any, agrees. This covers `bbolt check` (bbolt `tx_check.go`) and more, in one pass.
//!
//! Memory is a bit for each page of the file, and for pages at most `MAX_WHOLE_LEAF_BYTES` + [`MAX_ELEMENT_BYTES`] +
//! `MAX_DEPTH` times `MAX_BRANCH_BYTES` bytes, regardless of the lengths that pages claim.

use std::ops::ControlFlow;

use crate::boltdb::page::{self, BUCKET, Corruption, HEADER, Header, Kind, Meta, NO_FREELIST, Pair, ReadError};
use crate::boltdb::pages::Pages;
use crate::boltdb::read_at::ReadAt;
use crate::boltdb::table::{self, Table, TablePairs};

/// Deeper than any real tree: each branch has at least two children when bbolt splits a page.
const MAX_DEPTH: usize = 32;
/// Maximum bytes of a branch page: one page of the file unless keys are longer, which have at most 32 KiB.
pub(super) const MAX_BRANCH_BYTES: usize = 1 << 20;
/// A leaf up to this many bytes is read at once, a larger one element by element.
pub(super) const MAX_WHOLE_LEAF_BYTES: usize = 16 << 20;
/// Maximum bytes of a key and its value. etcd accepts requests of 1.5 MiB by default, and warns above 10 MiB
/// (`--max-request-bytes`).
pub const MAX_ELEMENT_BYTES: usize = 64 << 20;
/// Freelist ids read at a time.
const FREELIST_CHUNK: usize = 8192;

pub type Flow = ControlFlow<()>;

pub const CONTINUE: Flow = ControlFlow::Continue(());

pub trait Visitor {
    /// The top-level bucket `name` begins; buckets are visited in the order of their names.
    fn bucket(&mut self, name: &[u8], offset: u64) -> Result<(), Corruption>;

    /// A pair of the current bucket, in key order. `offset` is the position of its page. `Break` ends the walk.
    fn pair(&mut self, key: &[u8], value: &[u8], offset: u64) -> Result<Flow, Corruption>;

    fn pages(&mut self, _seen: u64) {}
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Walked {
    /// Pages in use, including the two meta pages.
    pub used_pages: u64,
    /// Pages that hold nothing any more.
    pub free_pages: u64,
}

pub(super) fn read<I: ReadAt + ?Sized>(image: &I, buffer: &mut [u8], offset: u64) -> Result<(), ReadError> {
    image.read_exact_at(buffer, offset).map_err(|source| match source.kind() {
        std::io::ErrorKind::UnexpectedEof => Corruption::new(offset, "the database is cut off").into(),
        _ => ReadError::Io { offset, source },
    })
}

pub(super) struct Walk<'a, I: ?Sized> {
    image: &'a I,
    meta: Meta,
    pub(super) visited: Pages,
    /// Reused buffers, one for each level.
    buffers: Vec<Vec<u8>>,
    read: u64,
}

/// A page of which the first bytes were read.
#[derive(Clone, Copy, Debug)]
pub struct OpenPage {
    pub(super) header: Header,
    pub(super) offset: u64,
    /// Its bytes, including its overflow pages.
    pub(super) length: u64,
}

impl OpenPage {
    pub(super) fn corruption(&self, what: impl Into<String>) -> ReadError {
        Corruption::new(self.offset, what).into()
    }
}

/// The range of a page's keys: start (inclusive) to end (exclusive).
#[derive(Clone, Debug, Default)]
pub(super) struct Bounds {
    from: Option<Vec<u8>>,
    to: Option<Vec<u8>>,
}

impl Bounds {
    /// Checks the first key and the last one; those between are in order.
    fn check(&self, first: &[u8], last: &[u8], page: &OpenPage) -> Result<(), ReadError> {
        let is_inside =
            self.from.as_deref().is_none_or(|from| from <= first) && self.to.as_deref().is_none_or(|to| last < to);
        if is_inside { Ok(()) } else { Err(page.corruption("a key is outside of the range of its parent branch")) }
    }
}

impl<'a, I: ReadAt + ?Sized> Walk<'a, I> {
    pub(super) fn new(image: &'a I, meta: Meta) -> Result<Self, ReadError> {
        Ok(Self { image, meta, visited: Pages::new(meta)?, buffers: Vec::new(), read: 0 })
    }

    /// Walks the tree of the top-level buckets; with `wanted`, only these buckets.
    pub(super) fn tree(
        &mut self,
        root: u64,
        wanted: Option<&[&[u8]]>,
        visitor: &mut impl Visitor,
    ) -> Result<Flow, ReadError> {
        self.node(root, &Bounds::default(), 0, &mut |walk, pair, offset| {
            if !pair.is_bucket {
                return Err(Corruption::new(offset, "there is a pair outside of all buckets").into());
            }
            if wanted.is_some_and(|wanted| !wanted.contains(&pair.key)) {
                return Ok(CONTINUE);
            }
            visitor.bucket(pair.key, offset)?;
            walk.bucket(pair.value, offset, visitor)
        })
    }

    fn bucket(&mut self, value: &[u8], offset: u64, visitor: &mut impl Visitor) -> Result<Flow, ReadError> {
        let cut_off = || Corruption::new(offset, "a bucket is cut off");
        let root = page::u64_at(value, 0).ok_or_else(cut_off)?;
        let inline = value.get(BUCKET..).ok_or_else(cut_off)?;
        let mut reported = 0;
        let mut pass_on = |walk: &mut Self, pair: Pair<'_>, offset: u64| {
            if pair.is_bucket {
                return Err(Corruption::new(offset, "a bucket is nested in a bucket, which etcd never does").into());
            }
            if walk.read > reported {
                reported = walk.read;
                visitor.pages(walk.read);
            }
            Ok(visitor.pair(pair.key, pair.value, offset)?)
        };
        if root != 0 {
            return self.node(root, &Bounds::default(), 0, &mut pass_on);
        }
        let header = Header::read(inline).ok_or_else(cut_off)?;
        let page = OpenPage { header, offset, length: inline.len() as u64 };
        if header.kind != Some(Kind::Leaf) || header.overflow != 0 {
            return Err(page.corruption("a bucket within a page is no leaf"));
        }
        self.leaf(inline, &page, &Bounds::default(), &mut pass_on)
    }

    pub(super) fn node(
        &mut self,
        id: u64,
        bounds: &Bounds,
        depth: usize,
        each: &mut impl FnMut(&mut Self, Pair<'_>, u64) -> Result<Flow, ReadError>,
    ) -> Result<Flow, ReadError> {
        let mut buffer = self.buffers.pop().unwrap_or_default();
        let page = self.open_page(id, depth, &mut buffer)?;
        let flow = match page.header.kind {
            Some(Kind::Leaf) if page.length > MAX_WHOLE_LEAF_BYTES as u64 => self.large_leaf(&page, bounds, each)?,
            Some(Kind::Leaf) => {
                self.read_rest(&page, &mut buffer, MAX_WHOLE_LEAF_BYTES)?;
                self.leaf(&buffer, &page, bounds, each)?
            }
            Some(Kind::Branch) => {
                self.read_rest(&page, &mut buffer, MAX_BRANCH_BYTES)?;
                self.branch(&buffer, &page, bounds, depth, each)?
            }
            _ => return Err(page.corruption(format!("page {id} is neither branch nor leaf"))),
        };
        self.buffers.push(buffer);
        Ok(flow)
    }

    /// The pages of a bucket's tree. Leaf contents are neither read nor checked.
    pub(super) fn mark_reachable_pages(&mut self, id: u64, depth: usize) -> Result<(), ReadError> {
        let mut buffer = self.buffers.pop().unwrap_or_default();
        let page = self.open_page(id, depth, &mut buffer)?;
        if page.header.kind == Some(Kind::Branch) {
            self.read_rest(&page, &mut buffer, MAX_BRANCH_BYTES)?;
            for (_, child) in table::children(&buffer, page.header).map_err(|what| page.corruption(what))? {
                self.mark_reachable_pages(child, depth + 1)?;
            }
        }
        self.buffers.push(buffer);
        Ok(())
    }

    /// Reads the header of a page, and marks the page and its overflow pages.
    pub(super) fn open_page(&mut self, id: u64, depth: usize, buffer: &mut Vec<u8>) -> Result<OpenPage, ReadError> {
        let size = self.meta.page_size as usize;
        let offset = id.saturating_mul(size as u64);
        if depth > MAX_DEPTH {
            return Err(Corruption::new(offset, "the tree of pages is too deep").into());
        }
        self.visited.mark(id, 0, offset)?;
        buffer.resize(size, 0);
        read(self.image, buffer, offset)?;
        let header = Header::read(buffer).ok_or_else(|| Corruption::new(offset, "a page is cut off"))?;
        if header.id != id {
            return Err(Corruption::new(offset, format!("page {id} says that it is page {}", header.id)).into());
        }
        if header.overflow > 0 {
            self.visited.mark(id + 1, header.overflow - 1, offset)?;
        }
        let pages = u64::from(header.overflow) + 1;
        self.read += pages;
        Ok(OpenPage { header, offset, length: pages * size as u64 })
    }

    /// Reads the rest of a page, including overflow pages, after its beginning in `buffer`.
    pub(super) fn read_rest(&mut self, page: &OpenPage, buffer: &mut Vec<u8>, most: usize) -> Result<(), ReadError> {
        let length = usize::try_from(page.length).ok().filter(|length| *length <= most);
        let Some(length) = length else {
            return Err(
                page.corruption(format!("a page has {} bytes, more than etcd writes for its type", page.length))
            );
        };
        let begun = buffer.len().min(length);
        buffer.resize(length, 0);
        if begun < length { read(self.image, &mut buffer[begun..], page.offset + begun as u64) } else { Ok(()) }
    }

    fn leaf(
        &mut self,
        bytes: &[u8],
        page: &OpenPage,
        bounds: &Bounds,
        each: &mut impl FnMut(&mut Self, Pair<'_>, u64) -> Result<Flow, ReadError>,
    ) -> Result<Flow, ReadError> {
        let mut pairs = TablePairs::new(bytes, page.header);
        let (mut first, mut last): (Option<&[u8]>, Option<&[u8]>) = (None, None);
        while let Some(pair) = pairs.pair().map_err(|what| page.corruption(what))? {
            check_order(last, pair.key, page)?;
            if first.is_none() {
                bounds.check(pair.key, pair.key, page)?;
            }
            first = first.or(Some(pair.key));
            last = Some(pair.key);
            if each(self, pair, page.offset)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        self.finish(page, pairs.used())?;
        if let (Some(first), Some(last)) = (first, last) {
            bounds.check(first, last, page)?;
        }
        Ok(CONTINUE)
    }

    /// A leaf that is too large to read at once.
    fn large_leaf(
        &mut self,
        page: &OpenPage,
        bounds: &Bounds,
        each: &mut impl FnMut(&mut Self, Pair<'_>, u64) -> Result<Flow, ReadError>,
    ) -> Result<Flow, ReadError> {
        let mut head = vec![0; Table::length(usize::from(page.header.count))];
        read(self.image, &mut head, page.offset)?;
        let mut table = Table::new(&head, Kind::Leaf, page.header.count);
        let mut last: Option<Vec<u8>> = None;
        let mut body = self.buffers.pop().unwrap_or_default();
        while let Some(entry) = table.entry().map_err(|what| page.corruption(what))? {
            let length = usize::try_from(entry.end() - entry.start).ok().filter(|length| *length <= MAX_ELEMENT_BYTES);
            let length = length.ok_or_else(|| {
                let bytes = entry.end() - entry.start;
                page.corruption(format!("an element has {bytes} bytes; the maximum is {MAX_ELEMENT_BYTES}"))
            })?;
            if entry.end() > page.length {
                return Err(page.corruption("an element of a leaf ends outside of the page"));
            }
            body.resize(length, 0);
            read(self.image, &mut body, page.offset + entry.start)?;
            let (key, value) = body.split_at(entry.key as usize);
            check_order(last.as_deref(), key, page)?;
            bounds.check(key, key, page)?;
            last = Some(key.to_vec());
            if each(self, Pair { key, value, is_bucket: entry.is_bucket }, page.offset)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        self.buffers.push(body);
        self.finish(page, table.used())?;
        Ok(CONTINUE)
    }

    /// The unused rest is less than a page.
    #[allow(clippy::unused_self, reason = "consistent with the other checks")]
    fn finish(&self, page: &OpenPage, used: u64) -> Result<(), ReadError> {
        let length = usize::try_from(page.length).unwrap_or(usize::MAX);
        if table::is_length_of(page.header, used, length) {
            return Ok(());
        }
        Err(page.corruption(format!("a page has {} bytes, but uses only {used}", page.length)))
    }

    fn branch(
        &mut self,
        bytes: &[u8],
        page: &OpenPage,
        bounds: &Bounds,
        depth: usize,
        each: &mut impl FnMut(&mut Self, Pair<'_>, u64) -> Result<Flow, ReadError>,
    ) -> Result<Flow, ReadError> {
        let children = table::children(bytes, page.header).map_err(|what| page.corruption(what))?;
        let mut last = None;
        for (index, (key, child)) in children.iter().enumerate() {
            check_order(last, key, page)?;
            bounds.check(key, key, page)?;
            last = Some(key);
            let to = children.get(index + 1).map(|(next, _)| next.to_vec()).or_else(|| bounds.to.clone());
            let inside = Bounds { from: Some(key.to_vec()), to };
            if self.node(*child, &inside, depth + 1, each)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(CONTINUE)
    }

    /// With a freelist, every page is either referenced or free, never both.
    pub(super) fn freelist(&mut self) -> Result<(), ReadError> {
        if self.meta.freelist == NO_FREELIST {
            return Ok(());
        }
        let mut buffer = Vec::new();
        let page = self.open_page(self.meta.freelist, 0, &mut buffer)?;
        if page.header.kind != Some(Kind::Freelist) {
            return Err(page.corruption("the freelist page has another type"));
        }
        // A count of 0xFFFF says that the first id is the count.
        let (count, skip) = match page.header.count {
            u16::MAX => (page::u64_at(&buffer, HEADER).unwrap_or(u64::MAX), HEADER as u64 + 8),
            count => (u64::from(count), HEADER as u64),
        };
        if count > (page.length - skip) / 8 {
            return Err(page.corruption("the freelist is cut off"));
        }
        let mut free = self.visited.cleared();
        let mut done = 0;
        while done < count {
            let some = usize::try_from(count - done).unwrap_or(usize::MAX).min(FREELIST_CHUNK);
            buffer.resize(some * 8, 0);
            read(self.image, &mut buffer, page.offset + skip + done * 8)?;
            for id in (0..some).filter_map(|index| page::u64_at(&buffer, index * 8)) {
                free.mark(id, 0, page.offset)?;
                if self.visited.is_marked(id) {
                    return Err(page.corruption(format!("page {id} is in use, but in the freelist")));
                }
            }
            done += some as u64;
        }
        let lost = (2..self.visited.end()).find(|id| !self.visited.is_marked(*id) && !free.is_marked(*id));
        match lost {
            Some(id) => Err(page.corruption(format!("page {id} is neither in use nor free"))),
            None => Ok(()),
        }
    }
}

fn check_order(last: Option<&[u8]>, key: &[u8], page: &OpenPage) -> Result<(), ReadError> {
    if last.is_none_or(|last| last < key) { Ok(()) } else { Err(page.corruption("keys are not in order")) }
}
