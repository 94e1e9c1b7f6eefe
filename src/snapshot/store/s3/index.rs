//! What verifications found of the snapshots in a bucket: one object for all, `.metadata/.index.json`.
//!
//! Several servers may write it at the same time: each writes only over what it has read, where the store can tell (`If-Match`), and reads
//! again otherwise. Each also remembers beside its cache what it has read and found, so that an index that was lost, or written over by
//! a store that cannot tell, is rebuilt with the next finding.

use std::path::Path;
use std::time::Duration;

use crate::plan::uploads;
use crate::snapshot::store::s3::cache::Cache;
use crate::snapshot::store::s3::error::{S3Error, S3ErrorKind};
use crate::snapshot::store::s3::findings::VerificationRecord;
use crate::snapshot::store::s3::{Bucket, Condition, JSON, METADATA};

/// Not to be taken for a manifest: no snapshot's name begins with a dot.
pub(super) const NAME: &str = ".index.json";
/// Others may be as quick so often.
const ATTEMPTS: u32 = 8;
/// The longest first pause between them; the others are longer.
const PAUSE: Duration = Duration::from_millis(100);

/// Writes down what was found. `is_there` knows which snapshots there are, `cache` is a file with what is remembered here.
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
            Some((bytes, etag)) if etag.is_empty() => (bytes, Condition::None),
            Some((bytes, etag)) => (bytes, Condition::Still(etag)),
            None => (Vec::new(), Condition::Missing),
        };
        index.merge(serde_json::from_slice(&bytes).unwrap_or_default());
        found.iter().cloned().for_each(|finding| index.add(finding));
        index.forget(&is_there);
        let bytes = serde_json::to_vec(&index).unwrap_or_default();
        match bucket.write_if(&key, bytes, JSON, &condition).await {
            // Somebody else was quicker.
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
