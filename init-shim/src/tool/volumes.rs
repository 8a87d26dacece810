//! Disks of the guest that outlive it: mounted, grown and written out.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::{Failure, at};
use crate::sys;

/// The kernel learns what a disk of a copy holds from an interrupt that its first
/// processor takes when it runs, so this is for a host with nothing left to give.
const CAPACITY_TIMEOUT: Duration = Duration::from_secs(60);
const CAPACITY_PAUSE: Duration = Duration::from_millis(1);
/// Bytes that the kernel counts disks in.
const SECTOR_BYTES: u64 = 512;
/// Where a file system's own description is in it.
const SUPERBLOCK: u64 = 1024;
/// Blocks of a group, and how many of them a last group should have: fewer have hardly
/// room for its tables.
const GROUP_BLOCKS: u64 = 32_768;
const LEAST_GROUP_BLOCKS: u64 = 1024;

/// Mounts the machine's volume of this number, and has its file system fill it.
pub(super) fn mount(number: &OsStr, place: &Path) -> Result<(), Failure> {
    let disk = find(number)?;
    let bytes = disk.await_bytes(SECTOR_BYTES)?;
    at(place, fs::create_dir_all(place))?;
    let mounted = sys::mount(&disk.device, place, c"ext4", libc::MS_NODEV, c"");
    at(place, mounted)?;
    fill(&disk, place, bytes)
}

/// Has the file system of a mounted volume fill it, once the kernel knows that it has this
/// many bytes.
pub(super) fn grow_mounted(number: &OsStr, place: &Path, bytes: &OsStr) -> Result<(), Failure> {
    let disk = find(number)?;
    let least = bytes.to_str().and_then(|text| text.parse().ok());
    let bytes = disk.await_bytes(least.ok_or_else(Failure::usage)?)?;
    // One that was unmounted grows when it is mounted again.
    match disk.is_mounted(place)? {
        Some(_) => fill(&disk, place, bytes),
        None => Ok(()),
    }
}

fn fill(disk: &Disk, place: &Path, bytes: u64) -> Result<(), Failure> {
    let grown = grow(&disk.device, place, bytes);
    grown.map_err(|error| {
        let text = format!("growing {}: {error}", place.display());
        Failure::new(place, &io::Error::new(error.kind(), text))
    })
}

/// Freezes the file system of a volume: it is written out, and takes no more.
pub(super) fn freeze(number: &OsStr, place: &Path) -> Result<(), Failure> {
    match find(number)?.is_mounted(place)? {
        Some(directory) => at(place, sys::freeze(&directory)),
        None => Ok(()),
    }
}

struct Disk {
    device: PathBuf,
    size: PathBuf,
}

/// The disk that calls itself the volume of this number.
fn find(number: &OsStr) -> Result<Disk, Failure> {
    let number = number.to_str().and_then(|text| text.parse::<u8>().ok());
    let wanted = format!("volume{}", number.ok_or_else(Failure::usage)?);
    let disks = Path::new("/sys/block");
    for entry in at(disks, fs::read_dir(disks))? {
        let entry = at(disks, entry)?;
        let serial = fs::read_to_string(entry.path().join("serial"));
        if serial.is_ok_and(|serial| serial.trim_end_matches(['\n', '\0']) == wanted) {
            return Ok(Disk {
                device: Path::new("/dev").join(entry.file_name()),
                size: entry.path().join("size"),
            });
        }
    }
    at(Path::new(&wanted), Err(io::ErrorKind::NotFound.into()))
}

impl Disk {
    /// The directory, if the disk is mounted there: with another file system there, it was
    /// unmounted.
    fn is_mounted(&self, place: &Path) -> Result<Option<File>, Failure> {
        let device = at(&self.device, fs::metadata(&self.device))?.rdev();
        let directory = match File::open(place) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            directory => at(place, directory)?,
        };
        let is_there = at(place, directory.metadata())?.dev() == device;
        Ok(is_there.then_some(directory))
    }

    /// Waits until the kernel knows that the disk has at least so many bytes; all it has.
    fn await_bytes(&self, least: u64) -> Result<u64, Failure> {
        let begun = Instant::now();
        loop {
            let size = at(&self.size, fs::read_to_string(&self.size))?;
            let sectors = size.trim().parse::<u64>().unwrap_or(0);
            let bytes = sectors.saturating_mul(SECTOR_BYTES);
            if bytes >= least {
                return Ok(bytes);
            }
            if begun.elapsed() >= CAPACITY_TIMEOUT {
                return at(&self.size, Err(io::ErrorKind::TimedOut.into()));
            }
            thread::sleep(CAPACITY_PAUSE);
        }
    }
}

/// Grows a mounted file system to all of its disk, if it is smaller.
fn grow(device: &Path, place: &Path, bytes: u64) -> io::Result<()> {
    let mut superblock = [0; 1024];
    File::open(device)?.read_exact_at(&mut superblock, SUPERBLOCK)?;
    let word = |offset: usize| {
        let bytes = superblock.get(offset..).and_then(|rest| rest.first_chunk());
        u64::from(bytes.copied().map_or(0, u32::from_le_bytes))
    };
    // Its blocks, the upper half of their number, and their size.
    let (low, high, shift) = (word(0x4), word(0x150), word(0x18));
    let Some(block_bytes) = u32::try_from(shift)
        .ok()
        .and_then(|n| 1024u64.checked_shl(n))
    else {
        return Ok(());
    };
    let wanted = fitting(bytes.checked_div(block_bytes).unwrap_or(0));
    if wanted <= low | high << 32 {
        return Ok(());
    }
    sys::resize(&File::open(place)?, wanted)
}

/// So many blocks, or fewer if the last group would have too few.
fn fitting(blocks: u64) -> u64 {
    match blocks % GROUP_BLOCKS {
        tail if tail < LEAST_GROUP_BLOCKS => blocks - tail,
        _ => blocks,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_system_does_not_grow_by_a_group_without_room_for_its_tables() {
        assert_eq!(fitting(GROUP_BLOCKS), GROUP_BLOCKS);
        assert_eq!(fitting(GROUP_BLOCKS + 1023), GROUP_BLOCKS);
        assert_eq!(fitting(GROUP_BLOCKS + 1024), GROUP_BLOCKS + 1024);
        assert_eq!(fitting(0), 0);
    }

    #[test]
    fn only_numbers_name_volumes() {
        for word in ["", "x", "-1", "256", "1/../sda"] {
            let word = OsStr::new(word);
            let failure = mount(word, Path::new("/none")).unwrap_err();
            assert_eq!(failure.errno, libc::EINVAL, "{word:?}");
            let failure = grow_mounted(word, Path::new("/none"), OsStr::new("1")).unwrap_err();
            assert_eq!(failure.errno, libc::EINVAL, "{word:?}");
        }
    }
}
