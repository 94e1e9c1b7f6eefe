//! Saves data that vanishes under a running etcd at once: etcd still has the files open, but exits at its next check of
//! its directory, within 30 seconds (`purgeFile` of go.etcd.io/etcd/client/pkg/v3/fileutil).
//!
//! The snapshot is stored as configured, including object storage. Data that was only moved is not saved: moving it
//! back is better.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::plan::health::{Presence, Rescued, StorageFacts};
use crate::plan::snapshot_name::NamePrefix;
use crate::server::snapshots::request::SaveOrder;
use crate::server::snapshots::save;
use crate::server::state::ServerState;

const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Waits for vanishing data, until the server ends.
pub async fn run(state: Arc<ServerState>, rescued: watch::Sender<Option<Rescued>>) {
    let mut storage = state.storage.clone();
    let mut stopping = state.context.stopping.clone();
    loop {
        let is_gone = is_gone(&storage.borrow_and_update());
        let is_saved = rescued.borrow().is_some();
        match (is_gone, is_saved) {
            (true, false) => match save(&state).await {
                Some(saved) => drop(rescued.send_replace(Some(saved))),
                None => tokio::time::sleep(RETRY_AFTER).await,
            },
            // It is back in its place, so the next event is a new case.
            (false, true) => drop(rescued.send_replace(None)),
            _ => tokio::select! {
                changed = storage.changed() => if changed.is_err() { return },
                _ = stopping.wait_for(|stopping| *stopping) => return,
            },
        }
    }
}

fn is_gone(storage: &StorageFacts) -> bool {
    [&storage.database, &storage.log].iter().any(|presence| matches!(presence, Presence::Missing | Presence::Replaced))
}

async fn save(state: &Arc<ServerState>) -> Option<Rescued> {
    let order = SaveOrder {
        base: NamePrefix::rescue(),
        dir: None,
        packing: None,
        reason: "rescue",
        labels: [("reason".to_owned(), "etcd's files vanished while it was running".to_owned())].into(),
        wait: true,
        s3: [].into(),
    };
    // Failures are logged there with the next step.
    let saved = save::save_and_upload(&state.snapshots, order, |_, _, _| {}).await.ok()?;
    let place: PathBuf = if saved.remote_only { saved.manifest.name.clone().into() } else { saved.path };
    tracing::warn!(snapshot = %place.display(), revision = saved.manifest.revision, "saved the data that vanished");
    Some(Rescued { snapshot: place, revision: saved.manifest.revision })
}
