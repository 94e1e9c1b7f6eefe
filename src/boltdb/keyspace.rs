//! What etcd keeps in its buckets, as far as snapshots need to know.
//!
//! The bucket `key` maps revisions to key-value records (etcd `server/storage/mvcc`, the same in 3.4 to 3.7): 8 bytes of main
//! revision, `_`, 8 bytes of sub-revision, all big-endian, and `t` for a deletion. The value is `mvccpb.KeyValue{1: key,
//! 2: create_revision, 3: mod_revision, 4: version, 5: value, 6: lease}`.

use super::protobuf;

/// A revision of the keyspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Revision {
    /// Of the transaction.
    pub main: i64,
    /// Of the change within it.
    pub sub: i64,
}

/// A record of the bucket `key`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// When.
    pub revision: Revision,
    /// A deletion.
    pub is_tombstone: bool,
    /// The user's key; empty for the record that only raises the revision after a restore.
    pub key: &'a [u8],
}

/// A key of the bucket `key`, or of the marks of compactions.
///
/// # Errors
/// What is wrong with it.
pub fn revision(bytes: &[u8]) -> Result<(Revision, bool), &'static str> {
    let is_tombstone = match bytes.len() {
        17 => false,
        18 if bytes[17] == b't' => true,
        _ => return Err("a revision has the wrong length"),
    };
    let long = |at: usize| bytes[at..at + 8].try_into().map_or(-1, i64::from_be_bytes);
    let revision = Revision { main: long(0), sub: long(9) };
    if bytes[8] != b'_' || revision.main < 0 || revision.sub < 0 {
        return Err("a revision is malformed");
    }
    Ok((revision, is_tombstone))
}

/// The key of the first change of a transaction.
#[must_use]
pub fn revision_key(main: i64) -> [u8; 17] {
    let mut key = [0; 17];
    key[..8].copy_from_slice(&main.to_be_bytes());
    key[8] = b'_';
    key
}

/// Reads a record.
///
/// # Errors
/// What is wrong with it.
pub fn record<'a>(bolt_key: &[u8], value: &'a [u8]) -> Result<Record<'a>, &'static str> {
    const KEY: u64 = 1;
    const MOD_REVISION: u64 = 3;
    let (revision, is_tombstone) = revision(bolt_key)?;
    let malformed = "a record is malformed";
    let key = protobuf::bytes(value, KEY).map_err(|_| malformed)?.unwrap_or_default();
    // A deletion has only its key, and the record that raises the revision has nothing.
    if !is_tombstone && !value.is_empty() {
        let written = protobuf::number(value, MOD_REVISION).map_err(|_| malformed)?.unwrap_or(0);
        if i64::try_from(written) != Ok(revision.main) {
            return Err("a record says that it is of another revision");
        }
    }
    Ok(Record { revision, is_tombstone, key })
}

/// All of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change<'a> {
    /// When, of what, and whether it is a deletion.
    pub record: Record<'a>,
    /// When the key was made.
    pub create_revision: i64,
    /// How often it was changed since.
    pub version: i64,
    /// The lease that it is bound to; 0 for none.
    pub lease: i64,
    /// What was written.
    pub value: &'a [u8],
}

/// Reads a record, all of it.
///
/// # Errors
/// What is wrong with it.
pub fn change<'a>(bolt_key: &[u8], value: &'a [u8]) -> Result<Change<'a>, &'static str> {
    let record = record(bolt_key, value)?;
    let malformed = |_| "a record is malformed";
    let number =
        |field| protobuf::number(value, field).map(|number| number.unwrap_or(0).cast_signed()).map_err(malformed);
    Ok(Change {
        record,
        create_revision: number(2)?,
        version: number(4)?,
        lease: number(6)?,
        value: protobuf::bytes(value, 5).map_err(malformed)?.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(main: i64, sub: i64, mark: &[u8]) -> Vec<u8> {
        [&main.to_be_bytes()[..], b"_", &sub.to_be_bytes(), mark].concat()
    }

    #[test]
    fn records_are_read_and_contradictions_found() {
        // mvccpb.KeyValue{key: "a", create_revision: 2, mod_revision: 5, version: 2, value: "x"}
        let value = [0x0a, 1, b'a', 0x10, 2, 0x18, 5, 0x20, 2, 0x2a, 1, b'x'];
        let read = record(&key(5, 0, b""), &value).unwrap();
        assert_eq!((read.key, read.revision, read.is_tombstone), (&b"a"[..], Revision { main: 5, sub: 0 }, false));
        assert!(record(&key(6, 0, b""), &value).unwrap_err().contains("another revision"));
        assert!(record(&key(5, 0, b"t"), &[0x0a, 1, b'b']).unwrap().is_tombstone);
        assert_eq!(record(&key(9, 0, b""), b"").unwrap().key, b"");
        for (bolt_key, value) in [
            (key(5, 0, b"x"), &value[..]),
            (key(-1, 0, b""), &value),
            (key(5, -1, b""), &value),
            (b"short".to_vec(), &value),
            (key(5, 0, b""), &value[..4]),
            (key(5, 0, b""), &[0xff; 12]),
        ] {
            assert!(record(&bolt_key, value).is_err());
        }
    }
}
