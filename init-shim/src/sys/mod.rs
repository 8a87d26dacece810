//! The system calls the shim needs, as safe functions. All `unsafe` of this
//! crate is in this module and its children.

mod child;
mod descriptors;
mod files;
mod machine;
mod mounts;
mod namespaces;
mod netlink;
mod process;
mod sockets;

#[cfg(target_arch = "aarch64")]
#[path = "clone_aarch64.rs"]
mod clone;
#[cfg(target_arch = "x86_64")]
#[path = "clone_x86_64.rs"]
mod clone;

use std::io;

pub use descriptors::{
    POLLERR, POLLHUP, POLLIN, POLLOUT, POLLPRI, POLLRDHUP, Pty, Watch, event_counter,
    fill_standard_descriptors, grow_pipe, make_dir_at, open_at, pending_bytes, pipe, poll, read,
    read_pieces, remove_dir_at, set_nonblocking, set_winsize, write,
};
pub use files::{device_numbers, make_node, set_times, set_xattr, xattrs};
pub use machine::{
    block_child_signals, disable_malloc_arenas, hostname, kernel_release, kill_everything,
    loopback_up, monotonic_ns, power_off, random_bytes, reseed_kernel, set_clock,
    set_descriptor_limit, set_hostname, set_umask, sync_all, total_memory_bytes,
    wait_for_child_signal, wall_ns,
};
pub use mounts::{
    MountFlags, freeze, mount, mount_detached, mount_overlay, move_root, resize, unmount,
};
pub use namespaces::Namespaces;
pub use netlink::{interface_index, route_request};
pub use process::{
    Confinement, Credentials, Outcome, Plan, SpawnError, Stage, Waited, kill_group, kill_process,
    reap_orphan, spawn, wait_nonblocking,
};
pub use sockets::{
    Peer, accept, receive, receive_onto, send, shutdown_write, vsock_connect_host, vsock_listen,
};

/// The return value of a C call that reports errors as -1 and `errno`.
fn check(ret: libc::c_int) -> io::Result<libc::c_int> {
    if ret < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(ret)
    }
}

/// As [`check`] for calls that return a byte count.
fn check_len(ret: isize) -> io::Result<usize> {
    usize::try_from(ret).map_err(|_| io::Error::last_os_error())
}
