//! Removing old builds from the user's cache directory.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Builds that nothing used for this long are removed when a new one is made.
const UNUSED_FOR: Duration = Duration::from_secs(30 * 24 * 3600);

/// Removes the directories `PREFIX-HASH` below `cache` that nobody used for a
/// month, with their logs; never `keep`. The caller holds the builders' lock.
/// What cannot be removed stays: the build that was asked for is done.
pub fn old_builds(cache: &Path, prefix: &str, keep: &Path) {
    let Ok(entries) = fs::read_dir(cache) else {
        return;
    };
    let now = SystemTime::now();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let path = entry.path();
        let ours = name.to_str().is_some_and(|name| is_build(name, prefix));
        if !ours || path == keep || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        let unused = modified.is_ok_and(|at| now.duration_since(at).is_ok_and(|t| t > UNUSED_FOR));
        if unused && fs::remove_dir_all(&path).is_ok() {
            // Lock files stay: another builder may hold one.
            let _ = fs::remove_file(path.with_extension("log"));
            eprintln!("removed {}, unused for a month", path.display());
        }
    }
}

/// Whether a name is the prefix and a hash as ours are: 16 hex digits.
fn is_build(name: &str, prefix: &str) -> bool {
    let hash = name
        .strip_prefix(prefix)
        .and_then(|rest| rest.strip_prefix('-'));
    hash.is_some_and(|hash| hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::path::PathBuf;

    fn aged(dir: &Path, days: u64) {
        let then = SystemTime::now() - Duration::from_secs(days * 24 * 3600);
        File::open(dir).unwrap().set_modified(then).unwrap();
    }

    fn cache(name: &str) -> PathBuf {
        let cache = std::env::temp_dir().join(format!("xtask-prune-{}-{name}", std::process::id()));
        fs::create_dir_all(&cache).unwrap();
        cache
    }

    #[test]
    fn only_old_builds_of_the_kind_go_and_never_the_one_in_use() {
        let cache = cache("kinds");
        let make = |name: &str, days| {
            let dir = cache.join(name);
            fs::create_dir(&dir).unwrap();
            fs::write(dir.join("file"), "x").unwrap();
            aged(&dir, days);
            dir
        };
        let keep = make("init-0000000000000001", 90);
        let old = make("init-0000000000000002", 31);
        let recent = make("init-0000000000000003", 29);
        let other = make("kernel-0000000000000004", 90);
        let strange = make("init-of-someone", 90);
        let partial = make("init-0000000000000005.partial", 90);
        fs::write(old.with_extension("log"), "").unwrap();
        fs::write(old.with_extension("lock"), "").unwrap();
        old_builds(&cache, "init", &keep);
        assert!(!old.exists() && !old.with_extension("log").exists());
        assert!(old.with_extension("lock").exists());
        for dir in [keep, recent, other, strange, partial] {
            assert!(dir.join("file").exists(), "{}", dir.display());
        }
        fs::remove_dir_all(cache).unwrap();
    }

    #[test]
    fn a_build_in_use_is_not_old() {
        let cache = cache("used");
        let dir = cache.join("kernel-00000000000000aa");
        fs::create_dir(&dir).unwrap();
        aged(&dir, 90);
        kernel::mark_used(&dir);
        old_builds(&cache, "kernel", Path::new("other"));
        assert!(dir.exists());
        fs::remove_dir_all(cache).unwrap();
    }
}
