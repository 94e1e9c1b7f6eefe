//! `/livez`: the launcher works. `/readyz`: etcd is healthy, so clients can be sent here.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;

use crate::etcd::child::State as ChildState;
use crate::server::health::Health;
use crate::server::state::Shared;

/// Always 200: answering is the proof.
pub async fn live() -> &'static str {
    "ok\n"
}

/// 200 if etcd is ready and was healthy when last asked, else 503 and why.
pub async fn ready(State(shared): State<Arc<Shared>>) -> (StatusCode, String) {
    match verdict(&shared) {
        Ok(()) => (StatusCode::OK, "ok\n".into()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

fn explain(alarms: &[String]) -> String {
    let words = alarms.iter().map(|alarm| match alarm.as_str() {
        "NOSPACE" => "NOSPACE (the database has reached its quota, and writes are refused: quorate space)",
        "CORRUPT" => "CORRUPT (members differ in their data, and requests are refused)",
        other => other,
    });
    words.collect::<Vec<_>>().join(", ")
}

/// Why etcd is not healthy, if it is not.
pub(super) fn verdict(shared: &Shared) -> Result<(), String> {
    let state = shared.child.borrow().state;
    if let ChildState::Backoff | ChildState::Failed = state {
        let exit = shared.child.borrow().last_exit.clone().unwrap_or_else(|| "an unknown end".into());
        return Err(format!("etcd ended by itself, with {exit}; it is started again soon"));
    }
    if state != ChildState::Ready {
        return Err(format!("etcd is {}", state.word()));
    }
    match &*shared.health.borrow() {
        Health::Healthy(facts) => match facts.alarms.as_slice() {
            [] => Ok(()),
            alarms => Err(format!("etcd has raised an alarm: {}", explain(alarms))),
        },
        Health::Unhealthy(why) => Err(why.clone()),
        Health::Unknown => Err("etcd was not asked yet".into()),
    }
}
