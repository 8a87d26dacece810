//! The files that the guest knows, by the numbers it knows them by.
//!
//! A node has no descriptor. It has names, in directories that are nodes, and
//! an identity: whoever asks for it gets what is found under one of its names,
//! if that is the same file still.

use std::collections::HashMap;
use std::ffi::{CStr, CString};

use rustix::io::Errno;

use super::host::{Identity, Moment, Stat};
use super::wire::ROOT;

/// Most nodes: what a guest with several GiB of memory keeps. Each takes about
/// 500 bytes here, and its name.
pub const MAX_NODES: usize = 1 << 20;
/// Most names that are remembered of a file with several.
const MAX_LINKS: usize = 8;
/// Most names beside the first of each file, of all together: with names as long as they
/// can be, a guest that forgets nothing takes less than a GiB here.
const MAX_MORE_LINKS: usize = 1 << 18;
/// Deepest directory: as deep as the longest path that Linux takes.
const MAX_DEPTH: usize = 2048;

/// A name that a node has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The directory.
    pub parent: u64,
    pub name: Box<CStr>,
    /// The node is what the link of this name leads to.
    pub followed: bool,
}

#[derive(Debug)]
pub struct Node {
    pub identity: Identity,
    /// The newest name first.
    links: Vec<Link>,
    /// How often the guest was told of it.
    lookups: u64,
    /// Handles by which it is open.
    handles: Vec<u64>,
    seen: Option<Seen>,
    /// What the guest wrote to it may be lost, and it has not been told so yet.
    is_lossy: bool,
    is_dir: bool,
}

/// What a file was when its content was last given to the guest to keep.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    size: u64,
    mtime: Moment,
    ctime: Moment,
}

/// A step on the way from the shared directory to another.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Down this path, in which there are no links.
    Down(CString),
    /// Where the link of this name leads.
    Follow(CString),
}

/// All nodes.
#[derive(Debug)]
pub struct Nodes {
    by_number: HashMap<u64, Node>,
    by_identity: HashMap<Identity, u64>,
    next: u64,
    /// Names beside the first of each node.
    more_links: usize,
}

/// A node as it is saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedNode {
    pub number: u64,
    pub identity: Identity,
    pub is_dir: bool,
    pub lookups: u64,
    pub links: Vec<Link>,
}

impl Default for Nodes {
    fn default() -> Self {
        Self {
            by_number: HashMap::new(),
            by_identity: HashMap::new(),
            next: ROOT + 1,
            more_links: 0,
        }
    }
}

impl Nodes {
    fn get(&self, number: u64) -> Result<&Node, Errno> {
        self.by_number.get(&number).ok_or(Errno::STALE)
    }

    /// The node of a file that was found under a name, told to the guest once
    /// more.
    pub fn look_up(&mut self, link: Link, stat: &Stat) -> Result<u64, Errno> {
        let number = match self.by_identity.get(&stat.identity) {
            Some(number) => *number,
            None if self.by_number.len() >= MAX_NODES => return Err(Errno::NFILE),
            None => {
                let number = self.next;
                self.next += 1;
                self.by_identity.insert(stat.identity, number);
                self.by_number.insert(
                    number,
                    Node {
                        identity: stat.identity,
                        links: Vec::with_capacity(1),
                        lookups: 0,
                        handles: Vec::new(),
                        seen: None,
                        is_lossy: false,
                        is_dir: stat.is_dir(),
                    },
                );
                number
            }
        };
        let node = self.by_number.get_mut(&number).ok_or(Errno::STALE)?;
        node.lookups = node.lookups.saturating_add(1);
        node.add_link(link, &mut self.more_links);
        Ok(number)
    }

    /// A file that the guest knows, if at all, has this name from now on.
    pub fn rename(&mut self, link: Link, identity: &Identity) {
        if let Some(number) = self.by_identity.get(identity)
            && let Some(node) = self.by_number.get_mut(number)
        {
            node.add_link(link, &mut self.more_links);
        }
    }

    /// The guest forgets a node so many times; whether that was a directory which it does
    /// not know any more.
    pub fn forget(&mut self, number: u64, times: u64) -> bool {
        let Some(node) = self.by_number.get_mut(&number) else {
            return false;
        };
        node.lookups = node.lookups.saturating_sub(times);
        if node.lookups == 0
            && let Some(node) = self.by_number.remove(&number)
        {
            self.by_identity.remove(&node.identity);
            self.more_links -= node.more_links();
            return node.is_dir;
        }
        false
    }

    /// The number of a file, if the guest knows it.
    pub fn number(&self, identity: &Identity) -> Option<u64> {
        self.by_identity.get(identity).copied()
    }

    /// Whether this is the name of a node, as far as was found last.
    pub fn is_named(&self, number: u64, name: &CStr) -> bool {
        let link = self
            .by_number
            .get(&number)
            .and_then(|node| node.links.first());
        link.is_some_and(|link| *link.name == *name)
    }

    /// Whether the guest knows a node.
    pub fn knows(&self, number: u64) -> bool {
        number == ROOT || self.by_number.contains_key(&number)
    }

    /// All directories but the shared one, with the name that each has.
    pub fn directories(&self) -> Vec<(u64, Link)> {
        let nodes = self.by_number.iter().filter(|(_, node)| node.is_dir);
        let mut directories: Vec<(u64, Link)> = nodes
            .filter_map(|(number, node)| Some((*number, node.links.first()?.clone())))
            .collect();
        directories.sort_unstable_by_key(|(number, _)| *number);
        directories
    }

    pub fn clear(&mut self) {
        let next = self.next;
        *self = Self {
            next,
            ..Self::default()
        };
    }

    /// The names of a node, newest first, and what it must be there.
    pub fn links(&self, number: u64) -> Result<(Identity, Vec<Link>), Errno> {
        let node = self.get(number)?;
        Ok((node.identity, node.links.clone()))
    }

    /// The way to a directory, and what must be at its end.
    pub fn route(&self, directory: u64) -> Result<(Identity, Vec<Step>), Errno> {
        let mut links = Vec::new();
        let mut at = directory;
        while at != ROOT {
            // Names that hosts and guests have changed may lead in a circle.
            if links.len() >= MAX_DEPTH {
                return Err(Errno::STALE);
            }
            let link = self.get(at)?.links.first().ok_or(Errno::STALE)?;
            links.push(link);
            at = link.parent;
        }
        let mut steps = Vec::with_capacity(1);
        let mut path = Vec::new();
        for link in links.iter().rev() {
            if link.followed {
                push_path(&mut steps, &mut path)?;
                steps.push(Step::Follow(link.name.to_owned().into()));
                continue;
            }
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend(link.name.to_bytes());
        }
        push_path(&mut steps, &mut path)?;
        Ok((self.get(directory)?.identity, steps))
    }

    /// Notes that a node was opened; false if there is no such node.
    pub fn opened(&mut self, number: u64, handle: u64) {
        if let Some(node) = self.by_number.get_mut(&number) {
            node.handles.push(handle);
        }
    }

    pub fn closed(&mut self, number: u64, handle: u64) {
        if let Some(node) = self.by_number.get_mut(&number)
            && let Some(at) = node.handles.iter().position(|open| *open == handle)
        {
            node.handles.swap_remove(at);
        }
    }

    /// A handle by which the node is open.
    pub fn handle(&self, number: u64) -> Option<u64> {
        self.by_number.get(&number)?.handles.first().copied()
    }

    /// All handles by which the node is open.
    pub fn handles(&self, number: u64) -> Vec<u64> {
        let node = self.by_number.get(&number);
        node.map_or_else(Vec::new, |node| node.handles.clone())
    }

    /// Whether a file that is opened again has not changed since the last time.
    pub fn is_unchanged(&mut self, number: u64, now: &Stat) -> bool {
        let Some(node) = self.by_number.get_mut(&number) else {
            return false;
        };
        let now = Some(Seen {
            size: now.size,
            mtime: now.mtime,
            ctime: now.ctime,
        });
        let unchanged = node.seen == now;
        node.seen = now;
        unchanged
    }

    /// Notes that what the guest wrote to a file may be lost.
    pub fn lost(&mut self, number: u64) {
        if let Some(node) = self.by_number.get_mut(&number) {
            node.is_lossy = true;
        }
    }

    /// Whether that was noted, since this was last asked.
    pub fn take_lost(&mut self, number: u64) -> bool {
        let node = self.by_number.get_mut(&number);
        node.is_some_and(|node| std::mem::take(&mut node.is_lossy))
    }

    /// The number that the next new node gets, and all there are, in order.
    pub fn save(&self) -> (u64, Vec<SavedNode>) {
        let mut nodes: Vec<SavedNode> = self
            .by_number
            .iter()
            .map(|(number, node)| SavedNode {
                number: *number,
                identity: node.identity,
                is_dir: node.is_dir,
                lookups: node.lookups,
                links: node.links.clone(),
            })
            .collect();
        nodes.sort_unstable_by_key(|node| node.number);
        (self.next, nodes)
    }

    /// Takes over what was saved, which is not trusted; `None` if it cannot be.
    pub fn restore(&mut self, next: u64, saved: &[SavedNode]) -> Option<()> {
        let mut nodes = Self {
            next,
            ..Self::default()
        };
        if next <= ROOT || saved.len() > MAX_NODES {
            return None;
        }
        for node in saved {
            let fits = (ROOT + 1..next).contains(&node.number)
                && node.lookups > 0
                && node.links.len() <= MAX_LINKS
                && (!node.is_dir || node.links.len() <= 1);
            if !fits {
                return None;
            }
            let other = nodes.by_identity.insert(node.identity, node.number);
            let twice = nodes.by_number.insert(
                node.number,
                Node {
                    identity: node.identity,
                    links: node.links.clone(),
                    lookups: node.lookups,
                    handles: Vec::new(),
                    seen: None,
                    is_lossy: false,
                    is_dir: node.is_dir,
                },
            );
            nodes.more_links += node.links.len().saturating_sub(1);
            if other.is_some() || twice.is_some() || nodes.more_links > MAX_MORE_LINKS {
                return None;
            }
        }
        *self = nodes;
        Some(())
    }
}

fn push_path(steps: &mut Vec<Step>, path: &mut Vec<u8>) -> Result<(), Errno> {
    if !path.is_empty() {
        let path = CString::new(std::mem::take(path)).map_err(|_| Errno::STALE)?;
        steps.push(Step::Down(path));
    }
    Ok(())
}

impl Node {
    fn more_links(&self) -> usize {
        self.links.len().saturating_sub(1)
    }

    /// Adds a name; `more` is how many names beside their first all nodes have.
    fn add_link(&mut self, link: Link, more: &mut usize) {
        if self.links.first() == Some(&link) {
            return;
        }
        *more -= self.more_links();
        self.links.retain(|known| *known != link);
        // A directory has one name, which is the one that was found last.
        let most = match self.is_dir {
            true => 1,
            false => MAX_LINKS.min(1 + MAX_MORE_LINKS.saturating_sub(*more)),
        };
        self.links.truncate(most - 1);
        self.links.insert(0, link);
        *more += self.more_links();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(ino: u64, is_dir: bool) -> Stat {
        Stat {
            identity: Identity {
                ino,
                ..Identity::default()
            },
            mode: if is_dir { 0o040_755 } else { 0o100_644 },
            ..Stat::default()
        }
    }

    fn link(parent: u64, name: &CStr) -> Link {
        Link {
            parent,
            name: name.into(),
            followed: false,
        }
    }

    #[test]
    fn way_goes_down_from_the_root_and_over_links_where_they_are_followed() {
        let mut nodes = Nodes::default();
        let a = nodes.look_up(link(ROOT, c"a"), &stat(10, true)).unwrap();
        let b = nodes.look_up(link(a, c"b"), &stat(11, true)).unwrap();
        let away = Link {
            followed: true,
            ..link(b, c"away")
        };
        let c = nodes.look_up(away, &stat(12, true)).unwrap();
        let d = nodes.look_up(link(c, c"d"), &stat(13, true)).unwrap();
        assert_eq!(nodes.route(ROOT), Err(Errno::STALE), "it is no node");
        assert_eq!(nodes.route(b).unwrap().1, [Step::Down(c"a/b".to_owned())]);
        assert_eq!(
            nodes.route(d).unwrap().1,
            [
                Step::Down(c"a/b".to_owned()),
                Step::Follow(c"away".to_owned()),
                Step::Down(c"d".to_owned())
            ]
        );
        nodes.rename(link(ROOT, c"z"), &stat(11, true).identity);
        assert_eq!(nodes.route(b).unwrap().1, [Step::Down(c"z".to_owned())]);
        nodes.forget(b, 1);
        assert_eq!(nodes.route(d), Err(Errno::STALE));
    }

    #[test]
    fn circle_of_names_ends() {
        let mut nodes = Nodes::default();
        let a = nodes.look_up(link(ROOT, c"a"), &stat(10, true)).unwrap();
        let b = nodes.look_up(link(a, c"b"), &stat(11, true)).unwrap();
        nodes.rename(link(b, c"a"), &stat(10, true).identity);
        assert_eq!(nodes.route(b), Err(Errno::STALE));
    }

    #[test]
    fn node_goes_when_it_is_forgotten_as_often_as_it_was_told_of() {
        let mut nodes = Nodes::default();
        let number = nodes.look_up(link(ROOT, c"a"), &stat(10, false)).unwrap();
        assert_eq!(
            nodes.look_up(link(ROOT, c"b"), &stat(10, false)),
            Ok(number)
        );
        assert_eq!(nodes.links(number).unwrap().1.len(), 2);
        nodes.forget(number, 1);
        assert!(nodes.links(number).is_ok());
        nodes.forget(number, u64::MAX);
        assert_eq!(nodes.links(number), Err(Errno::STALE));
        let other = nodes.look_up(link(ROOT, c"a"), &stat(10, false)).unwrap();
        assert_ne!(other, number, "numbers are used once");
    }

    #[test]
    fn saved_nodes_are_taken_back_only_if_they_can_have_been_saved() {
        let mut nodes = Nodes::default();
        nodes.look_up(link(ROOT, c"a"), &stat(10, true)).unwrap();
        nodes.look_up(link(2, c"b"), &stat(11, false)).unwrap();
        let (next, saved) = nodes.save();
        let mut other = Nodes::default();
        other.restore(next, &saved).unwrap();
        assert_eq!(other.save(), (next, saved.clone()));
        let bad = |change: &dyn Fn(&mut Vec<SavedNode>)| {
            let mut saved = saved.clone();
            change(&mut saved);
            Nodes::default().restore(next, &saved)
        };
        assert_eq!(bad(&|saved| saved[0].number = ROOT), None);
        assert_eq!(bad(&|saved| saved[0].number = next), None);
        assert_eq!(bad(&|saved| saved[1].number = saved[0].number), None);
        assert_eq!(bad(&|saved| saved[1].identity = saved[0].identity), None);
        assert_eq!(bad(&|saved| saved[1].lookups = 0), None);
        assert_eq!(bad(&|saved| saved[0].links.push(link(1, c"c"))), None);
    }
}
