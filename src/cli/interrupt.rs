//! Handles SIGINT and SIGTERM in commands: removes temporary directories, prints what happens to the work, and ends as
//! if killed by the signal.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use tokio::signal::unix::{SignalKind, signal};

use crate::cli::output;
use crate::durable;
use crate::job::JobControl;
use crate::terminal;

/// The cleanup to do.
struct Ending {
    /// Temporary directories of this process.
    directories: Vec<PathBuf>,
    /// What happens to the work, for the message.
    explanation: &'static str,
    /// The job to cancel first, so that it ends in order.
    job: Option<JobControl>,
}

static ENDING: Mutex<Ending> = Mutex::new(Ending { directories: Vec::new(), explanation: "", job: None });
static LISTENING: Once = Once::new();

fn ending() -> MutexGuard<'static, Ending> {
    ENDING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts handling signals. Not for a server, which has its own shutdown.
pub(super) fn listen() {
    LISTENING.call_once(|| {
        // Without a thread, the signal ends the process at once, and the next command sweeps its files.
        let (ready, listens) = sync_channel(1);
        let thread = std::thread::Builder::new().name("signals".into()).spawn(move || wait(&ready));
        if thread.is_ok() {
            // An error means that signals cannot be handled.
            let _ = listens.recv();
        }
    });
}

/// Registers `dir` for removal on SIGINT or SIGTERM.
pub(super) fn remove(dir: &Path) {
    listen();
    ending().directories.push(dir.to_path_buf());
}

/// Sets the message for SIGINT and SIGTERM.
pub(super) fn explain(explanation: &'static str) {
    ending().explanation = explanation;
}

/// From now on the first signal cancels `job`, which then ends in order; a second one ends the process.
pub(super) fn cancel_first(job: &JobControl) {
    ending().job = Some(job.clone());
}

fn wait(ready: &SyncSender<()>) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    let received = runtime.block_on(async {
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt()).ok()?, signal(SignalKind::terminate()).ok()?);
        let mut hangup = signal(SignalKind::hangup()).ok()?;
        // The receiver waits for this.
        let _ = ready.send(());
        loop {
            let received = tokio::select! {
                _ = interrupt.recv() => (SignalKind::interrupt(), "SIGINT"),
                _ = terminate.recv() => (SignalKind::terminate(), "SIGTERM"),
                _ = hangup.recv() => (SignalKind::hangup(), "SIGHUP"),
            };
            let Some(job) = ending().job.take() else { return Some(received) };
            output::print_stderr(&format!("quorate: interrupted ({}): cleaning up\n", received.1));
            job.cancel();
        }
    });
    let Some((kind, name)) = received else { return };
    let ending = ending();
    for dir in &ending.directories {
        // It may be gone already; one that stays is swept by the next command.
        let _ = durable::remove_dir_all(dir);
    }
    terminal::clear();
    let explanation = if ending.explanation.is_empty() { "" } else { ": " };
    output::print_stderr(&format!("quorate: interrupted ({name}){explanation}{}\n", ending.explanation));
    // The shell's exit code for a process killed by a signal.
    std::process::exit(128 + kind.as_raw_value());
}
