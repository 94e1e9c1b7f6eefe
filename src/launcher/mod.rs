//! `quorate server`: the composition root. Prepares the start, creates the services, and runs the event loop until the
//! end.
//!
//! This file reads top to bottom in the order of events. `preflight` checks the machine and the data before etcd
//! starts; `tasks` runs the background tasks; `stop` is the state machine of a stop; `effects` runs blocking work,
//! whose results return as events, so that the loop always serves signals and the watchdog, even if a disk hangs.

mod announce;
mod assemble;
mod clean_up;
pub(crate) mod disk;
pub(crate) mod doctor;
mod effects;
mod main_loop;
mod ports;
pub(crate) mod preflight;
pub(crate) mod reload;
pub mod reset;
mod signals;
mod stop;
pub(crate) mod systemd;
mod tasks;

use crate::clock;
use crate::config::Config;
use crate::datadir::DataDir;
use crate::error::{AppError, system_error};
use crate::etcd::installed::{self, InstalledEtcd, stop_timeout};
use crate::pki::{self};
use crate::snapshot::save;

use assemble::Assembled;
use preflight::PreparedStart;
use reload::ConfigReloader;
use signals::{SignalAction, Signals};

/// Runs the server until it is stopped.
pub async fn run(config: Config, reloader: ConfigReloader) -> Result<(), AppError> {
    let begun = clock::monotonic();
    let mut signals = Signals::listen().map_err(system_error("listen for signals"))?;
    let mut is_reload_due = false;
    let prepared = {
        let mut preparing = std::pin::pin!(prepare(&config));
        loop {
            tokio::select! {
                prepared = &mut preparing => break prepared?,
                action = signals.next() => match action {
                    SignalAction::Stop(signal) => {
                        tracing::info!(signal, "stopped before etcd was started");
                        return Ok(());
                    }
                    SignalAction::Reload => is_reload_due = true,
                },
            }
        }
    };
    announce::log_start(&config, &reloader.config_file(), &prepared.1, &prepared.2);
    let Assembled { mut launcher, launch } = assemble::assemble(config, reloader, prepared)?;
    tracing::debug!(took_ms = begun.elapsed().as_millis(), "ready to start etcd");
    if let Err(why) = launcher.handle.start(launch).await {
        // The loop learns it from the state of etcd, or from the task that ended.
        tracing::debug!(%why, "etcd was not started");
    }
    if is_reload_due {
        launcher.reload();
    }
    launcher.run(signals).await
}

/// Everything before etcd: the data directory is not changed until the binary is checked.
async fn prepare(config: &Config) -> Result<(DataDir, InstalledEtcd, PreparedStart), AppError> {
    let data = DataDir::new(&config.data_dir).with_etcd_user(config.etcd.user.clone());
    if !data.certificate("server-ca").key.exists() {
        // Keys may have to be created; meanwhile the version of etcd is queried.
        tokio::task::spawn_blocking(pki::warm_up);
    }
    let found = installed::find(config, &data).await?;
    if let Some(dir) = &config.snapshot.dir {
        save::prepare_own_dir(dir)?;
    }
    let prepared = preflight::prepare(config, &data, found.version, stop_timeout()).await?;
    let etcd = installed::unpack(config, &data, found).await?;
    Ok((data, etcd, prepared))
}
