//! The background tasks of a server: each runs as long as the server, and if one ends, the server stops in order.
//!
//! Otherwise an outdated status would be shown forever. Each task is a fault point, `task::NAME`.

use std::collections::HashMap;

use tokio::task::{Id, JoinSet};

use crate::error::{Code, Diagnostic};
use crate::faults;

/// A task ended while the server was running.
#[derive(Debug, thiserror::Error)]
#[error("the background task `{name}` of the server ended unexpectedly: {why}")]
pub(crate) struct TaskEnded {
    name: &'static str,
    why: String,
}

impl Diagnostic for TaskEnded {
    fn code(&self) -> Code {
        Code::TaskEnded
    }

    fn next_step(&self) -> Option<String> {
        Some("this is a bug of quorate: restart the server, and report it with journalctl -u quorate-server".into())
    }
}

#[derive(Debug, Default)]
pub(crate) struct Tasks {
    set: JoinSet<()>,
    names: HashMap<Id, &'static str>,
}

impl Tasks {
    /// Runs `task` until the server ends.
    pub(crate) fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let started = self.set.spawn(async move {
            if faults::point(&format!("task::{name}")).is_ok() {
                task.await;
            }
        });
        self.names.insert(started.id(), name);
    }

    /// Waits until one of them ends, which should not happen.
    pub(crate) async fn ended(&mut self) -> TaskEnded {
        let Some(ended) = self.set.join_next_with_id().await else { return std::future::pending().await };
        let (id, why) = match ended {
            Ok((id, ())) => (id, "it returned".to_owned()),
            Err(error) => (error.id(), error.to_string()),
        };
        TaskEnded { name: self.names.get(&id).copied().unwrap_or("unknown"), why }
    }

    pub(crate) async fn shut_down(&mut self) {
        self.set.shutdown().await;
    }
}
