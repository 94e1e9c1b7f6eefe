//! Lists a folder of a bucket, page by page, and ends whatever the store answers.
//!
//! A store that sends a token again, or pages with nothing on them, or pages without end, would keep a command waiting for ever while what
//! it collects grows (seen with crafted stores). All of that is bounded.

use std::collections::HashSet;

use crate::snapshot::store::s3::error::{S3Error, S3ErrorKind};
use crate::snapshot::store::s3::{Bucket, Object, unquoted};

/// A thousand objects on each (Amazon S3 API reference, `ListObjectsV2`): more than anybody keeps snapshots.
const MAX_PAGES: usize = 1_000;
/// Keys and tags that are collected, in bytes.
const MAX_BYTES: usize = 64 << 20;
/// Pages without anything on them, one after the other: S3 allows them, and no store has many.
const MAX_EMPTY_PAGES: usize = 10;

/// What was seen of a listing.
#[derive(Debug, Default)]
struct Listing {
    tokens: HashSet<String>,
    bytes: usize,
    empty: usize,
}

impl Listing {
    /// Another page came, with so many entries and bytes on it, and says by `next` where the one after it begins.
    fn has_more(&mut self, entries: usize, bytes: usize, next: &str) -> Result<(), &'static str> {
        self.empty = if entries == 0 { self.empty + 1 } else { 0 };
        self.bytes += bytes + next.len();
        if self.bytes > MAX_BYTES || self.tokens.len() >= MAX_PAGES {
            return Err("it lists more than anybody keeps snapshots: is etcd-s3-folder the right one?");
        }
        if self.empty > MAX_EMPTY_PAGES {
            return Err("it sends page after page with nothing on it");
        }
        if !self.tokens.insert(next.to_owned()) {
            return Err("it sends the same page again and again");
        }
        Ok(())
    }
}

impl Bucket {
    /// All objects whose keys begin so, up to the next slash if `within` is true.
    ///
    /// # Errors
    /// If the store does not list them, or does not come to an end with it.
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
                // Some stores take the beginning of a key for more than it is.
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
