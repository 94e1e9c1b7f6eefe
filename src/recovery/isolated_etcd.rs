//! An etcd that only this process can use: on temporary loopback ports, with certificates created for it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::clock;
use crate::config::Config;
use crate::datadir::{DataDir, DataDirError};
use crate::durable::WriteError;
use crate::error::{AppError, Code, Diagnostic};
use crate::etcd::child::{Handle, State};
use crate::etcd::client::{ClientError, EtcdClient};
use crate::etcd::installed::{self, InstalledEtcd};
use crate::etcd::launch::Launch;
use crate::etcd::pinned::PinnedExecutable;
use crate::etcd::process::Spawner;
use crate::etcd::settings::{self, Identity, Setting, StartMode};
use crate::etcd::supervisor::Supervisor;
use crate::job::JobControl;
use crate::pki::{self, CaSource, EtcdState, PkiError};
use crate::version::Version;

/// The poll interval: from this …
const POLL_MIN: Duration = Duration::from_millis(10);
const POLL_MAX: Duration = Duration::from_secs(1);
/// The interval of log lines while waiting.
const LOG_INTERVAL: Duration = Duration::from_secs(10);
/// The timeout of a request, for any size of the database.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);

#[derive(Clone, Debug)]
pub struct IsolatedProgram {
    pub checked: PinnedExecutable,
    pub version: Version,
    pub grace: Duration,
}

impl IsolatedProgram {
    /// The etcd of this configuration, and the guard that keeps it executable.
    pub async fn find(config: &Config, data: &DataDir) -> Result<(Self, InstalledEtcd), AppError> {
        let found = installed::find(config, data).await?;
        Ok((Self { checked: found.checked.clone(), version: found.version, grace: installed::stop_timeout() }, found))
    }
}

#[derive(Debug, thiserror::Error)]
pub enum IsolatedEtcdError {
    #[error("cannot {act}")]
    System { act: &'static str, source: io::Error },
    /// Its certificates could not be created.
    #[error(transparent)]
    Certificates(#[from] PkiError),
    /// Its directory could not be created.
    #[error(transparent)]
    Place(#[from] DataDirError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("a request to etcd failed")]
    Client(#[from] ClientError),
    #[error("etcd exited unexpectedly with {exit}; its last lines:{}", crate::etcd::supervisor::indented(lines))]
    Ended { exit: String, lines: Vec<String> },
    #[error("etcd was not healthy after {} s: {why}", after.as_secs())]
    Timeout {
        /// The time that it was given.
        after: Duration,
        why: String,
    },
    #[error("waiting for etcd was cancelled")]
    Cancelled,
}

impl Diagnostic for IsolatedEtcdError {
    fn code(&self) -> Code {
        match self {
            Self::System { .. } => Code::OsError,
            Self::Certificates(error) => error.code(),
            Self::Place(error) => error.code(),
            Self::Write(error) => error.code(),
            Self::Client(_) => Code::EtcdRequestFailed,
            Self::Ended { .. } | Self::Timeout { .. } => Code::IsolatedEtcdFailed,
            Self::Cancelled => Code::Cancelled,
        }
    }
}

#[derive(Clone, Debug)]
pub struct IsolatedEtcd<'a> {
    pub config: &'a Config,
    /// The server's data directory, where the child is recorded.
    pub data: &'a DataDir,
    pub trust: &'a Path,
    pub dir: &'a Path,
    pub name: &'a str,
    /// The quota of the database, in bytes.
    pub quota: u64,
    pub force_new_cluster: bool,
    /// Run with the lowest priority, since another etcd may be running.
    pub is_gentle: bool,
}

#[derive(Debug)]
pub struct Running {
    owner: JoinHandle<()>,
    handle: Handle,
    trust: DataDir,
    url: String,
}

impl IsolatedEtcd<'_> {
    pub async fn start(&self, program: &IsolatedProgram) -> Result<Running, IsolatedEtcdError> {
        let system = |act| move |source| IsolatedEtcdError::System { act, source };
        let trust = DataDir::new(self.trust).with_etcd_user(self.config.etcd.user.clone());
        trust.prepare_for_lock()?;
        trust.prepare()?;
        for expiry in
            pki::ensure(&trust, &self.config.certificate_names(), CaSource::Create, EtcdState::Stopped)?.expiries
        {
            trust.set_certificate_modes(&trust.certificate(expiry.name))?;
        }
        let [client, peer] = free_ports().map_err(system("find a free port on loopback"))?;
        let identity = Identity { name: self.name.to_owned(), beginning: StartMode::ExistingData, is_alone: true };
        let mut flags = settings::isolated_settings(
            self.config,
            &trust,
            &identity,
            program.version,
            self.dir,
            [client, peer],
            self.quota,
        );
        if self.force_new_cluster {
            flags.push(Setting { key: "force-new-cluster".into(), value: "true".into() });
        }
        let launch = Launch {
            program: program.checked.clone(),
            user: self.config.etcd.user.clone(),
            args: flags.iter().map(Setting::flag).collect(),
            data: self.data.clone(),
            grace: program.grace,
            restart_check: None,
        };
        let spawner = if self.is_gentle { Spawner::start_gently() } else { Spawner::start() };
        let (supervisor, handle) = Supervisor::new(spawner.map_err(system("start a thread"))?);
        let url = format!("https://{}", loopback(client));
        let owner = tokio::spawn(supervisor.run());
        handle.start(launch).await.map_err(|why| system("start etcd")(io::Error::other(why)))?;
        Ok(Running { owner, handle, trust, url })
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// Two ports that are free now. If another process takes one before etcd does, etcd exits with an error.
fn free_ports() -> io::Result<[u16; 2]> {
    let listeners = [TcpListener::bind(loopback(0))?, TcpListener::bind(loopback(0))?];
    Ok([listeners[0].local_addr()?.port(), listeners[1].local_addr()?.port()])
}

impl Running {
    /// The directory of its certificates, and its URL.
    #[must_use]
    pub fn address(&self) -> (&DataDir, &str) {
        (&self.trust, &self.url)
    }

    /// Polls until `ask` succeeds, which returns a result or the present problem. # Errors If it exits, does not become
    /// healthy in time, or waiting is cancelled.
    pub async fn until<T>(
        &mut self,
        deadline: Duration,
        control: &JobControl,
        mut ask: impl AsyncFnMut(&mut EtcdClient) -> Result<T, String>,
    ) -> Result<T, IsolatedEtcdError> {
        let begun = clock::monotonic();
        let (mut reminded, mut wait, mut why) = (begun, POLL_MIN, "no answer yet".to_owned());
        let mut child = self.handle.watch();
        loop {
            let status = child.borrow_and_update().clone();
            if matches!(status.state, State::Backoff | State::Failed) {
                let exit = status.last_exit.unwrap_or_else(|| "an unknown exit status".into());
                return Err(IsolatedEtcdError::Ended { exit, lines: status.tail.lines() });
            }
            if status.state == State::Starting {
                let mut client = EtcdClient::connect_for(&self.trust, &self.url, REQUEST_TIMEOUT).await?;
                match ask(&mut client).await {
                    Ok(answer) => return Ok(answer),
                    Err(wrong) => why = wrong,
                }
            }
            if begun.elapsed() >= deadline {
                return Err(IsolatedEtcdError::Timeout { after: deadline, why });
            }
            if reminded.elapsed() >= LOG_INTERVAL {
                reminded = clock::monotonic();
                tracing::info!(waited_s = begun.elapsed().as_secs(), why, "waiting for etcd");
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => wait = (wait * 3 / 2).min(POLL_MAX),
                _ = child.changed() => {}
                () = control.cancelled() => return Err(IsolatedEtcdError::Cancelled),
            }
        }
    }

    pub async fn stop(self) -> Result<(), IsolatedEtcdError> {
        let failed = |why: io::Error| IsolatedEtcdError::System { act: "stop etcd", source: why };
        self.handle.shut_down().await.map_err(|why| failed(io::Error::other(why)))?;
        self.owner.await.map_err(|lost| failed(io::Error::other(lost)))
    }
}

/// The timeout until etcd is healthy on a database of this size: generous, because a slow disk is not a failure.
#[must_use]
pub fn health_timeout(bytes: u64) -> Duration {
    Duration::from_secs(120 + bytes / (16 << 20))
}

/// The quota during the test: a database at its quota can still be good.
#[must_use]
pub fn quota(bytes: u64) -> u64 {
    bytes.saturating_mul(2).saturating_add(1 << 30)
}

/// The directory under `work` for its certificates.
#[must_use]
pub fn trust(work: &Path) -> PathBuf {
    work.join("trust")
}
