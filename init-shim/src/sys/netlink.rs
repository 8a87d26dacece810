//! Network interfaces, as the kernel is told of them (rtnetlink(7)).

use std::ffi::CStr;
use std::io;
use std::os::fd::AsRawFd;

use super::descriptors::own;
use super::{check, check_len};

/// Longest answer: a header and an error with a request of ours in it.
const ANSWER_BYTES: usize = 1024;
/// Bytes of `struct nlmsghdr`.
const HEADER_BYTES: usize = 16;

/// The number of an interface.
///
/// # Errors
/// `ENODEV` if there is none of this name.
pub fn interface_index(name: &CStr) -> io::Result<u32> {
    // SAFETY: the name ends with a zero.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}

/// Sends one request of rtnetlink, without its header, and waits for its answer.
///
/// # Errors
/// What the kernel says of it.
pub fn route_request(kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
    // SAFETY: no pointers.
    let socket = check(unsafe {
        libc::socket(
            libc::AF_NETLINK,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC,
            libc::NETLINK_ROUTE,
        )
    })
    .map(own)?;
    let length = HEADER_BYTES.saturating_add(body.len());
    let mut message = Vec::with_capacity(length);
    message.extend(u32::try_from(length).unwrap_or(0).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    let always = libc::NLM_F_REQUEST | libc::NLM_F_ACK;
    message.extend((flags | u16::try_from(always).unwrap_or(0)).to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    // SAFETY: the message is valid for reads of its length.
    check_len(unsafe {
        libc::send(
            socket.as_raw_fd(),
            message.as_ptr().cast(),
            message.len(),
            0,
        )
    })?;
    let mut answer = [0_u8; ANSWER_BYTES];
    // SAFETY: the buffer is valid for writes of its length.
    let got = check_len(unsafe {
        libc::recv(
            socket.as_raw_fd(),
            answer.as_mut_ptr().cast(),
            answer.len(),
            0,
        )
    })?;
    answered(answer.get(..got).unwrap_or_default())
}

/// The error number of `NLMSG_ERROR`, behind the header: zero for none.
fn answered(answer: &[u8]) -> io::Result<()> {
    let code = answer
        .get(HEADER_BYTES..)
        .and_then(|rest| rest.first_chunk());
    match code.map(|code| i32::from_ne_bytes(*code)) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(code.saturating_neg())),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_that_are_not_there_and_answers_that_are_cut_are_errors() {
        assert!(interface_index(c"lo").is_ok());
        assert!(interface_index(c"none-such").is_err());
        assert!(answered(&[0; 20]).is_ok());
        assert!(answered(&[0; 19]).is_err());
        let refused = route_request(u16::MAX, 0, &[]).unwrap_err();
        assert!(refused.raw_os_error().is_some(), "{refused}");
    }
}
