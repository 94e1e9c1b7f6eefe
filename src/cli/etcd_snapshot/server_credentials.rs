//! Credentials that the running server shares with a command, which may not have access to their source.

use std::collections::BTreeMap;

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, future};

use crate::control::client;
use crate::datadir::DataDir;
use crate::error::ErrorReport;
use crate::snapshot::store::s3::credentials::{CREDENTIALS_TIMEOUT, SharedCredentials};

/// Requests credentials from the server, and again when they expire.
#[derive(Clone, Debug)]
pub(super) struct ServerCredentials {
    data: DataDir,
    /// The options of object storage on the command line, by name.
    said: ServerMessage,
}

/// Options, some of which are secret.
#[derive(Clone)]
struct ServerMessage(BTreeMap<String, String>);

impl std::fmt::Debug for ServerMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

/// It has none, or returned an error.
#[derive(Debug, thiserror::Error)]
#[error("the running server has none: {0}")]
struct NoCredentials(String);

impl ServerCredentials {
    pub(super) fn new(data: &DataDir, said: &BTreeMap<String, String>) -> Self {
        Self { data: data.clone(), said: ServerMessage(said.clone()) }
    }

    async fn ask(&self) -> Result<Credentials, CredentialsError> {
        let mut answer: Option<Result<SharedCredentials, ErrorReport>> = None;
        let body = serde_json::to_vec(&self.said.0).unwrap_or_default();
        let asked = client::post(
            &self.data,
            "/v1/s3/credentials",
            body,
            CREDENTIALS_TIMEOUT + CREDENTIALS_TIMEOUT / 2,
            |line| {
                answer = serde_json::from_slice(line).ok();
            },
        );
        asked.await.map_err(CredentialsError::provider_error)?;
        match answer {
            Some(Ok(credentials)) => Ok(credentials.source_label()),
            Some(Err(mut report)) => {
                let why = report.because.pop().unwrap_or(report.message);
                Err(CredentialsError::not_loaded(NoCredentials(why)))
            }
            None => Err(CredentialsError::not_loaded(NoCredentials("the response contains none".into()))),
        }
    }
}

impl ProvideCredentials for ServerCredentials {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.ask())
    }
}
