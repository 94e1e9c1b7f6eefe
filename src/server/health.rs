//! Polls the child's health: often until it is ready, then every few seconds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::clock;
use crate::config::Config;
use crate::datadir::DataDir;
use crate::etcd::child::{ChildStatus, Handle, Role, State};
use crate::etcd::client::{EtcdClient, Expected, MemberFacts, NotHealthy};
use crate::etcd::settings::Addresses;
use crate::pki::Expiry;

/// The poll interval of a ready child.
const POLL_HEALTHY: Duration = Duration::from_secs(5);
/// The poll interval of another child: from this …
const POLL_MIN: Duration = Duration::from_millis(10);
const POLL_MAX: Duration = Duration::from_secs(1);
/// The interval of log lines while a start waits.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, PartialEq)]
pub enum Health {
    Unknown,
    Healthy(MemberFacts),
    /// The member is a learner: it receives the log, but does not serve clients yet.
    Learner,
    Unhealthy(String),
}

/// A defragmentation of this member, as the health monitor sees it.
#[derive(Debug, Default)]
pub struct Defragmentation {
    /// etcd serves no requests while this is true.
    pub is_running: AtomicBool,
    /// Makes the monitor check at once.
    pub check_now: Notify,
}

#[derive(Debug)]
pub struct HealthMonitor {
    data: DataDir,
    url: String,
    expected: Expected,
    handle: Handle,
    child: watch::Receiver<ChildStatus>,
    certificates: watch::Receiver<Vec<Expiry>>,
    defragmentation: Arc<Defragmentation>,
    health: watch::Sender<Health>,
}

impl HealthMonitor {
    /// A prober, and the receiver of its results.
    #[must_use]
    pub fn new(
        config: &Config,
        data: &DataDir,
        member_name: &str,
        handle: Handle,
        certificates: watch::Receiver<Vec<Expiry>>,
        defragmentation: Arc<Defragmentation>,
    ) -> (Self, watch::Receiver<Health>) {
        let (health, seen) = watch::channel(Health::Unknown);
        let prober = Self {
            data: data.clone(),
            url: Addresses::local_client_url(config),
            expected: Expected { name: member_name.to_owned(), peer_url: Addresses::peer_url(config) },
            child: handle.watch(),
            handle,
            certificates,
            defragmentation,
            health,
        };
        (prober, seen)
    }

    pub async fn run(mut self) {
        loop {
            let status = self.child.borrow_and_update().clone();
            if status.state.is_alive() {
                self.wait_until_healthy(status.generation).await;
            } else {
                self.publish(Health::Unhealthy(format!("etcd is {}", status.state.word())));
                if self.child.changed().await.is_err() {
                    return;
                }
            }
        }
    }

    /// Polls one run of the child; returns when it ends.
    async fn wait_until_healthy(&mut self, generation: u64) {
        let begun = clock::monotonic();
        let mut reminded = begun;
        let mut wait = POLL_MIN;
        let mut client = None;
        loop {
            let (health, is_alive) = self.check(&mut client).await;
            let is_healthy = matches!(health, Health::Healthy(_));
            let role = match health {
                Health::Healthy(_) => Some(Role::Voter),
                Health::Learner => Some(Role::Learner),
                Health::Unknown | Health::Unhealthy(_) => None,
            };
            if let Health::Unhealthy(why) = &health {
                if !is_alive {
                    return;
                }
                if reminded.elapsed() >= LOG_INTERVAL {
                    reminded = clock::monotonic();
                    self.child.borrow().tail.show();
                    tracing::warn!(waited_s = begun.elapsed().as_secs(), why, "etcd is not healthy");
                }
                wait = (wait * 3 / 2).min(POLL_MAX);
            } else {
                wait = POLL_HEALTHY;
            }
            // First the facts, then the health that depends on them.
            self.publish(health);
            if let Some(role) = role {
                self.handle.report_healthy(generation, role).await;
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                // etcd reads its certificate at each handshake; ours is read when a connection is created.
                changed = self.certificates.changed() => if changed.is_ok() {
                    client = None;
                },
                () = self.defragmentation.check_now.notified() => {}
                () = Self::ends(&mut self.child, generation) => return,
            }
            if is_healthy {
                wait = POLL_MIN;
                reminded = clock::monotonic();
            } else {
                // The connection may be broken.
                if wait >= POLL_MAX {
                    client = None;
                }
            }
        }
    }

    /// One check. Also returns whether this run should be polled further.
    async fn check(&mut self, client: &mut Option<EtcdClient>) -> (Health, bool) {
        let connected = match client {
            Some(client) => client,
            None => match EtcdClient::connect(&self.data, &self.url).await {
                Ok(new) => client.insert(new),
                Err(error) => return (Health::Unhealthy(error.to_string()), true),
            },
        };
        let state = self.child.borrow().state;
        match connected.check(&self.expected).await {
            Ok(facts) => (Health::Healthy(facts), true),
            Err(NotHealthy::OtherAddress { member, is_alone: true, found, wanted }) => {
                tracing::warn!(
                    event = "peer-url-changed",
                    found,
                    wanted,
                    "this server's address has changed; updating the peer URL of the single member"
                );
                let why = match connected.update_peer_url(member, &wanted).await {
                    Ok(()) => "the peer URL is being updated".to_owned(),
                    Err(error) => format!("updating the peer URL failed: {error}"),
                };
                (Health::Unhealthy(why), true)
            }
            Err(NotHealthy::Learner) => (Health::Learner, true),
            Err(why) => {
                let why = if self.defragmentation.is_running.load(Ordering::Relaxed) {
                    "etcd is being defragmented, and serves no requests meanwhile".into()
                } else {
                    why.to_string()
                };
                (Health::Unhealthy(why), state.is_alive())
            }
        }
    }

    fn publish(&self, health: Health) {
        self.health.send_if_modified(|present| {
            let is_news = *present != health;
            if is_news {
                if let (Health::Healthy(_), Health::Unhealthy(why)) = (&*present, &health)
                    && self.child.borrow().state == State::Running(Role::Voter)
                {
                    tracing::warn!(why, "etcd is not healthy any more");
                } else if let (Health::Unhealthy(_), Health::Healthy(_)) = (&*present, &health)
                    && self.child.borrow().state == State::Running(Role::Voter)
                {
                    tracing::info!("etcd is healthy again");
                }
                *present = health;
            }
            is_news
        });
    }

    async fn ends(child: &mut watch::Receiver<ChildStatus>, generation: u64) {
        let is_over = |status: &ChildStatus| status.generation != generation || !status.state.is_alive();
        let _ = child.wait_for(is_over).await;
    }
}
