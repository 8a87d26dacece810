//! What a worker may take of its host: a control group of its own, in version 2 of
//! Linux's control groups. Another system has none, and says so when asked for one.

use crate::Error;
use crate::config::HostLimits;
use rustix::process::{Pid, test_kill_process};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Where the kernel says in which group this process is, and where groups are.
const OWN_GROUP: &str = "/proc/self/cgroup";
const MOUNTS: &str = "/proc/self/mountinfo";
/// Names of our groups begin so; the process id of their owner follows.
const PREFIX: &str = "supermachine-";
/// What processor time is counted over, in microseconds: the kernel's own default.
const PERIOD_US: u64 = 100_000;

/// A control group, removed with the last machine that is in it. Children of a fork
/// share it with their parent.
#[derive(Debug)]
pub struct Share {
    dir: PathBuf,
}

impl Share {
    /// Puts a worker that has just been started into a group with these limits. `name`
    /// is no other group's of this process.
    ///
    /// # Errors
    /// [`Error::Host`] with the directory in which no group can be made, or the file
    /// that cannot be written.
    pub fn of(limits: &HostLimits, pid: u32, name: &str) -> Result<Self, Error> {
        let own =
            own_group().map_err(Error::host("cannot find the control group of", OWN_GROUP))?;
        // Beside our own group, where a user's session may make some; or in it, which
        // the root of all groups allows.
        let beside = own
            .parent()
            .filter(|above| above.join("cgroup.procs").exists());
        let mut tried = Err(missing(&own));
        for above in beside.into_iter().chain([&*own]) {
            tried = Self::in_group(above, limits, pid, name);
            if tried.is_ok() {
                break;
            }
        }
        tried
    }

    fn in_group(above: &Path, limits: &HostLimits, pid: u32, name: &str) -> Result<Self, Error> {
        remove_abandoned(above);
        let control = above.join("cgroup.subtree_control");
        let wanted = wanted(limits);
        let given = fs::read_to_string(&control).map_err(Error::host(REFUSED, &control))?;
        let lacking: Vec<&str> = wanted
            .into_iter()
            .filter(|name| !given.split_whitespace().any(|given| given == *name))
            .collect();
        for name in lacking {
            write(&control, format!("+{name}"))?;
        }
        let dir = above.join(format!("{PREFIX}{}-{name}", std::process::id()));
        fs::create_dir(&dir).map_err(Error::host(REFUSED, &dir))?;
        let share = Self { dir };
        let write = |file: &str, value: String| write(&share.dir.join(file), value);
        if let Some(mib) = limits.memory_mib {
            write("memory.max", (u128::from(mib) << 20).to_string())?;
            // Without a file for it, the kernel has no swap.
            if share.dir.join("memory.swap.max").exists() {
                write("memory.swap.max", "0".to_owned())?;
            }
        }
        if let Some(thousandths) = limits.cpu_thousandths {
            let quota = thousandths.saturating_mul(PERIOD_US / 1000);
            write("cpu.max", format!("{quota} {PERIOD_US}"))?;
        }
        write("cgroup.procs", pid.to_string())?;
        Ok(share)
    }
}

const REFUSED: &str = "cannot limit what a machine takes of its host, which needs a control \
                       group of version 2 that this user may divide, as in a session of systemd: \
                       cannot write";

impl Drop for Share {
    fn drop(&mut self) {
        // Of a worker that is not quite gone, the next one removes it.
        let _ = fs::remove_dir(&self.dir);
    }
}

fn write(path: &Path, value: String) -> Result<(), Error> {
    fs::write(path, value).map_err(Error::host(REFUSED, path))
}

fn missing(own: &Path) -> Error {
    Error::host(REFUSED, own)(ErrorKind::NotFound.into())
}

fn wanted(limits: &HostLimits) -> Vec<&'static str> {
    let memory = limits.memory_mib.map(|_| "memory");
    let cpu = limits.cpu_thousandths.map(|_| "cpu");
    memory.into_iter().chain(cpu).collect()
}

/// Removes groups of owners that are gone. One with a process in it stays.
fn remove_abandoned(above: &Path) {
    for entry in fs::read_dir(above).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        let owner = owner.and_then(|rest| rest.split('-').next()?.parse().ok());
        let is_gone = |pid| test_kill_process(pid) == Err(rustix::io::Errno::SRCH);
        if owner.and_then(Pid::from_raw).is_some_and(is_gone) {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// The directory of the group that this process is in.
fn own_group() -> io::Result<PathBuf> {
    let groups = fs::read_to_string(OWN_GROUP)?;
    let mounts = fs::read_to_string(MOUNTS)?;
    group_of(&groups, &mounts).ok_or_else(|| ErrorKind::NotFound.into())
}

/// A group's directory, from `/proc/PID/cgroup` and `/proc/PID/mountinfo` as proc(5)
/// and cgroups(7) have them.
fn group_of(groups: &str, mounts: &str) -> Option<PathBuf> {
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    mounts.lines().find_map(|line| {
        let (own, kind) = line.split_once(" - ")?;
        if kind.split(' ').next() != Some("cgroup2") {
            return None;
        }
        let mut fields = own.split(' ').skip(3);
        let (root, at) = (fields.next()?, fields.next()?);
        let inside = Path::new(group).strip_prefix(root).ok()?;
        Some(Path::new(at).join(inside))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HostLimits = HostLimits {
        memory_mib: Some(300),
        cpu_thousandths: Some(1500),
    };

    #[test]
    fn the_group_is_found_where_it_is_mounted() {
        let mounts = "25 1 0:22 / /sys rw - sysfs sysfs rw\n\
                      31 25 0:27 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n";
        let group =
            |groups, mounts| group_of(groups, mounts).map(|path| path.display().to_string());
        let found = group("0::/user.slice/a.scope\n", mounts);
        assert_eq!(found.as_deref(), Some("/sys/fs/cgroup/user.slice/a.scope"));
        let bound = "31 25 0:27 /user.slice /groups rw - cgroup2 none rw\n";
        let found = group("9:cpu:/\n0::/user.slice/b\n", bound);
        assert_eq!(found.as_deref(), Some("/groups/b"));
        assert_eq!(group("9:cpu:/\n", mounts), None);
        assert_eq!(group("0::/x\n", "1 1 0:1 / / rw - tmpfs none rw\n"), None);
        assert_eq!(group("0::/elsewhere\n", bound), None);
    }

    /// A directory that looks like a group, to the letter of what is written.
    fn group(controllers: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(crate::random::random_name().unwrap());
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("cgroup.subtree_control"), controllers).unwrap();
        dir
    }

    #[test]
    fn limits_are_written_as_the_kernel_reads_them() {
        let above = group("cpu io memory\n");
        let abandoned = above.join(format!("{PREFIX}{}-x", i32::MAX));
        fs::create_dir(&abandoned).unwrap();
        let share = Share::in_group(&above, &LIMITS, 77, "m").unwrap();
        let read = |file: &str| fs::read_to_string(share.dir.join(file)).unwrap();
        assert_eq!(read("memory.max"), (300_u64 << 20).to_string());
        assert_eq!(read("cpu.max"), "150000 100000");
        assert_eq!(read("cgroup.procs"), "77");
        assert!(!abandoned.exists(), "somebody's who is gone");
        // What is there is asked for no more.
        let control = fs::read_to_string(above.join("cgroup.subtree_control")).unwrap();
        assert_eq!(control, "cpu io memory\n");
        fs::remove_dir_all(above).unwrap();
    }

    #[test]
    fn a_controller_that_is_lacking_is_asked_for() {
        let above = group("memory");
        let limits = HostLimits {
            memory_mib: None,
            ..LIMITS
        };
        let share = Share::in_group(&above, &limits, 1, "m").unwrap();
        let control = fs::read_to_string(above.join("cgroup.subtree_control")).unwrap();
        assert_eq!(control, "+cpu");
        assert!(!share.dir.join("memory.max").exists());
        fs::remove_dir_all(above).unwrap();
    }

    #[test]
    fn a_place_without_groups_is_an_error_that_says_what_it_takes() {
        let error = Share::in_group(Path::new("/nowhere"), &LIMITS, 1, "m").unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("version 2") && text.contains("/nowhere"),
            "{text}"
        );
    }
}
