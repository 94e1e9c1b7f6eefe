//! Spawns the child so that it cannot outlive the launcher, and signals it without hitting other processes.
//!
//! The kernel sends the signal of `PR_SET_PDEATHSIG` when the *thread* that spawned a process ends, so one OS thread
//! does all spawning and lives as long as this process. The launcher may die between fork and prctl, so the parent is
//! checked again after prctl. Signals are sent through a pidfd, which never refers to another process.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};

use nix::sys::prctl;
use nix::sys::signal::Signal as NixSignal;
use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

use crate::environment;
use crate::host::{self, User};

/// Children with a waiter; the reaper of PID 1 ignores them.
static OWN_CHILDREN: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

fn own_children() -> MutexGuard<'static, BTreeSet<i32>> {
    OWN_CHILDREN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The variables that etcd inherits: program path, time zone, settings of Go's runtime, and the location of the
/// system's CAs. No proxy, which would affect connections between members, and no credentials, which etcd's user could
/// read in `/proc/PID/environ`.
const ETCD_ENVIRONMENT: [&str; 10] = [
    "PATH",
    "TZ",
    "LANG",
    "GODEBUG",
    "GOGC",
    "GOMAXPROCS",
    "GOMEMLIMIT",
    "GOTRACEBACK",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
];

pub fn etcd_environment(command: &mut Command) {
    command.env_clear();
    command.envs(ETCD_ENVIRONMENT.iter().filter_map(|name| environment::value(name).map(|value| (name, value))));
}

/// Removes the variables that an operator's command must not inherit: systemd's sockets, etcd's settings, and our
/// secrets.
pub fn operator_environment(command: &mut Command) {
    for name in environment::all().keys() {
        let text = name.to_string_lossy();
        let is_unwanted = text == "NOTIFY_SOCKET"
            || ["WATCHDOG_", "LISTEN_", "ETCD_", "QUORATE_", "FAILPOINTS"]
                .iter()
                .any(|prefix| text.starts_with(prefix));
        if is_unwanted {
            command.env_remove(name);
        }
    }
}

/// Runs a command as another user, with only that user's primary group.
pub fn become_user(command: &mut Command, user: &User) {
    // The standard library drops root's supplementary groups together with the user id.
    command.uid(user.uid).gid(user.gid);
}

type Request = (Command, oneshot::Sender<io::Result<Child>>);

#[derive(Clone, Debug)]
pub struct Spawner {
    requests: mpsc::Sender<Request>,
}

impl Spawner {
    /// Starts the thread, which lives until the process ends.
    pub fn start() -> io::Result<Self> {
        Self::start_after(|| {})
    }

    /// The same for processes of the lowest priority.
    pub fn start_gently() -> io::Result<Self> {
        // On Linux a priority belongs to a thread, and its children inherit it.
        Self::start_after(host::lower_priority)
    }

    fn start_after(prepare: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        let (requests, queue) = mpsc::channel::<Request>();
        std::thread::Builder::new().name("quorate-spawn".into()).spawn(move || {
            prepare();
            while let Ok((command, reply)) = queue.recv() {
                let spawned = spawn_here(command);
                if let Err(Ok(mut unwanted)) = reply.send(spawned) {
                    // The requester is gone.
                    let _ = unwanted.kill();
                    let _ = unwanted.wait();
                }
            }
            // The senders are gone, but the child must live: see the module header.
            loop {
                std::thread::park();
            }
        })?;
        Ok(Self { requests })
    }

    /// Spawns `command` from the thread, in a new process group that dies with us.
    pub async fn spawn(&self, command: Command) -> io::Result<Child> {
        let (reply, answer) = oneshot::channel();
        let gone = || io::Error::other("the spawning thread is gone");
        self.requests.send((command, reply)).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

fn spawn_here(mut command: Command) -> io::Result<Child> {
    let launcher = nix::unistd::getpid();
    let bind_to_us = move || {
        prctl::set_pdeathsig(NixSignal::SIGTERM)?;
        if nix::unistd::getppid() == launcher { Ok(()) } else { Err(io::Error::from(nix::errno::Errno::ESRCH)) }
    };
    // A new group: Ctrl-C at a terminal reaches only us, and we stop the child in order.
    command.process_group(0);
    // SAFETY: runs between fork and exec; prctl and getppid are async-signal-safe system calls that touch no memory.
    #[allow(unsafe_code, reason = "there is no safe way to run prctl in the child")]
    unsafe {
        command.pre_exec(bind_to_us);
    }
    let mut known = own_children();
    let child = command.spawn()?;
    known.extend(i32::try_from(child.id()).ok());
    Ok(child)
}

/// Kills the process group of a child that was not waited for yet, so its id cannot be reused.
pub fn kill_group(leader: u32) {
    if let Some(group) = i32::try_from(leader).ok().and_then(Pid::from_raw) {
        // It may be gone already.
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
    }
}

/// A child that tokio waits for: as long as this is held, the reaper of PID 1 leaves its exit status alone.
#[derive(Debug)]
pub struct Registered {
    pid: Option<i32>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        if let Some(pid) = self.pid {
            forget(pid);
        }
    }
}

/// Spawns a command that is waited for through tokio. Everything that is not spawned by a [`Spawner`] is spawned here.
pub fn spawn_registered(command: Command) -> io::Result<(tokio::process::Child, Registered)> {
    // The reaper looks under the same lock, so it never sees a child that is not registered yet.
    let mut known = own_children();
    let child = tokio::process::Command::from(command).kill_on_drop(true).spawn()?;
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    known.extend(pid);
    Ok((child, Registered { pid }))
}

/// Marks a child as waited for.
pub fn forget(pid: i32) {
    own_children().remove(&pid);
}

/// Reaps the zombies that a PID 1 inherits, and only those. Returns their pids.
pub fn reap_adopted() -> Vec<i32> {
    use nix::sys::wait::{WaitPidFlag, waitpid};
    let known = own_children();
    let mut zombies = adopted_zombies(&known);
    zombies.retain(|pid| waitpid(nix::unistd::Pid::from_raw(*pid), Some(WaitPidFlag::WNOHANG)).is_ok());
    zombies
}

/// Our children that have exited and have no waiter.
fn adopted_zombies(known: &BTreeSet<i32>) -> Vec<i32> {
    let us = nix::unistd::getpid();
    let Ok(processes) = procfs::process::all_processes() else { return Vec::new() };
    processes
        .flatten()
        .filter_map(|process| process.stat().ok())
        .filter(|stat| stat.ppid == us.as_raw() && stat.state == 'Z' && !known.contains(&stat.pid))
        .map(|stat| stat.pid)
        .collect()
}

/// A process, identified by a pidfd.
#[derive(Debug)]
pub struct ProcessHandle {
    pidfd: AsyncFd<OwnedFd>,
    pub pid: i32,
}

impl ProcessHandle {
    /// Opens the process that has `pid` now. The caller must check its identity *after* opening.
    pub fn open(pid: i32) -> io::Result<Self> {
        let wanted = Pid::from_raw(pid).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let pidfd = rustix::process::pidfd_open(wanted, PidfdFlags::NONBLOCK)?;
        // SAFETY: the descriptor is owned by the `AsyncFd` and closed only by it; `OwnedFd` always returns the same
        // one.
        #[allow(unsafe_code, reason = "tokio has no safe way to watch a descriptor that is neither socket nor pipe")]
        let pidfd = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }?;
        Ok(Self { pidfd, pid })
    }

    /// Sends SIGTERM, and SIGCONT so that a stopped process can handle it.
    pub fn terminate(&self) -> io::Result<()> {
        self.send(Signal::TERM)?;
        self.send(Signal::CONT)
    }

    pub fn kill(&self) -> io::Result<()> {
        self.send(Signal::KILL)
    }

    fn send(&self, signal: Signal) -> io::Result<()> {
        rustix::process::pidfd_send_signal(self.pidfd.get_ref(), signal).map_err(io::Error::from)
    }

    pub async fn ended(&self) -> io::Result<()> {
        self.pidfd.readable().await.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Bugs B12: the exit status of a child that tokio waits for is not taken by the reaper.
    #[tokio::test]
    async fn a_registered_child_is_not_adopted() {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "exit 7"]);
        let (mut child, registered) = spawn_registered(command).unwrap();
        let pid = i32::try_from(child.id().unwrap()).unwrap();
        let deadline = crate::clock::monotonic() + Duration::from_secs(20);
        // With nothing known it is found as soon as it has ended.
        while !adopted_zombies(&BTreeSet::new()).contains(&pid) {
            assert!(crate::clock::monotonic() < deadline, "the child did not end");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(!adopted_zombies(&own_children()).contains(&pid));
        assert_eq!(child.wait().await.unwrap().code(), Some(7));
        drop(registered);
        assert!(!own_children().contains(&pid));
    }
}
