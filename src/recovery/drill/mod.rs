//! A restore drill: builds data from a snapshot in a separate directory, runs an isolated etcd on it, compares its
//! contents with the snapshot, and removes everything.
//!
//! The data in use is neither read nor changed, and its etcd has priority for the CPU: the drill runs with the lowest
//! priority. `record` stores the result of the last one.

pub mod record;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::boltdb::membership::{Membership, MembershipError};
use crate::boltdb::wal;
use crate::clock;
use crate::config::Config;
use crate::datadir::{DataDir, DataDirError};
use crate::durable::{self, DirError, DirHandle, NewDir, WriteError};
use crate::error::{Code, Diagnostic};
use crate::etcd::client::Expected;
use crate::etcd::settings::Addresses;
use crate::host;
use crate::job::JobControl;
use crate::recovery::build::{self, BuildError, Built, DataDirSpec};
use crate::recovery::expected::ExpectedCluster;
use crate::recovery::gate::{self, GateError, GateInput};
use crate::recovery::isolated_etcd::{self, IsolatedEtcd, IsolatedProgram};
use crate::recovery::journal::ExpectedData;
use crate::snapshot::file::{self, OpenError, SnapshotFile};
use crate::snapshot::manifest::Manifest;
use crate::snapshot::verify::VerifyError;
use crate::text::format_bytes;
use crate::version::Version;

/// The label of the hidden directory of a drill.
const NAME: &str = "quorate-drill";
const MEMBER: &str = "drill";
/// Bytes that etcd writes in addition to the database: two segments of its log, and changes.
const EXTRA_BYTES: u64 = build::EXTRA_BYTES + 2 * wal::SEGMENT_BYTES;
/// Bytes that stay free on the disk, which the running etcd may use, too.
const RESERVED_FREE_BYTES: u64 = 256 << 20;

#[derive(Debug, thiserror::Error)]
pub enum DrillError {
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It has no hash, so it cannot be verified.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// There is too little space for a drill.
    #[error("a drill needs {}, but only {} are free in {}", format_bytes(*needed), format_bytes(*free), dir.display())]
    Space { needed: u64, free: u64, dir: PathBuf },
    #[error("cannot build a data directory from the snapshot")]
    Build(#[from] BuildError),
    /// The etcd on the built data fails, or serves other contents.
    #[error("the etcd of the drill does not serve the contents of the snapshot")]
    Gate(#[from] GateError),
    /// It differs from the one that was saved.
    #[error("the snapshot differs from the one that was saved: its {what} is {found}, but was {expected}")]
    Mismatch { what: &'static str, found: String, expected: String },
    /// A directory for it cannot be created.
    #[error(transparent)]
    Place(#[from] DataDirError),
    /// A directory for it cannot be opened.
    #[error(transparent)]
    Held(#[from] DirError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error(transparent)]
    Member(#[from] MembershipError),
    #[error("cannot get a thread or random numbers from the operating system")]
    System(#[source] std::io::Error),
    #[error("the drill was cancelled; no files are left")]
    Cancelled,
}

impl DrillError {
    /// True if it is not about the snapshot itself.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        matches!(
            self,
            Self::Cancelled
                | Self::Build(BuildError::Cancelled)
                | Self::Gate(GateError::IsolatedEtcd(isolated_etcd::IsolatedEtcdError::Cancelled))
        )
    }
}

impl Diagnostic for DrillError {
    fn code(&self) -> Code {
        match self {
            Self::Open(error) => error.code(),
            Self::Verify(error) => error.code(),
            Self::Space { .. } => Code::NoSpace,
            Self::Build(error) => error.code(),
            Self::Gate(error) => error.code(),
            Self::Mismatch { .. } => Code::DrillFailed,
            Self::Place(error) => error.code(),
            Self::Held(error) => error.code(),
            Self::Write(error) => error.code(),
            Self::Member(_) => Code::InvalidMembership,
            Self::System(_) => Code::OsError,
            Self::Cancelled => Code::Cancelled,
        }
    }

    fn next_step(&self) -> Option<String> {
        match self {
            Self::Open(error) => error.next_step(),
            Self::Verify(error) => error.next_step(),
            Self::Build(error) => error.next_step(),
            Self::Place(error) => error.next_step(),
            Self::Held(error) => error.next_step(),
            Self::Write(error) => error.next_step(),
            Self::Space { .. } => Some("free some space there, or set another directory with --drill-dir".into()),
            Self::Gate(_) | Self::Mismatch { .. } => Some(
                "do not rely on this snapshot: take another one (quorate etcd-snapshot save), and drill that with --drill latest"
                    .into(),
            ),
            Self::Member(_) | Self::System(_) | Self::Cancelled => Some("try again".into()),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Drill<'a> {
    /// The server's configuration, for the settings and user of etcd.
    pub config: &'a Config,
    pub program: &'a IsolatedProgram,
    /// The directory for the files of the drill.
    pub dir: &'a Path,
    /// Accept a raw copy of `member/snap/db`.
    pub skip_hash: bool,
}

/// The result of a successful drill.
#[derive(Clone, Debug)]
pub struct Passed {
    pub etcd: Version,
    pub revision: i64,
    pub keys: u64,
    pub hash_kv: u32,
    /// How long etcd took to be healthy.
    pub healthy_after: Duration,
    /// How long all of it took.
    pub took: Duration,
}

impl Drill<'_> {
    /// Drills the snapshot at `path`, which must match `manifest`. `progress` receives the bytes built, and the total.
    /// # Errors The first failure. No files are left then, either.
    pub async fn run(
        &self,
        path: &Path,
        manifest: Option<&Manifest>,
        control: &JobControl,
        progress: impl FnMut(u64, u64) + Send + 'static,
    ) -> Result<Passed, DrillError> {
        let begun = clock::monotonic();
        let snapshot = file::open(path)?;
        if snapshot.trailer.is_none() && !self.skip_hash {
            return Err(VerifyError::NoHash(snapshot.path).into());
        }
        self.check_room(snapshot.database_size)?;
        let _ = durable::sweep_named(self.dir, NAME);
        let work = durable::new_dir(&self.dir.join(NAME))?;
        // A complete data directory, with separate certificates.
        let data = DataDir::new(work.path()).with_etcd_user(self.config.etcd.user.clone());
        data.prepare_for_lock()?;
        data.prepare()?;
        let spec = self.spec()?;
        let built = build_low_priority(snapshot, data.etcd(), spec.clone(), control.clone(), progress).await?;
        compare_with_manifest(&built, manifest)?;
        let db = DirHandle::open(&data.db())?;
        let etcd = db.open_dir(DataDir::ETCD_NAME)?.ok_or_else(|| DirError::Missing(data.etcd()))?;
        data.chown_to_etcd_user(&etcd)?;
        let answer = self.ask(&work, &data, &spec, &built, control).await?;
        Ok(Passed {
            etcd: self.program.version,
            revision: built.inspection.revision,
            keys: built.inspection.keys,
            hash_kv: built.inspection.hash_kv,
            healthy_after: answer.took,
            took: begun.elapsed(),
        })
    }

    async fn ask(
        &self,
        work: &NewDir,
        data: &DataDir,
        spec: &DataDirSpec,
        built: &Built,
        control: &JobControl,
    ) -> Result<gate::GateReport, DrillError> {
        let isolated_etcd = IsolatedEtcd {
            config: self.config,
            data,
            trust: work.path(),
            dir: &data.etcd(),
            name: &spec.name,
            quota: isolated_etcd::quota(built.size),
            force_new_cluster: false,
            is_gentle: true,
        };
        let own = Expected { name: spec.name.clone(), peer_url: Addresses::peer_url(self.config) };
        let expected = ExpectedCluster::alone(own.name.clone(), own.peer_url.clone(), String::new());
        let data = ExpectedData::of(&built.inspection, built.size);
        let input = GateInput { own, expected: &expected, data: Some(&data), size: built.size };
        Ok(gate::verify(&isolated_etcd, self.program, &input, control).await?)
    }

    fn check_room(&self, database_size: u64) -> Result<(), DrillError> {
        let needed = database_size + EXTRA_BYTES + RESERVED_FREE_BYTES;
        let free = host::free_bytes(self.dir).unwrap_or(u64::MAX);
        if free < needed { Err(DrillError::Space { needed, free, dir: self.dir.to_path_buf() }) } else { Ok(()) }
    }

    /// The revision is not bumped: etcd must serve the contents of the snapshot.
    fn spec(&self) -> Result<DataDirSpec, DrillError> {
        let token = format!("{NAME}-{}", hex::encode(crate::random::random::<8>().map_err(DrillError::System)?));
        let members = [(MEMBER.to_owned(), vec![Addresses::peer_url(self.config)])];
        let membership = Membership::new(&members, &token)?;
        Ok(DataDirSpec {
            name: MEMBER.to_owned(),
            membership,
            target: self.program.version,
            raise: 0,
            allow_empty: true,
        })
    }
}

/// Builds in a separate thread, with the lowest priority.
async fn build_low_priority(
    snapshot: SnapshotFile,
    dir: PathBuf,
    spec: DataDirSpec,
    control: JobControl,
    mut progress: impl FnMut(u64, u64) + Send + 'static,
) -> Result<Built, DrillError> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let building = move || {
        host::lower_priority();
        let built = build::build(&snapshot, &dir, &spec, &control, &mut progress);
        // The waiter is gone: the owner of the directory removes it.
        let _ = sender.send(built);
    };
    std::thread::Builder::new().name("quorate-drill".into()).spawn(building).map_err(DrillError::System)?;
    Ok(receiver.await.map_err(|_| DrillError::Build(BuildError::WorkerPanicked))??)
}

/// Its contents must match its manifest.
fn compare_with_manifest(built: &Built, manifest: Option<&Manifest>) -> Result<(), DrillError> {
    let Some(manifest) = manifest.filter(|manifest| !manifest.sha256.is_empty()) else { return Ok(()) };
    let inspection = &built.inspection;
    for (what, found, expected) in [
        ("revision", inspection.revision.to_string(), manifest.revision.to_string()),
        ("number of keys", inspection.keys.to_string(), manifest.keys.to_string()),
        ("HashKV", inspection.hash_kv.to_string(), manifest.hash_kv.to_string()),
    ] {
        if found != expected {
            return Err(DrillError::Mismatch { what, found, expected });
        }
    }
    Ok(())
}
