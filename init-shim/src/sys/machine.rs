//! Calls that concern the whole machine or the whole process.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::descriptors::own;
use super::{check, check_len};

/// Nanoseconds of `CLOCK_MONOTONIC`.
#[must_use]
pub fn monotonic_ns() -> u64 {
    clock_ns(libc::CLOCK_MONOTONIC)
}

fn clock_ns(clock: libc::clockid_t) -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` has room for the result; the clocks asked for always exist.
    unsafe { libc::clock_gettime(clock, &raw mut now) };
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

/// Nanoseconds of `CLOCK_REALTIME` since the Unix epoch; 0 before it.
#[must_use]
pub fn wall_ns() -> u64 {
    clock_ns(libc::CLOCK_REALTIME)
}

/// Steps the wall clock.
///
/// # Errors
/// As `clock_settime(2)`.
pub fn set_clock(unix_ns: u64) -> io::Result<()> {
    let out_of_range = |_| io::Error::from_raw_os_error(libc::EINVAL);
    let time = libc::timespec {
        tv_sec: libc::time_t::try_from(unix_ns / 1_000_000_000).map_err(out_of_range)?,
        tv_nsec: libc::c_long::try_from(unix_ns % 1_000_000_000).map_err(out_of_range)?,
    };
    // SAFETY: `time` is a valid timespec.
    check(unsafe { libc::clock_settime(libc::CLOCK_REALTIME, &raw const time) }).map(drop)
}

/// `_IOW('R', 0x03, int[2])` of `linux/random.h`.
const RNDADDENTROPY: u32 = 0x4008_5203;
/// `_IO('R', 0x07)` of `linux/random.h`.
const RNDRESEEDCRNG: u32 = 0x5207;
/// Longest seed, `exec_proto::MAX_SEED_BYTES`.
const SEED_MAX: usize = 512;

/// `struct rand_pool_info` with a buffer of fixed size.
#[repr(C)]
struct PoolInfo {
    entropy_bits: libc::c_int,
    bytes: libc::c_int,
    data: [u8; SEED_MAX],
}

/// Mixes a seed and what is `known` besides into the kernel's pool, credits all
/// of the seed, and makes the generator take it up at once. `random` is an open
/// `/dev/urandom`.
///
/// # Errors
/// As the two ioctls; `EINVAL` for more than 512 bytes.
pub fn reseed_kernel(random: BorrowedFd<'_>, seed: &[u8], known: &[u8]) -> io::Result<()> {
    let invalid = || io::Error::from_raw_os_error(libc::EINVAL);
    let credited = libc::c_int::try_from(seed.len()).map_err(|_| invalid())?;
    let bytes = libc::c_int::try_from(known.len()).map_err(|_| invalid())?;
    let mut info = PoolInfo {
        entropy_bits: credited.saturating_mul(8),
        bytes: bytes.saturating_add(credited),
        data: [0; SEED_MAX],
    };
    let (head, tail) = info
        .data
        .split_at_mut_checked(seed.len())
        .ok_or_else(invalid)?;
    head.copy_from_slice(seed);
    tail.get_mut(..known.len())
        .ok_or_else(invalid)?
        .copy_from_slice(known);
    // SAFETY: the kernel reads the header and `bytes` bytes, all inside `info`.
    check(unsafe { libc::ioctl(random.as_raw_fd(), RNDADDENTROPY as _, &raw const info) })?;
    // SAFETY: takes no argument.
    check(unsafe { libc::ioctl(random.as_raw_fd(), RNDRESEEDCRNG as _, 0) }).map(drop)
}

/// Fills a buffer from the kernel's generator.
///
/// # Errors
/// As `getrandom(2)`.
pub fn random_bytes(buffer: &mut [u8; 16]) -> io::Result<()> {
    // SAFETY: the buffer is valid for writes of its length, and so short a
    // request is never answered in part.
    check_len(unsafe { libc::getrandom(buffer.as_mut_ptr().cast(), buffer.len(), 0) }).map(drop)
}

/// Writes all dirty file data to its disks.
pub fn sync_all() {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::sync() };
}

/// Kills every process but this one. Only PID 1 may mean that.
pub fn kill_everything() {
    if std::process::id() == 1 {
        // SAFETY: no pointers.
        unsafe { libc::kill(-1, libc::SIGKILL) };
    }
}

/// Powers the machine off, which only PID 1 of a guest may do; anything else
/// ends its own process.
pub fn power_off() -> ! {
    if std::process::id() == 1 {
        // SAFETY: no pointers; does not return on success.
        unsafe { libc::reboot(libc::RB_POWER_OFF) };
        // SAFETY: as above, for a machine without a power-off method.
        unsafe { libc::reboot(libc::RB_HALT_SYSTEM) };
    }
    std::process::exit(125)
}

fn system_name() -> libc::utsname {
    // SAFETY: utsname is plain bytes for which zeroes are valid.
    let mut name: libc::utsname = unsafe { std::mem::zeroed() };
    // SAFETY: `name` has room for the result.
    unsafe { libc::uname(&raw mut name) };
    name
}

/// The kernel's release as `uname -r` prints it.
#[must_use]
pub fn kernel_release() -> Vec<u8> {
    let name = system_name();
    // SAFETY: the kernel terminates the field, and zeroes did before.
    let release = unsafe { CStr::from_ptr(name.release.as_ptr()) };
    release.to_bytes().to_vec()
}

/// The host name.
#[must_use]
pub fn hostname() -> Vec<u8> {
    let name = system_name();
    // SAFETY: as in `kernel_release`.
    let node = unsafe { CStr::from_ptr(name.nodename.as_ptr()) };
    node.to_bytes().to_vec()
}

/// Installed memory in bytes.
#[must_use]
pub fn total_memory_bytes() -> u64 {
    // SAFETY: sysinfo is plain data for which zeroes are valid.
    let mut info: libc::sysinfo = unsafe { std::mem::zeroed() };
    // SAFETY: `info` has room for the result.
    unsafe { libc::sysinfo(&raw mut info) };
    info.totalram.saturating_mul(u64::from(info.mem_unit))
}

/// Sets the host name.
///
/// # Errors
/// As `sethostname(2)`.
pub fn set_hostname(name: &[u8]) -> io::Result<()> {
    // SAFETY: the name is valid for its length.
    check(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) }).map(drop)
}

/// Brings the loopback interface up.
///
/// # Errors
/// As the socket and ioctl calls.
pub fn loopback_up() -> io::Result<()> {
    // SAFETY: no pointers.
    let socket =
        check(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })
            .map(own)?;
    // SAFETY: ifreq is plain data for which zeroes are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (slot, byte) in request.ifr_name.iter_mut().zip(*b"lo") {
        *slot = libc::c_char::from_ne_bytes([byte]);
    }
    let flags = libc::IFF_UP | libc::IFF_RUNNING;
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags).unwrap_or_default();
    // SAFETY: SIOCSIFFLAGS reads one ifreq.
    check(unsafe {
        libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCSIFFLAGS as _,
            &raw const request,
        )
    })
    .map(drop)
}

/// Sets the limit on open descriptors that commands inherit.
///
/// # Errors
/// As `setrlimit(2)`.
pub fn set_descriptor_limit(soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit {
        rlim_cur: soft,
        rlim_max: hard,
    };
    // SAFETY: `limit` is a valid rlimit.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }).map(drop)
}

/// Sets the file mode mask that commands inherit.
pub fn set_umask(mask: u32) {
    // SAFETY: no pointers, cannot fail.
    unsafe { libc::umask(mask) };
}

/// Keeps the C allocator to one arena: a second one costs each new thread
/// several system calls and page faults.
pub fn disable_malloc_arenas() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no pointers; takes effect for threads started later.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

fn child_signal_set() -> libc::sigset_t {
    // SAFETY: zeroes are a valid sigset_t, and both calls get a valid pointer.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        set
    }
}

/// Blocks `SIGCHLD` in this thread and those it will start, and makes writes to
/// closed pipes an error instead of a signal.
pub fn block_child_signals() {
    let set = child_signal_set();
    // SAFETY: valid set; the old mask is not wanted. SIG_IGN is a valid handler.
    unsafe {
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
    }
}

/// Waits for the `SIGCHLD` that [`block_child_signals`] holds back.
pub fn wait_for_child_signal() {
    let set = child_signal_set();
    // SAFETY: valid set; no further information is wanted.
    unsafe { libc::sigwaitinfo(&raw const set, std::ptr::null_mut()) };
}
