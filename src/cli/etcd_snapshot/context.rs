//! The snapshot directory of this node, the owner of snapshots, and the stores that a subcommand works on.

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
use crate::config::{Config, OptionOrigin, RawOptions};
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

/// The timeout of the status request.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The option for the access key.
const ACCESS_KEY: &str = "etcd-s3-access-key";
/// The label of a temporary directory for a download.
const DOWNLOAD: &str = "quorate-download";

/// The snapshot or data directory does not exist.
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
        Some("use --data-dir or --dir; --s3 works on object storage only".into())
    }
}

/// The stores; without either flag, this node and, if uploads are enabled, object storage.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub(super) struct StoreSelection {
    /// Only snapshots on this node; with --s3, both
    #[arg(long)]
    local: bool,
}

/// The snapshots of this node, and their owner.
pub(super) struct SnapshotContext {
    pub(super) dir: PathBuf,
    /// Whose they are.
    pub(super) owner: Owner,
    pub(super) s3: S3Config,
    pub(super) data: DataDir,
    /// `etcd-s3` on the command line.
    said: Option<bool>,
    /// The other options of object storage on the command line.
    said_of_s3: BTreeMap<String, String>,
    /// The etcd binary of the running server, if it is a file.
    pub(super) etcd: Option<PathBuf>,
    /// The access key comes from the environment of this command.
    has_key_of_environment: bool,
    /// The credentials of the running server, if there is one.
    provider: Option<ServerCredentials>,
}

/// A snapshot as a local file, while this exists.
pub(super) struct DownloadedSnapshot {
    pub(super) path: PathBuf,
    /// The given name, for messages.
    pub(super) shown: String,
    /// Its entry in the bucket, if it is from there.
    pub(super) manifest: Option<Manifest>,
    _dir: Option<NewDir>,
}

/// No bucket is configured.
#[derive(Debug, thiserror::Error)]
#[error("no bucket is configured")]
struct NoBucket;

impl Diagnostic for NoBucket {
    fn code(&self) -> Code {
        Code::S3NotConfigured
    }

    fn next_step(&self) -> Option<String> {
        Some("set etcd-s3-bucket, or use --s3-bucket".into())
    }
}

/// The options of object storage on the command line, by name. With `--s3`, keys in the environment have the same
/// precedence, as in RKE2.
pub(super) fn cli_overrides(given: &RawOptions) -> BTreeMap<String, String> {
    const KEYS: [(&str, &str); 3] = [
        (ACCESS_KEY, "AWS_ACCESS_KEY_ID"),
        (options::ETCD_S3_SECRET_KEY.name, "AWS_SECRET_ACCESS_KEY"),
        (options::ETCD_S3_SESSION_TOKEN.name, "AWS_SESSION_TOKEN"),
    ];
    let ours = given
        .options
        .iter()
        .filter(|(name, (_, origin))| s3::is_ours(name) && matches!(origin, OptionOrigin::CommandLine(_)));
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

/// The options of the running server, merged with the command line.
async fn server_settings(data: &DataDir, said: &BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    let body = serde_json::to_vec(said).unwrap_or_default();
    let mut response = None;
    let asked =
        client::post(data, "/v1/s3", body, REQUEST_TIMEOUT, |line| response = serde_json::from_slice(line).ok());
    asked.await.ok()?;
    response
}

impl SnapshotContext {
    /// The settings of the running server, whose command line and environment may differ from ours; without one, the
    /// configuration. Our command line has precedence over both.
    pub(super) fn of(config: &Config, given: &RawOptions, dir: Option<PathBuf>) -> Result<Self, AppError> {
        let data = DataDir::new(&config.data_dir);
        let said = cli_overrides(given);
        let mut provider = None;
        let running = match block_on(server_status::fetch(&data, REQUEST_TIMEOUT))? {
            Err(error) if !matches!(error, ControlError::NotRunning(_)) => {
                let why = AppError::from(error).to_report();
                output::print_stderr(&format!(
                    "quorate: warning: {}; falling back to the local configuration\n",
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
                        provider = Some(ServerCredentials::new(&data, &said));
                        S3Config::default().with(&theirs)?
                    }
                    None => config.snapshot.s3.clone(),
                };
                (PathBuf::from(status.snapshots.dir), status.node, s3)
            }
            None => (config.snapshot.place(&data), config.node_name.clone(), config.snapshot.s3.clone()),
        };
        let is_typed = matches!(given.options.get(ACCESS_KEY), Some((_, OptionOrigin::CommandLine(_))));
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
            provider,
        })
    }

    /// True if the access key is that of the environment of this command.
    pub(super) fn has_key_of_environment(&self) -> bool {
        self.has_key_of_environment
    }

    /// True if the command line sets this option of object storage.
    pub(super) fn is_overridden(&self, option: &str) -> bool {
        self.said_of_s3.contains_key(option)
    }

    /// Where to search for a named snapshot.
    pub(super) fn places(&self, which: StoreSelection) -> SnapshotLocator {
        let mut s3 = self.s3.clone();
        s3.is_asked = self.said == Some(true) && !which.local;
        s3.is_on &= !which.local || self.said == Some(true);
        let notify: fn(Notice<'_>) = |notice| match notice {
            Notice::Unseen(failure) => output::print_stderr(&format!(
                "quorate: warning: cannot search object storage; using the snapshot on this node\n{}\n",
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
            provider: self.credentials_provider(),
            owner: self.owner.clone(),
            data: self.data.clone(),
            notify,
        }
    }

    /// The object of an `s3://` URL; `None` for other names.
    pub(super) async fn at(&self, named: &str) -> Result<Option<(Remote, String)>, AppError> {
        let found = self.places(StoreSelection::default()).at(named).await?;
        Ok(found.map(|(bucket, name)| (Remote::new(bucket, &self.data), name.to_owned())))
    }

    /// A snapshot, by name, path or `s3://` URL, as a file: one in object storage is downloaded into a temporary
    /// directory next to `near`, or in the system's directory for temporary files.
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

    /// The local store, if selected. # Errors If it is selected, but the directory does not exist.
    pub(super) fn local(&self, which: StoreSelection) -> Result<Option<Directory>, AppError> {
        if !self.is_local(which) {
            return Ok(None);
        }
        let is_missing =
            |path: &Path| std::fs::metadata(path).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound);
        let root = self.data.root();
        // The default directory is created with the first snapshot, or at the first start.
        let is_made_later = self.dir == self.data.snapshots();
        if is_made_later && is_missing(root) {
            return Err(NoDirectory { what: "data directory", path: root.to_path_buf() }.into());
        }
        if !is_made_later && is_missing(&self.dir) {
            return Err(NoDirectory { what: "snapshot directory", path: self.dir.clone() }.into());
        }
        Ok(Some(Directory(self.dir.clone())))
    }

    /// True if this node is selected.
    pub(super) fn is_local(&self, which: StoreSelection) -> bool {
        which.local || self.said != Some(true)
    }

    /// Object storage, if selected.
    pub(super) async fn remote(&self, which: StoreSelection) -> Result<Option<Remote>, AppError> {
        if self.is_remote(which) { self.bucket().await.map(Some) } else { Ok(None) }
    }

    /// Checks that the settings of object storage are complete, if it is selected.
    pub(super) fn check_remote(&self, which: StoreSelection) -> Result<(), AppError> {
        if self.is_remote(which) { self.target().map(drop) } else { Ok(()) }
    }

    fn is_remote(&self, which: StoreSelection) -> bool {
        self.said.unwrap_or(self.s3.is_on && !which.local)
    }

    fn credentials_provider(&self) -> Option<SharedCredentialsProvider> {
        self.provider.clone().map(SharedCredentialsProvider::new)
    }

    /// True if these are the settings and credentials of a running server.
    pub(super) fn is_of_server(&self) -> bool {
        self.provider.is_some()
    }

    async fn bucket(&self) -> Result<Remote, AppError> {
        let bucket = Bucket::connect(self.target()?, self.credentials_provider()).await?;
        Ok(Remote::new(bucket, &self.data))
    }

    /// The bucket, even if not selected; credentials are not looked up yet.
    pub(super) async fn bucket_to_check(&self) -> Result<Bucket, AppError> {
        Ok(Bucket::prepare(self.target()?, self.credentials_provider()).await?)
    }

    fn target(&self) -> Result<Target, AppError> {
        if self.s3.is_configured() { Ok(self.s3.target()?) } else { Err(NoBucket.into()) }
    }
}
