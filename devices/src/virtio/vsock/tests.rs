use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use vm_memory::{Bytes, GuestAddress};

use super::connection::BUFFER_BYTES;
use super::packet::{HEADER_BYTES, HOST_CID, Header, SHUTDOWN_RECEIVE, SHUTDOWN_SEND, op};
use super::*;
use crate::GuestRam;
use crate::testing::{Buffer, CountingIrq, Driver, DriverQueue, guest_ram};
use crate::virtio::mmio::{VirtioMmio, status};

mod guest;

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

#[test]
fn listener_client_is_bridged_to_its_guest_port() {
    let mut guest = Guest::start();
    let mut client = guest.client();
    let ports = guest.accept(1000);
    client.write_all(b"hello").unwrap();
    assert_eq!(guest.read(ports, 5), b"hello");
    guest.send(ports, b"world!");
    let mut reply = [0; 6];
    client.read_exact(&mut reply).unwrap();
    assert_eq!(&reply, b"world!");
}

#[test]
fn mux_client_chooses_its_port() {
    let mut guest = Guest::start();
    let mut client = patient(UnixStream::connect(guest.mux()).unwrap());
    client.write_all(b"CONNECT 77\nearly").unwrap();
    let ports = guest.accept(77);
    let line = read_line(&mut client);
    assert_eq!(line, format!("OK {}\n", ports.0));
    assert_eq!(guest.read(ports, 5), b"early");
    guest.send(ports, b"x");
    let mut byte = [0];
    client.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"x");
}
