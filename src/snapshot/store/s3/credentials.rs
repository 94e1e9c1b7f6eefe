//! Credentials: configured keys, or the AWS credential chain in the environment of this process.
//!
//! A command has another environment than the server that systemd started, so the server shares its credentials with
//! commands.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::provider_config::ProviderConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{self, ProvideCredentials, SharedCredentialsProvider, future};
use aws_sdk_s3::config::Region;
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::config::s3::Target;
use crate::faults;
use crate::snapshot::store::s3::connector::{self, RequestTarget};
use crate::snapshot::store::s3::error::{S3Error, S3ErrorKind, deepest};

/// The timeout of credential providers (a process, a role, a remote server).
pub const CREDENTIALS_TIMEOUT: Duration = Duration::from_secs(60);
/// The provider name of configured keys.
const ACCESS_KEY_OPTION: &str = "etcd-s3-access-key";

/// Their origin, if the SDK does not know it.
#[derive(Clone, Debug)]
struct CredentialSource(String);

/// Credentials that the server shares with a command over the control socket, as root.
#[derive(Serialize, Deserialize)]
pub struct SharedCredentials {
    access_key: String,
    secret_key: String,
    session_token: Option<String>,
    /// Seconds since 1970.
    expires: Option<u64>,
    source: String,
}

impl SharedCredentials {
    #[must_use]
    pub fn source_label(self) -> Credentials {
        let expires = self.expires.map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds));
        let mut taken = Credentials::new(self.access_key, self.secret_key, self.session_token, expires, "shared");
        taken.set_property(CredentialSource(format!("{}, from the running server", self.source)));
        taken
    }
}

/// A credential provider with a separate timeout, so that its delay is not attributed to the store.
#[derive(Clone, Debug)]
pub struct CachedCredentials {
    from: SharedCredentialsProvider,
    /// Credentials found when the bucket was opened, until their first use.
    found: Arc<Mutex<Option<Credentials>>>,
}

impl CachedCredentials {
    /// Configured ones, those of `provider`, or those of the credential chain.
    pub async fn new(target: &Target, provider: Option<SharedCredentialsProvider>) -> Result<Self, S3Error> {
        let from = if let Some(keys) = &target.keys {
            let token = keys.session_token.as_ref().map(|token| token.reveal().to_owned());
            let (access_key, secret_key) = (keys.access_key.reveal(), keys.secret_key.reveal());
            let mut given = Credentials::new(access_key, secret_key, token, None, ACCESS_KEY_OPTION);
            given.set_property(CredentialSource(keys.source.to_owned()));
            SharedCredentialsProvider::new(given)
        } else if let Some(provider) = provider {
            provider
        } else {
            let around =
                ProviderConfig::default().with_http_client(connector::client(target, RequestTarget::Credentials)?);
            let around = around.with_region(Some(Region::new(target.region.clone())));
            SharedCredentialsProvider::new(DefaultCredentialsChain::builder().configure(around).build().await)
        };
        Ok(Self { from, found: Arc::default() })
    }

    async fn ask(&self) -> provider::Result {
        let timeout = faults::tunable("QUORATE_TEST_CREDENTIALS_MS", CREDENTIALS_TIMEOUT);
        match tokio::time::timeout(timeout, self.from.provide_credentials()).await {
            Ok(found) => found,
            Err(_) => Err(CredentialsError::provider_timed_out(timeout)),
        }
    }

    async fn provide(&self) -> provider::Result {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner).take();
        match found {
            Some(found) => Ok(found),
            None => self.ask().await,
        }
    }

    /// The present credentials, and their origin.
    pub async fn find(&self, target: &Target) -> Result<(Credentials, String), S3Error> {
        let found = self.ask().await.map_err(|error| {
            let why = match &error {
                CredentialsError::ProviderTimedOut(late) => {
                    let seconds = late.timeout_duration().as_secs();
                    format!("no credentials: the provider did not answer within {seconds} s")
                }
                _ => format!("no credentials: {}", deepest(&error)),
            };
            S3Error::new("find credentials for", target.to_string(), S3ErrorKind::NoCredentials, why)
        })?;
        let source =
            found.get_property::<CredentialSource>().map_or_else(|| source_of(&found), |source| source.0.clone());
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(found.clone());
        Ok((found, source))
    }
}

impl ProvideCredentials for CachedCredentials {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.provide())
    }
}

/// Credentials to share with a command for a while.
pub async fn export_credentials(target: &Target) -> Result<SharedCredentials, S3Error> {
    let (found, source) = CachedCredentials::new(target, None).await?.find(target).await?;
    Ok(SharedCredentials {
        access_key: found.access_key_id().to_owned(),
        secret_key: found.secret_access_key().to_owned(),
        session_token: found.session_token().map(str::to_owned),
        // Looked up again, since they may be newer than those at the start.
        expires: Some(clock::unix_seconds(found.expiry().unwrap_or_else(soon))),
        source,
    })
}

fn soon() -> SystemTime {
    clock::now() + Duration::from_secs(3600)
}

/// Descriptions of the SDK's provider names.
fn source_of(found: &Credentials) -> String {
    // The only way to get the provider name from the SDK.
    let debug = format!("{found:?}");
    let name = debug.split_once("provider_name: \"").and_then(|(_, rest)| rest.split_once('"'));
    match name.map_or("", |(name, _)| name) {
        ACCESS_KEY_OPTION => ACCESS_KEY_OPTION.into(),
        "EnvironmentVariable" | "Environment" | "environment" => "the environment (AWS_ACCESS_KEY_ID)".into(),
        "ProfileFile" | "SharedCredentials" => "a profile (~/.aws)".into(),
        "WebIdentityToken" => "a web identity (AWS_WEB_IDENTITY_TOKEN_FILE)".into(),
        "CredentialProcess" => "a process (credential_process)".into(),
        "EcsContainer" => "the container's role".into(),
        "IMDSv2" | "Ec2InstanceMetadata" => "the instance's role (IMDSv2)".into(),
        "" => "an unknown provider".into(),
        other => other.to_owned(),
    }
}
