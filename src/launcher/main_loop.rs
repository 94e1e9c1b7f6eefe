//! The loop of a server that runs: serves signals, news of etcd and results of effects, and waits for nothing itself.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::clock;
use crate::cluster::file::RecordOutcome;
use crate::config::{Config, MaintenanceConfig, SnapshotConfig};
use crate::error::{AppError, ErrorReport, system_error};
use crate::etcd::child::{ChildStatus, Handle, Role, State};
use crate::etcd::settings::Addresses;
use crate::faults;
use crate::launcher::effects::{Effect, Effects};
use crate::launcher::reload::ConfigReloader;
use crate::launcher::signals::{SignalAction, Signals};
use crate::launcher::stop::{Stop, StopAction, StopEvent};
use crate::launcher::tasks::Tasks;
use crate::launcher::{reload, systemd};
use crate::log_failure;
use crate::pki::{self, CertificateStatus};
use crate::plan::health::StorageFacts;
use crate::server::condition::{self, LoggedProblems};
use crate::server::health::Health;
use crate::server::state::ServerState;

const CERTIFICATE_INTERVAL: Duration = Duration::from_secs(3600);

pub(crate) struct Launcher {
    pub(crate) state: Arc<ServerState>,
    pub(crate) handle: Handle,
    pub(crate) tasks: Tasks,
    pub(crate) effects: Effects,
    pub(crate) stop: Stop,
    /// The failure that ends the server, if it was not stopped by a signal.
    pub(crate) failure: Option<AppError>,
    pub(crate) health: watch::Receiver<Health>,
    pub(crate) storage: watch::Receiver<StorageFacts>,
    pub(crate) certificates: watch::Sender<Vec<pki::Expiry>>,
    pub(crate) stopping: watch::Sender<bool>,
    pub(crate) snapshot_settings: watch::Sender<SnapshotConfig>,
    pub(crate) maintenance_settings: watch::Sender<MaintenanceConfig>,
    /// The present configuration; routes use that of the start.
    pub(crate) config: Config,
    pub(crate) reloader: ConfigReloader,
    /// The CAs that etcd has read.
    pub(crate) authorities: Vec<Vec<u8>>,
    pub(crate) watchdog: systemd::Watchdog,
    pub(crate) was_healthy: bool,
    pub(crate) is_ready: bool,
    pub(crate) problems: LoggedProblems,
    /// Why the cluster record could not be read the last time, as it was logged.
    pub(crate) record_failure: Option<String>,
    /// The loaded configuration, until the certificates follow.
    pub(crate) reloaded: Option<String>,
}

impl Launcher {
    /// Handles signals, state changes of etcd and results of effects until the stop is complete.
    pub(crate) async fn run(mut self, mut signals: Signals) -> Result<(), AppError> {
        let mut child = self.handle.watch();
        child.mark_changed();
        let period = faults::tunable("QUORATE_TEST_CERTIFICATE_MS", CERTIFICATE_INTERVAL);
        // They were just checked.
        let mut certificate_check = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
        let mut watchdog = tokio::time::interval(self.watchdog.interval());
        let mut assessment = tokio::time::interval(condition::INTERVAL);
        loop {
            let action = tokio::select! {
                action = signals.next() => match action {
                    SignalAction::Stop(signal) => self.on_signal(signal),
                    SignalAction::Reload if self.stop.has_begun() => StopAction::None,
                    SignalAction::Reload => {
                        self.reload();
                        StopAction::None
                    }
                },
                Ok(()) = child.changed() => {
                    let status = child.borrow_and_update().clone();
                    self.child_changed(&status)
                }
                Ok(()) = self.health.changed() => {
                    let health = self.health.borrow_and_update().clone();
                    self.health_changed(&health);
                    StopAction::None
                }
                Ok(()) = self.storage.changed() => {
                    self.problems.update(&condition::assess_now(&self.state));
                    // The record of the cluster may have been removed, or be an older copy: the next start relies on it.
                    self.record_cluster();
                    StopAction::None
                }
                effect = self.effects.next() => self.on_effect(effect),
                ended = self.tasks.ended(), if !self.stop.has_begun() => self.fail(ended.into()),
                _ = certificate_check.tick() => {
                    self.effects.check_certificates(&self.state.context.data, self.config.certificate_names());
                    StopAction::None
                }
                _ = watchdog.tick() => {
                    self.watchdog.feed();
                    StopAction::None
                }
                _ = assessment.tick() => {
                    self.problems.update(&condition::assess_now(&self.state));
                    StopAction::None
                }
            };
            if self.carry_out(action) {
                break;
            }
        }
        self.tasks.shut_down().await;
        self.effects.remove_socket(&self.state.context.data).await;
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        tracing::info!(event = "stopped", "stopped");
        Ok(())
    }

    fn on_signal(&mut self, signal: &'static str) -> StopAction {
        if !self.stop.has_begun() {
            tracing::info!(event = "stopping", signal, "stopping; a second signal kills etcd at once");
        }
        self.stop.on(StopEvent::Signal(signal, clock::monotonic()))
    }

    /// The server cannot continue: it stops in order, and exits with this failure.
    fn fail(&mut self, failure: AppError) -> StopAction {
        log_failure!(error, failure.to_report(), event = "stopping", "the server cannot continue; stopping in order");
        // The first failure is the reason, later ones are consequences.
        self.failure.get_or_insert(failure);
        self.stop.on(StopEvent::Failure)
    }

    /// Executes an action of the stop. True when the server must exit.
    fn carry_out(&mut self, action: StopAction) -> bool {
        match action {
            StopAction::None => {}
            StopAction::CancelWork => {
                systemd::stopping();
                // A snapshot in progress is cancelled, and removes its files.
                let _ = self.stopping.send(true);
                self.effects.wait_for_work(&self.state);
            }
            StopAction::StopEtcd => self.effects.stop_etcd(&self.handle, false),
            StopAction::KillEtcd => self.effects.stop_etcd(&self.handle, true),
            StopAction::Finish => return true,
        }
        false
    }

    fn on_effect(&mut self, effect: Effect) -> StopAction {
        match effect {
            Effect::WorkCancelled => return self.stop.on(StopEvent::WorkCancelled),
            Effect::EtcdGone(Err(why)) => {
                self.failure.get_or_insert(why);
                return self.stop.on(StopEvent::EtcdGone);
            }
            Effect::EtcdGone(Ok(())) => return self.stop.on(StopEvent::EtcdGone),
            Effect::ResetFlag(removed) => {
                match removed {
                    Ok(true) => tracing::info!("the reset or restore is complete; the reset flag is removed"),
                    Ok(false) => {}
                    // Serving clients matters more than the flag.
                    Err(error) => log_failure!(error, ErrorReport::of(&error), "cannot remove the reset flag"),
                }
                self.became_ready();
            }
            Effect::Certificates(checked) => {
                match checked {
                    Ok(status) => self.certificates_checked(status),
                    Err(failure) => {
                        log_failure!(error, failure.to_report(), "cannot check the certificates; retrying later");
                    }
                }
                if !self.effects.is_checking_certificates() {
                    self.end_reload();
                }
            }
            Effect::WrongCluster(why) | Effect::Recorded(Ok(RecordOutcome::WrongCluster(why))) => {
                return self.fail(why.into());
            }
            Effect::Recorded(Ok(outcome)) => self.recorded(outcome),
            Effect::Recorded(Err(failure)) => {
                log_failure!(error, failure.to_report(), "cannot write the record of the cluster");
            }
            Effect::ConfigRead(read) => self.config_read(*read),
            Effect::Lost(why) => return self.fail(system_error("run a background thread")(why).into()),
            Effect::Done => {}
        }
        StopAction::None
    }

    pub(crate) fn reload(&mut self) {
        tracing::info!("reloading the configuration");
        if self.is_ready {
            systemd::reloading();
        }
        self.effects.read_config(self.reloader.read());
    }

    fn config_read(&mut self, read: reload::ReadConfig) {
        let outcome = self.reloader.apply(read, &mut self.config);
        self.effects.check_certificates(&self.state.context.data, self.config.certificate_names());
        let _ = self.snapshot_settings.send(self.config.snapshot.clone());
        let _ = self.maintenance_settings.send(self.config.maintenance.clone());
        self.reloaded = Some(outcome);
    }

    /// A reload is over when the certificates have the names of the new configuration.
    fn end_reload(&mut self) {
        let Some(outcome) = self.reloaded.take() else { return };
        tracing::info!(event = "reload-ended", "{outcome}");
        // A reload must not send the first READY=1.
        if self.is_ready {
            let line = self.ready_line();
            systemd::ready(&format!("{line}; {outcome}"));
        }
    }

    fn child_changed(&mut self, status: &ChildStatus) -> StopAction {
        match status.state {
            // Only a voting member completes a reset and is recorded.
            State::Running(Role::Voter) => {
                let cluster_id = match &*self.health.borrow() {
                    Health::Healthy(facts) => Some(facts.cluster_id.clone()),
                    _ => None,
                };
                self.effects.remove_reset_flag(&self.state.context.data, cluster_id);
            }
            State::Running(Role::Learner) => systemd::status("etcd is a learner: it receives the data of the cluster"),
            State::Starting => systemd::status("etcd is starting"),
            State::Backoff => {
                let exit = status.last_exit.as_deref().unwrap_or("an unknown exit status");
                systemd::status(&format!("etcd exited with {exit}; restarting it soon"));
            }
            State::Stopping => systemd::status("etcd is stopping"),
            State::Stopped => {}
            State::Failed => {
                if let Some(failure) = status.failure.clone().filter(|_| !self.stop.has_begun()) {
                    self.failure.get_or_insert(failure.into());
                    return self.stop.on(StopEvent::Failure);
                }
            }
        }
        StopAction::None
    }

    /// When a run of etcd is healthy for the first time, after the blocking work.
    fn became_ready(&mut self) {
        let status = self.state.context.child.borrow().clone();
        if status.state != State::Running(Role::Voter) {
            return;
        }
        let health = self.health.borrow().clone();
        self.health_changed(&health);
        let client_url = Addresses::client_url(&self.state.context.config);
        tracing::info!(
            event = "etcd-ready",
            etcd = %self.state.context.binary.version,
            member = self.state.context.member_name,
            took_ms = status.ready_after.unwrap_or_default().as_millis(),
            "etcd is ready; clients connect to {client_url}"
        );
        systemd::ready(&self.ready_line());
        if !self.is_ready {
            self.is_ready = true;
            self.effects.clean_up(&self.state.context.data, self.state.context.config.etcd_old_retention);
        }
    }

    /// Updates the status in systemd and the record of the cluster.
    fn health_changed(&mut self, health: &Health) {
        let is_healthy = matches!(health, Health::Healthy(_));
        let state = self.state.context.child.borrow().state;
        if let Health::Unhealthy(why) = health
            && state.is_alive()
        {
            systemd::status(&format!("etcd is {}, not healthy: {why}", state.word()));
        } else if is_healthy && !self.was_healthy && state == State::Running(Role::Voter) {
            systemd::status(&self.ready_line());
        }
        self.was_healthy = is_healthy;
        self.record_cluster();
    }

    fn record_cluster(&mut self) {
        if let Health::Healthy(facts) = self.health.borrow().clone() {
            self.effects.record(&self.state, facts);
        }
    }

    fn recorded(&mut self, outcome: RecordOutcome) {
        let logged = self.record_failure.take();
        match outcome {
            RecordOutcome::Saved { new_member_count: Some(members) }
                if members > 1 && self.state.context.started_alone =>
            {
                tracing::warn!(
                    members,
                    "this server is no longer the only member; restart it, so that etcd uses the timing of a cluster"
                );
            }
            RecordOutcome::Unreadable(error) => {
                let report = ErrorReport::of(&error);
                let text = report.to_string();
                if logged.as_ref() != Some(&text) {
                    log_failure!(error, report, "the cluster record cannot be read, and is not replaced");
                }
                self.record_failure = Some(text);
            }
            RecordOutcome::Saved { .. } | RecordOutcome::Unchanged | RecordOutcome::WrongCluster(_) => {}
        }
    }

    fn ready_line(&self) -> String {
        let url = Addresses::client_url(&self.state.context.config);
        format!("etcd {} is ready at {url}", self.state.context.binary.version)
    }

    fn certificates_checked(&mut self, status: CertificateStatus) {
        if status.has_changed || *self.certificates.borrow() != status.expiries {
            let _ = self.certificates.send(status.expiries);
        }
        // etcd reads its own certificate at each handshake, but the CAs that it trusts only when it starts.
        if self.authorities != status.authorities {
            tracing::warn!(
                event = "ca-replaced",
                "the CA files changed on disk; restarting etcd, so that it trusts them"
            );
            self.authorities = status.authorities;
            self.effects.restart_for_new_ca(&self.state.context.data, &self.handle);
        }
    }
}
