//! The location of the data in use, and the open directories in which it is swapped.
//!
//! Usually `db/etcd` is renamed in `db`, which only we can change. If it is a mount point or a link, `member` is
//! renamed inside its target. If etcd runs as another user, that directory belongs to that user: all operations are
//! relative to its descriptor, no link in it is followed, and new data is built in a directory of ours.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::{Path, PathBuf};

use crate::datadir::{self, DataDir, DataDirError};
use crate::durable::{DirError, DirHandle, PRIVATE_DIR};
use crate::host;
use crate::recovery::journal::Journal;
use crate::recovery::paths::RecoveryPaths;

/// The stage if `member` is swapped.
const WORK: &str = "quorate-restore";

/// The parent directory of the data in use.
#[derive(Debug)]
pub struct RecoveryDirs {
    pub dir: DirHandle,
    /// The name of the data in use.
    pub name: OsString,
    /// True if `member` is swapped, false if all of `db/etcd` is.
    pub is_inside: bool,
    /// The name of `dir` in the journal.
    path: PathBuf,
}

impl RecoveryDirs {
    /// Finds it; `None` if there is no `db`. # Errors If a directory of the path cannot be opened, or is a link that
    /// must not be followed.
    pub fn of(data: &DataDir) -> Result<Option<Self>, DirError> {
        let Some(db) = data.open_db()? else { return Ok(None) };
        let whole = |db| Self { dir: db, name: DataDir::ETCD_NAME.into(), is_inside: false, path: data.db() };
        let is_link =
            |dir: &DirHandle, name: &str| dir.stat(name).map(|found| found.is_some_and(|found| found.is_symlink()));
        let etcd_is_link = is_link(&db, DataDir::ETCD_NAME)?;
        let Some(etcd) = db.open_dir(DataDir::ETCD_NAME)? else { return Ok(Some(whole(db))) };
        if data.follows_member_link()
            && is_link(&etcd, DataDir::MEMBER_NAME)?
            && let Some(member) = data.member_of(&etcd)?
        {
            let real = member.real_path()?;
            let (Some(above), Some(name)) = (real.parent(), real.file_name()) else {
                return Err(DirError::Replaced(data.etcd_member()));
            };
            let (dir, name) = (DirHandle::open(above)?, name.to_os_string());
            return Ok(Some(Self { dir, name, is_inside: true, path: above.to_path_buf() }));
        }
        if !etcd_is_link && !host::is_mount_point(&data.etcd()) {
            return Ok(Some(whole(db)));
        }
        let path = etcd.real_path()?;
        Ok(Some(Self { dir: etcd, name: DataDir::MEMBER_NAME.into(), is_inside: true, path }))
    }

    /// The name of `dir` in the journal and in `retired`.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The name prefix of retired data, before the timestamp.
    #[must_use]
    pub fn aside(&self) -> &'static str {
        if self.is_inside { "member-old-" } else { "etcd-old-" }
    }

    /// The first free name from the second `now` on.
    fn free(&self, now: u64) -> Result<OsString, DirError> {
        for second in now..=u64::MAX {
            let name = OsString::from(format!("{}{second}", self.aside()));
            if self.dir.stat(&name)?.is_none() {
                return Ok(name);
            }
        }
        Err(DirError::Crowded(self.path.clone()))
    }

    fn work(&self) -> &'static str {
        if self.is_inside { WORK } else { DataDir::RESTORE_NAME }
    }

    /// Retires the data in use. Returns its new path; `None` if there is none.
    pub fn retire(&self, now: u64) -> Result<Option<PathBuf>, DirError> {
        if self.dir.stat(&self.name)?.is_none() {
            return Ok(None);
        }
        let to = self.free(now)?;
        self.dir.rename(&self.name, &self.dir, &to)?;
        Ok(Some(self.path.join(to)))
    }

    /// True if an interrupted reset or restore left files.
    pub fn has_work(&self) -> Result<bool, DirError> {
        Ok(self.dir.stat(self.work())?.is_some())
    }

    pub fn remove_work(&self) -> Result<(), DirError> {
        self.dir.remove_all(self.work()).map(drop)
    }

    /// Creates the empty stage, which etcd's user may traverse but not change.
    pub fn clear(&self, data: &DataDir) -> Result<Work, DataDirError> {
        let name = self.work();
        if self.dir.stat(name)?.is_some_and(|found| found.is_symlink()) {
            return Err(DirError::Link { path: self.path.join(name), owner: self.dir.uid() }.into());
        }
        if self.is_inside {
            // The journal, certificates and a token are never where etcd's user could replace them.
            data.prepare_dir(&data.restore())?;
        }
        self.dir.remove_all(name)?;
        let dir = self.dir.make_dir(name, PRIVATE_DIR)?;
        data.grant_read_to_etcd(&dir)?;
        Ok(Work { dir, is_stable: self.dir.is_private(), path: self.path.join(name) })
    }
}

#[derive(Debug)]
pub struct Work {
    pub dir: DirHandle,
    /// Only we can change the path to it.
    is_stable: bool,
    path: PathBuf,
}

impl Work {
    /// The new data: etcd's `data-dir`, with `member` in it.
    pub const BUILT: &str = "etcd";

    /// A path for this process to its contents, which etcd's user cannot redirect.
    #[must_use]
    pub fn through(&self, name: &str) -> PathBuf {
        if self.is_stable { self.path.join(name) } else { self.dir.proc_path().join(name) }
    }

    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// [`Self::through`] and the path to show in messages instead.
    #[must_use]
    pub fn names(&self) -> (String, String) {
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        (text(self.dir.proc_path()), text(self.path.clone()))
    }

    pub fn enter(&self, names: &[&str]) -> Result<DirHandle, DirError> {
        let missing = || DirError::Replaced(names.iter().fold(self.path.clone(), |path, name| path.join(name)));
        self.dir.open_nested(names)?.ok_or_else(missing)
    }
}

impl RecoveryPaths {
    /// The paths of a swap, retiring the data in use with the first free second from `now` on.
    pub fn of(data: &DataDir, now: u64) -> Result<Self, DirError> {
        let Some(place) = RecoveryDirs::of(data)? else {
            let staged = data.restore().join(Work::BUILT);
            return Ok(Self { current: data.etcd(), staged, old: None, work: data.restore() });
        };
        let current = place.path.join(&place.name);
        let old = match place.dir.stat(&place.name)? {
            Some(_) => Some(place.path.join(place.free(now)?)),
            None => None,
        };
        let work = place.path.join(place.work());
        let built = work.join(Work::BUILT);
        let staged = if place.is_inside { built.join(DataDir::MEMBER_NAME) } else { built };
        Ok(Self { current, staged, old, work })
    }
}

/// The open directories of a journaled swap, with the names in them.
#[derive(Debug)]
pub(crate) struct SwappedDirs {
    /// The parent directory of the data in use and of the previous data.
    pub(crate) place: DirHandle,
    pub(crate) current: OsString,
    pub(crate) old: Option<OsString>,
    /// The path components from `place` to the new data.
    staged: Vec<String>,
}

impl SwappedDirs {
    pub(crate) fn of(data: &DataDir, journal: &Journal) -> Result<Self, DirError> {
        let named = |path: &Path| path.file_name().map(OsStr::to_os_string);
        let wrong = || DirError::Replaced(data.restore_journal());
        let above = journal.current.parent().ok_or_else(wrong)?;
        let staged = journal.staged.strip_prefix(above).map_err(|_| wrong())?;
        let staged = staged.iter().map(|name| name.to_str().map(str::to_owned)).collect::<Option<Vec<_>>>();
        Ok(Self {
            place: place_of(data, above)?,
            current: named(&journal.current).ok_or_else(wrong)?,
            old: journal.old.as_deref().map(|old| named(old).ok_or_else(wrong)).transpose()?,
            staged: staged.filter(|names| !names.is_empty()).ok_or_else(wrong)?,
        })
    }

    /// The parent directory of the new data, and their name; `None` if it is gone.
    pub(crate) fn staged(&self) -> Result<Option<(DirHandle, &str)>, DirError> {
        let Some((name, above)) = self.staged.split_last() else { return Ok(None) };
        let mut dir = Some(self.place.reopen()?);
        for part in above {
            let Some(held) = dir else { return Ok(None) };
            dir = held.open_dir(part)?;
        }
        Ok(dir.map(|dir| (dir, name.as_str())))
    }

    pub(crate) fn has(&self, name: &OsStr) -> Result<bool, DirError> {
        Ok(self.place.stat(name)?.is_some())
    }
}

/// Opens the new data in the stage, or the returning data; `None` if they do not exist.
pub fn staged(data: &DataDir, journal: &Journal) -> Result<Option<DirHandle>, DirError> {
    match SwappedDirs::of(data, journal)?.staged()? {
        Some((above, name)) => above.open_dir(name),
        None => Ok(None),
    }
}

/// Holds the `member` directory of the new data, whether they are in place or not; `None` if they are nowhere.
pub fn new_member(data: &DataDir, journal: &Journal) -> Result<Option<DirHandle>, DirError> {
    match staged(data, journal)? {
        Some(staged) if staged.path().ends_with(DataDir::MEMBER_NAME) || journal.current == data.etcd_member() => {
            Ok(Some(staged))
        }
        Some(staged) => staged.open_dir(DataDir::MEMBER_NAME),
        None => data.open_member(),
    }
}

/// Opens the previous data where it was moved; `None` if there is none.
pub fn old(data: &DataDir, journal: &Journal) -> Result<Option<DirHandle>, DirError> {
    let held = SwappedDirs::of(data, journal)?;
    held.old.as_ref().map_or(Ok(None), |old| held.place.open_dir(old))
}

/// Opens the directory at `path`, which is one of the directories of a swap.
fn place_of(data: &DataDir, path: &Path) -> Result<DirHandle, DirError> {
    let opened = DirHandle::open(path)?;
    let id = opened.id()?;
    for held in [data.open_db()?, data.open_etcd()?].into_iter().flatten() {
        if held.id()? == id {
            return Ok(held);
        }
    }
    // The target of a link at `member`: followed only if etcd runs as our user.
    if opened.is_private() {
        Ok(opened)
    } else {
        Err(DirError::LedAway { path: path.to_path_buf(), owner: opened.uid() })
    }
}

/// The data in place must be the built or returned data: the owner of the directory could have replaced it.
pub fn check_in_place(data: &DataDir, expected: (u64, u64)) -> Result<(), DirError> {
    match data.open_member()? {
        Some(member) if member.id()? == expected => Ok(()),
        _ => Err(DirError::Replaced(data.etcd_member())),
    }
}

/// Open retired data: a data directory of etcd, or its `member`.
#[derive(Debug)]
pub struct RetiredHandle {
    pub dir: DirHandle,
    is_member: bool,
}

impl RetiredHandle {
    /// Opens the directory `name` in `place`; `None` if it is gone.
    pub fn of(place: &RecoveryDirs, name: &OsStr) -> Result<Option<Self>, DirError> {
        let dir = place.dir.open_dir(name)?;
        Ok(dir.map(|dir| Self { dir, is_member: place.is_inside }))
    }

    /// Its `member` directory. # Errors If it does not exist, or is a link that must not be followed.
    pub fn member(&self) -> Result<DirHandle, DirError> {
        if self.is_member {
            return self.dir.reopen();
        }
        let missing = || DirError::Replaced(self.dir.path().join(DataDir::MEMBER_NAME));
        self.dir.open_dir(DataDir::MEMBER_NAME)?.ok_or_else(missing)
    }

    pub fn bolt(&self) -> Result<File, DirError> {
        let member = self.member()?;
        datadir::database_name(&member)?.ok_or_else(|| DirError::Replaced(member.path().join("snap/db")))
    }
}
