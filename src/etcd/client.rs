//! The client of the child, with the launcher's certificate, and the health check.
//!
//! Healthy means: a leader is known, this server is a voting member with its name and peer URL, and a linearizable read
//! succeeds. Every request has a deadline.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use etcd_client::{AlarmAction, AlarmType, Certificate, Client, ConnectOptions, Identity, TlsOptions};
use serde::{Deserialize, Serialize};

use crate::datadir::DataDir;
use crate::error::causes;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// The key that the health check reads; it need not exist (etcdctl's own check reads the same).
const PROBE_KEY: &str = "health";

/// Why a request to the child failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("cannot read {}", path.display())]
    Certificate { path: PathBuf, source: io::Error },
    /// etcd, or the connection to it, returned an error.
    #[error("{}", root_cause_line(.0))]
    Etcd(#[from] etcd_client::Error),
    /// It does not return an acknowledged write.
    #[error("etcd does not return a write that it acknowledged")]
    WriteNotPersisted,
    #[error("etcd did not answer within {} s", REQUEST_TIMEOUT.as_secs())]
    Timeout,
}

/// The innermost cause: the outer layers only say that an inner one failed.
fn root_cause_line(error: &etcd_client::Error) -> String {
    let bottom = causes(error).last();
    let text = match (error, bottom) {
        (_, Some(bottom)) => bottom.to_string(),
        (etcd_client::Error::GRpcStatus(status), None) => status.message().to_owned(),
        (other, None) => other.to_string(),
    };
    crate::text::escape_control(text.lines().next().unwrap_or_default())
}

/// Why the child is not healthy (yet).
#[derive(Debug, thiserror::Error)]
pub enum NotHealthy {
    #[error("etcd does not answer: {0}")]
    Unreachable(#[source] ClientError),
    #[error("the cluster has no leader")]
    NoLeader,
    #[error("this member is a learner and may not vote yet")]
    Learner,
    /// The cluster does not know us.
    #[error("the cluster has no member {name} with {peer_url}; it has {found}")]
    NotAMember { name: String, peer_url: String, found: String },
    /// It knows this member under another address.
    #[error("the cluster knows this member at {found}, but it is at {wanted} now")]
    OtherAddress { member: u64, is_alone: bool, found: String, wanted: String },
}

/// The expected identity of this member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    pub name: String,
    pub peer_url: String,
}

/// The status of a healthy child.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemberFacts {
    /// Hexadecimal.
    pub cluster_id: String,
    /// Hexadecimal.
    pub member_id: String,
    pub members: usize,
    /// All members, as etcd lists them.
    #[serde(skip)]
    pub member_list: Vec<ListedMember>,
    /// Hexadecimal; `0` if there is none.
    pub leader_id: String,
    /// True if this member is the leader.
    pub is_leader: bool,
    pub version: String,
    pub revision: i64,
    pub db_size: i64,
    pub db_in_use: i64,
    /// Alarms of any member, such as `NOSPACE` or `CORRUPT`.
    pub alarms: Vec<String>,
}

/// A member, as etcd lists it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListedMember {
    /// Hexadecimal.
    pub id: String,
    /// Empty until the member has started.
    pub name: String,
    pub peer_urls: Vec<String>,
    pub is_learner: bool,
}

impl ListedMember {
    fn of(member: &etcd_client::Member) -> Self {
        Self {
            id: format!("{:x}", member.id()),
            name: member.name().to_owned(),
            peer_urls: member.peer_urls().to_vec(),
            is_learner: member.is_learner(),
        }
    }
}

/// The response to `HashKV`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveHash {
    pub hash: u32,
    /// The compact revision; -1 if it was never compacted.
    pub compact_revision: i64,
}

/// The member that a snapshot is taken from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberSource {
    /// Hexadecimal.
    pub member_id: String,
    /// Hexadecimal.
    pub cluster_id: String,
    pub version: String,
    pub db_size: u64,
    /// Alarms of any member, such as `CORRUPT`, and other errors in its status.
    pub alarms: Vec<String>,
}

/// How large a database is, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Size of the file, which counts against the quota.
    pub file: u64,
    /// The part of it in use.
    pub in_use: u64,
}

#[derive(Clone)]
pub struct EtcdClient {
    client: Client,
}

impl std::fmt::Debug for EtcdClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EtcdClient")
    }
}

async fn within<T>(asked: impl Future<Output = Result<T, etcd_client::Error>>) -> Result<T, ClientError> {
    // The client library's futures are large.
    match tokio::time::timeout(REQUEST_TIMEOUT, Box::pin(asked)).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(ClientError::Timeout),
    }
}

impl EtcdClient {
    /// Prepares a connection with the present launcher certificate; the first request opens it.
    pub async fn connect(data: &DataDir, url: &str) -> Result<Self, ClientError> {
        Self::connect_for(data, url, REQUEST_TIMEOUT).await
    }

    /// Like [`Self::connect`], for requests with this timeout.
    pub async fn connect_for(data: &DataDir, url: &str, timeout: Duration) -> Result<Self, ClientError> {
        let read = |path: PathBuf| fs::read(&path).map_err(|source| ClientError::Certificate { path, source });
        let launcher = data.certificate("launcher");
        let tls = TlsOptions::new()
            .ca_certificate(Certificate::from_pem(read(data.certificate("server-ca").certificate)?))
            .identity(Identity::from_pem(read(launcher.certificate)?, read(launcher.key)?));
        let options = ConnectOptions::new().with_tls(tls).with_connect_timeout(REQUEST_TIMEOUT).with_timeout(timeout);
        Ok(Self { client: within(Client::connect([url], Some(options))).await? })
    }

    /// Checks the health of the child, and returns its status.
    pub async fn check(&mut self, expected: &Expected) -> Result<MemberFacts, NotHealthy> {
        let unreachable = NotHealthy::Unreachable;
        let status = within(self.client.status()).await.map_err(unreachable)?;
        if status.leader() == 0 {
            return Err(NotHealthy::NoLeader);
        }
        if status.is_learner() {
            return Err(NotHealthy::Learner);
        }
        let our_id = status.header().map_or(0, etcd_client::ResponseHeader::member_id);
        let list = within(self.client.member_list()).await.map_err(unreachable)?;
        let members = list.members();
        let Some(us) = members.iter().find(|member| member.id() == our_id && member.name() == expected.name) else {
            let found: Vec<String> =
                members.iter().map(|member| format!("{}={}", member.name(), member.peer_urls().join(","))).collect();
            return Err(NotHealthy::NotAMember {
                name: expected.name.clone(),
                peer_url: expected.peer_url.clone(),
                found: found.join(" "),
            });
        };
        if !us.peer_urls().contains(&expected.peer_url) {
            return Err(NotHealthy::OtherAddress {
                member: our_id,
                is_alone: members.len() == 1,
                found: us.peer_urls().join(","),
                wanted: expected.peer_url.clone(),
            });
        }
        let read = within(self.client.get(PROBE_KEY, None)).await.map_err(unreachable)?;
        Ok(MemberFacts {
            cluster_id: format!("{:x}", status.header().map_or(0, etcd_client::ResponseHeader::cluster_id)),
            member_id: format!("{our_id:x}"),
            members: members.len(),
            member_list: members.iter().map(ListedMember::of).collect(),
            leader_id: format!("{:x}", status.leader()),
            is_leader: status.leader() == our_id,
            version: status.version().to_owned(),
            revision: read.header().map_or(0, etcd_client::ResponseHeader::revision),
            db_size: status.db_size(),
            // The name in the client library is a misnomer for etcd's dbSizeInUse (field 9).
            db_in_use: status.raft_used_db_size(),
            alarms: alarms(status.errors()),
        })
    }

    /// This member's hash of all keys and values at `revision`.
    pub async fn hash_kv(&mut self, revision: i64) -> Result<LiveHash, ClientError> {
        let answer = within(self.client.hash_kv(revision)).await?;
        Ok(LiveHash { hash: answer.hash(), compact_revision: answer.compact_version() })
    }

    /// Like [`Self::hash_kv`] at the newest revision. Needs a connection with a long timeout.
    pub async fn hash_of_everything(&mut self) -> Result<LiveHash, ClientError> {
        let answer = Box::pin(self.client.hash_kv(0)).await?;
        Ok(LiveHash { hash: answer.hash(), compact_revision: answer.compact_version() })
    }

    /// The number of keys. Needs a connection with a long timeout.
    pub async fn count(&mut self) -> Result<u64, ClientError> {
        let options = etcd_client::GetOptions::new().with_all_keys().with_count_only();
        let answer = Box::pin(self.client.get("", Some(options))).await?;
        Ok(u64::try_from(answer.count()).unwrap_or(0))
    }

    /// Writes, reads and deletes a new key. Returns the revision afterwards.
    pub async fn write_and_delete_probe(&mut self, key: &str) -> Result<i64, ClientError> {
        within(self.client.put(key, key, None)).await?;
        let read = within(self.client.get(key, None)).await?;
        let removed = within(self.client.delete(key, None)).await?;
        if read.kvs().first().is_none_or(|pair| pair.value() != key.as_bytes()) || removed.deleted() != 1 {
            return Err(ClientError::WriteNotPersisted);
        }
        Ok(removed.header().map_or(0, etcd_client::ResponseHeader::revision))
    }

    /// Begins the snapshot stream of this member. Callers must read each message with a deadline.
    pub async fn snapshot(&mut self) -> Result<etcd_client::SnapshotStreaming, ClientError> {
        within(self.client.snapshot()).await
    }

    /// The status of this member alone: works without a leader, and while an alarm blocks clients.
    pub async fn source(&mut self) -> Result<MemberSource, NotHealthy> {
        let status = within(self.client.status()).await.map_err(NotHealthy::Unreachable)?;
        if status.is_learner() {
            return Err(NotHealthy::Learner);
        }
        let header = status.header();
        Ok(MemberSource {
            member_id: format!("{:x}", header.map_or(0, etcd_client::ResponseHeader::member_id)),
            cluster_id: format!("{:x}", header.map_or(0, etcd_client::ResponseHeader::cluster_id)),
            version: status.version().to_owned(),
            db_size: u64::try_from(status.db_size()).unwrap_or(0),
            alarms: alarms(status.errors()),
        })
    }

    pub async fn size(&mut self) -> Result<Size, ClientError> {
        let status = within(self.client.status()).await?;
        let bytes = |number: i64| u64::try_from(number).unwrap_or(0);
        Ok(Size { file: bytes(status.db_size()), in_use: bytes(status.raft_used_db_size()) })
    }

    /// The linearizable revision of the keyspace.
    pub async fn revision(&mut self) -> Result<i64, ClientError> {
        let read = within(self.client.get(PROBE_KEY, None)).await?;
        Ok(read.header().map_or(0, etcd_client::ResponseHeader::revision))
    }

    /// Compacts the history up to `revision`, and waits until this member has done so. False if it was compacted
    /// before. Needs a connection with a long timeout.
    pub async fn compact(&mut self, revision: i64) -> Result<bool, ClientError> {
        let options = etcd_client::CompactionOptions::new().with_physical();
        match Box::pin(self.client.compact(revision, Some(options))).await {
            // "required revision has been compacted" (etcd api/v3rpc/rpctypes).
            Err(etcd_client::Error::GRpcStatus(status)) if status.message().contains("has been compacted") => Ok(false),
            done => Ok(done.map(|_| true)?),
        }
    }

    /// Defragments the database file. This member serves no requests meanwhile. Needs a connection with a long timeout.
    pub async fn defragment(&mut self) -> Result<(), ClientError> {
        Box::pin(self.client.defragment()).await?;
        Ok(())
    }

    /// Disarms this member's NOSPACE alarm. True if there was one.
    pub async fn disarm_no_space(&mut self) -> Result<bool, ClientError> {
        let status = within(self.client.status()).await?;
        let us = status.header().map_or(0, etcd_client::ResponseHeader::member_id);
        let raised = within(self.client.alarm(AlarmAction::Get, AlarmType::None, None)).await?;
        let is_ours = |alarm: &etcd_client::AlarmMember| alarm.member_id() == us && alarm.alarm() == AlarmType::Nospace;
        if !raised.alarms().iter().any(is_ours) {
            return Ok(false);
        }
        let mut options = etcd_client::AlarmOptions::new();
        options.with_member(us);
        within(self.client.alarm(AlarmAction::Deactivate, AlarmType::Nospace, Some(options))).await?;
        Ok(true)
    }

    /// Updates this member's peer URL in the cluster. Only safe for a single member, which needs no other vote.
    pub async fn update_peer_url(&mut self, member: u64, peer_url: &str) -> Result<(), ClientError> {
        within(self.client.member_update(member, vec![peer_url.to_owned()])).await.map(|_| ())
    }
}

/// `memberID:123 alarm:NOSPACE ` → `NOSPACE`; other errors of the status unchanged.
fn alarms(errors: &[String]) -> Vec<String> {
    errors
        .iter()
        .map(|error| match error.split_once("alarm:") {
            Some((_, alarm)) => alarm.trim().to_owned(),
            None => crate::text::escape_control(error),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarms_are_named() {
        let said = ["memberID:10276657743932975437 alarm:NOSPACE ".to_owned(), "etcdserver: no leader".to_owned()];
        assert_eq!(alarms(&said), ["NOSPACE", "etcdserver: no leader"]);
    }
}
