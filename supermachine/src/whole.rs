//! Files for users that are there with all of them or not at all.

use crate::Error;
use crate::random::random_name;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Makes a file where there is none. Only the user can read it.
pub(crate) fn create_new(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o600);
    options.open(path)
}

/// Writes a file under another name beside `path`, and gives it that name, in the place of
/// what has it, when `write` is done and it is on the disk. Only the user can read it.
pub(crate) fn write_whole<T>(
    path: &Path,
    write: impl FnOnce(&File) -> Result<T, Error>,
) -> Result<T, Error> {
    let failed = || Error::host("cannot write", path);
    let name = path
        .file_name()
        .ok_or_else(|| failed()(ErrorKind::InvalidFilename.into()))?;
    let mut unfinished = OsString::from(".");
    unfinished.push(name);
    unfinished.push(format!(".{}", random_name()?));
    let unfinished = path.with_file_name(unfinished);
    let file = create_new(&unfinished).map_err(failed())?;
    let written = write(&file).and_then(|value| {
        file.sync_all().map_err(failed())?;
        fs::rename(&unfinished, path).map_err(failed())?;
        Ok(value)
    });
    if written.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(&unfinished);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::runtime_dir::RuntimeDir;
    use std::io::Write;

    #[test]
    fn file_is_there_whole_or_not_at_all() {
        let dir = RuntimeDir::create().unwrap();
        let path = dir.path().join("changes.tar");
        let count = || fs::read_dir(dir.path()).unwrap().count();
        let half = |mut file: &File| {
            file.write_all(b"half").unwrap();
            Err::<(), _>(Error::host("cannot read", "/x")(ErrorKind::Other.into()))
        };
        write_whole(&path, half).unwrap_err();
        assert_eq!(count(), 0);
        fs::write(&path, "old").unwrap();
        write_whole(&path, half).unwrap_err();
        assert_eq!((fs::read(&path).unwrap(), count()), (b"old".to_vec(), 1));
        let whole = |mut file: &File| {
            file.write_all(b"whole").unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"old");
            Ok(7)
        };
        assert_eq!(write_whole(&path, whole).unwrap(), 7);
        assert_eq!((fs::read(&path).unwrap(), count()), (b"whole".to_vec(), 1));
        for bad in [dir.path().join("none/changes.tar"), dir.path().join("..")] {
            assert!(matches!(write_whole(&bad, whole), Err(Error::Host { .. })));
        }
    }
}
