//! What everyone may know of the child and ask of its owner: its states, its status, orders, and the handle for both.

use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;
use tokio::sync::{mpsc, watch};

use crate::etcd::output::Tail;

/// Orders that may wait for the owner.
const QUEUED_COMMANDS: usize = 16;

/// Ends that are remembered.
const MAX_RECORDED_EXITS: usize = 16;

/// What may be asked of the owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SupervisorCommand {
    /// End the child in order, then end.
    Stop,
    /// End it now.
    Kill,
    /// End the child in order, and start it again at once.
    Restart,
    /// The child of this generation was seen to be healthy.
    IsReady(u64),
}

/// The states of the child.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Not started yet, or ended as asked.
    Stopped,
    /// Runs, not seen healthy yet.
    Starting,
    /// Was seen healthy in this life.
    Ready,
    /// Asked to end.
    Stopping,
    /// Ended by itself; waiting before the next life.
    Backoff,
    /// Ended by itself too often.
    Failed,
}

impl State {
    /// All of them, for metrics.
    pub const ALL: [Self; 6] =
        [Self::Stopped, Self::Starting, Self::Ready, Self::Stopping, Self::Backoff, Self::Failed];

    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Stopping => "stopping",
            Self::Backoff => "backoff",
            Self::Failed => "failed",
        }
    }
}

/// What everyone may know of the child.
#[derive(Clone, Debug)]
pub struct ChildStatus {
    /// Its state.
    pub state: State,
    /// Its process id, while it runs.
    pub pid: Option<i32>,
    /// Which life this is, from 1.
    pub generation: u64,
    /// When this life began.
    pub started: Option<SystemTime>,
    /// How long this life took from spawn to being ready.
    pub ready_after: Option<Duration>,
    /// How the last life ended that ended by itself.
    pub last_exit: Option<String>,
    /// When it ended by itself, the last few times.
    pub exits: Vec<Instant>,
    /// The last lines it printed.
    pub tail: Tail,
}

impl ChildStatus {
    fn not_started() -> Self {
        Self {
            state: State::Stopped,
            pid: None,
            generation: 0,
            started: None,
            ready_after: None,
            last_exit: None,
            exits: Vec::new(),
            tail: Tail::default(),
        }
    }

    /// Notes an end that nobody asked for.
    pub fn exited(&mut self, exit: String, at: Instant) {
        self.last_exit = Some(exit);
        if self.exits.len() >= MAX_RECORDED_EXITS {
            self.exits.remove(0);
        }
        self.exits.push(at);
    }

    /// Lives after the first, asked for or not.
    #[must_use]
    pub fn restarts(&self) -> u64 {
        self.generation.saturating_sub(1)
    }
}

/// Sends orders to the owner and watches the child.
#[derive(Clone, Debug)]
pub struct Handle {
    orders: mpsc::Sender<SupervisorCommand>,
    status: watch::Receiver<ChildStatus>,
}

impl Handle {
    /// A handle, and the owner's ends of it.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<SupervisorCommand>, watch::Sender<ChildStatus>) {
        let (sender, orders) = mpsc::channel(QUEUED_COMMANDS);
        let (status, watcher) = watch::channel(ChildStatus::not_started());
        (Self { orders: sender, status: watcher }, orders, status)
    }

    /// Sends an order. If the owner has ended already there is nothing left to order.
    pub async fn send(&self, order: SupervisorCommand) {
        let _ = self.orders.send(order).await;
    }

    /// The state, and every change of it.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<ChildStatus> {
        self.status.clone()
    }
}
