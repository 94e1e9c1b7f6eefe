//! `POST /v1/defrag` and `POST /v1/free`: database maintenance.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use hyper::body::Bytes;

use crate::control::api::maintenance::MaintenanceRequest;
use crate::control::routes::stream::{self, OnDisconnect};
use crate::server::maintenance::{self, MaintenanceError};
use crate::server::state::ServerState;

const ON_DISCONNECT: OnDisconnect =
    OnDisconnect { gone: "the operation in etcd continues", stopping: Some(|| MaintenanceError::Stopping.into()) };

fn read(body: &Bytes) -> MaintenanceRequest {
    serde_json::from_slice(body).unwrap_or_default()
}

/// Defragments the database of this member.
pub async fn defragment(State(state): State<Arc<ServerState>>, body: Bytes) -> Response {
    let MaintenanceRequest { wait } = read(&body);
    stream::stream_response(state, ON_DISCONNECT, |state, _| maintenance::defragment(state.maintenance.clone(), wait))
}

pub async fn free(State(state): State<Arc<ServerState>>, body: Bytes) -> Response {
    let MaintenanceRequest { wait } = read(&body);
    stream::stream_response(state, ON_DISCONNECT, |state, _| {
        maintenance::compact_and_defrag(state.maintenance.clone(), wait)
    })
}
