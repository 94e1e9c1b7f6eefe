//! `/v1/status`: what [`Status`] has, put together from what the services know.

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use crate::clock;
use crate::control::api::status::{
    Certificate, Child, DataDisk, Drills, LastGood, LauncherStatus, MemberStatus, ObjectStorage, PendingUpload,
    ServerStatus, Snapshots,
};
use crate::error::Code;
use crate::etcd::child::State as ChildState;
use crate::etcd::output;
use crate::etcd::settings::Addresses;
use crate::plan::condition::Condition;
use crate::plan::health::Assessment;
use crate::recovery::drill::record::DrillRecord;
use crate::server::disk_sample::DiskSample;
use crate::server::health::Health;
use crate::server::state::ServerState;
use crate::server::{self, condition};

/// JSON of [`Status`].
pub async fn status(State(state): State<Arc<ServerState>>) -> Response {
    let sample = state.disk_sampler.sample(&state.context.data).await;
    let body = serde_json::to_vec(&observe(&state, &sample)).unwrap_or_default();
    ([(CONTENT_TYPE, "application/json")], body).into_response()
}

fn observe(state: &ServerState, sample: &DiskSample) -> ServerStatus {
    let Assessment { condition, problems } = condition::assess_now(state);
    let is_serving = problems.iter().all(|problem| problem.code != Code::EtcdNotServing);
    let child = state.context.child.borrow().clone();
    let member = match &*state.context.health.borrow() {
        Health::Healthy(facts) if matches!(child.state, ChildState::Running(_)) => Some(MemberStatus {
            name: state.context.member_name.clone(),
            id: facts.member_id.clone(),
            cluster_id: facts.cluster_id.clone(),
            epoch: state.context.epoch,
            members: facts.members,
            is_leader: facts.is_leader,
            leader_id: facts.leader_id.clone(),
            revision: facts.revision,
            db_size: facts.db_size,
            db_in_use: facts.db_in_use,
            db_quota: state.context.config.etcd.effective_quota(),
            alarms: facts.alarms.clone(),
        }),
        _ => None,
    };
    ServerStatus {
        old_data: sample.old_data.clone(),
        healthy: condition == Condition::Healthy,
        health: condition,
        reason: problems.first().map(|problem| problem.message.clone()),
        node: state.context.config.node_name.clone(),
        client_url: Addresses::client_url(&state.context.config),
        local_client_url: Addresses::local_client_url(&state.context.config),
        peer_url: Addresses::peer_url(&state.context.config),
        data_dir: state.context.data.root().display().to_string(),
        launcher: LauncherStatus {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            started: clock::rfc3339(state.context.started),
        },
        etcd: Child {
            state: child.state.word().into(),
            pid: child.pid,
            version: state.context.binary.version.to_string(),
            binary: state.context.binary.checked.path().display().to_string(),
            started: child.started.map(clock::rfc3339),
            ready_after_ms: child.ready_after.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
            restarts: child.restarts(),
            last_exit: child.last_exit.clone(),
            // They only explain why etcd does not serve.
            last_lines: if is_serving { Vec::new() } else { child.tail.lines() },
            dropped_lines: output::DROPPED_LINES.load(std::sync::atomic::Ordering::Relaxed),
        },
        member,
        snapshots: snapshots(state, &sample.drills),
        certificates: certificates(state),
        disk: DataDisk {
            free: sample.free,
            fsync_p99_ms: state.context.fsync_p99.map(|p99| (p99.as_secs_f64() * 100_000.0).round() / 100.0),
        },
        problems,
    }
}

fn snapshots(state: &ServerState, drills_done: &DrillRecord) -> Snapshots {
    let history = state.snapshots.history();
    Snapshots {
        dir: server::snapshots::service::dir(&state.snapshots).display().to_string(),
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
        s3: object_storage(state),
        drill: drills(drills_done, history.next_drill),
    }
}

fn drills(done: &DrillRecord, next: Option<SystemTime>) -> Option<Drills> {
    let DrillRecord { last, last_success, failures } = done.clone();
    if last.is_none() && next.is_none() {
        return None;
    }
    Some(Drills { last, last_success, failures, next: next.map(clock::rfc3339) })
}

fn object_storage(state: &ServerState) -> Option<ObjectStorage> {
    let uploads = &state.snapshots.uploads;
    let (pending, config) = (uploads.present(), state.snapshots.settings.borrow().s3.clone());
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

pub(super) fn certificates(state: &ServerState) -> Vec<Certificate> {
    let now = clock::now();
    state
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
