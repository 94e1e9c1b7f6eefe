//! etcd's raft snapshot (`member/snap/*.snap`): the members at the index after which a log begins.
//!
//! Format (etcd `server/etcdserver/api/snap`, the same in 3.4 to 3.7): `snappb.snapshot{1: crc, 2: data}` with the
//! CRC-32C of the data, which is `raftpb.Snapshot{1: data, 2: {1: ConfState{1: voters, 5: auto_leave}, 2: index, 3:
//! term}}`. Its data is the old key-value store (`server/etcdserver/api/v2store`) as JSON, reduced to the members, byte
//! for byte as etcdutl 3.5 writes it.

use std::fmt::Write as _;

use crate::boltdb::membership::{Member, Membership, go_json};
use crate::boltdb::protobuf::{self, Message};
use crate::checksum;

#[must_use]
pub fn file_name(membership: &Membership) -> String {
    format!("{:016x}-{:016x}.snap", TERM, membership.count())
}

/// The term in which the members are created.
pub const TERM: u64 = 1;

/// The bytes of the file, for a log whose first entries created these members.
#[must_use]
pub fn encode(membership: &Membership) -> Vec<u8> {
    let metadata =
        Message::default().bytes(1, &conf_state(membership)).number(2, membership.count()).number(3, TERM).encoded();
    let data = Message::default().bytes(1, store_json(membership).as_bytes()).bytes(2, &metadata).encoded();
    let crc = checksum::crc32c(&data);
    Message::default().number(1, crc.into()).bytes(2, &data).encoded()
}

/// `raftpb.ConfState`.
pub(super) fn conf_state(membership: &Membership) -> Vec<u8> {
    let voters = membership.ids().fold(Message::default(), |message, id| message.number(1, id));
    voters.number(5, 0).encoded()
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaftSnapshot {
    /// The index of the last entry that it includes.
    pub index: u64,
    pub term: u64,
    pub voters: Vec<u64>,
}

pub fn decode(bytes: &[u8]) -> Result<RaftSnapshot, &'static str> {
    let malformed = |_| "the raft snapshot is malformed";
    let crc = protobuf::number(bytes, 1).map_err(malformed)?;
    let data = protobuf::bytes(bytes, 2).map_err(malformed)?.ok_or("the raft snapshot is empty")?;
    if crc != Some(checksum::crc32c(data).into()) {
        return Err("the checksum of the raft snapshot is wrong");
    }
    let metadata = protobuf::bytes(data, 2).map_err(malformed)?.ok_or("the raft snapshot has no index")?;
    let conf_state = protobuf::bytes(metadata, 1).map_err(malformed)?.unwrap_or_default();
    let number = |field| protobuf::number(metadata, field).map(Option::unwrap_or_default).map_err(malformed);
    Ok(RaftSnapshot {
        index: number(2)?,
        term: number(3)?,
        voters: protobuf::numbers(conf_state, 1).map_err(malformed)?,
    })
}

const NEVER_EXPIRES: &str = r#""ExpireTime":"0001-01-01T00:00:00Z""#;

/// A directory of the old store; `children` are its entries as JSON.
fn directory(path: &str, index: u64, children: &str) -> String {
    format!(
        r#"{{"Path":"{path}","CreatedIndex":{index},"ModifiedIndex":{index},{NEVER_EXPIRES},"Value":"","Children":{{{children}}}}}"#
    )
}

fn store_json(membership: &Membership) -> String {
    // Each event of the store has the index of the entry that created the member.
    let indexed: Vec<(u64, &Member)> = (1..).zip(&membership.members).collect();
    let mut by_key = indexed.clone();
    by_key.sort_by_key(|(_, member)| member.key());
    let members: Vec<String> = by_key.iter().map(|(index, member)| member_json(*index, member)).collect();
    let first = directory("/0", 0, &format!("\"members\":{}", directory("/0/members", 1, &members.join(","))));
    let second = directory("/1", 0, "");
    let root = directory("/", 0, &format!("\"0\":{first},\"1\":{second}"));
    let count = membership.count();
    format!(
        "{{\"Root\":{root},\"WatcherHub\":{{\"EventHistory\":{}}},\"CurrentIndex\":{count},\"Stats\":{},\"CurrentVersion\":2}}",
        history(&indexed),
        statistics(count)
    )
}

fn value(member: &Member) -> String {
    go_json(&member.raft_attributes_json())
}

fn member_json(index: u64, member: &Member) -> String {
    let path = format!("/0/members/{}", member.key());
    let attributes = format!(
        r#""raftAttributes":{{"Path":"{path}/raftAttributes","CreatedIndex":{index},"ModifiedIndex":{index},{NEVER_EXPIRES},"Value":{},"Children":null}}"#,
        value(member)
    );
    format!("\"{}\":{}", member.key(), directory(&path, index, &attributes))
}

/// The ring of the last events.
fn history(members: &[(u64, &Member)]) -> String {
    const CAPACITY: usize = 1000;
    let skipped = members.len().saturating_sub(CAPACITY);
    let events = members.iter().skip(skipped).map(|(index, member)| {
        let key = format!("/0/members/{}/raftAttributes", member.key());
        format!(
            r#"{{"action":"create","node":{{"key":"{key}","value":{},"modifiedIndex":{index},"createdIndex":{index}}}}}"#,
            value(member)
        )
    });
    let empty = std::iter::repeat_n("null".to_owned(), CAPACITY.saturating_sub(members.len()));
    let events: Vec<String> = events.chain(empty).collect();
    let size = members.len().min(CAPACITY);
    let mut text = String::new();
    let _ = write!(
        text,
        r#"{{"Queue":{{"Events":[{}],"Size":{size},"Front":0,"Back":{},"Capacity":{CAPACITY}}},"StartIndex":{},"LastIndex":{}}}"#,
        events.join(","),
        size % CAPACITY,
        skipped + 1,
        members.len()
    );
    text
}

fn statistics(created: u64) -> String {
    let names = [
        "getsSuccess",
        "getsFail",
        "setsSuccess",
        "setsFail",
        "deleteSuccess",
        "deleteFail",
        "updateSuccess",
        "updateFail",
        "createSuccess",
        "createFail",
        "compareAndSwapSuccess",
        "compareAndSwapFail",
        "compareAndDeleteSuccess",
        "compareAndDeleteFail",
        "expireCount",
        "watchers",
    ];
    let fields = names.map(|name| format!("\"{name}\":{}", if name == "createSuccess" { created } else { 0 }));
    format!("{{{}}}", fields.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::digest;
    use proptest::prelude::*;

    fn hex_sha256(bytes: &[u8]) -> String {
        hex::encode(digest::digest(&digest::SHA256, bytes).as_ref())
    }

    /// Written by etcdutl 3.5.30 and etcdctl 3.4.23 for one member and for three.
    #[test]
    fn the_bytes_are_those_that_etcd_writes() {
        let one = Membership::new(&[("n1".into(), vec!["http://127.0.0.1:25380".into()])], "etcd-cluster").unwrap();
        assert_eq!(file_name(&one), "0000000000000001-0000000000000001.snap");
        let bytes = encode(&one);
        assert_eq!(bytes.len(), 6492);
        assert_eq!(hex_sha256(&bytes), "2304c26cc189150dc683f6c7dabb91ef5a7b77d9fd750d239ef26d52fcc85169");
        let three: Vec<_> = (1..=3).map(|n| (format!("m{n}"), vec![format!("http://127.0.0.1:2538{n}")])).collect();
        let three = Membership::new(&three, "tok").unwrap();
        let bytes = encode(&three);
        assert_eq!(hex_sha256(&bytes), "6a72042b743d137d0e9d4e7859899204b4150af9b0caa9a14502f11491d4f3fa");
        let expected = RaftSnapshot { index: 3, term: 1, voters: three.ids().collect() };
        assert_eq!(decode(&bytes), Ok(expected));
    }

    #[test]
    fn a_flipped_bit_is_found() {
        let one = Membership::new(&[("n1".into(), vec!["http://127.0.0.1:25380".into()])], "etcd-cluster").unwrap();
        let good = encode(&one);
        for at in (10..good.len()).step_by(97) {
            let mut bad = good.clone();
            bad[at] ^= 4;
            assert!(decode(&bad).is_err(), "{at}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }
    }
}
