//! A whole bbolt database: its meta pages, and the questions that can be answered from it. Given a [`ReadAt`], it never
//! writes, and allocates nothing by a size that the file claims without checking it.

use std::collections::BTreeMap;

use crate::boltdb::edge::{Edge, Leaf};
use crate::boltdb::page::{self, BUCKET, Corruption, HEADER, Kind, META, Meta, PAGE_SIZES, ReadError};
use crate::boltdb::pages::Pages;
use crate::boltdb::read_at::ReadAt;
use crate::boltdb::table;
use crate::boltdb::walk::{Bounds, CONTINUE, Flow, MAX_BRANCH_BYTES, Visitor, Walk, Walked, read};

/// The required length of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// Exactly what the meta page says, as in a snapshot.
    Exact,
    /// At least what the meta page says: etcd preallocates more for its own file.
    AtLeast,
}

/// A database whose meta page was read.
#[derive(Debug)]
pub struct Database<'a, I: ReadAt + ?Sized> {
    image: &'a I,
    meta: Meta,
}

impl<'a, I: ReadAt + ?Sized> Database<'a, I> {
    /// Reads both meta pages of a database of `length` bytes. Both must be valid, although etcd silently accepts one.
    ///
    /// # Errors
    /// If one of them is damaged, or the length differs from theirs.
    pub fn open(image: &'a I, length: u64, wanted: Length) -> Result<Self, ReadError> {
        let first = read_meta(image, 0)?;
        let second = read_meta(image, u64::from(first.page_size))?;
        let meta = if second.transaction > first.transaction { second } else { first };
        if first.page_size != second.page_size {
            return Err(Corruption::new(0, "the two meta pages differ in page size").into());
        }
        let needed = meta.length();
        let is_right = needed.is_some_and(|needed| match wanted {
            Length::Exact => length == needed,
            Length::AtLeast => length >= needed && length.is_multiple_of(u64::from(meta.page_size)),
        });
        if !is_right {
            return Err(Corruption::new(length.min(needed.unwrap_or(length)), meta.too_short(length)).into());
        }
        Ok(Self { image, meta })
    }

    /// Like [`Self::open`], but one valid meta page is enough: the newest counts, and the file may be longer than it
    /// says.
    ///
    /// # Errors
    /// If no meta page is valid, or the file is shorter than it says.
    pub fn open_newest(image: &'a I) -> Result<Self, ReadError> {
        let meta = newest_meta_page(image)?;
        let length = image.length().map_err(|source| ReadError::Io { offset: 0, source })?;
        // Never allocate for pages that a meta page claims and the file does not have.
        if meta.length().is_none_or(|needed| needed > length) {
            return Err(Corruption::new(length, meta.too_short(length)).into());
        }
        Ok(Self { image, meta })
    }

    #[must_use]
    pub fn meta(&self) -> Meta {
        self.meta
    }

    pub fn walk(&self, visitor: &mut impl Visitor) -> Result<Walked, ReadError> {
        let mut walk = Walk::new(self.image, self.meta)?;
        if walk.tree(self.meta.root, None, visitor)?.is_continue() {
            walk.freelist()?;
        }
        Ok(Walked { used_pages: walk.visited.count(), free_pages: self.meta.high_water_mark - walk.visited.count() })
    }

    /// The reachable pages. Leaf contents are not read: fast, but no verification.
    pub fn reachable_pages(&self) -> Result<Pages, ReadError> {
        let mut walk = Walk::new(self.image, self.meta)?;
        let _ = walk.node(self.meta.root, &Bounds::default(), 0, &mut |walk, pair, offset| match page::u64_at(
            pair.value, 0,
        )
        .filter(|_| pair.is_bucket)
        {
            Some(0) => Ok(CONTINUE),
            Some(root) => walk.mark_reachable_pages(root, 0).map(|()| CONTINUE),
            None => Err(Corruption::new(offset, "the buckets are not those of etcd").into()),
        })?;
        walk.freelist()?;
        Ok(walk.visited)
    }

    /// Reads one top-level bucket again, without the checks of [`Self::walk`] across buckets. Does nothing if it does
    /// not exist.
    pub fn walk_bucket(&self, name: &[u8], visitor: &mut impl Visitor) -> Result<(), ReadError> {
        let _ = Walk::new(self.image, self.meta)?.tree(self.meta.root, Some(&[name]), visitor)?;
        Ok(())
    }

    /// The last key of a top-level bucket. Reads only the right edge of its tree, a few pages.
    pub fn last_key(&self, name: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        let Some(bucket) = self.top_level()?.remove(name) else { return Ok(None) };
        self.right_edge(&bucket)?.leaf.last_key(self.image)
    }

    /// The top-level buckets: name and bucket value (root page, sequence, inline page).
    pub fn top_level(&self) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, ReadError> {
        const MAX_BUCKETS: usize = 1000;
        /// A small bucket is stored inline in its parent's page, in at most a quarter of it (bbolt `bucket.go`,
        /// `maxInlineBucketSize`).
        const MAX_INLINE_BUCKET_BYTES: usize = 1 << 16;
        let mut buckets = BTreeMap::new();
        let mut walk = Walk::new(self.image, self.meta)?;
        let _ = walk.node(self.meta.root, &Bounds::default(), 0, &mut |_, pair, offset| {
            if !pair.is_bucket || buckets.len() == MAX_BUCKETS || pair.value.len() > MAX_INLINE_BUCKET_BYTES {
                return Err(Corruption::new(offset, "the buckets are not those of etcd").into());
            }
            buckets.insert(pair.key.to_vec(), pair.value.to_vec());
            Ok(CONTINUE)
        })?;
        Ok(buckets)
    }

    /// The right edge of a bucket's tree. `bucket` is the value that [`Self::top_level`] returned.
    pub fn right_edge(&self, bucket: &[u8]) -> Result<Edge, ReadError> {
        let mut walk = Walk::new(self.image, self.meta)?;
        let mut next = page::u64_at(bucket, 0).unwrap_or_default();
        if next == 0 {
            let inline = bucket.get(BUCKET..).unwrap_or_default().to_vec();
            return Ok(Edge { branches: Vec::new(), leaf: Leaf::Inline(inline) });
        }
        let mut branches = Vec::new();
        loop {
            let mut buffer = Vec::new();
            let page = walk.open_page(next, branches.len(), &mut buffer)?;
            match page.header.kind {
                Some(Kind::Leaf) => return Ok(Edge { branches, leaf: Leaf::Page(next, page) }),
                Some(Kind::Branch) => {
                    walk.read_rest(&page, &mut buffer, MAX_BRANCH_BYTES)?;
                    let children = table::children(&buffer, page.header).map_err(|what| page.corruption(what))?;
                    next = children.last().map_or(0, |(_, child)| *child);
                    branches.push((buffer, page.header));
                }
                _ => return Err(page.corruption("a page is neither branch nor leaf")),
            }
        }
    }

    /// Whether any of these top-level buckets is not empty. Stops at the first pair.
    pub fn any_bucket_holds(&self, names: &[&[u8]]) -> Result<bool, ReadError> {
        let mut any = FirstPair;
        let mut walk = Walk::new(self.image, self.meta)?;
        Ok(walk.tree(self.meta.root, Some(names), &mut any)?.is_break())
    }
}

/// The newest valid meta page of a file that may be shorter than it says.
pub fn newest_meta_page<I: ReadAt + ?Sized>(image: &I) -> Result<Meta, ReadError> {
    let heads = [0].into_iter().chain(PAGE_SIZES.map(u64::from));
    // The second meta page begins where the first page ends, and only the first, perhaps damaged one knows the page
    // size.
    let good = heads.filter_map(|offset| {
        let meta = read_meta(image, offset).ok()?;
        (offset == 0 || offset == u64::from(meta.page_size)).then_some(meta)
    });
    let meta = good.max_by_key(|meta| meta.transaction);
    Ok(meta.ok_or_else(|| Corruption::new(0, "not a database: neither meta page can be read"))?)
}

fn read_meta<I: ReadAt + ?Sized>(image: &I, offset: u64) -> Result<Meta, ReadError> {
    let mut bytes = [0; HEADER + META];
    read(image, &mut bytes, offset)?;
    Ok(Meta::read(&bytes, offset)?)
}

struct FirstPair;

impl Visitor for FirstPair {
    fn bucket(&mut self, _: &[u8], _: u64) -> Result<(), Corruption> {
        Ok(())
    }

    fn pair(&mut self, _: &[u8], _: &[u8], _: u64) -> Result<Flow, Corruption> {
        Ok(Flow::Break(()))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::boltdb::page::Pair;
    use crate::boltdb::page::tests::meta;
    use crate::boltdb::walk::{MAX_WHOLE_LEAF_BYTES, Visitor};
    use proptest::prelude::*;

    const PAGE: usize = 4096;

    pub struct Ignore;

    impl Visitor for Ignore {
        fn bucket(&mut self, _: &[u8], _: u64) -> Result<(), Corruption> {
            Ok(())
        }

        fn pair(&mut self, _: &[u8], _: &[u8], _: u64) -> Result<Flow, Corruption> {
            Ok(CONTINUE)
        }
    }

    fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
        file[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// A leaf or branch page: `element` encodes the 16 bytes of each from the position of its data.
    fn page(id: u64, flags: u16, elements: &[(Vec<u8>, Vec<u8>, u32)], is_branch: bool) -> Vec<u8> {
        let mut page = vec![0; PAGE];
        put(&mut page, 0, &id.to_le_bytes());
        put(&mut page, 8, &flags.to_le_bytes());
        put(&mut page, 10, &u16::try_from(elements.len()).unwrap().to_le_bytes());
        let mut data = HEADER + elements.len() * HEADER;
        for (index, (key, value, flag)) in elements.iter().enumerate() {
            let at = HEADER + index * HEADER;
            let position = u32::try_from(data - at).unwrap();
            let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap().to_le_bytes();
            if is_branch {
                put(&mut page, at, &position.to_le_bytes());
                put(&mut page, at + 4, &length(key));
                put(&mut page, at + 8, value);
            } else {
                put(&mut page, at, &flag.to_le_bytes());
                put(&mut page, at + 4, &position.to_le_bytes());
                put(&mut page, at + 8, &length(key));
                put(&mut page, at + 12, &length(value));
            }
            put(&mut page, data, key);
            data += key.len();
            if !is_branch {
                put(&mut page, data, value);
                data += value.len();
            }
        }
        page
    }

    /// Two meta pages, a root with the bucket `key` (a branch with two leaves) and `meta` (within the page), and a free
    /// page.
    pub fn database() -> Vec<u8> {
        let pairs =
            |names: &[&str]| names.iter().map(|name| ((*name).into(), b"value".to_vec(), 0)).collect::<Vec<_>>();
        let child = |id: u64| id.to_le_bytes().to_vec();
        let bucket = |root: u64| [root.to_le_bytes(), [0; 8]].concat();
        let inline = page(0, 2, &pairs(&["mark"]), false)[..HEADER + HEADER + 9].to_vec();
        let root = [("key".into(), bucket(4), 1), ("meta".into(), [bucket(0), inline].concat(), 1)];
        [
            meta(0, 6, 8, 3),
            meta(1, 7, 8, 3),
            vec![0xee; PAGE],
            page(3, 2, &root, false),
            page(4, 1, &[("a".into(), child(5), 0), ("c".into(), child(6), 0)], true),
            page(5, 2, &pairs(&["a", "b"]), false),
            page(6, 2, &pairs(&["c", "d"]), false),
            vec![0; PAGE],
        ]
        .concat()
    }

    #[derive(Default)]
    struct Seen(Vec<String>);

    impl Visitor for Seen {
        fn bucket(&mut self, name: &[u8], _: u64) -> Result<(), Corruption> {
            self.0.push(String::from_utf8_lossy(name).into_owned());
            Ok(())
        }
        fn pair(&mut self, key: &[u8], value: &[u8], _: u64) -> Result<Flow, Corruption> {
            assert_eq!(value, b"value");
            self.0.push(format!("/{}", String::from_utf8_lossy(key)));
            Ok(CONTINUE)
        }
    }

    fn walk(bytes: &[u8]) -> Result<(Vec<String>, Walked), ReadError> {
        let mut seen = Seen::default();
        let database = Database::open(bytes, bytes.len() as u64, Length::Exact)?;
        let walked = database.walk(&mut seen)?;
        Ok((seen.0, walked))
    }

    #[test]
    fn everything_is_seen_in_order_and_pages_are_counted() {
        let (seen, walked) = walk(&database()).unwrap();
        assert_eq!(seen, ["key", "/a", "/b", "/c", "/d", "meta", "/mark"]);
        assert_eq!(walked, Walked { used_pages: 6, free_pages: 2 });
        let bytes = database();
        let opened = Database::open_newest(&bytes[..]).unwrap();
        assert!(opened.any_bucket_holds(&[b"meta"]).unwrap());
        assert!(!opened.any_bucket_holds(&[b"lease"]).unwrap());
        assert_eq!(opened.last_key(b"key").unwrap(), Some(b"d".to_vec()));
        assert_eq!(opened.last_key(b"meta").unwrap(), Some(b"mark".to_vec()));
        assert_eq!(opened.last_key(b"lease").unwrap(), None);
        let mut seen = Seen::default();
        opened.walk_bucket(b"meta", &mut seen).unwrap();
        assert_eq!(seen.0, ["meta", "/mark"]);
    }

    #[test]
    fn each_kind_of_damage_is_found_where_it_is() {
        let page_at = |id: usize| id * PAGE;
        let element_at = |id: usize, index: usize| page_at(id) + HEADER + index * HEADER;
        for (what, at, bytes, offset) in [
            ("checksum is wrong", 60, &[9][..], 0),
            ("checksum is wrong", page_at(1) + 60, &[9], page_at(1)),
            ("says that it is page", page_at(5), &[9], page_at(5)),
            ("neither branch nor leaf", page_at(5) + 8, &[4], page_at(5)),
            ("does not begin where the previous one ends", page_at(5) + 10, &[0xff, 0xff], page_at(5)),
            ("does not begin where the previous one ends", element_at(6, 1) + 4, &[0xff, 0xff], page_at(6)),
            ("the table of a page is cut off", element_at(6, 1), &[2], page_at(6)),
            ("ends outside of the page", element_at(6, 1) + 12, &[0xff, 0xff], page_at(6)),
            // bbolt panics: zero-length inode key.
            ("has a key of 0 bytes", element_at(6, 1) + 8, &[0], page_at(6)),
            ("has a key of 65535 bytes", element_at(6, 1) + 8, &[0xff, 0xff], page_at(6)),
            ("has a key of 0 bytes", element_at(4, 1) + 4, &[0], page_at(4)),
            ("page 260 is referenced, but the last page is 7", page_at(5) + 12, &[0xff], page_at(5)),
            ("page 4294967300 is referenced", page_at(5) + 12, &[0xff; 4], page_at(5)),
            ("a page has 8192 bytes, but uses only 60", page_at(6) + 12, &[1], page_at(6)),
            ("page 5 is referenced twice", element_at(4, 1) + 8, &[5], page_at(5)),
            ("keys are not in order", element_at(5, 1) + 32 - 16 + 6, b"0", page_at(5)),
            ("has no children", page_at(4) + 10, &[0], page_at(4)),
            ("outside of all buckets", element_at(3, 0), &[0], page_at(3)),
        ] {
            let mut broken = database();
            put(&mut broken, at, bytes);
            match walk(&broken) {
                Err(ReadError::Damaged(finding)) => {
                    assert!(finding.what.contains(what), "{what}: {finding}");
                    assert_eq!(finding.offset, offset as u64, "{what}");
                }
                other => panic!("{what}: {other:?}"),
            }
        }
        let mut outside = database();
        put(&mut outside, element_at(4, 1) + 16 + 1, b"e");
        assert!(walk(&outside).is_err(), "the branch says e, the leaf has c");
        let short = database();
        assert!(walk(&short[..7 * PAGE]).is_err());
        assert!(walk(&[short.as_slice(), &[0; PAGE]].concat()).is_err(), "longer than it says");
    }

    /// Two meta pages, a root with the bucket `key`, and its leaf: two pairs of this many bytes each.
    pub fn with_large_leaf(bytes: usize) -> Vec<u8> {
        let value = vec![7; bytes];
        let pairs = [b"a", b"b"].map(|key| Pair { key, value: &value, is_bucket: false });
        let mut leaf = page::leaf(3, &pairs, 4096).unwrap();
        leaf.resize(leaf.len().next_multiple_of(PAGE), 0);
        let root = [("key".into(), [3u64.to_le_bytes(), [0; 8]].concat(), 1)];
        let pages = 3 + (leaf.len() / PAGE) as u64;
        [meta(0, 6, pages, 2), meta(1, 7, pages, 2), page(2, 2, &root, false), leaf].concat()
    }

    #[test]
    fn large_leaves_are_read_one_element_at_a_time() {
        struct Sizes(Vec<usize>);
        impl Visitor for Sizes {
            fn bucket(&mut self, _: &[u8], _: u64) -> Result<(), Corruption> {
                Ok(())
            }
            fn pair(&mut self, key: &[u8], value: &[u8], _: u64) -> Result<Flow, Corruption> {
                assert!(key.len() == 1 && value.iter().all(|byte| *byte == 7));
                self.0.push(value.len());
                Ok(CONTINUE)
            }
        }
        let mut sizes = Sizes(Vec::new());
        let bytes = with_large_leaf(MAX_WHOLE_LEAF_BYTES);
        let database = Database::open(&bytes[..], bytes.len() as u64, Length::Exact).unwrap();
        database.walk(&mut sizes).unwrap();
        assert_eq!(sizes.0, [MAX_WHOLE_LEAF_BYTES; 2]);
        assert_eq!(database.last_key(b"key").unwrap(), Some(b"b".to_vec()));
        // Larger than anything that etcd writes: refused because of its element table, not read.
        let mut bytes = bytes;
        put(&mut bytes, 3 * PAGE + HEADER + 12, &u32::MAX.to_le_bytes());
        let database = Database::open(&bytes[..], bytes.len() as u64, Length::Exact).unwrap();
        let found = database.walk(&mut Ignore).unwrap_err().to_string();
        assert!(found.contains("an element has 4294967296 bytes"), "{found}");
    }

    /// `ls` and a restore open a file before it is verified: no allocation by what a meta page or page claims.
    #[test]
    fn a_head_that_promises_more_than_the_file_has_is_refused_at_once() {
        let mut bytes = database();
        for id in 0..2 {
            put(&mut bytes, usize::try_from(id).unwrap() * PAGE, &meta(id, 6 + id, 1 << 33, 3));
        }
        assert!(
            Database::open_newest(&bytes[..]).unwrap_err().to_string().contains("its meta page says 8589934592 pages")
        );
        assert_eq!(newest_meta_page(&bytes[..]).unwrap().high_water_mark, 1 << 33);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_walk_for_ever(at in 0usize..8 * PAGE, bytes: [u8; 4], cut in 0usize..8 * PAGE) {
            let mut broken = database();
            let end = (at + 4).min(broken.len());
            broken[at..end].copy_from_slice(&bytes[..end - at]);
            for bytes in [&broken[..], &broken[..cut]] {
                if let Ok(database) = Database::open_newest(bytes) {
                    let _ = database.walk(&mut Ignore);
                    let _ = database.any_bucket_holds(&[b"key"]);
                    let _ = database.last_key(b"key");
                }
            }
        }
    }
}
