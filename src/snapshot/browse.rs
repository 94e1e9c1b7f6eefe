//! Lists the keys of a snapshot, at its revision or an earlier one that it still contains.

use std::collections::BTreeMap;

use aws_lc_rs::digest;

use crate::boltdb::database::{Database, Length};
use crate::boltdb::keyspace::{self, Change};
use crate::boltdb::page::{Corruption, ReadError};
use crate::boltdb::read_at::ReadAt;
use crate::boltdb::schema::{self, StoredMember};
use crate::boltdb::walk::{CONTINUE, Flow, Visitor};
use crate::snapshot::file::SnapshotFile;
use crate::snapshot::inspect::marks::Marks;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    pub create_revision: i64,
    pub mod_revision: i64,
    /// How often, since it was made.
    pub version: i64,
    /// The attached lease; 0 for none.
    pub lease: i64,
    pub length: u64,
    /// Its value, or the digest or nothing, as requested.
    pub content: Content,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    Length,
    /// Their SHA-256.
    Digest,
    Value,
}

/// A value: its length, and the requested part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    Unread,
    /// Its SHA-256.
    Digest([u8; 32]),
    Value(Vec<u8>),
}

impl Content {
    #[must_use]
    pub fn value(&self) -> Option<&[u8]> {
        match self {
            Self::Value(value) => Some(value),
            Self::Unread | Self::Digest(_) => None,
        }
    }
}

/// Why the keys of a snapshot cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BrowseError {
    /// It is damaged, or cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(
        "required revision is a future revision: {wanted} was requested, but the newest in the snapshot is {newest}"
    )]
    Future { wanted: i64, newest: i64 },
    #[error(
        "required revision has been compacted: {wanted} was requested, but the snapshot was compacted up to {compacted}"
    )]
    Compacted {
        wanted: i64,
        /// History is gone up to here.
        compacted: i64,
    },
}

impl Value {
    fn of(change: &Change<'_>, wanted: Wanted) -> Self {
        let content = match wanted {
            Wanted::Length => Content::Unread,
            Wanted::Digest => {
                let digest = digest::digest(&digest::SHA256, change.value);
                Content::Digest(digest.as_ref().try_into().unwrap_or_default())
            }
            Wanted::Value => Content::Value(change.value.to_vec()),
        };
        Self {
            create_revision: change.create_revision,
            mod_revision: change.record.revision.main,
            version: change.version,
            lease: change.lease,
            length: change.value.len() as u64,
            content,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyEvent {
    Put(Value),
    /// It was deleted, at this revision.
    Deleted(i64),
}

/// The keys with `prefix` at `revision`, or at the newest.
pub fn list_keys(
    snapshot: &SnapshotFile,
    prefix: &[u8],
    revision: Option<i64>,
    wanted: Wanted,
) -> Result<BTreeMap<Vec<u8>, Value>, BrowseError> {
    let mut keys = BTreeMap::new();
    each(snapshot, revision, |change| {
        if change.record.key.starts_with(prefix) {
            if change.record.is_tombstone {
                keys.remove(change.record.key);
            } else {
                keys.insert(change.record.key.to_vec(), Value::of(change, wanted));
            }
        }
    })?;
    Ok(keys)
}

/// One key at `revision`, or at the newest.
pub fn get(snapshot: &SnapshotFile, key: &[u8], revision: Option<i64>) -> Result<Option<Value>, BrowseError> {
    let mut found = None;
    each(snapshot, revision, |change| {
        if change.record.key == key {
            found = (!change.record.is_tombstone).then(|| Value::of(change, Wanted::Value));
        }
    })?;
    Ok(found)
}

/// The history of a key up to `revision`, as far as the snapshot contains it, the oldest first.
pub fn history(snapshot: &SnapshotFile, key: &[u8], revision: Option<i64>) -> Result<Vec<KeyEvent>, BrowseError> {
    let mut events = Vec::new();
    each(snapshot, revision, |change| {
        if change.record.key == key {
            events.push(if change.record.is_tombstone {
                KeyEvent::Deleted(change.record.revision.main)
            } else {
                KeyEvent::Put(Value::of(change, Wanted::Value))
            });
        }
    })?;
    Ok(events)
}

/// How a key differs between two snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    Added,
    Removed,
    /// Both have it, with different values.
    Changed,
}

/// The keys whose values differ, in order.
#[must_use]
pub fn differences(first: &BTreeMap<Vec<u8>, Value>, second: &BTreeMap<Vec<u8>, Value>) -> Vec<(Vec<u8>, Difference)> {
    let mut found: Vec<(Vec<u8>, Difference)> = first
        .iter()
        .filter_map(|(key, value)| match second.get(key) {
            None => Some((key.clone(), Difference::Removed)),
            Some(other) if (other.length, &other.content) != (value.length, &value.content) => {
                Some((key.clone(), Difference::Changed))
            }
            Some(_) => None,
        })
        .collect();
    found.extend(second.keys().filter(|key| !first.contains_key(*key)).map(|key| (key.clone(), Difference::Added)));
    found.sort();
    found
}

impl PartialOrd for Difference {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Difference {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (*self as u8).cmp(&(*other as u8))
    }
}

pub fn members<I: ReadAt + ?Sized>(database: &I) -> Result<Vec<StoredMember>, ReadError> {
    let database = Database::open_newest(database)?;
    let mut members = Members(Vec::new());
    database.walk_bucket(b"members", &mut members)?;
    Ok(members.0)
}

struct Members(Vec<StoredMember>);

impl Visitor for Members {
    fn bucket(&mut self, _: &[u8], _: u64) -> Result<(), Corruption> {
        Ok(())
    }

    fn pair(&mut self, key: &[u8], value: &[u8], offset: u64) -> Result<Flow, Corruption> {
        self.0.push(schema::member(key, value).map_err(|what| Corruption::new(offset, what))?);
        Ok(CONTINUE)
    }
}

fn each(snapshot: &SnapshotFile, revision: Option<i64>, mut see: impl FnMut(&Change<'_>)) -> Result<(), BrowseError> {
    let length = if snapshot.trailer.is_some() { Length::Exact } else { Length::AtLeast };
    let database = Database::open(&snapshot.database, snapshot.database_size, length)?;
    // 0 is the newest one, as it is to etcd.
    let revision = revision.filter(|revision| *revision > 0);
    if let Some(wanted) = revision {
        let compacted = Marks::read(&database)?.compact();
        let last = database.last_key(b"key")?.map(|key| keyspace::revision(&key)).transpose();
        let last = last.map_err(|what| ReadError::from(Corruption::new(0, what)))?;
        let newest = last.map_or(1, |(revision, _)| revision.main).max(compacted.unwrap_or(1));
        if wanted > newest {
            return Err(BrowseError::Future { wanted, newest });
        }
        if let Some(compacted) = compacted.filter(|compacted| wanted < *compacted) {
            return Err(BrowseError::Compacted { wanted, compacted });
        }
    }
    Ok(database.walk_bucket(b"key", &mut Changes { upto: revision.unwrap_or(i64::MAX), see: &mut see })?)
}

struct Changes<'s, S> {
    upto: i64,
    see: &'s mut S,
}

impl<S: FnMut(&Change<'_>)> Visitor for Changes<'_, S> {
    fn bucket(&mut self, _: &[u8], _: u64) -> Result<(), Corruption> {
        Ok(())
    }

    fn pair(&mut self, key: &[u8], value: &[u8], offset: u64) -> Result<Flow, Corruption> {
        let change = keyspace::change(key, value).map_err(|what| Corruption::new(offset, what))?;
        if change.record.revision.main > self.upto {
            return Ok(Flow::Break(()));
        }
        // The record that only bumps the revision is not a key.
        if !change.record.is_revision_bump() {
            (self.see)(&change);
        }
        Ok(CONTINUE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boltdb::keyspace::{Record, Revision};
    use crate::checksum::crc32c;

    /// Two values with the same length and CRC-32C can differ.
    #[test]
    fn values_are_compared_by_more_than_their_checksum() {
        // The polynomial of CRC-32C: added to a value, it leaves the checksum unchanged.
        let same_checksum = (0x82f6_3b78_u64 << 1 | 1).to_le_bytes();
        let keys = |value: &[u8]| {
            let record = Record { revision: Revision { main: 2, sub: 0 }, is_tombstone: false, key: b"k" };
            let change = Change { record, create_revision: 2, version: 1, lease: 0, value };
            BTreeMap::from([(b"k".to_vec(), Value::of(&change, Wanted::Digest))])
        };
        assert_eq!(crc32c(&[0; 8]), crc32c(&same_checksum));
        let found = differences(&keys(&[0; 8]), &keys(&same_checksum));
        assert_eq!(found, [(b"k".to_vec(), Difference::Changed)]);
        assert!(differences(&keys(&[0; 8]), &keys(&[0; 8])).is_empty());
    }
}
