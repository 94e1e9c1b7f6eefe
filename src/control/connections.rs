//! Serves the connections of a listener: a bounded number at a time, each for a bounded time.
//!
//! Any local user can connect to the monitoring port, so idle connections must not block others: the oldest connection
//! without a request is closed for a new one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use hyper::service::Service as _;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::task::{AbortHandle, JoinSet};

/// Maximum number of connections on each listener.
const MAX_CONNECTIONS: usize = 64;
/// The timeout of a request head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

struct Connection {
    task: AbortHandle,
    has_asked: Arc<AtomicBool>,
}

/// Serves each connection for at most `longest`. Never returns.
pub(super) async fn accept<L: Listener>(mut listener: L, router: Router, longest: Duration) {
    let mut tasks = JoinSet::new();
    let mut open: VecDeque<Connection> = VecDeque::new();
    loop {
        let (stream, _) = listener.accept().await;
        make_room(&mut tasks, &mut open).await;
        let has_asked = Arc::new(AtomicBool::new(false));
        let (noted, inner) = (has_asked.clone(), TowerToHyperService::new(router.clone()));
        let service = hyper::service::service_fn(move |request| {
            noted.store(true, Ordering::Relaxed);
            inner.call(request)
        });
        let served = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), service);
        let task = tasks.spawn(async move {
            // Errors of a client are ignored.
            let _ = tokio::time::timeout(longest, served).await;
        });
        open.push_back(Connection { task, has_asked });
    }
}

/// Ensures that there are fewer than [`MOST`]: closes the oldest connection without a request, or waits for one to end.
async fn make_room(tasks: &mut JoinSet<()>, open: &mut VecDeque<Connection>) {
    loop {
        while tasks.try_join_next().is_some() {}
        open.retain(|connection| !connection.task.is_finished());
        if open.len() < MAX_CONNECTIONS {
            return;
        }
        match open.iter().position(|connection| !connection.has_asked.load(Ordering::Relaxed)) {
            Some(oldest) => drop(open.remove(oldest).map(|connection| connection.task.abort())),
            None => drop(tasks.join_next().await),
        }
    }
}
