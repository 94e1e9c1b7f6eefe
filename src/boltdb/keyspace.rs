//! The bucket `key`: one record for each change of a key.
//!
//! It maps revisions to key-value records (etcd `server/storage/mvcc`, the same in 3.4 to 3.7): 8 bytes of main
//! revision, `_`, 8 bytes of sub-revision, all big-endian, and `t` for a deletion. The value is `mvccpb.KeyValue{1:
//! key, 2: create_revision, 3: mod_revision, 4: version, 5: value, 6: lease}`; of a deletion only the key
//! (`kvstore_txn.go`, `delete`). A restore that bumps the revision leaves a record without any value
//! (`etcdutl/snapshot/v3_snapshot.go`, `unsafeBumpRevision`).
//!
//! etcd parses every record when it starts, and exits if it cannot (`kvstore.go`, `restoreChunk`); it panics if a key
//! is changed twice at one revision (`key_index.go`, `put`), and ignores records before revision 1 (`restore`).

use crate::boltdb::protobuf::{Fields, Malformed};

/// Far above the revision of any real etcd, with room for more.
pub const MAX_REVISION: i64 = i64::MAX / 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Revision {
    pub main: i64,
    pub sub: i64,
}

/// What a record of the bucket `key` describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    pub revision: Revision,
    pub is_tombstone: bool,
    /// The user's key; empty for the record that only bumps the revision after a restore.
    pub key: &'a [u8],
}

impl Record<'_> {
    #[must_use]
    pub const fn is_revision_bump(&self) -> bool {
        self.key.is_empty()
    }

    #[must_use]
    pub const fn is_put(&self) -> bool {
        !self.is_tombstone && !self.is_revision_bump()
    }
}

/// A key of the bucket `key`.
pub fn revision(bytes: &[u8]) -> Result<(Revision, bool), &'static str> {
    let is_tombstone = match bytes.len() {
        17 => false,
        18 if bytes[17] == b't' => true,
        _ => return Err("a revision has the wrong length"),
    };
    let long = |at: usize| bytes[at..at + 8].try_into().map_or(-1, i64::from_be_bytes);
    let revision = Revision { main: long(0), sub: long(9) };
    if bytes[8] != b'_' || revision.sub < 0 || !(0..=MAX_REVISION).contains(&revision.main) {
        return Err("a revision is malformed");
    }
    Ok((revision, is_tombstone))
}

/// Parses the value of a compaction key: the revision up to which history is, or is being, compacted.
pub fn compaction(bytes: &[u8]) -> Result<i64, &'static str> {
    match revision(bytes)? {
        (Revision { main, sub: 0 }, false) => Ok(main),
        _ => Err("the compact revision is malformed"),
    }
}

/// The key of the first change of a transaction.
#[must_use]
pub fn revision_key(main: i64) -> [u8; 17] {
    let mut key = [0; 17];
    key[..8].copy_from_slice(&main.to_be_bytes());
    key[8] = b'_';
    key
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct KeyValue<'a> {
    key: &'a [u8],
    create_revision: i64,
    mod_revision: i64,
    version: i64,
    value: &'a [u8],
    lease: i64,
}

impl<'a> KeyValue<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut read = Self::default();
        for field in Fields::of(bytes) {
            let (number, value) = field?;
            match number {
                1 => read.key = value.bytes()?,
                2 => read.create_revision = value.number()?.cast_signed(),
                3 => read.mod_revision = value.number()?.cast_signed(),
                4 => read.version = value.number()?.cast_signed(),
                5 => read.value = value.bytes()?,
                6 => read.lease = value.number()?.cast_signed(),
                _ => {}
            }
        }
        Ok(read)
    }
}

pub fn record<'a>(bolt_key: &[u8], value: &'a [u8]) -> Result<Record<'a>, &'static str> {
    change(bolt_key, value).map(|change| change.record)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change<'a> {
    /// Revision, key, and whether it is a deletion.
    pub record: Record<'a>,
    pub create_revision: i64,
    /// Number of changes since it was created.
    pub version: i64,
    /// The attached lease; 0 for none.
    pub lease: i64,
    pub value: &'a [u8],
}

/// Like [`record`], with value and metadata.
pub fn change<'a>(bolt_key: &[u8], value: &'a [u8]) -> Result<Change<'a>, &'static str> {
    let (revision, is_tombstone) = revision(bolt_key)?;
    let read = KeyValue::parse(value).map_err(|Malformed| "a record is malformed")?;
    if revision.main < 1 {
        return Err("a record has a revision before the first");
    }
    if read.key.is_empty() && (is_tombstone || !value.is_empty() || revision.sub != 0) {
        return Err("a record has no key");
    }
    if is_tombstone {
        if read != (KeyValue { key: read.key, ..KeyValue::default() }) {
            return Err("a deletion has more than its key");
        }
    } else if !value.is_empty() {
        if read.mod_revision != revision.main {
            return Err("a record has another revision than its key");
        }
        if read.version < 1 || !(1..=read.mod_revision).contains(&read.create_revision) {
            return Err("a record has an impossible create_revision or version");
        }
    }
    Ok(Change {
        record: Record { revision, is_tombstone, key: read.key },
        create_revision: read.create_revision,
        version: read.version,
        lease: read.lease,
        value: read.value,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(main: i64, sub: i64, mark: &[u8]) -> Vec<u8> {
        [&main.to_be_bytes()[..], b"_", &sub.to_be_bytes(), mark].concat()
    }

    /// `mvccpb.KeyValue{key: "a", create_revision: 2, mod_revision: 5, version: 2, value: "x", lease: 9}`
    const VALUE: [u8; 14] = [0x0a, 1, b'a', 0x10, 2, 0x18, 5, 0x20, 2, 0x2a, 1, b'x', 0x30, 9];

    #[test]
    fn records_are_read() {
        let read = change(&key(5, 0, b""), &VALUE).unwrap();
        assert_eq!((read.record.key, read.record.revision), (&b"a"[..], Revision { main: 5, sub: 0 }));
        assert_eq!((read.create_revision, read.version, read.lease, read.value), (2, 2, 9, &b"x"[..]));
        assert!(read.record.is_put());
        assert!(record(&key(5, 0, b"t"), &[0x0a, 1, b'b']).unwrap().is_tombstone);
        assert!(record(&key(9, 0, b""), b"").unwrap().is_revision_bump());
        // Unknown fields of a later etcd are ignored.
        for unknown in [&[0x38, 1][..], &[0x3a, 2, 1, 2], &[0x3d, 1, 2, 3, 4], &[0x39, 1, 2, 3, 4, 5, 6, 7, 8]] {
            assert_eq!(change(&key(5, 0, b""), &[&VALUE, unknown].concat()), Ok(read));
        }
    }

    /// Each makes etcd exit, or serve something else than was written.
    #[test]
    fn what_etcd_does_not_start_from_is_refused() {
        let with = |at: usize, byte: u8| {
            let mut value = VALUE.to_vec();
            value[at] = byte;
            value
        };
        let cut = |length: usize| VALUE[..length].to_vec();
        for (bolt_key, value, what) in [
            (key(5, 0, b"x"), VALUE.to_vec(), "an unknown mark"),
            (key(-1, 0, b""), VALUE.to_vec(), "a negative revision"),
            (key(5, -1, b""), VALUE.to_vec(), "a negative sub-revision"),
            (key(i64::MAX, 0, b""), Vec::new(), "a revision with none above it"),
            (b"short".to_vec(), VALUE.to_vec(), "no revision"),
            (key(5, 0, b""), with(0, 0x08), "the key is a number"),
            (key(5, 0, b""), with(1, 0x7f), "the key extends beyond the end"),
            (key(5, 0, b""), with(3, 0x12), "create_revision is bytes"),
            (key(5, 0, b""), with(5, 0x1d), "mod_revision is 4 bytes"),
            (key(5, 0, b""), with(7, 0x21), "version is 8 bytes: one flipped bit"),
            (key(5, 0, b""), with(9, 0x28), "value is a number"),
            (key(5, 0, b""), with(12, 0x32), "lease is bytes"),
            (key(5, 0, b""), with(12, 0x00), "field number 0"),
            (key(5, 0, b""), with(12, 0x33), "a group"),
            (key(5, 0, b""), cut(13), "a number is missing"),
            (key(5, 0, b""), cut(11), "a value is missing"),
            (key(5, 0, b""), [0xff; 12].to_vec(), "a tag without end"),
            (key(6, 0, b""), VALUE.to_vec(), "of another revision"),
            (key(5, 0, b""), with(4, 6), "created after it was changed"),
            (key(5, 0, b""), with(4, 0), "never made"),
            (key(5, 0, b""), with(8, 0), "never changed"),
            (key(5, 0, b""), [&[0x0a, 0], &VALUE[3..]].concat(), "an empty key"),
            (key(5, 0, b""), VALUE[3..].to_vec(), "no key"),
            (key(5, 1, b""), Vec::new(), "a bumped revision within a transaction"),
            (key(5, 0, b"t"), Vec::new(), "a deletion of nothing"),
            (key(5, 0, b"t"), VALUE.to_vec(), "a deletion that writes"),
            (key(0, 0, b"t"), VALUE[..3].to_vec(), "before the first revision"),
        ] {
            assert!(record(&bolt_key, &value).is_err(), "{what}");
        }
    }

    #[test]
    fn the_mark_of_a_compaction_is_a_main_revision() {
        assert_eq!(compaction(&revision_key(7)), Ok(7));
        for wrong in [key(7, 1, b""), key(7, 0, b"t"), key(-7, 0, b""), b"7".to_vec(), Vec::new()] {
            assert!(compaction(&wrong).is_err());
        }
    }
}
