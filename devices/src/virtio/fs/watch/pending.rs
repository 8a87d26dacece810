//! Changes of the host that the guest is not told of yet.

use std::collections::{HashMap, VecDeque};
use std::ffi::CStr;

use super::HostEvent;

/// Most of them. If there are more, the guest is told to look everywhere.
const MAX_PENDING: usize = 4096;

/// In the order in which they came. One kind of change of a file waits once, however often
/// it has happened.
#[derive(Debug, Default)]
pub struct Pending {
    events: VecDeque<HostEvent>,
    /// Which changes of a file wait, since it last got or lost the name.
    waiting: HashMap<(u64, Box<CStr>), u32>,
    /// There were too many, or the host lost some.
    lost: bool,
}

impl Pending {
    pub fn add(&mut self, event: HostEvent) {
        if self.lost || event.mask & (HostEvent::ENTRY | HostEvent::FILE) == 0 {
            return;
        }
        let key = (event.directory, event.name.clone());
        if event.mask & HostEvent::ENTRY != 0 {
            self.waiting.remove(&key);
        } else {
            let waiting = self.waiting.entry(key).or_default();
            if *waiting & event.mask & HostEvent::FILE == event.mask & HostEvent::FILE {
                return;
            }
            *waiting |= event.mask;
        }
        if self.events.len() >= MAX_PENDING {
            return self.lose();
        }
        self.events.push_back(event);
    }

    /// Some are not known.
    pub fn lose(&mut self) {
        *self = Self {
            lost: true,
            ..Self::default()
        };
    }

    /// Whether the guest is to be told that it has missed some, before any other.
    pub fn has_lost(&self) -> bool {
        self.lost
    }

    /// It has been told so.
    pub fn found(&mut self) {
        self.lost = false;
    }

    pub fn first(&self) -> Option<&HostEvent> {
        self.events.front()
    }

    pub fn remove_first(&mut self) {
        let Some(event) = self.events.pop_front() else {
            return;
        };
        let key = (event.directory, event.name);
        if let Some(waiting) = self.waiting.get_mut(&key) {
            *waiting &= !event.mask;
            if *waiting & HostEvent::FILE == 0 {
                self.waiting.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &CStr, mask: u32) -> HostEvent {
        HostEvent {
            directory: 1,
            name: name.into(),
            mask,
            cookie: 0,
        }
    }

    fn masks(pending: &mut Pending) -> Vec<u32> {
        let mut masks = Vec::new();
        while let Some(first) = pending.first() {
            masks.push(first.mask);
            pending.remove_first();
        }
        assert!(pending.waiting.is_empty() && !pending.has_lost());
        masks
    }

    #[test]
    fn writes_wait_once_and_end_with_the_close() {
        let mut pending = Pending::default();
        let written = [
            HostEvent::MODIFY,
            HostEvent::CLOSE_WRITE,
            HostEvent::MODIFY,
            HostEvent::CLOSE_WRITE,
        ];
        for mask in [HostEvent::CREATE].into_iter().chain(written) {
            pending.add(event(c"a", mask));
        }
        let expected = [HostEvent::CREATE, HostEvent::MODIFY, HostEvent::CLOSE_WRITE];
        assert_eq!(masks(&mut pending), expected);
    }

    #[test]
    fn what_happens_to_another_file_of_the_name_waits_too() {
        let mut pending = Pending::default();
        let all = [
            HostEvent::MODIFY,
            HostEvent::DELETE,
            HostEvent::CREATE,
            HostEvent::MODIFY,
        ];
        all.into_iter()
            .for_each(|mask| pending.add(event(c"a", mask)));
        pending.add(event(c"b", HostEvent::MODIFY));
        assert_eq!(masks(&mut pending).len(), 5);
        // What was told of waits anew.
        pending.add(event(c"a", HostEvent::MODIFY));
        assert_eq!(masks(&mut pending), [HostEvent::MODIFY]);
    }

    #[test]
    fn too_many_are_lost_and_nothing_waits_until_that_is_told() {
        let mut pending = Pending::default();
        for n in 0..=MAX_PENDING {
            assert!(!pending.has_lost());
            let name = std::ffi::CString::new(n.to_string()).unwrap();
            pending.add(event(&name, HostEvent::CREATE));
        }
        assert!(pending.has_lost() && pending.first().is_none());
        pending.add(event(c"a", HostEvent::CREATE));
        assert!(pending.first().is_none() && pending.has_lost());
        pending.found();
        assert!(pending.first().is_none() && !pending.has_lost());
        pending.add(event(c"a", HostEvent::CREATE));
        assert_eq!(masks(&mut pending), [HostEvent::CREATE]);
    }
}
