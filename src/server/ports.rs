//! Are the ports free? Asked before the child starts, because etcd's own answer is a stack of log lines.

use std::io;
use std::net::{SocketAddr, TcpListener};

use crate::config::Config;
use crate::error::{Exit, Explained};
use crate::etcd::settings::Addresses;
use crate::host;

/// A port that cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub(super) enum PortError {
    /// Somebody else has it.
    #[error("{address} ({option}) is taken{}", by(.holder.as_deref()))]
    Taken { address: SocketAddr, option: &'static str, holder: Option<String> },
    /// The system says no.
    #[error("cannot listen on {address} ({option})")]
    Refused { address: SocketAddr, option: &'static str, source: io::Error },
}

fn by(holder: Option<&str>) -> String {
    holder.map(|holder| format!(" by {holder}")).unwrap_or_default()
}

impl Explained for PortError {
    fn exit(&self) -> Exit {
        Exit::Failed
    }

    fn next(&self) -> Option<String> {
        Some(match self {
            Self::Taken { option, holder, .. } => {
                let is_etcd = holder.as_ref().is_some_and(|holder| holder.contains("(etcd)"));
                let stop = if is_etcd {
                    "if that is the distribution's own etcd service: systemctl disable --now etcd; otherwise stop it"
                } else {
                    "stop that process"
                };
                format!("{stop}, or set another --{option}")
            }
            Self::Refused { option, .. } => format!("set another --{option} or --node-ip"),
        })
    }
}

/// Checks every port that etcd will want, and takes the launcher's own.
pub(super) fn claim(config: &Config) -> Result<TcpListener, PortError> {
    let addresses = Addresses::of(config);
    let wanted = [
        (addresses.client, "etcd-client-port"),
        (addresses.peer, "etcd-peer-port"),
        (addresses.metrics, "etcd-metrics-port"),
    ];
    for (addresses, option) in wanted {
        for address in addresses {
            bind(address, option).map(drop)?;
        }
    }
    let ours = SocketAddr::new(host::loopback_beside(config.node_ip()), config.metrics_port);
    bind(ours, "metrics-port")
}

fn bind(address: SocketAddr, option: &'static str) -> Result<TcpListener, PortError> {
    // The standard library sets SO_REUSEADDR, so connections of an earlier etcd that linger are no obstacle.
    TcpListener::bind(address).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => {
            PortError::Taken { address, option, holder: host::listener_on(address).map(host::describe) }
        }
        _ => PortError::Refused { address, option, source },
    })
}
