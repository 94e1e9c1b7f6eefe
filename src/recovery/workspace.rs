//! Where the data in use lie, and the directories, held open, in which they are exchanged for others.
//!
//! Usually `db/etcd` is renamed within `db`, which nobody but us can change. Where it is a mount point or a link, `member` is renamed within
//! what it leads to. With an etcd user of its own that directory is that user's: everything there is done relative to it, no link in it
//! is followed, and what is built there lies in a directory of ours.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::{Path, PathBuf};

use crate::datadir::{self, DataDir, DataDirError};
use crate::durable::{DirError, DirHandle, PRIVATE_DIR};
use crate::host;
use crate::recovery::journal::Journal;
use crate::recovery::paths::RecoveryPaths;

/// Where new data are built when `member` is exchanged.
const WORK: &str = "quorate-restore";

/// The directory in which the data in use have their name.
#[derive(Debug)]
pub struct RecoveryDirs {
    /// It, held open.
    pub dir: DirHandle,
    /// The name of the data in use.
    pub name: OsString,
    /// True if `member` is exchanged, false if all of `db/etcd` is.
    pub is_inside: bool,
    /// What `dir` is called in the journal.
    path: PathBuf,
}

impl RecoveryDirs {
    /// Finds it; `None` if there is no `db`.
    ///
    /// # Errors
    /// If something on the way cannot be opened, or is a link that is not followed.
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

    /// What `dir` is called in the journal and by `old`.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What data that are set aside here are called, before the second.
    #[must_use]
    pub fn aside(&self) -> &'static str {
        if self.is_inside { "member-old-" } else { "etcd-old-" }
    }

    /// The first name from the second `now` on that nothing has.
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

    /// Sets the data in use aside, whatever they are. Gives where they are then; `None` if there are none.
    ///
    /// # Errors
    /// If they cannot be renamed.
    pub fn set_aside(&self, now: u64) -> Result<Option<PathBuf>, DirError> {
        if self.dir.stat(&self.name)?.is_none() {
            return Ok(None);
        }
        let to = self.free(now)?;
        self.dir.rename(&self.name, &self.dir, &to)?;
        Ok(Some(self.path.join(to)))
    }

    /// True if there is something of an interrupted reset or restore.
    ///
    /// # Errors
    /// If it cannot be looked at.
    pub fn has_work(&self) -> Result<bool, DirError> {
        Ok(self.dir.stat(self.work())?.is_some())
    }

    /// Removes what was built.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn remove_work(&self) -> Result<(), DirError> {
        self.dir.remove_all(self.work()).map(drop)
    }

    /// Makes the directory for what is built, with nothing in it, which etcd's user may pass through but not change.
    ///
    /// # Errors
    /// If it cannot be made, or a link has its name.
    pub fn clear(&self, data: &DataDir) -> Result<Work, DataDirError> {
        let name = self.work();
        if self.dir.stat(name)?.is_some_and(|found| found.is_symlink()) {
            return Err(DirError::Link { path: self.path.join(name), owner: self.dir.uid() }.into());
        }
        if self.is_inside {
            // The journal, certificates and a token never lie where etcd's user could exchange them.
            data.prepare_dir(&data.restore())?;
        }
        self.dir.remove_all(name)?;
        let dir = self.dir.make_dir(name, PRIVATE_DIR)?;
        data.grant_read_to_etcd(&dir)?;
        Ok(Work { dir, is_stable: self.dir.is_private(), path: self.path.join(name) })
    }
}

/// The directory in which new data are built, held open.
#[derive(Debug)]
pub struct Work {
    /// It.
    pub dir: DirHandle,
    /// Nobody but us can change the names on the way to it.
    is_stable: bool,
    path: PathBuf,
}

impl Work {
    /// What is built: etcd's `data-dir`, with `member` in it.
    pub const BUILT: &str = "etcd";

    /// A path of this process to what is below it, whatever etcd's user does to the names on the way.
    #[must_use]
    pub fn through(&self, name: &str) -> PathBuf {
        if self.is_stable { self.path.join(name) } else { self.dir.proc_path().join(name) }
    }

    /// The path by which others get there.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// What a message calls by [`Self::through`], and what it should be called.
    #[must_use]
    pub fn names(&self) -> (String, String) {
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        (text(self.dir.proc_path()), text(self.path.clone()))
    }

    /// Holds what is below it.
    ///
    /// # Errors
    /// If it is not there, or is a link.
    pub fn enter(&self, names: &[&str]) -> Result<DirHandle, DirError> {
        let missing = || DirError::Replaced(names.iter().fold(self.path.clone(), |path, name| path.join(name)));
        self.dir.open_nested(names)?.ok_or_else(missing)
    }
}

impl RecoveryPaths {
    /// Where the data of `data` are exchanged, with the ones in use going to where the first free second from `now` on names.
    ///
    /// # Errors
    /// As [`Place::of`].
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

/// The directories of an exchange that a journal tells of, held open, with the names in them.
#[derive(Debug)]
pub(crate) struct SwappedDirs {
    /// Where the data in use, and those from before, have their names.
    pub(crate) place: DirHandle,
    pub(crate) current: OsString,
    pub(crate) old: Option<OsString>,
    /// From `place` to the new data, the last one their own name.
    staged: Vec<String>,
}

impl SwappedDirs {
    /// Opens them.
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

    /// The directory that the new data are in, and their name there; `None` if it is gone.
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

/// Holds the new data where they were built, or the data that come back where they lie aside; `None` if they are not there.
///
/// # Errors
/// If they cannot be opened.
pub fn staged(data: &DataDir, journal: &Journal) -> Result<Option<DirHandle>, DirError> {
    match SwappedDirs::of(data, journal)?.staged()? {
        Some((above, name)) => above.open_dir(name),
        None => Ok(None),
    }
}

/// Holds the `member` directory of the new data, whether they are in place or not; `None` if they are nowhere.
///
/// # Errors
/// If it cannot be opened.
pub fn new_member(data: &DataDir, journal: &Journal) -> Result<Option<DirHandle>, DirError> {
    match staged(data, journal)? {
        Some(staged) if staged.path().ends_with(DataDir::MEMBER_NAME) || journal.current == data.etcd_member() => {
            Ok(Some(staged))
        }
        Some(staged) => staged.open_dir(DataDir::MEMBER_NAME),
        None => data.open_member(),
    }
}

/// Holds the data from before where they were put; `None` if there are none.
///
/// # Errors
/// If they cannot be opened.
pub fn old(data: &DataDir, journal: &Journal) -> Result<Option<DirHandle>, DirError> {
    let held = SwappedDirs::of(data, journal)?;
    held.old.as_ref().map_or(Ok(None), |old| held.place.open_dir(old))
}

/// Holds the directory at `path`, which is one of those that `data` are exchanged in.
fn place_of(data: &DataDir, path: &Path) -> Result<DirHandle, DirError> {
    let opened = DirHandle::open(path)?;
    let id = opened.id()?;
    for held in [data.open_db()?, data.open_etcd()?].into_iter().flatten() {
        if held.id()? == id {
            return Ok(held);
        }
    }
    // Where a link at `member` leads to: it is followed only where etcd has no user of its own.
    if opened.is_private() {
        Ok(opened)
    } else {
        Err(DirError::LedAway { path: path.to_path_buf(), owner: opened.uid() })
    }
}

/// What is in place must be what was built or brought back: whoever owns the directory could have put something else there.
///
/// # Errors
/// If it is not.
pub fn check_in_place(data: &DataDir, expected: (u64, u64)) -> Result<(), DirError> {
    match data.open_member()? {
        Some(member) if member.id()? == expected => Ok(()),
        _ => Err(DirError::Replaced(data.etcd_member())),
    }
}

/// Data that were set aside, held open: a data directory of etcd's, or the `member` of one.
#[derive(Debug)]
pub struct RetiredHandle {
    /// It.
    pub dir: DirHandle,
    is_member: bool,
}

impl RetiredHandle {
    /// Holds the directory `name` in `place`; `None` if it is gone.
    ///
    /// # Errors
    /// If it is a link, or no directory.
    pub fn of(place: &RecoveryDirs, name: &OsStr) -> Result<Option<Self>, DirError> {
        let dir = place.dir.open_dir(name)?;
        Ok(dir.map(|dir| Self { dir, is_member: place.is_inside }))
    }

    /// The `member` directory of it.
    ///
    /// # Errors
    /// If it is not there, or a link that is not followed.
    pub fn member(&self) -> Result<DirHandle, DirError> {
        if self.is_member {
            return self.dir.reopen();
        }
        let missing = || DirError::Replaced(self.dir.path().join(DataDir::MEMBER_NAME));
        self.dir.open_dir(DataDir::MEMBER_NAME)?.ok_or_else(missing)
    }

    /// Its database.
    ///
    /// # Errors
    /// If it is not there, or no regular file.
    pub fn bolt(&self) -> Result<File, DirError> {
        let member = self.member()?;
        datadir::database_name(&member)?.ok_or_else(|| DirError::Replaced(member.path().join("snap/db")))
    }
}
