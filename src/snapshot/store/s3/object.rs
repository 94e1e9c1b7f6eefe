//! What the store has of one object.

use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::types::ChecksumMode;
use serde::{Deserialize, Serialize};

use crate::snapshot::store::s3::error::S3Error;
use crate::snapshot::store::s3::{Bucket, with_customer_key};

/// The metadata key for the SHA-256 of a snapshot.
pub const SHA256: &str = "quorate-sha256";

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Uploaded {
    /// The `ETag` without quotes.
    pub etag: String,
    /// CRC-64/NVME of the object, in base64.
    pub crc64nvme: String,
    pub verified_by: String,
}

/// The object as the store has it.
pub(super) async fn head(bucket: &Bucket, key: &str) -> Result<HeadObjectOutput, S3Error> {
    let request = bucket.client.head_object().bucket(&bucket.target.bucket).key(key);
    let request = with_customer_key!(request.checksum_mode(ChecksumMode::Enabled), &bucket.target);
    request.send().await.map_err(|error| bucket.fail("look at", key, &error))
}
