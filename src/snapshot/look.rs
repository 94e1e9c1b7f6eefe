//! What keys a snapshot holds, at its revision or an earlier one that is still in it.

use std::collections::BTreeMap;

use crate::boltdb::database::{Database, Length};
use crate::boltdb::image::Image;
use crate::boltdb::keyspace::{self, Change};
use crate::boltdb::page::{Finding, ReadError};
use crate::boltdb::schema::{self, Member};
use crate::boltdb::walk::{Flow, ON, Visitor};
use crate::snapshot::file::SnapshotFile;

/// A key as it was at a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// When it was made.
    pub create_revision: i64,
    /// When it was changed last.
    pub mod_revision: i64,
    /// How often, since it was made.
    pub version: i64,
    /// The lease that it is bound to; 0 for none.
    pub lease: i64,
    /// Its value; empty if only its length was asked for.
    pub value: Vec<u8>,
    /// Bytes of its value.
    pub length: u64,
    /// CRC-32C of its value.
    pub crc: u32,
}

impl Value {
    fn of(change: &Change<'_>, with_value: bool) -> Self {
        Self {
            create_revision: change.create_revision,
            mod_revision: change.record.revision.main,
            version: change.version,
            lease: change.lease,
            value: if with_value { change.value.to_vec() } else { Vec::new() },
            length: change.value.len() as u64,
            crc: crc32c::crc32c(change.value),
        }
    }
}

/// One change of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It was written.
    Put(Value),
    /// It was deleted, at this revision.
    Deleted(i64),
}

/// The keys that begin with `prefix`, as they are at `revision`, or at the newest.
///
/// # Errors
/// If the database is damaged.
pub fn keys(
    snapshot: &SnapshotFile,
    prefix: &[u8],
    revision: Option<i64>,
    with_values: bool,
) -> Result<BTreeMap<Vec<u8>, Value>, ReadError> {
    let mut keys = BTreeMap::new();
    each(snapshot, revision, |change| {
        if change.record.key.starts_with(prefix) {
            if change.record.is_tombstone {
                keys.remove(change.record.key);
            } else {
                keys.insert(change.record.key.to_vec(), Value::of(change, with_values));
            }
        }
    })?;
    Ok(keys)
}

/// One key, as it is at `revision`, or at the newest.
///
/// # Errors
/// If the database is damaged.
pub fn get(snapshot: &SnapshotFile, key: &[u8], revision: Option<i64>) -> Result<Option<Value>, ReadError> {
    let mut found = None;
    each(snapshot, revision, |change| {
        if change.record.key == key {
            found = (!change.record.is_tombstone).then(|| Value::of(change, true));
        }
    })?;
    Ok(found)
}

/// Everything that the snapshot still knows of a key, the oldest first.
///
/// # Errors
/// If the database is damaged.
pub fn history(snapshot: &SnapshotFile, key: &[u8], revision: Option<i64>) -> Result<Vec<Event>, ReadError> {
    let mut events = Vec::new();
    each(snapshot, revision, |change| {
        if change.record.key == key {
            events.push(if change.record.is_tombstone {
                Event::Deleted(change.record.revision.main)
            } else {
                Event::Put(Value::of(change, true))
            });
        }
    })?;
    Ok(events)
}

/// How a key differs between two snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// Only the second has it.
    Added,
    /// Only the first has it.
    Removed,
    /// Both have it, with other values.
    Changed,
}

/// The keys whose values differ, in order.
#[must_use]
pub fn differences(first: &BTreeMap<Vec<u8>, Value>, second: &BTreeMap<Vec<u8>, Value>) -> Vec<(Vec<u8>, Difference)> {
    let mut found: Vec<(Vec<u8>, Difference)> = first
        .iter()
        .filter_map(|(key, value)| match second.get(key) {
            None => Some((key.clone(), Difference::Removed)),
            Some(other) if (other.length, other.crc) != (value.length, value.crc) => {
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

/// The members that a database knows.
///
/// # Errors
/// If the database is damaged.
pub fn members<I: Image + ?Sized>(database: &I) -> Result<Vec<Member>, ReadError> {
    let database = Database::open_newest(database)?;
    let mut members = Members(Vec::new());
    database.walk_bucket(b"members", &mut members)?;
    Ok(members.0)
}

struct Members(Vec<Member>);

impl Visitor for Members {
    fn bucket(&mut self, _: &[u8], _: u64) -> Result<(), Finding> {
        Ok(())
    }

    fn pair(&mut self, key: &[u8], value: &[u8], offset: u64) -> Result<Flow, Finding> {
        self.0.push(schema::member(key, value).map_err(|what| Finding::new(offset, what))?);
        Ok(ON)
    }
}

fn each(snapshot: &SnapshotFile, revision: Option<i64>, mut see: impl FnMut(&Change<'_>)) -> Result<(), ReadError> {
    let length = if snapshot.trailer.is_some() { Length::Exact } else { Length::AtLeast };
    let database = Database::open(&snapshot.database, snapshot.database_size, length)?;
    database.walk_bucket(b"key", &mut Changes { upto: revision.unwrap_or(i64::MAX), see: &mut see })
}

struct Changes<'s, S> {
    upto: i64,
    see: &'s mut S,
}

impl<S: FnMut(&Change<'_>)> Visitor for Changes<'_, S> {
    fn bucket(&mut self, _: &[u8], _: u64) -> Result<(), Finding> {
        Ok(())
    }

    fn pair(&mut self, key: &[u8], value: &[u8], offset: u64) -> Result<Flow, Finding> {
        let change = keyspace::change(key, value).map_err(|what| Finding::new(offset, what))?;
        // The record that only raises the revision is no key.
        if change.record.revision.main <= self.upto && (change.record.is_tombstone || !value.is_empty()) {
            (self.see)(&change);
        }
        Ok(ON)
    }
}
