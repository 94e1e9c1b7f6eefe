//! Databases that a real etcd wrote: with keys and their history, leases, users and roles, a removed member, and an alarm.

use etcd_client::{AlarmAction, AlarmType, Client, Compare, CompareOp, Permission, PutOptions, Txn, TxnOp};

use super::etcd::Running;
use crate::kit::{Etcd, Ports};

/// One of them.
pub struct Base {
    pub name: String,
    pub etcd: Etcd,
    pub bytes: Vec<u8>,
    pub ports: Ports,
}

impl Base {
    /// Without the SHA-256.
    pub fn database(&self) -> &[u8] {
        &self.bytes[..self.bytes.len() - 32]
    }
}

/// Before any compaction, and after one with changes behind it.
pub fn make(etcd: &Etcd) -> Vec<Base> {
    let dir = tempfile::tempdir().unwrap();
    let ports = Ports::claim();
    let log = dir.path().join("log");
    let mut running = Running::start(etcd, &dir.path().join("data"), &ports, &log);
    running.until(&log, async |client| client.put("first", "1", None).await.ok()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let url = running.url.clone();
    let snapshots = runtime.block_on(async {
        let mut client = Client::connect([url], None).await.unwrap();
        fill(&mut client).await;
        let before = snapshot(&mut client).await;
        let revision = client.get("first", None).await.unwrap().header().unwrap().revision();
        let physical = etcd_client::CompactionOptions::new().with_physical();
        client.compact(revision - 40, Some(physical)).await.unwrap();
        for number in 0..30 {
            client.put(format!("k/{:03}", number * 5), "later", None).await.unwrap();
        }
        client.delete("k/005", None).await.unwrap();
        client.alarm(AlarmAction::Activate, AlarmType::Nospace, None).await.unwrap();
        [("history", before), ("compacted", snapshot(&mut client).await)]
    });
    drop(running);
    let named = |(name, bytes)| Base {
        name: format!("etcd-{}-{name}", etcd.minor),
        etcd: etcd.clone(),
        bytes,
        ports: Ports::claim(),
    };
    snapshots.map(named).into()
}

async fn fill(client: &mut Client) {
    let lease = client.lease_grant(86_400, None).await.unwrap().id();
    client.lease_grant(172_800, None).await.unwrap();
    for number in 0..500u32 {
        let options = (number % 7 == 0).then(|| PutOptions::new().with_lease(lease));
        let value = "v".repeat(usize::try_from(number % 40 * 10).unwrap());
        client.put(format!("k/{:03}", number % 150), value, options).await.unwrap();
        if number % 13 == 0 {
            client.delete(format!("k/{:03}", number % 150), None).await.unwrap();
        }
    }
    let several = [TxnOp::put("t/1", "1", None), TxnOp::put("t/2", "2", None), TxnOp::delete("k/003", None)];
    let always = Compare::version("missing", CompareOp::Equal, 0);
    client.txn(Txn::new().when([always]).and_then(several)).await.unwrap();
    client.put("large", "l".repeat(9000), None).await.unwrap();
    for name in ["reader", "writer"] {
        client.role_add(name).await.unwrap();
        client.role_grant_permission(name, Permission::read_write("k/").with_prefix()).await.unwrap();
        client.user_add(format!("{name}-user"), "secret", None).await.unwrap();
        client.user_grant_role(format!("{name}-user"), name).await.unwrap();
    }
    let learner = etcd_client::MemberAddOptions::new().with_is_learner();
    let added = client.member_add(["http://127.0.0.1:1"], Some(learner)).await.unwrap();
    client.member_remove(added.member().unwrap().id()).await.unwrap();
}

async fn snapshot(client: &mut Client) -> Vec<u8> {
    let mut stream = client.snapshot().await.unwrap();
    let mut bytes = Vec::new();
    while let Some(message) = stream.message().await.unwrap() {
        bytes.extend_from_slice(message.blob());
    }
    bytes
}
