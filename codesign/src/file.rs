use crate::image::{HEADER_BYTES, Layout};
use crate::{Entitlements, Error, Signature, sign};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Longest file that is signed: a code directory cannot say more.
const MAX_FILE_BYTES: u64 = u32::MAX as u64;

/// Where a header says how long the load commands are (mach-o/loader.h).
const SIZE_OF_COMMANDS: usize = 20;
/// Longest load commands: programs have some thousand bytes.
const MAX_COMMAND_BYTES: usize = 1 << 20;
/// Longest signature: 32 bytes for each page of the longest file, and some more.
const MAX_SIGNATURE_BYTES: usize = 64 << 20;

/// Signs a file, and puts the signed one in its place, with the same permissions. The
/// identifier is the file's name. Whoever has the old one open or mapped keeps it.
///
/// # Errors
/// As [`sign`]; [`Error::File`] for a file that cannot be read or replaced. The file is as
/// it was then.
pub fn sign_file(path: &Path, entitlements: &Entitlements) -> Result<(), Error> {
    // A link stays, and what it leads to is replaced.
    let path = fs::canonicalize(path).map_err(Error::file("find", path))?;
    let mut file = File::open(&path).map_err(Error::file("open", &path))?;
    let kind = file.metadata().map_err(Error::file("read", &path))?;
    if !kind.is_file() {
        let error = io::Error::new(io::ErrorKind::InvalidInput, "not a regular file");
        return Err(Error::file("sign", &path)(error));
    }
    let mut bytes = Vec::new();
    (&mut file)
        .take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(Error::file("read", &path))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(Error::TooLong);
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let signed = sign(&bytes, &name, entitlements)?;

    let draft = Draft::beside(&path)?;
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&draft.0)?;
        file.write_all(&signed)?;
        file.set_permissions(kind.permissions())?;
        file.sync_all()?;
        fs::rename(&draft.0, &path)
    };
    write().map_err(Error::file("replace", &path))
}

/// Signs a file as [`sign_file`] does, unless it has a signature with these entitlements;
/// whether it was signed. Processes that do this to one file at once take turns, and one of
/// them signs.
///
/// # Errors
/// As [`sign_file`].
pub fn entitle(path: &Path, entitlements: &Entitlements) -> Result<bool, Error> {
    let lacks = |path: &Path| {
        let file = File::open(path).map_err(Error::file("open", path))?;
        // What contradicts itself is signed anew.
        let had = match had(&file, path) {
            Ok(had) => had,
            Err(Error::BadSignature(_)) => None,
            Err(error) => return Err(error),
        };
        Ok(!had.is_some_and(|had| had.clone().with(entitlements) == had))
    };
    if !lacks(path)? {
        return Ok(false);
    }
    let file = File::open(path).map_err(Error::file("open", path))?;
    file.lock().map_err(Error::file("lock", path))?;
    // Whoever had the lock before has put another file here.
    if !lacks(path)? {
        return Ok(false);
    }
    sign_file(path, entitlements)?;
    Ok(true)
}

/// The entitlements of a file's signature: what they are about is not read, for this is
/// asked at each start of a program.
fn had(file: &File, path: &Path) -> Result<Option<Entitlements>, Error> {
    let read = |at: usize, length: usize| {
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, at as u64).map(|()| bytes)
    };
    let length = file.metadata().map_err(Error::file("read", path))?.len();
    let length = usize::try_from(length).map_err(|_| Error::TooLong)?;
    let header = read(0, length.min(HEADER_BYTES)).map_err(Error::file("read", path))?;
    let commands = header.get(SIZE_OF_COMMANDS..).and_then(<[u8]>::first_chunk);
    let commands = commands.map_or(0, |bytes| u32::from_le_bytes(*bytes));
    let commands = usize::try_from(commands).unwrap_or(usize::MAX);
    let head = HEADER_BYTES.saturating_add(commands.min(MAX_COMMAND_BYTES));
    let head = read(0, head.min(length)).map_err(Error::file("read", path))?;
    let Some((_, begin, bytes)) = Layout::of_head(&head, length)?.signature else {
        return Ok(None);
    };
    if bytes > MAX_SIGNATURE_BYTES {
        return Err(Error::BadSignature("it is too long"));
    }
    let signature = read(begin, bytes).map_err(Error::file("read", path))?;
    Signature::parse(&signature, begin)?
        .entitlements()
        .map(Some)
}

/// A file that is removed, unless it has got another name.
struct Draft(PathBuf);

impl Draft {
    fn beside(path: &Path) -> Result<Self, Error> {
        let mut name = std::ffi::OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push(format!(".signing-{}", std::process::id()));
        let draft = Self(path.with_file_name(name));
        // Left by a process of the same number that was killed.
        let _ = fs::remove_file(&draft.0);
        Ok(draft)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
