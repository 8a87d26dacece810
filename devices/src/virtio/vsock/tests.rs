use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use vm_memory::{Bytes, GuestAddress};

use super::credit::BUFFER_BYTES;
use super::packet::{HEADER_BYTES, HOST_CID, Header, SHUTDOWN_RECEIVE, SHUTDOWN_SEND, op};
use super::*;
use crate::reactor::MioReactor;
use crate::testing::{Buffer, CountingIrq, Driver, DriverQueue, guest_ram};
use crate::virtio::mmio::{MmioState, VirtioMmio, status};
use crate::{GuestRam, Ram};

mod connect;
mod flow;
mod guest;
mod malformed;
mod privileged;
mod restore;
mod shutdown;
mod wrapped;

use guest::{CID, Guest};

const PATIENCE: Duration = Duration::from_secs(10);

/// Makes reads and writes of a test fail instead of hang.
fn patient(stream: UnixStream) -> UnixStream {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn read_line(stream: &mut UnixStream) -> String {
    let mut line = String::new();
    let mut byte = [0];
    while stream.read(&mut byte).unwrap() == 1 {
        line.push(char::from(byte[0]));
        if byte[0] == b'\n' {
            break;
        }
    }
    line
}

/// The other side closes without a byte; unread data makes that a reset.
fn assert_closed(client: &mut UnixStream) {
    match client.read(&mut [0]) {
        Ok(0) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("expected a close, got {other:?}"),
    }
}

/// Bytes whose order shows.
fn stream_bytes(len: usize) -> Vec<u8> {
    (0..len)
        .map(|at| (at % 253 + at / 65536).to_le_bytes()[0])
        .collect()
}
