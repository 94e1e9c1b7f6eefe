//! SIGHUP: reads the configuration again, applies the reloadable keys, and reports those that require a restart. An
//! invalid configuration changes nothing.

use crate::config::changes::compare;
use crate::config::options::DEFAULT_CONFIG;
use crate::config::{self, Config, Loaded, RawOptions, Resolved};
use crate::error::{Diagnostic, ErrorReport};
use crate::host::HostFacts;
use crate::log_failure;
use crate::logging::Control;
use crate::snapshot::save::{self, SaveError};

/// The inputs for reading the configuration again.
#[derive(Debug)]
pub struct ConfigReloader {
    /// The command line and the environment, which do not change.
    pub given: RawOptions,
    pub running: Resolved,
    pub logging: Control,
}

#[derive(Debug)]
pub(crate) struct ReadConfig {
    loaded: Loaded,
    /// Whether its snapshot directory can be used.
    dir: Result<(), SaveError>,
}

impl ConfigReloader {
    /// The configuration file, for messages: the given one, or the default if it exists.
    pub(crate) fn config_file(&self) -> String {
        let named = self.given.config.as_ref().map(|(path, _)| path.display().to_string());
        let usual = || std::path::Path::new(DEFAULT_CONFIG).exists().then(|| DEFAULT_CONFIG.to_owned());
        named.or_else(usual).unwrap_or_else(|| "none".into())
    }

    pub(crate) fn read(&self) -> impl FnOnce() -> ReadConfig + Send + 'static {
        let given = self.given.clone();
        move || {
            let loaded = config::load(&given, &HostFacts::observe());
            let dir = loaded.config.as_ref().ok().and_then(|config| config.snapshot.dir.clone());
            ReadConfig { loaded, dir: dir.as_deref().map_or(Ok(()), save::prepare_own_dir) }
        }
    }

    /// Compares the configurations, applies the changes to the log and to `config`, and logs them. Returns a summary
    /// for the service manager.
    pub(crate) fn apply(&mut self, read: ReadConfig, config: &mut Config) -> String {
        let Loaded { config: wanted, resolved, warnings, .. } = read.loaded;
        for warning in warnings {
            tracing::warn!(origin = %warning.origin, "{}", warning.message);
        }
        let wanted = match wanted {
            Ok(wanted) => wanted,
            Err(errors) => {
                for problem in &errors.problems {
                    tracing::error!(origin = %problem.origin, "{}", problem.message);
                }
                tracing::error!(
                    code = errors.code().name(),
                    problems = errors.problems.len(),
                    "reload failed; the configuration is unchanged"
                );
                return "the configuration is invalid and was not reloaded".into();
            }
        };
        if let Err(error) = read.dir {
            log_failure!(error, ErrorReport::of(&error), "reload failed; the configuration is unchanged");
            return "the snapshot directory cannot be used; the configuration was not reloaded".into();
        }
        let changes = compare(&self.running, &resolved);
        for change in &changes {
            let (key, from, to) = (change.key, &change.from, &change.to);
            if change.is_live {
                tracing::info!(event = "setting-changed", key, from, to, "configuration changed");
                self.running.take(key, &resolved);
            } else {
                tracing::warn!(
                    event = "setting-pending",
                    key,
                    from,
                    to,
                    "configuration changed; this key takes effect at the next restart"
                );
            }
        }
        config.debug = wanted.debug;
        config.log_format = wanted.log_format;
        config.tls_sans = wanted.tls_sans;
        config.node_external_ips = wanted.node_external_ips;
        config.snapshot = wanted.snapshot;
        config.maintenance = wanted.maintenance;
        self.logging.set(config.log_format, config.debug);
        let waiting: Vec<&str> = changes.iter().filter(|change| !change.is_live).map(|change| change.key).collect();
        if changes.iter().any(|change| change.key == "debug") {
            tracing::info!(
                event = "setting-pending",
                key = "etcd-log-level",
                "the log level of etcd changes when quorate is restarted"
            );
        }
        match (changes.len(), waiting.as_slice()) {
            (0, _) => "reloaded: nothing has changed".into(),
            (_, []) => "reloaded".into(),
            (_, keys) => format!("reloaded; restart required for: {}", keys.join(", ")),
        }
    }
}
