//! What the system tells about processes.

use anyhow::{Context as _, Result};
use std::fs;

/// Processes that this one started and that still are.
pub fn children() -> Result<Vec<u32>> {
    let own = std::process::id();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // Gone since it was listed, or no longer a whole process.
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
            continue;
        };
        if parent(&stat) == Some(own) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// The parent in a line of proc(5)'s `stat`, the second after the name.
fn parent(stat: &str) -> Option<u32> {
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(1)?.parse().ok()
}

/// Memory a process has to itself, in KiB.
pub fn private_kib(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let private = text.lines().filter(|line| line.starts_with("Private_"));
    let kib = private.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    Ok(kib.sum())
}

/// Open files and threads of a process.
pub fn files_and_threads(pid: u32) -> Result<(u64, u64)> {
    let count = |what: &str| -> Result<u64> {
        let path = format!("/proc/{pid}/{what}");
        let entries = fs::read_dir(&path).with_context(|| format!("cannot read {path}"))?;
        Ok(entries.count() as u64)
    };
    Ok((count("fd")?, count("task")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_is_found_behind_any_process_name() {
        assert_eq!(parent("12 (a) b) R 34 1 1"), Some(34));
        assert_eq!(parent("12 (a"), None);
    }

    #[test]
    fn this_process_has_memory_files_and_threads() {
        let own = std::process::id();
        assert!(private_kib(own).unwrap() > 0);
        let (files, threads) = files_and_threads(own).unwrap();
        assert!(files > 0 && threads > 0);
    }
}
