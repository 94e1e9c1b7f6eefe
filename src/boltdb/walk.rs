//! Reads a whole database in the order of its keys, and checks on the way that it is one.
//!
//! Every page that is reached lies within the file, is what it must be, and is reached once; keys ascend within a page and lie
//! between those of the branch above. Pages that are not reached are free, and where a freelist is kept it says the same. This is
//! what `bbolt check` looks at (bbolt `tx_check.go`), in one pass, with memory of a bit a page.

use super::image::Image;
use super::page::{self, BUCKET, Finding, HEADER, Header, Kind, Meta, NO_FREELIST, Pair, ReadError};
use super::pages::Pages;

/// Deeper than any tree of pages can be.
const DEEPEST: usize = 64;

/// Sees every pair.
pub trait Visitor {
    /// The top-level bucket `name` begins; they come in the order of their names.
    ///
    /// # Errors
    /// What the visitor finds wrong with it.
    fn bucket(&mut self, name: &[u8], offset: u64) -> Result<(), Finding>;

    /// A pair of the bucket that began last, in the order of the keys. `offset` is where its page begins.
    ///
    /// # Errors
    /// What the visitor finds wrong with it.
    fn pair(&mut self, key: &[u8], value: &[u8], offset: u64) -> Result<(), Finding>;

    /// Pages so far: for progress.
    fn pages(&mut self, _seen: u64) {}
}

/// What a walk found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Walked {
    /// Pages that hold something, the two heads included.
    pub used_pages: u64,
    /// Pages that hold nothing any more.
    pub free_pages: u64,
}

pub(super) fn read<I: Image + ?Sized>(image: &I, buffer: &mut [u8], offset: u64) -> Result<(), ReadError> {
    image.read_exact_at(buffer, offset).map_err(|source| match source.kind() {
        std::io::ErrorKind::UnexpectedEof => Finding::new(offset, "the database ends before it should").into(),
        _ => ReadError::Io { offset, source },
    })
}

/// A way through the pages.
pub(super) struct Walk<'a, I: ?Sized> {
    image: &'a I,
    meta: Meta,
    pub(super) seen: Pages,
    /// Used again and again, one for each level.
    buffers: Vec<Vec<u8>>,
    read: u64,
}

/// Keys of a page lie from here (inclusive) to there (exclusive).
#[derive(Clone, Debug, Default)]
pub(super) struct Bounds {
    from: Option<Vec<u8>>,
    to: Option<Vec<u8>>,
}

impl<'a, I: Image + ?Sized> Walk<'a, I> {
    /// From the beginning.
    ///
    /// # Errors
    /// If the head promises too many pages.
    pub(super) fn new(image: &'a I, meta: Meta) -> Result<Self, ReadError> {
        Ok(Self { image, meta, seen: Pages::new(meta)?, buffers: Vec::new(), read: 0 })
    }

    /// The tree of the top-level bucket, of which only the buckets in `wanted` are entered if it is given.
    pub(super) fn tree(
        &mut self,
        root: u64,
        wanted: Option<&[&[u8]]>,
        visitor: &mut impl Visitor,
    ) -> Result<(), ReadError> {
        self.node(root, &Bounds::default(), 0, &mut |walk, pair, offset| {
            if !pair.is_bucket {
                return Err(Finding::new(offset, "there is a pair outside of all buckets").into());
            }
            if wanted.is_some_and(|wanted| !wanted.contains(&pair.key)) {
                return Ok(());
            }
            visitor.bucket(pair.key, offset)?;
            walk.bucket(pair.value, offset, visitor)
        })
    }

    fn bucket(&mut self, value: &[u8], offset: u64, visitor: &mut impl Visitor) -> Result<(), ReadError> {
        let cut_off = || Finding::new(offset, "a bucket is cut off");
        let root = page::u64_at(value, 0).ok_or_else(cut_off)?;
        let mut pass_on = |walk: &mut Self, pair: Pair<'_>, offset: u64| {
            if pair.is_bucket {
                return Err(Finding::new(offset, "a bucket lies within a bucket, which etcd never does").into());
            }
            visitor.pair(pair.key, pair.value, offset)?;
            visitor.pages(walk.read);
            Ok(())
        };
        if root != 0 {
            return self.node(root, &Bounds::default(), 0, &mut pass_on);
        }
        let page = value.get(BUCKET..).ok_or_else(cut_off)?;
        let header = Header::read(page).ok_or_else(cut_off)?;
        if header.kind != Some(Kind::Leaf) {
            return Err(Finding::new(offset, "a bucket within a page is no leaf").into());
        }
        self.leaf(page, header, offset, &Bounds::default(), &mut pass_on)
    }

    pub(super) fn node(
        &mut self,
        id: u64,
        bounds: &Bounds,
        depth: usize,
        each: &mut impl FnMut(&mut Self, Pair<'_>, u64) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        let offset = id.saturating_mul(u64::from(self.meta.page_size));
        if depth > DEEPEST {
            return Err(Finding::new(offset, "the tree of pages is too deep").into());
        }
        let mut page = self.buffers.pop().unwrap_or_default();
        let header = self.load(id, offset, &mut page)?;
        match header.kind {
            Some(Kind::Leaf) => self.leaf(&page, header, offset, bounds, each)?,
            Some(Kind::Branch) => self.branch(&page, header, offset, bounds, depth, each)?,
            _ => return Err(Finding::new(offset, format!("page {id} is neither branch nor leaf")).into()),
        }
        self.buffers.push(page);
        Ok(())
    }

    /// The pages of a bucket's tree. What its leaves hold is not read, so that nothing is said about it.
    pub(super) fn outline(&mut self, id: u64, depth: usize) -> Result<(), ReadError> {
        let offset = id.saturating_mul(u64::from(self.meta.page_size));
        if depth > DEEPEST {
            return Err(Finding::new(offset, "the tree of pages is too deep").into());
        }
        let mut head = [0; HEADER];
        read(self.image, &mut head, offset)?;
        let cut_off = || Finding::new(offset, "a page is cut off");
        let header = Header::read(&head).filter(|header| header.id == id).ok_or_else(cut_off)?;
        if header.kind != Some(Kind::Branch) {
            return (0..=u64::from(header.overflow))
                .try_for_each(|further| Ok(self.seen.reach(id + further, offset)?));
        }
        let mut page = self.buffers.pop().unwrap_or_default();
        let header = self.load(id, offset, &mut page)?;
        for index in 0..usize::from(header.count) {
            let (_, child) = page::branch_element(&page, index).ok_or_else(cut_off)?;
            self.outline(child, depth + 1)?;
        }
        self.buffers.push(page);
        Ok(())
    }

    /// Reads a page with all that it runs over.
    pub(super) fn load(&mut self, id: u64, offset: u64, page: &mut Vec<u8>) -> Result<Header, ReadError> {
        self.seen.reach(id, offset)?;
        let size = self.meta.page_size as usize;
        page.resize(size, 0);
        read(self.image, page, offset)?;
        let header = Header::read(page).ok_or_else(|| Finding::new(offset, "a page is cut off"))?;
        if header.id != id {
            return Err(Finding::new(offset, format!("page {id} says that it is page {}", header.id)).into());
        }
        for further in 1..=u64::from(header.overflow) {
            self.seen.reach(id + further, offset)?;
        }
        if header.overflow > 0 {
            page.resize(size * (header.overflow as usize + 1), 0);
            read(self.image, &mut page[size..], offset + u64::from(self.meta.page_size))?;
        }
        self.read += u64::from(header.overflow) + 1;
        Ok(header)
    }

    fn leaf(
        &mut self,
        page: &[u8],
        header: Header,
        offset: u64,
        bounds: &Bounds,
        each: &mut impl FnMut(&mut Self, Pair<'_>, u64) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        let mut last: Option<&[u8]> = None;
        for index in 0..usize::from(header.count) {
            let pair = page::leaf_element(page, index)
                .ok_or_else(|| Finding::new(offset, format!("element {index} of a leaf does not lie within it")))?;
            check_order(&mut last, pair.key, bounds, offset)?;
            each(self, pair, offset)?;
        }
        Ok(())
    }

    fn branch(
        &mut self,
        page: &[u8],
        header: Header,
        offset: u64,
        bounds: &Bounds,
        depth: usize,
        each: &mut impl FnMut(&mut Self, Pair<'_>, u64) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        if header.count == 0 {
            return Err(Finding::new(offset, "a branch leads nowhere").into());
        }
        let count = usize::from(header.count);
        let element = |index: usize| {
            page::branch_element(page, index)
                .ok_or_else(|| Finding::new(offset, format!("element {index} of a branch does not lie within it")))
        };
        let mut last = None;
        for index in 0..count {
            let (key, child) = element(index)?;
            check_order(&mut last, key, bounds, offset)?;
            let to = if index + 1 < count { Some(element(index + 1)?.0.to_vec()) } else { bounds.to.clone() };
            self.node(child, &Bounds { from: Some(key.to_vec()), to }, depth + 1, each)?;
        }
        Ok(())
    }

    /// Where a freelist is kept, every page is either reached or free, and none is both.
    pub(super) fn freelist(&mut self) -> Result<(), ReadError> {
        if self.meta.freelist == NO_FREELIST {
            return Ok(());
        }
        let mut page = Vec::new();
        let offset = self.meta.freelist.saturating_mul(u64::from(self.meta.page_size));
        let header = self.load(self.meta.freelist, offset, &mut page)?;
        if header.kind != Some(Kind::Freelist) {
            return Err(Finding::new(offset, "the freelist's page is none").into());
        }
        let body = &page[HEADER..];
        // A count of 0xFFFF says that the first id is the count.
        let (count, skip) = match header.count {
            u16::MAX => (page::u64_at(body, 0).unwrap_or(u64::MAX), 8),
            count => (u64::from(count), 0),
        };
        let mut free = self.seen.empty_again();
        let count = usize::try_from(count).unwrap_or(usize::MAX).min(body.len() / 8 + 1);
        for index in 0..count {
            let id =
                page::u64_at(body, skip + index * 8).ok_or_else(|| Finding::new(offset, "the freelist is cut off"))?;
            free.reach(id, offset)?;
            if self.seen.has(id) {
                return Err(Finding::new(offset, format!("page {id} is in use, and the freelist calls it free")).into());
            }
        }
        let lost = (2..self.seen.end()).find(|id| !self.seen.has(*id) && !free.has(*id));
        match lost {
            Some(id) => Err(Finding::new(offset, format!("page {id} is neither in use nor free")).into()),
            None => Ok(()),
        }
    }
}

fn check_order<'k>(last: &mut Option<&'k [u8]>, key: &'k [u8], bounds: &Bounds, offset: u64) -> Result<(), Finding> {
    let is_ascending = last.is_none_or(|last| last < key);
    let is_inside =
        bounds.from.as_deref().is_none_or(|from| from <= key) && bounds.to.as_deref().is_none_or(|to| key < to);
    *last = Some(key);
    if !is_ascending {
        return Err(Finding::new(offset, "keys are not in order"));
    }
    if !is_inside {
        return Err(Finding::new(offset, "a key lies outside of what the branch above says"));
    }
    Ok(())
}
