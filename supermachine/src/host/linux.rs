//! Linux, by way of `/proc`.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, socket_with};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// A descriptor that stands for a process, whoever its parent is.
pub fn process_descriptor(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or(io::ErrorKind::InvalidInput)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// Makes `to` a copy of `from` that shares its blocks until one is written, on file
/// systems that can do that.
pub fn share_content(from: &File, to: &File) -> io::Result<()> {
    Ok(rustix::fs::ioctl_ficlone(to, from)?)
}

/// How many inotify instances, and how many watches, all programs of one user may have.
#[cfg(feature = "cli")]
pub fn watch_limits() -> Option<(u64, u64)> {
    let of = |name: &str| {
        let text = std::fs::read_to_string(format!("/proc/sys/fs/inotify/{name}"));
        text.ok()?.trim().parse().ok()
    };
    Some((of("max_user_instances")?, of("max_user_watches")?))
}

/// Ends a process at once.
pub fn kill(process: BorrowedFd<'_>) {
    // It fails for one that has ended, which is what was wanted.
    let _ = pidfd_send_signal(process, Signal::KILL);
}

/// Sends a process a signal, if `still` says that it is the one that is meant.
/// The descriptor comes first, so that its number cannot change hands between.
pub fn signal_if(pid: Pid, signal: Signal, still: impl FnOnce() -> bool) -> io::Result<()> {
    let process = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => process,
        Err(Errno::SRCH) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if !still() {
        return Ok(());
    }
    match pidfd_send_signal(process, signal) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether the other end of a stream is closed, and not only its half that sends.
pub fn is_hung_up(stream: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(stream, PollFlags::empty())];
    let at_once = Timespec::default();
    poll(&mut fds, Some(&at_once)).is_ok() && fds[0].revents().contains(PollFlags::HUP)
}

/// Memory a process has to itself: what is resident without what files and
/// shared mappings are behind (proc(5), statm). 0 if it is gone.
pub fn private_bytes(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    let mut pages = text
        .split(' ')
        .skip(1)
        .map_while(|word| word.parse::<u64>().ok());
    let (resident, shared) = (pages.next().unwrap_or(0), pages.next().unwrap_or(0));
    resident.saturating_sub(shared) * rustix::param::page_size() as u64
}

/// Page faults of this process without and with waiting for a disk (proc(5), stat:
/// the 10th and the 12th field).
pub fn page_faults() -> Option<(u64, u64)> {
    faults_in(&std::fs::read_to_string("/proc/self/stat").ok()?)
}

fn faults_in(stat: &str) -> Option<(u64, u64)> {
    // The name in front of the third may have spaces and parentheses in it.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(7);
    let minor = fields.next()?.parse().ok()?;
    let major = fields.nth(1)?.parse().ok()?;
    Some((minor, major))
}

/// Whether a thread of a process runs, or would if there were a processor for it (proc(5),
/// stat: the third field).
pub fn has_running_thread(pid: u32) -> Option<bool> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let runs = |stat: String| state_in(&stat) == Some('R');
    // One that has ended meanwhile does not.
    let mut stats = threads
        .flatten()
        .filter_map(|thread| std::fs::read_to_string(thread.path().join("stat")).ok());
    Some(stats.any(runs))
}

fn state_in(stat: &str) -> Option<char> {
    stat.rsplit_once(") ")?.1.chars().next()
}

/// Memory of the host in bytes, if it tells.
pub fn memory_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The signals that this process ignores: bit n - 1 for signal n (proc(5), status).
#[cfg(feature = "cli")]
pub fn ignored_signals() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = text.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

/// A connection that broke is an error and no signal, as with `std`'s streams.
pub const SEND_FLAGS: SendFlags = SendFlags::NOSIGNAL;
/// Descriptors that are received are closed on exec.
pub const RECEIVE_FLAGS: RecvFlags = RecvFlags::CMSG_CLOEXEC;

/// It is: see [`RECEIVE_FLAGS`].
pub fn close_on_exec(_received: &OwnedFd) -> io::Result<()> {
    Ok(())
}

/// A socket that is not connected and does not block.
pub fn stream_socket() -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_found_behind_any_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 120 5 3 6 10 20";
        assert_eq!(faults_in(stat), Some((120, 3)));
        assert_eq!(state_in(stat), Some('S'));
        assert_eq!(state_in("7 (a"), None);
        // This thread.
        assert_eq!(has_running_thread(std::process::id()), Some(true));
        for bad in ["", "7 (a", "7 (a) S 1", "7 (a) S 1 7 7 0 -1 4194304 x 5 3"] {
            assert_eq!(faults_in(bad), None, "{bad}");
        }
        assert!(page_faults().is_none_or(|(minor, _)| minor > 0));
    }
}
