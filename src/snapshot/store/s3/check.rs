//! Tests every operation of a store that snapshots need, and removes what it wrote.

use std::time::{Duration, SystemTime};

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use tokio::net::lookup_host;

use crate::clock;
use crate::snapshot::store::s3::error::{S3Error, S3ErrorKind};
use crate::snapshot::store::s3::object::head;
use crate::snapshot::store::s3::upload;
use crate::snapshot::store::s3::{Bucket, Object, md5_of, with_customer_key, with_storage_class};

/// A tested operation, and its result.
#[derive(Clone, Debug)]
pub struct CheckStep {
    pub name: &'static str,
    pub what: String,
    pub verdict: StepResult,
    pub next: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepResult {
    Good,
    Note,
    Bad,
}

/// The minimum size of a part except the last (Amazon S3 user guide, "multipart upload limits").
const PART: usize = 5 << 20;
const CHECK: &str = ".quorate-check-";
/// Test objects of this age in seconds belong to no running check.
const LEFTOVER_AGE_SECONDS: u64 = 3600;
/// A clock difference from here on is noted.
const CLOCK_SKEW_WARN: Duration = Duration::from_secs(60);
/// Requests are rejected from this clock difference on (Amazon S3 API reference, `RequestTimeTooSkewed`).
const CLOCK_SKEW_LIMIT: Duration = Duration::from_secs(900);

struct Check<'b> {
    bucket: &'b Bucket,
    steps: Vec<CheckStep>,
}

/// Runs all steps in order. Stops early if no later step could work.
pub async fn check(bucket: &Bucket) -> Vec<CheckStep> {
    let mut check = Check { bucket, steps: Vec::new() };
    // Other checks may run at the same time.
    let random = u64::from_le_bytes(crate::random::random::<8>().unwrap_or_default());
    let (now, prefix) = (clock::unix_seconds(clock::now()), bucket.target().prefix());
    let key = format!("{prefix}{CHECK}{now}-{random:016x}");
    let _ = check.run(&key).await;
    let written = [key.clone(), format!("{key}-parts")];
    let is_written = check.steps.iter().any(|step| step.name == "put" && step.verdict == StepResult::Good);
    if is_written {
        match bucket.delete(&written).await {
            Ok(refused) if refused.is_empty() => check.good("delete", "the test objects are deleted"),
            Ok(refused) => {
                for (key, error) in refused {
                    let what = format!("{} stays: {}", bucket.url(&key), error.why());
                    let verdict = if error.kind == S3ErrorKind::Locked { StepResult::Note } else { StepResult::Bad };
                    check.add(
                        "delete",
                        what,
                        verdict,
                        Some("retention needs s3:DeleteObject; an object lock keeps snapshots until it expires".into()),
                    );
                }
            }
            Err(error) => check.bad("delete", &error),
        }
    }
    check.steps
}

impl Check<'_> {
    fn add(&mut self, name: &'static str, what: impl Into<String>, verdict: StepResult, next: Option<String>) {
        self.steps.push(CheckStep { name, what: what.into(), verdict, next });
    }

    fn good(&mut self, name: &'static str, what: impl Into<String>) {
        self.add(name, what, StepResult::Good, None);
    }

    fn note(&mut self, name: &'static str, what: impl Into<String>) {
        self.add(name, what, StepResult::Note, None);
    }

    fn bad(&mut self, name: &'static str, error: &S3Error) {
        use crate::error::Diagnostic as _;
        self.add(name, error.why(), StepResult::Bad, error.next_step());
    }

    /// No later step could work if this failed.
    fn must<T>(&mut self, name: &'static str, done: Result<T, S3Error>) -> Option<T> {
        done.map_err(|error| self.bad(name, &error)).ok()
    }

    async fn run(&mut self, key: &str) -> Option<()> {
        let (bucket, target) = (self.bucket, self.bucket.target());
        self.dns().await;
        let identity = bucket.identity().await;
        let (access_key, source) = self.must("credentials", identity)?;
        self.good("credentials", format!("{}, from {}", shortened(&access_key), source));
        self.reach().await?;
        let listed = bucket.list(&target.prefix(), true).await;
        let listed = self.must("list", listed)?;
        let count = listed.len();
        self.good("list", format!("{count} {} in the folder", if count == 1 { "object" } else { "objects" }));
        self.sweep(&listed).await;
        let content = b"quorate tests this store".to_vec();
        let put = bucket.write(key, content.clone(), "text/plain").await;
        self.must("put", put)?;
        self.good("put", format!("a test object was written: {CHECK}…"));
        let read = bucket.read(key).await;
        match self.must("get", read)? {
            Some(read) if read == content => self.good("get", "the content is as written"),
            _ => {
                let why = "the content differs from what was written";
                self.bad("get", &S3Error::new("trust", bucket.url(key), S3ErrorKind::ChecksumMismatch, why));
                return None;
            }
        }
        let again = bucket.write(key, b"again".to_vec(), "text/plain").await;
        let read = bucket.read(key).await;
        match (self.must("overwrite", again), self.must("overwrite", read)) {
            (Some(_), Some(Some(read))) if read == b"again" => {
                self.good("overwrite", "the newer content is read back");
            }
            (Some(_), Some(_)) => self.note("overwrite", "the older content is still read for a while"),
            _ => {}
        }
        self.multipart(&format!("{key}-parts")).await;
        self.state().await;
        Some(())
    }

    /// Leftovers of killed checks. Failures are ignored.
    async fn sweep(&self, listed: &[Object]) {
        let ours = format!("{}{CHECK}", self.bucket.target().prefix());
        let old = clock::unix_seconds(clock::now()).saturating_sub(LEFTOVER_AGE_SECONDS);
        let left = listed.iter().filter(|object| object.key.starts_with(&ours) && object.modified < old);
        let left: Vec<String> = left.map(|object| object.key.clone()).collect();
        if !left.is_empty() {
            let _ = self.bucket.delete(&left).await;
        }
    }

    async fn dns(&mut self) {
        let target = self.bucket.target();
        let host = target.host.clone();
        let with_port = if host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
            host.clone()
        } else {
            format!("{host}:{}", if target.is_plain { 80 } else { 443 })
        };
        match tokio::time::timeout(Duration::from_secs(10), lookup_host(with_port)).await {
            Ok(Ok(found)) => {
                let mut addresses: Vec<String> = found.map(|address| address.ip().to_string()).collect();
                addresses.dedup();
                addresses.truncate(4);
                self.good("dns", format!("{host} is {}", addresses.join(", ")));
            }
            // Behind a proxy, names need not resolve here.
            Ok(Err(error)) => self.note("dns", format!("cannot resolve {host}: {error}")),
            Err(_) => self.note("dns", format!("resolving {host} timed out")),
        }
    }

    /// The bucket itself: TLS, credentials, region, and the store's clock.
    async fn reach(&mut self) -> Option<()> {
        let (bucket, target) = (self.bucket, self.bucket.target());
        let clock_of = std::sync::Arc::new(std::sync::Mutex::new(None));
        let seen = clock_of.clone();
        let asked = clock::now();
        let request = bucket.client.head_bucket().bucket(&target.bucket).customize();
        let request = request.interceptor(DateSeen(seen));
        let done = request.send().await.map_err(|error| bucket.fail("reach", "", &error));
        let tls = match (target.is_plain, target.skip_verify) {
            (true, _) => ("plain HTTP: snapshots can be read and changed in transit", StepResult::Note),
            (_, true) => ("the certificate is not verified", StepResult::Note),
            _ => ("the certificate is valid", StepResult::Good),
        };
        let is_reached = !matches!(&done, Err(error) if matches!(error.kind, S3ErrorKind::Unreachable | S3ErrorKind::Timeout | S3ErrorKind::Tls | S3ErrorKind::Proxy));
        if is_reached {
            self.add("tls", tls.0, tls.1, None);
        }
        let date = clock_of.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let Some(theirs) = date {
            self.offset(asked, theirs);
        }
        match done {
            Ok(found) => {
                let region = found.bucket_region().unwrap_or(&target.region).to_owned();
                self.good("bucket", format!("{} exists, region {region}", target.bucket));
            }
            // Some stores and policies do not allow this request; the following list does.
            Err(error) if matches!(error.kind, S3ErrorKind::Denied | S3ErrorKind::Unsupported | S3ErrorKind::Other) => {
                self.note("bucket", format!("cannot check whether it exists: {}", error.why()));
            }
            Err(error) if error.kind == S3ErrorKind::NoObject => {
                let why = format!("bucket {} does not exist", target.bucket);
                self.bad("bucket", &S3Error::new("reach", target.to_string(), S3ErrorKind::NoBucket, why));
                return None;
            }
            Err(error) => {
                let name = match error.kind {
                    S3ErrorKind::Tls => "tls",
                    S3ErrorKind::Proxy => "proxy",
                    S3ErrorKind::Unreachable | S3ErrorKind::Timeout => "connection",
                    S3ErrorKind::NoCredentials => "credentials",
                    _ => "bucket",
                };
                self.bad(name, &error);
                return None;
            }
        }
        Some(())
    }

    fn offset(&mut self, ours: SystemTime, theirs: SystemTime) {
        let apart = theirs.duration_since(ours).or_else(|error| Ok::<_, ()>(error.duration())).unwrap_or_default();
        if apart < CLOCK_SKEW_WARN {
            self.good("clock", format!("differs by less than {} s from the store's", apart.as_secs() + 1));
        } else {
            let what = format!("this machine's clock and the store's differ by {} s", apart.as_secs());
            self.add(
                "clock",
                what,
                if apart < CLOCK_SKEW_LIMIT { StepResult::Note } else { StepResult::Bad },
                Some(format!(
                    "set the clock (timedatectl): requests are rejected from {} s on",
                    CLOCK_SKEW_LIMIT.as_secs()
                )),
            );
        }
    }

    async fn multipart(&mut self, key: &str) {
        let (bucket, target) = (self.bucket, self.bucket.target());
        let done = async {
            let request = bucket.client.create_multipart_upload().bucket(&target.bucket).key(key);
            let created = with_storage_class!(request, target).send().await;
            let created = created.map_err(|error| bucket.fail("begin to upload", key, &error))?;
            let id = created.upload_id().unwrap_or_default().to_owned();
            let sent = async {
                let mut parts = Vec::new();
                for (number, size) in [(1, PART), (2, 1)] {
                    let bytes = vec![b'q'; size];
                    let request = bucket.client.upload_part().bucket(&target.bucket).key(key).upload_id(&id);
                    let request = request.part_number(number).content_md5(md5_of(&bytes));
                    let request = with_customer_key!(request, target).body(ByteStream::from(bytes));
                    let sent = request.customize().disable_payload_signing().send().await;
                    let sent = sent.map_err(|error| bucket.fail("upload a part of", key, &error))?;
                    parts.push(CompletedPart::builder().part_number(number).set_e_tag(sent.e_tag).build());
                }
                let all = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
                let request = bucket.client.complete_multipart_upload().bucket(&target.bucket).key(key);
                let request = with_customer_key!(request.upload_id(&id).multipart_upload(all), target);
                request.send().await.map_err(|error| bucket.fail("complete the upload of", key, &error))?;
                Ok(())
            };
            let sent: Result<(), S3Error> = sent.await;
            if sent.is_err() {
                let _ = upload::abort(bucket, key, &id).await;
            }
            sent?;
            head(bucket, key).await
        };
        match done.await {
            Ok(found) if found.content_length() != Some(i64::try_from(PART + 1).unwrap_or(0)) => {
                let why = "the store has fewer bytes than were uploaded";
                self.bad("multipart", &S3Error::new("trust", bucket.url(key), S3ErrorKind::ChecksumMismatch, why));
            }
            Ok(found) => {
                self.good("multipart", "multipart uploads work");
                let kept = match (found.checksum_crc64_nvme(), found.checksum_crc32_c(), found.e_tag()) {
                    (Some(_), _, _) => "CRC-64/NVME of each object, which is compared after uploads",
                    (_, Some(_), _) => "CRC-32C, which is compared after uploads if it covers the whole object",
                    (_, _, Some(etag)) if etag.contains('-') => {
                        "only ETags, which are compared after uploads; other uploads are read back"
                    }
                    _ => "none; uploads are read back",
                };
                self.good("checksums", kept);
            }
            Err(error) => self.bad("multipart", &error),
        }
    }

    /// Whether old versions accumulate, and whether an object lock prevents retention.
    async fn state(&mut self) {
        let (bucket, target) = (self.bucket, self.bucket.target());
        match bucket.client.get_bucket_versioning().bucket(&target.bucket).send().await {
            Ok(found) => match found.status().map(aws_sdk_s3::types::BucketVersioningStatus::as_str) {
                Some("Enabled") => self.note(
                    "versioning",
                    "on: deleted snapshots stay as older versions until a lifecycle rule of the bucket removes them",
                ),
                _ => self.good("versioning", "off: deletions are final"),
            },
            Err(error) => {
                let why = bucket.fail("read the versioning of", "", &error);
                self.note("versioning", format!("unknown: {}", why.why()));
            }
        }
        match bucket.client.get_object_lock_configuration().bucket(&target.bucket).send().await {
            Ok(found) => {
                let is_on = found.object_lock_configuration().and_then(|lock| lock.object_lock_enabled()).is_some();
                self.note("lock", if is_on { "on: retention may be unable to delete, and reports it" } else { "off" });
            }
            Err(error) => {
                let why = bucket.fail("read the object lock of", "", &error);
                let is_off = why.why().contains("ObjectLockConfigurationNotFound");
                if is_off {
                    self.good("lock", "off");
                } else {
                    self.note("lock", format!("unknown: {}", why.why()));
                }
            }
        }
    }
}

/// A recognisable part of an access key.
fn shortened(key: &str) -> String {
    if key.len() <= 8 { "a key".to_owned() } else { format!("{}…{}", &key[..4], &key[key.len() - 4..]) }
}

/// Records the `Date` header of any response.
#[derive(Debug)]
struct DateSeen(std::sync::Arc<std::sync::Mutex<Option<SystemTime>>>);

#[aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint]
impl aws_sdk_s3::config::Intercept for DateSeen {
    fn name(&self) -> &'static str {
        "date"
    }

    fn read_after_transmit(
        &self,
        context: &aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextRef<'_>,
        _: &aws_sdk_s3::config::RuntimeComponents,
        _: &mut aws_sdk_s3::config::ConfigBag,
    ) -> Result<(), aws_sdk_s3::error::BoxError> {
        let date = context.response().headers().get("date").map(str::to_owned);
        let format = aws_smithy_types::date_time::Format::HttpDate;
        let read = date.and_then(|text| aws_smithy_types::DateTime::from_str(&text, format).ok());
        if let (Some(at), Ok(mut seen)) = (read.and_then(|at| u64::try_from(at.secs()).ok()), self.0.lock()) {
            *seen = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(at));
        }
        Ok(())
    }
}

/// The minimum policy for the key, in AWS syntax.
#[must_use]
pub fn policy(bucket: &str, prefix: &str, has_kms: bool) -> String {
    let mut statements = vec![
        serde_json::json!({
            "Effect": "Allow",
            "Action": ["s3:PutObject", "s3:GetObject", "s3:DeleteObject", "s3:AbortMultipartUpload"],
            "Resource": format!("arn:aws:s3:::{bucket}/{prefix}*"),
        }),
        serde_json::json!({
            "Effect": "Allow",
            "Action": ["s3:ListBucket"],
            "Resource": format!("arn:aws:s3:::{bucket}"),
            "Condition": { "StringLike": { "s3:prefix": [format!("{prefix}*")] } },
        }),
    ];
    if has_kms {
        statements.push(serde_json::json!({
            "Effect": "Allow",
            "Action": ["kms:GenerateDataKey", "kms:Decrypt"],
            "Resource": "the ARN of the key",
        }));
    }
    let policy = serde_json::json!({ "Version": "2012-10-17", "Statement": statements });
    serde_json::to_string_pretty(&policy).unwrap_or_default()
}
