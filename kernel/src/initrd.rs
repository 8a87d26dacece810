//! A writer for the initial file system: a `newc` cpio archive, as the kernel's
//! `Documentation/driver-api/early-userspace/buffer-format.rst` defines it.
//!
//! Owner, times and device numbers are zero and inode numbers count up from
//! one, so the same entries always give the same bytes.
//!
//! ```
//! use supermachine_kernel::initrd::Archive;
//!
//! let mut archive = Archive::new();
//! archive.directory("dev", 0o755)?;
//! archive.character_device("dev/console", 0o600, 5, 1)?;
//! archive.file("init", 0o755, b"\x7fELF...")?;
//! let bytes = archive.finish();
//! assert!(bytes.starts_with(b"070701"));
//! # Ok::<(), supermachine_kernel::initrd::InitrdError>(())
//! ```

/// The six bytes every entry starts with.
pub const NEWC_MAGIC: [u8; 6] = *b"070701";

/// Longest name the kernel accepts, terminator included, bytes: PATH_MAX.
const NAME_LIMIT_BYTES: usize = 4096;
/// Archives end on a multiple of this, bytes, as cpio writes them.
const BLOCK_BYTES: usize = 512;

const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
const S_IFCHR: u32 = 0o020_000;
const S_IFLNK: u32 = 0o120_000;

/// An entry that cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InitrdError {
    /// Names are relative, without empty, `.` or `..` parts, and fit PATH_MAX.
    #[error("not a usable archive name: {name:?}")]
    Name {
        /// The name given.
        name: String,
    },
    /// Sizes are 32-bit in this format.
    #[error("{name:?} does not fit the archive format: {bytes} bytes")]
    TooLarge {
        /// The entry.
        name: String,
        /// Its size, bytes.
        bytes: usize,
    },
}

/// An archive under construction, held in memory.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// An archive without entries.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a directory; it must come before what it holds.
    ///
    /// # Errors
    /// [`InitrdError::Name`].
    pub fn directory(&mut self, name: &str, permissions: u32) -> Result<(), InitrdError> {
        self.entry(name, S_IFDIR | permissions, (0, 0), &[])
    }

    /// Adds a regular file.
    ///
    /// # Errors
    /// [`InitrdError::Name`], or [`InitrdError::TooLarge`] from 4 GiB on.
    pub fn file(&mut self, name: &str, permissions: u32, data: &[u8]) -> Result<(), InitrdError> {
        self.entry(name, S_IFREG | permissions, (0, 0), data)
    }

    /// Adds a symbolic link to `target`.
    ///
    /// # Errors
    /// [`InitrdError::Name`].
    pub fn symlink(&mut self, name: &str, target: &str) -> Result<(), InitrdError> {
        self.entry(name, S_IFLNK | 0o777, (0, 0), target.as_bytes())
    }

    /// Adds a character device node.
    ///
    /// # Errors
    /// [`InitrdError::Name`].
    pub fn character_device(
        &mut self,
        name: &str,
        permissions: u32,
        major: u32,
        minor: u32,
    ) -> Result<(), InitrdError> {
        self.entry(name, S_IFCHR | permissions, (major, minor), &[])
    }

    /// Ends the archive and returns its bytes.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.append("TRAILER!!!", 0, 0, (0, 0), 0, &[]);
        let end = self.bytes.len().next_multiple_of(BLOCK_BYTES);
        self.bytes.resize(end, 0);
        self.bytes
    }

    fn entry(
        &mut self,
        name: &str,
        mode: u32,
        device: (u32, u32),
        data: &[u8],
    ) -> Result<(), InitrdError> {
        let clean = name.len() < NAME_LIMIT_BYTES
            && !name.contains('\0')
            && name.split('/').all(|part| !matches!(part, "" | "." | ".."));
        if !clean {
            return Err(InitrdError::Name {
                name: name.to_owned(),
            });
        }
        let size = u32::try_from(data.len()).map_err(|_| InitrdError::TooLarge {
            name: name.to_owned(),
            bytes: data.len(),
        })?;
        self.entries = self.entries.saturating_add(1);
        self.append(name, self.entries, mode, device, size, data);
        Ok(())
    }

    fn append(
        &mut self,
        name: &str,
        inode: u32,
        mode: u32,
        (major, minor): (u32, u32),
        size: u32,
        data: &[u8],
    ) {
        // A name is bounded by NAME_LIMIT_BYTES, so the conversion cannot fail.
        let name_size = u32::try_from(name.len() + 1).unwrap_or(u32::MAX);
        // ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor
        // rdevminor namesize check
        let fields = [
            inode, mode, 0, 0, 1, 0, size, 0, 0, major, minor, name_size, 0,
        ];
        self.bytes.extend_from_slice(&NEWC_MAGIC);
        for field in fields {
            self.bytes
                .extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(data);
        self.align();
    }

    fn align(&mut self) {
        let end = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(end, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, mode, device number, data.
    type Entry = (String, u32, (u32, u32), Vec<u8>);

    /// Walks an archive by the format's own rules.
    fn entries(mut bytes: &[u8]) -> Vec<Entry> {
        let mut found = Vec::new();
        loop {
            assert_eq!(bytes[..6], NEWC_MAGIC);
            let field = |index: usize| {
                let at = 6 + 8 * index;
                u32::from_str_radix(std::str::from_utf8(&bytes[at..at + 8]).unwrap(), 16).unwrap()
            };
            let (mode, size, name_size) = (field(1), field(6) as usize, field(11) as usize);
            let device = (field(9), field(10));
            let name = String::from_utf8(bytes[110..110 + name_size - 1].to_vec()).unwrap();
            assert_eq!(bytes[110 + name_size - 1], 0);
            let data = (110 + name_size).next_multiple_of(4);
            if name == "TRAILER!!!" {
                assert!(bytes[data..].iter().all(|byte| *byte == 0));
                return found;
            }
            found.push((name, mode, device, bytes[data..data + size].to_vec()));
            bytes = &bytes[(data + size).next_multiple_of(4)..];
        }
    }

    #[test]
    fn entries_read_back_as_written() {
        let mut archive = Archive::new();
        archive.directory("dev", 0o755).unwrap();
        archive
            .character_device("dev/console", 0o600, 5, 1)
            .unwrap();
        archive.symlink("bin", "usr/bin").unwrap();
        for length in 0..9 {
            archive
                .file(&format!("f{length}"), 0o644, &vec![b'x'; length])
                .unwrap();
        }
        let bytes = archive.finish();
        assert_eq!(bytes.len() % BLOCK_BYTES, 0);
        let found = entries(&bytes);
        assert_eq!(found[0], ("dev".into(), 0o040_755, (0, 0), vec![]));
        assert_eq!(found[1], ("dev/console".into(), 0o020_600, (5, 1), vec![]));
        assert_eq!(
            found[2],
            ("bin".into(), 0o120_777, (0, 0), b"usr/bin".to_vec())
        );
        for length in 0..9 {
            assert_eq!(found[3 + length].3.len(), length);
        }
        assert_eq!(found.len(), 12);
    }

    #[test]
    fn names_that_escape_or_confuse_are_refused() {
        let long = "x".repeat(NAME_LIMIT_BYTES);
        for name in [
            "", "/init", "a//b", "../x", "a/..", ".", "a\0b", "a/", &long,
        ] {
            assert!(Archive::new().file(name, 0o644, &[]).is_err(), "{name:?}");
        }
    }

    #[test]
    fn the_same_entries_give_the_same_bytes() {
        let build = || {
            let mut archive = Archive::new();
            archive.file("init", 0o755, b"abc").unwrap();
            archive.finish()
        };
        assert_eq!(build(), build());
    }
}
