//! One task owns the child; everyone else sends it orders and watches its state.
//!
//! ```text
//!            spawn              reported ready
//! Stopped ──────────▶ Starting ───────────────▶ Ready
//!    ▲                 │    │                   │   │
//!    │            stop │    │ exit         exit │   │ stop
//!    │                 ▼    ▼                   ▼   ▼
//!    ├───────────── Stopping  Backoff ◀─────────┘  Stopping
//!    │                          │  └─ wait over: spawn again
//!    └── stop ──────────────────┘  └─ five exits at once: GaveUp
//! ```
//!
//! The child is asked to end with SIGTERM and killed after the grace, or at once on [`Order::Kill`]. How long to wait
//! between lives and when to give up is decided by `plan::child`. A life is recorded on disk before anybody is told of it,
//! so that the next launcher recognises the child if this one is killed.

use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::unix::pipe;
use tokio::sync::{mpsc, watch};

use crate::clock;
use crate::datadir::DataDir;
use crate::durable::WriteError;
use crate::error::{AppError, Code, Diagnostic, ErrorReport};
use crate::etcd::child::{ChildStatus, Handle, State, SupervisorCommand};
use crate::etcd::orphan;
use crate::etcd::output::{self, Tail};
use crate::etcd::pinned::{Executable, PinnedExecutable};
use crate::etcd::process::{self, ProcessHandle, Spawner, become_user, etcd_environment};
use crate::faults;
use crate::host::{self, MemoryKills, User};
use crate::log_failure;
use crate::plan::child::{History, Next, Run};

/// How long after its end a child's pipes may still give lines.
const OUTPUT_DRAIN_TIMEOUT: Duration = Duration::from_millis(500);
/// How often the kernel's count of processes killed for want of memory is looked at: a kill is blamed on memory only if the
/// count went up since.
const MEMORY_INTERVAL: Duration = Duration::from_secs(2);

/// What to run.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The executable.
    pub program: PinnedExecutable,
    /// Who runs it, if not we.
    pub user: Option<User>,
    /// Its arguments.
    pub args: Vec<String>,
    /// Where the child is recorded.
    pub data: DataDir,
    /// How long it may take to end when asked to.
    pub grace: Duration,
    /// Asked before etcd is started again after it had been ready; `None` where the data is nobody's.
    pub restart_check: Option<RestartCheck>,
}

/// Whether etcd may be started again on its data: an etcd whose data is gone would silently begin an empty cluster.
#[derive(Clone)]
pub struct RestartCheck(pub Arc<dyn Fn() -> Result<(), AppError> + Send + Sync>);

impl std::fmt::Debug for RestartCheck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RestartCheck")
    }
}

/// How it all ended.
#[derive(Debug)]
pub enum Ended {
    /// As asked.
    Stopped,
    /// The child cannot be kept running.
    GaveUp(KeepsExiting),
    /// The child was killed and is still there.
    Stuck(Unkillable),
    /// The data is gone, so the child is not started again.
    DataLost(AppError),
}

/// The child was killed and is still there.
#[derive(Debug, thiserror::Error)]
#[error("etcd (pid {0}) was killed and does not end: it waits for a disk that does not answer")]
pub struct Unkillable(i32);

impl Diagnostic for Unkillable {
    fn code(&self) -> Code {
        Code::EtcdUnkillable
    }

    fn next_step(&self) -> Option<String> {
        Some(format!("see dmesg, and cat /proc/{}/stack; a later start waits until it is gone", self.0))
    }
}

/// The child cannot be kept running.
#[derive(Debug, thiserror::Error)]
#[error("etcd ended {times} times right after its start, the last time with {exit}; its last lines:{}", indented(.lines))]
pub struct KeepsExiting {
    times: u32,
    exit: String,
    lines: Vec<String>,
}

/// Each line on one of its own, for a message.
#[must_use]
pub fn indented(lines: &[String]) -> String {
    if lines.is_empty() {
        return "\n    (it printed nothing)".into();
    }
    lines.iter().map(|line| format!("\n    {}", output::short(line))).collect()
}

impl Diagnostic for KeepsExiting {
    fn code(&self) -> Code {
        Code::EtcdKeepsExiting
    }

    fn next_step(&self) -> Option<String> {
        Some("the reason is in etcd's lines above; mend it and start again. The data was not touched by quorate".into())
    }
}

/// The owner, before it runs.
#[derive(Debug)]
pub struct Supervisor {
    launch: Launch,
    spawner: Spawner,
    orders: mpsc::Receiver<SupervisorCommand>,
    status: watch::Sender<ChildStatus>,
    history: History,
    was_ready: bool,
}

struct Running {
    child: Child,
    handle: ProcessHandle,
    started: Instant,
    ready: Option<Instant>,
    /// As of a moment ago.
    memory_kills: MemoryKills,
    pumps: tokio::task::JoinSet<()>,
    /// By this supervisor, with SIGKILL.
    was_killed: bool,
}

enum ChildExit {
    AsAsked,
    /// To be started again at once.
    Restart,
    Stuck(i32),
    ByItself(Run, String),
}

impl Supervisor {
    /// An owner for `launch`, and the handle to it.
    #[must_use]
    pub fn new(launch: Launch, spawner: Spawner) -> (Self, Handle) {
        let (handle, orders, status) = Handle::new();
        let supervisor = Self { launch, spawner, orders, status, history: History::default(), was_ready: false };
        (supervisor, handle)
    }

    /// Runs the child until it is asked to stop, or cannot be kept running.
    pub async fn run(mut self) -> Ended {
        loop {
            if self.was_ready
                && let Some(check) = &self.launch.restart_check
                && let Err(why) = (check.0)()
            {
                self.enter(State::Failed, |_| {});
                return Ended::DataLost(why);
            }
            let (life, exit) = match self.spawn().await {
                Ok(running) => match self.watch_child(running).await {
                    ChildExit::AsAsked => return self.stopped(),
                    ChildExit::Restart => continue,
                    ChildExit::Stuck(pid) => return Ended::Stuck(Unkillable(pid)),
                    ChildExit::ByItself(life, exit) => (life, exit),
                },
                Err(why) => (Run { lived: Duration::ZERO, healthy: Duration::ZERO }, why),
            };
            match self.history.exited(life, crate::random::jitter()) {
                Next::Retry(wait) => {
                    tracing::warn!(
                        event = "etcd-exited",
                        exit,
                        retry_in_ms = wait.as_millis(),
                        "etcd exited unexpectedly; restarting it"
                    );
                    self.enter(State::Backoff, |status| status.exited(exit, clock::monotonic()));
                    if self.back_off(wait).await {
                        return self.stopped();
                    }
                }
                Next::GiveUp => {
                    self.enter(State::Failed, |status| status.exited(exit.clone(), clock::monotonic()));
                    let lines = self.status.borrow().tail.lines();
                    return Ended::GaveUp(KeepsExiting { times: crate::plan::child::MAX_FAST_EXITS, exit, lines });
                }
            }
        }
    }

    fn enter(&self, state: State, also: impl FnOnce(&mut ChildStatus)) {
        self.status.send_modify(|status| {
            status.state = state;
            if !matches!(state, State::Starting | State::Ready | State::Stopping) {
                status.pid = None;
            }
            also(status);
        });
    }

    fn stopped(&self) -> Ended {
        self.enter(State::Stopped, |_| {});
        Ended::Stopped
    }

    async fn spawn(&mut self) -> Result<Running, String> {
        let tail = Tail::default();
        let name = self.launch.program.path();
        let cannot_run = |error| format!("{} cannot be run: {error}", name.display());
        let mut command = match self.launch.program.executable().map_err(cannot_run)? {
            Executable::AsChecked(path) => Command::new(path),
            Executable::Replaced(link) => {
                tracing::warn!(
                    event = "etcd-binary-replaced",
                    program = %name.display(),
                    "another file is in the place of this etcd now; the one that was checked runs on until quorate is restarted"
                );
                let mut command = Command::new(link);
                command.arg0(name);
                command
            }
        };
        etcd_environment(&mut command);
        if let Some(user) = &self.launch.user {
            become_user(&mut command, user);
        }
        command.args(&self.launch.args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let started = clock::monotonic();
        let mut child = self.spawner.spawn(command).await.map_err(cannot_run)?;
        let pid = i32::try_from(child.id()).unwrap_or_default();
        let handle = match ProcessHandle::open(pid) {
            Ok(handle) => handle,
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                process::forget(pid);
                return Err(format!("it cannot be watched: {error}"));
            }
        };
        if let Some(identity) = host::identify(pid) {
            note_failure(orphan::record(&self.launch.data, &identity));
        }
        let mut pumps = tokio::task::JoinSet::new();
        let pipes = [child.stdout.take().map(Into::into), child.stderr.take().map(Into::into)];
        for fd in pipes.into_iter().flatten() {
            match pipe::Receiver::from_owned_fd(fd) {
                Ok(receiver) => drop(pumps.spawn(output::forward_output(receiver, tail.clone()))),
                Err(error) => tracing::warn!(%error, "etcd's output cannot be read"),
            }
        }
        self.enter(State::Starting, |status| {
            status.pid = Some(pid);
            status.generation += 1;
            status.started = Some(clock::now());
            status.ready_after = None;
            status.tail = tail;
        });
        let program = self.launch.program.path().display();
        if self.status.borrow().restarts() > 0 {
            tracing::info!(pid, %program, "etcd started again");
        } else {
            tracing::debug!(pid, %program, "etcd started");
        }
        Ok(Running {
            child,
            handle,
            started,
            ready: None,
            memory_kills: MemoryKills::of(pid),
            pumps,
            was_killed: false,
        })
    }

    /// Looks after one life, until it ends or is ended.
    async fn watch_child(&mut self, mut running: Running) -> ChildExit {
        let mut memory = tokio::time::interval(MEMORY_INTERVAL);
        let asked = loop {
            tokio::select! {
                biased;
                ended = running.handle.ended() => {
                    note_failure_to_watch(ended);
                    break None;
                }
                _ = memory.tick() => running.memory_kills = MemoryKills::of(running.handle.pid),
                order = self.orders.recv() => match order {
                    Some(SupervisorCommand::IsReady(generation)) => self.ready(&mut running, generation),
                    Some(SupervisorCommand::Restart) => {
                        break Some(self.end(&mut running, false).await.unwrap_or(ChildExit::Restart));
                    }
                    Some(SupervisorCommand::Stop) | None => {
                        self.end(&mut running, false).await;
                        break Some(ChildExit::AsAsked);
                    }
                    Some(SupervisorCommand::Kill) => {
                        self.end(&mut running, true).await;
                        break Some(ChildExit::AsAsked);
                    }
                },
            }
        };
        let now = clock::monotonic();
        let Some(exit) = Self::reap(&mut running) else {
            // Its record stays, so that the next launcher waits for it instead of starting another.
            return ChildExit::Stuck(running.handle.pid);
        };
        note_failure(orphan::remove_record(&self.launch.data));
        let _ =
            tokio::time::timeout(OUTPUT_DRAIN_TIMEOUT, async { while running.pumps.join_next().await.is_some() {} })
                .await;
        if let Some(asked) = asked {
            tracing::info!(event = "etcd-stopped", pid = running.handle.pid, exit, "etcd stopped");
            return asked;
        }
        self.status.borrow().tail.show();
        // What it says last is the reason, for example that the disk is full.
        let exit = match self.status.borrow().tail.fatal_line() {
            Some(line) => format!("{exit}: {line}"),
            None => exit,
        };
        let life = Run {
            lived: now.duration_since(running.started),
            healthy: running.ready.map_or(Duration::ZERO, |ready| now.duration_since(ready)),
        };
        ChildExit::ByItself(life, exit)
    }

    fn ready(&mut self, running: &mut Running, generation: u64) {
        if self.status.borrow().generation != generation || running.ready.is_some() {
            return;
        }
        let now = clock::monotonic();
        running.ready = Some(now);
        self.status.borrow().tail.hide();
        self.was_ready = true;
        let after = now.duration_since(running.started);
        self.enter(State::Ready, |status| status.ready_after = Some(after));
    }

    /// Ends the child: asks, waits, insists. Orders that come meanwhile can only hasten it, and an order to stop is told.
    async fn end(&mut self, running: &mut Running, at_once: bool) -> Option<ChildExit> {
        self.enter(State::Stopping, |_| {});
        let pid = running.handle.pid;
        let deadline = tokio::time::sleep(self.launch.grace);
        tokio::pin!(deadline);
        let mut to_stop = None;
        if !at_once {
            // An error means that it is gone, which the wait below sees.
            let _ = running.handle.terminate();
            loop {
                tokio::select! {
                    ended = running.handle.ended() => {
                        note_failure_to_watch(ended);
                        return to_stop;
                    }
                    () = &mut deadline => {
                        tracing::warn!(
                            event = "etcd-killed",
                            pid,
                            grace_seconds = self.launch.grace.as_secs(),
                            "etcd did not end in time; killing it"
                        );
                        break;
                    }
                    Some(order) = self.orders.recv() => match order {
                        SupervisorCommand::Kill => {
                            tracing::warn!(event = "second-signal", pid, "second signal received; killing etcd");
                            to_stop = Some(ChildExit::AsAsked);
                            break;
                        }
                        SupervisorCommand::Stop => to_stop = Some(ChildExit::AsAsked),
                        SupervisorCommand::Restart | SupervisorCommand::IsReady(_) => {}
                    },
                }
            }
        }
        running.was_killed = true;
        let _ = running.handle.kill();
        // A killed process ends at once, unless it waits for a disk; then waiting longer does not help either.
        let _ = tokio::time::timeout(self.launch.grace, running.handle.ended()).await;
        to_stop
    }

    /// How it ended; `None` if it has not.
    fn reap(running: &mut Running) -> Option<String> {
        let exit = match running.child.try_wait() {
            Ok(Some(status)) => {
                let killer = if running.was_killed { Killer::Us } else { Killer::of(&running.memory_kills) };
                describe(status, killer)
            }
            Ok(None) => return None,
            Err(error) => format!("an unknown exit status ({error})"),
        };
        process::forget(running.handle.pid);
        Some(exit)
    }

    /// Waits before the next life. True if told to stop meanwhile.
    async fn back_off(&mut self, wait: Duration) -> bool {
        let over = tokio::time::sleep(faults::tunable("QUORATE_TEST_BACKOFF_MS", wait));
        tokio::pin!(over);
        loop {
            tokio::select! {
                () = &mut over => return false,
                order = self.orders.recv() => if !matches!(order, Some(SupervisorCommand::IsReady(_) | SupervisorCommand::Restart)) {
                    return true;
                },
            }
        }
    }
}

/// Who sent SIGKILL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Killer {
    Us,
    OutOfMemory,
    Unknown,
}

impl Killer {
    fn of(memory_kills: &MemoryKills) -> Self {
        if memory_kills.are_more_now() { Self::OutOfMemory } else { Self::Unknown }
    }
}

/// `exit code 1`, `signal SIGSEGV`. The kernel's memory killer sends SIGKILL, and counts.
fn describe(status: ExitStatus, killer: Killer) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(9)) => match killer {
            Killer::Us => "signal SIGKILL".into(),
            Killer::OutOfMemory => {
                "signal SIGKILL (the kernel's out-of-memory killer has killed a process: journalctl -k | grep -i oom)"
                    .into()
            }
            Killer::Unknown => "signal SIGKILL (sent by another process; to see whether by the out-of-memory killer: \
                                journalctl -k | grep -i oom)"
                .into(),
        },
        (None, Some(signal)) => match nix::sys::signal::Signal::try_from(signal) {
            Ok(signal) => format!("signal {signal}"),
            Err(_) => format!("signal {signal}"),
        },
        (None, None) => status.to_string(),
    }
}

fn note_failure(done: Result<(), WriteError>) {
    if let Err(error) = done {
        log_failure!(warn, ErrorReport::of(&error), "the record of the etcd process could not be kept up to date");
    }
}

fn note_failure_to_watch(ended: std::io::Result<()>) {
    if let Err(error) = ended {
        tracing::error!(%error, "the etcd process cannot be watched");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_described_for_people() {
        for (raw, killer, expected) in [
            (7 << 8, Killer::Unknown, "exit code 7"),
            (9, Killer::Us, "signal SIGKILL"),
            (11, Killer::OutOfMemory, "signal SIGSEGV"),
        ] {
            assert_eq!(describe(ExitStatus::from_raw(raw), killer), expected);
        }
        // Who sent it is not known from the signal; the usual one is named.
        for (killer, expected) in [(Killer::OutOfMemory, "killer has killed"), (Killer::Unknown, "another process")] {
            let text = describe(ExitStatus::from_raw(9), killer);
            assert!(text.contains(expected) && text.contains("oom"), "{text}");
        }
    }
}
