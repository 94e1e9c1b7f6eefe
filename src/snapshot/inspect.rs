//! What a database holds, and whether it can be what etcd wrote.
//!
//! Two passes over the pages: the first checks everything and computes the hash that `etcdutl snapshot status` prints, the second
//! computes HashKV, which a live member can be asked for. Memory is at most 24 bytes for each key that was changed since the last
//! compaction, and nothing else that grows.
//!
//! Status hash (etcd `etcdutl/snapshot`, all versions): CRC-32C over each bucket's name and all its keys and values, in order.
//! HashKV (etcd `server/storage/mvcc/hash.go`): CRC-32C over `key` and each record of the bucket `key`, without those that a
//! compaction at the compact revision takes away.

use std::hash::{BuildHasher as _, RandomState};

use crc32c::crc32c_append;

use crate::boltdb::database::{Database, Length};
use crate::boltdb::image::Image;
use crate::boltdb::keyspace::{self, Record, Revision};
use crate::boltdb::page::{Finding, ReadError};
use crate::boltdb::protobuf;
use crate::boltdb::walk::{Flow, ON, Visitor, Walked};

/// Of the bucket `key`, the bucket of records.
const KEY: &[u8] = b"key";

/// What was found in a database that is whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspection {
    /// The revision of the keyspace.
    pub revision: i64,
    /// Up to here history was compacted, if it ever was.
    pub compact_revision: Option<i64>,
    /// Keys that are there at the revision.
    pub keys: u64,
    /// Pairs in all buckets, as `snapshot status` of etcd up to 3.5 counts.
    pub total_pairs: u64,
    /// The hash that `snapshot status` prints.
    pub status_hash: u32,
    /// What a live member with these data answers to HashKV.
    pub hash_kv: u32,
    /// The version of the cluster, such as `3.5.0`.
    pub cluster_version: Option<String>,
    /// The version of the storage format; from 3.6 on.
    pub storage_version: Option<String>,
    /// Leases.
    pub leases: u64,
    /// Alarms, such as `NOSPACE`.
    pub alarms: Vec<String>,
    /// Clients have to log in.
    pub auth_enabled: bool,
    /// Members, as the database knows them.
    pub members: Vec<u64>,
    /// The last raft entry that is in it.
    pub consistent_index: u64,
    /// Bytes of a page.
    pub page_size: u32,
    /// Pages in use, and free ones.
    pub pages: Walked,
}

impl Inspection {
    /// The version of the etcd that wrote it, as far as it tells: its storage format, or what the cluster had agreed on.
    #[must_use]
    pub fn etcd_version(&self) -> Option<String> {
        self.storage_version.clone().or_else(|| self.cluster_version.clone())
    }
}

/// Inspects a database of `length` bytes. `progress` is told how many pages were read, of how many, in both passes together.
///
/// # Errors
/// The first thing that is wrong, with its place.
pub fn inspect<I: Image + ?Sized>(
    image: &I,
    length: u64,
    wanted: Length,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Inspection, ReadError> {
    let database = Database::open(image, length, wanted)?;
    let mut marks = Marks::default();
    database.walk_bucket(b"meta", &mut marks)?;
    let all_pages = database.meta().high_water_mark * 2;
    let mut tell = |pages| progress(pages, all_pages);
    let mut first = First::new(&marks, &mut tell);
    let pages = database.walk(&mut first)?;
    let First { found, mut newest, last, .. } = first;
    newest.settle();
    let compact = marks.compact();
    let mut tell = |read| progress(pages.used_pages + read, all_pages);
    let mut second = Second {
        progress: &mut tell,
        compact,
        newest: &newest,
        place: 0,
        with_all: crc32c_append(0, KEY),
        without_old: crc32c_append(0, KEY),
        kept: 0,
    };
    database.walk_bucket(KEY, &mut second)?;
    let keys = second.kept + newest.alive();
    Ok(Inspection {
        revision: last.main.max(compact.unwrap_or(1)),
        compact_revision: compact,
        keys,
        // Nothing is left out where no key is alive.
        hash_kv: if keys == 0 { second.with_all } else { second.without_old },
        storage_version: marks.storage_version,
        consistent_index: marks.consistent_index,
        page_size: database.meta().page_size,
        pages,
        ..found
    })
}

/// What is in the bucket `meta`.
#[derive(Debug, Default)]
pub(super) struct Marks {
    scheduled_compaction: Option<i64>,
    finished_compaction: Option<i64>,
    consistent_index: u64,
    storage_version: Option<String>,
}

impl Marks {
    /// History is gone up to here, or is about to be.
    pub(super) fn compact(&self) -> Option<i64> {
        self.scheduled_compaction.max(self.finished_compaction)
    }

    /// What the last compaction that was finished has freed is free.
    pub(super) fn finished(&self) -> Option<i64> {
        self.finished_compaction
    }

    /// A compaction was begun and not finished: records before it may be superseded by others before it.
    pub(super) fn is_unfinished(&self) -> bool {
        self.scheduled_compaction > self.finished_compaction
    }
}

impl Visitor for Marks {
    fn bucket(&mut self, _: &[u8], _: u64) -> Result<(), Finding> {
        Ok(())
    }

    fn pair(&mut self, key: &[u8], value: &[u8], offset: u64) -> Result<Flow, Finding> {
        let revision = || {
            let read = keyspace::revision(value).map(|(revision, _)| Some(revision.main));
            read.map_err(|what| Finding::new(offset, format!("the mark of a compaction: {what}")))
        };
        match key {
            b"scheduledCompactRev" => self.scheduled_compaction = revision()?,
            b"finishedCompactRev" => self.finished_compaction = revision()?,
            b"storageVersion" => self.storage_version = Some(text(value)),
            b"consistent_index" => {
                let bytes = value.try_into();
                let bytes = bytes.map_err(|_| Finding::new(offset, "the consistent index has the wrong length"))?;
                self.consistent_index = u64::from_be_bytes(bytes);
            }
            _ => {}
        }
        Ok(ON)
    }
}

/// `NOSPACE` or `CORRUPT`, of a key of the bucket `alarm`; nothing if it is malformed.
pub(crate) fn alarm_name(key: &[u8]) -> Option<String> {
    // etcdserverpb.AlarmMember{1: memberID, 2: alarm}
    Some(match protobuf::number(key, 2).ok()? {
        Some(1) => "NOSPACE".into(),
        Some(2) => "CORRUPT".into(),
        other => format!("alarm {}", other.unwrap_or_default()),
    })
}

fn text(value: &[u8]) -> String {
    crate::host::printable(&String::from_utf8_lossy(value))
}

/// The newest record of each key that has one after the compaction, in 16 bytes a key: 80 bits of a hash that nobody outside can
/// foresee, 47 of the record's place in the bucket, and whether the key is there then.
#[derive(Debug)]
pub(super) struct Newest {
    hashers: [RandomState; 2],
    entries: Vec<u128>,
    settle_at: usize,
}

const PLACE_BITS: u32 = 47;

impl Newest {
    pub(super) fn new() -> Self {
        Self { hashers: [RandomState::new(), RandomState::new()], entries: Vec::new(), settle_at: 1 << 16 }
    }

    fn hash(&self, key: &[u8]) -> u128 {
        let [first, second] = [0, 1].map(|index: usize| u128::from(self.hashers[index].hash_one(key)));
        ((first << 16) | (second & 0xffff)) << (PLACE_BITS + 1)
    }

    pub(super) fn add(&mut self, key: &[u8], place: u64, is_alive: bool) {
        self.entries.push(self.hash(key) | (u128::from(place) << 1) | u128::from(is_alive));
        if self.entries.len() >= self.settle_at {
            self.settle();
            self.settle_at = (self.entries.len() + self.entries.len() / 2).max(1 << 16);
        }
    }

    /// Keeps only the newest entry of each key, in order.
    pub(super) fn settle(&mut self) {
        self.entries.sort_unstable();
        // Reversed twice: of equal keys, the last one stays.
        self.entries.reverse();
        self.entries.dedup_by_key(|entry| *entry >> (PLACE_BITS + 1));
        self.entries.reverse();
    }

    /// Whether the key has a record after the one in `place`.
    pub(super) fn is_superseded(&self, key: &[u8], place: u64) -> bool {
        let hash = self.hash(key);
        let next = self.entries.partition_point(|entry| *entry <= hash | (u128::from(place) << 1) | 1);
        self.entries.get(next).is_some_and(|entry| entry >> (PLACE_BITS + 1) == hash >> (PLACE_BITS + 1))
    }

    fn alive(&self) -> u64 {
        self.entries.iter().filter(|entry| *entry & 1 == 1).count() as u64
    }
}

/// The buckets that are looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bucket {
    Key,
    Lease,
    Alarm,
    Auth,
    Cluster,
    Members,
    Other,
}

struct First<'p> {
    found: Inspection,
    newest: Newest,
    bucket: Bucket,
    compact: Option<i64>,
    is_unfinished: bool,
    last: Revision,
    place: u64,
    progress: &'p mut dyn FnMut(u64),
}

impl<'p> First<'p> {
    fn new(marks: &Marks, progress: &'p mut dyn FnMut(u64)) -> Self {
        Self {
            found: Inspection::default(),
            newest: Newest::new(),
            bucket: Bucket::Other,
            compact: marks.compact(),
            is_unfinished: marks.is_unfinished(),
            // A keyspace begins with revision 1, and the first change makes it 2.
            last: Revision { main: 1, sub: 0 },
            place: 0,
            progress,
        }
    }

    fn record(&mut self, key: &[u8], value: &[u8], offset: u64) -> Result<(), Finding> {
        let record = keyspace::record(key, value).map_err(|what| Finding::new(offset, what))?;
        self.check_gap(record, value, offset)?;
        self.last = record.revision;
        let is_after = self.compact.is_none_or(|compact| record.revision.main > compact);
        if is_after || self.is_unfinished {
            // The record that only raises the revision is no key.
            let is_alive = !record.is_tombstone && !value.is_empty();
            self.newest.add(record.key, self.place, is_alive && is_after);
        }
        self.place += 1;
        Ok(())
    }

    /// Each change leaves a record, so after the compaction no revision is missing. Only a restore that raises the revision jumps,
    /// to an empty record.
    fn check_gap(&self, record: Record<'_>, value: &[u8], offset: u64) -> Result<(), Finding> {
        let (main, before) = (record.revision.main, self.last.main.max(self.compact.unwrap_or(1)));
        if main > before + 1 && !value.is_empty() {
            return Err(Finding::new(offset, format!("revision {} is missing", before + 1)));
        }
        Ok(())
    }
}

impl Visitor for First<'_> {
    fn bucket(&mut self, name: &[u8], _: u64) -> Result<(), Finding> {
        self.found.status_hash = crc32c_append(self.found.status_hash, name);
        self.bucket = match name {
            KEY => Bucket::Key,
            b"lease" => Bucket::Lease,
            b"alarm" => Bucket::Alarm,
            b"auth" => Bucket::Auth,
            b"cluster" => Bucket::Cluster,
            b"members" => Bucket::Members,
            _ => Bucket::Other,
        };
        Ok(())
    }

    fn pair(&mut self, key: &[u8], value: &[u8], offset: u64) -> Result<Flow, Finding> {
        self.found.status_hash = crc32c_append(crc32c_append(self.found.status_hash, key), value);
        self.found.total_pairs += 1;
        match (self.bucket, key) {
            (Bucket::Key, _) => self.record(key, value, offset)?,
            (Bucket::Lease, _) => self.found.leases += 1,
            (Bucket::Alarm, _) => {
                let name = alarm_name(key).ok_or_else(|| Finding::new(offset, "an alarm is malformed"))?;
                if !self.found.alarms.contains(&name) {
                    self.found.alarms.push(name);
                }
            }
            (Bucket::Auth, b"authEnabled") => self.found.auth_enabled = value == [1],
            (Bucket::Cluster, b"clusterVersion") => self.found.cluster_version = Some(text(value)),
            (Bucket::Members, _) => {
                let id = std::str::from_utf8(key).ok().and_then(|id| u64::from_str_radix(id, 16).ok());
                let id = id.ok_or_else(|| Finding::new(offset, "the id of a member is malformed"))?;
                self.found.members.push(id);
            }
            _ => {}
        }
        Ok(ON)
    }

    fn pages(&mut self, seen: u64) {
        (self.progress)(seen);
    }
}

struct Second<'a> {
    compact: Option<i64>,
    newest: &'a Newest,
    place: u64,
    with_all: u32,
    without_old: u32,
    /// Keys that were not changed since the compaction.
    kept: u64,
    progress: &'a mut dyn FnMut(u64),
}

impl Visitor for Second<'_> {
    fn bucket(&mut self, _: &[u8], _: u64) -> Result<(), Finding> {
        Ok(())
    }

    fn pair(&mut self, key: &[u8], value: &[u8], offset: u64) -> Result<Flow, Finding> {
        let record = keyspace::record(key, value).map_err(|what| Finding::new(offset, what))?;
        let place = self.place;
        self.place += 1;
        let add = |hash| crc32c_append(crc32c_append(hash, key), value);
        let is_old = self.compact.is_some_and(|compact| record.revision.main <= compact);
        if is_old && record.is_tombstone && Some(record.revision.main) == self.compact {
            return Ok(ON);
        }
        self.with_all = add(self.with_all);
        if is_old {
            if record.is_tombstone || self.newest.is_superseded(record.key, place) {
                return Ok(ON);
            }
            // To etcd the record that only raises the revision is a key without a name, which no client sees.
            self.kept += u64::from(!value.is_empty());
        }
        self.without_old = add(self.without_old);
        Ok(ON)
    }

    fn pages(&mut self, seen: u64) {
        (self.progress)(seen);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Databases of etcd 3.4 to 3.7, from which fuzzing begins, too.
    fn seeds() -> Vec<Vec<u8>> {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/bolt");
        let mut paths: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
    }

    fn look(bytes: &[u8]) -> Result<Inspection, ReadError> {
        inspect(bytes, bytes.len() as u64, Length::Exact, &mut |_, _| {})
    }

    #[test]
    fn databases_of_every_version_are_understood() {
        let found: Vec<Inspection> = seeds().iter().map(|bytes| look(bytes).unwrap()).collect();
        assert_eq!(found.len(), 4);
        for (inspection, version) in found.iter().zip(["3.4.0", "3.5.0", "3.6.0", "3.7.0"]) {
            assert_eq!(inspection.etcd_version().as_deref(), Some(version));
            assert_eq!((inspection.revision, inspection.compact_revision), (8, Some(4)), "{version}");
            assert_eq!((inspection.keys, inspection.leases, inspection.members.len()), (2, 1, 1), "{version}");
            // The same keys and values at the same revisions: the same hash, whatever the version.
            assert_eq!(inspection.hash_kv, found[0].hash_kv, "{version}");
        }
    }

    proptest! {
        #[test]
        fn no_byte_makes_it_panic(which in 0usize..4, at in 0usize..20_480, byte: u8, cut in 0usize..20_480) {
            let mut bytes = seeds().swap_remove(which);
            bytes[at] = byte;
            let _ = look(&bytes);
            let _ = crate::snapshot::usage::measure(bytes.as_slice(), bytes.len() as u64);
            let _ = look(&bytes[..cut]);
        }
    }
}
