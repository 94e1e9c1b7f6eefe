//! Every path under the data directory `D`, and who may create it (`DESIGN.md`, "On disk").
//!
//! Given `--data-dir`, names each file once, makes the directories with mode 0700, mends modes that are too open,
//! and refuses directories that belong to somebody else. A mode of `D` itself is left alone when it was there before:
//! it may be a directory that other things share.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::durable::{self, OnPath as _, PRIVATE_DIR, WriteError};
use crate::error::{Exit, Explained};

/// Why the data directory cannot be used as it is.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// A directory or file could not be made or mended.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Something of another user is where our data should be.
    #[error("{} belongs to user {owner}, and quorate runs as user {ours}", path.display())]
    ForeignOwner {
        /// What belongs to somebody else.
        path: PathBuf,
        /// Its owner's user id.
        owner: u32,
        /// Our effective user id.
        ours: u32,
    },
    /// A file is where a directory belongs.
    #[error("{} is not a directory", .0.display())]
    NotADirectory(PathBuf),
    /// A symbolic link leads nowhere.
    #[error("{} is a symbolic link to something that is not there", .0.display())]
    Dangling(PathBuf),
}

impl Explained for DataDirError {
    fn exit(&self) -> Exit {
        match self {
            Self::Write(error) => error.exit(),
            // What a link led to may be a disk with data that is not mounted.
            Self::ForeignOwner { .. } | Self::Dangling(_) => Exit::Refused,
            Self::NotADirectory(_) => Exit::Usage,
        }
    }

    fn next(&self) -> Option<String> {
        match self {
            Self::Write(error) => error.next(),
            Self::ForeignOwner { path, owner, ours } => Some(format!(
                "run quorate as user {owner}, or hand the directory over: chown -R {ours} {}",
                path.display()
            )),
            Self::Dangling(path) => Some(format!(
                "mount what it leads to (readlink {0}), or, if there is no data there, remove the link: rm {0}",
                path.display()
            )),
            Self::NotADirectory(path) => Some(format!("move {} away, or choose another --data-dir", path.display())),
        }
    }
}

/// The two files of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificatePaths {
    /// PEM certificate.
    pub certificate: PathBuf,
    /// PEM PKCS#8 private key.
    pub key: PathBuf,
}

/// The data directory `D`. Holding one means nothing about what exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataDir {
    root: PathBuf,
}

impl DataDir {
    /// The data directory at `root`, which must be absolute.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_path_buf() }
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

    /// The flock that makes one launcher per data directory.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.server().join("lock")
    }

    /// What identifies the child that this data directory's launcher started last.
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

    /// The token that other servers join with.
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
        CertificatePaths {
            certificate: self.tls().join(format!("{name}.crt")),
            key: self.tls().join(format!("{name}.key")),
        }
    }

    /// `S/db`.
    #[must_use]
    pub fn db(&self) -> PathBuf {
        self.server().join("db")
    }

    /// The child's data directory.
    #[must_use]
    pub fn etcd(&self) -> PathBuf {
        self.db().join("etcd")
    }

    /// Where a data directory is set aside at a time.
    #[must_use]
    pub fn etcd_old(&self, unix_seconds: u64) -> PathBuf {
        self.db().join(format!("etcd-old-{unix_seconds}"))
    }

    /// The nearest directory to the child's data that exists: it may be on a disk of its own.
    #[must_use]
    pub fn storage(&self) -> PathBuf {
        let etcd = self.etcd();
        if etcd.is_dir() { etcd } else { self.db() }
    }

    /// The member name.
    #[must_use]
    pub fn etcd_name(&self) -> PathBuf {
        self.etcd().join("name")
    }

    /// The settings that the child was last started with, for people to read.
    #[must_use]
    pub fn etcd_config(&self) -> PathBuf {
        self.etcd().join("config")
    }

    /// What etcd itself writes; there if and only if etcd ever ran on this data directory.
    #[must_use]
    pub fn etcd_member(&self) -> PathBuf {
        self.etcd().join("member")
    }

    /// The bolt file, which etcd keeps locked while it runs.
    #[must_use]
    pub fn etcd_bolt(&self) -> PathBuf {
        self.etcd_member().join("snap").join("db")
    }

    /// Marks that a reset or restore was done; the next healthy start removes it.
    #[must_use]
    pub fn reset_flag(&self) -> PathBuf {
        self.db().join("reset-flag")
    }

    /// Where executables are unpacked, a folder for each version of the payload.
    #[must_use]
    pub fn unpacked(&self) -> PathBuf {
        self.root.join("data")
    }

    /// Makes what must exist before the lock can be taken: `D` and `S`.
    ///
    /// # Errors
    /// If they cannot be made or belong to somebody else.
    pub fn prepare_for_lock(&self) -> Result<(), DataDirError> {
        if self.root.is_symlink() && !self.root.exists() {
            return Err(DataDirError::Dangling(self.root.clone()));
        }
        durable::create_dir_all(&self.root, PRIVATE_DIR)?;
        Self::own(&self.server()).map(|_| ())
    }

    /// Makes or mends every directory below `S`; returns those whose mode was too open and is mended.
    ///
    /// # Errors
    /// If one cannot be made or belongs to somebody else.
    pub fn prepare(&self) -> Result<Vec<PathBuf>, DataDirError> {
        let mut mended = Vec::new();
        let tls = self.tls();
        let dirs = [self.server(), self.server().join("tls"), tls, self.db(), self.etcd()];
        for dir in dirs {
            // db/etcd must not appear before it is known that its absence is no loss.
            if dir == self.etcd() && !dir.exists() && !dir.is_symlink() {
                continue;
            }
            if Self::own(&dir)? {
                mended.push(dir);
            }
        }
        // etcd makes these; whose they are tells who ran it.
        for dir in [self.etcd_member(), self.etcd_member().join("wal"), self.etcd_member().join("snap")] {
            if dir.exists() {
                Self::check_owner(&dir)?;
            }
        }
        Ok(mended)
    }

    /// Makes the child's data directory.
    ///
    /// # Errors
    /// As [`Self::prepare`].
    pub fn prepare_etcd(&self) -> Result<(), DataDirError> {
        Self::own(&self.etcd()).map(|_| ())
    }

    /// Makes `dir` ours with mode 0700; true if it was there with a mode that was too open.
    fn own(dir: &Path) -> Result<bool, DataDirError> {
        let made = match fs::metadata(dir) {
            Ok(found) if !found.is_dir() => return Err(DataDirError::NotADirectory(dir.to_path_buf())),
            Ok(_) => false,
            Err(_) if dir.is_symlink() => return Err(DataDirError::Dangling(dir.to_path_buf())),
            Err(_) => durable::create_dir(dir, PRIVATE_DIR)?,
        };
        if made {
            return Ok(false);
        }
        let found = Self::check_owner(dir)?;
        if found.permissions().mode() & 0o077 == 0 {
            return Ok(false);
        }
        durable::set_mode(dir, PRIVATE_DIR)?;
        Ok(true)
    }

    fn check_owner(dir: &Path) -> Result<fs::Metadata, DataDirError> {
        let found = fs::metadata(dir).on("look at", dir)?;
        let ours = nix::unistd::geteuid().as_raw();
        if found.uid() != ours {
            return Err(DataDirError::ForeignOwner { path: dir.to_path_buf(), owner: found.uid(), ours });
        }
        Ok(found)
    }

    /// Paths on the way to the data that are symbolic links; they work, and are worth a warning.
    #[must_use]
    pub fn symlinks(&self) -> Vec<PathBuf> {
        [self.root.clone(), self.server(), self.db(), self.etcd(), self.etcd_member()]
            .into_iter()
            .filter(|path| path.is_symlink())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_made_private_and_mended_but_the_root_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        durable::set_mode(dir.path(), 0o755).unwrap();
        let data = DataDir::new(dir.path());
        data.prepare_for_lock().unwrap();
        assert_eq!(data.prepare().unwrap(), Vec::<PathBuf>::new());
        durable::set_mode(&data.db(), 0o777).unwrap();
        assert_eq!(data.prepare().unwrap(), [data.db()]);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&data.db()), 0o700);
        assert_eq!(mode(dir.path()), 0o755);
        assert!(!data.etcd().exists(), "db/etcd is made only when a start is planned");
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::new(dir.path());
        durable::write_file(&data.server(), b"", 0o600).unwrap();
        assert!(matches!(data.prepare_for_lock(), Err(DataDirError::NotADirectory(_))));
    }
}
