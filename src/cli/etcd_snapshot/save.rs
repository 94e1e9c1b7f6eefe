//! `quorate etcd-snapshot save`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::super::ask::ask;
use super::super::output::{self, Format};
use super::super::progress::Progress;
use super::item::Item;
use super::place;
use crate::config::{Config, Given};
use crate::control::routes::snapshots::Request;
use crate::error::{Exit, Explained, Failure};
use crate::server::snapshots::Saved;
use crate::snapshot::name::ON_DEMAND;

/// Exits 0 only when the file is complete, safe on disk, and verified.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// First part of the file's name: letters, digits and . _ : + -
    #[arg(long, default_value = ON_DEMAND)]
    name: String,
    /// Where to, if not where the configuration says
    #[arg(long, visible_alias = "etcd-snapshot-dir", value_name = "PATH")]
    dir: Option<PathBuf>,
    /// Compress it: with zstd, or as zip for tools that expect RKE2's format
    #[arg(long, visible_alias = "etcd-snapshot-compress", value_name = "zstd|zip|none", num_args = 0..=1, require_equals = true, default_missing_value = "zstd")]
    snapshot_compress: Option<String>,
    /// Write this on it; can be given several times
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Wait while another snapshot is being taken
    #[arg(long)]
    wait: bool,
    /// How to print
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("wants key=value")?;
    if key.is_empty() || text.chars().any(char::is_control) {
        return Err("wants key=value, without control characters".into());
    }
    Ok((key.to_owned(), value.to_owned()))
}

#[derive(Debug, thiserror::Error)]
#[error("--dir {} cannot be made absolute", path.display())]
struct NoDirectory {
    path: PathBuf,
    source: std::io::Error,
}

impl Explained for NoDirectory {
    fn exit(&self) -> Exit {
        Exit::Usage
    }
}

pub(super) fn run(config: &Config, given: &Given, args: &Args) -> Result<Exit, Failure> {
    // Relative to where the caller is, not to where the server is.
    let dir = args
        .dir
        .as_ref()
        .map(|dir| std::path::absolute(dir).map_err(|source| NoDirectory { path: dir.clone(), source }));
    let request = Request {
        name: args.name.clone(),
        dir: dir.transpose()?,
        compression: args.snapshot_compress.clone().map(|word| match word.as_str() {
            "true" => "zstd".into(),
            "false" => "none".into(),
            _ => word,
        }),
        labels: args.labels.iter().cloned().collect::<BTreeMap<_, _>>(),
        wait: args.wait,
        s3: place::said(given),
    };
    let mut progress = Progress::new("saving");
    let look = "quorate etcd-snapshot ls";
    let Saved { manifest, path, upload, is_only_there } =
        ask(config, "/v1/snapshots", &request, look, |what, done, all| progress.set_of(what, done, all))?;
    drop(progress);
    let here = Item::of_manifest(manifest.clone(), format!("file://{}", path.display()));
    let there =
        upload.as_ref().and_then(|upload| upload.as_ref().ok()).map(|url| Item::of_manifest(manifest, url.clone()));
    let uploaded_to = there.as_ref().map(|there| there.location.clone());
    let shown = there.as_ref().filter(|_| is_only_there).unwrap_or(&here).clone();
    let item = Item { uploaded_to, ..shown };
    if !output::structured(&item, args.output)? {
        let rows: Vec<Item> = (!is_only_there).then_some(here).into_iter().chain(there).collect();
        output::data(&super::item::table(&rows, false, output::columns()))?;
    }
    match upload {
        Some(Err(told)) => Err(told.into()),
        _ => Ok(Exit::Done),
    }
}
