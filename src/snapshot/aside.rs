//! Work beside the server, on threads of a lower priority: what etcd's clients wait for comes first.

use tokio::sync::oneshot;

/// Of 19; the server has 0 (see nice(2)).
const NICE: i32 = 10;

/// Runs `work` on a thread of its own. What is awaited is an error if the thread could not be made, or was lost.
pub(super) fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> oneshot::Receiver<T> {
    let (done, result) = oneshot::channel();
    // Without a thread the sender is dropped, and that is the error.
    let _ = std::thread::Builder::new().name("snapshot".into()).spawn(move || {
        // On Linux this is the thread's alone, and that of threads it makes. If the system refuses, it is done all the same.
        let _ = rustix::process::nice(NICE);
        let _ = done.send(work());
    });
    result
}
