//! Inspects a database: its contents, and whether etcd can have written them.
//!
//! One walk over all pages checks everything, computes the hash that `etcdutl snapshot status` prints, and finds the
//! newest record of each key; another one, over the records up to the last compaction, computes HashKV, which can be
//! compared with a live member. Memory is bounded: that of a walk (see `boltdb::walk`), `Limits::USUAL`, a bit for
//! each record, and a bit for each page. More keys need more walks.
//!
//! Status hash (etcd `etcdutl/snapshot`, all versions): CRC-32C over each bucket's name and all its keys and values, in
//! order. HashKV (etcd `server/storage/mvcc/hash.go`): CRC-32C over `key` and each record of the bucket `key`, without
//! those that a compaction at the compact revision removes.

mod inspection;
pub(super) mod marks;
pub(super) mod newest;
mod records;

pub use self::inspection::Inspection;

use std::ops::ControlFlow;

use self::marks::Marks;
use self::newest::{Keys, Limits};
use self::records::Records;
use crate::boltdb::database::{Database, Length};
use crate::boltdb::page::{Corruption, ReadError};
use crate::boltdb::read_at::ReadAt;
use crate::boltdb::schema;
use crate::boltdb::walk::{CONTINUE, Flow, Visitor};
use crate::checksum::crc32c_append;

/// Of the bucket `key`, the bucket of records.
const KEY: &[u8] = b"key";
const MAX_MEMBERS: usize = 1000;
const MAX_ALARMS: usize = 16;
/// Maximum size of a lease, user, role or member, in bytes.
const MAX_VALUE_BYTES: usize = 1 << 20;

/// Receives the amount done, and the total; ends the work with `Break`.
pub type ProgressCallback<'a> = dyn FnMut(u64, u64) -> ControlFlow<()> + 'a;

/// Inspects a database of `length` bytes. `progress` receives the number of pages read and the total, of both walks
/// together.
pub fn inspect<I: ReadAt + ?Sized>(
    image: &I,
    length: u64,
    wanted: Length,
    progress: &mut ProgressCallback<'_>,
) -> Result<Inspection, ReadError> {
    inspect_within(image, length, wanted, Limits::USUAL, progress)
}

/// Like [`inspect`], with these limits.
pub(crate) fn inspect_within<I: ReadAt + ?Sized>(
    image: &I,
    length: u64,
    wanted: Length,
    limits: Limits,
    progress: &mut ProgressCallback<'_>,
) -> Result<Inspection, ReadError> {
    let database = Database::open(image, length, wanted)?;
    let buckets = database.top_level()?;
    if let Some(missing) = schema::BUCKETS.iter().find(|bucket| !buckets.contains_key(bucket.as_bytes())) {
        return Err(Corruption::new(0, format!("the bucket `{missing}` is missing, which every etcd creates")).into());
    }
    let marks = Marks::read(&database)?;
    let all_pages = database.meta().high_water_mark * 2;
    let keys = Keys::default();
    let mut notify = |pages| progress(pages, all_pages);
    let mut first = First::new(&marks, &keys, limits, &mut notify);
    let walked = database.walk(&mut first);
    let First { found, mut records, is_cancelled, .. } = first;
    if is_cancelled {
        return Err(ReadError::Cancelled);
    }
    let pages = walked?;
    records.resolve();
    marks.check(&found, records.last())?;
    let mut notify = |read| progress(pages.used_pages + read, all_pages);
    let counted = records.count(&database, &marks, &keys, &mut notify)?;
    Ok(Inspection {
        revision: counted.revision,
        compact_revision: marks.compact(),
        keys: counted.keys,
        hash_kv: counted.hash_kv,
        storage_version: marks.storage_version.clone(),
        consistent_index: marks.consistent_index,
        page_size: database.meta().page_size,
        pages,
        ..found
    })
}

/// Parses a key of the bucket `alarm`: `NOSPACE` or `CORRUPT`; `None` if it is malformed.
pub(crate) fn alarm_name(key: &[u8]) -> Option<String> {
    Some(match schema::alarm(key).ok()? {
        1 => "NOSPACE".into(),
        2 => "CORRUPT".into(),
        other => format!("alarm {other}"),
    })
}

/// The buckets that are looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bucket {
    Key,
    Lease,
    Alarm,
    Auth,
    Users,
    Roles,
    Cluster,
    Members,
    Removed,
    Other,
}

struct First<'p> {
    found: Inspection,
    marks: &'p Marks,
    keys: &'p Keys,
    records: Records,
    bucket: Bucket,
    progress: &'p mut dyn FnMut(u64) -> ControlFlow<()>,
    is_cancelled: bool,
}

impl<'p> First<'p> {
    fn new(
        marks: &'p Marks,
        keys: &'p Keys,
        limits: Limits,
        progress: &'p mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Self {
        let records = Records::new(limits);
        let (found, bucket) = (Inspection::default(), Bucket::Other);
        Self { found, marks, keys, records, bucket, progress, is_cancelled: false }
    }

    fn small(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        if self.bucket != Bucket::Other && value.len() > MAX_VALUE_BYTES {
            return Err("a small etcd record is too large");
        }
        let found = &mut self.found;
        match self.bucket {
            Bucket::Lease => {
                schema::lease(key, value)?;
                found.leases += 1;
            }
            Bucket::Alarm => {
                let name = alarm_name(key).ok_or("an alarm is malformed")?;
                if !found.alarms.contains(&name) {
                    found.alarms.push(name);
                }
                if found.alarms.len() > MAX_ALARMS {
                    return Err("too many alarm types");
                }
            }
            Bucket::Auth => found.auth_enabled |= schema::auth(key, value)?.unwrap_or(false),
            Bucket::Users => schema::user(key, value, self.marks.is_utf8())?,
            Bucket::Roles => schema::role(key, value)?,
            Bucket::Cluster if key == b"clusterVersion" => {
                schema::version(value)?;
                found.cluster_version = Some(String::from_utf8_lossy(value).into_owned());
            }
            Bucket::Cluster if key == b"downgrade" => schema::downgrade(value)?,
            Bucket::Members => {
                found.members.push(schema::member(key, value)?.id);
                if found.members.len() > MAX_MEMBERS {
                    return Err("too many members");
                }
            }
            Bucket::Removed => drop(schema::member_id(key)?),
            Bucket::Cluster | Bucket::Key | Bucket::Other => {}
        }
        Ok(())
    }
}

impl Visitor for First<'_> {
    fn bucket(&mut self, name: &[u8], _: u64) -> Result<(), Corruption> {
        self.found.status_hash = crc32c_append(self.found.status_hash, name);
        self.bucket = match name {
            KEY => Bucket::Key,
            b"lease" => Bucket::Lease,
            b"alarm" => Bucket::Alarm,
            b"auth" => Bucket::Auth,
            b"authUsers" => Bucket::Users,
            b"authRoles" => Bucket::Roles,
            b"cluster" => Bucket::Cluster,
            b"members" => Bucket::Members,
            b"members_removed" => Bucket::Removed,
            _ => Bucket::Other,
        };
        Ok(())
    }

    fn pair(&mut self, key: &[u8], value: &[u8], offset: u64) -> Result<Flow, Corruption> {
        if self.is_cancelled {
            return Ok(Flow::Break(()));
        }
        self.found.status_hash = crc32c_append(crc32c_append(self.found.status_hash, key), value);
        self.found.total_pairs += 1;
        if self.bucket == Bucket::Key {
            self.records.record([key, value], self.marks, self.keys, offset)?;
        } else {
            self.small(key, value).map_err(|what| Corruption::new(offset, what))?;
        }
        Ok(CONTINUE)
    }

    fn pages(&mut self, seen: u64) {
        self.is_cancelled |= (self.progress)(seen).is_break();
    }
}

#[cfg(test)]
mod tests;
