//! Changes a database that no process has open, as a bbolt transaction does: appends new pages, then rewrites the meta
//! pages.
//!
//! etcd keeps no list of free pages in the file (it opens bbolt with `NoFreelistSync`), so unreferenced pages are free
//! without further bookkeeping. Both meta pages point to the new pages, the second one with the previous transaction
//! id.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use crate::boltdb::database::Database;
use crate::boltdb::edge::{self, Edge, Leaf};
use crate::boltdb::page::{self, BUCKET, Corruption, Header, Meta, NO_FREELIST, Pair, ReadError};
use crate::boltdb::table;
use crate::boltdb::walk::{CONTINUE, Flow, Visitor};
use crate::durable::{self, WriteError};

pub type Pairs = BTreeMap<Vec<u8>, Vec<u8>>;

/// Maximum size of a bucket that is read into memory, in bytes.
const LARGEST: usize = 16 << 20;

/// Why a database was not changed.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// It is damaged, or cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl From<Corruption> for EditError {
    fn from(finding: Corruption) -> Self {
        Self::Read(finding.into())
    }
}

/// Changes that are not written yet.
#[derive(Debug)]
pub struct Editor<'f> {
    file: &'f File,
    database: Database<'f, File>,
    buckets: BTreeMap<Vec<u8>, Vec<u8>>,
    changed: BTreeMap<Vec<u8>, Pairs>,
    appended: Vec<u8>,
}

impl<'f> Editor<'f> {
    pub fn open(file: &'f File) -> Result<Self, EditError> {
        let database = Database::open_newest(file)?;
        let buckets = database.top_level()?;
        Ok(Self { file, database, buckets, changed: BTreeMap::new(), appended: Vec::new() })
    }

    /// The meta page before the change.
    #[must_use]
    pub fn meta(&self) -> Meta {
        self.database.meta()
    }

    /// The pairs of a small bucket, to be changed; the bucket is created if it does not exist.
    pub fn bucket(&mut self, name: &[u8]) -> Result<&mut Pairs, EditError> {
        if !self.changed.contains_key(name) {
            let mut all = All::default();
            self.database.walk_bucket(name, &mut all)?;
            self.changed.insert(name.to_vec(), all.pairs);
        }
        Ok(self.changed.entry(name.to_vec()).or_default())
    }

    /// Appends a pair, whose key must be the last of the bucket.
    pub fn append(&mut self, name: &[u8], key: &[u8], value: &[u8]) -> Result<(), EditError> {
        let bucket = self.buckets.get(name).cloned().unwrap_or_else(|| empty_bucket(&[]));
        let Edge { branches, leaf } = self.database.right_edge(&bucket)?;
        if leaf.last_key(self.file)?.is_some_and(|last| last.as_slice() >= key) {
            return Err(Corruption::new(0, "the key to append is not the last of its bucket").into());
        }
        let pair = Pair { key, value, is_bucket: false };
        // The replacement of the last page of a level, and the page after it.
        let (mut last, mut behind) = match leaf.bytes(self.file)? {
            Some(bytes) => {
                let count = Header::read(&bytes);
                let mut pairs = count.map_or(Ok(Vec::new()), |header| edge::pairs(&bytes, header))?;
                pairs.push(pair);
                (self.put_leaf(&pairs)?, None)
            }
            // Too large to copy: it stays where it is.
            None => (encode_page(&leaf), Some(self.put_leaf(&[pair])?)),
        };
        for (bytes, header) in branches.iter().rev() {
            let children = table::children(bytes, *header).map_err(|what| Corruption::new(0, what))?;
            let mut children: Vec<(&[u8], u64)> = children;
            if let Some(child) = children.last_mut() {
                child.1 = last;
            }
            children.extend(behind.take().map(|page| (key, page)));
            last = self.put_branch(&children)?;
        }
        if let Some(behind) = behind {
            let first = leaf.first_key(self.file)?.unwrap_or_default();
            last = self.put_branch(&[(&first, last), (key, behind)])?;
        }
        self.buckets.insert(name.to_vec(), point_to(last, &bucket, &[]));
        Ok(())
    }

    /// Writes the changes and sets the length of the file to that of the meta page. Does not sync.
    pub fn write(mut self, path: &Path) -> Result<Meta, EditError> {
        for (name, pairs) in std::mem::take(&mut self.changed) {
            let pairs: Vec<Pair<'_>> = pairs.iter().map(|(key, value)| Pair { key, value, is_bucket: false }).collect();
            let before = self.buckets.remove(&name).unwrap_or_default();
            let after = match self.inline(&pairs) {
                Some(page) => point_to(0, &before, &page),
                None => point_to(self.put_leaf(&pairs)?, &before, &[]),
            };
            self.buckets.insert(name, after);
        }
        let buckets = std::mem::take(&mut self.buckets);
        let pairs: Vec<Pair<'_>> = buckets.iter().map(|(key, value)| Pair { key, value, is_bucket: true }).collect();
        let root = self.put_leaf(&pairs)?;
        let before = self.database.meta();
        let meta = Meta {
            root,
            freelist: NO_FREELIST,
            high_water_mark: self.next_page(),
            transaction: before.transaction + 1,
            ..before
        };
        let page_size = u64::from(meta.page_size);
        durable::write_at(self.file, path, &self.appended, before.high_water_mark * page_size)?;
        let slot = meta.transaction % 2;
        durable::write_at(self.file, path, &meta.page(slot), slot * page_size)?;
        let other = Meta { transaction: before.transaction, ..meta };
        durable::write_at(self.file, path, &other.page(1 - slot), (1 - slot) * page_size)?;
        durable::set_length(self.file, path, meta.high_water_mark * page_size)?;
        Ok(meta)
    }

    fn next_page(&self) -> u64 {
        let meta = self.database.meta();
        meta.high_water_mark + self.appended.len() as u64 / u64::from(meta.page_size)
    }

    fn put_leaf(&mut self, pairs: &[Pair<'_>]) -> Result<u64, Corruption> {
        let (id, page_size) = (self.next_page(), self.database.meta().page_size);
        let page = page::leaf(id, pairs, page_size)
            .ok_or_else(|| Corruption::new(0, "the content does not fit into one page"))?;
        self.appended.extend_from_slice(&page);
        self.appended.resize(self.appended.len().next_multiple_of(page_size as usize), 0);
        Ok(id)
    }

    fn put_branch(&mut self, children: &[(&[u8], u64)]) -> Result<u64, Corruption> {
        let (id, page_size) = (self.next_page(), self.database.meta().page_size);
        let page = page::branch(id, children, page_size);
        let page = page.ok_or_else(|| Corruption::new(0, "the content does not fit into one page"))?;
        self.appended.extend_from_slice(&page);
        self.appended.resize(self.appended.len().next_multiple_of(page_size as usize), 0);
        Ok(id)
    }

    /// The bucket inline in its parent's page, if it is as small as bbolt requires (`bucket.go`, `inlineable`).
    fn inline(&self, pairs: &[Pair<'_>]) -> Option<Vec<u8>> {
        let page_size = self.database.meta().page_size;
        page::leaf(0, pairs, page_size).filter(|page| page.len() <= page_size as usize / 4)
    }
}

/// The value of a bucket: its root page, or 0 and the inline page; the sequence is kept.
fn point_to(root: u64, before: &[u8], inline: &[u8]) -> Vec<u8> {
    let sequence = page::u64_at(before, 8).unwrap_or_default();
    [&root.to_le_bytes()[..], &sequence.to_le_bytes(), inline].concat()
}

fn encode_page(leaf: &Leaf) -> u64 {
    match leaf {
        Leaf::Page(id, _) => *id,
        Leaf::Inline(_) => 0,
    }
}

fn empty_bucket(before: &[u8]) -> Vec<u8> {
    debug_assert!(before.len() <= BUCKET);
    point_to(0, before, &page::leaf(0, &[], 4096).unwrap_or_default())
}

#[derive(Default)]
struct All {
    pairs: Pairs,
    bytes: usize,
}

impl Visitor for All {
    fn bucket(&mut self, _: &[u8], _: u64) -> Result<(), Corruption> {
        Ok(())
    }

    fn pair(&mut self, key: &[u8], value: &[u8], offset: u64) -> Result<Flow, Corruption> {
        self.bytes += key.len() + value.len();
        if self.bytes > LARGEST {
            return Err(Corruption::new(offset, "a bucket that is small in etcd is large"));
        }
        self.pairs.insert(key.to_vec(), value.to_vec());
        Ok(CONTINUE)
    }
}

#[cfg(test)]
mod tests {
    use super::super::database::Length;
    use super::super::database::tests::{Ignore, database, with_large_leaf};
    use super::super::walk::{MAX_WHOLE_LEAF_BYTES, Walked};
    use super::*;
    use proptest::prelude::*;
    use std::io::Write as _;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn pairs(file: &File, bucket: &[u8]) -> Pairs {
        let length = file.metadata().unwrap().len();
        let database = Database::open(file, length, Length::Exact).unwrap();
        let mut all = All::default();
        database.walk(&mut Ignore).unwrap();
        database.walk_bucket(bucket, &mut all).unwrap();
        all.pairs
    }

    /// Every database of the fuzzing corpus, as etcd 3.4 to 3.7 wrote them.
    fn seeds() -> Vec<Vec<u8>> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/bolt");
        std::fs::read_dir(dir).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap()).collect()
    }

    #[test]
    fn buckets_are_changed_and_made_and_all_others_stay() {
        let mut bases = seeds();
        bases.push(database());
        for base in bases {
            let file = file(&base);
            let before = pairs(&file, b"key");
            let mut editor = Editor::open(&file).unwrap();
            let members = editor.bucket(b"members").unwrap();
            members.clear();
            members.insert(b"1".to_vec(), b"one".to_vec());
            // More than a page, so that it cannot be inline.
            editor.bucket(b"new").unwrap().extend((0..200u8).map(|n| (vec![n; 9], vec![n; 90])));
            editor.append(b"key", &[0xff; 17], b"last").unwrap();
            let meta = editor.write(Path::new("x")).unwrap();
            assert_eq!(file.metadata().unwrap().len(), meta.high_water_mark * u64::from(meta.page_size));
            assert_eq!(pairs(&file, b"members"), Pairs::from([(b"1".to_vec(), b"one".to_vec())]));
            assert_eq!(pairs(&file, b"new").len(), 200);
            let mut expected = before;
            expected.insert(vec![0xff; 17], b"last".to_vec());
            assert_eq!(pairs(&file, b"key"), expected);
            let database = Database::open_newest(&file).unwrap();
            assert_eq!(database.last_key(b"key").unwrap(), Some(vec![0xff; 17]));
            let Walked { used_pages, free_pages } = database.walk(&mut Ignore).unwrap();
            assert_eq!(used_pages + free_pages, meta.high_water_mark);
        }
    }

    #[test]
    fn a_bucket_that_is_not_there_is_made_by_the_first_pair() {
        let file = file(&database());
        let mut editor = Editor::open(&file).unwrap();
        editor.append(b"young", b"k", b"v").unwrap();
        editor.write(Path::new("x")).unwrap();
        assert_eq!(pairs(&file, b"young"), Pairs::from([(b"k".to_vec(), b"v".to_vec())]));
    }

    /// A leaf that is too large to copy gets a sibling.
    #[test]
    fn a_pair_is_put_behind_a_large_leaf() {
        let file = file(&with_large_leaf(MAX_WHOLE_LEAF_BYTES));
        for key in [b"c", b"d"] {
            let mut editor = Editor::open(&file).unwrap();
            editor.append(b"key", key, b"v").unwrap();
            editor.write(Path::new("x")).unwrap();
        }
        let database = Database::open(&file, file.metadata().unwrap().len(), Length::Exact).unwrap();
        database.walk(&mut Ignore).unwrap();
        assert_eq!(database.last_key(b"key").unwrap(), Some(b"d".to_vec()));
    }

    #[test]
    fn what_does_not_belong_at_the_end_is_refused() {
        let file = file(&database());
        assert!(Editor::open(&file).unwrap().append(b"key", b"", b"v").is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(at in 0usize..8 * 4096, bytes: [u8; 4]) {
            let mut broken = database();
            broken[at..(at + 4).min(8 * 4096)].copy_from_slice(&bytes[..4.min(8 * 4096 - at)]);
            let file = file(&broken);
            if let Ok(mut editor) = Editor::open(&file) {
                let _ = editor.bucket(b"members").map(|members| members.insert(b"k".to_vec(), vec![0; 2000]));
                let _ = editor.append(b"key", &[0xff; 17], b"");
                let _ = editor.write(Path::new("x"));
            }
        }
    }
}
