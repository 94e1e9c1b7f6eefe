//! Where the snapshots of this node are, whose they are, and which places a verb is about.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_credential_types::provider::SharedCredentialsProvider;

use crate::cli::etcd_snapshot::server_credentials::ServerCredentials;
use crate::cli::progress::Progress;
use crate::cli::runtime::block_on;
use crate::cli::{interrupt, output, status as server_status};
use crate::config::options;
use crate::config::s3::{self, S3Config, Target};
use crate::config::{Config, Origin, RawOptions};
use crate::control::client::{self, ControlError};
use crate::datadir::DataDir;
use crate::durable::{self, NewDir};
use crate::environment;
use crate::error::{AppError, Code, Diagnostic};
use crate::job::JobControl;
use crate::plan::owner::Owner;
use crate::snapshot::manifest::Manifest;
use crate::snapshot::store::local::Directory;
use crate::snapshot::store::locate::{Located, Notice, SnapshotLocator};
use crate::snapshot::store::s3::Bucket;
use crate::snapshot::store::s3::store::Remote;

/// How long the launcher may take to say where its snapshots are.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The option for the access key.
const ACCESS_KEY: &str = "etcd-s3-access-key";
/// What a directory for a download is called, among temporary files.
const DOWNLOAD: &str = "quorate-download";

/// A directory that is to have snapshots does not exist.
#[derive(Debug, thiserror::Error)]
#[error("the {what} {} does not exist", path.display())]
struct NoDirectory {
    what: &'static str,
    path: PathBuf,
}

impl Diagnostic for NoDirectory {
    fn code(&self) -> Code {
        Code::DirectoryNotFound
    }

    fn next_step(&self) -> Option<String> {
        Some("name the right one with --data-dir or --dir; --s3 is for the snapshots in object storage alone".into())
    }
}

/// Which places; without either, this node and, if snapshots are uploaded, object storage.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub(super) struct StoreSelection {
    /// Only snapshots on this node; with --s3, both
    #[arg(long)]
    local: bool,
}

/// Where the snapshots of this node are, and whose they are.
pub(super) struct SnapshotContext {
    pub(super) dir: PathBuf,
    /// Whose they are.
    pub(super) owner: Owner,
    pub(super) s3: S3Config,
    pub(super) data: DataDir,
    /// What the command line says of `etcd-s3`.
    said: Option<bool>,
    /// What else of object storage the command line says.
    said_of_s3: BTreeMap<String, String>,
    /// The etcd that the running server runs, if it is a file.
    pub(super) etcd: Option<PathBuf>,
    /// The access key comes from the environment of this command.
    has_key_of_environment: bool,
    /// Who has credentials, if a server runs that may find them where we cannot look.
    lender: Option<ServerCredentials>,
}

/// A snapshot that is a file here, for as long as this is kept.
pub(super) struct DownloadedSnapshot {
    pub(super) path: PathBuf,
    /// What was named, for people.
    pub(super) shown: String,
    /// What the bucket says of it, if it is from there.
    pub(super) manifest: Option<Manifest>,
    _dir: Option<NewDir>,
}

/// There is nothing to connect to.
#[derive(Debug, thiserror::Error)]
#[error("no bucket is configured")]
struct NoBucket;

impl Diagnostic for NoBucket {
    fn code(&self) -> Code {
        Code::S3NotConfigured
    }

    fn next_step(&self) -> Option<String> {
        Some("set etcd-s3-bucket, or say --s3-bucket".into())
    }
}

/// What the command line itself says of object storage, by option name. With `--s3`, keys in our environment count as said, as those of
/// RKE2's command do.
pub(super) fn cli_overrides(given: &RawOptions) -> BTreeMap<String, String> {
    const KEYS: [(&str, &str); 3] = [
        (ACCESS_KEY, "AWS_ACCESS_KEY_ID"),
        (options::ETCD_S3_SECRET_KEY.name, "AWS_SECRET_ACCESS_KEY"),
        (options::ETCD_S3_SESSION_TOKEN.name, "AWS_SESSION_TOKEN"),
    ];
    let ours = given
        .options
        .iter()
        .filter(|(name, (_, origin))| s3::is_ours(name) && matches!(origin, Origin::CommandLine(_)));
    let ours = ours.filter_map(|(name, (texts, _))| Some(((*name).to_owned(), s3::from_here(name, texts.first()?))));
    let mut said: BTreeMap<String, String> = ours.collect();
    if said.contains_key(s3::ENABLED) && !said.contains_key(KEYS[0].0) {
        let found = KEYS
            .iter()
            .filter_map(|(name, variable)| Some(((*name).to_owned(), environment::text(variable)?.to_owned())));
        said.extend(found.filter(|(_, text)| !text.is_empty()));
    }
    said
}

/// What the running server knows of object storage, with what is said now.
async fn server_settings(data: &DataDir, said: &BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    let body = serde_json::to_vec(said).unwrap_or_default();
    let mut told = None;
    let asked = client::post(data, "/v1/s3", body, REQUEST_TIMEOUT, |line| told = serde_json::from_slice(line).ok());
    asked.await.ok()?;
    told
}

impl SnapshotContext {
    /// As the running server has them: its command line and environment may say something else than ours. Without one, as configured. What
    /// our own command line says counts more than either.
    pub(super) fn of(config: &Config, given: &RawOptions, dir: Option<PathBuf>) -> Result<Self, AppError> {
        let data = DataDir::new(&config.data_dir);
        let said = cli_overrides(given);
        let mut lender = None;
        let running = match block_on(server_status::fetch(&data, REQUEST_TIMEOUT))? {
            Err(error) if !matches!(error, ControlError::NotRunning(_)) => {
                let why = AppError::from(error).to_report();
                output::print_stderr(&format!(
                    "quorate: warning: {}; what follows is by the configuration\n",
                    why.message
                ));
                None
            }
            running => running.ok().filter(|status| !status.snapshots.dir.is_empty()),
        };
        let etcd = running.as_ref().map(|status| PathBuf::from(&status.etcd.binary)).filter(|path| path.is_file());
        let (usual, node, configured) = match running {
            Some(status) => {
                let s3 = match block_on(server_settings(&data, &said))? {
                    Some(theirs) => {
                        lender = Some(ServerCredentials::new(&data, &said));
                        S3Config::default().with(&theirs)?
                    }
                    None => config.snapshot.s3.clone(),
                };
                (PathBuf::from(status.snapshots.dir), status.node, s3)
            }
            None => (config.snapshot.place(&data), config.node_name.clone(), config.snapshot.s3.clone()),
        };
        let is_typed = matches!(given.options.get(ACCESS_KEY), Some((_, Origin::CommandLine(_))));
        let has_key_of_environment = said.contains_key(ACCESS_KEY) && !is_typed;
        let s3 = configured.with(&said)?;
        let is_on = said.contains_key(s3::ENABLED).then_some(s3.is_on);
        let owner = crate::cluster::file::owner(&data, &node, None);
        Ok(Self {
            dir: dir.unwrap_or(usual),
            owner,
            s3,
            data,
            said: is_on,
            said_of_s3: said,
            has_key_of_environment,
            etcd,
            lender,
        })
    }

    /// True if the access key is that of the environment of this command.
    pub(super) fn has_key_of_environment(&self) -> bool {
        self.has_key_of_environment
    }

    /// True if the command line says so much of an option of object storage.
    pub(super) fn is_overridden(&self, option: &str) -> bool {
        self.said_of_s3.contains_key(option)
    }

    /// Where one that is named may be.
    pub(super) fn places(&self, which: StoreSelection) -> SnapshotLocator {
        let mut s3 = self.s3.clone();
        s3.is_asked = self.said == Some(true) && !which.local;
        s3.is_on &= !which.local || self.said == Some(true);
        let tell: fn(Notice<'_>) = |notice| match notice {
            Notice::Unseen(failure) => output::print_stderr(&format!(
                "quorate: warning: object storage was not looked into, and the snapshot on this node is taken\n{}\n",
                failure
                    .to_report()
                    .because
                    .iter()
                    .map(|why| format!("  because: {why}\n"))
                    .collect::<String>()
                    .trim_end()
            )),
            Notice::Considered(line) | Notice::Chosen(line) => output::note(&format!("quorate: {line}\n")),
        };
        SnapshotLocator {
            dirs: vec![self.dir.clone()],
            s3,
            lender: self.credentials_provider(),
            owner: self.owner.clone(),
            data: self.data.clone(),
            tell,
        }
    }

    /// What an `s3://` URL names; nothing for anything else.
    pub(super) async fn at(&self, named: &str) -> Result<Option<(Remote, String)>, AppError> {
        let found = self.places(StoreSelection::default()).at(named).await?;
        Ok(found.map(|(bucket, name)| (Remote::new(bucket, &self.data), name.to_owned())))
    }

    /// A snapshot, by name, path or `s3://` URL, as a file: one in object storage is downloaded into a directory that is gone afterwards.
    /// It lies beside `near`, or among temporary files.
    pub(super) fn get(&self, named: &str, near: Option<&Path>) -> Result<DownloadedSnapshot, AppError> {
        let places = self.places(StoreSelection::default());
        block_on(async {
            let there = match places.locate(named).await? {
                Located::Local(path) => {
                    return Ok(DownloadedSnapshot {
                        shown: path.display().to_string(),
                        path,
                        manifest: None,
                        _dir: None,
                    });
                }
                Located::Remote(there) => there,
            };
            let near = near.map_or_else(
                || {
                    let temporary = std::env::temp_dir();
                    let _ = durable::sweep_named(&temporary, DOWNLOAD);
                    temporary.join(DOWNLOAD)
                },
                Path::to_path_buf,
            );
            let dir = durable::new_dir(&near)?;
            interrupt::remove(dir.path());
            let mut bar = Progress::new("downloading the snapshot");
            let path = there.fetch(&dir.through(), &JobControl::default(), &mut |done, all| bar.set(done, all)).await;
            Ok(DownloadedSnapshot {
                path: path?,
                shown: there.url(),
                manifest: there.manifest().cloned(),
                _dir: Some(dir),
            })
        })?
    }

    /// This node, if it is meant.
    ///
    /// # Errors
    /// If it is meant, and the directory is not there.
    pub(super) fn local(&self, which: StoreSelection) -> Result<Option<Directory>, AppError> {
        if !self.is_local(which) {
            return Ok(None);
        }
        let is_missing =
            |path: &Path| std::fs::metadata(path).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound);
        let root = self.data.root();
        // The usual one is made with the first snapshot, or the first start.
        let is_made_later = self.dir == self.data.snapshots();
        if is_made_later && is_missing(root) {
            return Err(NoDirectory { what: "data directory", path: root.to_path_buf() }.into());
        }
        if !is_made_later && is_missing(&self.dir) {
            return Err(NoDirectory { what: "snapshot directory", path: self.dir.clone() }.into());
        }
        Ok(Some(Directory(self.dir.clone())))
    }

    /// True if this node is meant.
    pub(super) fn is_local(&self, which: StoreSelection) -> bool {
        which.local || self.said != Some(true)
    }

    /// Object storage, if it is meant.
    pub(super) async fn remote(&self, which: StoreSelection) -> Result<Option<Remote>, AppError> {
        if self.is_remote(which) { self.bucket().await.map(Some) } else { Ok(None) }
    }

    /// The settings of object storage, if it is meant, are complete.
    pub(super) fn check_remote(&self, which: StoreSelection) -> Result<(), AppError> {
        if self.is_remote(which) { self.target().map(drop) } else { Ok(()) }
    }

    fn is_remote(&self, which: StoreSelection) -> bool {
        self.said.unwrap_or(self.s3.is_on && !which.local)
    }

    fn credentials_provider(&self) -> Option<SharedCredentialsProvider> {
        self.lender.clone().map(SharedCredentialsProvider::new)
    }

    /// True if a server runs, whose settings and credentials these are.
    pub(super) fn is_of_server(&self) -> bool {
        self.lender.is_some()
    }

    async fn bucket(&self) -> Result<Remote, AppError> {
        let bucket = Bucket::connect(self.target()?, self.credentials_provider()).await?;
        Ok(Remote::new(bucket, &self.data))
    }

    /// The bucket, whether it is meant or not; nobody is asked for credentials yet.
    pub(super) async fn bucket_to_check(&self) -> Result<Bucket, AppError> {
        Ok(Bucket::prepare(self.target()?, self.credentials_provider()).await?)
    }

    fn target(&self) -> Result<Target, AppError> {
        if self.s3.is_configured() { Ok(self.s3.target()?) } else { Err(NoBucket.into()) }
    }
}
