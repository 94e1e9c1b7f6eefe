//! The results of verifications of the snapshots in a bucket: one object for all, `.metadata/.index.json`.
//!
//! Several servers may write it at the same time: each replaces only the version that it has read, if the store
//! supports `If-Match`, and reads it again otherwise. Each also keeps all findings in its cache, so that an index that
//! was lost, or overwritten by a store without `If-Match`, is rebuilt with the next finding.

use std::path::Path;
use std::time::Duration;

use crate::plan::uploads;
use crate::snapshot::store::s3::cache::Cache;
use crate::snapshot::store::s3::error::{S3Error, S3ErrorKind};
use crate::snapshot::store::s3::findings::VerificationRecord;
use crate::snapshot::store::s3::{Bucket, JSON, METADATA, WriteCondition};

/// Cannot be a manifest: no snapshot name begins with a dot.
pub(super) const NAME: &str = ".index.json";
/// Maximum attempts in case of conflicts.
const ATTEMPTS: u32 = 8;
/// The maximum first pause between attempts; later ones are longer.
const PAUSE: Duration = Duration::from_millis(100);

/// Records a result. `is_there` is true for existing snapshots, `cache` is the local cache file.
pub async fn record(
    bucket: &Bucket,
    cache: Option<&Path>,
    found: &[VerificationRecord],
    is_there: impl Fn(&str) -> bool,
) -> Result<(), S3Error> {
    let key = format!("{}{METADATA}{NAME}", bucket.target().prefix());
    let mut attempt = 1;
    loop {
        let before = bucket.read_version(&key).await?;
        let mut remembered = Cache::open(cache);
        let mut index = remembered.index().clone();
        let (bytes, condition) = match before {
            Some((bytes, etag)) if etag.is_empty() => (bytes, WriteCondition::None),
            Some((bytes, etag)) => (bytes, WriteCondition::Still(etag)),
            None => (Vec::new(), WriteCondition::Missing),
        };
        index.merge(serde_json::from_slice(&bytes).unwrap_or_default());
        found.iter().cloned().for_each(|finding| index.add(finding));
        index.forget(&is_there);
        let bytes = serde_json::to_vec(&index).unwrap_or_default();
        match bucket.write_if(&key, bytes, JSON, &condition).await {
            // Another server was faster.
            Err(error) if error.kind == S3ErrorKind::Replaced && attempt < ATTEMPTS => {
                tokio::time::sleep(uploads::pause(attempt, PAUSE, crate::random::jitter())).await;
                attempt += 1;
            }
            written => {
                remembered.remember(index);
                remembered.save();
                return written.map(|_| ());
            }
        }
    }
}
