//! Lists a folder of a bucket page by page, and ends with any answers of the store.
//!
//! A store that repeats tokens, or sends empty or endless pages, could otherwise keep a command waiting forever with
//! growing memory (seen with crafted stores). All of that is bounded.

use std::collections::HashSet;

use crate::snapshot::store::s3::error::{S3Error, S3ErrorKind};
use crate::snapshot::store::s3::{Bucket, Object, unquoted};

/// A thousand objects on each (Amazon S3 API reference, `ListObjectsV2`): more than any plausible number of snapshots.
const MAX_PAGES: usize = 1_000;
/// Maximum total size of collected keys and tags, in bytes.
const MAX_BYTES: usize = 64 << 20;
/// Maximum number of empty pages in a row: S3 allows them, but no store sends many.
const MAX_EMPTY_PAGES: usize = 10;

#[derive(Debug, Default)]
struct Listing {
    tokens: HashSet<String>,
    bytes: usize,
    empty: usize,
}

impl Listing {
    /// Records a page with this many entries and bytes, and its continuation token `next`.
    fn has_more(&mut self, entries: usize, bytes: usize, next: &str) -> Result<(), &'static str> {
        self.empty = if entries == 0 { self.empty + 1 } else { 0 };
        self.bytes += bytes + next.len();
        if self.bytes > MAX_BYTES || self.tokens.len() >= MAX_PAGES {
            return Err("it lists too many objects: is etcd-s3-folder correct?");
        }
        if self.empty > MAX_EMPTY_PAGES {
            return Err("it sends only empty pages");
        }
        if !self.tokens.insert(next.to_owned()) {
            return Err("it repeats the same page");
        }
        Ok(())
    }
}

impl Bucket {
    /// All objects with this key prefix, up to the next slash if `within` is true.
    ///
    /// # Errors
    /// If the store does not list them, or the listing does not end.
    pub async fn list(&self, prefix: &str, within: bool) -> Result<Vec<Object>, S3Error> {
        let mut objects = Vec::new();
        let (mut listing, mut token) = (Listing::default(), None);
        loop {
            let request = self.client.list_objects_v2().bucket(&self.target.bucket).prefix(prefix);
            let request = request.set_delimiter(within.then(|| "/".to_owned())).set_continuation_token(token);
            let page = request.send().await.map_err(|error| self.fail("list", prefix, &error))?;
            let mut bytes = 0;
            for object in page.contents() {
                let (Some(key), Some(size)) = (object.key(), object.size()) else { continue };
                // Some stores ignore the exact prefix.
                if !key.starts_with(prefix) {
                    continue;
                }
                let etag = unquoted(object.e_tag());
                bytes += key.len() + etag.len() + size_of::<Object>();
                objects.push(Object {
                    key: key.to_owned(),
                    size: u64::try_from(size).unwrap_or(0),
                    etag,
                    modified: object.last_modified().map_or(0, |at| u64::try_from(at.secs()).unwrap_or(0)),
                });
            }
            let Some(next) = page.next_continuation_token().filter(|_| page.is_truncated() == Some(true)) else {
                return Ok(objects);
            };
            let entries = page.contents().len() + page.common_prefixes().len();
            listing
                .has_more(entries, bytes, next)
                .map_err(|why| S3Error::new("list", self.url(prefix), S3ErrorKind::InvalidResponse, why))?;
            token = Some(next.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_comes_to_an_end() {
        let mut listing = Listing::default();
        for page in 0..MAX_PAGES {
            assert!(
                listing.has_more(1000, 100_000, &page.to_string()).is_ok() == (page < MAX_BYTES / 100_003),
                "{page}"
            );
        }
        let mut listing = Listing::default();
        assert!(listing.has_more(1, 1, "a").is_ok() && listing.has_more(1, 1, "b").is_ok());
        assert!(listing.has_more(1, 1, "a").is_err(), "in a circle");
        let mut listing = Listing::default();
        let fine = (0..=MAX_EMPTY_PAGES).filter(|page| listing.has_more(0, 0, &page.to_string()).is_ok()).count();
        assert_eq!(fine, MAX_EMPTY_PAGES);
    }
}
