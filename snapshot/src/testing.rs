//! Files that fail on demand, and a stamp to test with.

use crate::files::{Files, LockKind};
use crate::{EngineId, Stamp, SystemFiles};
use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// What happens at the chosen call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing; calls are counted.
    None,
    /// That call fails with this error number, and no other.
    Errno(i32),
    /// That call and every later one fail: the process is gone.
    Crash,
    /// Every write takes only a few bytes; the chosen call is interrupted.
    ShortWrites,
}

/// [`SystemFiles`] of which one call goes wrong.
#[derive(Debug)]
pub struct FaultyFiles {
    fault: Fault,
    at: u64,
    calls: AtomicU64,
}

impl FaultyFiles {
    /// Lets `fault` happen at call number `at`, counted from 0.
    #[must_use]
    pub fn new(fault: Fault, at: u64) -> Self {
        Self {
            fault,
            at,
            calls: AtomicU64::new(0),
        }
    }

    /// Calls so far.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    fn step(&self) -> io::Result<()> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        match self.fault {
            Fault::Errno(errno) if call == self.at => Err(io::Error::from_raw_os_error(errno)),
            Fault::Crash if call >= self.at => Err(io::Error::other("crashed")),
            _ => Ok(()),
        }
    }
}

impl Files for FaultyFiles {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        SystemFiles.create_dir(path)
    }

    fn create(&self, path: &Path) -> io::Result<File> {
        self.step()?;
        SystemFiles.create(path)
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        self.step()?;
        SystemFiles.open(path)
    }

    fn open_lock(&self, path: &Path) -> io::Result<File> {
        self.step()?;
        SystemFiles.open_lock(path)
    }

    fn attributes(&self, file: &File) -> io::Result<Metadata> {
        self.step()?;
        SystemFiles.attributes(file)
    }

    fn attributes_of(&self, path: &Path) -> io::Result<Metadata> {
        self.step()?;
        SystemFiles.attributes_of(path)
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let call = self.calls();
        self.step()?;
        if self.fault != Fault::ShortWrites {
            return SystemFiles.write_at(file, bytes, offset);
        }
        if call == self.at {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let few = bytes
            .len()
            .min(1 + usize::try_from(call % 4099).unwrap_or(0));
        SystemFiles.write_at(file, &bytes[..few], offset)
    }

    fn read_at(&self, file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.step()?;
        SystemFiles.read_at(file, bytes, offset)
    }

    fn set_len(&self, file: &File, bytes: u64) -> io::Result<()> {
        self.step()?;
        SystemFiles.set_len(file, bytes)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        self.step()?;
        SystemFiles.sync(file)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        SystemFiles.sync_dir(path)
    }

    fn hard_link(&self, file: &Path, name: &Path) -> io::Result<()> {
        self.step()?;
        SystemFiles.hard_link(file, name)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        SystemFiles.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        SystemFiles.remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        SystemFiles.remove_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        self.step()?;
        SystemFiles.list(path)
    }

    fn try_lock(&self, file: &File, kind: LockKind) -> io::Result<bool> {
        self.step()?;
        SystemFiles.try_lock(file, kind)
    }
}

/// A stamp of some engine.
#[must_use]
pub fn stamp() -> Stamp {
    Stamp::new(EngineId::new("soft"))
        .require("architecture", "aarch64")
        .require("cpu.ID_AA64PFR0_EL1", "0x11")
        .require("kernel", "kernel")
        .note("producer", env!("CARGO_PKG_VERSION"))
}
