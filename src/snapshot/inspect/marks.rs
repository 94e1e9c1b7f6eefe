//! The bucket `meta`: how far history was compacted, and which version wrote the database.

use crate::boltdb::database::Database;
use crate::boltdb::page::{Corruption, ReadError};
use crate::boltdb::read_at::ReadAt;
use crate::boltdb::walk::{CONTINUE, Flow, Visitor};
use crate::boltdb::{keyspace, schema};
use crate::snapshot::inspect::inspection::Inspection;

/// Maximum size of a value in `meta`, in bytes.
const MAX_VALUE_BYTES: usize = 1 << 20;

/// The content of the bucket `meta`.
#[derive(Debug, Default)]
pub(in crate::snapshot) struct Marks {
    scheduled_compaction: Option<i64>,
    finished_compaction: Option<i64>,
    pub(in crate::snapshot) consistent_index: u64,
    term: u64,
    pub(in crate::snapshot) storage_version: Option<String>,
    storage_minor: Option<u32>,
    offset: u64,
}

impl Marks {
    pub(in crate::snapshot) fn read<I: ReadAt + ?Sized>(database: &Database<'_, I>) -> Result<Self, ReadError> {
        let mut marks = Self::default();
        database.walk_bucket(b"meta", &mut marks)?;
        // Compactions are scheduled, then finished (etcd `server/storage/mvcc/kvstore_compaction.go`).
        if marks.finished_compaction > marks.scheduled_compaction {
            return Err(marks.wrong("a compaction was finished without being scheduled").into());
        }
        Ok(marks)
    }

    fn wrong(&self, what: impl Into<String>) -> Corruption {
        Corruption::new(self.offset, what)
    }

    /// History up to here is, or is being, compacted. etcd ignores a compaction that was scheduled at 0 and not
    /// finished (`kvstore.go`, `restore`).
    pub(in crate::snapshot) fn compact(&self) -> Option<i64> {
        self.scheduled_compaction.filter(|scheduled| *scheduled > 0).max(self.finished_compaction)
    }

    /// The records removed by the last finished compaction are gone.
    pub(in crate::snapshot) fn finished(&self) -> Option<i64> {
        self.finished_compaction
    }

    /// A finished compaction has left at most one record of each key up to there.
    pub(in crate::snapshot) fn is_settled(&self, revision: i64) -> bool {
        self.finished_compaction.is_some_and(|finished| revision <= finished)
    }

    /// Written by an etcd whose decoder requires UTF-8 strings.
    pub(in crate::snapshot) fn is_utf8(&self) -> bool {
        self.storage_minor.is_some_and(|minor| minor >= 7)
    }

    /// Checks consistency with the other contents. `last` is the newest revision with a record.
    pub(in crate::snapshot) fn check(&self, found: &Inspection, last: i64) -> Result<(), Corruption> {
        let cluster = found.cluster_version.as_ref().and_then(|version| schema::version(version.as_bytes()).ok());
        if let (Some(cluster), Some(storage)) = (cluster, self.storage_minor)
            // They may differ by one minor during an upgrade or downgrade.
            && cluster.abs_diff(storage) > 1
        {
            return Err(self.wrong(format!("the storage version is 3.{storage}, but the cluster version 3.{cluster}")));
        }
        // Up to 3.4.32 etcd ignores such a compaction when it starts, and returns to an older revision (etcd#17780).
        let is_old = self.term == 0 && self.storage_minor.is_none();
        let newest = last.max(self.finished_compaction.unwrap_or(1));
        if let Some(scheduled) = self.scheduled_compaction.filter(|scheduled| is_old && *scheduled > newest) {
            return Err(
                self.wrong(format!("a compaction is scheduled at {scheduled}, after the newest revision, {newest}"))
            );
        }
        Ok(())
    }

    /// A compaction after the newest record: it removed newer deletions, so nothing else that it removes may be left.
    pub(in crate::snapshot) fn check_nothing_left(&self, last: i64, is_something_left: bool) -> Result<(), Corruption> {
        match self.scheduled_compaction {
            Some(scheduled) if scheduled > last && is_something_left => Err(self.wrong(format!(
                "a compaction at {scheduled} has removed the revisions after {last}, but not older ones"
            ))),
            _ => Ok(()),
        }
    }
}

impl Visitor for Marks {
    fn bucket(&mut self, _: &[u8], offset: u64) -> Result<(), Corruption> {
        self.offset = offset;
        Ok(())
    }

    fn pair(&mut self, key: &[u8], value: &[u8], offset: u64) -> Result<Flow, Corruption> {
        self.offset = offset;
        let named = |what: &str| Corruption::new(offset, format!("{}: {what}", String::from_utf8_lossy(key)));
        if value.len() > MAX_VALUE_BYTES {
            return Err(named("larger than etcd writes it"));
        }
        match key {
            b"scheduledCompactRev" => self.scheduled_compaction = Some(keyspace::compaction(value).map_err(named)?),
            b"finishedCompactRev" => self.finished_compaction = Some(keyspace::compaction(value).map_err(named)?),
            b"consistent_index" => self.consistent_index = schema::number(value).map_err(named)?,
            b"term" => self.term = schema::number(value).map_err(named)?,
            b"confState" => schema::conf_state(value).map_err(named)?,
            b"storageVersion" => {
                let minor = schema::version(value).map_err(named)?;
                // etcd writes it from 3.6 on.
                if minor < 6 {
                    return Err(named("not written by etcd of that version"));
                }
                self.storage_minor = Some(minor);
                self.storage_version = Some(String::from_utf8_lossy(value).into_owned());
            }
            _ => {}
        }
        Ok(CONTINUE)
    }
}
