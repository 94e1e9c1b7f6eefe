//! The condition of this server: all observations, assessed by `plan::health`; changes are logged.

use std::time::Duration;

use crate::error::Code;
use crate::etcd::child::State;
use crate::plan::condition::Condition;
use crate::plan::health::{Assessment, EXIT_WINDOW, ServerFacts, assess};
use crate::server::health::Health;
use crate::server::state::ServerState;

#[must_use]
pub fn assess_now(state: &ServerState) -> Assessment {
    assess(&observe(state))
}

fn observe(state: &ServerState) -> ServerFacts {
    let child = state.context.child.borrow().clone();
    let health = state.context.health.borrow().clone();
    let history = state.snapshots.history();
    let (alarms, db_size) = match &health {
        Health::Healthy(facts) => (facts.alarms.clone(), u64::try_from(facts.db_size).unwrap_or(0)),
        _ => (Vec::new(), 0),
    };
    ServerFacts {
        not_serving: not_serving(child.state, child.last_exit.as_deref(), &health),
        alarms,
        db_size,
        db_quota: state.context.config.etcd.effective_quota(),
        recent_exits: child.exits.iter().filter(|at| at.elapsed() < EXIT_WINDOW).count(),
        last_exit: child.last_exit,
        snapshot_failures: history.failures,
        snapshot_failure: history.last_failure,
        snapshots_unlisted: history.unlisted,
        storage: state.storage.borrow().clone(),
        rescued: state.rescued.borrow().clone(),
        etcd_dir: state.context.data.etcd(),
        data_dir: state.context.data.root().to_path_buf(),
        invocation: state.context.config.invocation.clone(),
    }
}

fn not_serving(state: State, last_exit: Option<&str>, health: &Health) -> Option<String> {
    match (state, health) {
        (State::Backoff | State::Failed, _) => {
            let exit = last_exit.unwrap_or("an unknown exit status");
            Some(format!("etcd exited unexpectedly, with {exit}; it will be restarted soon"))
        }
        (State::Running(_), Health::Healthy(_)) => None,
        (_, Health::Learner) => Some("this member is a learner and may not vote yet".into()),
        (State::Running(_), Health::Unhealthy(why)) => Some(why.clone()),
        (State::Running(_), Health::Unknown) => Some("etcd was not checked yet".into()),
        (state, _) => Some(format!("etcd is {}", state.word())),
    }
}

/// Records which problems were logged, so that each is logged once, and once more when it is resolved.
#[derive(Debug, Default)]
pub struct LoggedProblems(Vec<Code>);

impl LoggedProblems {
    /// Logs new and resolved problems, except those that the health check logs.
    pub fn update(&mut self, found: &Assessment) {
        for problem in &found.problems {
            if problem.code == Code::EtcdNotServing || self.0.contains(&problem.code) {
                continue;
            }
            let (code, next, message) = (problem.code.name(), problem.next.as_deref(), &problem.message);
            if problem.condition == Condition::Unhealthy {
                tracing::error!(code, next, "{message}");
            } else {
                tracing::warn!(code, next, "{message}");
            }
        }
        for code in self.0.iter().filter(|code| found.problems.iter().all(|problem| problem.code != **code)) {
            if *code != Code::EtcdNotServing {
                tracing::info!(code = code.name(), "problem resolved");
            }
        }
        self.0 = found.problems.iter().map(|problem| problem.code).collect();
    }
}

/// The interval of assessments for the log and the service manager.
pub const INTERVAL: Duration = Duration::from_secs(3);
