//! What overlayfs keeps of changes, beside the host's directory.

use super::tree::{HostTree, attributes, is_users};
use super::{ChangeKind, MountChange};
use crate::Error;
use crate::files::FileKind;
use exec_proto::tree::{Node, NodeKind, OVERLAY_OPAQUE};
use rustix::fs::{FileType, Mode, RawMode, Stat};
use rustix::io::Errno;
use std::collections::HashSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// overlayfs marks so what is gone.
const WHITEOUT: NodeKind = NodeKind::CharDevice { major: 0, minor: 0 };
/// Permission bits that are compared and taken over: not setuid and its kin.
const MODE_BITS: u32 = 0o777;

/// What is different. The nodes are a guest's word: its paths lead down, and nothing
/// else is certain.
pub(super) fn compare(nodes: Vec<Node>, host: &mut HostTree) -> Result<Vec<MountChange>, Error> {
    let mut nodes: Vec<(PathBuf, Node)> = nodes
        .into_iter()
        .map(|mut node| {
            let path = OsString::from_vec(std::mem::take(&mut node.path));
            (path.into(), node)
        })
        .collect();
    // A directory comes before what is in it.
    nodes.sort_by(|(a, _), (b, _)| a.cmp(b));
    nodes.dedup_by(|(a, _), (b, _)| a == b);
    let mut comparing = Comparing {
        told: nodes.iter().map(|(path, _)| path.clone()).collect(),
        hiding: HashSet::new(),
        changes: Vec::new(),
        host,
    };
    for (path, node) in &nodes {
        let failed = Error::host("cannot read", comparing.host.path.join(path));
        let compared = comparing.one(path, node);
        compared.map_err(|error| failed(error.into()))?;
    }
    comparing.changes.sort();
    Ok(comparing.changes)
}

struct Comparing<'a> {
    host: &'a mut HostTree,
    /// All paths that the guest has told.
    told: HashSet<PathBuf>,
    /// Directories of which nothing of the host's is seen in the guest.
    hiding: HashSet<PathBuf>,
    changes: Vec<MountChange>,
}

impl Comparing<'_> {
    fn tell(&mut self, path: &Path, kind: ChangeKind, node: Option<&Node>) {
        self.changes.push(MountChange {
            path: path.to_owned(),
            kind,
            file: node.map(|node| FileKind::from(&node.kind)),
            bytes: node.map_or(0, |node| node.size),
            mode: node.map_or(0, |node| node.mode & MODE_BITS),
        });
    }

    /// Whether the host has a file or a link as the guest has it: after its change was
    /// applied, or where it was only opened to be written. Of a file's content, length and
    /// time of change say enough, as for rsync: both sides keep nanoseconds.
    fn is_same(&mut self, path: &Path, node: &Node, found: &Stat) -> Result<bool, Errno> {
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok(false);
        };
        let kind = FileType::from_raw_mode(found.st_mode);
        let is_alike = match (&node.kind, kind) {
            (NodeKind::File, FileType::RegularFile) => is_as_long_and_old(node, found),
            (NodeKind::Symlink(_), FileType::Symlink) => true,
            _ => false,
        };
        let above = match is_alike {
            true => self.host.directory(above)?,
            false => None,
        };
        let Some(above) = above else {
            return Ok(false);
        };
        if let NodeKind::Symlink(target) = &node.kind {
            let there = rustix::fs::readlinkat(&above, name, Vec::new());
            return Ok(there.is_ok_and(|there| there.to_bytes() == target));
        }
        let mut told = node.xattrs.clone();
        told.retain(|(name, _)| is_users(name));
        told.sort();
        Ok(attributes(&above, name).is_some_and(|there| there == told))
    }

    fn one(&mut self, path: &Path, node: &Node) -> Result<(), Errno> {
        let found = self.host.look(path)?;
        if node.kind == WHITEOUT {
            if found.is_some() {
                self.tell(path, ChangeKind::Deleted, None);
            }
            return Ok(());
        }
        let Some(found) = found else {
            self.tell(path, ChangeKind::Added, Some(node));
            return Ok(());
        };
        let is_hosts_directory = FileType::from_raw_mode(found.st_mode) == FileType::Directory;
        if node.kind != NodeKind::Directory || !is_hosts_directory {
            if self.is_same(path, node, &found)? {
                return Ok(());
            }
            self.tell(path, ChangeKind::Changed, Some(node));
            return Ok(());
        }
        let is_root = path.as_os_str().is_empty();
        let host_mode = Mode::from_raw_mode(found.st_mode);
        let guest_mode = Mode::from_raw_mode((node.mode & MODE_BITS) as RawMode);
        if !is_root && host_mode & (Mode::RWXU | Mode::RWXG | Mode::RWXO) != guest_mode {
            self.tell(path, ChangeKind::Changed, Some(node));
        }
        let is_marked = node.xattrs.iter().any(|(name, _)| name == OVERLAY_OPAQUE);
        let is_below = path
            .parent()
            .is_some_and(|above| self.hiding.contains(above));
        if is_marked || is_below {
            self.hiding.insert(path.to_owned());
            for name in self.host.names(path)? {
                let path = path.join(name);
                if !self.told.contains(&path) {
                    self.tell(&path, ChangeKind::Deleted, None);
                }
            }
        }
        Ok(())
    }
}

/// Whether length, time of change and mode are the same.
#[allow(clippy::useless_conversion, reason = "their types are the system's")]
fn is_as_long_and_old(node: &Node, found: &Stat) -> bool {
    let mode = Mode::from_raw_mode((node.mode & MODE_BITS) as RawMode);
    let there = Mode::from_raw_mode(found.st_mode) & (Mode::RWXU | Mode::RWXG | Mode::RWXO);
    u64::try_from(found.st_size) == Ok(node.size)
        && i64::try_from(found.st_mtime) == Ok(node.mtime_s)
        && u64::try_from(found.st_mtime_nsec) == Ok(node.mtime_ns.into())
        && there == mode
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::runtime_dir::RuntimeDir;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::time::{Duration, UNIX_EPOCH};

    fn node(path: &str, kind: NodeKind) -> Node {
        Node {
            path: path.into(),
            kind,
            mode: 0o4755,
            uid: 0,
            gid: 0,
            size: 3,
            links: 1,
            mtime_s: 0,
            mtime_ns: 0,
            xattrs: Vec::new(),
        }
    }

    fn opaque(path: &str) -> Node {
        Node {
            xattrs: vec![(OVERLAY_OPAQUE.to_vec(), b"y".to_vec())],
            ..node(path, NodeKind::Directory)
        }
    }

    fn compared(dir: &Path, nodes: Vec<Node>) -> Vec<(String, ChangeKind)> {
        let changes = compare(nodes, &mut HostTree::open(dir).unwrap()).unwrap();
        let changes = changes.into_iter();
        changes
            .map(|change| (change.path.to_str().unwrap().to_owned(), change.kind))
            .collect()
    }

    #[test]
    fn whiteouts_and_opaque_directories_delete_what_the_host_has() {
        let dir = RuntimeDir::create().unwrap();
        let host = dir.path().join("host");
        for path in ["d/e", "o/sub", "same"] {
            fs::create_dir_all(host.join(path)).unwrap();
        }
        for path in ["d/e/f", "o/sub/old", "o/old", "file"] {
            fs::write(host.join(path), "").unwrap();
        }
        let nodes = vec![
            opaque("o"),
            node("o/sub", NodeKind::Directory),
            node("o/sub/new", NodeKind::Fifo),
            node("d/e/f", WHITEOUT),
            node("d/e/none", WHITEOUT),
            node("", NodeKind::Directory),
            node("d/null", NodeKind::CharDevice { major: 1, minor: 3 }),
            node("file", NodeKind::Directory),
            node("file/x", NodeKind::File),
            node("same", NodeKind::File),
        ];
        use ChangeKind::{Added, Changed, Deleted};
        let expected = [
            ("d/e/f", Deleted),
            ("d/null", Added),
            ("file", Changed),
            ("file/x", Added),
            ("o/old", Deleted),
            ("o/sub/new", Added),
            ("o/sub/old", Deleted),
            ("same", Changed),
        ];
        let expected = expected.map(|(path, kind)| (path.to_owned(), kind));
        assert_eq!(compared(&host, nodes), expected);
    }

    #[test]
    fn what_the_host_has_the_same_is_no_change() {
        let dir = RuntimeDir::create().unwrap();
        let host = dir.path().join("host");
        fs::create_dir(&host).unwrap();
        let time = UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789);
        let make = |name: &str| {
            fs::write(host.join(name), "abc").unwrap();
            let file = fs::File::options().write(true).open(host.join(name));
            file.unwrap().set_modified(time).unwrap();
            fs::set_permissions(host.join(name), fs::Permissions::from_mode(0o755)).unwrap();
            Node {
                mtime_s: 1_700_000_000,
                mtime_ns: 123_456_789,
                ..node(name, NodeKind::File)
            }
        };
        symlink("target", host.join("link")).unwrap();
        let link = |target: &str| node("link", NodeKind::Symlink(target.into()));
        let same = vec![make("same"), link("target")];
        assert_eq!(compared(&host, same.clone()), []);
        let mine = vec![(b"user.mine".to_vec(), b"1".to_vec())];
        let others = [
            Node {
                size: 4,
                ..same[0].clone()
            },
            Node {
                mtime_s: 1,
                ..same[0].clone()
            },
            Node {
                mtime_ns: 123_456_788,
                ..same[0].clone()
            },
            Node {
                mode: 0o4711,
                ..same[0].clone()
            },
            Node {
                xattrs: mine,
                ..same[0].clone()
            },
            Node {
                kind: NodeKind::Fifo,
                ..same[0].clone()
            },
            Node {
                kind: NodeKind::Symlink("same".into()),
                ..same[0].clone()
            },
        ];
        for other in others {
            let told = compared(&host, vec![other]);
            assert_eq!(told, [("same".to_owned(), ChangeKind::Changed)]);
        }
        let told = compared(&host, vec![link("elsewhere")]);
        assert_eq!(told, [("link".to_owned(), ChangeKind::Changed)]);
    }

    #[test]
    fn nothing_is_seen_through_links_of_the_host() {
        let dir = RuntimeDir::create().unwrap();
        let (host, outside) = (dir.path().join("host"), dir.path().join("outside"));
        fs::create_dir_all(outside.join("d")).unwrap();
        fs::write(outside.join("secret"), "").unwrap();
        fs::create_dir(&host).unwrap();
        symlink(&outside, host.join("link")).unwrap();
        let nodes = vec![
            opaque("link"),
            node("link/secret", NodeKind::File),
            node("link/secret", WHITEOUT),
            opaque("link/d"),
        ];
        use ChangeKind::{Added, Changed};
        let expected = [("link", Changed), ("link/d", Added), ("link/secret", Added)];
        let expected = expected.map(|(path, kind)| (path.to_owned(), kind));
        assert_eq!(compared(&host, nodes), expected);
    }
}
