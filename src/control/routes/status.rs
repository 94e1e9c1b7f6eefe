//! `/v1/status`: everything that `quorate status` shows. The fields are documented in `docs/status.md`; they are added to,
//! never renamed.

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::error::Code;
use crate::etcd::child::State as ChildState;
use crate::etcd::output;
use crate::etcd::settings::Addresses;
use crate::host;
use crate::plan::health::{Assessment, Condition, Problem};
use crate::recovery::drill::record::{Outcome, Record};
use crate::recovery::retired::{self, RetiredData};
use crate::server::health::Health;
use crate::server::state::ServerState;
use crate::server::{self, condition};

/// The state of a server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// True if all is well: `health` is `healthy`.
    pub healthy: bool,
    /// `healthy`, `degraded` or `unhealthy`.
    #[serde(default)]
    pub health: Condition,
    /// The worst of `problems`, in a sentence.
    pub reason: Option<String>,
    /// What is wrong, the worst first.
    #[serde(default)]
    pub problems: Vec<Problem>,
    /// `node-name`.
    pub node: String,
    /// Where clients connect.
    pub client_url: String,
    /// The same over loopback.
    pub local_client_url: String,
    /// Where members connect.
    pub peer_url: String,
    /// `D`.
    pub data_dir: String,
    /// The launcher.
    pub launcher: Launcher,
    /// The etcd process.
    pub etcd: Child,
    /// What etcd says about itself; absent while it does not answer.
    pub member: Option<Member>,
    /// The snapshots.
    #[serde(default)]
    pub snapshots: Snapshots,
    /// The certificates.
    pub certificates: Vec<Certificate>,
    /// The disk under the data.
    pub disk: Disk,
    /// Data directories that were set aside, the newest first.
    #[serde(default)]
    pub old_data: Vec<RetiredData>,
}

/// The launcher.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Launcher {
    /// Its version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// RFC 3339.
    pub started: String,
}

/// The etcd process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Child {
    /// `stopped`, `starting`, `ready`, `stopping`, `backoff` or `failed`.
    pub state: String,
    /// Its process id, while it runs.
    pub pid: Option<i32>,
    /// Its version.
    pub version: String,
    /// Its executable.
    pub binary: String,
    /// RFC 3339.
    pub started: Option<String>,
    /// Milliseconds from its start to being ready.
    pub ready_after_ms: Option<u64>,
    /// Starts after the first.
    pub restarts: u64,
    /// How it ended the last time that it ended by itself.
    pub last_exit: Option<String>,
    /// Its last lines, while it is not healthy.
    pub last_lines: Vec<String>,
    /// Lines of its log that were dropped because there were too many.
    pub dropped_lines: u64,
}

/// What etcd says about itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Member {
    /// Member name.
    pub name: String,
    /// Hexadecimal.
    pub id: String,
    /// Hexadecimal.
    pub cluster_id: String,
    /// One more with every reset or restore.
    pub epoch: u64,
    /// Members, learners included.
    pub members: usize,
    /// True if this one leads.
    pub is_leader: bool,
    /// Hexadecimal.
    pub leader_id: String,
    /// Of the keyspace.
    pub revision: i64,
    /// Bytes.
    pub db_size: i64,
    /// Bytes.
    pub db_in_use: i64,
    /// Bytes.
    pub db_quota: u64,
    /// Such as `NOSPACE`.
    pub alarms: Vec<String>,
}

/// A certificate.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Certificate {
    /// File name without ending.
    pub name: String,
    /// RFC 3339.
    pub expires: String,
    /// Whole days.
    pub days_left: u64,
}

/// The snapshots of this node.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Snapshots {
    /// Where they are.
    pub dir: String,
    /// The newest good one.
    pub last_good: Option<LastGood>,
    /// When any was verified last and found good; RFC 3339.
    pub last_verified: Option<String>,
    /// Failures since the last success.
    pub failures: u64,
    /// The last failure.
    pub last_failure: Option<String>,
    /// When the next scheduled one is due; RFC 3339.
    pub next: Option<String>,
    /// Object storage, if snapshots are uploaded, or some are still to be.
    #[serde(default)]
    pub s3: Option<ObjectStorage>,
    /// Rehearsals of a restore, if there was any or some are scheduled.
    #[serde(default)]
    pub drill: Option<Drills>,
}

/// Rehearsals of a restore.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Drills {
    /// What the last one found.
    pub last: Option<Outcome>,
    /// When one passed last; RFC 3339.
    pub last_success: Option<String>,
    /// Those that failed, ever.
    pub failures: u64,
    /// When the next one is due; RFC 3339.
    pub next: Option<String>,
}

/// Snapshots in object storage.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ObjectStorage {
    /// `s3://bucket/folder/`; empty if it cannot be told.
    pub place: String,
    /// Those that are still to be uploaded, the oldest first.
    pub pending: Vec<PendingUpload>,
    /// The newest one that is there, with the URL as its name.
    pub last: Option<LastGood>,
    /// When it was there; RFC 3339.
    pub last_at: Option<String>,
}

/// A snapshot that is still to be uploaded.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PendingUpload {
    /// File name.
    pub name: String,
    /// RFC 3339.
    pub since: String,
    /// Attempts that failed.
    pub failures: u32,
    /// Why the last one did.
    pub last_failure: Option<String>,
}

/// The newest good snapshot.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LastGood {
    /// File name.
    pub name: String,
    /// RFC 3339.
    pub created: String,
    /// Bytes as stored.
    pub size: u64,
    /// Of the keyspace.
    pub revision: i64,
}

/// The disk under the data.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Disk {
    /// Bytes.
    pub free: Option<u64>,
    /// Milliseconds that 99 of 100 small writes took before the start.
    pub fsync_p99_ms: Option<f64>,
}

/// JSON of [`Status`].
pub async fn status(State(shared): State<Arc<ServerState>>) -> Response {
    let body = serde_json::to_vec(&observe(&shared)).unwrap_or_default();
    ([(CONTENT_TYPE, "application/json")], body).into_response()
}

fn observe(shared: &ServerState) -> Status {
    let Assessment { condition, problems } = condition::assess_now(shared);
    let is_serving = problems.iter().all(|problem| problem.code != Code::EtcdNotServing);
    let child = shared.child.borrow().clone();
    let member = match &*shared.health.borrow() {
        Health::Healthy(facts) if matches!(child.state, ChildState::Running(_)) => Some(Member {
            name: shared.member_name.clone(),
            id: facts.member_id.clone(),
            cluster_id: facts.cluster_id.clone(),
            epoch: shared.epoch,
            members: facts.members,
            is_leader: facts.is_leader,
            leader_id: facts.leader_id.clone(),
            revision: facts.revision,
            db_size: facts.db_size,
            db_in_use: facts.db_in_use,
            db_quota: shared.config.etcd.effective_quota(),
            alarms: facts.alarms.clone(),
        }),
        _ => None,
    };
    Status {
        old_data: retired::list(&shared.data),
        healthy: condition == Condition::Healthy,
        health: condition,
        reason: problems.first().map(|problem| problem.message.clone()),
        node: shared.config.node_name.clone(),
        client_url: Addresses::client_url(&shared.config),
        local_client_url: Addresses::local_client_url(&shared.config),
        peer_url: Addresses::peer_url(&shared.config),
        data_dir: shared.data.root().display().to_string(),
        launcher: Launcher {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            started: clock::rfc3339(shared.started),
        },
        etcd: Child {
            state: child.state.word().into(),
            pid: child.pid,
            version: shared.binary.version.to_string(),
            binary: shared.binary.checked.path().display().to_string(),
            started: child.started.map(clock::rfc3339),
            ready_after_ms: child.ready_after.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
            restarts: child.restarts(),
            last_exit: child.last_exit.clone(),
            // They explain why etcd does not serve, and nothing else.
            last_lines: if is_serving { Vec::new() } else { child.tail.lines() },
            dropped_lines: output::DROPPED_LINES.load(std::sync::atomic::Ordering::Relaxed),
        },
        member,
        snapshots: snapshots(shared),
        certificates: certificates(shared),
        disk: Disk {
            free: host::free_bytes(&shared.data.storage()),
            fsync_p99_ms: shared.fsync_p99.map(|p99| (p99.as_secs_f64() * 100_000.0).round() / 100.0),
        },
        problems,
    }
}

fn snapshots(shared: &ServerState) -> Snapshots {
    let history = shared.snapshots.history();
    Snapshots {
        dir: server::snapshots::dir(shared).display().to_string(),
        last_good: history.last_good.map(|manifest| LastGood {
            name: manifest.name,
            created: manifest.created,
            size: manifest.size,
            revision: manifest.revision,
        }),
        last_verified: history.last_verified,
        failures: history.failures,
        last_failure: history.last_failure,
        next: history.next.map(clock::rfc3339),
        s3: object_storage(shared),
        drill: drills(shared, history.next_drill),
    }
}

fn drills(shared: &ServerState, next: Option<SystemTime>) -> Option<Drills> {
    let Record { last, last_success, failures } = Record::read(&shared.data);
    if last.is_none() && next.is_none() {
        return None;
    }
    Some(Drills { last, last_success, failures, next: next.map(clock::rfc3339) })
}

fn object_storage(shared: &ServerState) -> Option<ObjectStorage> {
    let uploads = &shared.snapshots.uploads;
    let (pending, config) = (uploads.present(), shared.snapshots.settings.borrow().s3.clone());
    if !config.is_on && pending.is_empty() {
        return None;
    }
    let last = uploads.last();
    Some(ObjectStorage {
        place: config.target().map(|target| target.to_string()).unwrap_or_default(),
        pending: pending
            .into_iter()
            .map(|pending| PendingUpload {
                name: pending.name,
                since: pending.since,
                failures: pending.failures,
                last_failure: pending.last_failure,
            })
            .collect(),
        last_at: last.as_ref().map(|last| last.at.clone()),
        last: last.map(|last| LastGood {
            name: last.url,
            created: last.manifest.created,
            size: last.manifest.size,
            revision: last.manifest.revision,
        }),
    })
}

pub(super) fn certificates(shared: &ServerState) -> Vec<Certificate> {
    let now = clock::now();
    shared
        .certificates
        .borrow()
        .iter()
        .map(|expiry| Certificate {
            name: expiry.name.into(),
            expires: clock::rfc3339(expiry.not_after),
            days_left: expiry.not_after.duration_since(now).unwrap_or_default().as_secs() / 86_400,
        })
        .collect()
}
