//! The control API: the routes of the launcher, and the client for commands on this node.
//!
//! HTTP over `S/quorate.sock` (0600, in a 0700 directory: only the owner of the data can connect), and the routes for
//! monitoring on a loopback port. A route is a file in `routes/`; decisions are made elsewhere.

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

/// The timeout of sending a response.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// The timeout of a request over the socket.
const STREAM_TIMEOUT: Duration = Duration::from_secs(86_400);
/// The interval of checks that the socket still exists.
const SOCKET_CHECK: Duration = Duration::from_secs(2);
/// Maximum number of times that a removed socket is created again.
const MAX_SOCKETS: usize = 16;

/// The listeners of the control API.
#[derive(Debug)]
pub struct Listeners {
    socket: UnixListener,
    monitoring: TcpListener,
}

impl Listeners {
    /// Binds the socket, and takes over the monitoring port. # Errors If a foreign file is in the place of the socket,
    /// or binding fails.
    pub fn bind(data: &DataDir, monitoring: StdTcpListener) -> Result<Self, SocketError> {
        let failed = |source| SocketError::Bind { path: data.socket(), source };
        let monitoring =
            monitoring.set_nonblocking(true).and_then(|()| TcpListener::from_std(monitoring)).map_err(failed)?;
        Ok(Self { socket: socket::bind(data)?, monitoring })
    }
}

pub async fn serve(listeners: Listeners, state: Arc<ServerState>) {
    let monitoring = rights::router(Listener::Monitoring, &state);
    let socket = rights::router(Listener::Socket, &state);
    let again = bind_again(&state.context.data, socket.clone());
    // Only the owner can connect to the socket, and snapshots and defragmentations may take long.
    tokio::join!(
        accept(listeners.monitoring, monitoring, REQUEST_TIMEOUT),
        accept(listeners.socket, socket, STREAM_TIMEOUT),
        again
    );
}

/// Binds a removed socket again, so that commands still reach this server. Never returns.
async fn bind_again(data: &DataDir, router: Router) {
    let mut sockets = tokio::task::JoinSet::new();
    loop {
        tokio::time::sleep(SOCKET_CHECK).await;
        while sockets.try_join_next().is_some() {}
        // Without the lock there, it is not the directory of this server.
        if sockets.len() >= MAX_SOCKETS || data.socket().exists() || !data.lock().exists() {
            continue;
        }
        match socket::bind(data) {
            Ok(listener) => {
                tracing::warn!(socket = %data.socket().display(), "the control socket was removed; created it again");
                sockets.spawn(accept(listener, router.clone(), STREAM_TIMEOUT));
            }
            Err(error) => tracing::error!(%error, "the control socket was removed, and creating it again failed"),
        }
    }
}
