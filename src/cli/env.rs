//! `quorate env`: the settings of etcdctl as shell variables, for `eval "$(quorate env)"`.

use std::path::PathBuf;
use std::time::Duration;

use crate::cli::locate::{Intent, locate};
use crate::cli::runtime::block_on;
use crate::cli::{output, status};
use crate::config::{Config, RawOptions};
use crate::control::client::ControlError;
use crate::datadir::DataDir;
use crate::error::{AppError, Exit};
use crate::etcd::settings::Addresses;
use crate::shell::quote;

/// `quorate env`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  eval \"$(quorate env)\"
  etcdctl endpoint status -w table")]
pub(super) struct Args {}

/// The timeout of the launcher; etcd may be fine without it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// How clients reach this server's etcd.
pub(super) struct Access {
    pub(super) endpoint: String,
    /// The running etcd, if any.
    pub(super) etcd_binary: Option<PathBuf>,
    pub(super) authority: PathBuf,
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

impl Access {
    /// From the running server, whose ports may be set on its command line; else from the configuration.
    pub(super) fn find(config: &Config) -> Result<Self, AppError> {
        let data = DataDir::new(&config.data_dir);
        let (endpoint, etcd_binary) = match block_on(status::fetch(&data, REQUEST_TIMEOUT))? {
            Ok(status) => (status.local_client_url, Some(PathBuf::from(status.etcd.binary))),
            // If the launcher hangs, access to etcd is even more important.
            Err(error @ (ControlError::NotRunning(_) | ControlError::NoAnswer { .. })) => {
                let url = Addresses::local_client_url(config);
                let so = match error {
                    ControlError::NotRunning(_) => "etcd may not be running at",
                    _ => "but etcd itself may be fine; trying",
                };
                output::print_stderr(&format!("quorate: warning: {error}; {so} {url}\n"));
                (url, None)
            }
            Err(error) => return Err(error.into()),
        };
        let client = data.certificate("client");
        Ok(Self {
            endpoint,
            etcd_binary,
            authority: data.certificate("server-ca").certificate,
            certificate: client.certificate,
            key: client.key,
        })
    }

    /// Flags of etcdctl, without dashes, with their variables.
    pub(super) fn settings(&self) -> [(&'static str, String); 4] {
        [
            ("endpoints", self.endpoint.clone()),
            ("cacert", self.authority.display().to_string()),
            ("cert", self.certificate.display().to_string()),
            ("key", self.key.display().to_string()),
        ]
    }
}

/// The environment variable of an etcdctl flag.
pub(super) fn variable(flag: &str) -> String {
    format!("ETCDCTL_{}", flag.to_uppercase())
}

pub(super) fn run(given: &RawOptions) -> Result<Exit, AppError> {
    let access = Access::find(&locate(given, Intent::Read)?)?;
    for (flag, value) in access.settings() {
        output::print_stdout(&format!("export {}={}\n", variable(flag), quote(&value)))?;
    }
    Ok(Exit::Done)
}
