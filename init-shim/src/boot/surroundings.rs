//! What programs expect around them: kernel file systems, names, network,
//! settings. Nothing here is worth failing a boot for.

use std::ffi::CStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::mount_virtual;
use super::options::Options;
use super::root::real_directory;
use crate::agent::files::replace_file;
use crate::agent::groups::{self, GroupPool, Rules};
use crate::agent::names;
use crate::sys;

/// Processes that commands together leave to the agent, so that a fork bomb
/// does not keep it from starting a thread or another command.
const RESERVED_PROCESSES: u64 = 128;

/// Most processes of one command, unless the host says otherwise: it does not
/// grow with memory, because the time to end them all would too.
const DEFAULT_PROCESS_LIMIT: u64 = 4096;

const NO_EXEC: sys::MountFlags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
const NO_DEV: sys::MountFlags = libc::MS_NOSUID | libc::MS_NODEV;
const DEVICES: sys::MountFlags = libc::MS_NOSUID | libc::MS_NOEXEC;

/// File system, place, mode of the place, flags, options.
type Mount = (
    &'static CStr,
    &'static str,
    u32,
    sys::MountFlags,
    &'static CStr,
);

/// What the kernel shows, in places that every root has.
const OF_MACHINE: [Mount; 4] = [
    (c"sysfs", "/sys", 0o755, NO_EXEC, c""),
    (
        c"devpts",
        "/dev/pts",
        0o755,
        DEVICES,
        c"gid=5,mode=0620,ptmxmode=0666",
    ),
    (c"tmpfs", "/dev/shm", 0o1777, NO_EXEC, c"mode=1777"),
    (c"mqueue", "/dev/mqueue", 0o1777, NO_EXEC, c""),
];

const RUN: Mount = (c"tmpfs", "/run", 0o755, NO_DEV, c"mode=0755");

const LINKS: [(&str, &str); 4] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
];

/// Devices that any user may open, as udev and container runtimes have it; the
/// kernel gives some of them to root alone.
const PUBLIC_DEVICES: [&str; 9] = [
    "null", "zero", "full", "random", "urandom", "tty", "ptmx", "fuse", "net/tun",
];

/// Settings a container runtime would give, and the link protections that keep
/// one guest user from leading another's writes astray.
///
/// The last four keep an idle machine from waking up.
const SETTINGS: [(&str, &str); 10] = [
    ("fs/protected_hardlinks", "1"),
    ("fs/protected_symlinks", "1"),
    ("net/ipv4/ip_unprivileged_port_start", "0"),
    ("net/ipv4/ping_group_range", "0 2147483647"),
    ("vm/max_map_count", "262144"),
    // Else each processor keeps up to an eighth of a zone in lists of free
    // pages of its own, which the host never hears of. With 4000 page faults took
    // a third longer (`cargo xtask bench forkexec --only fault`).
    ("vm/percpu_pagelist_high_fraction", "400"),
    // Else kcompactd wakes twice a second, in an idle machine too, to have huge
    // pages ready that only programs asking for them (madvise) would get.
    ("vm/compaction_proactiveness", "0"),
    // Work that waits for the next wake-up and then causes one more: whenever a
    // task ran, the scheduler (its deadline server, since Linux 6.12) wakes up a
    // second later, and with counters of memory brought together every second
    // and neighbours looked after every five, something always waited. A
    // processor that goes idle brings its counters together anyway, and only
    // neighbours added as "managed" are looked after.
    ("vm/stat_interval", "10"),
    ("net/ipv4/neigh/default/interval_probe_time_ms", "60000"),
    ("net/ipv6/neigh/default/interval_probe_time_ms", "60000"),
];

/// What is needed of what was set up.
pub(super) struct Surroundings {
    /// Where there can be control groups for commands.
    pub(super) groups: Option<GroupsPlace>,
    /// The file that stands in for the kernel's boot id.
    pub(super) boot_id: Option<File>,
}

fn mount_one((fs_type, target, mode, flags, data): Mount) {
    if real_directory(Path::new(target), mode).is_ok() {
        let _ = mount_virtual(fs_type, target, flags, data);
    }
}

/// Sets up what does not depend on the root.
pub(super) fn of_machine(options: &Options) -> Surroundings {
    OF_MACHINE.into_iter().for_each(mount_one);
    for (target, link) in LINKS {
        let _ = std::os::unix::fs::symlink(target, link);
    }
    for device in PUBLIC_DEVICES {
        // A kernel without it has nothing to open.
        let path = Path::new("/dev").join(device);
        let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o666));
    }
    for (name, value) in SETTINGS {
        let _ = fs::write(Path::new("/proc/sys").join(name), value);
    }
    let _ = sys::loopback_up();
    if let Some(interface) = &options.network
        && let Err(error) = interface.set_up()
    {
        super::say(&format!("no network: {error}"));
    }
    Surroundings {
        groups: GroupsPlace::make().ok(),
        boot_id: cover_boot_id().ok(),
    }
}

/// Puts into the root what programs expect there.
pub(super) fn of_root(options: &Options) {
    mount_one(RUN);
    let _ = real_directory(Path::new("/tmp"), 0o1777);
    write_names(options);
    share_mounts();
}

/// Where commands see control groups.
const GROUPS: &CStr = c"/sys/fs/cgroup";

/// Makes all mounts shared, so that what one command mounts the others see:
/// each control group has a mount namespace. They differ in what is mounted on
/// the mount made here.
fn share_mounts() {
    let place = Path::new(GROUPS.to_str().unwrap_or_default());
    let _ = sys::mount(place, place, c"", libc::MS_BIND, c"");
    let flags = libc::MS_SHARED | libc::MS_REC;
    let _ = sys::mount(Path::new(""), Path::new("/"), c"", flags, c"");
}

/// The kernel's boot id, which is one for all copies of a machine.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Where the file that covers it is made; it has no name afterwards.
const BOOT_ID_COVER: &str = "/dev/.supermachine-boot-id";

/// Covers the kernel's boot id with a file that says the same, and can say
/// something else in each copy.
fn cover_boot_id() -> io::Result<File> {
    let id = fs::read(BOOT_ID)?;
    let mut cover = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o444)
        .open(BOOT_ID_COVER)?;
    cover.write_all(&id)?;
    let place = Path::new(BOOT_ID);
    let bound = sys::mount(Path::new(BOOT_ID_COVER), place, c"", libc::MS_BIND, c"");
    fs::remove_file(BOOT_ID_COVER)?;
    bound?;
    // The guest's root cannot write the kernel's either.
    let flags = libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY | NO_EXEC;
    let _ = sys::mount(place, place, c"", flags, c"");
    Ok(cover)
}

/// Host name, name servers and the files that go with them. Links that an
/// image has there are replaced, never followed.
fn write_names(options: &Options) {
    let _ = real_directory(Path::new("/etc"), 0o755);
    let host = options.network.map(|interface| interface.gateways());
    let host: Vec<_> = host.into_iter().flatten().collect();
    names::set_first(options.hostname.as_deref().unwrap_or("supermachine"), &host);
    if !options.dns.is_empty() {
        let servers: String = options
            .dns
            .iter()
            .map(|server| format!("nameserver {server}\n"))
            .collect();
        let _ = replace_file(Path::new("/etc/resolv.conf"), 0o644, servers.as_bytes());
    }
}

/// Where control groups for commands are made.
pub(super) struct GroupsPlace {
    parent: OwnedFd,
    /// Most processes of all of them together.
    together: u64,
}

impl GroupsPlace {
    /// Sets up the control groups of commands, with a limit on processes that
    /// leaves the agent some, and processor time shared by command and not by
    /// process: one that forks without end does not keep the agent from ending it.
    ///
    /// The hierarchy is mounted nowhere. `nsdelegate` holds for all who mount it.
    fn make() -> io::Result<Self> {
        let root = sys::mount_detached(c"cgroup2", c"nsdelegate")?;
        let _ = sys::make_dir_at(root.as_fd(), c"exec");
        let parent = sys::open_at(root.as_fd(), c"exec", libc::O_RDONLY | libc::O_DIRECTORY)?;
        for group in [&root, &parent] {
            for controller in ["+pids", "+cpu"] {
                // A kernel without one of them has the other.
                let _ = groups::set(group.as_fd(), c"cgroup.subtree_control", controller);
            }
        }
        let read = |path: &str| {
            let text = fs::read_to_string(path).ok()?;
            text.trim().parse::<u64>().ok()
        };
        let most = [
            read("/proc/sys/kernel/pid_max"),
            read("/proc/sys/kernel/threads-max"),
        ];
        let most = most.into_iter().flatten().min().unwrap_or(u64::MAX);
        let together = most.saturating_sub(RESERVED_PROCESSES).max(1);
        let _ = groups::set(parent.as_fd(), c"pids.max", &together.to_string());
        Ok(Self { parent, together })
    }

    /// Groups there, each of so many processes at most. Commands in them see what is
    /// mounted now, and what is mounted later.
    pub(super) fn pool(self, wanted: Option<u64>) -> io::Result<GroupPool> {
        let wanted = wanted.unwrap_or(DEFAULT_PROCESS_LIMIT);
        let rules = Rules {
            process_limit: Some(wanted.min(self.together - self.together / 4)),
            private_root: Some(GROUPS),
        };
        GroupPool::below(self.parent, rules)
    }
}
