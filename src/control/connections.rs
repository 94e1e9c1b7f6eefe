//! Serves the connections of a listener: a bounded number at a time, each for a bounded time.
//!
//! Any local user reaches the port for monitoring. So whoever connects and says nothing keeps nobody out: the oldest connection without a
//! request makes room for a new one.

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

/// So many connections are served at a time on each listener.
const MAX_CONNECTIONS: usize = 64;
/// A request's head has come after this long, or never comes.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

struct Connection {
    task: AbortHandle,
    /// Its request has come.
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
            // What a client does wrong is its own affair.
            let _ = tokio::time::timeout(longest, served).await;
        });
        open.push_back(Connection { task, has_asked });
    }
}

/// Sees to it that there are fewer than [`MOST`]: the oldest one that has not asked for anything is closed, or one that is served is waited
/// for.
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
