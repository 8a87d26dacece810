//! Who uses which layers: what is in use is not collected.
//!
//! ```text
//! <cache>/locks/collect            held shared by who takes a lease, alone by who collects
//! <cache>/leases/<process>-….lease the layers of one image, a line each; locked while
//!                                  it is in use
//! ```
//!
//! A bake notes what it is going to use before it looks for it. So whoever collects
//! either sees the note, or was done before and the bake sees what is left. The system
//! takes the lock of a note back when its process dies, however that comes about.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use super::{LOCK_PATIENCE, Store};
use crate::digest::Digest;
use crate::no_follow::{open_in_cache, own_directory};

/// Longest note: of 256 layers each line is shorter than 150 bytes.
const MAX_NOTE_BYTES: u64 = 1 << 20;
/// Between two attempts to take a lock.
const PAUSE: Duration = Duration::from_millis(5);

/// Keeps the layers of an image from [`Store::gc`], in all processes, until the last
/// clone of it is dropped.
#[derive(Debug, Clone, Default)]
pub struct Lease {
    held: Vec<Arc<Held>>,
}

impl Lease {
    /// What either of them keeps.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.held.extend(other.held);
        self
    }
}

#[derive(Debug)]
struct Held {
    path: PathBuf,
    /// Locked.
    _file: File,
}

impl Drop for Held {
    fn drop(&mut self) {
        // What stays is removed by whoever collects.
        let _ = fs::remove_file(&self.path);
    }
}

/// What is in use, as far as leases say.
#[derive(Debug)]
pub(super) struct Leased {
    stems: BTreeSet<String>,
    /// A note could not be read: anything may be in use.
    all: bool,
}

impl Leased {
    /// Whether the file of a layer is in use. Its name begins with the layer's digest.
    pub(super) fn has(&self, name: &str) -> bool {
        self.all || stem(name).is_none_or(|stem| self.stems.contains(stem))
    }
}

/// The digest that the name of a layer's file begins with.
pub(super) fn stem(name: &str) -> Option<&str> {
    let (algorithm, rest) = name.split_once('-')?;
    let hex = rest.find(|digit: char| !digit.is_ascii_hexdigit());
    let end = algorithm.len() + 1 + hex.unwrap_or(rest.len());
    name.get(..end)
}

impl Store {
    fn leases(&self) -> PathBuf {
        self.dir.join("leases")
    }

    fn collect_lock(&self) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600);
        open_in_cache(&mut options, &self.locks().join("collect"))
    }

    /// Notes that these layers are in use. Where nothing can be written, nothing is
    /// collected either, and there is no note.
    ///
    /// # Errors
    /// When the bake is cancelled meanwhile.
    pub(crate) fn lease(&self, diff_ids: &mut dyn Iterator<Item = &Digest>) -> io::Result<Lease> {
        let Ok(lock) = self.collect_lock() else {
            return Ok(Lease::default());
        };
        let deadline = Instant::now() + LOCK_PATIENCE;
        // A collector is done in a moment, unless its process was stopped: that is no
        // reason to wait for ever.
        while matches!(lock.try_lock_shared(), Err(fs::TryLockError::WouldBlock))
            && Instant::now() < deadline
        {
            self.cancel.check()?;
            std::thread::sleep(PAUSE);
        }
        let mut note = String::new();
        for diff_id in diff_ids {
            note.push_str(&diff_id.file_stem());
            note.push('\n');
        }
        Ok(Lease {
            held: self.note(&note).ok().map(Arc::new).into_iter().collect(),
        })
    }

    fn note(&self, text: &str) -> io::Result<Held> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        own_directory(&self.leases())?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let path = self.leases().join(format!(
            "{}-{}-{}.lease",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed),
            now.unwrap_or_default().as_nanos(),
        ));
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let file = options.open(&path)?;
        // From here on it is removed if something fails.
        let mut held = Held { path, _file: file };
        held._file.lock()?;
        held._file.write_all(text.as_bytes())?;
        Ok(held)
    }

    /// Keeps others from taking leases, and says what is leased. `None` if somebody else
    /// collects.
    pub(super) fn leased(&self) -> io::Result<Option<(File, Leased)>> {
        let lock = self.collect_lock()?;
        let deadline = Instant::now() + LOCK_PATIENCE;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                // Those who take a lease have it for a moment only.
                Err(fs::TryLockError::WouldBlock) if Instant::now() < deadline => {
                    std::thread::sleep(PAUSE);
                }
                Err(fs::TryLockError::WouldBlock) => return Ok(None),
                Err(fs::TryLockError::Error(error)) => return Err(error),
            }
        }
        Ok(Some((lock, self.notes(true))))
    }

    /// What is leased now; for who removes nothing.
    pub(super) fn leased_now(&self) -> Leased {
        self.notes(false)
    }

    fn notes(&self, remove_dead: bool) -> Leased {
        let mut leased = Leased {
            stems: BTreeSet::new(),
            all: false,
        };
        for path in files_of(&self.leases()) {
            match note_in_use(&path) {
                Ok(Some(text)) => leased.stems.extend(text.lines().map(str::to_owned)),
                Ok(None) if remove_dead => drop(fs::remove_file(&path)),
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(_) => leased.all = true,
            }
        }
        leased
    }
}

/// What is noted, if whoever did is alive.
fn note_in_use(path: &Path) -> io::Result<Option<String>> {
    let file = open_in_cache(OpenOptions::new().read(true), path)?;
    if !file.metadata()?.is_file() {
        return Ok(None);
    }
    match file.try_lock_shared() {
        Ok(()) => return Ok(None),
        Err(fs::TryLockError::WouldBlock) => {}
        Err(fs::TryLockError::Error(error)) => return Err(error),
    }
    let mut text = String::new();
    file.take(MAX_NOTE_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_NOTE_BYTES {
        return Err(io::Error::other("the note is too long"));
    }
    Ok(Some(text))
}

/// The paths in a directory of the cache, sorted; none if it is not there.
pub(super) fn files_of(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}
