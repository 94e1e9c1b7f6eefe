//! Deletes objects.

use aws_sdk_s3::types::{Delete, ObjectIdentifier};

use crate::snapshot::store::s3::error::{S3Error, S3ErrorKind, is_lock};
use crate::snapshot::store::s3::{BATCH, Bucket, md5_of};

impl Bucket {
    /// Deletes objects, a thousand in each request. Returns those that were not deleted, with the reason.
    pub async fn delete(&self, keys: &[String]) -> Result<Vec<(String, S3Error)>, S3Error> {
        let mut refused = Vec::new();
        for batch in keys.chunks(BATCH) {
            let ids: Result<Vec<_>, _> = batch.iter().map(|key| ObjectIdentifier::builder().key(key).build()).collect();
            let wanted = ids.and_then(|ids| Delete::builder().set_objects(Some(ids)).quiet(true).build());
            let wanted = wanted.map_err(|error| {
                S3Error::new("delete from", self.target.to_string(), S3ErrorKind::Other, error.to_string())
            })?;
            // Older stores support no other checksum, and reject requests without one.
            let request = self.client.delete_objects().bucket(&self.target.bucket).delete(wanted).customize();
            let request = request.mutate_request(|request| {
                if let Some(md5) = request.body().bytes().map(md5_of) {
                    request.headers_mut().insert("content-md5", md5);
                }
            });
            let done = match request.send().await {
                Ok(done) => done,
                Err(error) => {
                    let error = self.fail("delete", &format!("{} and others", batch[0]), &error);
                    if error.kind != S3ErrorKind::Unsupported {
                        return Err(error);
                    }
                    refused.extend(self.delete_each(batch).await?);
                    continue;
                }
            };
            for error in done.errors() {
                let (code, said) = (error.code().unwrap_or_default(), error.message().unwrap_or_default());
                let kind = match code {
                    // It is gone, as requested.
                    "NoSuchKey" => continue,
                    _ if is_lock(said) || code.contains("Lock") => S3ErrorKind::Locked,
                    "AccessDenied" => S3ErrorKind::Denied,
                    _ => S3ErrorKind::Other,
                };
                let key = error.key().unwrap_or_default();
                refused.push((key.to_owned(), S3Error::new("delete", self.url(key), kind, format!("{code}: {said}"))));
            }
        }
        Ok(refused)
    }

    async fn delete_each(&self, keys: &[String]) -> Result<Vec<(String, S3Error)>, S3Error> {
        let mut refused = Vec::new();
        for (number, key) in keys.iter().enumerate() {
            let done = self.client.delete_object().bucket(&self.target.bucket).key(key).send().await;
            match done.map_err(|error| self.fail("delete", key, &error)) {
                Ok(_) => {}
                Err(error) if matches!(error.kind, S3ErrorKind::NoObject) => {}
                Err(error) if matches!(error.kind, S3ErrorKind::Locked | S3ErrorKind::Denied) => {
                    refused.push((key.clone(), error));
                }
                Err(error) if number == 0 => return Err(error),
                // Those before it are gone.
                Err(error) => {
                    refused.push((key.clone(), error));
                    let untried = |key: &String| {
                        let why = "not attempted, because another request failed";
                        (key.clone(), S3Error::new("delete", self.url(key), S3ErrorKind::Other, why))
                    };
                    refused.extend(keys[number + 1..].iter().map(untried));
                    break;
                }
            }
        }
        Ok(refused)
    }
}
