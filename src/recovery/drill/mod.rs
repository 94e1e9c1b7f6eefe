//! A rehearsal of a restore: data are built from a snapshot in a directory of their own, an etcd that nobody else can reach runs on them,
//! what it serves is compared with the snapshot, and all of it is thrown away.
//!
//! The data in use are neither read nor touched, and an etcd that runs on them keeps the processor: building and the etcd of the drill have
//! the lowest priority. `record` remembers what the last one found.

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
use crate::recovery::isolated_etcd::{self, IsolatedEtcd, Program};
use crate::recovery::journal::ExpectedData;
use crate::snapshot::file::{self, OpenError, SnapshotFile};
use crate::snapshot::manifest::Manifest;
use crate::snapshot::verify::VerifyError;
use crate::text::format_bytes;
use crate::version::Version;

/// What the directory of a drill is called, among hidden ones.
const NAME: &str = "quorate-drill";
/// The member that runs in it.
const MEMBER: &str = "drill";
/// Bytes that etcd writes beside the database: two segments of its log, and what it changes.
const EXTRA_BYTES: u64 = build::EXTRA_BYTES + 2 * wal::SEGMENT_BYTES;
/// Bytes that stay free on the disk, which may be that of the running etcd.
const RESERVED_FREE_BYTES: u64 = 256 << 20;

/// Why a snapshot did not pass.
#[derive(Debug, thiserror::Error)]
pub enum DrillError {
    /// It cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Nobody can tell whether it is what etcd wrote.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// There is too little room to try it.
    #[error("a drill needs {}, and {} are free in {}", format_bytes(*needed), format_bytes(*free), dir.display())]
    Space {
        /// Bytes.
        needed: u64,
        /// Bytes.
        free: u64,
        /// Where.
        dir: PathBuf,
    },
    /// No data can be built from it.
    #[error("no data directory can be built from the snapshot")]
    Build(#[from] BuildError),
    /// No etcd runs on what was built, or it serves something else.
    #[error("the etcd of the drill does not serve the snapshot")]
    Gate(#[from] GateError),
    /// It is another one than was saved.
    #[error("the snapshot is not the one that was saved: its {what} is {found}, and was {expected}")]
    Differs {
        /// What was compared.
        what: &'static str,
        /// What is in it.
        found: String,
        /// What its manifest says.
        expected: String,
    },
    /// A directory for it cannot be made.
    #[error(transparent)]
    Place(#[from] DataDirError),
    /// A directory for it cannot be held.
    #[error(transparent)]
    Held(#[from] DirError),
    /// Something cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The member cannot be made.
    #[error(transparent)]
    Member(#[from] MembershipError),
    /// A thread, or random numbers.
    #[error("the operating system refused a thread or random numbers")]
    System(#[source] std::io::Error),
    /// Nobody wants it any more.
    #[error("the drill was cancelled; nothing of it is left")]
    Cancelled,
}

impl DrillError {
    /// True if it says nothing about the snapshot.
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
            Self::Differs { .. } => Code::DrillFailed,
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
            Self::Space { .. } => Some("free some space there, or name another place with --drill-dir".into()),
            Self::Gate(_) | Self::Differs { .. } => Some(
                "do not rely on this snapshot: take another one (quorate etcd-snapshot save), and drill that with --drill latest"
                    .into(),
            ),
            Self::Member(_) | Self::System(_) | Self::Cancelled => Some("try again".into()),
        }
    }
}

/// What is tried, and where.
#[derive(Clone, Debug)]
pub struct Drill<'a> {
    /// The server's configuration: settings of etcd's, and its user.
    pub config: &'a Config,
    /// The etcd that runs.
    pub program: &'a Program,
    /// The directory in which there is room.
    pub dir: &'a Path,
    /// The snapshot may be a plain copy of `member/snap/db`.
    pub skip_hash: bool,
}

/// What was found of a snapshot that passed.
#[derive(Clone, Debug)]
pub struct Passed {
    /// The etcd that ran.
    pub etcd: Version,
    /// Of the keyspace.
    pub revision: i64,
    /// Keys at the revision.
    pub keys: u64,
    /// As etcd computed it.
    pub hash_kv: u32,
    /// How long etcd took to be healthy.
    pub healthy_after: Duration,
    /// How long all of it took.
    pub took: Duration,
}

impl Drill<'_> {
    /// Tries the snapshot at `path`, which is to be what `manifest` says. `progress` is told how many bytes were built, of how many.
    ///
    /// # Errors
    /// The first thing that is not as it should be. Nothing is left of the drill then, either.
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
        // A data directory like any other, with certificates of its own.
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

    /// The revision is not raised: what etcd serves must be what is in the snapshot.
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

/// Builds in a thread of its own, of the lowest priority.
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
        // Nobody waits any more: the directory is removed by whoever made it.
        let _ = sender.send(built);
    };
    std::thread::Builder::new().name("quorate-drill".into()).spawn(building).map_err(DrillError::System)?;
    Ok(receiver.await.map_err(|_| DrillError::Build(BuildError::WorkerPanicked))??)
}

/// What is in it must be what was written down when it was saved.
fn compare_with_manifest(built: &Built, manifest: Option<&Manifest>) -> Result<(), DrillError> {
    let Some(manifest) = manifest.filter(|manifest| !manifest.sha256.is_empty()) else { return Ok(()) };
    let inspection = &built.inspection;
    for (what, found, expected) in [
        ("revision", inspection.revision.to_string(), manifest.revision.to_string()),
        ("number of keys", inspection.keys.to_string(), manifest.keys.to_string()),
        ("HashKV", inspection.hash_kv.to_string(), manifest.hash_kv.to_string()),
    ] {
        if found != expected {
            return Err(DrillError::Differs { what, found, expected });
        }
    }
    Ok(())
}
