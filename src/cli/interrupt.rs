//! What happens when a command is interrupted or terminated: temporary directories are removed, what became of the work is said, and the
//! process ends as one that a signal has ended.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use tokio::signal::unix::{SignalKind, signal};

use crate::cli::output;
use crate::durable;
use crate::job::JobControl;
use crate::terminal;

/// What is to be done then.
struct Ending {
    /// Directories that nobody but this process needs.
    directories: Vec<PathBuf>,
    /// What becomes of the work.
    explanation: &'static str,
    /// What is cancelled at first, so that it can end in order.
    course: Option<JobControl>,
}

static ENDING: Mutex<Ending> = Mutex::new(Ending { directories: Vec::new(), explanation: "", course: None });
static LISTENING: Once = Once::new();

fn ending() -> MutexGuard<'static, Ending> {
    ENDING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on signals are listened for. Not for a server, which has its own way to end.
pub(super) fn listen() {
    LISTENING.call_once(|| {
        // If there is no thread for it, the signal ends the process at once, and the next command sweeps.
        let (ready, listens) = sync_channel(1);
        let thread = std::thread::Builder::new().name("signals".into()).spawn(move || wait(&ready));
        if thread.is_ok() {
            // An error is that it cannot listen.
            let _ = listens.recv();
        }
    });
}

/// From now on `dir` is removed when the process is interrupted or terminated.
pub(super) fn remove(dir: &Path) {
    listen();
    ending().directories.push(dir.to_path_buf());
}

/// From now on this is what is said of the work when the process is interrupted or terminated.
pub(super) fn explain(explanation: &'static str) {
    ending().explanation = explanation;
}

/// From now on the first signal cancels the work of `course`, which then ends in order; a second one ends the process.
pub(super) fn cancel_first(course: &JobControl) {
    ending().course = Some(course.clone());
}

fn wait(ready: &SyncSender<()>) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    let received = runtime.block_on(async {
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt()).ok()?, signal(SignalKind::terminate()).ok()?);
        let mut hangup = signal(SignalKind::hangup()).ok()?;
        // The receiver waits until this comes.
        let _ = ready.send(());
        loop {
            let received = tokio::select! {
                _ = interrupt.recv() => (SignalKind::interrupt(), "SIGINT"),
                _ = terminate.recv() => (SignalKind::terminate(), "SIGTERM"),
                _ = hangup.recv() => (SignalKind::hangup(), "SIGHUP"),
            };
            let Some(course) = ending().course.take() else { return Some(received) };
            output::print_stderr(&format!("quorate: interrupted ({}): cleaning up\n", received.1));
            course.cancel();
        }
    });
    let Some((kind, name)) = received else { return };
    let ending = ending();
    for dir in &ending.directories {
        // One that is gone already is as wanted; one that stays is swept by the next command.
        let _ = durable::remove_dir_all(dir);
    }
    terminal::clear();
    let explanation = if ending.explanation.is_empty() { "" } else { ": " };
    output::print_stderr(&format!("quorate: interrupted ({name}){explanation}{}\n", ending.explanation));
    // As a shell tells of a process that a signal has ended.
    std::process::exit(128 + kind.as_raw_value());
}
