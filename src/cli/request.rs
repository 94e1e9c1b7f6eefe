//! Asks the server on this node to do something that takes a while.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cli::runtime::block_on;
use crate::config::Config;
use crate::control::api::events::Event;
use crate::control::client;
use crate::datadir::DataDir;
use crate::error::{AppError, Code, Diagnostic, ErrorReport};

/// The server says something every half second.
const STALL: Duration = Duration::from_secs(60);

/// The server ended without a last word.
#[derive(Debug, thiserror::Error)]
#[error("the server broke off; whether it did what it was asked is not known")]
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

/// Asks, and waits for the result. `progress` is told how much is done, of how much; `look` is the command that shows what became of it if
/// the server does not say so.
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
            Ok(Event::Failed(told)) => last = Some(Err(told)),
            Err(_) => {}
        }
    }))??;
    Ok(last.ok_or(OutcomeUnknown { look })??)
}
