//! `quorate etcd-snapshot status`: like `etcdutl snapshot status`, but verifies the snapshot first.

use std::fmt::Write as _;

use crate::boltdb::walk::CONTINUE;
use crate::cli::etcd_snapshot::context::SnapshotContext;
use crate::cli::output::{self, Format};
use crate::cli::progress::Progress;
use crate::error::{AppError, Exit};
use crate::snapshot::verify::{self, VerifyError, VerifyOptions};
use crate::snapshot::{browse, file};
use crate::text::{escape_control, format_bytes};

/// Unlike etcdutl, verifies everything and does not change the file.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  quorate etcd-snapshot status latest
  quorate etcd-snapshot status ./snapshot.db -o json")]
pub(super) struct Args {
    /// Its name, `latest`, a base name, a path (anything with a /), or `s3://BUCKET/KEY`
    #[arg(value_name = "SNAPSHOT")]
    snapshot: String,
    /// Accept a raw copy of member/snap/db (no trailing hash)
    #[arg(long)]
    skip_hash_check: bool,
    /// Output format
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
}

pub(super) fn run(place: &SnapshotContext, args: &Args) -> Result<Exit, AppError> {
    let got = place.get(&args.snapshot, None)?;
    let path = &got.path;
    let mut progress = Progress::new("verifying");
    let demands = VerifyOptions { skip_hash: args.skip_hash_check };
    let verified = verify::verify(path, demands, &mut |done, all| {
        progress.set(done, all);
        CONTINUE
    });
    drop(progress);
    let verified = verified?;
    let snapshot = file::open(path)?;
    let members = browse::members(&snapshot.database).map_err(|error| VerifyError::of(error, path, None))?;
    let inspection = &verified.inspection;
    let version = inspection.etcd_version().unwrap_or_default();
    let hash_is_there = snapshot.trailer.is_some();
    let listed: Vec<serde_json::Value> = members
        .iter()
        .map(|member| {
            serde_json::json!({
                "id": format!("{:x}", member.id), "name": member.name, "peerURLs": member.peer_urls, "isLearner": member.is_learner,
            })
        })
        .collect();
    // The first five have etcdutl's names.
    let item = serde_json::json!({
        "hash": inspection.status_hash,
        "revision": inspection.revision,
        "totalKey": inspection.total_pairs,
        "totalSize": verified.database_size,
        "version": version,
        "keys": inspection.keys,
        "hash_kv": inspection.hash_kv,
        "compact_revision": inspection.compact_revision,
        "members": listed,
        "verified": if hash_is_there { "sha256, pages, records" } else { "pages, records" },
    });
    if output::structured(&item, args.output)? {
        return Ok(Exit::Done);
    }
    let mut text = output::fitted(&escape_control(&got.shown)) + "\n";
    let mut row = |name: &str, value: String| {
        let _ = writeln!(text, "  {name:<10}{}", output::wrap_text(&value, 12, output::WIDTH));
    };
    row("hash", format!("{:x}", inspection.status_hash));
    row("revision", inspection.revision.to_string());
    row("keys", format!("{} ({} pairs in all buckets)", inspection.keys, inspection.total_pairs));
    row(
        "size",
        format!(
            "{} (database), {} as stored",
            format_bytes(verified.database_size),
            format_bytes(verified.stored_size)
        ),
    );
    let version = inspection.storage_version.as_ref().map(|version| format!("storage {version}"));
    let version =
        version.into_iter().chain(inspection.cluster_version.iter().map(|version| format!("cluster {version}")));
    row("version", version.collect::<Vec<_>>().join(", "));
    for (index, member) in members.iter().enumerate() {
        let learner = if member.is_learner { ", a learner" } else { "" };
        let urls = member.peer_urls.join(",");
        row(
            if index == 0 { "members" } else { "" },
            escape_control(&format!("{} ({:x}) at {urls}{learner}", member.name, member.id)),
        );
    }
    row(
        "verified",
        if hash_is_there {
            "its SHA-256, every page and every record".into()
        } else {
            "every page and every record (it has no SHA-256)".into()
        },
    );
    output::print_stdout(&text)?;
    Ok(Exit::Done)
}
