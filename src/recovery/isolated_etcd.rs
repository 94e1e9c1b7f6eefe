//! An etcd that only we can reach: on loopback ports of the moment, trusting nobody but certificates that were made for it.

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
use crate::etcd::pinned::PinnedExecutable;
use crate::etcd::process::Spawner;
use crate::etcd::settings::{self, Identity, Setting, StartMode};
use crate::etcd::supervisor::{Launch, Supervisor};
use crate::job::JobControl;
use crate::pki::{self, CaSource, EtcdState, PkiError};
use crate::version::Version;

/// Between two looks: from this …
const POLL_MIN: Duration = Duration::from_millis(10);
/// … growing to this.
const POLL_MAX: Duration = Duration::from_secs(1);
/// How often it is said what is waited for.
const LOG_INTERVAL: Duration = Duration::from_secs(10);
/// How long one request may take, in a database of any size.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);

/// The etcd to run.
#[derive(Clone, Debug)]
pub struct Program {
    /// The executable.
    pub checked: PinnedExecutable,
    /// Its version.
    pub version: Version,
    /// How long it may take to end.
    pub grace: Duration,
}

impl Program {
    /// The etcd of this configuration, and what keeps it executable as long as it lives.
    ///
    /// # Errors
    /// If there is none, or it is none that quorate knows.
    pub async fn find(config: &Config, data: &DataDir) -> Result<(Self, InstalledEtcd), AppError> {
        let found = installed::find(config, data).await?;
        Ok((Self { checked: found.checked.clone(), version: found.version, grace: installed::stop_timeout() }, found))
    }
}

/// Why it does not run.
#[derive(Debug, thiserror::Error)]
pub enum IsolatedEtcdError {
    /// The system refused something.
    #[error("cannot {act}")]
    System {
        /// What.
        act: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Its certificates could not be made.
    #[error(transparent)]
    Certificates(#[from] PkiError),
    /// Its directory could not be made.
    #[error(transparent)]
    Place(#[from] DataDirError),
    /// Something could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// It cannot be asked.
    #[error("etcd cannot be asked")]
    Client(#[from] ClientError),
    /// It ended.
    #[error("etcd ended by itself with {exit}; its last lines:{}", crate::etcd::supervisor::indented(lines))]
    Ended {
        /// How.
        exit: String,
        /// What it said.
        lines: Vec<String>,
    },
    /// It took too long.
    #[error("etcd was not healthy after {} s: {why}", after.as_secs())]
    Timeout {
        /// How long it was waited for.
        after: Duration,
        /// The last thing that was wrong.
        why: String,
    },
    /// Nobody wants it any more.
    #[error("it was broken off")]
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

/// What it is started with.
#[derive(Clone, Debug)]
pub struct IsolatedEtcd<'a> {
    /// The server's configuration.
    pub config: &'a Config,
    /// The server's data directory, where the child is recorded.
    pub data: &'a DataDir,
    /// Where its certificates are made.
    pub trust: &'a Path,
    /// etcd's data directory.
    pub dir: &'a Path,
    /// The member's name.
    pub name: &'a str,
    /// Bytes that the database may grow to.
    pub quota: u64,
    /// Forget all other members.
    pub force_new_cluster: bool,
    /// Run with the lowest priority, as another etcd may be running.
    pub is_gentle: bool,
}

/// It runs.
#[derive(Debug)]
pub struct Running {
    owner: JoinHandle<()>,
    handle: Handle,
    trust: DataDir,
    url: String,
}

impl IsolatedEtcd<'_> {
    /// Starts it.
    ///
    /// # Errors
    /// If it cannot be started.
    pub async fn start(&self, program: &Program) -> Result<Running, IsolatedEtcdError> {
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

/// Two that nobody has now. Somebody may take one before etcd does; it then ends, and says so.
fn free_ports() -> io::Result<[u16; 2]> {
    let listeners = [TcpListener::bind(loopback(0))?, TcpListener::bind(loopback(0))?];
    Ok([listeners[0].local_addr()?.port(), listeners[1].local_addr()?.port()])
}

impl Running {
    /// Where its certificates are, and its URL.
    #[must_use]
    pub fn address(&self) -> (&DataDir, &str) {
        (&self.trust, &self.url)
    }

    /// Asks until it answers well. `ask` gives what it wants to know, or what is wrong still.
    ///
    /// # Errors
    /// If it ends, is not well in time, or nobody wants it any more.
    pub async fn until<T>(
        &mut self,
        deadline: Duration,
        control: &JobControl,
        mut ask: impl AsyncFnMut(&mut EtcdClient) -> Result<T, String>,
    ) -> Result<T, IsolatedEtcdError> {
        let begun = clock::monotonic();
        let (mut reminded, mut wait, mut why) = (begun, POLL_MIN, "it did not answer yet".to_owned());
        let mut child = self.handle.watch();
        loop {
            let status = child.borrow_and_update().clone();
            if matches!(status.state, State::Backoff | State::Failed) {
                let exit = status.last_exit.unwrap_or_else(|| "an unknown end".into());
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

    /// Ends it, in order.
    ///
    /// # Errors
    /// If it does not end.
    pub async fn stop(self) -> Result<(), IsolatedEtcdError> {
        let failed = |why: io::Error| IsolatedEtcdError::System { act: "stop etcd", source: why };
        self.handle.shut_down().await.map_err(|why| failed(io::Error::other(why)))?;
        self.owner.await.map_err(|lost| failed(io::Error::other(lost)))
    }
}

/// How long an etcd may take to be healthy on a database of so many bytes: generous, because a slow disk is no reason to give up.
#[must_use]
pub fn health_timeout(bytes: u64) -> Duration {
    Duration::from_secs(120 + bytes / (16 << 20))
}

/// Bytes that the database may grow to while it is tried: whether it is full is no question of whether it is whole.
#[must_use]
pub fn quota(bytes: u64) -> u64 {
    bytes.saturating_mul(2).saturating_add(1 << 30)
}

/// The directory under `work` where certificates for this are made.
#[must_use]
pub fn trust(work: &Path) -> PathBuf {
    work.join("trust")
}
