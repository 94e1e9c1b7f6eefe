//! The records of the bucket `key`: their consistency, the number of keys, and HashKV.

use std::ops::ControlFlow;

use crate::boltdb::database::Database;
use crate::boltdb::keyspace::{self, Record, Revision};
use crate::boltdb::page::{Corruption, ReadError};
use crate::boltdb::read_at::ReadAt;
use crate::boltdb::walk::{CONTINUE, Flow, Visitor};
use crate::checksum::{crc32c, crc32c_append, crc32c_combine};
use crate::snapshot::inspect::marks::Marks;
use crate::snapshot::inspect::newest::{Hash, Keys, Limits, Newest, Once, Share, Superseded};
use crate::text::escape_control;

const KEY: &[u8] = b"key";
/// Maximum number of suspected duplicate keys to check again.
const MAX_PASSES: usize = 16;

/// A CRC-32C, and its number of bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    crc: u32,
    length: u64,
}

impl Sum {
    fn over(bytes: &[u8]) -> Self {
        Self::default().and(bytes)
    }

    fn and(self, bytes: &[u8]) -> Self {
        Self { crc: crc32c_append(self.crc, bytes), length: self.length.wrapping_add(bytes.len() as u64) }
    }

    fn then(self, other: Self) -> u32 {
        crc32c_combine(self.crc, other.crc, other.length)
    }
}

/// The results of the first walk over the bucket `key`.
pub(super) struct Records {
    /// The newest records after the last finished compaction.
    newest: Newest,
    /// The keys before it, which must be unique.
    once: Once,
    superseded: Superseded,
    place: u64,
    /// Those up to the last compaction.
    old: u64,
    last: Revision,
    /// The number of records up to the last finished compaction, and of puts among them.
    settled: u64,
    settled_keys: u64,
    has_raise: bool,
    /// The first deletion before the last compaction that was not removed.
    early_deletion: Option<u64>,
    /// HashKV of the records up to the last compaction, with and without deletions, and of those after it.
    old_all: Sum,
    old_puts: Sum,
    new: Sum,
    limits: Limits,
}

impl Records {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            newest: Newest::new(limits.newest, Share::ALL),
            once: Once::new(limits.once, Share::ALL),
            superseded: Superseded::default(),
            place: 0,
            old: 0,
            // A keyspace begins at revision 1, and the first change has revision 2.
            last: Revision { main: 1, sub: -1 },
            settled: 0,
            settled_keys: 0,
            has_raise: false,
            early_deletion: None,
            old_all: Sum::over(KEY),
            old_puts: Sum::over(KEY),
            new: Sum::default(),
            limits,
        }
    }

    /// The main revision of the last record.
    pub(super) fn last(&self) -> i64 {
        self.last.main
    }

    pub(super) fn resolve(&mut self) {
        self.newest.resolve(&mut self.superseded);
    }

    /// Checks a record and counts it.
    pub(super) fn record(
        &mut self,
        pair: [&[u8]; 2],
        marks: &Marks,
        keys: &Keys,
        offset: u64,
    ) -> Result<(), Corruption> {
        let record = keyspace::record(pair[0], pair[1]).map_err(|what| Corruption::new(offset, what))?;
        let main = record.revision.main;
        let compact = marks.compact();
        let is_old = compact.is_some_and(|compact| main <= compact);
        let is_settled = marks.is_settled(main);
        self.check_place(&record, is_old, compact, offset)?;
        if record.is_tombstone && is_settled && Some(main) != marks.finished() {
            return Err(Corruption::new(offset, "there is a deletion that a finished compaction would have removed"));
        }
        let hash = keys.hash(record.key);
        if is_settled {
            self.once.add(hash);
            self.settled += 1;
            self.settled_keys += u64::from(record.is_put());
        } else {
            self.newest.add(hash, self.place, record.is_put(), &mut self.superseded);
        }
        self.add(&record, pair, is_old, compact, offset);
        Ok(())
    }

    /// Each change leaves a record, and the changes of a transaction are counted from 0, so no revision after the
    /// compaction may be missing. Only a restore that bumps the revision skips revisions, up to a record without a
    /// value at which it also compacts.
    fn check_place(
        &self,
        record: &Record<'_>,
        is_old: bool,
        compact: Option<i64>,
        offset: u64,
    ) -> Result<(), Corruption> {
        let (now, last) = (record.revision, self.last);
        if now <= last {
            return Err(Corruption::new(offset, "a revision occurs twice"));
        }
        if is_old {
            return Ok(());
        }
        if record.is_revision_bump() {
            return Err(Corruption::new(offset, "a record has no value, but is not from a restore"));
        }
        let next = if now.main == last.main {
            Revision { main: last.main, sub: last.sub + 1 }
        } else {
            Revision { main: last.main.max(compact.unwrap_or(1)) + 1, sub: 0 }
        };
        if now == next {
            return Ok(());
        }
        Err(Corruption::new(offset, format!("revision {} with change {} is missing", next.main, next.sub)))
    }

    fn add(&mut self, record: &Record<'_>, pair: [&[u8]; 2], is_old: bool, compact: Option<i64>, offset: u64) {
        let add = |sum: Sum| sum.and(pair[0]).and(pair[1]);
        if !is_old {
            self.new = add(self.new);
        } else if record.is_tombstone {
            // A deletion at the compact revision is not hashed (`hash.go`, `WriteKeyValue`).
            if compact != Some(record.revision.main) {
                self.early_deletion.get_or_insert(offset);
                self.old_all = add(self.old_all);
            }
        } else {
            self.old_all = add(self.old_all);
            self.old_puts = add(self.old_puts);
        }
        self.old += u64::from(is_old);
        self.has_raise |= record.is_revision_bump();
        self.last = record.revision;
        self.place += 1;
    }
}

pub(super) struct Counted {
    pub(super) revision: i64,
    pub(super) keys: u64,
    pub(super) hash_kv: u32,
}

impl Records {
    /// The walks after the first one: which records up to the last compaction are superseded.
    pub(super) fn count<I: ReadAt + ?Sized>(
        mut self,
        database: &Database<'_, I>,
        marks: &Marks,
        keys: &Keys,
        progress: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<Counted, ReadError> {
        let mut alive = self.newest.alive();
        let (mut gone, mut kept) = (0, None);
        loop {
            let once = std::mem::replace(&mut self.once, Once::new(0, Share::ALL));
            let next_once = once.share().next().map(|share| Once::new(self.limits.once, share));
            let wanted = once.twice(MAX_PASSES);
            if !wanted.is_empty() {
                database.walk_bucket(KEY, &mut Twice { marks, keys, wanted, seen: Vec::new() })?;
            }
            let next_newest = self.newest.share().next().map(|share| Newest::new(self.limits.newest, share));
            let is_any_superseded = (self.settled > 0 && !self.newest.is_empty()) || self.superseded.count() > 0;
            let is_hashed = kept.is_none() && next_newest.is_none();
            let is_needed =
                next_newest.is_some() || next_once.is_some() || (is_hashed && self.old > 0 && is_any_superseded);
            if !is_needed {
                break;
            }
            let hash = is_hashed.then(|| Sum::over(KEY));
            let superseded = std::mem::take(&mut self.superseded);
            let mut again = Again {
                marks,
                keys,
                newest: &self.newest,
                next_newest,
                next_once,
                superseded,
                gone: 0,
                hash,
                place: 0,
                progress,
                is_cancelled: false,
            };
            let walked = database.walk_bucket(KEY, &mut again);
            if again.is_cancelled {
                return Err(ReadError::Cancelled);
            }
            walked?;
            let Again { next_newest, next_once, superseded, gone: gone_now, hash, .. } = again;
            kept = kept.or(hash);
            gone += gone_now;
            self.superseded = superseded;
            self.newest = next_newest.unwrap_or_else(|| Newest::new(0, Share::NONE));
            self.newest.resolve(&mut self.superseded);
            alive += self.newest.alive();
            self.once = next_once.unwrap_or_else(|| Once::new(0, Share::NONE));
        }
        let is_something_left = self.early_deletion.is_some() || self.superseded.count() > 0;
        marks.check_nothing_left(self.last.main, is_something_left)?;
        let keys = self.settled_keys - gone + alive;
        // To etcd the record that only bumps the revision is a key with an empty name, which no client sees. Without
        // any keys, the hash includes it.
        let old = if keys > 0 || self.has_raise { kept.unwrap_or(self.old_puts) } else { self.old_all };
        Ok(Counted { revision: self.last.main.max(marks.compact().unwrap_or(1)), keys, hash_kv: old.then(self.new) })
    }
}

/// A walk after the first one.
struct Again<'a> {
    marks: &'a Marks,
    keys: &'a Keys,
    /// The newest records of a share of the keys after a finished compaction.
    newest: &'a Newest,
    next_newest: Option<Newest>,
    next_once: Option<Once>,
    superseded: Superseded,
    /// Keys that existed at the finished compaction and were changed or deleted later.
    gone: u64,
    /// The hash of the records kept up to the last compaction.
    hash: Option<Sum>,
    place: u64,
    progress: &'a mut dyn FnMut(u64) -> ControlFlow<()>,
    is_cancelled: bool,
}

impl Visitor for Again<'_> {
    fn bucket(&mut self, _: &[u8], _: u64) -> Result<(), Corruption> {
        Ok(())
    }

    fn pair(&mut self, key: &[u8], value: &[u8], offset: u64) -> Result<Flow, Corruption> {
        if self.is_cancelled {
            return Ok(Flow::Break(()));
        }
        let record = keyspace::record(key, value).map_err(|what| Corruption::new(offset, what))?;
        let main = record.revision.main;
        let is_old = self.marks.compact().is_some_and(|compact| main <= compact);
        if !is_old && self.next_newest.is_none() {
            return Ok(Flow::Break(()));
        }
        let place = self.place;
        self.place += 1;
        if self.marks.is_settled(main) {
            let hash = self.keys.hash(record.key);
            if self.newest.has(hash) {
                self.superseded.mark(place);
                self.gone += u64::from(record.is_put());
            }
            if let Some(once) = &mut self.next_once {
                once.add(hash);
            }
        } else if let Some(newest) = &mut self.next_newest {
            newest.add(self.keys.hash(record.key), place, record.is_put(), &mut self.superseded);
        }
        if let Some(hash) = &mut self.hash
            && is_old
            && !record.is_tombstone
            && !self.superseded.has(place)
        {
            *hash = hash.and(key).and(value);
        }
        Ok(CONTINUE)
    }

    fn pages(&mut self, seen: u64) {
        self.is_cancelled |= (self.progress)(seen).is_break();
    }
}

/// Finds a duplicate key up to a finished compaction, among those with these hashes.
struct Twice<'a> {
    marks: &'a Marks,
    keys: &'a Keys,
    wanted: Vec<u64>,
    seen: Vec<(Hash, usize, u32)>,
}

impl Visitor for Twice<'_> {
    fn bucket(&mut self, _: &[u8], _: u64) -> Result<(), Corruption> {
        Ok(())
    }

    fn pair(&mut self, key: &[u8], value: &[u8], offset: u64) -> Result<Flow, Corruption> {
        let record = keyspace::record(key, value).map_err(|what| Corruption::new(offset, what))?;
        if !self.marks.is_settled(record.revision.main) {
            return Ok(Flow::Break(()));
        }
        let hash = self.keys.hash(record.key);
        if !self.wanted.contains(&hash.high) {
            return Ok(CONTINUE);
        }
        let key = (hash, record.key.len(), crc32c(record.key));
        if self.seen.contains(&key) {
            let shown: String = escape_control(&String::from_utf8_lossy(record.key)).chars().take(80).collect();
            let what = format!("the key {shown} occurs twice, but a finished compaction leaves only one");
            return Err(Corruption::new(offset, what));
        }
        self.seen.push(key);
        Ok(CONTINUE)
    }
}
