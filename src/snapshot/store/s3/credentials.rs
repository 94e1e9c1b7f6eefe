//! Who we are: keys that were given, or those that AWS' own tools would find in this process' environment.
//!
//! A command finds something else in its environment than the server does that systemd started; the server therefore lends it what it has.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::provider_config::ProviderConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials as _, SharedCredentialsProvider};
use aws_sdk_s3::config::Region;
use serde::{Deserialize, Serialize};

use super::connector::{self, Asked};
use super::error::{Kind, S3Error, deepest};
use crate::clock;
use crate::config::s3::Target;

/// The name of keys that were given.
const GIVEN: &str = "etcd-s3-access-key";

/// Where they came from, if the SDK does not know.
#[derive(Clone, Debug)]
struct Source(String);

/// Credentials that one process of ours gives to another, as root, on its socket.
#[derive(Serialize, Deserialize)]
pub struct Lent {
    access_key: String,
    secret_key: String,
    session_token: Option<String>,
    /// Seconds since 1970.
    expires: Option<u64>,
    source: String,
}

impl Lent {
    /// As the SDK has them.
    #[must_use]
    pub fn taken(self) -> Credentials {
        let expires = self.expires.map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds));
        let mut taken = Credentials::new(self.access_key, self.secret_key, self.session_token, expires, "lent");
        taken.set_property(Source(format!("{}, as the running server finds it", self.source)));
        taken
    }
}

/// Given ones, or whoever finds them.
///
/// # Errors
/// If TLS cannot be set up as configured.
pub async fn of(target: &Target) -> Result<SharedCredentialsProvider, S3Error> {
    if let Some(keys) = &target.keys {
        let token = keys.session_token.as_ref().map(|token| token.reveal().to_owned());
        let keys = Credentials::new(keys.access_key.reveal(), keys.secret_key.reveal(), token, None, GIVEN);
        return Ok(SharedCredentialsProvider::new(keys));
    }
    let around = ProviderConfig::default().with_http_client(connector::client(target, Asked::Credentials)?);
    let around = around.with_region(Some(Region::new(target.region.clone())));
    Ok(SharedCredentialsProvider::new(DefaultCredentialsChain::builder().configure(around).build().await))
}

/// What they are now, and where they came from.
///
/// # Errors
/// If there are none.
pub async fn find(target: &Target, provider: &SharedCredentialsProvider) -> Result<(Credentials, String), S3Error> {
    let found = provider.provide_credentials().await;
    let found = found.map_err(|error| {
        S3Error::new("find credentials for", target.to_string(), Kind::NoCredentials, deepest(&error))
    })?;
    let source = found.get_property::<Source>().map_or_else(|| source_of(&found), |source| source.0.clone());
    Ok((found, source))
}

/// What another process of ours may use for a while.
///
/// # Errors
/// If there are none.
pub async fn lend(target: &Target) -> Result<Lent, S3Error> {
    let (found, source) = find(target, &of(target).await?).await?;
    Ok(Lent {
        access_key: found.access_key_id().to_owned(),
        secret_key: found.secret_access_key().to_owned(),
        session_token: found.session_token().map(str::to_owned),
        // What is looked for anew may be newer than what was there at the start.
        expires: Some(clock::unix_seconds(found.expiry().unwrap_or_else(soon))),
        source,
    })
}

/// Nobody said anything for too long.
#[must_use]
pub fn late(target: &Target) -> S3Error {
    let why = "whoever has the credentials did not answer in time";
    S3Error::new("find credentials for", target.to_string(), Kind::NoCredentials, why)
}

fn soon() -> SystemTime {
    clock::now() + Duration::from_secs(3600)
}

/// The SDK's names for where credentials came from.
fn source_of(found: &Credentials) -> String {
    // The SDK tells the name of the provider only so.
    let told = format!("{found:?}");
    let name = told.split_once("provider_name: \"").and_then(|(_, rest)| rest.split_once('"'));
    match name.map_or("", |(name, _)| name) {
        GIVEN => GIVEN.into(),
        "EnvironmentVariable" | "Environment" | "environment" => "the environment (AWS_ACCESS_KEY_ID)".into(),
        "ProfileFile" | "SharedCredentials" => "a profile (~/.aws)".into(),
        "WebIdentityToken" => "a web identity (AWS_WEB_IDENTITY_TOKEN_FILE)".into(),
        "CredentialProcess" => "a process (credential_process)".into(),
        "EcsContainer" => "the container's role".into(),
        "IMDSv2" | "Ec2InstanceMetadata" => "the instance's role (IMDSv2)".into(),
        "" => "an unknown place".into(),
        other => other.to_owned(),
    }
}
