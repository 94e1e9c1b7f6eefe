//! What etcd stores in addition to keys: leases, alarms, users and roles, members, and metadata.
//!
//! etcd creates all ten buckets when it starts (`server/storage/schema/bucket.go` and, up to 3.5,
//! `server/mvcc/buckets`), and reads:
//! - every value of `lease` as `leasepb.Lease`, with a panic if that fails, and every key as 8 bytes (`lease/lessor.go`,
//!   `initAndRecover`; `schema/lease.go`);
//! - every key of `alarm` as `etcdserverpb.AlarmMember` (`api/v3alarm/alarms.go`, `restore`);
//! - every value of `authUsers`, and each role that they name, as `authpb.User` and `authpb.Role`, with a panic, also while auth is off
//!   (`auth/range_perm_cache.go`, `refreshRangePermCache`); `authRevision` as 8 bytes or more;
//! - every key of `members` and `members_removed` as a number in hexadecimal, and every value of `members` as JSON, with a panic, also in
//!   `etcdutl snapshot restore` (`schema/membership.go`, `TrimMembershipFromBackend`);
//! - `clusterVersion` as a version, with a panic, and `downgrade` and `confState` as JSON; `consistent_index` and `term` as 8 bytes or more.

use serde::Deserialize;

use crate::boltdb::protobuf::{Fields, Malformed};

/// The buckets that every database of etcd 3.4 to 3.7 has.
pub const BUCKETS: [&str; 10] =
    ["alarm", "auth", "authRoles", "authUsers", "cluster", "key", "lease", "members", "members_removed", "meta"];

/// Maximum time to live of a lease, in seconds (etcd `lease/lessor.go`, `MaxLeaseTTL`).
const MAX_LEASE_TTL: i64 = 9_000_000_000;

type Checked<T = ()> = Result<T, &'static str>;

/// Checks `leasepb.Lease{1: ID, 2: TTL, 3: RemainingTTL}`, whose key is its id, big-endian.
pub fn lease(key: &[u8], value: &[u8]) -> Checked {
    let read = || {
        let (mut id, mut ttl, mut remaining) = (0, 0, 0);
        for field in Fields::of(value) {
            let (number, value) = field?;
            match number {
                1 => id = value.number()?,
                2 => ttl = value.number()?.cast_signed(),
                3 => remaining = value.number()?.cast_signed(),
                _ => {}
            }
        }
        Ok((id, ttl, remaining))
    };
    let (id, ttl, remaining) = read().map_err(|Malformed| "a lease is malformed")?;
    if key != id.to_be_bytes() {
        return Err("a lease has another ID than its key");
    }
    if !(1..=MAX_LEASE_TTL).contains(&ttl) || remaining < 0 {
        return Err("a lease has an impossible time to live");
    }
    Ok(())
}

/// The kind of an alarm (`etcdserverpb.AlarmMember{1: memberID, 2: alarm}`): 1 for `NOSPACE`, 2 for `CORRUPT`.
pub fn alarm(key: &[u8]) -> Checked<u64> {
    let read = || {
        let mut kind = 0;
        for field in Fields::of(key) {
            match field? {
                (1, member) => drop(member.number()?),
                (2, alarm) => kind = alarm.number()?,
                _ => {}
            }
        }
        Ok(kind)
    };
    read().map_err(|Malformed| "an alarm is malformed")
}

/// Checks `authpb.User{1: name, 2: password, 3: roles, 4: options{1: no_password}}`, whose key is its name. From 3.7 on
/// (`is_utf8`) the names of roles must be UTF-8, as google.golang.org/protobuf requires of strings.
pub fn user(key: &[u8], value: &[u8], is_utf8: bool) -> Checked {
    let read = || {
        let mut name = &[][..];
        for field in Fields::of(value) {
            match field? {
                (1, value) => name = value.bytes()?,
                (2, value) => drop(value.bytes()?),
                (3, value) => {
                    let role = value.bytes()?;
                    if is_utf8 && std::str::from_utf8(role).is_err() {
                        return Err(Malformed);
                    }
                }
                (4, value) => {
                    for option in Fields::of(value.bytes()?) {
                        if let (1, value) = option? {
                            value.number()?;
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(name)
    };
    match read() {
        Err(Malformed) => Err("a user is malformed"),
        Ok(name) if name != key => Err("a user has another name than its key"),
        Ok(_) => Ok(()),
    }
}

/// Checks `authpb.Role{1: name, 2: keyPermission{1: permType, 2: key, 3: range_end}}`, whose key is its name.
pub fn role(key: &[u8], value: &[u8]) -> Checked {
    let read = || {
        let mut name = &[][..];
        for field in Fields::of(value) {
            match field? {
                (1, value) => name = value.bytes()?,
                (2, value) => {
                    for part in Fields::of(value.bytes()?) {
                        match part? {
                            (1, kind) => drop(kind.number()?),
                            (2 | 3, key) => drop(key.bytes()?),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(name)
    };
    match read() {
        Err(Malformed) => Err("a role is malformed"),
        Ok(name) if name != key => Err("a role has another name than its key"),
        Ok(_) => Ok(()),
    }
}

/// Checks a pair of the bucket `auth`. Returns whether auth is on if this is the pair that says so.
pub fn auth(key: &[u8], value: &[u8]) -> Checked<Option<bool>> {
    match (key, value) {
        (b"authEnabled", [0]) => Ok(Some(false)),
        (b"authEnabled", [1]) => Ok(Some(true)),
        (b"authEnabled", _) => Err("authEnabled is malformed"),
        (b"authRevision", _) => number(value).map(|_| None).map_err(|_| "authRevision has the wrong length"),
        _ => Ok(None),
    }
}

/// A number as `meta` and `auth` have it: 8 bytes, big-endian.
pub fn number(value: &[u8]) -> Checked<u64> {
    value.try_into().map(u64::from_be_bytes).map_err(|_| "a number has the wrong length")
}

/// A member as stored in the database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct StoredMember {
    #[serde(default)]
    pub id: u64,
    /// Its name; empty before it has ever started.
    #[serde(default)]
    pub name: String,
    #[serde(default, rename = "peerURLs", deserialize_with = "null_is_empty")]
    pub peer_urls: Vec<String>,
    #[serde(default, rename = "clientURLs", deserialize_with = "null_is_empty")]
    pub client_urls: Vec<String>,
    #[serde(default, rename = "isLearner")]
    pub is_learner: bool,
}

/// Go writes an empty list as `null`.
fn null_is_empty<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// Parses a key of `members` or `members_removed`: a member ID in hexadecimal as Go writes it.
pub fn member_id(key: &[u8]) -> Checked<u64> {
    let id = std::str::from_utf8(key).ok().and_then(|text| u64::from_str_radix(text, 16).ok());
    id.filter(|id| format!("{id:x}").as_bytes() == key).ok_or("the id of a member is malformed")
}

/// Reads a pair of the bucket `members`.
pub fn member(key: &[u8], value: &[u8]) -> Checked<StoredMember> {
    let member: StoredMember = serde_json::from_slice(value).map_err(|_| "a member is malformed")?;
    if member_id(key)? == member.id { Ok(member) } else { Err("a member has another ID than its key") }
}

/// Checks `confState` of `meta`: a `raftpb.ConfState` as JSON.
pub fn conf_state(value: &[u8]) -> Checked {
    #[derive(Deserialize)]
    #[allow(dead_code, reason = "parsed only as a check")]
    struct ConfState {
        voters: Option<Vec<u64>>,
        learners: Option<Vec<u64>>,
        voters_outgoing: Option<Vec<u64>>,
        learners_next: Option<Vec<u64>>,
        auto_leave: Option<bool>,
    }
    serde_json::from_slice::<ConfState>(value).map(|_| ()).map_err(|_| "confState is malformed")
}

/// Parses the minor version of a cluster, a storage or a downgrade: `3.6.0`, always with a patch version of 0 (etcd
/// `version.Cluster`); with another patch version etcd considers itself too old and panics (`version/downgrade.go`,
/// `MustDetectDowngrade`).
///
/// # Errors
/// If it is malformed, or newer than 3.7, whose format is unknown.
pub fn version(value: &[u8]) -> Checked<u32> {
    let text = std::str::from_utf8(value).map_err(|_| "a version is malformed")?;
    let mut parts = text.split('.').map(|part| part.parse::<u32>().ok().filter(|number| number.to_string() == part));
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(Some(3)), Some(Some(minor)), Some(Some(0)), None) if minor <= 7 => Ok(minor),
        (Some(Some(_)), Some(Some(_)), Some(Some(_)), None) => Err("it is a version that no etcd up to 3.7 writes"),
        _ => Err("a version is malformed"),
    }
}

/// Checks `downgrade` of `cluster`.
pub fn downgrade(value: &[u8]) -> Checked {
    #[derive(Deserialize)]
    struct Downgrade {
        #[serde(default, rename = "target-version")]
        target: String,
        #[serde(default)]
        enabled: bool,
    }
    let read: Downgrade = serde_json::from_slice(value).map_err(|_| "the state of a downgrade is malformed")?;
    if read.enabled { version(read.target.as_bytes()).map(|_| ()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Real values, and each with one changed byte: the latter make etcd exit, or silently mean something else.
    #[test]
    fn what_etcd_cannot_read_is_refused() {
        let id = [0x69, 0x5a, 0x3b, 0, 0, 0, 0, 7];
        let good = [0x08, 0x87, 0x80, 0x80, 0x80, 0x80, 0xe0, 0x8e, 0xad, 0x69, 0x10, 0x90, 0x1c];
        lease(&id, &good).unwrap();
        let changed = |bytes: &[u8], at: usize, to: u8| {
            let mut bytes = bytes.to_vec();
            bytes[at] = to;
            bytes
        };
        for (key, value) in [
            (&id[..], changed(&good, 0, 0x09)),
            (&id, changed(&good, 10, 0x12)),
            (&id, changed(&good, 1, 0x86)),
            (&id, changed(&good, 12, 0x80)),
            (&id, good[..9].to_vec()),
            (&id, Vec::new()),
            (&id[..7], good.to_vec()),
            (b"", good.to_vec()),
        ] {
            assert!(lease(key, &value).is_err(), "{value:x?}");
        }
        let who = [&[0x0a, 4][..], b"root", &[0x12, 2], b"pw", &[0x1a, 4], b"role", &[0x22, 2, 0x08, 1]].concat();
        user(b"root", &who, true).unwrap();
        for (key, value) in [
            (&b"root"[..], changed(&who, 0, 0x08)),
            (b"root", changed(&who, 1, 40)),
            (b"root", changed(&who, 6, 0x10)),
            (b"root", changed(&who, 10, 0x18)),
            (b"root", changed(&who, 12, 0xff)),
            (b"root", changed(&who, 16, 0x20)),
            (b"root", changed(&who, 18, 0x0a)),
            (b"root", changed(&who, 18, 0x00)),
            (b"rood", who.clone()),
        ] {
            assert!(user(key, &value, true).is_err(), "{value:x?}");
        }
        assert!(user(b"root", &changed(&who, 12, 0xff), false).is_ok(), "3.4 to 3.6 take it");
        let of_keys = [&[0x0a, 1, b'r', 0x12, 8, 0x08, 2, 0x12, 1, b'a', 0x1a, 1, b'b'][..]].concat();
        role(b"r", &of_keys).unwrap();
        for (at, to) in [(0, 0x08), (1, 9), (2, b's'), (3, 0x10), (4, 9), (5, 0x0a), (7, 0x10), (10, 0x18)] {
            assert!(role(b"r", &changed(&of_keys, at, to)).is_err(), "{at}");
        }
        assert_eq!(alarm(&[0x08, 7, 0x10, 1]), Ok(1));
        for (at, to) in [(0, 0x0a), (0, 0), (1, 0x87), (2, 0x12), (3, 0x80)] {
            assert!(alarm(&changed(&[0x08, 7, 0x10, 1], at, to)).is_err(), "{at}");
        }
    }

    #[test]
    fn marks_and_members_are_as_etcd_writes_them() {
        assert_eq!(auth(b"authEnabled", &[1]), Ok(Some(true)));
        assert!(auth(b"authEnabled", &[3]).is_err(), "etcd reads it as off");
        assert!(auth(b"authEnabled", &[]).is_err());
        assert_eq!(auth(b"authRevision", &[0; 8]), Ok(None));
        assert!(auth(b"authRevision", &[0; 7]).is_err());
        assert_eq!(member_id(b"8e9e05c52164694d"), Ok(0x8e9e_05c5_2164_694d));
        for wrong in [&b""[..], b"0e", b"8E", b"+8", b"x", b"8e9e05c52164694d0", &[0xff]] {
            assert!(member_id(wrong).is_err(), "{wrong:?}");
        }
        let json = br#"{"id":18,"peerURLs":null,"name":"n","clientURLs":["http://h:1"]}"#;
        assert_eq!(member(b"12", json).unwrap().name, "n");
        assert!(member(b"13", json).is_err());
        assert!(member(b"12", br#"{"id":18,"peerURLs":"x"}"#).is_err());
        conf_state(br#"{"voters":[1,18446744073709551615],"auto_leave":false}"#).unwrap();
        assert!(conf_state(br#"{"voters":[-1]}"#).is_err());
        assert!(conf_state(b"").is_err());
        assert_eq!(version(b"3.5.0"), Ok(5));
        for wrong in ["3.5", "3.5.0.0", "3.05.0", "3.8.0", "4.0.0", "3.5.x", "3.5.1", "", "3.5.-1", "3.5.0 "] {
            assert!(version(wrong.as_bytes()).is_err(), "{wrong}");
        }
        downgrade(br#"{"target-version":"","enabled":false}"#).unwrap();
        downgrade(br#"{"target-version":"3.5.0","enabled":true}"#).unwrap();
        assert!(downgrade(br#"{"target-version":"x","enabled":true}"#).is_err());
        assert!(downgrade(b"{").is_err());
    }
}
