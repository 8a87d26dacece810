//! Open files that go with a message.
//!
//! They follow the message's frame: for each [`AT_ONCE`] of them a byte, to which
//! the system ties them (`SCM_RIGHTS`). The message says how many there are, so
//! that the frame is read to its end and no further, and nothing is lost.

use crate::host;
use rustix::io::{Errno, IoSlice, IoSliceMut};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage,
};
use snapshot::OpenFiles;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// How many go with one byte. Linux takes 253 (`SCM_MAX_FD`), others as many as
/// fit into a buffer of their own.
pub const AT_ONCE: usize = 64;
/// Most that go with a message: the layers and the small files of a snapshot, with
/// room.
pub const MOST: usize = 512;

/// The names of files and the files, in one order.
pub fn in_parts(files: OpenFiles) -> (Vec<String>, Vec<File>) {
    let names = files.names().map(str::to_owned).collect();
    (names, files.into_files().collect())
}

pub fn descriptors<F: AsFd>(files: &[F]) -> Vec<BorrowedFd<'_>> {
    files.iter().map(AsFd::as_fd).collect()
}

/// Passes up to [`AT_ONCE`] descriptors on. With [`io::ErrorKind::WouldBlock`] and
/// [`io::ErrorKind::ResourceBusy`] nothing was passed, because the connection is
/// full, or because this user's processes have as many under way as they may.
pub fn pass(to: impl AsFd, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let byte = [IoSlice::new(b"f")];
    match rustix::net::sendmsg(to, &byte, &mut ancillary, host::SEND_FLAGS) {
        Ok(_) => Ok(()),
        Err(Errno::TOOMANYREFS) => Err(io::ErrorKind::ResourceBusy.into()),
        Err(error) => Err(error.into()),
    }
}

/// Takes `count` descriptors that were passed, and closes what else comes along.
pub fn take(from: impl AsFd, count: usize) -> io::Result<Vec<OwnedFd>> {
    let wrong = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    if count > MOST {
        return Err(wrong("a message with too many files"));
    }
    let mut taken = Vec::with_capacity(count);
    while taken.len() < count {
        let expected = (count - taken.len()).min(AT_ONCE);
        let before = taken.len();
        if !take_some(&from, &mut taken)? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if taken.len() - before != expected {
            return Err(wrong("a message with other files than it names"));
        }
    }
    Ok(taken)
}

/// Takes what was passed with one byte; `false` at the end of the stream.
fn take_some(from: impl AsFd, into: &mut Vec<OwnedFd>) -> io::Result<bool> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
    let mut byte = [0];
    loop {
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut buffers = [IoSliceMut::new(&mut byte)];
        let received =
            rustix::net::recvmsg(&from, &mut buffers, &mut ancillary, host::RECEIVE_FLAGS);
        let received = match received {
            Err(Errno::INTR) => continue,
            received => received?,
        };
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                for descriptor in descriptors {
                    host::close_on_exec(&descriptor)?;
                    into.push(descriptor);
                }
            }
        }
        if received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(io::Error::other("no room for the files of a message"));
        }
        return Ok(received.bytes > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::UnixStream;

    fn files(count: usize) -> Vec<File> {
        let own = std::env::current_exe().unwrap();
        (0..count).map(|_| File::open(&own).unwrap()).collect()
    }

    fn pass_all(to: &UnixStream, files: &[File]) {
        for some in files.chunks(AT_ONCE) {
            pass(to, &descriptors(some)).unwrap();
        }
    }

    fn inode(file: &File) -> u64 {
        file.metadata().unwrap().ino()
    }

    #[test]
    fn files_come_after_their_frame_and_before_the_next() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        for count in [0, 1, AT_ONCE, AT_ONCE + 1, 3 * AT_ONCE] {
            let files = files(count);
            ours.write_all(b"one").unwrap();
            pass_all(&ours, &files);
            ours.write_all(b"two").unwrap();
            let mut frame = [0; 3];
            theirs.read_exact(&mut frame).unwrap();
            assert_eq!(&frame, b"one");
            let taken = take(&theirs, count).unwrap();
            assert_eq!(taken.len(), count);
            for (taken, file) in taken.into_iter().zip(&files) {
                assert_eq!(inode(&taken.into()), inode(file));
            }
            theirs.read_exact(&mut frame).unwrap();
            assert_eq!(&frame, b"two");
        }
    }

    #[test]
    fn files_that_were_taken_are_not_inherited() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        pass_all(&ours, &files(1));
        let taken = take(&theirs, 1).unwrap();
        let flags = rustix::io::fcntl_getfd(&taken[0]).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    }

    #[test]
    fn fewer_or_more_files_than_were_announced_are_an_error_and_stay_nowhere() {
        let open = || std::fs::read_dir("/dev/fd").unwrap().count();
        for (passed, announced) in [(1, 2), (2, 1), (AT_ONCE, AT_ONCE + 1)] {
            let (ours, theirs) = UnixStream::pair().unwrap();
            pass_all(&ours, &files(passed));
            drop(ours);
            assert!(take(&theirs, announced).is_err());
        }
        let (ours, theirs) = UnixStream::pair().unwrap();
        (&ours).write_all(b"f").unwrap();
        assert!(take(&theirs, 1).is_err());
        assert!(take(&theirs, MOST + 1).is_err());
        // Of the tests at the same time others may have some open.
        assert!(open() < 4 * AT_ONCE);
    }
}
