//! From what macOS says of a path to events of its directory.
//!
//! FSEvents says of a path what has happened to it lately, all at once and not in which
//! order. What of that the guest can be told, what is there now decides.

use std::collections::HashMap;
use std::ffi::CString;

use devices::virtio::fs::HostEvent;

/// Most directories of one device that are watched.
const MAX_DIRECTORIES: usize = 8192;
/// Most files of which it is known that their making was told.
const MAX_MADE: usize = 1024;

/// `kFSEventStreamEventFlag*` (CoreServices, FSEvents.h).
pub mod flag {
    /// Events were merged into one of a directory above, here or in the kernel, or the
    /// shared directory itself was moved.
    pub const LOST: u32 = 0x1 | 0x2 | 0x4 | 0x20;
    pub const CREATED: u32 = 0x100;
    pub const REMOVED: u32 = 0x200;
    pub const RENAMED: u32 = 0x800;
    pub const MODIFIED: u32 = 0x1000;
    /// Of an inode, the Finder, an owner or an extended attribute.
    pub const ATTRIBUTES: u32 = 0x400 | 0x2000 | 0x4000 | 0x8000;
    pub const IS_DIR: u32 = 0x2_0000;
}

/// The watched directories, by their paths and numbers.
#[derive(Debug, Default)]
pub struct Directories {
    by_path: HashMap<Vec<u8>, u64>,
    by_number: HashMap<u64, Vec<u8>>,
    /// Files whose making was told: it is said of them for some time.
    made: HashMap<Vec<u8>, u64>,
}

impl Directories {
    /// False if there are too many.
    pub fn add(&mut self, path: Vec<u8>, number: u64) -> bool {
        if !self.by_number.contains_key(&number) && self.by_number.len() >= MAX_DIRECTORIES {
            return false;
        }
        self.remove(number);
        if let Some(other) = self.by_path.insert(path.clone(), number) {
            self.by_number.remove(&other);
        }
        self.by_number.insert(number, path);
        true
    }

    pub fn holds(&self, number: u64) -> bool {
        self.by_number.contains_key(&number)
    }

    pub fn remove(&mut self, number: u64) {
        if let Some(path) = self.by_number.remove(&number) {
            self.by_path.remove(&path);
        }
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Appends what the guest can be told of a path with these flags; `found` looks what
    /// file is there, by its number. False if events were lost.
    pub fn translate(
        &mut self,
        path: &[u8],
        flags: u32,
        found: impl FnOnce(&[u8]) -> Option<u64>,
        events: &mut Vec<HostEvent>,
    ) -> bool {
        if flags & flag::LOST != 0 {
            return false;
        }
        let Some(slash) = path.iter().rposition(|byte| *byte == b'/') else {
            return true;
        };
        let (parent, name) = (&path[..slash], &path[slash + 1..]);
        let Some(directory) = self.by_path.get(parent).copied() else {
            return true;
        };
        let Ok(name) = CString::new(name) else {
            return true;
        };
        let name = name.into_boxed_c_str();
        let is_dir = match flags & flag::IS_DIR {
            0 => 0,
            _ => HostEvent::DIRECTORY,
        };
        for kind in self.kinds(path, flags, found(path)) {
            events.push(HostEvent {
                directory,
                name: name.clone(),
                mask: kind | is_dir,
                cookie: 0,
            });
        }
        true
    }

    /// What happened to an entry, in an order in which it can have.
    fn kinds(&mut self, path: &[u8], flags: u32, now: Option<u64>) -> Vec<u32> {
        let Some(file) = now else {
            self.made.remove(path);
            return match flags & (flag::REMOVED | flag::RENAMED) {
                0 => Vec::new(),
                flag::RENAMED => vec![HostEvent::MOVED_FROM],
                _ => vec![HostEvent::DELETE],
            };
        };
        let mut kinds = Vec::new();
        if flags & (flag::RENAMED | flag::CREATED) != 0 && self.made.get(path) != Some(&file) {
            kinds.push(match flags & flag::RENAMED {
                0 => HostEvent::CREATE,
                _ => HostEvent::MOVED_TO,
            });
            if self.made.len() >= MAX_MADE {
                self.made.clear();
            }
            self.made.insert(path.to_vec(), file);
        }
        if flags & flag::MODIFIED != 0 {
            // Nothing says when it is closed.
            kinds.extend([HostEvent::MODIFY, HostEvent::CLOSE_WRITE]);
        }
        if flags & flag::ATTRIBUTES != 0 {
            kinds.push(HostEvent::ATTRIB);
        }
        kinds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(directories: &mut Directories, path: &str, flags: u32, now: Option<u64>) -> Vec<u32> {
        let mut events = Vec::new();
        assert!(directories.translate(path.as_bytes(), flags, |_| now, &mut events));
        events.iter().map(|event| event.mask).collect()
    }

    #[test]
    fn what_is_there_now_decides_what_has_happened() {
        let mut watched = Directories::default();
        assert!(watched.add(b"/s".to_vec(), 1));
        let all = flag::CREATED | flag::REMOVED | flag::MODIFIED;
        let made = [HostEvent::CREATE, HostEvent::MODIFY, HostEvent::CLOSE_WRITE];
        assert_eq!(told(&mut watched, "/s/a", all, Some(7)), made);
        // It says for long that it was made.
        assert_eq!(told(&mut watched, "/s/a", all, Some(7)), made[1..]);
        assert_eq!(told(&mut watched, "/s/a", all, None), [HostEvent::DELETE]);
        assert_eq!(told(&mut watched, "/s/a", all, Some(7)), made);
        let moved = flag::RENAMED | flag::IS_DIR;
        let from = HostEvent::MOVED_FROM | HostEvent::DIRECTORY;
        assert_eq!(told(&mut watched, "/s/d", moved, None), [from]);
        let to = HostEvent::MOVED_TO | HostEvent::DIRECTORY;
        assert_eq!(told(&mut watched, "/s/d", moved, Some(8)), [to]);
        assert_eq!(
            told(&mut watched, "/s/a", 0x8000, Some(7)),
            [HostEvent::ATTRIB]
        );
        assert!(told(&mut watched, "/s/a", flag::MODIFIED, None).is_empty());
    }

    #[test]
    fn only_entries_of_watched_directories_are_told_of() {
        let mut watched = Directories::default();
        assert!(watched.add(b"/s".to_vec(), 1) && watched.add(b"/s/d".to_vec(), 2));
        let is_told = |watched: &mut Directories, path: &str| {
            !told(watched, path, flag::MODIFIED, Some(7)).is_empty()
        };
        assert!(is_told(&mut watched, "/s/d/a") && is_told(&mut watched, "/s/d"));
        assert!(!is_told(&mut watched, "/s/e/a") && !is_told(&mut watched, "a"));
        // It was moved, and found again.
        assert!(watched.add(b"/s/e".to_vec(), 2));
        assert!(is_told(&mut watched, "/s/e/a") && !is_told(&mut watched, "/s/d/a"));
        watched.remove(2);
        assert!(!watched.holds(2) && watched.holds(1));
        assert!(!is_told(&mut watched, "/s/e/a"));
        let mut events = Vec::new();
        assert!(!watched.translate(b"/s", 0x1, |_| None, &mut events));
        watched.clear();
        assert!(!watched.holds(1) && !is_told(&mut watched, "/s/d"));
    }

    #[test]
    fn numbers_and_files_are_bounded() {
        let mut watched = Directories::default();
        for number in 0..MAX_DIRECTORIES as u64 {
            assert!(watched.add(format!("/{number}").into_bytes(), number));
        }
        assert!(!watched.add(b"/more".to_vec(), u64::MAX));
        assert!(watched.add(b"/moved".to_vec(), 5));
        for n in 0..2 * MAX_MADE as u64 {
            told(&mut watched, &format!("/1/{n}"), flag::CREATED, Some(n));
        }
        assert!(watched.made.len() <= MAX_MADE);
    }
}
