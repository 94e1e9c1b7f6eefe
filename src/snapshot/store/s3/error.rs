//! Errors of a store or of the connection to it, with the next step.

use std::error::Error;
use std::fmt::{self, Display};

use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::RequestId as _;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use crate::config::s3::Target;
use crate::error::{Code, Diagnostic, causes};
use crate::snapshot::store::s3::proxy;
use crate::text::escape_control;

/// The kind of a failure: decides the exit code, the next step, and whether to retry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum S3ErrorKind {
    /// Unknown host name, connection refused or interrupted.
    Unreachable,
    Timeout,
    /// The TLS handshake failed, or the certificate is not trusted.
    Tls,
    Proxy,
    NoCredentials,
    /// The credentials are valid, but lack the permission.
    Denied,
    UnknownKey,
    /// The secret key does not match the access key.
    WrongSecret,
    Expired,
    ClockSkewed,
    NoBucket,
    NoObject,
    /// The bucket is in another region, which may be known.
    OtherRegion(Option<String>),
    Locked,
    /// Archived: it must be restored from the archive first.
    Archived,
    Throttled,
    /// The stored or received data differs from what was sent.
    ChecksumMismatch,
    Replaced,
    NameConflict,
    /// The file to upload differs from the verified one.
    SourceChanged,
    InvalidResponse,
    Unsupported,
    Other,
}

#[derive(Debug)]
pub struct S3Error {
    act: String,
    place: String,
    pub kind: S3ErrorKind,
    why: Cause,
}

/// The end of the chain of causes.
#[derive(Debug)]
struct Cause(String);

impl Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Cause {}

impl Display for S3Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} {}", self.act, self.place)
    }
}

impl Error for S3Error {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.why)
    }
}

impl S3Error {
    #[must_use]
    pub fn new(act: impl Into<String>, place: impl Into<String>, kind: S3ErrorKind, why: impl Into<String>) -> Self {
        let clean = |text: String| escape_control(&one_line(&text));
        Self { act: clean(act.into()), place: clean(place.into()), kind, why: Cause(clean(why.into())) }
    }

    pub(super) fn set_up(target: &Target, kind: S3ErrorKind, why: impl Into<String>) -> Self {
        Self::new("connect to", target.host.clone(), kind, why)
    }

    pub(super) fn tls(why: impl Into<String>) -> Self {
        Self::new("connect to", "the store", S3ErrorKind::Tls, why)
    }

    pub(super) fn of<E>(
        target: &Target,
        act: impl Into<String>,
        place: impl Into<String>,
        error: &SdkError<E, HttpResponse>,
    ) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let (kind, why) = classify(target, error);
        Self::new(act, place, kind, why)
    }

    /// True if new credentials may help.
    #[must_use]
    pub fn credentials_expired(&self) -> bool {
        matches!(self.kind, S3ErrorKind::Expired)
    }

    /// True if other objects of the same store may be readable.
    #[must_use]
    pub fn is_of_one_object(&self) -> bool {
        matches!(
            self.kind,
            S3ErrorKind::Archived
                | S3ErrorKind::Denied
                | S3ErrorKind::ChecksumMismatch
                | S3ErrorKind::Unsupported
                | S3ErrorKind::Other
                | S3ErrorKind::NoObject
        )
    }

    /// True if there may be new credentials that were not looked up yet.
    #[must_use]
    pub fn is_about_credentials(&self) -> bool {
        matches!(
            self.kind,
            S3ErrorKind::Expired
                | S3ErrorKind::UnknownKey
                | S3ErrorKind::WrongSecret
                | S3ErrorKind::Denied
                | S3ErrorKind::NoCredentials
        )
    }

    #[must_use]
    pub fn why(&self) -> &str {
        &self.why.0
    }
}

impl Diagnostic for S3Error {
    fn code(&self) -> Code {
        match &self.kind {
            S3ErrorKind::Unreachable => Code::S3Unreachable,
            S3ErrorKind::Timeout => Code::S3Timeout,
            S3ErrorKind::Tls => Code::S3Tls,
            S3ErrorKind::Proxy => Code::S3Proxy,
            S3ErrorKind::NoCredentials => Code::S3NoCredentials,
            S3ErrorKind::Denied => Code::S3AccessDenied,
            S3ErrorKind::UnknownKey => Code::S3UnknownAccessKey,
            S3ErrorKind::WrongSecret => Code::S3WrongSecretKey,
            S3ErrorKind::Expired => Code::S3CredentialsExpired,
            S3ErrorKind::ClockSkewed => Code::S3ClockSkewed,
            S3ErrorKind::NoBucket => Code::S3BucketNotFound,
            S3ErrorKind::NoObject => Code::S3ObjectNotFound,
            S3ErrorKind::OtherRegion(_) => Code::S3WrongRegion,
            S3ErrorKind::Locked => Code::S3ObjectLocked,
            S3ErrorKind::Archived => Code::S3ObjectArchived,
            S3ErrorKind::Throttled => Code::S3Throttled,
            S3ErrorKind::ChecksumMismatch => Code::S3ChecksumMismatch,
            S3ErrorKind::Replaced => Code::S3ObjectReplaced,
            S3ErrorKind::NameConflict => Code::S3NameConflict,
            S3ErrorKind::SourceChanged => Code::S3SourceChanged,
            S3ErrorKind::InvalidResponse | S3ErrorKind::Unsupported => Code::S3Unsupported,
            S3ErrorKind::Other => Code::S3RequestFailed,
        }
    }

    fn next_step(&self) -> Option<String> {
        Some(match &self.kind {
            S3ErrorKind::Unreachable | S3ErrorKind::Timeout => {
                "check etcd-s3-endpoint and the network (curl -v, from this node), then: quorate etcd-snapshot s3-check".into()
            }
            S3ErrorKind::Tls => "set etcd-s3-endpoint-ca to the CA of the store; if the store uses plain HTTP, set etcd-s3-insecure".into(),
            S3ErrorKind::Proxy => "check etcd-s3-proxy (none disables it), HTTPS_PROXY and NO_PROXY".into(),
            S3ErrorKind::NoCredentials => {
                "set etcd-s3-access-key and etcd-s3-secret-key (in etcd-s3-config-file), or assign a role to this machine".into()
            }
            S3ErrorKind::Denied => "the key needs the permissions that quorate etcd-snapshot s3-check prints".into(),
            S3ErrorKind::UnknownKey => "check etcd-s3-access-key: the store does not know it".into(),
            S3ErrorKind::WrongSecret => "check etcd-s3-secret-key, and that etcd-s3-region is the bucket's".into(),
            S3ErrorKind::Expired => "get new credentials; a role does that automatically, and etcd-s3-config-file is read again at each use".into(),
            S3ErrorKind::ClockSkewed => "set this machine's clock, and keep it synchronized (timedatectl set-ntp true)".into(),
            S3ErrorKind::NoBucket => "check etcd-s3-bucket; the bucket must exist".into(),
            S3ErrorKind::NoObject => "quorate etcd-snapshot ls --s3 shows all snapshots".into(),
            S3ErrorKind::OtherRegion(Some(region)) => format!("set etcd-s3-region to {region}"),
            S3ErrorKind::OtherRegion(None) => "set etcd-s3-region to the bucket's region, and etcd-s3-endpoint to one there".into(),
            S3ErrorKind::Locked => "wait until its object lock expires".into(),
            S3ErrorKind::Archived => "restore it from the archive of the store first".into(),
            S3ErrorKind::Throttled => "try again in a while".into(),
            S3ErrorKind::ChecksumMismatch => "do not trust this copy; try again, and see quorate etcd-snapshot s3-check".into(),
            S3ErrorKind::NameConflict => "quorate etcd-snapshot ls --s3 shows it".into(),
            S3ErrorKind::SourceChanged => "run quorate etcd-snapshot verify, and use another snapshot".into(),
            S3ErrorKind::Replaced => "run quorate etcd-snapshot ls --s3, and specify one".into(),
            S3ErrorKind::Unsupported | S3ErrorKind::InvalidResponse | S3ErrorKind::Other => "run quorate etcd-snapshot s3-check".into(),
        })
    }
}

fn classify<E>(target: &Target, error: &SdkError<E, HttpResponse>) -> (S3ErrorKind, String)
where
    E: ProvideErrorMetadata + Error + 'static,
{
    match error {
        SdkError::TimeoutError(_) => (S3ErrorKind::Timeout, format!("{} did not answer in time", target.host)),
        SdkError::ServiceError(service) => {
            let (meta, raw) = (service.err().meta(), service.raw());
            let request = meta.request_id().map_or_else(String::new, |id| format!(" (request {id})"));
            answered(target, raw, meta.code(), meta.message(), &request)
        }
        SdkError::ResponseError(response) => answered(target, response.raw(), None, None, ""),
        _ => transport_error(target, error),
    }
}

fn answered(
    target: &Target,
    raw: &HttpResponse,
    code: Option<&str>,
    message: Option<&str>,
    request: &str,
) -> (S3ErrorKind, String) {
    let status = raw.status().as_u16();
    let region = raw.headers().get("x-amz-bucket-region").and_then(region_name);
    let code = code.unwrap_or_default();
    let message_text = message.unwrap_or_default();
    let kind = match (code, status) {
        ("NoSuchBucket", _) => S3ErrorKind::NoBucket,
        ("InvalidAccessKeyId" | "InvalidToken" | "NotSignedUp", _) => S3ErrorKind::UnknownKey,
        ("SignatureDoesNotMatch", _) => S3ErrorKind::WrongSecret,
        ("ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" | "RequestExpired", _) => {
            S3ErrorKind::Expired
        }
        ("RequestTimeTooSkewed" | "RequestInTheFuture", _) => S3ErrorKind::ClockSkewed,
        (
            "AuthorizationHeaderMalformed"
            | "PermanentRedirect"
            | "IllegalLocationConstraintException"
            | "MovedPermanently",
            _,
        )
        | ("", 301 | 307 | 308) => S3ErrorKind::OtherRegion(region.clone().or_else(|| expected_region(message_text))),
        ("InvalidObjectState", _) => S3ErrorKind::Archived,
        ("ObjectLocked" | "ObjectLockedByBucketPolicy", _) => S3ErrorKind::Locked,
        ("AccessDenied", _) if is_lock(message_text) => S3ErrorKind::Locked,
        ("SlowDown" | "ServiceUnavailable" | "InternalError" | "TooManyRequests" | "RequestTimeout", _) => {
            S3ErrorKind::Throttled
        }
        ("NotImplemented" | "XNotImplemented" | "MethodNotAllowed", _) | (_, 501 | 405) => S3ErrorKind::Unsupported,
        ("PreconditionFailed" | "ConditionalRequestConflict", _) | (_, 412) => S3ErrorKind::Replaced,
        ("BadDigest" | "InvalidDigest" | "XAmzContentSHA256Mismatch", _) => S3ErrorKind::ChecksumMismatch,
        (_, 407) => S3ErrorKind::Proxy,
        // A HEAD response has no body, and so no code. A bucket in another region still names the region in a header.
        ("NoSuchKey" | "NoSuchVersion" | "" | "NotFound", 404) => S3ErrorKind::NoObject,
        (_, 400 | 403) if region.as_deref().is_some_and(|region| region != target.region) => {
            S3ErrorKind::OtherRegion(region.clone())
        }
        (_, 401 | 403) => S3ErrorKind::Denied,
        (_, 429 | 500..) => S3ErrorKind::Throttled,
        _ => S3ErrorKind::Other,
    };
    let what = match (code, message_text) {
        ("", "") if raw.status().is_success() => {
            format!("{} answered {status} with an invalid response", target.host)
        }
        ("", "") => format!("{} answered {status}", target.host),
        (code, "") => format!("{} answered {status}, {code}", target.host),
        (code, message_text) => format!("{} answered {status}, {code}: {message_text}", target.host),
    };
    let more = match &kind {
        S3ErrorKind::OtherRegion(Some(region)) => {
            format!("; the bucket is in {region}, but etcd-s3-region is {}", target.region)
        }
        S3ErrorKind::ClockSkewed => "; this machine's clock and the store's differ too much".into(),
        S3ErrorKind::Other if status == 400 && target.is_plain => {
            "; it may require TLS, but etcd-s3-insecure is set".into()
        }
        _ => String::new(),
    };
    (kind, format!("{what}{more}{request}"))
}

/// `… expecting 'eu-west-1'`.
fn expected_region(message_text: &str) -> Option<String> {
    let (_, rest) = message_text.split_once("expecting '")?;
    rest.split_once('\'').and_then(|(region, _)| region_name(region))
}

/// A region, if it is valid: it is printed as a value to set, and comes from an untrusted response.
fn region_name(text: &str) -> Option<String> {
    let is_fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let is_name = (1..=63).contains(&text.len()) && text.chars().all(is_fine);
    (is_name && text.starts_with(|c: char| c.is_ascii_alphanumeric())).then(|| text.to_owned())
}

/// Words that stores use if an object lock, not a missing permission, protects an object.
pub(super) fn is_lock(message_text: &str) -> bool {
    let message_text = message_text.to_lowercase();
    ["object lock", "worm protected", "legal hold", "object is locked", "retention period"]
        .iter()
        .any(|word| message_text.contains(word))
}

/// Joins lines, such as the SDK's list of credential providers.
fn one_line(text: &str) -> String {
    let mut joined = String::with_capacity(text.len());
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        joined.push_str(match joined.chars().last() {
            None => "",
            Some(':') => " ",
            Some(_) => "; ",
        });
        joined.push_str(line);
    }
    joined
}

/// The last cause of an error.
pub(super) fn deepest(error: &(dyn Error + 'static)) -> String {
    causes(error).last().map_or_else(|| error.to_string(), ToString::to_string)
}

/// No response: a failure of the connection or of its prerequisites.
fn transport_error<E: Error + 'static>(target: &Target, error: &SdkError<E, HttpResponse>) -> (S3ErrorKind, String) {
    let all: String = causes(error).map(|cause| format!("{}\n", cause.to_string().to_lowercase())).collect();
    let message_text = deepest(error);
    let context = DisplayErrorContext(error).to_string().to_lowercase();
    let host = &target.host;
    if ["credential", "loading identity", "no providers in chain"].iter().any(|word| context.contains(word)) {
        return (S3ErrorKind::NoCredentials, format!("no credentials: {message_text}"));
    }
    if ["certificate", "unknownissuer", "tls", "handshake", "invalidcontenttype", "corrupt message"]
        .iter()
        .any(|word| all.contains(word))
    {
        let more = if all.contains("corrupt message") || all.contains("invalidcontenttype") {
            format!("; {host} does not seem to use TLS")
        } else {
            String::new()
        };
        return (S3ErrorKind::Tls, format!("{message_text}{more}"));
    }
    let through = proxy::proxy_host(target).filter(|_| all.contains("connect"));
    if let Some(proxy) = through {
        return (S3ErrorKind::Proxy, format!("cannot connect through the proxy {proxy} to {host}: {message_text}"));
    }
    if all.contains("proxy") || all.contains("tunnel") {
        return (S3ErrorKind::Proxy, format!("the proxy refused the connection to {host}: {message_text}"));
    }
    if all.contains("timed out") || all.contains("timeout") || all.contains("minimum throughput") {
        return (S3ErrorKind::Timeout, format!("{host} did not answer in time: {message_text}"));
    }
    if all.contains("dns") || all.contains("lookup") || all.contains("name or service") {
        return (S3ErrorKind::Unreachable, format!("cannot resolve {host}: {message_text}"));
    }
    (S3ErrorKind::Unreachable, format!("the connection to {host} failed: {message_text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_of_credentials_is_one_line() {
        let message_text = "no providers in chain. Attempted:\n  Environment: not set\n  Profile: no file\n";
        let error = S3Error::new("get credentials for", "s3://backups/", S3ErrorKind::NoCredentials, message_text);
        assert_eq!(error.why(), "no providers in chain. Attempted: Environment: not set; Profile: no file");
    }
}
