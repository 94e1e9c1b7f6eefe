//! The etcd process: spawned from the thread that lives as long as the launcher, recorded on disk before it is
//! reported, its output read, watched through a pidfd.

use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use tokio::net::unix::pipe;
use tokio::task::JoinSet;

use super::launch::Launch;
use super::orphan;
use super::output::{self, Tail};
use super::pinned::Executable;
use super::process::{self, ProcessHandle, Spawner, become_user, etcd_environment};
use super::supervisor::{Process, Spawn};
use crate::datadir::DataDir;
use crate::durable::WriteError;
use crate::error::ErrorReport;
use crate::host::{self, MemoryKills};
use crate::log_failure;

/// How long after its end a child's pipes may still give lines.
const OUTPUT_DRAIN_TIMEOUT: Duration = Duration::from_millis(500);
/// The interval of reading the kernel's OOM kill counter: a kill is attributed to memory only if the counter has
/// increased since.
const MEMORY_INTERVAL: Duration = Duration::from_secs(2);
/// How often a process that the kernel does not let us watch is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

impl Spawn for Spawner {
    type Process = EtcdProcess;

    async fn spawn(&mut self, launch: &Launch, tail: Tail) -> Result<EtcdProcess, String> {
        let name = launch.program.path();
        let cannot_run = |error| format!("{} cannot be run: {error}", name.display());
        let mut command = match launch.program.executable().map_err(cannot_run)? {
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
        if let Some(user) = &launch.user {
            become_user(&mut command, user);
        }
        command.args(&launch.args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = Spawner::spawn(self, command).await.map_err(cannot_run)?;
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
            note_failure(orphan::record(&launch.data, &identity));
        }
        let mut pumps = JoinSet::new();
        let pipes = [child.stdout.take().map(Into::into), child.stderr.take().map(Into::into)];
        for fd in pipes.into_iter().flatten() {
            match pipe::Receiver::from_owned_fd(fd) {
                Ok(receiver) => drop(pumps.spawn(output::forward_output(receiver, tail.clone()))),
                Err(error) => tracing::warn!(%error, "etcd's output cannot be read"),
            }
        }
        let memory_kills = MemoryKills::of(pid);
        Ok(EtcdProcess { child, handle, memory_kills, pumps, was_killed: false, data: launch.data.clone(), exit: None })
    }
}

#[derive(Debug)]
pub struct EtcdProcess {
    child: Child,
    handle: ProcessHandle,
    memory_kills: MemoryKills,
    pumps: JoinSet<()>,
    was_killed: bool,
    data: DataDir,
    exit: Option<String>,
}

impl Process for EtcdProcess {
    fn pid(&self) -> i32 {
        self.handle.pid
    }

    async fn ended(&mut self) {
        let mut memory = tokio::time::interval(MEMORY_INTERVAL);
        loop {
            tokio::select! {
                ended = self.handle.ended() => match ended {
                    Ok(()) => return,
                    Err(error) => {
                        tracing::error!(%error, "the etcd process cannot be watched; it is polled");
                        break;
                    }
                },
                _ = memory.tick() => self.memory_kills = MemoryKills::of(self.handle.pid),
            }
        }
        while self.try_reap().is_none() {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    fn terminate(&mut self) {
        let _ = self.handle.terminate();
    }

    fn kill(&mut self) {
        self.was_killed = true;
        let _ = self.handle.kill();
    }

    async fn reap(&mut self) -> Option<String> {
        let exit = self.try_reap()?;
        note_failure(orphan::remove_record(&self.data));
        let drained = async { while self.pumps.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(OUTPUT_DRAIN_TIMEOUT, drained).await;
        Some(exit)
    }
}

impl EtcdProcess {
    /// How it ended; `None` if it has not.
    fn try_reap(&mut self) -> Option<String> {
        if self.exit.is_none() {
            let exit = match self.child.try_wait() {
                Ok(Some(status)) => {
                    let killer = if self.was_killed { Killer::Supervisor } else { Killer::of(&self.memory_kills) };
                    describe(status, killer)
                }
                Ok(None) => return None,
                Err(error) => format!("an unknown exit status ({error})"),
            };
            process::forget(self.handle.pid);
            self.exit = Some(exit);
        }
        self.exit.clone()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Killer {
    Supervisor,
    OutOfMemory,
    Unknown,
}

impl Killer {
    fn of(memory_kills: &MemoryKills) -> Self {
        if memory_kills.are_more_now() { Self::OutOfMemory } else { Self::Unknown }
    }
}

/// `exit code 1`, `signal SIGSEGV`. The kernel's out-of-memory killer sends SIGKILL, and counts.
fn describe(status: ExitStatus, killer: Killer) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(9)) => match killer {
            Killer::Supervisor => "signal SIGKILL".into(),
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
        log_failure!(warn, ErrorReport::of(&error), "the record of the etcd process could not be updated");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_described_for_people() {
        for (raw, killer, expected) in [
            (7 << 8, Killer::Unknown, "exit code 7"),
            (9, Killer::Supervisor, "signal SIGKILL"),
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
