//! `quorate etcd-snapshot restore`: builds a data directory for any etcd, like `etcdutl snapshot restore`.

use std::path::{Path, PathBuf};

use crate::boltdb::membership::{Membership, MembershipError};
use crate::cli::etcd_snapshot::context::SnapshotContext;
use crate::cli::progress::Progress;
use crate::cli::{interrupt, output};
use crate::durable::{self, DirHandle, NewDir};
use crate::error::{AppError, Code, Diagnostic, Exit, OutOfSpace};
use crate::host;
use crate::job::JobControl;
use crate::recovery::build::{self, DataDirSpec};
use crate::snapshot::file;
use crate::snapshot::verify::VerifyError;
use crate::text::{escape_control, format_bytes};
use crate::version::Version;

/// Start etcd on the directory with the same --name; it needs no --initial-cluster then.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  quorate etcd-snapshot restore latest --data-dir-out /var/lib/etcd
  quorate etcd-snapshot restore s3://backups/prod/latest --data-dir-out ./etcd
  quorate etcd-snapshot restore ./snapshot.db --data-dir-out ./m1 --name m1 \\
      --initial-cluster m1=http://10.0.0.1:2380,m2=http://10.0.0.2:2380")]
pub(super) struct Args {
    /// Its name, `latest`, a base name, a path (anything with a /), or `s3://BUCKET/KEY`
    #[arg(value_name = "SNAPSHOT")]
    snapshot: String,
    /// Output directory; must not exist or must be empty (lost+found and hidden files are ignored)
    #[arg(long, value_name = "DIR")]
    data_dir_out: PathBuf,
    /// Name of the member that will run on it
    #[arg(long, default_value = "default")]
    name: String,
    /// All members of the new cluster, as NAME=URL,NAME=URL
    #[arg(long, default_value = "default=http://localhost:2380")]
    initial_cluster: String,
    /// Peer URLs of this member, which must be those in --initial-cluster
    #[arg(long, value_delimiter = ',', value_name = "URL")]
    initial_advertise_peer_urls: Vec<String>,
    /// Token of the new cluster
    #[arg(long, default_value = "etcd-cluster", value_name = "TOKEN")]
    initial_cluster_token: String,
    /// Bump the revision by N and mark older revisions as compacted
    #[arg(long, default_value_t = 0, value_name = "N")]
    bump_revision: u64,
    /// Version of the etcd that will run on it, such as 3.5 [default: the one that wrote the snapshot]
    #[arg(long, value_name = "VERSION", value_parser = version)]
    target_version: Option<Version>,
    /// Accept a raw copy of member/snap/db (no trailing hash)
    #[arg(long)]
    skip_hash_check: bool,
    /// Restore a snapshot even if it has no keys
    #[arg(long)]
    allow_empty: bool,
}

impl Args {
    /// True if no configuration is needed to find the snapshot.
    pub(super) fn is_of_path(&self) -> bool {
        self.snapshot.contains('/') && !self.snapshot.starts_with("s3://")
    }
}

fn version(text: &str) -> Result<Version, String> {
    let full = if text.split('.').count() == 2 { format!("{text}.0") } else { text.to_owned() };
    let version: Version = full.parse().map_err(|_| "must be a version such as 3.5".to_owned())?;
    if version.is_supported() { Ok(version) } else { Err("must be 3.4 to 3.7".into()) }
}

/// Conflicting arguments.
#[derive(Debug, thiserror::Error)]
enum RestoreArgsError {
    #[error("--initial-cluster: `{0}` is not NAME=URL")]
    Entry(String),
    #[error("--initial-cluster: {0} is not a URL such as http://10.0.0.1:2380")]
    Url(String),
    #[error("--initial-cluster does not contain {0}")]
    NoSuchMember(String),
    #[error("--initial-advertise-peer-urls are not those of {name} in --initial-cluster, which are {expected}")]
    OtherUrls { name: String, expected: String },
    #[error(transparent)]
    Membership(#[from] MembershipError),
    #[error("{} exists and is not empty", .0.display())]
    NotEmpty(PathBuf),
}

impl Diagnostic for RestoreArgsError {
    fn code(&self) -> Code {
        match self {
            Self::NotEmpty(_) => Code::DirectoryNotEmpty,
            _ => Code::InvalidMembership,
        }
    }

    fn next_step(&self) -> Option<String> {
        Some(match self {
            Self::NotEmpty(_) => "choose another directory, or move that one away".into(),
            _ => "quorate etcd-snapshot restore --help".into(),
        })
    }
}

/// The destination of the data directory.
struct Output {
    /// The label of the hidden directory.
    draft: PathBuf,
    /// An existing output directory: it may be a mount point, which cannot be replaced by a rename.
    present: Option<DirHandle>,
}

/// The label of the hidden directory in an output directory.
const INSIDE: &str = "restore";

impl Output {
    fn of(out: &Path) -> Result<Self, AppError> {
        if std::fs::symlink_metadata(out).is_err() {
            return Ok(Self { draft: out.to_path_buf(), present: None });
        }
        let is_ours = |name: &str| name.starts_with('.') || name == "lost+found";
        let present = DirHandle::open(out)?;
        if present.names()?.iter().any(|name| !is_ours(&name.to_string_lossy())) {
            return Err(RestoreArgsError::NotEmpty(out.to_path_buf()).into());
        }
        Ok(Self { draft: out.join(INSIDE), present: Some(present) })
    }

    /// The directory in which it is built.
    fn dir(&self) -> &Path {
        self.draft.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    fn label(&self) -> String {
        self.draft.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    fn publish(&self, draft: NewDir) -> Result<(), AppError> {
        match &self.present {
            // etcd treats a directory with `member` as its data, so `member` is renamed last.
            Some(present) => Ok(draft.publish_into(&["name", "member"], present)?),
            None => Ok(draft.publish(&self.draft)?),
        }
    }
}

fn membership(args: &Args) -> Result<Membership, RestoreArgsError> {
    let mut members: Vec<(String, Vec<String>)> = Vec::new();
    for entry in args.initial_cluster.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        let (name, url) = entry.split_once('=').ok_or_else(|| RestoreArgsError::Entry(escape_control(entry)))?;
        let is_url = url.split_once("://").is_some_and(|(scheme, rest)| {
            ["http", "https", "unix", "unixs"].contains(&scheme)
                && !rest.is_empty()
                && !rest.contains('/')
                && (scheme.starts_with("unix")
                    || rest.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()))
        });
        if !is_url {
            return Err(RestoreArgsError::Url(escape_control(url)));
        }
        match members.iter_mut().find(|(known, _)| known == name) {
            Some((_, urls)) => urls.push(url.to_owned()),
            None => members.push((name.to_owned(), vec![url.to_owned()])),
        }
    }
    let membership = Membership::new(&members, &args.initial_cluster_token)?;
    let us = membership.named(&args.name).ok_or_else(|| RestoreArgsError::NoSuchMember(escape_control(&args.name)))?;
    let mut given = args.initial_advertise_peer_urls.clone();
    given.sort();
    if !given.is_empty() && given != us.peer_urls {
        return Err(RestoreArgsError::OtherUrls { name: args.name.clone(), expected: us.peer_urls.join(",") });
    }
    Ok(membership)
}

pub(super) fn run(place: &SnapshotContext, args: &Args) -> Result<Exit, AppError> {
    let membership = membership(args)?;
    let output = Output::of(&args.data_dir_out)?;
    let (out, parent) = (&args.data_dir_out, output.dir());
    for name in durable::sweep_named(parent, &output.label()) {
        output::print_stderr(&format!(
            "quorate: removed {}, left over from an interrupted restore\n",
            escape_control(&parent.join(name).display().to_string())
        ));
    }
    let got = place.get(&args.snapshot, Some(&output.draft))?;
    let snapshot = file::open(&got.path)?;
    if snapshot.trailer.is_none() && !args.skip_hash_check {
        return Err(VerifyError::NoHash(snapshot.path).into());
    }
    let needed = snapshot.database_size + build::EXTRA_BYTES;
    let remedy = "free some space there, or choose another directory";
    OutOfSpace::check("the data directory", needed, host::free_bytes(parent), parent, remedy)?;
    let target = match args.target_version {
        Some(target) => target,
        None => build::etcd_version_of(&snapshot)?,
    };
    let member = membership.named(&args.name).map(|member| member.id).unwrap_or_default();
    let cluster = membership.cluster_id;
    let blueprint = DataDirSpec {
        name: args.name.clone(),
        membership,
        target,
        raise: args.bump_revision,
        allow_empty: args.allow_empty,
    };
    let draft = durable::new_dir(&output.draft)?;
    interrupt::remove(draft.path());
    let mut progress = Progress::new("building");
    // By descriptor: the owner of the output directory cannot redirect us out of it.
    let through = draft.through();
    let notify = &mut |done, all| progress.set(done, all);
    let built = build::build(&snapshot, &through, &blueprint, &JobControl::default(), notify);
    drop(progress);
    let (held, shown) = (through.display().to_string(), draft.path().display().to_string());
    let built = built.map_err(|error| AppError::from(error).to_report().renamed(&held, &shown))?;
    output.publish(draft)?;
    output::print_stdout(&format!(
        "{}: {}, revision {}, for etcd {}; member {} ({member:x}) of cluster {cluster:x}, {}\n",
        escape_control(&out.display().to_string()),
        output::plural(usize::try_from(built.inspection.keys).unwrap_or(usize::MAX), "key"),
        built.inspection.revision,
        target.minor_text(),
        escape_control(&args.name),
        format_bytes(built.size)
    ))?;
    if !built.cleared_alarms.is_empty() {
        output::print_stderr(&format!("quorate: removed its alarms: {}\n", built.cleared_alarms.join(", ")));
    }
    Ok(Exit::Done)
}
