//! `/livez`: the launcher works. `/readyz`: the server can serve clients.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;

use crate::plan::condition::Condition;
use crate::plan::health::Assessment;
use crate::server::condition;
use crate::server::state::ServerState;

/// Always 200.
pub async fn live() -> &'static str {
    "ok\n"
}

/// 200 while clients can be served (healthy or degraded); else 503 with the reason. With `?verbose` all problems, one
/// per line.
pub async fn ready(State(state): State<Arc<ServerState>>, RawQuery(query): RawQuery) -> (StatusCode, String) {
    let found = condition::assess_now(&state);
    let status = if found.condition == Condition::Unhealthy { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    let is_verbose =
        query.is_some_and(|query| query.split('&').any(|part| part == "verbose" || part == "verbose=true"));
    (status, if is_verbose { verbose(&found) } else { short(&found) })
}

fn short(found: &Assessment) -> String {
    match (found.condition, found.reason()) {
        (Condition::Unhealthy, Some(why)) => format!("{why}\n"),
        _ => "ok\n".into(),
    }
}

fn verbose(found: &Assessment) -> String {
    let mut text = format!("{}\n", found.condition.word());
    for problem in &found.problems {
        let _ = writeln!(text, "[{}] {}: {}", problem.condition.word(), problem.code, problem.message);
        if let Some(next) = &problem.next {
            let _ = writeln!(text, "    next: {next}");
        }
    }
    text
}
