//! The control API: what the launcher serves, and the client that the commands on this node use.
//!
//! HTTP over `S/quorate.sock` (0600, in a 0700 directory: whoever reaches it is the owner of the data), and the parts that
//! monitoring needs on a loopback port. A route is a file in `routes/`; policy is elsewhere.

pub mod api;
pub mod client;
mod connections;
pub mod rights;
pub mod routes;
mod socket;

use std::net::TcpListener as StdTcpListener;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, UnixListener};

use crate::datadir::DataDir;
use crate::server::state::ServerState;
use connections::accept;
use rights::Listener;

pub use socket::SocketError;

/// A client that has not read its answer after this long is dropped.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Nothing that the owner asks for takes longer than a day.
const STREAM_TIMEOUT: Duration = Duration::from_secs(86_400);
/// How often it is checked that the socket is still in its place.
const SOCKET_CHECK: Duration = Duration::from_secs(2);
/// The socket is made again at most so many times: who removes it for ever is told no more.
const MAX_SOCKETS: usize = 16;

/// What the control API listens on.
#[derive(Debug)]
pub struct Listeners {
    socket: UnixListener,
    monitoring: TcpListener,
}

impl Listeners {
    /// Binds the socket, and takes over the port for monitoring.
    ///
    /// # Errors
    /// If something that is not ours is in the place of the socket, or the system refuses.
    pub fn bind(data: &DataDir, monitoring: StdTcpListener) -> Result<Self, SocketError> {
        let failed = |source| SocketError::Bind { path: data.socket(), source };
        let monitoring =
            monitoring.set_nonblocking(true).and_then(|()| TcpListener::from_std(monitoring)).map_err(failed)?;
        Ok(Self { socket: socket::bind(data)?, monitoring })
    }
}

/// Serves until dropped.
pub async fn serve(listeners: Listeners, shared: Arc<ServerState>) {
    let monitoring = rights::router(Listener::Monitoring, &shared);
    let socket = rights::router(Listener::Socket, &shared);
    let again = bind_again(&shared.data, socket.clone());
    // Only the owner reaches the socket, and snapshots and defragmentations take as long as they take.
    tokio::join!(
        accept(listeners.monitoring, monitoring, REQUEST_TIMEOUT),
        accept(listeners.socket, socket, STREAM_TIMEOUT),
        again
    );
}

/// A socket that was removed from its directory is bound again, so that commands still reach this server. Never returns.
async fn bind_again(data: &DataDir, router: Router) {
    let mut sockets = tokio::task::JoinSet::new();
    loop {
        tokio::time::sleep(SOCKET_CHECK).await;
        while sockets.try_join_next().is_some() {}
        // Without the lock there it is nobody's directory, or another server's.
        if sockets.len() >= MAX_SOCKETS || data.socket().exists() || !data.lock().exists() {
            continue;
        }
        match socket::bind(data) {
            Ok(listener) => {
                tracing::warn!(socket = %data.socket().display(), "the control socket was removed; made again");
                sockets.spawn(accept(listener, router.clone(), STREAM_TIMEOUT));
            }
            Err(error) => tracing::error!(%error, "the control socket was removed and cannot be made again"),
        }
    }
}
