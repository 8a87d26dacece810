//! Stream sockets: vsock in a guest, any other kind in tests.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use super::descriptors::own;
use super::{check, check_len};

/// Address family of vsock (`linux/socket.h`); libc lacks it for musl.
const AF_VSOCK: libc::c_int = 40;
/// `VMADDR_CID_HOST`: the host's context id.
const CID_HOST: u32 = libc::VMADDR_CID_HOST;
/// `VMADDR_CID_ANY`: every context id of this machine.
const CID_ANY: u32 = libc::VMADDR_CID_ANY;
/// `VMADDR_CID_LOCAL`: this machine itself, if its kernel has the loopback.
const CID_LOCAL: u32 = libc::VMADDR_CID_LOCAL;
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
    let address = vsock_address(CID_ANY, port);
    // SAFETY: the address is valid for its length.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), ADDRESS_LEN) })?;
    // SAFETY: no pointers.
    check(unsafe { libc::listen(socket.as_raw_fd(), BACKLOG) })?;
    Ok(socket)
}

/// Connects to a vsock port of the host.
///
/// # Errors
/// As the socket calls; `ECONNRESET` if the host does not listen, `ETIMEDOUT`
/// if it says nothing for half a second.
pub fn vsock_connect_host(port: u32) -> io::Result<OwnedFd> {
    vsock_connect(CID_HOST, port)
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

/// Connects to a vsock port of this machine.
///
/// # Errors
/// As the socket calls; `ENODEV` in a kernel without vsock loopback.
pub fn vsock_connect_self(port: u32) -> io::Result<OwnedFd> {
    vsock_connect(CID_LOCAL, port)
}

fn vsock_connect(cid: u32, port: u32) -> io::Result<OwnedFd> {
    let socket = vsock_socket()?;
    let address = vsock_address(cid, port);
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
    // SAFETY: the address is valid for its length.
    check(unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), ADDRESS_LEN) })?;
    Ok(socket)
}

/// Waits for a connection.
///
/// # Errors
/// As `accept4(2)`.
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: a null address asks for none.
    check(unsafe {
        libc::accept4(
            listener.as_raw_fd(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            libc::SOCK_CLOEXEC,
        )
    })
    .map(own)
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
