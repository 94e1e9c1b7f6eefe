//! Every route of the control API in one table, with the right that it takes; each listener gets a router with the routes that may be reached
//! there, and no others. What answers secrets exists on the socket only.

use std::sync::Arc;

use axum::Router;
use axum::routing::{MethodRouter, get, post};

use super::routes;
use crate::server::state::ServerState;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// The Unix socket in the data directory: only the owner of the data can open it.
    Socket,
    /// The port for other servers and for commands from elsewhere, with TLS and a token.
    #[allow(dead_code, reason = "other servers and remote commands will be served on it")]
    Remote,
    /// The port for monitoring, on loopback: any local user.
    Monitoring,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// None: it shows only what local users may know, and changes nothing.
    Anyone,
    /// To operate the server. On the remote listener the token says so.
    Operator,
    /// To read the server's secrets. Never reachable from elsewhere.
    Secrets,
}

impl Listener {
    /// True if a route with this right is served here.
    #[must_use]
    pub const fn serves(self, right: Right) -> bool {
        match (self, right) {
            (_, Right::Anyone) | (Self::Socket, _) | (Self::Remote, Right::Operator) => true,
            (Self::Monitoring, Right::Operator) | (Self::Monitoring | Self::Remote, Right::Secrets) => false,
        }
    }
}

type Route = (&'static str, Right, MethodRouter<Arc<ServerState>>);

fn table() -> [Route; 9] {
    [
        ("/livez", Right::Anyone, get(routes::health::live)),
        ("/readyz", Right::Anyone, get(routes::health::ready)),
        ("/metrics", Right::Anyone, get(routes::metrics::metrics)),
        ("/v1/status", Right::Operator, get(routes::status::status)),
        ("/v1/snapshots", Right::Operator, post(routes::snapshots::save)),
        ("/v1/defrag", Right::Operator, post(routes::maintenance::defragment)),
        ("/v1/free", Right::Operator, post(routes::maintenance::free)),
        ("/v1/s3", Right::Secrets, post(routes::s3::s3)),
        ("/v1/s3/credentials", Right::Secrets, post(routes::s3::share_credentials)),
    ]
}

pub fn router(listener: Listener, state: &Arc<ServerState>) -> Router {
    let served = table().into_iter().filter(|(_, right, _)| listener.serves(*right));
    served.fold(Router::new(), |router, (path, _, handler)| router.route(path, handler)).with_state(state.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_answers_secrets_is_on_the_socket_only() {
        let served = |listener: Listener| -> Vec<&str> {
            let routes = table().into_iter().filter(|(_, right, _)| listener.serves(*right));
            routes.map(|(path, ..)| path).collect()
        };
        assert_eq!(served(Listener::Socket).len(), table().len());
        assert_eq!(served(Listener::Monitoring), ["/livez", "/readyz", "/metrics"]);
        for listener in [Listener::Remote, Listener::Monitoring] {
            assert!(served(listener).iter().all(|path| !path.starts_with("/v1/s3")), "{listener:?}");
        }
        assert!(served(Listener::Remote).contains(&"/v1/status"));
    }
}
