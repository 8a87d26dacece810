//! The cache of baked layers.
//!
//! ```text
//! <cache>/layers/sha256-<diff id>.squashfs   one finished layer
//! <cache>/layers/.<name>.<random>.tmp        one being written
//! <cache>/locks/<name>.lock                  held while it is written
//! ```
//!
//! What else is there: documents and names ([`crate::remembered`]), notes of what is in
//! use ([`lease`]), and blobs that are on their way ([`partial`]).
//!
//! A finished file is the squashfs image, padded to 4 KiB, and one 4 KiB
//! footer that says what the image must look like.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use sha2::Digest as _;

mod collect;
mod kept;
mod lease;
mod partial;
#[cfg(test)]
mod tests;

pub use collect::{EntryKind, GcOptions, StoreEntry};
pub use lease::Lease;
pub(crate) use partial::Partial;

use crate::cancel::{Cancel, Watched};
use crate::error::{BakeError, LayerError};
use crate::no_follow::{open_in_cache, own_directory};
use crate::section::{ReadAt, Section};
use crate::squashfs::{self, Image};

/// Image and footer are padded to this, which suits every block size.
const ALIGN: u64 = 4096;
/// First bytes of the footer. The digit is the version of the whole file: it
/// changes with what the same layer is converted to, so that what an earlier
/// release converted is converted anew.
const FOOTER_MAGIC: &[u8; 8] = b"SMLAYER3";
/// Bytes of the footer before its own checksum.
const FOOTER_BODY: usize = 80;
/// Flag: the layer hides everything below it.
const FLAG_ROOT_OPAQUE: u32 = 1;
/// How long another process may take over the same layer before we stop
/// waiting and write it too. Both results are the same file.
const LOCK_PATIENCE: Duration = Duration::from_secs(120);

/// How often it is noted that a layer was used.
const NOTED_EVERY: Duration = Duration::from_secs(3600);

/// A directory of baked layers, shared by any number of processes.
#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
    /// Ends what takes long.
    cancel: Cancel,
}

/// A finished layer.
#[derive(Debug, Clone)]
pub(crate) struct CachedLayer {
    pub(crate) path: PathBuf,
    pub(crate) root_opaque: bool,
}

impl Store {
    /// Opens a cache directory, making it (readable by its owner only) if
    /// need be, and removes what crashed processes left behind.
    ///
    /// # Errors
    /// [`BakeError::Store`] when the directory cannot be made or read, or when
    /// it or one in it is a symbolic link, which could lead anywhere.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, BakeError> {
        let store = Self::of_directories(dir.into())?;
        store.sweep().map_err(|source| BakeError::Store {
            path: store.layers(),
            source,
        })?;
        store.sweep_partials();
        Ok(store)
    }

    fn of_directories(dir: PathBuf) -> Result<Self, BakeError> {
        let store = Self {
            dir,
            cancel: Cancel::default(),
        };
        for path in [store.dir.clone(), store.layers(), store.locks()] {
            own_directory(&path).map_err(|source| BakeError::Store { path, source })?;
        }
        Ok(store)
    }

    /// The directory given to [`Store::open`].
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The same directory, for work that `cancel` ends.
    pub(crate) fn cancelled_by(&self, cancel: &Cancel) -> Self {
        Self {
            dir: self.dir.clone(),
            cancel: cancel.clone(),
        }
    }

    pub(crate) fn cancel(&self) -> &Cancel {
        &self.cancel
    }

    fn layers(&self) -> PathBuf {
        self.dir.join("layers")
    }

    fn locks(&self) -> PathBuf {
        self.dir.join("locks")
    }

    /// A temporary file without a name: it is gone when the process is.
    pub(crate) fn spool(&self) -> io::Result<File> {
        let (file, path) = self.temporary("spool")?;
        fs::remove_file(path)?;
        Ok(file)
    }

    pub(crate) fn temporary(&self, name: &str) -> io::Result<(File, PathBuf)> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            let path = self.layers().join(format!(
                ".{name}.{}-{}-{}.tmp",
                std::process::id(),
                NEXT.fetch_add(1, Ordering::Relaxed),
                now.unwrap_or_default().subsec_nanos(),
            ));
            let mut options = OpenOptions::new();
            options.read(true).write(true).create_new(true).mode(0o600);
            match options.open(&path) {
                Ok(file) => {
                    // Held for as long as it is written: the sweep tells the
                    // dead by it. It holds what it is about to remove, too.
                    let _ = file.lock();
                    if file.metadata()?.nlink() > 0 {
                        return Ok((file, path));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// A finished layer, if it is there and intact.
    pub(crate) fn find(&self, name: &str, verify_data: bool) -> io::Result<Option<CachedLayer>> {
        let path = self.layers().join(format!("{name}.squashfs"));
        // Not a regular file, or a link to one: as good as damaged.
        match fs::symlink_metadata(&path) {
            Ok(metadata) if !metadata.is_file() => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            looked => looked?,
        };
        let section = match open_in_cache(OpenOptions::new().read(true), &path) {
            // Somebody has just replaced it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => {
                let file = opened?;
                note_use(&file);
                Section::whole(file)?
            }
        };
        let section = self.cancel.watch(section);
        let checked = check(&section, name, verify_data);
        // What could not be read to its end is not damaged.
        self.cancel.check()?;
        Ok(checked.map(|flags| CachedLayer {
            path,
            root_opaque: flags & FLAG_ROOT_OPAQUE != 0,
        }))
    }

    /// Keeps other processes from doing the same work. Errors only lose that,
    /// except for being cancelled while waiting.
    pub(crate) fn lock(&self, name: &str) -> io::Result<Option<File>> {
        let path = self.locks().join(format!("{name}.lock"));
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600);
        let Ok(file) = open_in_cache(&mut options, &path) else {
            return Ok(None);
        };
        let deadline = Instant::now() + LOCK_PATIENCE;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(file)),
                Err(fs::TryLockError::WouldBlock) if Instant::now() < deadline => {
                    self.cancel.check()?;
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(_) => return Ok(None),
            }
        }
    }

    /// Writes a layer under a temporary name, and gives it its own once all
    /// of it is on the disk. `name` is decided by `write`, which learns while
    /// building what the layer depends on.
    pub(crate) fn publish(
        &self,
        name: &str,
        root_opaque: bool,
        write: impl FnOnce(&mut BufWriter<Watched<File>>) -> Result<Image, LayerError>,
    ) -> Result<CachedLayer, LayerError> {
        let (file, temporary) = self.temporary(name)?;
        let guard = RemoveOnDrop(&temporary);
        let mut out = BufWriter::with_capacity(1 << 20, self.cancel.watch(file));
        let image = write(&mut out)?;
        let flags = if root_opaque { FLAG_ROOT_OPAQUE } else { 0 };
        let zeros = vec![
            0;
            usize::try_from(padded(image.bytes_used) - image.bytes_used)
                .map_err(io::Error::other)?
        ];
        out.write_all(&zeros)?;
        out.write_all(&footer(&image, flags, name))?;
        let file = out
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?
            .into_inner();
        file.sync_all()?;
        let path = self.layers().join(format!("{name}.squashfs"));
        fs::rename(&temporary, &path)?;
        std::mem::forget(guard);
        // Should this fail, a crash may lose the new name, and the layer is
        // baked again.
        let _ = File::open(self.layers()).and_then(|dir| dir.sync_all());
        Ok(CachedLayer { path, root_opaque })
    }

    /// Removes temporary files that no living process holds.
    fn sweep(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.layers())? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.as_encoded_bytes();
            if !(name.starts_with(b".") && name.ends_with(b".tmp")) {
                continue;
            }
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            if !metadata.is_file() {
                continue;
            }
            // Held until it is removed, so that whoever made it just now sees
            // that.
            if let Ok(file) = open_in_cache(OpenOptions::new().read(true), &entry.path())
                && file.try_lock().is_ok()
            {
                // Another process may have been faster.
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(())
    }
}

/// Notes that a file is used, in its access time: file systems do that late or never.
fn note_use(file: &File) {
    let now = SystemTime::now();
    let last = file.metadata().and_then(|metadata| metadata.accessed());
    let is_old = |last: SystemTime| now.duration_since(last).is_ok_and(|ago| ago > NOTED_EVERY);
    if last.is_ok_and(is_old) {
        // A cache that cannot be written has no one to collect it.
        let _ = file.set_times(fs::FileTimes::new().set_accessed(now));
    }
}

struct RemoveOnDrop<'a>(&'a Path);

impl Drop for RemoveOnDrop<'_> {
    fn drop(&mut self) {
        // The file may be gone; there is no one to tell.
        let _ = fs::remove_file(self.0);
    }
}

fn padded(bytes: u64) -> u64 {
    bytes.next_multiple_of(ALIGN)
}

/// The footer: magic, flags, CRC of the data, lengths, hash of the metadata,
/// hash of the layer's name, and a CRC over all that.
fn footer(image: &Image, flags: u32, name: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(4096);
    out.extend_from_slice(FOOTER_MAGIC);
    out.extend_from_slice(&flags.to_le_bytes());
    out.extend_from_slice(&image.data_crc32.to_le_bytes());
    out.extend_from_slice(&image.bytes_used.to_le_bytes());
    out.extend_from_slice(&image.metadata_start.to_le_bytes());
    out.extend_from_slice(&image.metadata_sha256);
    out.extend_from_slice(&name_tag(name));
    out.resize(FOOTER_BODY, 0);
    let crc = crc32fast::hash(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out.resize(4096, 0);
    out
}

/// Ties a file to its name, so that a copy under another name is no layer.
fn name_tag(name: &str) -> [u8; 16] {
    let full: [u8; 32] = sha2::Sha256::digest(name.as_bytes()).into();
    let mut tag = [0; 16];
    tag.copy_from_slice(&full[..16]);
    tag
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// The flags of an intact layer file. Reads the footer, the superblock and
/// the metadata; the file data, which is nearly all of it, only if asked.
fn check(file: &Watched<Section>, name: &str, verify_data: bool) -> Option<u32> {
    let footer_at = file.len().checked_sub(ALIGN)?;
    let mut footer = vec![0; 4096];
    file.read_exact_at(&mut footer, footer_at).ok()?;
    let crc = crc32fast::hash(&footer[..FOOTER_BODY]);
    let sound = footer.starts_with(FOOTER_MAGIC)
        && u32_at(&footer, FOOTER_BODY) == Some(crc)
        && footer.get(64..80) == Some(&name_tag(name)[..]);
    if !sound {
        return None;
    }
    let flags = u32_at(&footer, 8)?;
    let data_crc = u32_at(&footer, 12)?;
    let bytes_used = u64_at(&footer, 16)?;
    let metadata_start = u64_at(&footer, 24)?;
    if bytes_used.checked_next_multiple_of(ALIGN) != Some(footer_at)
        || !(squashfs::SUPERBLOCK_BYTES..=bytes_used).contains(&metadata_start)
    {
        return None;
    }
    let mut sha = sha2::Sha256::new();
    each_chunk(file, metadata_start, bytes_used, |chunk| sha.update(chunk))?;
    each_chunk(file, 0, squashfs::SUPERBLOCK_BYTES, |chunk| {
        sha.update(chunk)
    })?;
    let actual: [u8; 32] = sha.finalize().into();
    if footer.get(32..64) != Some(&actual[..]) {
        return None;
    }
    if verify_data {
        let mut crc = crc32fast::Hasher::new();
        each_chunk(file, squashfs::SUPERBLOCK_BYTES, metadata_start, |chunk| {
            crc.update(chunk);
        })?;
        if crc.finalize() != data_crc {
            return None;
        }
    }
    Some(flags)
}

fn each_chunk(
    file: &Watched<Section>,
    from: u64,
    to: u64,
    mut each: impl FnMut(&[u8]),
) -> Option<()> {
    let mut buffer = vec![0; 256 * 1024];
    let mut at = from;
    while at < to {
        let want = usize::try_from(to - at)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        file.read_exact_at(&mut buffer[..want], at).ok()?;
        each(&buffer[..want]);
        at += want as u64;
    }
    Some(())
}
