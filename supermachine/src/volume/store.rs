//! A directory of volumes: for each a file, and beside it the word of who has it.
//!
//! A machine that has a volume holds a lock on its file, which the system ties to the
//! open file: it ends with the last process that has that open. The file beside it only
//! says whom to name in an error.

use super::ext4::{self, Identity};
use super::refused;
use crate::assets::volumes_dir;
use crate::deadline::Deadline;
use crate::exec::Wanted;
use crate::limits::{LOCK_PAUSE, VOLUME_LOCK_TIMEOUT};
use crate::random::{fill_random, random_name};
use crate::whole::create_new;
use crate::{Error, running};
use rustix::fs::{Mode, OFlags};
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Smallest volume in MiB: the tables and the journal take a third of it.
pub(super) const MIN_MIB: u64 = 16;
/// Largest, in MiB: block numbers of 32 bits have room for it.
pub(super) const MAX_MIB: u64 = 8 << 20;
/// Longest name in bytes.
const MAX_NAME_BYTES: usize = 64;
/// After a volume's name.
const SUFFIX: &str = ".ext4";
/// After the name of who has it.
const OWNER_SUFFIX: &str = ".owner";
/// Before the name of one that is not made yet.
const UNFINISHED: &str = ".new-";
/// Longest word on who has a volume that is read.
const MAX_OWNER_BYTES: u64 = 256;
/// Bytes that a file's size on the disk is counted in (stat(2)).
const BLOCK_BYTES: u64 = 512;

/// A directory of [volumes](crate::VolumeSpec).
#[derive(Clone, Debug)]
pub struct VolumeStore {
    dir: PathBuf,
    /// All there is, if it is one file that somebody named.
    only: Option<PathBuf>,
    wanted: Wanted,
}

/// What is known of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VolumeInfo {
    /// Its name.
    pub name: String,
    /// Its file.
    pub path: PathBuf,
    /// Its size for the guest, in bytes.
    pub size_bytes: u64,
    /// What it takes of the host's disk, in bytes.
    pub disk_bytes: u64,
    /// When it was made or last written to, in milliseconds since 1970.
    pub changed_unix_ms: u64,
    /// Who has it now: the machine, and the process that started it.
    pub in_use_by: Option<String>,
}

impl VolumeStore {
    /// Where volumes of this user are: the directory in the environment variable
    /// `SUPERMACHINE_VOLUMES`, else `.local/supermachine-volumes` in the home directory.
    ///
    /// # Errors
    /// [`Error::Unsuitable`] if the user has no home directory.
    pub fn of_user() -> Result<Self, Error> {
        Ok(Self::at(volumes_dir()?))
    }

    /// The store in a directory, which is made, for its owner alone, when the first
    /// volume is.
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            only: None,
            wanted: Wanted::always(),
        }
    }

    /// The same store, for calls that are given up when `is_wanted` says so:
    /// [`VolumeStore::create`], [`VolumeStore::export`] and [`VolumeStore::import`] are
    /// [`Error::Cancelled`] then, and what they would have made is not there.
    #[must_use]
    pub fn while_wanted(self, is_wanted: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        let wanted = Wanted::new(is_wanted);
        Self { wanted, ..self }
    }

    /// That what is made is still wanted.
    pub(super) fn check_wanted(&self) -> Result<(), Error> {
        self.wanted.check()
    }

    /// The same between two pieces of a copy, whose failure tells nobody why.
    pub(super) fn go_on(&self) -> io::Result<()> {
        self.check_wanted()
            .map_err(|_| ErrorKind::Interrupted.into())
    }

    /// The one volume that is at a path, under whatever name; made if it is not there.
    pub(super) fn of_file(file: &Path) -> Result<Self, Error> {
        // Whoever names it may have linked to it.
        let found = fs::canonicalize(file).or_else(|_| std::path::absolute(file));
        let file = found.map_err(Error::host("cannot find", file))?;
        Ok(Self {
            dir: file.parent().unwrap_or(Path::new("/")).to_owned(),
            only: Some(file),
            wanted: Wanted::always(),
        })
    }

    /// Makes an empty volume, with a file system.
    ///
    /// # Errors
    /// [`Error::Volume`] if there is one of that name, or it cannot be one;
    /// [`Error::Host`] if it cannot be written.
    pub fn create(&self, name: &str, size_mib: u64) -> Result<(), Error> {
        check_name(name)?;
        check_size(name, size_mib)?;
        match self.make(name, size_mib)? {
            true => Ok(()),
            false => Err(refused(
                name,
                "there is one of that name: choose another, or remove it",
            )),
        }
    }

    /// All volumes, by their names.
    ///
    /// # Errors
    /// [`Error::Host`] if the directory cannot be read.
    pub fn list(&self) -> Result<Vec<VolumeInfo>, Error> {
        let mut found = Vec::new();
        for name in self.files()? {
            let Some(name) = name.strip_suffix(SUFFIX) else {
                continue;
            };
            match self.inspect(name) {
                Ok(volume) => found.push(volume),
                // It was removed meanwhile, or it is not a volume.
                Err(Error::Volume { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// What is known of a volume.
    ///
    /// # Errors
    /// [`Error::Volume`] if there is none of that name.
    pub fn inspect(&self, name: &str) -> Result<VolumeInfo, Error> {
        check_name(name)?;
        let path = self.path(name);
        let file = self.open(name)?.ok_or_else(|| missing(name))?;
        let metadata = file.metadata().map_err(Error::host("cannot read", &path))?;
        let in_use_by = match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => Some(self.owner(name)),
            // Whatever is wrong with it, it is found when somebody wants it.
            _ => None,
        };
        let seconds = u64::try_from(metadata.mtime()).unwrap_or(0);
        let millis = u64::try_from(metadata.mtime_nsec() / 1_000_000).unwrap_or(0);
        Ok(VolumeInfo {
            name: name.to_owned(),
            size_bytes: metadata.len(),
            disk_bytes: metadata.blocks().saturating_mul(BLOCK_BYTES),
            changed_unix_ms: seconds.saturating_mul(1000).saturating_add(millis),
            in_use_by,
            path,
        })
    }

    /// Removes a volume and all that is in it.
    ///
    /// # Errors
    /// [`Error::VolumeInUse`] if a machine has it; [`Error::Volume`] if there is none of
    /// that name.
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        check_name(name)?;
        let file = self.open(name)?.ok_or_else(|| missing(name))?;
        self.lock(&file, name)?;
        self.unlink(name)
    }

    /// Removes what was left of volumes that were never finished, and if `all` is set
    /// every volume that no machine has; the names of these.
    ///
    /// # Errors
    /// [`Error::Host`] for what cannot be removed.
    pub fn prune(&self, all: bool) -> Result<Vec<String>, Error> {
        let mut removed = Vec::new();
        for name in self.files()? {
            if name.starts_with(UNFINISHED) {
                let path = self.dir.join(&name);
                // Its maker has it locked.
                if let Ok(file) = File::open(&path)
                    && file.try_lock().is_ok()
                {
                    let _ = fs::remove_file(&path);
                }
            } else if let (true, Some(volume)) = (all, name.strip_suffix(SUFFIX)) {
                if check_name(volume).is_err() {
                    continue;
                }
                let Some(file) = self.open(volume)? else {
                    continue;
                };
                if file.try_lock().is_ok() {
                    self.unlink(volume)?;
                    removed.push(volume.to_owned());
                }
            }
        }
        removed.sort();
        Ok(removed)
    }

    /// Grows a volume that no machine has to this size; its file system is grown when a
    /// machine has it. One that is as large already stays as it is.
    ///
    /// # Errors
    /// [`Error::VolumeInUse`] if a machine has it, which
    /// [can grow it](crate::Vm::grow_volume); [`Error::Volume`] if there is none of that
    /// name, or it cannot be as large; [`Error::Host`] if the disk has no room.
    pub fn grow(&self, name: &str, size_mib: u64) -> Result<(), Error> {
        check_name(name)?;
        check_size(name, size_mib)?;
        let file = self.open(name)?.ok_or_else(|| missing(name))?;
        self.lock(&file, name)?;
        self.lengthen(&file, name, size_mib)
    }

    /// Opens a volume for the machine `id`, makes it of `new_mib` if there is none and
    /// grows it if it is smaller than `least_mib`. It is locked.
    pub(super) fn open_for(
        &self,
        name: &str,
        least_mib: u64,
        new_mib: u64,
        id: &str,
    ) -> Result<File, Error> {
        let path = self.path(name);
        let file = loop {
            let Some(file) = self.open(name)? else {
                self.make(name, new_mib)?;
                continue;
            };
            self.lock(&file, name)?;
            // It may have been removed, and made again, since it was opened.
            if is_at(&file, &path) {
                break file;
            }
        };
        self.lengthen(&file, name, least_mib)?;
        let owner = format!("machine {id} (process {})\n", std::process::id());
        // Only errors say it.
        if self.only.is_none() {
            let _ = fs::write(self.owner_path(name), owner);
        }
        Ok(file)
    }

    /// A file without a name, which is gone with the last who has it open.
    pub(super) fn unnamed(&self) -> Result<File, Error> {
        self.make_dir()?;
        let path = self.dir.join(format!("{UNFINISHED}{}", random_name()?));
        let file = create_new(&path).map_err(Error::host("cannot make", &path))?;
        match fs::remove_file(&path) {
            // Who prunes was faster.
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(Error::host("cannot remove", &path)(error))
            }
            _ => Ok(file),
        }
    }

    /// As [`Self::unnamed`], with an empty file system.
    pub(super) fn formatted(&self, size_mib: u64) -> Result<File, Error> {
        let file = self.unnamed()?;
        let made = format(&file, size_mib, &identity()?);
        made.map_err(Error::system("make a file system"))?;
        Ok(file)
    }

    /// The file of a volume, whether it is there or not.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        std::path::absolute(&path).unwrap_or(path)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        match &self.only {
            Some(file) => file.clone(),
            None => self.dir.join(format!("{name}{SUFFIX}")),
        }
    }

    fn owner_path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}{OWNER_SUFFIX}"))
    }

    fn make_dir(&self) -> Result<(), Error> {
        let mut builder = DirBuilder::new();
        let made = builder.mode(0o700).recursive(true).create(&self.dir);
        made.map_err(Error::host("cannot create", &self.dir))
    }

    /// The names of its files.
    fn files(&self) -> Result<Vec<String>, Error> {
        let failed = || Error::host("cannot read", &self.dir);
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed())?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed())?.file_name();
            names.extend(name.into_string().ok());
        }
        Ok(names)
    }

    /// Opens a volume's file; `None` if there is none.
    pub(super) fn open(&self, name: &str) -> Result<Option<File>, Error> {
        let path = self.path(name);
        // What was put there instead is not waited for, and not followed.
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::open(&path, flags, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(rustix::io::Errno::LOOP | rustix::io::Errno::ISDIR) => return Err(no_file(name)),
            file => File::from(file.map_err(|e| Error::host("cannot open", &path)(e.into()))?),
        };
        let metadata = file.metadata().map_err(Error::host("cannot read", &path))?;
        match metadata.is_file() {
            true => Ok(Some(file)),
            false => Err(no_file(name)),
        }
    }

    /// Locks the volume against other machines. Its last machine may be ending.
    pub(super) fn lock(&self, file: &File, name: &str) -> Result<(), Error> {
        let deadline = Deadline::within(VOLUME_LOCK_TIMEOUT);
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(()),
                Err(TryLockError::WouldBlock) if deadline.has_passed() => {
                    return Err(Error::VolumeInUse {
                        name: name.to_owned(),
                        by: self.owner(name),
                    });
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
                Err(TryLockError::Error(error)) => {
                    return Err(Error::host("cannot lock", self.path(name))(error));
                }
            }
        }
    }

    /// Who has a volume, as far as that was written.
    fn owner(&self, name: &str) -> String {
        let mut text = String::new();
        let owner = File::open(self.owner_path(name));
        let read = owner.and_then(|file| file.take(MAX_OWNER_BYTES).read_to_string(&mut text));
        match (read, text.trim()) {
            (Ok(_), owner) if !owner.is_empty() => owner.to_owned(),
            _ => "another process".to_owned(),
        }
    }

    fn unlink(&self, name: &str) -> Result<(), Error> {
        let path = self.path(name);
        fs::remove_file(&path).map_err(Error::host("cannot remove", &path))?;
        let _ = fs::remove_file(self.owner_path(name));
        Ok(())
    }

    /// Makes a volume, under another name until it is whole; false if there is one.
    fn make(&self, name: &str, size_mib: u64) -> Result<bool, Error> {
        let identity = identity()?;
        self.make_by(name, |file| format(file, size_mib, &identity))
    }

    /// As [`Self::make`], with what `fill` writes.
    pub(super) fn make_by(
        &self,
        name: &str,
        fill: impl FnOnce(&File) -> io::Result<()>,
    ) -> Result<bool, Error> {
        self.make_dir()?;
        let unfinished = self.dir.join(format!("{UNFINISHED}{}", random_name()?));
        let made = filled(&unfinished, fill);
        let wanted = self.check_wanted();
        // As a link, it replaces none that was made meanwhile.
        let linked = match wanted {
            Ok(()) => made.and_then(|_locked| fs::hard_link(&unfinished, self.path(name))),
            Err(_) => Ok(()),
        };
        let _ = fs::remove_file(&unfinished);
        wanted?;
        match linked {
            Ok(()) => {
                let synced = File::open(&self.dir).and_then(|dir| dir.sync_all());
                synced.map_err(Error::host("cannot sync", &self.dir))?;
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(Error::host("cannot make", self.path(name))(error)),
        }
    }

    /// Gives a volume's file its length, if it is shorter.
    fn lengthen(&self, file: &File, name: &str, size_mib: u64) -> Result<(), Error> {
        let failed = || Error::host("cannot grow", self.path(name));
        let length = file.metadata().map_err(failed())?.len();
        if length < MIN_MIB << 20 {
            return Err(refused(
                name,
                "its file was cut short: put back a copy of it, or remove it",
            ));
        }
        if length < size_mib << 20 {
            tracing::info!(volume = name, size_mib, "volume grows");
            file.set_len(size_mib << 20).map_err(failed())?;
        }
        Ok(())
    }
}

/// Makes a file with what `fill` writes, locked.
fn filled(path: &Path, fill: impl FnOnce(&File) -> io::Result<()>) -> io::Result<File> {
    let file = create_new(path)?;
    file.lock()?;
    fill(&file)?;
    file.sync_all()?;
    Ok(file)
}

fn format(file: &File, size_mib: u64, identity: &Identity) -> io::Result<()> {
    file.set_len(size_mib << 20)?;
    ext4::format(file, size_mib << 20, identity)
}

fn identity() -> Result<Identity, Error> {
    let mut uuid = [0; 16];
    let mut hash_seed = [0; 16];
    fill_random(&mut uuid)?;
    fill_random(&mut hash_seed)?;
    // RFC 9562, 5.4: version 4, variant 10.
    uuid[6] = uuid[6] & 0x0f | 0x40;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    let now_s = u32::try_from(running::unix_ms() / 1000).unwrap_or(u32::MAX);
    Ok(Identity {
        uuid,
        hash_seed,
        now_s,
    })
}

/// Whether the path leads to the file that is open.
fn is_at(file: &File, path: &Path) -> bool {
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(open), Ok(there)) => identity(open) == identity(there),
        _ => false,
    }
}

pub(super) fn missing(name: &str) -> Error {
    refused(
        name,
        "there is none of that name: `supermachine volume ls` lists what there is",
    )
}

fn no_file(name: &str) -> Error {
    refused(
        name,
        "something else than a file is in its place: remove that",
    )
}

/// Refuses what is no name of a volume.
pub(super) fn check_name(name: &str) -> Result<(), Error> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    let begins = name
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphanumeric());
    if begins && name.len() <= MAX_NAME_BYTES && name.bytes().all(plain) {
        return Ok(());
    }
    Err(refused(
        name,
        "choose a name of 1 to 64 letters, digits, dots, hyphens and underscores that begins \
         with a letter or digit",
    ))
}

pub(super) fn check_size(name: &str, size_mib: u64) -> Result<(), Error> {
    if (MIN_MIB..=MAX_MIB).contains(&size_mib) {
        return Ok(());
    }
    Err(refused(
        name,
        "choose a size of 16 MiB to 8 TiB (8,388,608 MiB)",
    ))
}

#[cfg(test)]
mod tests;
