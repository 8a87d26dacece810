//! Killing a command's descendants where there are no control groups.
//!
//! Weaker than a control group: a process that left the session *and* lost its
//! parent is not found. The agent announces `CAP_TREE_KILL` only with groups.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::sys;

/// Parent and session of a process, from `/proc/PID/stat`.
fn parent_and_session(stat: &str) -> Option<(i32, i32)> {
    // The second field is a name in parentheses that may contain anything.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let parent = fields.nth(1)?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    Some((parent, session))
}

fn processes() -> BTreeMap<i32, (i32, i32)> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else {
            continue;
        };
        if let Ok(stat) = fs::read_to_string(entry.path().join("stat"))
            && let Some(facts) = parent_and_session(&stat)
        {
            all.insert(pid, facts);
        }
    }
    all
}

/// Descendants of `root` and members of its session.
fn members(root: i32, all: &BTreeMap<i32, (i32, i32)>) -> BTreeSet<i32> {
    let mut found = BTreeSet::from([root]);
    loop {
        let before = found.len();
        for (pid, (parent, session)) in all {
            if *session == root || found.contains(parent) {
                found.insert(*pid);
            }
        }
        if found.len() == before {
            return found;
        }
    }
}

/// Kills `root`, a child not yet waited for, and what descends from it. All are
/// stopped before any is killed, because a dead parent hides its children.
pub(super) fn kill_tree(root: i32) {
    let mut stopped = BTreeSet::new();
    // Each round finds what was forked while the one before ran.
    for _ in 0..16 {
        let found = members(root, &processes());
        let fresh: Vec<i32> = found.difference(&stopped).copied().collect();
        if fresh.is_empty() {
            break;
        }
        for pid in fresh {
            sys::kill_process(pid, libc::SIGSTOP);
            stopped.insert(pid);
        }
    }
    for pid in stopped {
        sys::kill_process(pid, libc::SIGKILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_process_name_does_not_confuse_the_parser() {
        assert_eq!(parent_and_session("7 (a) R 1 ) S 3 4 5 0"), Some((3, 5)));
        assert_eq!(parent_and_session("7 (a"), None);
        assert_eq!(parent_and_session("7 (a) S x"), None);
    }

    #[test]
    fn tree_follows_parents_and_session() {
        let all = BTreeMap::from([
            (10, (1, 10)),
            (11, (10, 10)),
            (12, (11, 12)),
            (13, (1, 10)),
            (20, (1, 20)),
        ]);
        assert_eq!(members(10, &all), BTreeSet::from([10, 11, 12, 13]));
    }
}
