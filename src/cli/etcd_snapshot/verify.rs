//! `quorate etcd-snapshot verify`.

mod remote;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::super::output::{self, Format};
use super::super::progress::Progress;
use super::super::{block_on, runtime, status};
use super::place::{Place, Which};
use crate::config::Config;
use crate::datadir::DataDir;
use crate::error::{Exit, Explained, Failure};
use crate::etcd::client::{ClientError, EtcdClient, LiveHash};
use crate::host::printable;
use crate::plan::space::human;
use crate::snapshot::dir;
use crate::snapshot::record::{self, Written};
use crate::snapshot::store::Store as _;
use crate::snapshot::verify::{self, Demands, Verified};

/// How long the launcher may take to say where its etcd is.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

/// Exits 0 if all of them are good.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Names as in `ls`, paths (anything with a /), or `s3://BUCKET/KEY`
    #[arg(required_unless_present = "all", value_name = "NAME-OR-PATH")]
    names: Vec<String>,
    /// All snapshots of this node
    #[arg(long, conflicts_with = "names")]
    all: bool,
    #[command(flatten)]
    which: Which,
    /// Also compare with the live member: it must have, at the snapshot's revision, the same keys and values
    #[arg(long)]
    against_live: bool,
    /// Take a plain copy of `member/snap/db`, which has no hash at its end
    #[arg(long)]
    skip_hash_check: bool,
    /// How to print
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
}

/// What `-o json` says of a snapshot that is good. Fields are added, never renamed.
#[derive(Debug, Serialize)]
struct Item {
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
    etcd_version: Option<String>,
    members: usize,
    leases: u64,
    alarms: Vec<String>,
    auth_enabled: bool,
    same_as_live: Option<bool>,
}

impl Item {
    fn of(verified: Verified, same_as_live: Option<bool>) -> Self {
        let inspection = verified.inspection;
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
            etcd_version: inspection.etcd_version(),
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
        row("size", format!("{}, database {}{packed}", human(self.size), human(self.database_size)));
        row(
            "revision",
            match self.compact_revision {
                Some(compact) => format!("{}, compacted up to {compact}", self.revision),
                None => self.revision.to_string(),
            },
        );
        row("keys", format!("{} ({} pairs in all buckets)", self.keys, self.total_keys));
        row("hash", format!("{} (as snapshot status prints it), HashKV {}", self.hash, self.hash_kv));
        if let Some(version) = &self.etcd_version {
            row("etcd", version.clone());
        }
        if !self.alarms.is_empty() {
            row("alarms", self.alarms.join(", "));
        }
        if self.same_as_live == Some(true) {
            row("live", "the live member has the same keys and values".into());
        }
        format!("{}: good\n{text}", printable(&self.path))
    }
}

/// The live member cannot be compared with, or differs.
#[derive(Debug, thiserror::Error)]
enum AgainstLive {
    #[error("the live member cannot be asked")]
    Unreachable(#[source] ClientError),
    #[error("{} cannot be compared with the live member: {why}", path.display())]
    Incomparable { path: PathBuf, why: String },
    #[error(
        "{} is whole, but the live member has other keys or values at revision {revision}: HashKV {live}, not {ours}",
        path.display()
    )]
    Differs { path: PathBuf, revision: i64, live: u32, ours: u32 },
}

impl Explained for AgainstLive {
    fn next(&self) -> Option<String> {
        Some(match self {
            Self::Unreachable(_) => "quorate status".into(),
            Self::Incomparable { .. } => "verify it without --against-live".into(),
            Self::Differs { .. } => {
                "if it is a snapshot of this cluster, this member or the snapshot is wrong: keep both, and \
                                     compare the members with etcdctl endpoint hashkv --cluster"
                    .into()
            }
        })
    }
}

/// What cannot be done with a snapshot in object storage.
#[derive(Debug, thiserror::Error)]
enum NotThere {
    #[error("{0} is a path on this node, and --s3 means object storage")]
    Path(String),
    #[error(
        "--against-live and --skip-hash-check are for snapshots on this node: those in object storage are streamed through"
    )]
    Flags,
}

impl Explained for NotThere {
    fn exit(&self) -> Exit {
        Exit::Usage
    }

    fn next(&self) -> Option<String> {
        Some(match self {
            Self::Path(_) => "say its name or URL as ls shows it, or --local too".into(),
            Self::Flags => "leave them out, or verify the one on this node".into(),
        })
    }
}

/// What came of all of them.
#[derive(Default)]
struct Outcome {
    /// For programs: also what is not good.
    all: Vec<serde_json::Value>,
    /// For people: what is good.
    told: Vec<String>,
    worst: Option<Exit>,
}

impl Outcome {
    fn good(&mut self, item: &impl Serialize, told: String) {
        self.all.push(serde_json::to_value(item).unwrap_or_default());
        self.told.push(told);
    }

    /// All of them are looked at; the last word is the first failure's exit code.
    fn bad(&mut self, path: &str, failure: &Failure) {
        output::talk(&failure.report());
        let status = match failure.exit() {
            Exit::NotFound => "missing",
            _ => "failed",
        };
        self.all.push(serde_json::json!({ "path": path, "status": status, "finding": failure.told().to_string() }));
        self.worst.get_or_insert(failure.exit());
    }
}

pub(super) fn run(config: &Config, place: &Place, args: &Args) -> Result<Exit, Failure> {
    let only_there = place.local(args.which).is_none();
    let (urls, names): (Vec<&String>, Vec<&String>) = args.names.iter().partition(|name| name.starts_with("s3://"));
    if let Some(name) = names.iter().find(|name| only_there && name.contains('/')) {
        return Err(NotThere::Path(printable(name)).into());
    }
    if (only_there || !urls.is_empty()) && (args.against_live || args.skip_hash_check) {
        return Err(NotThere::Flags.into());
    }
    let mut outcome = Outcome::default();
    let mut places = Vec::new();
    let runtime = runtime()?;
    // URLs say themselves where to look.
    let is_searched = args.all || !names.is_empty();
    let remote = if is_searched { runtime.block_on(place.remote(args.which)) } else { Ok(None) };
    let there = match remote {
        Ok(Some(remote)) => {
            places.push(remote.place());
            Some(remote)
        }
        Ok(None) => None,
        Err(failure) => {
            outcome.bad("s3", &failure);
            None
        }
    };
    let in_bucket = there.as_ref().map(|remote| runtime.block_on(remote::list(remote))).transpose();
    let in_bucket = in_bucket.unwrap_or_else(|failure| {
        outcome.bad(places.first().map_or("s3", String::as_str), &failure);
        None
    });
    let in_bucket = in_bucket.unwrap_or_default();
    if let Some(local) = place.local(args.which) {
        places.insert(0, local.place());
        let is_there = |name: &String| in_bucket.iter().any(|found| found.listed.name == *name);
        let named = |name: &String| {
            let path = place.path_of(name);
            // A name that is only in the bucket is meant there.
            (path.exists() || !is_there(name)).then_some(path)
        };
        let paths =
            if args.all { dir::snapshots(&place.dir)? } else { names.iter().copied().filter_map(named).collect() };
        for path in paths {
            match one(config, place, args, &path) {
                Ok(item) => outcome.good(&item, item.table()),
                Err(failure) => outcome.bad(&path.display().to_string(), &failure),
            }
        }
    }
    if let Some(remote) = &there {
        let also_local = place.local(args.which).is_some();
        runtime.block_on(remote::all(remote, &in_bucket, args, also_local, &mut outcome));
    }
    for url in urls {
        if let Err(failure) = runtime.block_on(remote::named(place, url, &mut outcome)) {
            outcome.bad(url, &failure);
        }
    }
    if !output::structured(&serde_json::json!({ "items": outcome.all }), args.output)? {
        for told in &outcome.told {
            output::data(told)?;
        }
        if args.all && outcome.all.is_empty() {
            output::talk(&format!("quorate: there are no snapshots in {}\n", places.join(", nor in ")));
        }
    }
    Ok(outcome.worst.unwrap_or(Exit::Done))
}

fn one(config: &Config, place: &Place, args: &Args, path: &Path) -> Result<Item, Failure> {
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    let mut progress = Progress::new(&format!("verifying {}", output::cut(&printable(&name), 24)));
    let demands = Demands { skip_hash: args.skip_hash_check };
    let before = fs::metadata(path);
    let verified = verify::verify(path, demands, &mut |done, all| progress.set(done, all));
    drop(progress);
    if let (Ok(before), true) = (before, path.parent() == Some(place.dir.as_path())) {
        let name = printable(&name);
        match record::write(path, &before, &verified) {
            Ok(Written::Replaced) => output::talk(&format!(
                "quorate: warning: {name} is whole, but not the file that was saved under this name; its manifest says now what is in it\n"
            )),
            Ok(Written::Nothing | Written::Result) => {}
            Err(error) => output::talk(&format!(
                "quorate: warning: what was found cannot be written down beside {name}: {}\n",
                error.source
            )),
        }
    }
    let verified = verified?;
    let same_as_live = args.against_live.then(|| compare(config, &verified)).transpose()?;
    Ok(Item::of(verified, same_as_live))
}

fn compare(config: &Config, verified: &Verified) -> Result<bool, Failure> {
    let data = DataDir::new(&config.data_dir);
    let (revision, ours) = (verified.inspection.revision, verified.inspection.hash_kv);
    let live = block_on(async {
        let status = status::fetch(&data, PATIENCE).await?;
        let mut client =
            EtcdClient::connect(&data, &status.local_client_url).await.map_err(AgainstLive::Unreachable)?;
        Ok::<_, Failure>(client.hash_kv(revision).await)
    })??;
    let path = verified.path.clone();
    let incomparable = |why: String| AgainstLive::Incomparable { path: path.clone(), why };
    let LiveHash { hash, compact_revision } = match live {
        Ok(live) => live,
        Err(ClientError::Etcd(error)) => return Err(incomparable(ClientError::Etcd(error).to_string()).into()),
        Err(error) => return Err(AgainstLive::Unreachable(error).into()),
    };
    let compacted = verified.inspection.compact_revision.unwrap_or(-1);
    // From 3.5.5 on a member answers for revisions up to its last compaction with a hash from before that (etcd
    // server/storage/mvcc/hash.go, HashByRev).
    if revision <= compacted {
        let why = format!(
            "nothing was changed after its last compaction, at {compacted}, and a member can tell only after that"
        );
        return Err(incomparable(why).into());
    }
    if compact_revision != compacted {
        let why = format!("it has compacted up to {compact_revision}, and the snapshot was up to {compacted}");
        return Err(incomparable(why).into());
    }
    if hash != ours {
        return Err(AgainstLive::Differs { path, revision, live: hash, ours }.into());
    }
    Ok(true)
}
