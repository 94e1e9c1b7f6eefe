//! One task owns the child; everyone else sends it commands and watches its state.
//!
//! ```text
//!            start / spawn            seen healthy
//! Stopped ────────────────▶ Starting ────────────▶ Running (learner | voter) Failed  ─┘                 │    │        
//!           │   │ ▲ ▲                 stop │    │ exit         exit │   │ stop │ │                      ▼    ▼        
//!           ▼   ▼ │ └────────────── Stopping   Backoff ◀────────────┘  Stopping │                              │  └─
//! wait over: spawn again └── five fast exits, data gone ┘
//! ```
//!
//! `Stopped` and `Failed` are resting states: the supervisor waits there for the next start, perhaps with new
//! arguments, and ends only at a shutdown. The child is stopped with SIGTERM and killed after its grace period, or at
//! once by a kill. `plan::child` decides how long to wait between starts and when to stop trying. Spawning, watching
//! and ending a process is behind [`Spawn`] and [`Process`]: `running` has the real ones, the tests here a fake.

mod error;
mod pending;

use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use super::child::{ChildStatus, CommandError, Handle, Reply, Role, State, SupervisorCommand};
use super::launch::Launch;
use super::output::Tail;
use crate::clock;
use crate::error::ErrorReport;
use crate::faults;
use crate::plan::child::{ExitHistory, MAX_FAST_EXITS, Next, Run};
use crate::random;
pub use error::{KeepsExiting, Unkillable, indented};
use pending::{Pending, answer};

pub trait Spawn: Send + 'static {
    type Process: Process;

    fn spawn(&mut self, launch: &Launch, tail: Tail) -> impl Future<Output = Result<Self::Process, String>> + Send;
}

pub trait Process: Send {
    fn pid(&self) -> i32;

    fn ended(&mut self) -> impl Future<Output = ()> + Send;

    /// Sends SIGTERM. Not an error if it is gone.
    fn terminate(&mut self);

    /// Sends SIGKILL. Not an error if it is gone.
    fn kill(&mut self);

    /// Its exit status, for messages; `None` while it runs. Its output has been read completely then.
    fn reap(&mut self) -> impl Future<Output = Option<String>> + Send;
}

#[derive(Debug)]
pub struct Supervisor<S> {
    spawner: S,
    commands: mpsc::Receiver<SupervisorCommand>,
    status: watch::Sender<ChildStatus>,
    launch: Option<Box<Launch>>,
    history: ExitHistory,
    was_healthy: bool,
    spawned_at: Instant,
    /// The duration of a wait; tests shorten it.
    pause: fn(Duration) -> Duration,
}

enum NextStep<P> {
    Rest,
    /// Start the child, and send the reply.
    Spawn(Option<Reply>),
    Watch(P),
    /// Wait before it is started again.
    Backoff(Duration),
    End,
}

impl<S: Spawn> Supervisor<S> {
    /// A resting supervisor, and its handle.
    #[must_use]
    pub fn new(spawner: S) -> (Self, Handle) {
        let (handle, commands, status) = Handle::new();
        let supervisor = Self {
            spawner,
            commands,
            status,
            launch: None,
            history: ExitHistory::default(),
            was_healthy: false,
            spawned_at: clock::monotonic(),
            pause: |wait| faults::tunable("QUORATE_TEST_BACKOFF_MS", wait),
        };
        (supervisor, handle)
    }

    /// Carries out commands until a shutdown, or until no handle is left.
    pub async fn run(mut self) {
        let mut step = NextStep::Rest;
        loop {
            step = match step {
                NextStep::Rest => self.rest().await,
                NextStep::Spawn(reply) => self.spawn(reply).await,
                NextStep::Watch(process) => self.watch(process).await,
                NextStep::Backoff(wait) => self.back_off(wait).await,
                NextStep::End => return,
            };
        }
    }

    fn enter(&self, state: State, also: impl FnOnce(&mut ChildStatus)) {
        self.status.send_modify(|status| {
            status.state = state;
            if !state.is_alive() && state != State::Stopping {
                status.pid = None;
            }
            also(status);
        });
    }

    fn stopped(&self) {
        self.enter(State::Stopped, |_| {});
    }

    fn fail(&self, why: ErrorReport) {
        self.enter(State::Failed, |status| status.failure = Some(why));
    }

    async fn rest(&mut self) -> NextStep<S::Process> {
        loop {
            match self.commands.recv().await {
                Some(SupervisorCommand::Start(launch, reply) | SupervisorCommand::Restart(Some(launch), reply)) => {
                    return self.begin(launch, reply);
                }
                Some(SupervisorCommand::Restart(None, reply)) if self.launch.is_some() => {
                    return NextStep::Spawn(Some(reply));
                }
                Some(SupervisorCommand::Restart(None, reply)) => answer(reply, Err(CommandError::NotStarted)),
                Some(SupervisorCommand::Stop(reply) | SupervisorCommand::Kill(reply)) => answer(reply, Ok(())),
                Some(SupervisorCommand::Healthy(..)) => {}
                Some(SupervisorCommand::Shutdown(reply)) => {
                    answer(reply, Ok(()));
                    return NextStep::End;
                }
                None => return NextStep::End,
            }
        }
    }

    /// A requested start has a new history of exits.
    fn begin(&mut self, launch: Box<Launch>, reply: Reply) -> NextStep<S::Process> {
        self.launch = Some(launch);
        self.history = ExitHistory::default();
        self.was_healthy = false;
        NextStep::Spawn(Some(reply))
    }

    async fn spawn(&mut self, reply: Option<Reply>) -> NextStep<S::Process> {
        let Some(launch) = self.launch.clone() else { return NextStep::Rest };
        if self.was_healthy
            && let Some(check) = launch.restart_check.clone()
        {
            // This reads the disk.
            let checked = tokio::task::spawn_blocking(move || (check.0)()).await;
            if let Ok(Err(why)) = checked {
                let report = why.to_report();
                self.fail(report.clone());
                if let Some(reply) = reply {
                    answer(reply, Err(CommandError::Failed(Box::new(report))));
                }
                return NextStep::Rest;
            }
        }
        let tail = Tail::default();
        self.spawned_at = clock::monotonic();
        match self.spawner.spawn(&launch, tail.clone()).await {
            Ok(process) => {
                let pid = process.pid();
                self.enter(State::Starting, |status| {
                    status.pid = Some(pid);
                    status.generation += 1;
                    status.started = Some(clock::now());
                    status.ready_after = None;
                    status.failure = None;
                    status.tail = tail;
                });
                let program = launch.program.path().display();
                if self.status.borrow().restarts() > 0 {
                    tracing::info!(pid, %program, "etcd started again");
                } else {
                    tracing::debug!(pid, %program, "etcd started");
                }
                if let Some(reply) = reply {
                    answer(reply, Ok(()));
                }
                NextStep::Watch(process)
            }
            Err(why) => {
                // It is retried, as after an exit, so that the requester need not retry.
                if let Some(reply) = reply {
                    answer(reply, Ok(()));
                }
                self.after_exit(Run { lived: Duration::ZERO, healthy: Duration::ZERO }, why)
            }
        }
    }

    /// After an unexpected exit: restart it, or stop trying.
    fn after_exit(&mut self, run: Run, exit: String) -> NextStep<S::Process> {
        match self.history.exited(run, random::jitter()) {
            Next::Retry(wait) => {
                tracing::warn!(
                    event = "etcd-exited",
                    exit,
                    retry_in_ms = wait.as_millis(),
                    "etcd exited unexpectedly; restarting it"
                );
                self.enter(State::Backoff, |status| status.exited(exit, clock::monotonic()));
                NextStep::Backoff(wait)
            }
            Next::GiveUp => {
                let lines = self.status.borrow().tail.lines();
                let why = KeepsExiting { times: MAX_FAST_EXITS, exit: exit.clone(), lines };
                self.enter(State::Backoff, |status| status.exited(exit, clock::monotonic()));
                self.fail(ErrorReport::of(&why));
                NextStep::Rest
            }
        }
    }

    /// Watches one process until it exits or is stopped.
    async fn watch(&mut self, mut process: S::Process) -> NextStep<S::Process> {
        let started = self.spawned_at;
        let mut healthy_since = None;
        let asked = loop {
            tokio::select! {
                biased;
                () = process.ended() => break None,
                command = self.commands.recv() => match command {
                    Some(SupervisorCommand::Healthy(generation, role)) => {
                        self.healthy(generation, role, started, &mut healthy_since);
                    }
                    Some(SupervisorCommand::Start(_, reply)) => answer(reply, Err(CommandError::AlreadyRunning)),
                    Some(command) => break Some(command),
                    None => {
                        self.end(&mut process, false, &mut Pending::default()).await;
                        self.stopped();
                        return NextStep::End;
                    }
                },
            }
        };
        let Some(command) = asked else {
            let now = clock::monotonic();
            return match process.reap().await {
                Some(exit) => {
                    self.status.borrow().tail.show();
                    // Its last fatal line is the reason, such as a full disk.
                    let line = self.status.borrow().tail.fatal_line();
                    let exit = line.map_or_else(|| exit.clone(), |line| format!("{exit}: {line}"));
                    let healthy = healthy_since.map_or(Duration::ZERO, |since| now.duration_since(since));
                    self.after_exit(Run { lived: now.duration_since(started), healthy }, exit)
                }
                None => self.unkillable(process.pid(), Pending::default()),
            };
        };
        self.end_on(command, process).await
    }

    /// Ends the process on command, and returns the next state.
    async fn end_on(&mut self, command: SupervisorCommand, mut process: S::Process) -> NextStep<S::Process> {
        let mut pending = Pending::default();
        let at_once = matches!(command, SupervisorCommand::Kill(_));
        pending.add(command);
        self.end(&mut process, at_once, &mut pending).await;
        let Some(exit) = process.reap().await else { return self.unkillable(process.pid(), pending) };
        tracing::info!(event = "etcd-stopped", pid = process.pid(), exit, "etcd stopped");
        if pending.is_shutdown {
            self.stopped();
            pending.answer(&Ok(()));
            return NextStep::End;
        }
        if let Some((launch, reply)) = pending.restart.take() {
            pending.answer(&Ok(()));
            return match launch {
                Some(launch) => self.begin(launch, reply),
                None => NextStep::Spawn(Some(reply)),
            };
        }
        self.stopped();
        pending.answer(&Ok(()));
        NextStep::Rest
    }

    /// Its record is kept, so that the next launcher waits for it instead of starting another.
    fn unkillable(&self, pid: i32, mut pending: Pending) -> NextStep<S::Process> {
        let report = ErrorReport::of(&Unkillable(pid));
        self.fail(report.clone());
        let failed = Err(CommandError::Failed(Box::new(report)));
        if let Some((_, reply)) = pending.restart.take() {
            answer(reply, failed.clone());
        }
        let is_over = pending.is_shutdown;
        pending.answer(&failed);
        if is_over { NextStep::End } else { NextStep::Rest }
    }

    fn healthy(&mut self, generation: u64, role: Role, started: Instant, since: &mut Option<Instant>) {
        if self.status.borrow().generation != generation || self.status.borrow().state == State::Running(role) {
            return;
        }
        let after = since.get_or_insert_with(clock::monotonic).duration_since(started);
        self.status.borrow().tail.hide();
        self.was_healthy = true;
        self.enter(State::Running(role), |status| {
            // A learner that becomes a voter was healthy before.
            status.ready_after.get_or_insert(after);
        });
    }

    /// Ends the process: SIGTERM, the grace period, SIGKILL. Commands in the meantime can only speed it up, or turn it
    /// into a stop.
    async fn end(&mut self, process: &mut S::Process, at_once: bool, pending: &mut Pending) {
        self.enter(State::Stopping, |_| {});
        let grace = self.launch.as_ref().map_or(Duration::ZERO, |launch| launch.grace);
        let pid = process.pid();
        if !at_once {
            process.terminate();
            let deadline = tokio::time::sleep(grace);
            tokio::pin!(deadline);
            loop {
                tokio::select! {
                    () = process.ended() => return,
                    () = &mut deadline => {
                        tracing::warn!(
                            event = "etcd-killed",
                            pid,
                            grace_seconds = grace.as_secs(),
                            "etcd did not exit in time; killing it"
                        );
                        break;
                    }
                    Some(command) = self.commands.recv() => {
                        let is_kill = matches!(command, SupervisorCommand::Kill(_));
                        pending.add(command);
                        if is_kill {
                            tracing::warn!(event = "second-signal", pid, "killing etcd at once");
                            break;
                        }
                    }
                }
            }
        }
        process.kill();
        // A killed process ends at once, unless it waits for a disk; then waiting longer does not help either.
        let _ = tokio::time::timeout(grace, process.ended()).await;
    }

    async fn back_off(&mut self, wait: Duration) -> NextStep<S::Process> {
        let over = tokio::time::sleep((self.pause)(wait));
        tokio::pin!(over);
        loop {
            tokio::select! {
                () = &mut over => return NextStep::Spawn(None),
                command = self.commands.recv() => match command {
                    Some(SupervisorCommand::Healthy(..)) => {}
                    Some(SupervisorCommand::Start(launch, reply) | SupervisorCommand::Restart(Some(launch), reply)) => {
                        return self.begin(launch, reply);
                    }
                    // It is about to be started again anyway.
                    Some(SupervisorCommand::Restart(None, reply)) => return NextStep::Spawn(Some(reply)),
                    Some(SupervisorCommand::Stop(reply) | SupervisorCommand::Kill(reply)) => {
                        self.stopped();
                        answer(reply, Ok(()));
                        return NextStep::Rest;
                    }
                    Some(SupervisorCommand::Shutdown(reply)) => {
                        self.stopped();
                        answer(reply, Ok(()));
                        return NextStep::End;
                    }
                    None => return NextStep::End,
                },
            }
        }
    }
}

#[cfg(test)]
mod tests;
