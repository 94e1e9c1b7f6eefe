//! The cluster record: what a server remembers of its cluster in `S/cluster.json`, outside `db`, so that a lost `db` is noticed.
//!
//! Plain data. Version 2 of the file lists the servers; version 1, which had only their number, is read and becomes version 2 at the next
//! write. A file of a newer version is refused, and never overwritten. Fields that a newer quorate added to version 2 are kept.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::durable::{self, PRIVATE_FILE, WriteError};
use crate::host;
use crate::version::Version;

/// The version of the file that is written.
pub const VERSION: u32 = 2;
/// Earlier identities that are remembered; the oldest are forgotten first.
const MAX_LINEAGE: usize = 64;
/// More members than any etcd cluster has: a number above it in a version 1 file is not believed.
const MAX_SERVERS: usize = 1000;
/// How old the time at which a server was seen may become before the file is written for it alone, in seconds.
const SEEN_INTERVAL: u64 = 24 * 3600;

/// The identity of a data directory, from one reset, restore or new cluster to the next. Hexadecimal.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MemberIdentity {
    pub cluster_id: String,
    pub member_id: String,
}

impl MemberIdentity {
    /// True if neither id is empty.
    #[must_use]
    pub fn is_known(&self) -> bool {
        !self.cluster_id.is_empty() && !self.member_id.is_empty()
    }
}

/// A server of the cluster, this one included.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerRecord {
    /// etcd's member name; empty if the server is only known to exist.
    #[serde(default)]
    pub name: String,
    /// etcd's member id, hexadecimal; empty if not known yet.
    #[serde(default)]
    pub member_id: String,
    /// Where its launcher serves the control API to other servers.
    #[serde(default)]
    pub control_url: Option<String>,
    /// Its peer URLs, as etcd lists them.
    #[serde(default)]
    pub peer_urls: Vec<String>,
    /// When etcd listed it last, in seconds since 1970. Refreshed once a day.
    #[serde(default)]
    pub seen: Option<u64>,
    /// Fields that a newer quorate wrote.
    #[serde(flatten)]
    pub other: BTreeMap<String, serde_json::Value>,
}

/// What a server remembers of its cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RecordFile", into = "RecordFile")]
pub struct ClusterRecord {
    /// etcd's cluster ID, hexadecimal; empty while the cluster is only intended.
    pub cluster_id: String,
    /// Incremented by every reset, restore and `--new-cluster`.
    pub epoch: u64,
    pub member_id: String,
    pub member_name: String,
    /// All servers when the cluster was last seen, learners included.
    pub servers: Vec<ServerRecord>,
    pub etcd_version: Option<Version>,
    /// The operation over several servers that this one took part in last.
    pub operation: Option<String>,
    /// The earlier identities of this data directory, the oldest first.
    pub lineage: Vec<MemberIdentity>,
    /// There were identities before those in `lineage` that were not recorded.
    pub lineage_is_partial: bool,
    /// Fields that a newer quorate wrote.
    pub other: BTreeMap<String, serde_json::Value>,
}

/// Why a record is not used.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error(transparent)]
    Read(#[from] io::Error),
    /// It is not JSON, or lacks a field.
    #[error(transparent)]
    Malformed(#[from] serde_json::Error),
    #[error("it has version {found}, and this quorate reads up to version {VERSION}")]
    NewerVersion { found: u32 },
}

/// The fields of the file, in version 1 and 2.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct RecordFile {
    #[serde(default = "first_version")]
    version: u32,
    cluster_id: String,
    epoch: u64,
    member_id: String,
    member_name: String,
    #[serde(default)]
    servers: Vec<ServerRecord>,
    /// Version 1: the number of members.
    #[serde(default, skip_serializing)]
    members: Option<usize>,
    /// Version 1: always empty.
    #[serde(default, skip_serializing)]
    control_urls: Vec<String>,
    etcd_version: Option<Version>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    operation: Option<String>,
    #[serde(default)]
    lineage: Vec<MemberIdentity>,
    #[serde(default)]
    lineage_is_partial: bool,
    #[serde(flatten)]
    other: BTreeMap<String, serde_json::Value>,
}

/// The file of the first version had no number.
const fn first_version() -> u32 {
    1
}

impl TryFrom<RecordFile> for ClusterRecord {
    type Error = RecordError;

    fn try_from(file: RecordFile) -> Result<Self, RecordError> {
        if file.version > VERSION {
            return Err(RecordError::NewerVersion { found: file.version });
        }
        let mut record = Self {
            cluster_id: file.cluster_id,
            epoch: file.epoch,
            member_id: file.member_id,
            member_name: file.member_name,
            servers: file.servers,
            etcd_version: file.etcd_version,
            operation: file.operation,
            lineage: file.lineage,
            lineage_is_partial: file.lineage_is_partial,
            other: file.other,
        };
        if file.version == 1 && record.servers.is_empty() && file.members.is_some_and(|members| members > 0) {
            // Of the others only their number is known, until etcd lists them.
            let others = file.members.unwrap_or(1).min(MAX_SERVERS) - 1;
            let urls = file.control_urls.into_iter().map(Some).chain(std::iter::repeat(None));
            let unnamed = |control_url| ServerRecord { control_url, ..ServerRecord::default() };
            record.servers = std::iter::once(record.own_server()).chain(urls.take(others).map(unnamed)).collect();
        }
        Ok(record)
    }
}

impl From<ClusterRecord> for RecordFile {
    fn from(record: ClusterRecord) -> Self {
        Self {
            version: VERSION,
            cluster_id: record.cluster_id,
            epoch: record.epoch,
            member_id: record.member_id,
            member_name: record.member_name,
            servers: record.servers,
            members: None,
            control_urls: Vec::new(),
            etcd_version: record.etcd_version,
            operation: record.operation,
            lineage: record.lineage,
            lineage_is_partial: record.lineage_is_partial,
            other: record.other,
        }
    }
}

impl ClusterRecord {
    /// Parses the content of a file.
    pub fn parse(text: &[u8]) -> Result<Self, RecordError> {
        #[derive(Deserialize)]
        struct VersionField {
            #[serde(default = "first_version")]
            version: u32,
        }
        // First: a newer version may lack fields of this one.
        match serde_json::from_slice::<VersionField>(text)?.version {
            found if found > VERSION => Err(RecordError::NewerVersion { found }),
            _ => Ok(serde_json::from_slice(text)?),
        }
    }

    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec_pretty(self).unwrap_or_default();
        text.push(b'\n');
        text
    }

    /// Reads the file at `path`; `None` if there is none.
    pub fn read(path: &Path) -> Result<Option<Self>, RecordError> {
        match host::read_small(path) {
            Ok(text) => Self::parse(&text).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Replaces the file at `path`. The caller has read what was there.
    pub fn write(&self, path: &Path) -> Result<(), WriteError> {
        durable::write_file(path, &self.to_json(), PRIVATE_FILE)
    }

    /// True if the cluster was healthy once; false if it was about to begin and never became healthy.
    #[must_use]
    pub fn was_healthy(&self) -> bool {
        !self.cluster_id.is_empty()
    }

    /// How many members the cluster had when last seen, learners included.
    #[must_use]
    pub fn member_count(&self) -> usize {
        self.servers.len()
    }

    /// The entry for this server alone, without URLs.
    #[must_use]
    pub fn own_server(&self) -> ServerRecord {
        let (name, member_id) = (self.member_name.clone(), self.member_id.clone());
        ServerRecord { name, member_id, ..ServerRecord::default() }
    }

    /// The present identity of the data directory.
    #[must_use]
    pub fn identity(&self) -> MemberIdentity {
        MemberIdentity { cluster_id: self.cluster_id.clone(), member_id: self.member_id.clone() }
    }

    /// True if the data directory had identities that its lineage does not list.
    #[must_use]
    pub fn had_unknown_identities(&self) -> bool {
        self.lineage_is_partial || (self.epoch > 1 && self.lineage.is_empty())
    }

    /// With the lineage that follows from the record `before`.
    #[must_use]
    pub fn after(mut self, before: Option<&Self>) -> Self {
        if let Some(before) = before {
            self.lineage_is_partial |= before.had_unknown_identities();
            let known = before.lineage.iter().cloned().chain([before.identity()]);
            self.lineage = lineage(known.chain(std::mem::take(&mut self.lineage)), &self.identity());
        }
        self
    }

    /// Takes over the list of servers that etcd gave at `now` (seconds since 1970); what else is known of each of them stays.
    pub fn update_servers(&mut self, listed: impl IntoIterator<Item = ServerRecord>, now: u64) {
        let merge = |listed: ServerRecord| {
            let known = self.servers.iter().find(|server| server.member_id == listed.member_id);
            let known = known.cloned().unwrap_or_default();
            let is_same = known.name == listed.name && known.peer_urls == listed.peer_urls;
            let is_recent = known.seen.is_some_and(|seen| seen <= now && now - seen < SEEN_INTERVAL);
            let seen = if is_same && is_recent { known.seen } else { Some(now) };
            ServerRecord { control_url: listed.control_url.or(known.control_url), seen, other: known.other, ..listed }
        };
        let mut servers: Vec<ServerRecord> = listed.into_iter().map(merge).collect();
        servers.sort_by(|one, other| one.member_id.cmp(&other.member_id));
        self.servers = servers;
    }
}

/// The identities of a data directory that had those in `before` and now has `present`, without the present one: the oldest first.
#[must_use]
pub fn lineage(before: impl IntoIterator<Item = MemberIdentity>, present: &MemberIdentity) -> Vec<MemberIdentity> {
    let mut lineage: Vec<MemberIdentity> = Vec::new();
    for identity in before {
        if identity.is_known() && identity != *present && !lineage.contains(&identity) {
            lineage.push(identity);
        }
    }
    lineage.split_off(lineage.len().saturating_sub(MAX_LINEAGE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(cluster: &str, member: &str) -> MemberIdentity {
        MemberIdentity { cluster_id: cluster.into(), member_id: member.into() }
    }

    /// As commit 1b4c942 wrote it.
    const VERSION_1: &str = r#"{"cluster_id":"c1","epoch":2,"member_id":"m1","member_name":"n-1","members":3,"control_urls":[],
        "etcd_version":"3.5.30","lineage":[{"cluster_id":"c0","member_id":"m0"}],"lineage_is_partial":false}"#;

    #[test]
    fn version_1_is_read_and_becomes_version_2() {
        let read = ClusterRecord::parse(VERSION_1.as_bytes()).unwrap();
        assert_eq!((read.member_count(), &*read.servers[0].name, &*read.servers[0].member_id), (3, "n-1", "m1"));
        assert_eq!((read.epoch, &read.lineage[..]), (2, &[identity("c0", "m0")][..]));
        let written: serde_json::Value = serde_json::from_slice(&read.to_json()).unwrap();
        assert_eq!((&written["version"], written.get("members")), (&2.into(), None));
        assert_eq!(ClusterRecord::parse(&read.to_json()).unwrap(), read);
    }

    #[test]
    fn version_1_with_a_single_member_or_none() {
        for (members, expected) in [(0, 0), (1, 1), (usize::MAX, MAX_SERVERS)] {
            let text = VERSION_1.replace("\"members\":3", &format!("\"members\":{members}"));
            assert_eq!(ClusterRecord::parse(text.as_bytes()).unwrap().member_count(), expected);
        }
    }

    #[test]
    fn a_newer_version_is_refused_whatever_its_fields() {
        for text in [r#"{"version":3}"#.to_owned(), VERSION_1.replacen('{', r#"{"version":3,"#, 1)] {
            let found = ClusterRecord::parse(text.as_bytes());
            assert!(matches!(found, Err(RecordError::NewerVersion { found: 3 })), "{found:?}");
        }
        for text in ["", "{}", "[]", "{\"version\":-1}"] {
            assert!(matches!(ClusterRecord::parse(text.as_bytes()), Err(RecordError::Malformed(_))), "{text}");
        }
    }

    #[test]
    fn fields_of_a_newer_quorate_are_kept() {
        let text = r#"{"version":2,"cluster_id":"a","epoch":1,"member_id":"b","member_name":"c","etcd_version":null,"later":[1],
            "servers":[{"name":"c","member_id":"b","rack":7}]}"#;
        let mut read = ClusterRecord::parse(text.as_bytes()).unwrap();
        read.update_servers([ServerRecord { name: "c".into(), member_id: "b".into(), ..ServerRecord::default() }], 5);
        let written: serde_json::Value = serde_json::from_slice(&read.to_json()).unwrap();
        assert_eq!((&written["later"][0], &written["servers"][0]["rack"]), (&1.into(), &7.into()));
    }

    #[test]
    fn a_list_of_servers_is_taken_over_and_dated_once_a_day() {
        let server = |id: &str, url: &str| ServerRecord {
            name: format!("n-{id}"),
            member_id: id.into(),
            peer_urls: vec![url.into()],
            ..ServerRecord::default()
        };
        let mut record = ClusterRecord::default();
        record.update_servers([server("2", "u2"), server("1", "u1")], 100);
        record.servers[1].control_url = Some("control".into());
        let before = record.clone();
        record.update_servers([server("1", "u1"), server("2", "u2")], 100 + SEEN_INTERVAL - 1);
        assert_eq!(record, before);
        record.update_servers([server("1", "elsewhere"), server("2", "u2")], 101);
        assert_eq!((record.servers[0].seen, record.servers[1].seen), (Some(101), Some(100)));
        record.update_servers([server("2", "u2")], 100 + SEEN_INTERVAL);
        assert_eq!((record.member_count(), record.servers[0].seen), (1, Some(100 + SEEN_INTERVAL)));
        assert_eq!(record.servers[0].control_url.as_deref(), Some("control"));
        // The clock was set back.
        record.update_servers([server("2", "u2")], 50);
        assert_eq!(record.servers[0].seen, Some(50));
    }

    #[test]
    fn a_lineage_has_each_earlier_identity_once_and_is_bounded() {
        let (first, second) = (identity("c1", "m1"), identity("c2", "m2"));
        let before = [first.clone(), MemberIdentity::default(), second.clone(), first.clone()];
        assert_eq!(lineage(before.clone(), &identity("c3", "m3")), [first.clone(), second.clone()]);
        // Back in an earlier identity, which is the present one again.
        assert_eq!(lineage(before, &first), [second]);
        let many = (0..100).map(|number| identity(&number.to_string(), "m"));
        let kept = lineage(many, &first);
        assert_eq!((kept.len(), &*kept[0].cluster_id), (MAX_LINEAGE, "36"));
    }
}
