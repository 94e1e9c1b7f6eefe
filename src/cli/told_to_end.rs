//! What is removed if the process is told to end: directories that nobody but it needs.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Mutex, OnceLock, PoisonError};

use tokio::signal::unix::{SignalKind, signal};

use crate::durable;

/// Those that are needed now, or were.
static DIRECTORIES: OnceLock<Mutex<Vec<PathBuf>>> = OnceLock::new();

/// From now on `dir` is removed when the process is interrupted or terminated, which still ends it.
pub(super) fn remove(dir: &Path) {
    let directories = DIRECTORIES.get_or_init(|| {
        // If there is no thread for it, the next command sweeps.
        let (ready, listens) = sync_channel(1);
        let thread = std::thread::Builder::new().name("signals".into()).spawn(move || wait(&ready));
        if thread.is_ok() {
            // An error is that it cannot listen.
            let _ = listens.recv();
        }
        Mutex::default()
    });
    directories.lock().unwrap_or_else(PoisonError::into_inner).push(dir.to_path_buf());
}

fn wait(ready: &SyncSender<()>) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    let told = runtime.block_on(async {
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt()).ok()?, signal(SignalKind::terminate()).ok()?);
        let mut hangup = signal(SignalKind::hangup()).ok()?;
        // Whoever waits for this does so until it comes.
        let _ = ready.send(());
        Some(tokio::select! {
            _ = interrupt.recv() => SignalKind::interrupt(),
            _ = terminate.recv() => SignalKind::terminate(),
            _ = hangup.recv() => SignalKind::hangup(),
        })
    });
    let Some(told) = told else { return };
    for dir in DIRECTORIES.get().iter().flat_map(|all| all.lock().unwrap_or_else(PoisonError::into_inner).clone()) {
        // One that is gone already is as wanted; one that stays is swept by the next command.
        let _ = durable::remove_dir_all(&dir);
    }
    // As a shell tells of a process that a signal has ended.
    std::process::exit(128 + told.as_raw_value());
}
