//! Blocking or long work of the launcher. It runs outside the event loop, one of each kind at a time, and its result
//! returns as an [`Effect`].

use std::time::Duration;

use tokio::task::JoinSet;

use super::clean_up;
use super::reload::ReadConfig;
use crate::cluster::file::{self, RecordInput, RecordOutcome, WrongCluster};
use crate::datadir::DataDir;
use crate::durable::{self, WriteError};
use crate::error::{AppError, ErrorReport};
use crate::etcd::child::Handle;
use crate::etcd::client::MemberFacts;
use crate::log_failure;
use crate::pki::{self, CaSource, CertificateStatus, EtcdState};
use crate::server::state::ServerState;

/// The timeout of cancelled snapshots and drills for removing their files.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(15);
/// The timeout of removing the socket at the end.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(crate) enum Effect {
    /// Snapshots and drills have ended, or timed out.
    WorkCancelled,
    /// etcd has stopped, or cannot be killed.
    EtcdGone(Result<(), AppError>),
    /// Whether there was a reset flag.
    ResetFlag(Result<bool, WriteError>),
    /// etcd serves another cluster than the recorded one.
    WrongCluster(WrongCluster),
    /// The certificates were checked and renewed.
    Certificates(Result<CertificateStatus, AppError>),
    /// What became of the cluster record.
    Recorded(Result<RecordOutcome, AppError>),
    ConfigRead(Box<ReadConfig>),
    Done,
    Lost(std::io::Error),
}

#[derive(Debug, Default)]
pub(crate) struct Effects {
    running: JoinSet<Effect>,
    is_recording: bool,
    /// The next record to write, after the present one.
    next_record: Option<Box<(RecordInput, MemberFacts)>>,
    is_checking_certificates: bool,
    next_check: Option<Box<(DataDir, pki::Names)>>,
}

impl Effects {
    pub(crate) async fn next(&mut self) -> Effect {
        let Some(ended) = self.running.join_next().await else { return std::future::pending().await };
        let effect = ended.unwrap_or_else(|lost| Effect::Lost(std::io::Error::other(lost)));
        match effect {
            Effect::Recorded(_) => {
                self.is_recording = false;
                if let Some(next) = self.next_record.take() {
                    self.record_now(next.0, next.1);
                }
            }
            Effect::Certificates(_) => {
                self.is_checking_certificates = false;
                if let Some(next) = self.next_check.take() {
                    self.check_certificates(&next.0, next.1);
                }
            }
            _ => {}
        }
        effect
    }

    fn blocking(&mut self, work: impl FnOnce() -> Effect + Send + 'static) {
        self.running.spawn_blocking(work);
    }

    /// Waits until cancelled work has removed its files.
    pub(crate) fn wait_for_work(&mut self, state: &std::sync::Arc<ServerState>) {
        let state = state.clone();
        self.running.spawn(async move {
            let (saving, drilling) = (state.snapshots.lock.idle(), state.snapshots.drilling.lock());
            let _ = tokio::time::timeout(CANCEL_TIMEOUT, async { tokio::join!(saving, drilling) }).await;
            Effect::WorkCancelled
        });
    }

    /// Stops etcd, and ends its supervisor.
    pub(crate) fn stop_etcd(&mut self, handle: &Handle, at_once: bool) {
        let handle = handle.clone();
        self.running.spawn(async move {
            let ended = if at_once { handle.kill_and_shut_down().await } else { handle.shut_down().await };
            Effect::EtcdGone(ended.map_err(AppError::from))
        });
    }

    /// Removes the reset flag, unless etcd serves another cluster than the recorded one.
    pub(crate) fn remove_reset_flag(&mut self, data: &DataDir, cluster_id: Option<String>) {
        let data = data.clone();
        self.blocking(move || match cluster_id.map_or(Ok(()), |id| file::check(&data, &id)) {
            Ok(()) => Effect::ResetFlag(durable::remove_file(&data.reset_flag())),
            Err(wrong) => Effect::WrongCluster(wrong),
        });
    }

    pub(crate) fn check_certificates(&mut self, data: &DataDir, names: pki::Names) {
        if std::mem::replace(&mut self.is_checking_certificates, true) {
            self.next_check = Some(Box::new((data.clone(), names)));
            return;
        }
        let data = data.clone();
        self.blocking(move || {
            Effect::Certificates(
                pki::ensure(&data, &names, CaSource::MustExist, EtcdState::Running).map_err(AppError::from),
            )
        });
    }

    pub(crate) fn is_checking_certificates(&self) -> bool {
        self.is_checking_certificates
    }

    pub(crate) fn restart_for_new_ca(&mut self, data: &DataDir, handle: &Handle) {
        let (data, handle) = (data.clone(), handle.clone());
        self.running.spawn(async move {
            let renamed = tokio::task::spawn_blocking(move || pki::token::ensure(&data, None)).await;
            if let Ok(Err(error)) = renamed {
                log_failure!(error, ErrorReport::of(&error), "cannot update the token for the new CA");
            }
            // A stop that came first is not a failure, and a failed start is in the state of etcd.
            let _ = handle.restart(None).await;
            Effect::Done
        });
    }

    pub(crate) fn record(&mut self, state: &ServerState, facts: MemberFacts) {
        let input = state.context.record_input();
        if self.is_recording {
            self.next_record = Some(Box::new((input, facts)));
        } else {
            self.record_now(input, facts);
        }
    }

    fn record_now(&mut self, input: RecordInput, facts: MemberFacts) {
        self.is_recording = true;
        self.blocking(move || Effect::Recorded(file::save_if_changed(&input, &facts).map_err(AppError::from)));
    }

    pub(crate) fn read_config(&mut self, read: impl FnOnce() -> ReadConfig + Send + 'static) {
        self.blocking(move || Effect::ConfigRead(Box::new(read())));
    }

    /// Once etcd is healthy on its data.
    pub(crate) fn clean_up(&mut self, data: &DataDir, keep: u32) {
        let data = data.clone();
        self.blocking(move || {
            clean_up::after_start(&data, keep);
            Effect::Done
        });
    }

    /// At the end: a disk that does not respond must not prevent the exit.
    pub(crate) async fn remove_socket(&mut self, data: &DataDir) {
        let socket = data.socket();
        let removed = tokio::task::spawn_blocking(move || drop(durable::remove_file(&socket)));
        let _ = tokio::time::timeout(REMOVE_TIMEOUT, removed).await;
    }
}
