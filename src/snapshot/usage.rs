//! What uses the space in a database: keys and their history, by prefix.
//!
//! Two walks: the first finds the newest record of each key, the second counts. Memory is bounded as in `inspect`: if
//! there are more keys than fit, they are counted in shares.

use std::collections::HashMap;

use crate::boltdb::database::{Database, Length};
use crate::boltdb::keyspace::{self, Record};
use crate::boltdb::page::{Corruption, ReadError};
use crate::boltdb::read_at::ReadAt;
use crate::boltdb::walk::{CONTINUE, Flow, Visitor};
use crate::snapshot::inspect::marks::Marks;
use crate::snapshot::inspect::newest::{Keys, Limits, Newest, Share as OfKeys, Superseded};

/// Maximum number of prefixes; the smallest of more are counted together.
const MAX_PREFIXES: usize = 8192;
/// Maximum length of a prefix in bytes.
const MAX_PREFIX_BYTES: usize = 64;

/// The space used by keys with a common prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrefixShare {
    pub keys: u64,
    pub key_bytes: u64,
    /// Number of records: keys, their older values, and deletions.
    pub records: u64,
    pub bytes: u64,
}

impl PrefixShare {
    pub fn add(&mut self, other: &Self) {
        self.keys += other.keys;
        self.key_bytes += other.key_bytes;
        self.records += other.records;
        self.bytes += other.bytes;
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub revision: i64,
    /// History is gone up to here.
    pub compact_revision: Option<i64>,
    pub total: PrefixShare,
    pub prefixes: Vec<(Vec<u8>, PrefixShare)>,
    /// The sum of the prefixes beyond the maximum.
    pub others: PrefixShare,
}

/// Measures a database of `length` bytes.
pub fn measure<I: ReadAt + ?Sized>(image: &I, length: u64) -> Result<Usage, ReadError> {
    measure_within(image, length, Limits::USUAL)
}

fn measure_within<I: ReadAt + ?Sized>(image: &I, length: u64, limits: Limits) -> Result<Usage, ReadError> {
    let database = Database::open(image, length, Length::AtLeast)?;
    let marks = Marks::read(&database)?;
    let keys = Keys::default();
    let mut counter = Counter {
        marks: &marks,
        keys: &keys,
        newest: Newest::new(limits.newest, OfKeys::ALL),
        superseded: Superseded::default(),
        place: 0,
        usage: Usage::default(),
        prefixes: HashMap::new(),
        last: 1,
    };
    let mut share = Some(OfKeys::ALL);
    while let Some(of_keys) = share {
        let newest = Newest::new(limits.newest, of_keys);
        let superseded = std::mem::take(&mut counter.superseded);
        let mut finder = Finder { marks: &marks, keys: &keys, newest, superseded, place: 0 };
        database.walk_bucket(b"key", &mut finder)?;
        let Finder { mut newest, mut superseded, .. } = finder;
        newest.resolve(&mut superseded);
        share = newest.share().next();
        (counter.newest, counter.superseded, counter.place) = (newest, superseded, 0);
        database.walk_bucket(b"key", &mut counter)?;
    }
    let compact = marks.compact();
    let Counter { mut usage, prefixes, last, .. } = counter;
    usage.revision = last.max(compact.unwrap_or(1));
    usage.compact_revision = compact;
    usage.prefixes = prefixes.into_iter().collect();
    usage.prefixes.sort_by(|(left_name, left), (right_name, right)| {
        right.bytes.cmp(&left.bytes).then_with(|| left_name.cmp(right_name))
    });
    Ok(usage)
}

/// The revision of the last finished compaction; reads only a few pages.
pub fn last_compaction<I: ReadAt + ?Sized>(image: &I, length: u64) -> Result<Option<i64>, ReadError> {
    Ok(Marks::read(&Database::open(image, length, Length::AtLeast)?)?.finished())
}

/// Bytes of the pages in use. etcd's own figure may lag one transaction behind.
pub fn in_use<I: ReadAt + ?Sized>(image: &I, length: u64) -> Result<u64, ReadError> {
    let database = Database::open(image, length, Length::AtLeast)?;
    Ok(database.reachable_pages()?.count() * u64::from(database.meta().page_size))
}

fn read<'a>(key: &[u8], value: &'a [u8], offset: u64) -> Result<Record<'a>, Corruption> {
    keyspace::record(key, value).map_err(|what| Corruption::new(offset, what))
}

/// Finds the newest record of each key.
struct Finder<'a> {
    marks: &'a Marks,
    keys: &'a Keys,
    newest: Newest,
    superseded: Superseded,
    place: u64,
}

impl Visitor for Finder<'_> {
    fn bucket(&mut self, _: &[u8], _: u64) -> Result<(), Corruption> {
        Ok(())
    }

    fn pair(&mut self, key: &[u8], value: &[u8], offset: u64) -> Result<Flow, Corruption> {
        let record = read(key, value, offset)?;
        // Up to this revision a compaction has left only one record of each key.
        if !self.marks.is_settled(record.revision.main) {
            self.newest.add(self.keys.hash(record.key), self.place, true, &mut self.superseded);
        }
        self.place += 1;
        Ok(CONTINUE)
    }
}

struct Counter<'a> {
    marks: &'a Marks,
    keys: &'a Keys,
    newest: Newest,
    superseded: Superseded,
    place: u64,
    usage: Usage,
    prefixes: HashMap<Vec<u8>, PrefixShare>,
    last: i64,
}

impl Visitor for Counter<'_> {
    fn bucket(&mut self, _: &[u8], _: u64) -> Result<(), Corruption> {
        Ok(())
    }

    fn pair(&mut self, key: &[u8], value: &[u8], offset: u64) -> Result<Flow, Corruption> {
        let record = read(key, value, offset)?;
        self.last = record.revision.main;
        let place = self.place;
        self.place += 1;
        let hash = self.keys.hash(record.key);
        if !self.newest.share().has(hash) {
            return Ok(CONTINUE);
        }
        let is_newest = if self.marks.is_settled(record.revision.main) {
            !self.newest.has(hash)
        } else {
            !self.superseded.has(place)
        };
        let is_there = record.is_put() && is_newest;
        let bytes = (key.len() + value.len()) as u64;
        let (keys, key_bytes) = if is_there { (1, bytes) } else { (0, 0) };
        let share = PrefixShare { keys, key_bytes, records: 1, bytes };
        self.usage.total.add(&share);
        let prefix = prefix(record.key);
        if let Some(known) = self.prefixes.get_mut(prefix) {
            known.add(&share);
            return Ok(CONTINUE);
        }
        if self.prefixes.len() >= MAX_PREFIXES {
            self.forget_the_smaller_half();
        }
        self.prefixes.insert(prefix.to_vec(), share);
        Ok(CONTINUE)
    }
}

impl Counter<'_> {
    fn forget_the_smaller_half(&mut self) {
        let mut sizes: Vec<u64> = self.prefixes.values().map(|share| share.bytes).collect();
        let (_, median, _) = sizes.select_nth_unstable(MAX_PREFIXES / 2);
        let median = *median;
        let others = &mut self.usage.others;
        self.prefixes.retain(|_, share| {
            let stays = share.bytes > median;
            if !stays {
                others.add(share);
            }
            stays
        });
    }
}

/// `/registry/pods/` of `/registry/pods/default/web`, `users/` of `users/17`, `lease-` of `lease-4f3a`; else the beginning.
fn prefix(key: &[u8]) -> &[u8] {
    let key = &key[..key.len().min(MAX_PREFIX_BYTES)];
    let lead = usize::from(key.first() == Some(&b'/'));
    let mut slashes = key.iter().enumerate().skip(lead).filter(|(_, byte)| **byte == b'/').map(|(at, _)| at + 1);
    let end = match (slashes.next(), slashes.next()) {
        (_, Some(second)) => second,
        (Some(first), None) => first,
        (None, None) => key.iter().position(|byte| b":.-_".contains(byte)).map_or(key.len().min(16), |at| at + 1),
    };
    &key[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_put_together_by_how_they_begin() {
        for (key, expected) in [
            ("/registry/pods/default/web", "/registry/pods/"),
            ("/registry/pods", "/registry/"),
            ("users/17", "users/"),
            ("a/b/c", "a/b/"),
            ("lease-4f3a", "lease-"),
            ("x:1", "x:"),
            ("abcdefghijklmnopqrstuvwxyz", "abcdefghijklmnop"),
            ("", ""),
            ("/", "/"),
            ("//", "//"),
        ] {
            assert_eq!(prefix(key.as_bytes()), expected.as_bytes(), "{key}");
        }
        assert_eq!(prefix(&[b'a'; 500]).len(), 16);
    }
}
