//! Snapshots as files, to be taken to other hosts.

use crate::limits::SNAPSHOT_LOCK_TIMEOUT;
use crate::template::Template;
use crate::{Error, Image, VmConfig, stamp};
use snapshot::{FileEntry, Inspection, Store, SystemFiles};
use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is read and written at a time.
const BUFFER_BYTES: usize = 1 << 20;

impl Image {
    /// Writes the snapshot into a file, for [`Image::import`] on this host or another.
    /// Nobody sees the file before it is whole.
    ///
    /// # Errors
    /// [`Error::Unsuitable`] if the image has no snapshot; [`Error::Snapshot`] or
    /// [`Error::Host`] if something cannot be read or written.
    pub fn export(&self, file: impl AsRef<Path>) -> Result<(), Error> {
        let template = self.template().ok_or(Error::Unsuitable {
            what: "an export",
            needs: "an image with a snapshot: bake it",
        })?;
        export(template.snapshot(), file.as_ref())
    }

    /// Makes a snapshot of a file that [`Image::export`] has written, in the directory
    /// `dest`: a new generation, if there is a snapshot already. All of it is compared
    /// with its checksums first.
    ///
    /// The maker of the file decides what runs in the machines: import only files of
    /// people you trust with that.
    ///
    /// # Errors
    /// [`Error::Snapshot`] if it is no such file, or damaged, or does not fit this host,
    /// kernel or version; [`Error::Host`] if it cannot be read.
    pub fn import(file: impl AsRef<Path>, dest: impl AsRef<Path>) -> Result<Self, Error> {
        let dest = dest.as_ref();
        let name = dest.file_name().and_then(|name| name.to_str());
        let (Some(root), Some(name)) = (dest.parent(), name) else {
            return Err(Error::Unsuitable {
                what: "an import",
                needs: "a directory with a name to go to",
            });
        };
        // A path of one word is in the current directory.
        let is_here = root.as_os_str().is_empty();
        let root = if is_here { Path::new(".") } else { root };
        let template = import(file.as_ref(), root, Some(name), None)?;
        Ok(Self::from_template(Arc::new(template), None))
    }
}

/// Writes a snapshot under another name beside the file, and renames it.
pub(crate) fn export(found: &Inspection, file: &Path) -> Result<(), Error> {
    let failed = || Error::host("cannot write", file);
    let name = file.file_name().ok_or(Error::Unsuitable {
        what: "an export",
        needs: "the name of a file to go to",
    })?;
    let next = format!(".{}.{}.tmp", name.to_string_lossy(), std::process::id());
    let next = file.with_file_name(next);
    let written = write_to(found, &next, failed);
    let renamed = written.and_then(|()| fs::rename(&next, file).map_err(failed()));
    if renamed.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(&next);
    }
    renamed
}

fn write_to<F>(found: &Inspection, path: &Path, failed: impl Fn() -> F) -> Result<(), Error>
where
    F: FnOnce(std::io::Error) -> Error,
{
    let mut options = OpenOptions::new();
    // Memory of a machine may hold secrets.
    options.write(true).create(true).truncate(true).mode(0o600);
    let file = options.open(path).map_err(failed())?;
    let mut out = BufWriter::with_capacity(BUFFER_BYTES, file);
    found.export(&mut out)?;
    out.flush().map_err(failed())?;
    out.get_ref().sync_all().map_err(failed())
}

/// Makes a snapshot in a directory of them of what is in a file. Layers that are in
/// `cache` already are shared with it.
pub(crate) fn import(
    file: &Path,
    root: &Path,
    name: Option<&str>,
    cache: Option<&Path>,
) -> Result<Template, Error> {
    let here = stamp::here(&VmConfig::new())?;
    let opened = File::open(file).map_err(Error::host("cannot read", file))?;
    let mut input = BufReader::with_capacity(BUFFER_BYTES, opened);
    fs::create_dir_all(root).map_err(Error::host("cannot create", root))?;
    let store = Store::new(root)?;
    let mut known = |name: &str, entry: FileEntry| -> Option<PathBuf> {
        let path = cache?.join("layers").join(name);
        let is_same = FileEntry::of(&SystemFiles, &path).is_ok_and(|found| found == entry);
        is_same.then_some(path)
    };
    let imported = store.import(name, &mut input, &here, SNAPSHOT_LOCK_TIMEOUT, &mut known)?;
    Template::new(imported, &here)
}
