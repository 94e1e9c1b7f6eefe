//! The interface of the child and its supervisor: states, status, commands with replies, and the handle.

use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;
use tokio::sync::{mpsc, oneshot, watch};

use super::launch::Launch;
use super::output::Tail;
use crate::error::{Code, Diagnostic, ErrorReport};

const QUEUED_COMMANDS: usize = 16;

/// Maximum number of recorded unexpected exits.
const MAX_RECORDED_EXITS: usize = 16;

/// The reply channel of a command. Dropped without a reply if the supervisor has ended.
pub type Reply = oneshot::Sender<Result<(), CommandError>>;

/// The commands of the supervisor. Each is answered when it is done or has failed.
#[derive(Debug)]
pub enum SupervisorCommand {
    /// Start the child with these arguments. Answered when it is spawned.
    Start(Box<Launch>, Reply),
    /// Stop the child with SIGTERM, or SIGKILL after its grace period, and rest. Answered when it is gone.
    Stop(Reply),
    /// Kill the child with SIGKILL, and rest. Answered when it is gone.
    Kill(Reply),
    /// Stop the child and start it again, with new arguments if given. Answered when it is spawned.
    Restart(Option<Box<Launch>>, Reply),
    /// Stop the child as [`Self::Stop`] does, and end the supervisor.
    Shutdown(Reply),
    /// The child of this generation serves clients, or is a healthy learner.
    Healthy(u64, Role),
}

/// Why a command was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    #[error("etcd is running already")]
    AlreadyRunning,
    /// There is no child, and no previous arguments.
    #[error("etcd was not started yet")]
    NotStarted,
    #[error("{0}")]
    Failed(Box<ErrorReport>),
    /// Another command, such as a shutdown, came first.
    #[error("another command came first")]
    Superseded,
    #[error("the supervisor of etcd has ended")]
    Ended,
}

impl Diagnostic for CommandError {
    fn code(&self) -> Code {
        match self {
            Self::Failed(report) => report.code,
            Self::AlreadyRunning | Self::NotStarted | Self::Superseded => Code::Busy,
            Self::Ended => Code::Stopping,
        }
    }
}

/// The role of a member in its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Receives the log, does not vote, and serves no linearizable reads.
    Learner,
    Voter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Resting: not started yet, or stopped on request.
    Stopped,
    Starting,
    /// Was seen healthy in this run.
    Running(Role),
    Stopping,
    /// Exited unexpectedly; waits before the next start.
    Backoff,
    /// Resting: it cannot be kept running. [`ChildStatus::failure`] says why.
    Failed,
}

impl State {
    pub const ALL: [Self; 7] = [
        Self::Stopped,
        Self::Starting,
        Self::Running(Role::Learner),
        Self::Running(Role::Voter),
        Self::Stopping,
        Self::Backoff,
        Self::Failed,
    ];

    /// Its name in JSON and metrics. A voter is `ready`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Running(Role::Learner) => "learner",
            Self::Running(Role::Voter) => "ready",
            Self::Stopping => "stopping",
            Self::Backoff => "backoff",
            Self::Failed => "failed",
        }
    }

    /// True if there is a process that may respond.
    #[must_use]
    pub const fn is_alive(self) -> bool {
        matches!(self, Self::Starting | Self::Running(_))
    }
}

#[derive(Clone, Debug)]
pub struct ChildStatus {
    pub state: State,
    /// Its process id, while it runs.
    pub pid: Option<i32>,
    /// Counts the starts, from 1.
    pub generation: u64,
    pub started: Option<SystemTime>,
    /// Time from the start of this process until it was healthy.
    pub ready_after: Option<Duration>,
    pub last_exit: Option<String>,
    /// The times of the last unexpected exits.
    pub exits: Vec<Instant>,
    /// Why it cannot be kept running, in [`State::Failed`].
    pub failure: Option<ErrorReport>,
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
            failure: None,
            tail: Tail::default(),
        }
    }

    pub fn exited(&mut self, exit: String, at: Instant) {
        self.last_exit = Some(exit);
        if self.exits.len() >= MAX_RECORDED_EXITS {
            self.exits.remove(0);
        }
        self.exits.push(at);
    }

    /// Starts after the first, requested or not.
    #[must_use]
    pub fn restarts(&self) -> u64 {
        self.generation.saturating_sub(1)
    }
}

/// Sends commands to the supervisor and watches the child.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: mpsc::Sender<SupervisorCommand>,
    status: watch::Receiver<ChildStatus>,
}

impl Handle {
    /// A handle, and the supervisor's ends of it.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<SupervisorCommand>, watch::Sender<ChildStatus>) {
        let (sender, commands) = mpsc::channel(QUEUED_COMMANDS);
        let (status, watcher) = watch::channel(ChildStatus::not_started());
        (Self { commands: sender, status: watcher }, commands, status)
    }

    /// Starts the child; returns when it is spawned, before it is healthy.
    pub async fn start(&self, launch: Launch) -> Result<(), CommandError> {
        self.ask(|reply| SupervisorCommand::Start(Box::new(launch), reply)).await
    }

    /// Stops the child; the supervisor rests.
    pub async fn stop(&self) -> Result<(), CommandError> {
        self.ask(SupervisorCommand::Stop).await
    }

    /// Kills the child; the supervisor rests.
    pub async fn kill(&self) -> Result<(), CommandError> {
        self.ask(SupervisorCommand::Kill).await
    }

    /// Stops the child and starts it again, with new arguments if given.
    pub async fn restart(&self, launch: Option<Launch>) -> Result<(), CommandError> {
        self.ask(|reply| SupervisorCommand::Restart(launch.map(Box::new), reply)).await
    }

    /// Stops the child and ends the supervisor.
    pub async fn shut_down(&self) -> Result<(), CommandError> {
        match self.ask(SupervisorCommand::Shutdown).await {
            Err(CommandError::Ended) => Ok(()),
            answer => answer,
        }
    }

    /// Kills the child and ends the supervisor.
    ///
    /// # Errors
    /// If the child does not end: the supervisor rests then, and a shutdown alone would not say so.
    pub async fn kill_and_shut_down(&self) -> Result<(), CommandError> {
        let killed = self.kill().await;
        self.shut_down().await?;
        match killed {
            Err(CommandError::Ended) => Ok(()),
            killed => killed,
        }
    }

    /// Reports that the child of this generation is healthy.
    pub async fn report_healthy(&self, generation: u64, role: Role) {
        let _ = self.commands.send(SupervisorCommand::Healthy(generation, role)).await;
    }

    async fn ask(&self, command: impl FnOnce(Reply) -> SupervisorCommand) -> Result<(), CommandError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| CommandError::Ended)?;
        answer.await.unwrap_or(Err(CommandError::Ended))
    }

    /// The status, and every change of it.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<ChildStatus> {
        self.status.clone()
    }
}
