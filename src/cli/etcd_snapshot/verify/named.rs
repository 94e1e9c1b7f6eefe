//! Resolves the names on the command line of `verify`: files on this node, and objects in a bucket.

use std::path::PathBuf;

use crate::cli::etcd_snapshot::context::SnapshotContext;
use crate::cli::etcd_snapshot::verify::arguments::Args;
use crate::cli::etcd_snapshot::verify::outcome::Outcome;
use crate::snapshot::store::locate::Located;

/// A name that was given.
pub(super) enum Named {
    /// A file on this node.
    File(PathBuf),
    /// A name in the configured bucket, and perhaps on this node, too.
    Everywhere(String),
    /// An object, by URL.
    Url(String),
}

/// Resolves each name; one that is not found is reported as missing. `is_in_bucket` is true for existing objects.
pub(super) async fn resolve(
    place: &SnapshotContext,
    args: &Args,
    is_in_bucket: impl Fn(&str) -> bool,
    outcome: &mut Outcome,
) -> Vec<Named> {
    let places = place.places(args.which);
    let mut resolved = Vec::new();
    for name in &args.names {
        let is_bare = !name.contains('/');
        let is_here = is_bare && place.is_local(args.which) && place.dir.join(name).exists();
        if is_bare && (is_here || is_in_bucket(name)) {
            resolved.push(Named::Everywhere(name.clone()));
            continue;
        }
        match places.locate(name).await {
            Ok(Located::Local(path)) => resolved.push(Named::File(path)),
            Ok(Located::Remote(there)) => resolved.push(Named::Url(there.url())),
            Err(failure) => outcome.bad(name, &failure),
        }
    }
    resolved
}

/// True if a name is a path on this node.
pub(super) fn is_path(name: &str) -> bool {
    name.contains('/') && !name.starts_with("s3://")
}
