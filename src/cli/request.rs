//! Sends a long-running request to the server on this node.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cli::runtime::block_on;
use crate::config::Config;
use crate::control::api::events::Event;
use crate::control::client;
use crate::datadir::DataDir;
use crate::error::{AppError, Code, Diagnostic, ErrorReport};

/// The server sends an event every half second.
const STALL: Duration = Duration::from_secs(60);

/// The stream ended without a result.
#[derive(Debug, thiserror::Error)]
#[error("lost the connection to the server; the outcome is unknown")]
struct OutcomeUnknown {
    look: &'static str,
}

impl Diagnostic for OutcomeUnknown {
    fn code(&self) -> Code {
        Code::OutcomeUnknown
    }

    fn next_step(&self) -> Option<String> {
        Some(format!("see {}", self.look))
    }
}

/// Sends a request, and waits for the result. `progress` receives the bytes done and the total; `look` is the command
/// that shows the outcome if the server does not report it.
pub(super) fn call_server<T: DeserializeOwned>(
    config: &Config,
    path: &str,
    request: &impl Serialize,
    look: &'static str,
    mut progress: impl FnMut(&str, u64, u64),
) -> Result<T, AppError> {
    let body = serde_json::to_vec(request).unwrap_or_default();
    let mut last: Option<Result<T, ErrorReport>> = None;
    block_on(client::post(&DataDir::new(&config.data_dir), path, body, STALL, |line| {
        match serde_json::from_slice(line) {
            Ok(Event::Progress(what, done, all)) => progress(&what, done, all),
            Ok(Event::Done(result)) => last = Some(Ok(result)),
            Ok(Event::Failed(report)) => last = Some(Err(report)),
            Err(_) => {}
        }
    }))??;
    Ok(last.ok_or(OutcomeUnknown { look })??)
}
