use crate::{Entitlements, Error, Signature, sign};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Longest file that is signed: a code directory cannot say more.
const MAX_FILE_BYTES: u64 = u32::MAX as u64;

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
        let bytes = fs::read(path).map_err(Error::file("read", path))?;
        // What contradicts itself is signed anew.
        let had = match Signature::read(&bytes) {
            Ok(signature) => signature.and_then(|signature| signature.entitlements().ok()),
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
