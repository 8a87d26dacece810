//! Stream sockets: vsock in a guest, any other kind in tests.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use super::descriptors::own;
use super::{check, check_len};

/// Address family of vsock (`linux/socket.h`); libc lacks it for musl.
const AF_VSOCK: libc::c_int = 40;
/// `VMADDR_CID_HOST`: the host's context id.
const CID_HOST: u32 = libc::VMADDR_CID_HOST;
/// `VMADDR_CID_ANY`: every context id of this machine.
const CID_ANY: u32 = libc::VMADDR_CID_ANY;
/// Ports that only processes with `CAP_NET_BIND_SERVICE` get: up to
/// `LAST_RESERVED_PORT` of the kernel's `af_vsock.c`.
const PRIVILEGED_PORTS: u32 = 1023;
/// Connections waiting for a worker.
const BACKLOG: libc::c_int = 1024;

fn vsock_socket() -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    check(unsafe { libc::socket(AF_VSOCK, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) }).map(own)
}

fn vsock_address(cid: u32, port: u32) -> libc::sockaddr_vm {
    // SAFETY: sockaddr_vm is plain data for which all zeroes are valid.
    let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    address.svm_family = libc::sa_family_t::try_from(AF_VSOCK).unwrap_or_default();
    address.svm_cid = cid;
    address.svm_port = port;
    address
}

/// Size of a `sockaddr_vm` (`linux/vm_sockets.h` pads it to a `sockaddr`).
const ADDRESS_LEN: libc::socklen_t = 16;
const _: () = assert!(size_of::<libc::sockaddr_vm>() == 16);

/// Listens on a vsock port of this guest.
///
/// # Errors
/// As the socket calls.
pub fn vsock_listen(port: u32) -> io::Result<OwnedFd> {
    let socket = vsock_socket()?;
    bind(&socket, &vsock_address(CID_ANY, port))?;
    // SAFETY: no pointers.
    check(unsafe { libc::listen(socket.as_raw_fd(), BACKLOG) })?;
    Ok(socket)
}

/// Connects to a vsock port of the host from a privileged port, by which the
/// host tells the agent from a guest's user.
///
/// # Errors
/// As the socket calls; `EADDRINUSE` if all privileged ports are taken,
/// `ECONNRESET` if the host does not listen, `ETIMEDOUT` if it says nothing for
/// half a second.
pub fn vsock_connect_host(port: u32) -> io::Result<OwnedFd> {
    let socket = vsock_socket()?;
    bind_privileged(&socket)?;
    connect(&socket, &vsock_address(CID_HOST, port))?;
    Ok(socket)
}

/// Takes the next free privileged port. In turn, so that what the host still
/// sends to a connection that has ended does not meet the next one.
fn bind_privileged(socket: &OwnedFd) -> io::Result<()> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let mut result = Ok(());
    for _ in 0..PRIVILEGED_PORTS {
        let port = 1 + NEXT.fetch_add(1, Ordering::Relaxed) % PRIVILEGED_PORTS;
        result = bind(socket, &vsock_address(CID_ANY, port));
        match &result {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            _ => return result,
        }
    }
    result
}

fn bind(socket: &OwnedFd, address: &libc::sockaddr_vm) -> io::Result<()> {
    let address = std::ptr::from_ref(address).cast();
    // SAFETY: the address is valid for its length.
    check(unsafe { libc::bind(socket.as_raw_fd(), address, ADDRESS_LEN) }).map(drop)
}

/// `SO_VM_SOCKETS_CONNECT_TIMEOUT` of 64-bit systems (`linux/vm_sockets.h`).
const CONNECT_TIMEOUT: libc::c_int = 6;
/// How long the host may take to answer a call. The kernel's own limit of 2 s
/// would be the time a machine is out of reach that was captured, or whose
/// device was reset, between call and answer: nobody tells a socket that is
/// not connected yet.
const ANSWER_LIMIT: libc::timeval = libc::timeval {
    tv_sec: 0,
    tv_usec: 500_000,
};

fn connect(socket: &OwnedFd, address: &libc::sockaddr_vm) -> io::Result<()> {
    let limit = ANSWER_LIMIT;
    let size = libc::socklen_t::try_from(size_of::<libc::timeval>()).unwrap_or_default();
    // SAFETY: the option takes one timeval. Without it the kernel's limit holds.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            AF_VSOCK,
            CONNECT_TIMEOUT,
            (&raw const limit).cast(),
            size,
        );
    }
    let address = std::ptr::from_ref(address).cast();
    // SAFETY: the address is valid for its length.
    check(unsafe { libc::connect(socket.as_raw_fd(), address, ADDRESS_LEN) }).map(drop)
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// The machine's host, over vsock.
    Host,
    /// Anybody else on vsock, such as a process of this machine.
    Stranger,
    /// A socket of another family, where the name of the socket decides who
    /// may connect.
    NotVsock,
}

/// Tells from the address that the kernel gives who connected. Over vsock the
/// kernel takes the context id from the transport: what comes over loopback
/// never has the host's.
fn peer_of(address: &libc::sockaddr_vm) -> Peer {
    if i32::from(address.svm_family) != AF_VSOCK {
        Peer::NotVsock
    } else if address.svm_cid == CID_HOST {
        Peer::Host
    } else {
        Peer::Stranger
    }
}

/// Waits for a connection.
///
/// # Errors
/// As `accept4(2)`.
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<(OwnedFd, Peer)> {
    let mut address = vsock_address(0, 0);
    let mut len = ADDRESS_LEN;
    // SAFETY: the address has room for `len` bytes; a longer one of another
    // family is cut by the kernel.
    let socket = check(unsafe {
        libc::accept4(
            listener.as_raw_fd(),
            (&raw mut address).cast(),
            &raw mut len,
            libc::SOCK_CLOEXEC,
        )
    })
    .map(own)?;
    Ok((socket, peer_of(&address)))
}

/// Receives once; with `wait` unset an empty socket gives `WouldBlock`.
///
/// # Errors
/// As `recv(2)`.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8], wait: bool) -> io::Result<usize> {
    let flags = if wait { 0 } else { libc::MSG_DONTWAIT };
    // SAFETY: the buffer is valid for writes of its length.
    check_len(unsafe {
        libc::recv(
            socket.as_raw_fd(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            flags,
        )
    })
}

/// As [`receive`], onto the end of `buffer`, at most `most` bytes.
///
/// # Errors
/// As `recv(2)`.
pub fn receive_onto(
    socket: BorrowedFd<'_>,
    buffer: &mut Vec<u8>,
    most: usize,
    wait: bool,
) -> io::Result<usize> {
    let flags = if wait { 0 } else { libc::MSG_DONTWAIT };
    buffer.reserve_exact(most);
    let room = buffer.spare_capacity_mut();
    let most = most.min(room.len());
    // SAFETY: the room is valid for writes of as many bytes.
    let count = check_len(unsafe {
        libc::recv(socket.as_raw_fd(), room.as_mut_ptr().cast(), most, flags)
    })?;
    // SAFETY: the kernel wrote so many bytes, which are no more than there was room for.
    unsafe { buffer.set_len(buffer.len() + count.min(most)) };
    Ok(count)
}

/// Sends what fits without waiting and without `SIGPIPE`.
///
/// # Errors
/// As `send(2)`.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the buffer is valid for reads of its length.
    check_len(unsafe {
        libc::send(
            socket.as_raw_fd(),
            bytes.as_ptr().cast(),
            bytes.len(),
            flags,
        )
    })
}

/// Tells the peer that nothing more comes.
pub fn shutdown_write(socket: BorrowedFd<'_>) {
    // SAFETY: no pointers. A peer that is already gone is the only error.
    unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_WR) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_host_is_taken_for_the_host() {
        for (cid, peer) in [
            (0, Peer::Stranger),
            (1, Peer::Stranger),
            (2, Peer::Host),
            (3, Peer::Stranger),
            (u32::MAX, Peer::Stranger),
        ] {
            assert_eq!(peer_of(&vsock_address(cid, 1023)), peer, "{cid}");
        }
        let mut unix = vsock_address(2, 0);
        unix.svm_family = 1;
        assert_eq!(peer_of(&unix), Peer::NotVsock);
    }
}
