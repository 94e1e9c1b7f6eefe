//! `quorate etcd-snapshot verify`.

mod arguments;
mod drill;
mod live;
mod named;
mod outcome;
mod remote;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::boltdb::walk::CONTINUE;
use crate::cli::etcd_snapshot::context::SnapshotContext;
use crate::cli::output;
use crate::cli::progress::Progress;
use crate::cli::runtime::runtime;
use crate::config::Config;
use crate::error::{AppError, Code, Diagnostic, Exit};
use crate::snapshot::dir;
use crate::snapshot::manifest::{Manifest, ManifestState};
use crate::snapshot::manifest_file::{self, Written};
use crate::snapshot::store::Store;
use crate::snapshot::store::s3::listing::InBucket;
use crate::snapshot::store::s3::store::Remote;
use crate::snapshot::verify::{self, Verified, VerifyOptions};
use crate::text::{escape_control, format_bytes};
pub(super) use arguments::Args;
use named::Named;
use outcome::Outcome;

/// A good snapshot in `-o json`. Fields are added, never renamed.
#[derive(Debug, Serialize)]
struct VerifiedItem {
    path: String,
    status: &'static str,
    size: u64,
    compression: &'static str,
    database_size: u64,
    sha256: String,
    revision: i64,
    compact_revision: Option<i64>,
    keys: u64,
    total_keys: u64,
    hash: String,
    hash_kv: u32,
    /// The etcd version of its server.
    etcd_version: Option<String>,
    /// The cluster version.
    cluster_version: Option<String>,
    storage_version: Option<String>,
    members: usize,
    leases: u64,
    alarms: Vec<String>,
    auth_enabled: bool,
    same_as_live: Option<bool>,
}

impl VerifiedItem {
    fn of(verified: Verified, same_as_live: Option<bool>) -> Self {
        let inspection = verified.inspection;
        let manifest = verified.path.parent().zip(verified.path.file_name().and_then(|name| name.to_str()));
        let manifest = manifest.map(|(dir, name)| Manifest::find(dir, name));
        let etcd_version = match manifest {
            Some(ManifestState::Read(manifest)) if manifest.sha256 == verified.sha256 => {
                Some(manifest.etcd_version).filter(|version| !version.is_empty())
            }
            _ => None,
        };
        Self {
            path: verified.path.display().to_string(),
            status: "good",
            size: verified.stored_size,
            compression: verified.packing.word(),
            database_size: verified.database_size,
            sha256: verified.sha256,
            revision: inspection.revision,
            compact_revision: inspection.compact_revision,
            keys: inspection.keys,
            total_keys: inspection.total_pairs,
            hash: format!("{:x}", inspection.status_hash),
            hash_kv: inspection.hash_kv,
            etcd_version,
            cluster_version: inspection.cluster_version,
            storage_version: inspection.storage_version,
            members: inspection.members.len(),
            leases: inspection.leases,
            alarms: inspection.alarms,
            auth_enabled: inspection.auth_enabled,
            same_as_live,
        }
    }

    fn table(&self) -> String {
        let mut text = String::new();
        let mut row = |name: &str, value: String| {
            let _ = writeln!(text, "  {name:<12}{value}");
        };
        let packed = if self.compression.is_empty() { String::new() } else { format!(" as {}", self.compression) };
        row("size", format!("{}, database {}{packed}", format_bytes(self.size), format_bytes(self.database_size)));
        row(
            "revision",
            match self.compact_revision {
                Some(compact) => format!("{}, compacted up to {compact}", self.revision),
                None => self.revision.to_string(),
            },
        );
        row("keys", format!("{} ({} pairs in all buckets)", self.keys, self.total_keys));
        row("hash", format!("{} (as snapshot status prints it), HashKV {}", self.hash, self.hash_kv));
        let versions = [("", &self.etcd_version), ("cluster version ", &self.cluster_version)];
        let versions = versions.iter().filter_map(|(name, version)| Some(format!("{name}{}", version.as_ref()?)));
        let versions: Vec<String> = versions.collect();
        if !versions.is_empty() {
            row("etcd", versions.join(", "));
        }
        if !self.alarms.is_empty() {
            row("alarms", self.alarms.join(", "));
        }
        if self.same_as_live == Some(true) {
            row("live", "the live member has the same keys and values".into());
        }
        format!("{}\n{text}", output::fitted(&format!("{}: good", escape_control(&self.path))))
    }
}

/// An argument that does not apply to object storage.
#[derive(Debug, thiserror::Error)]
enum NotSupportedForRemote {
    #[error("{0} is a path on this node, but --s3 means object storage")]
    Path(String),
    #[error(
        "--against-live and --skip-hash-check require a snapshot on this node: those in object storage are streamed"
    )]
    Flags,
}

impl Diagnostic for NotSupportedForRemote {
    fn code(&self) -> Code {
        Code::Usage
    }

    fn next_step(&self) -> Option<String> {
        Some(match self {
            Self::Path(_) => "use its name or URL as shown by ls, or add --local".into(),
            Self::Flags => "omit them, or verify the copy on this node".into(),
        })
    }
}

/// There is nothing to verify: a scheduled command with a wrong path must not look successful.
#[derive(Debug, thiserror::Error)]
#[error("no snapshots to verify in {0}")]
struct NothingToVerify(String);

impl Diagnostic for NothingToVerify {
    fn code(&self) -> Code {
        Code::NoSnapshots
    }

    fn next_step(&self) -> Option<String> {
        Some("take one: quorate etcd-snapshot save; or use --data-dir or --dir for another directory".into())
    }
}

pub(super) fn run(config: &Config, place: &SnapshotContext, args: &Args) -> Result<Exit, AppError> {
    if args.drill {
        return drill::run(config, place, args);
    }
    check_flags(place, args)?;
    let runtime = runtime()?;
    let mut outcome = Outcome::default();
    let mut places = Vec::new();
    // A path does not require a snapshot directory.
    let is_searched = args.all || args.names.iter().any(|name| !name.contains('/'));
    let local = if is_searched { place.local(args.which) } else { Ok(None) };
    let local = local.unwrap_or_else(|failure| {
        outcome.bad(&place.dir.display().to_string(), &failure);
        None
    });
    places.extend(local.as_ref().map(Store::place));
    let (bucket, in_bucket) = runtime.block_on(bucket(place, args, &mut outcome));
    places.extend(bucket.as_ref().map(Store::place));
    let is_there = |name: &str| in_bucket.iter().any(|found| found.listed.name == name);
    let named = runtime.block_on(named::resolve(place, args, is_there, &mut outcome));

    let mut files = if args.all && local.is_some() { dir::snapshots(&place.dir)? } else { Vec::new() };
    let mut objects: Vec<&InBucket> = if args.all { in_bucket.iter().collect() } else { Vec::new() };
    let mut urls = Vec::new();
    for named in named {
        match named {
            Named::File(path) => files.push(path),
            Named::Url(url) => urls.push(url),
            Named::Everywhere(name) => {
                files.extend(local.as_ref().map(|local| local.0.join(&name)).filter(|path| path.exists()));
                objects.extend(in_bucket.iter().filter(|found| found.listed.name == name));
            }
        }
    }
    for path in files {
        match one(config, place, args, &path) {
            Ok(item) => outcome.good(&item, item.table()),
            Err(failure) => outcome.bad(&path.display().to_string(), &failure),
        }
    }
    if let Some(bucket) = &bucket {
        runtime.block_on(remote::these(bucket, &in_bucket, objects, &mut outcome));
    }
    for url in urls {
        let verified = check_url_flags(args).and_then(|()| runtime.block_on(remote::named(place, &url, &mut outcome)));
        if let Err(failure) = verified {
            outcome.bad(&url, &failure);
        }
    }
    if outcome.all.is_empty() {
        return Err(NothingToVerify(places.join(", nor in ")).into());
    }
    outcome.print(args)
}

/// Conflicting arguments.
fn check_flags(place: &SnapshotContext, args: &Args) -> Result<(), AppError> {
    let remote_only = !place.is_local(args.which);
    if let Some(name) = args.names.iter().find(|name| remote_only && named::is_path(name)) {
        return Err(NotSupportedForRemote::Path(escape_control(name)).into());
    }
    if remote_only || args.names.iter().any(|name| name.starts_with("s3://")) {
        check_url_flags(args)?;
    }
    Ok(())
}

/// Flags that do not apply to object storage.
fn check_url_flags(args: &Args) -> Result<(), AppError> {
    if args.against_live || args.skip_hash_check { Err(NotSupportedForRemote::Flags.into()) } else { Ok(()) }
}

/// The bucket with its snapshots, if names are searched there. A failure to list it is reported, and makes the command
/// fail.
async fn bucket(place: &SnapshotContext, args: &Args, outcome: &mut Outcome) -> (Option<Remote>, Vec<InBucket>) {
    // URLs and paths are unambiguous.
    if !args.all && args.names.iter().all(|name| name.contains('/')) {
        return (None, Vec::new());
    }
    let remote = match place.remote(args.which).await {
        Ok(Some(remote)) => remote,
        Ok(None) => return (None, Vec::new()),
        Err(failure) => {
            outcome.bad("s3", &failure);
            return (None, Vec::new());
        }
    };
    match remote::list(&remote).await {
        Ok(all) => (Some(remote), all),
        Err(failure) => {
            outcome.bad(&remote.place(), &failure);
            (None, Vec::new())
        }
    }
}

fn one(config: &Config, place: &SnapshotContext, args: &Args, path: &Path) -> Result<VerifiedItem, AppError> {
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    let mut progress = Progress::new(&format!("verifying {}", output::truncate(&escape_control(&name), 24)));
    let demands = VerifyOptions { skip_hash: args.skip_hash_check };
    let before = fs::metadata(path);
    let verified = verify::verify(path, demands, &mut |done, all| {
        progress.set(done, all);
        CONTINUE
    });
    drop(progress);
    if let (Ok(before), true) = (before, path.parent() == Some(place.dir.as_path())) {
        let name = escape_control(&name);
        match manifest_file::write(path, &before, &verified) {
            Ok(Written::Replaced) => output::print_stderr(&format!(
                "quorate: warning: {name} is good, but not the file that was saved under this name; its manifest was updated\n"
            )),
            Ok(Written::Nothing | Written::Result) => {}
            Err(error) => output::print_stderr(&format!(
                "quorate: warning: cannot update the manifest of {name}: {}\n",
                error.source
            )),
        }
    }
    let verified = verified?;
    let same_as_live = args.against_live.then(|| live::compare(config, &verified)).transpose()?;
    Ok(VerifiedItem::of(verified, same_as_live))
}
