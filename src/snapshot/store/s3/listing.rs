//! Lists the snapshots in a bucket with their manifests, later verifications, and holds.
//!
//! Two listings suffice: the snapshots, and `.metadata/`. Manifests never change, so they are read once and cached by
//! key and `ETag`, as is the index of verifications (`index`). A hold is a separate object, `.metadata/<name>.held`:
//! several servers can hold and release concurrently, and a lost index loses no hold.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::Value;
use tokio::task::JoinSet;

use crate::clock;
use crate::snapshot::list::{Listed, SnapshotStatus};
use crate::snapshot::manifest::{Manifest, Verification};
use crate::snapshot::store::s3::cache::Cache;
use crate::snapshot::store::s3::error::S3Error;
use crate::snapshot::store::s3::object::Uploaded;
use crate::snapshot::store::s3::{Bucket, JSON, METADATA, Object, index};

const HELD_SUFFIX: &str = ".held";
/// Maximum number of manifests read concurrently.
const CONCURRENT_READS: usize = 16;
/// Maximum total size of manifests, in bytes: thousands of them have less.
const MAX_BYTES: usize = 128 << 20;

/// A manifest in a bucket: the facts about the snapshot and, under `object`, about its object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemoteManifest {
    pub manifest: Manifest,
    pub object: Uploaded,
}

impl RemoteManifest {
    fn read(value: Value) -> Option<Self> {
        let object = serde_json::from_value(value.get("object").cloned().unwrap_or_default()).unwrap_or_default();
        Some(Self { manifest: serde_json::from_value(value).ok()?, object })
    }

    fn write(&self) -> Vec<u8> {
        let mut value = serde_json::to_value(&self.manifest).unwrap_or_default();
        if let Some(fields) = value.as_object_mut() {
            fields.insert("object".into(), serde_json::to_value(&self.object).unwrap_or_default());
        }
        serde_json::to_vec_pretty(&value).unwrap_or_default()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InBucket {
    pub listed: Listed,
    pub object: Object,
    /// CRC-64/NVME in base64, if the manifest has it and belongs to this object.
    pub crc64nvme: Option<String>,
}

/// All snapshots, the oldest first. `cache` is the cache file.
pub async fn list(bucket: &Bucket, cache: Option<&Path>) -> Result<Vec<InBucket>, S3Error> {
    let prefix = bucket.target().prefix();
    let metadata = format!("{prefix}{METADATA}");
    let (objects, metadata_objects) = tokio::try_join!(bucket.list(&prefix, true), bucket.list(&metadata, true))?;
    let mut cache = Cache::open(cache);
    let metadata_objects: HashMap<&str, &Object> =
        metadata_objects.iter().filter_map(|object| Some((object.key.strip_prefix(&metadata)?, object))).collect();
    let named: Vec<(&str, &Object)> = objects
        .iter()
        .filter_map(|object| Some((object.key.strip_prefix(&prefix)?, object)))
        .filter(|(name, _)| !name.is_empty() && !name.starts_with('.'))
        .collect();
    let manifest_object = |name: &str| metadata_objects.get(format!("{name}.json").as_str()).copied();
    let wanted =
        named.iter().filter_map(|(name, _)| manifest_object(name)).chain(metadata_objects.get(index::NAME).copied());
    let missing: Vec<Object> =
        wanted.filter(|object| cache.get(&object.key, &object.version()).is_none()).cloned().collect();
    let mut unread = HashSet::new();
    for (object, value) in read_all(bucket, missing).await? {
        match value {
            Some(value) => cache.put(object.key.clone(), object.version(), value),
            // It may be readable the next time.
            None => drop(unread.insert(object.key)),
        }
    }
    let known = |object: &Object| {
        let value = cache.get(&object.key, &object.version()).cloned();
        value.or_else(|| unread.contains(&object.key).then_some(Value::Null))
    };
    let mut index = cache.index().clone();
    let written = metadata_objects.get(index::NAME).and_then(|object| serde_json::from_value(known(object)?).ok());
    index.merge(written.unwrap_or_default());
    let names: HashSet<&str> = named.iter().map(|(name, _)| *name).collect();
    index.forget(|name| names.contains(name));
    let mut all: Vec<InBucket> = named
        .iter()
        .map(|(name, object)| {
            let manifest = manifest_object(name).and_then(known);
            let is_held = metadata_objects.contains_key(format!("{name}{HELD_SUFFIX}").as_str());
            one(name, object, manifest, index.of(name, &object.version()), is_held)
        })
        .collect();
    all.sort_by(|left, right| {
        (left.listed.created, &left.listed.name).cmp(&(right.listed.created, &right.listed.name))
    });
    cache.remember(index);
    cache.forget(&metadata_objects.values().map(|object| object.key.as_str()).collect::<HashSet<_>>());
    cache.save();
    Ok(all)
}

fn one(name: &str, object: &Object, manifest: Option<Value>, found: Option<&Verification>, is_held: bool) -> InBucket {
    let is_there = manifest.is_some();
    let read: Option<RemoteManifest> = manifest.and_then(RemoteManifest::read);
    let is_unreadable = is_there && read.is_none();
    let is_same = read.as_ref().is_some_and(|read| {
        (object.etag.is_empty() || read.object.etag == object.etag) && read.manifest.size == object.size
    });
    let status = match (&found, &read) {
        _ if is_unreadable => SnapshotStatus::Unreadable,
        (Some(found), _) if found.status == "good" => SnapshotStatus::Good,
        (Some(_), _) => SnapshotStatus::Corrupt,
        (None, Some(_)) if is_same => SnapshotStatus::Good,
        (None, Some(_)) => SnapshotStatus::Changed,
        (None, None) => SnapshotStatus::Unverified,
    };
    let crc64nvme = read
        .as_ref()
        .filter(|read| is_same && !read.object.crc64nvme.is_empty())
        .map(|read| read.object.crc64nvme.clone());
    let manifest = read.map(|read| {
        let verification = found.cloned().or(read.manifest.verification);
        Manifest { held: is_held, verification, ..read.manifest }
    });
    // A hold does not require a manifest.
    let manifest = manifest.or_else(|| {
        is_held.then(|| Manifest {
            name: name.to_owned(),
            size: object.size,
            held: true,
            created: clock::rfc3339(UNIX_EPOCH + Duration::from_secs(object.modified)),
            ..Manifest::default()
        })
    });
    let written =
        manifest.as_ref().and_then(|manifest| clock::parse_rfc3339(&manifest.created)).map(clock::unix_seconds);
    let created = written.or_else(|| crate::plan::snapshot_name::taken_at(name)).unwrap_or(object.modified);
    InBucket {
        listed: Listed { name: name.to_owned(), size: object.size, created, status, manifest },
        object: object.clone(),
        crc64nvme,
    }
}

/// Reads small objects concurrently. Objects deleted meanwhile are left out, invalid JSON becomes null, and unreadable
/// ones have no value.
async fn read_all(bucket: &Bucket, mut wanted: Vec<Object>) -> Result<Vec<(Object, Option<Value>)>, S3Error> {
    let mut read = Vec::with_capacity(wanted.len());
    let mut under_way = JoinSet::new();
    let mut by_task = HashMap::new();
    let mut collected = 0;
    loop {
        while under_way.len() < CONCURRENT_READS
            && let Some(object) = wanted.pop()
        {
            if collected > MAX_BYTES {
                // It exists, but is not readable: never delete the snapshot for that.
                read.push((object, None));
                continue;
            }
            let (bucket, key) = (bucket.clone(), object.key.clone());
            let task = under_way.spawn(async move {
                match bucket.read(&key).await {
                    // A failure of one manifest does not affect the others.
                    Err(error) if error.is_of_one_object() => Ok(Some(None)),
                    read => read.map(|bytes| bytes.map(Some)),
                }
            });
            by_task.insert(task.id(), object);
        }
        let Some(done) = under_way.join_next_with_id().await else { return Ok(read) };
        let (id, done) = match done {
            Ok((id, done)) => (id, done?),
            // A panicked task counts as an unreadable object.
            Err(lost) => (lost.id(), Some(None)),
        };
        let (Some(object), Some(bytes)) = (by_task.remove(&id), done) else { continue };
        collected += bytes.as_ref().map_or(0, Vec::len);
        read.push((object, bytes.map(|bytes: Vec<u8>| serde_json::from_slice(&bytes).unwrap_or(Value::Null))));
    }
}

/// Writes the manifest after an upload.
pub async fn write_manifest(bucket: &Bucket, manifest: &Manifest, uploaded: &Uploaded) -> Result<(), S3Error> {
    let key = bucket.manifest_key(&manifest.name);
    let manifest = Manifest { held: false, ..manifest.clone() };
    let bytes = RemoteManifest { manifest, object: uploaded.clone() }.write();
    bucket.write(&key, bytes, JSON).await.map(|_| ())
}

/// The manifest of one snapshot, without a listing.
pub async fn read_manifest(bucket: &Bucket, name: &str) -> Result<Option<RemoteManifest>, S3Error> {
    let bytes = match bucket.read(&bucket.manifest_key(name)).await {
        Err(error) if error.is_of_one_object() => None,
        read => read?,
    };
    Ok(bytes.and_then(|bytes| RemoteManifest::read(serde_json::from_slice(&bytes).ok()?)))
}

fn hold_key(bucket: &Bucket, name: &str) -> String {
    format!("{}{METADATA}{name}{HELD_SUFFIX}", bucket.target().prefix())
}

/// Holds a snapshot, or releases it.
pub async fn hold(bucket: &Bucket, name: &str, held: bool) -> Result<(), S3Error> {
    let key = hold_key(bucket, name);
    if held {
        let word = serde_json::json!({ "held_at": clock::rfc3339(clock::now()) });
        return bucket.write(&key, word.to_string().into_bytes(), JSON).await.map(|_| ());
    }
    match bucket.delete(&[key]).await?.pop() {
        Some((_, error)) => Err(error),
        None => Ok(()),
    }
}
