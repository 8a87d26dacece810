//! What a guest has changed itself, of which it is not told.
//!
//! Kept is not that something was done, but how the guest left it: if it is like that
//! now, there is nothing to tell, however often the host speaks of it.

use std::collections::{HashMap, VecDeque};
use std::ffi::CStr;
use std::hash::Hash;

use super::super::host::{Identity, Moment, Stat};

/// Most names, and most files, of which it is known how the guest left them: more than
/// it changes before the host has said so. Of older ones the guest hears itself.
const MAX_KNOWN: usize = 4096;

/// What changes with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    mtime: Moment,
    ctime: Moment,
    size: u64,
}

impl From<&Stat> for Content {
    fn from(stat: &Stat) -> Self {
        Self {
            mtime: stat.mtime,
            ctime: stat.ctime,
            size: stat.size,
        }
    }
}

/// The values of the keys that were set last.
#[derive(Debug)]
struct Recent<K, V> {
    values: HashMap<K, (u64, V)>,
    /// When each was set, the oldest first.
    order: VecDeque<(u64, K)>,
    next: u64,
}

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self {
            values: HashMap::new(),
            order: VecDeque::new(),
            next: 0,
        }
    }
}

impl<K: Clone + Eq + Hash, V> Recent<K, V> {
    fn set(&mut self, key: K, value: V) {
        let at = self.next;
        self.next += 1;
        self.order.push_back((at, key.clone()));
        self.values.insert(key, (at, value));
        // A key that is set again leaves its older places behind.
        while self.values.len() > MAX_KNOWN || self.order.len() > 2 * MAX_KNOWN {
            let Some((at, key)) = self.order.pop_front() else {
                return;
            };
            if self.values.get(&key).is_some_and(|(last, _)| *last == at) {
                self.values.remove(&key);
            }
        }
    }

    fn get(&self, key: &K) -> Option<&V> {
        self.values.get(key).map(|(_, value)| value)
    }
}

#[derive(Debug, Default)]
pub struct Own {
    next_ticket: u64,
    /// Requests under way, and what they are about.
    active: Vec<(u64, u64)>,
    names: Recent<(u64, Box<CStr>), Option<Identity>>,
    files: Recent<Identity, Content>,
}

impl Own {
    pub fn begin(&mut self, node: u64) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.active.push((ticket, node));
        ticket
    }

    pub fn end(&mut self, ticket: u64) {
        self.active.retain(|(active, _)| *active != ticket);
    }

    pub fn next_ticket(&self) -> u64 {
        self.next_ticket
    }

    /// Whether a request from before this ticket is under way.
    pub fn has_before(&self, ticket: u64) -> bool {
        self.active.iter().any(|(active, _)| *active < ticket)
    }

    pub fn is_busy(&self, node: u64) -> bool {
        self.active.iter().any(|(_, about)| *about == node)
    }

    pub fn left(&mut self, parent: u64, name: &CStr, what: Option<Identity>) {
        self.names.set((parent, name.into()), what);
    }

    pub fn touched(&mut self, stat: &Stat) {
        self.files.set(stat.identity, stat.into());
    }

    pub fn left_as(&self, parent: u64, name: &CStr) -> Option<Option<Identity>> {
        self.names.get(&(parent, name.into())).copied()
    }

    pub fn content(&self, of: &Identity) -> Option<Content> {
        self.files.get(of).copied()
    }

    /// Forgets how anything was left; requests under way go on.
    pub fn clear(&mut self) {
        self.names = Recent::default();
        self.files = Recent::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(ino: u64, size: u64) -> Stat {
        Stat {
            identity: Identity {
                ino,
                ..Identity::default()
            },
            size,
            ..Stat::default()
        }
    }

    #[test]
    fn how_a_file_was_left_last_is_known_and_the_oldest_is_forgotten() {
        let mut own = Own::default();
        let first = stat(0, 1);
        own.touched(&first);
        own.touched(&stat(0, 2));
        assert_eq!(own.content(&first.identity), Some((&stat(0, 2)).into()));
        for ino in 1..=MAX_KNOWN as u64 {
            own.touched(&stat(ino, 0));
        }
        assert_eq!(own.content(&first.identity), None);
        assert!(own.content(&stat(1, 0).identity).is_some());
        // One that is written again and again pushes out nothing.
        for size in 0..10 * MAX_KNOWN as u64 {
            own.touched(&stat(2, size));
        }
        assert!(own.files.order.len() <= 2 * MAX_KNOWN);
        assert_eq!(own.files.values.len(), own.values_in_order());
    }

    impl Own {
        /// Values that can still be forgotten.
        fn values_in_order(&self) -> usize {
            let order = self.files.order.iter();
            order
                .filter(|(at, key)| self.files.values.get(key).is_some_and(|(l, _)| l == at))
                .count()
        }
    }

    #[test]
    fn name_is_left_as_a_file_or_as_nothing() {
        let mut own = Own::default();
        assert_eq!(own.left_as(1, c"a"), None);
        own.left(1, c"a", Some(stat(7, 0).identity));
        assert_eq!(own.left_as(1, c"a"), Some(Some(stat(7, 0).identity)));
        own.left(1, c"a", None);
        assert_eq!(own.left_as(1, c"a"), Some(None));
        assert_eq!(own.left_as(2, c"a"), None);
        own.clear();
        assert_eq!(own.left_as(1, c"a"), None);
    }

    #[test]
    fn requests_are_under_way_until_they_end() {
        let mut own = Own::default();
        let (first, second) = (own.begin(5), own.begin(6));
        assert!(own.is_busy(5) && own.is_busy(6) && !own.is_busy(7));
        assert!(own.has_before(second) && !own.has_before(first));
        own.end(first);
        assert!(!own.is_busy(5) && !own.has_before(second));
        own.clear();
        assert!(own.is_busy(6));
    }
}
