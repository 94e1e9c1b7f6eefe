//! `quorate etcd-snapshot save`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::cli::etcd_snapshot::context;
use crate::cli::etcd_snapshot::item::SnapshotItem;
use crate::cli::interrupt;
use crate::cli::output::{self, Format};
use crate::cli::progress::Progress;
use crate::cli::request::call_server;
use crate::config::{Config, RawOptions};
use crate::control::api::snapshots::{SaveRequestBody, Saved};
use crate::error::{AppError, Exit};
use crate::plan::snapshot_name::ON_DEMAND;
use crate::text::{escape_control, format_bytes};

/// Printed if the command is interrupted.
const IN_SAVING: &str = "the snapshot was cancelled; the server removes its partial files";
const IN_UPLOADING: &str =
    "the snapshot is saved on this node, and the server continues the upload; see quorate status";

/// Exits 0 only when the file is complete, durable and verified.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  quorate etcd-snapshot save
  quorate etcd-snapshot save --name before-upgrade --label ticket=4711
  quorate etcd-snapshot save --dir /mnt/backup --snapshot-compress=zstd
  quorate etcd-snapshot save --s3 --s3-bucket backups --s3-folder prod")]
pub(super) struct Args {
    /// Base name, the first part of the file name: letters, digits and . _ : + -
    #[arg(long, default_value = ON_DEMAND)]
    name: String,
    /// Compress the snapshot with zstd, or as zip for tools that expect the format of RKE2
    #[arg(long, visible_alias = "etcd-snapshot-compress", value_name = "zstd|zip|none", num_args = 0..=1, require_equals = true, default_missing_value = "zstd")]
    snapshot_compress: Option<String>,
    /// Attach a label to the snapshot; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Wait if another snapshot is being taken, instead of failing
    #[arg(long)]
    wait: bool,
    /// Output format
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("must be key=value")?;
    if key.is_empty() || text.chars().any(char::is_control) {
        return Err("must be key=value, without control characters".into());
    }
    Ok((key.to_owned(), value.to_owned()))
}

pub(super) fn run(config: &Config, given: &RawOptions, dir: Option<PathBuf>, args: &Args) -> Result<Exit, AppError> {
    let request = SaveRequestBody {
        name: args.name.clone(),
        dir,
        compression: args.snapshot_compress.clone().map(|word| match word.as_str() {
            "true" => "zstd".into(),
            "false" => "none".into(),
            _ => word,
        }),
        labels: args.labels.iter().cloned().collect::<BTreeMap<_, _>>(),
        wait: args.wait,
        s3: context::cli_overrides(given),
    };
    let is_elsewhere = request.dir.is_some();
    interrupt::explain(IN_SAVING);
    let mut progress = Progress::new("saving");
    let look = "quorate etcd-snapshot ls";
    let Saved { manifest, path, upload, remote_only, took_ms } =
        call_server(config, "/v1/snapshots", &request, look, |what, done, all| {
            if !what.is_empty() && what != "saving" {
                interrupt::explain(IN_UPLOADING);
            }
            progress.set_of(what, done, all);
        })?;
    drop(progress);
    interrupt::explain("");
    let here = SnapshotItem::of_manifest(manifest.clone(), format!("file://{}", path.display()));
    let there = upload
        .as_ref()
        .and_then(|upload| upload.as_ref().ok())
        .map(|url| SnapshotItem::of_manifest(manifest, url.clone()));
    let uploaded_to = there.as_ref().map(|there| there.location.clone());
    let shown = there.as_ref().filter(|_| remote_only).unwrap_or(&here).clone();
    let item = SnapshotItem { uploaded_to, ..shown };
    if !output::structured(&item, args.output)? {
        let name = if is_elsewhere { path.display().to_string() } else { item.name.clone() };
        let uploaded = match &item.uploaded_to {
            Some(url) if remote_only => format!("; uploaded to {url}, and removed from this node (etcd-s3-only)"),
            Some(url) => format!("; uploaded to {url}"),
            None => String::new(),
        };
        let (size, revision) = (format_bytes(item.size), item.revision.unwrap_or_default());
        let took = std::time::Duration::from_millis(took_ms).as_secs_f64();
        let line = format!("saved {name} ({size}, revision {revision}) in {took:.1} s{uploaded}");
        output::print_result(&format!("{}\n", output::fitted(&escape_control(&line))))?;
    }
    match upload {
        Some(Err(report)) => Err(report.into()),
        _ => Ok(Exit::Done),
    }
}
