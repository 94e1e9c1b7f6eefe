//! Manifests and the index: small objects that are read and written as a whole.

use aws_sdk_s3::primitives::ByteStream;

use crate::snapshot::store::s3::error::{S3Error, S3ErrorKind};
use crate::snapshot::store::s3::{Bucket, md5_of, unquoted, with_customer_key, with_encryption};

/// Maximum size of a manifest or index, in bytes.
const MAX_OBJECT_BYTES: usize = 32 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteCondition {
    None,
    /// Only if the object still has this `ETag`.
    Still(String),
    Missing,
}

impl Bucket {
    /// A small object; `None` if it does not exist.
    ///
    /// # Errors
    /// If it cannot be read, or is larger than any object of quorate.
    pub async fn read(&self, key: &str) -> Result<Option<Vec<u8>>, S3Error> {
        Ok(self.read_version(key).await?.map(|(bytes, _)| bytes))
    }

    /// The same, with its `ETag`, which is empty if the store does not send it.
    ///
    /// # Errors
    /// If it cannot be read, or is larger than any object of quorate.
    pub async fn read_version(&self, key: &str) -> Result<Option<(Vec<u8>, String)>, S3Error> {
        let request = with_customer_key!(self.client.get_object().bucket(&self.target.bucket).key(key), &self.target);
        let found = match request.send().await {
            Ok(found) => found,
            Err(error) => {
                let error = self.fail("read", key, &error);
                return if error.kind == S3ErrorKind::NoObject { Ok(None) } else { Err(error) };
            }
        };
        let etag = unquoted(found.e_tag());
        let mut body = found.body;
        let mut bytes = Vec::new();
        loop {
            match tokio::time::timeout(self.target.timeout, body.try_next()).await {
                Ok(Ok(Some(chunk))) if bytes.len() + chunk.len() <= MAX_OBJECT_BYTES => bytes.extend_from_slice(&chunk),
                Ok(Ok(Some(_))) => {
                    return Err(S3Error::new(
                        "read",
                        self.url(key),
                        S3ErrorKind::Other,
                        "it is larger than any object of quorate",
                    ));
                }
                Ok(Ok(None)) => return Ok(Some((bytes, etag))),
                Ok(Err(error)) => {
                    return Err(S3Error::new("read", self.url(key), S3ErrorKind::Unreachable, error.to_string()));
                }
                Err(_) => {
                    return Err(S3Error::new(
                        "read",
                        self.url(key),
                        S3ErrorKind::Timeout,
                        "no data received for a while",
                    ));
                }
            }
        }
    }

    pub async fn write(&self, key: &str, bytes: Vec<u8>, content_type: &str) -> Result<String, S3Error> {
        self.write_if(key, bytes, content_type, &WriteCondition::None).await
    }

    /// The same, if the object is unchanged. A store without support for this condition writes unconditionally.
    ///
    /// # Errors
    /// If the store rejects it; [`S3ErrorKind::Replaced`] if the object has changed.
    pub async fn write_if(
        &self,
        key: &str,
        bytes: Vec<u8>,
        content_type: &str,
        condition: &WriteCondition,
    ) -> Result<String, S3Error> {
        match self.put(key, &bytes, content_type, condition).await {
            Err(error) if error.kind == S3ErrorKind::Unsupported && *condition != WriteCondition::None => {
                self.put(key, &bytes, content_type, &WriteCondition::None).await
            }
            done => done,
        }
    }

    async fn put(
        &self,
        key: &str,
        bytes: &[u8],
        content_type: &str,
        condition: &WriteCondition,
    ) -> Result<String, S3Error> {
        let (matches, none) = match condition {
            WriteCondition::None => (None, None),
            WriteCondition::Still(etag) => (Some(format!("\"{etag}\"")), None),
            WriteCondition::Missing => (None, Some("*".to_owned())),
        };
        let request = self.client.put_object().bucket(&self.target.bucket).key(key).content_type(content_type);
        let request = request.set_if_match(matches).set_if_none_match(none).content_md5(md5_of(bytes));
        let request = with_encryption!(request, &self.target);
        let done = request.body(ByteStream::from(bytes.to_vec())).send().await;
        done.map(|put| unquoted(put.e_tag())).map_err(|error| self.fail("write", key, &error))
    }
}
