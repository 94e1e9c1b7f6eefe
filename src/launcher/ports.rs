//! Checks that the ports are free before the child starts, because etcd only reports a conflict in many log lines.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;

use crate::config::Config;
use crate::error::{Code, Diagnostic};
use crate::etcd::settings::Addresses;
use crate::host;

/// A port that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PortError {
    #[error("{address} ({option}) is taken{}", by(.holder.as_deref()))]
    InUse { address: SocketAddr, option: &'static str, holder: Option<String> },
    #[error("{address} ({option}) is in use by {etcd} of the running quorate server pid {launcher} on {data_dir}")]
    OfQuorate { address: SocketAddr, option: &'static str, etcd: String, launcher: i32, data_dir: String },
    #[error("cannot listen on {address} ({option})")]
    Refused { address: SocketAddr, option: &'static str, source: io::Error },
}

fn by(holder: Option<&str>) -> String {
    holder.map(|holder| format!(" by {holder}")).unwrap_or_default()
}

impl Diagnostic for PortError {
    fn code(&self) -> Code {
        match self {
            Self::InUse { .. } => Code::PortInUse,
            Self::OfQuorate { .. } => Code::PortInUseByQuorate,
            Self::Refused { .. } => Code::ListenFailed,
        }
    }

    fn next_step(&self) -> Option<String> {
        Some(match self {
            Self::InUse { option, holder, .. } => {
                let is_etcd = holder.as_ref().is_some_and(|holder| holder.contains("(etcd)"));
                let stop = if is_etcd {
                    "if that is the distribution's own etcd service: systemctl disable --now etcd; otherwise stop it"
                } else {
                    "stop that process"
                };
                format!("{stop}, or set another --{option}")
            }
            Self::OfQuorate { option, data_dir, .. } => format!(
                "check that server: quorate status --data-dir {data_dir}; it may have the only copy of its data. \
                 For another server on this machine set another --{option}"
            ),
            Self::Refused { option, .. } => format!("set another --{option} or --node-ip"),
        })
    }
}

/// Checks every port of etcd, and binds that of the launcher.
pub(crate) fn claim(config: &Config) -> Result<TcpListener, PortError> {
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
    let ours = SocketAddr::new(host::loopback_for(config.node_ip()), config.metrics_port);
    bind(ours, "metrics-port")
}

fn bind(address: SocketAddr, option: &'static str) -> Result<TcpListener, PortError> {
    // The standard library sets SO_REUSEADDR, so lingering connections of an earlier etcd do not matter.
    TcpListener::bind(address).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => {
            let holder = host::listener_on(address);
            holder.and_then(|pid| of_quorate(address, option, pid)).unwrap_or_else(|| PortError::InUse {
                address,
                option,
                holder: holder.map(host::describe),
            })
        }
        _ => PortError::Refused { address, option, source },
    })
}

/// Recognises the etcd of a quorate server by its parent process and its data directory.
fn of_quorate(address: SocketAddr, option: &'static str, pid: i32) -> Option<PortError> {
    let launcher = host::parent(pid)?;
    let is_quorate = |pid: i32| host::arguments(pid).iter().skip(1).any(|word| word == "server");
    let etcd_dir = host::arguments(pid).iter().find_map(|word| word.strip_prefix("--data-dir=").map(PathBuf::from))?;
    // `D/server/db/etcd`, as quorate starts etcd.
    let data_dir = etcd_dir.ancestors().nth(3).filter(|dir| dir.join("server/db/etcd") == etcd_dir)?;
    is_quorate(launcher).then(|| PortError::OfQuorate {
        address,
        option,
        etcd: host::describe(pid),
        launcher,
        data_dir: crate::text::escape_control(&data_dir.display().to_string()),
    })
}
