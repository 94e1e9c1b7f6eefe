//! Every path under the data directory `D`, and who may create it.
//!
//! Given `--data-dir`, names each file once; `owner` creates the directories and checks their owner.

mod etcd;
pub mod lock;
mod modes;
mod owner;

use std::path::{Path, PathBuf};

use crate::durable::{Access, PRIVATE_FILE};
use crate::host::User;

pub use etcd::database_name;
pub use owner::{DataDirError, PermissionFix};

/// Mode of a file that etcd must read although it is not the owner.
const FOR_ETCD: u32 = 0o640;

/// The two files of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificatePaths {
    /// PEM certificate.
    pub certificate: PathBuf,
    /// PEM PKCS#8 private key.
    pub key: PathBuf,
    pub certificate_access: Access,
    pub key_access: Access,
}

/// The data directory `D`. Only names paths; none of them need exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataDir {
    root: PathBuf,
    /// The user that etcd runs as, if not our own.
    etcd_user: Option<User>,
}

impl DataDir {
    /// The data directory at `root`, which must be absolute.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_path_buf(), etcd_user: None }
    }

    /// The same, with an etcd that runs as `user`.
    #[must_use]
    pub fn with_etcd_user(self, user: Option<User>) -> Self {
        Self { etcd_user: user, ..self }
    }

    /// `D`.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `S`: `D/server`.
    #[must_use]
    pub fn server(&self) -> PathBuf {
        self.root.join("server")
    }

    /// The lock file that allows one launcher per data directory.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.server().join("lock")
    }

    /// Identifies the child that the launcher of this data directory started last.
    #[must_use]
    pub fn child_record(&self) -> PathBuf {
        self.server().join("child.json")
    }

    /// The socket of the control API.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.server().join(Self::SOCKET_NAME)
    }

    /// The name of [`Self::socket`] in [`Self::server`].
    pub const SOCKET_NAME: &str = "quorate.sock";

    /// Cluster id, epoch and what ran last; outside `db`, so that it survives the loss of `db`.
    #[must_use]
    pub fn cluster(&self) -> PathBuf {
        self.server().join("cluster.json")
    }

    /// The token with which other servers join.
    #[must_use]
    pub fn token(&self) -> PathBuf {
        self.server().join("token")
    }

    /// `S/tls/etcd`.
    #[must_use]
    pub fn tls(&self) -> PathBuf {
        self.server().join("tls").join("etcd")
    }

    /// The two files of the CA or leaf called `name` under [`Self::tls`].
    #[must_use]
    pub fn certificate(&self, name: &str) -> CertificatePaths {
        let group = self.etcd_user.as_ref().map(|user| user.gid);
        let access = |is_read_by_etcd: bool| match group {
            Some(_) if is_read_by_etcd => Access { mode: FOR_ETCD, group },
            // Back to the default group, if it was another one.
            _ => Access { mode: PRIVATE_FILE, group: group.map(|_| nix::unistd::getegid().as_raw()) },
        };
        let is_etcds_own = matches!(name, "server-client" | "peer-server-client");
        CertificatePaths {
            certificate: self.tls().join(format!("{name}.crt")),
            key: self.tls().join(format!("{name}.key")),
            certificate_access: access(is_etcds_own || name.ends_with("-ca")),
            key_access: access(is_etcds_own),
        }
    }

    /// `S/db`.
    #[must_use]
    pub fn db(&self) -> PathBuf {
        self.server().join("db")
    }

    #[must_use]
    pub fn etcd(&self) -> PathBuf {
        self.db().join(Self::ETCD_NAME)
    }

    /// The name of [`Self::etcd`] in [`Self::db`].
    pub const ETCD_NAME: &str = "etcd";
    /// The name of [`Self::etcd_member`] in [`Self::etcd`].
    pub const MEMBER_NAME: &str = "member";
    /// The name of [`Self::etcd_name`] in [`Self::etcd`].
    pub const NAME_NAME: &str = "name";
    /// The name of [`Self::etcd_config`] in [`Self::etcd`].
    pub const CONFIG_NAME: &str = "config";
    /// The name of the directory of manifests, inside the snapshot directory.
    pub const METADATA_NAME: &str = ".metadata";
    /// The name of [`Self::restore`] in [`Self::db`].
    pub const RESTORE_NAME: &str = "restore";

    /// The path of a data directory that is retired at a time.
    #[must_use]
    pub fn etcd_old(&self, unix_seconds: u64) -> PathBuf {
        self.db().join(format!("etcd-old-{unix_seconds}"))
    }

    /// The nearest existing directory to the child's data, which may be on a separate disk.
    #[must_use]
    pub fn storage(&self) -> PathBuf {
        let etcd = self.etcd();
        if etcd.is_dir() { etcd } else { self.db() }
    }

    #[must_use]
    pub fn etcd_name(&self) -> PathBuf {
        self.etcd().join(Self::NAME_NAME)
    }

    /// The settings of the child's last start, for operators to read.
    #[must_use]
    pub fn etcd_config(&self) -> PathBuf {
        self.etcd().join(Self::CONFIG_NAME)
    }

    /// The directory that etcd writes; exists if and only if etcd ever ran on this data directory.
    #[must_use]
    pub fn etcd_member(&self) -> PathBuf {
        self.etcd().join(Self::MEMBER_NAME)
    }

    /// The bbolt file, which etcd locks while it runs.
    #[must_use]
    pub fn etcd_bolt(&self) -> PathBuf {
        self.etcd_member().join("snap").join("db")
    }

    /// The snapshots, unless `etcd-snapshot-dir` is set.
    #[must_use]
    pub fn snapshots(&self) -> PathBuf {
        self.db().join("snapshots")
    }

    #[must_use]
    pub fn uploads(&self) -> PathBuf {
        self.server().join("uploads.json")
    }

    /// The results of the last restore drills.
    #[must_use]
    pub fn drills(&self) -> PathBuf {
        self.server().join("drill.json")
    }

    /// Downloads of snapshots from object storage in progress.
    #[must_use]
    pub fn downloads(&self) -> PathBuf {
        self.db().join("download")
    }

    /// A cache, which may be deleted at any time.
    #[must_use]
    pub fn cache(&self) -> PathBuf {
        self.server().join("cache")
    }

    /// The reset flag: a reset or restore was done; the next healthy start removes it.
    #[must_use]
    pub fn reset_flag(&self) -> PathBuf {
        self.db().join("reset-flag")
    }

    /// The working directory of a reset or restore.
    #[must_use]
    pub fn restore(&self) -> PathBuf {
        self.db().join(Self::RESTORE_NAME)
    }

    #[must_use]
    pub fn restore_journal(&self) -> PathBuf {
        self.restore().join("journal.json")
    }

    /// Unpacked executables, a directory for each version of the payload.
    #[must_use]
    pub fn unpacked(&self) -> PathBuf {
        self.root.join("data")
    }

    /// The directories, except etcd's, in which interrupted writes of quorate may leave files; `snapshots` is the
    /// snapshot directory.
    #[must_use]
    pub fn written_to(&self, snapshots: &Path) -> Vec<PathBuf> {
        let mut dirs =
            vec![self.root.clone(), self.server(), self.server().join("tls"), self.tls(), self.cache(), self.db()];
        for dir in [self.snapshots(), snapshots.to_path_buf(), self.downloads()] {
            if !dirs.contains(&dir) {
                dirs.push(dir.join(Self::METADATA_NAME));
                dirs.push(dir);
            }
        }
        dirs
    }

    /// Paths to the data that are symbolic links: they work, but deserve a warning.
    #[must_use]
    pub fn symlinks(&self) -> Vec<PathBuf> {
        [self.root.clone(), self.server(), self.db(), self.etcd(), self.etcd_member()]
            .into_iter()
            .filter(|path| path.is_symlink())
            .collect()
    }
}
