//! Requests to a server for a directory.

use std::fs::{self, File};
use std::os::unix::fs::symlink;

use super::{Input, MAX_OPS};
use crate::testing::RecordingWindow;
use crate::virtio::fs::{
    DaxPolicy, InMemory, Lately, Owners, PIECE_BYTES, Rules, Server, SymlinkPolicy,
};

/// Most room for an answer.
const MAX_ROOM: usize = 4096;
const HEADER_BYTES: usize = 16;
/// `FALLOCATE`, which could take all of the host's disk, and `FSYNC`, `FSYNCDIR` and
/// `SYNCFS`, which wait for it.
const LEFT_OUT: [u32; 4] = [43, 20, 30, 50];
/// `IOCTL`, with which a file loses something here.
const LOSES: u32 = 39;
const NAMES: [&[u8]; 12] = [
    b"a\0", b"d\0", b"in\0", b"out\0", b"b\0", b"new\0", b"..\0", b".\0", b"\0", b"d/x\0",
    b"no end", b"/\0",
];

/// Numbers that a guest has been given, and some that it has not.
fn number(input: &mut Input<'_>) -> u64 {
    match input.u8() {
        0 => input.u64(),
        255 => u64::from(input.u8() % 8) * PIECE_BYTES,
        small => (small % 8).into(),
    }
}

fn request(input: &mut Input<'_>, opcode: u32) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    bytes.extend(opcode.to_le_bytes());
    bytes.extend([0; 8]);
    bytes.extend(number(input).to_le_bytes());
    bytes.extend([0; 16]);
    for _ in 0..input.u8() % 12 {
        match input.u8() % 4 {
            0 => bytes.extend(number(input).to_le_bytes()),
            1 => bytes.extend(u32::from(input.u8()).to_le_bytes()),
            2 => bytes.extend(input.pick(&NAMES)),
            _ => bytes.extend(input.u32().to_le_bytes()),
        }
    }
    bytes
}

/// Whatever a guest says, it gets answers of the length they say, and what is beside
/// the directory stays as it is.
///
/// # Panics
/// When the server does something else.
pub fn fuzz_fs(data: &[u8]) {
    let mut input = Input(data);
    let place = tempfile::tempdir().expect("a directory");
    let share = place.path().join("share");
    let secret = place.path().join("secret");
    fs::create_dir_all(share.join("d")).expect("a directory");
    fs::write(&secret, "secret").expect("a file");
    fs::write(share.join("a"), "content").expect("a file");
    symlink("d", share.join("in")).expect("a link");
    symlink("../secret", share.join("out")).expect("a link");
    let kind = input.u8();
    let rules = Rules {
        read_only: kind % 8 == 0,
        symlinks: input.pick(&[SymlinkPolicy::Opaque, SymlinkPolicy::Deny]),
        owners: Owners::default(),
    };
    let root = File::open(&share).expect("a directory");
    let mut server = Server::new(root.into(), rules).expect("a server");
    let window = RecordingWindow::new(32 << 30, 4);
    if kind < 128 {
        server = server.with_window(window.clone(), DaxPolicy::Always);
    }
    if kind % 4 == 1 {
        server = server.with_host_watch();
    }
    let mut buffer = Vec::new();
    for _ in 0..MAX_OPS {
        if input.is_empty() {
            break;
        }
        let opcode = match input.u8() {
            255 => input.u32(),
            other => u32::from(other % 53),
        };
        if LEFT_OUT.contains(&opcode) {
            continue;
        }
        let request = request(&mut input, opcode);
        let mut exchange = InMemory {
            request: &request,
            answer: vec![0; usize::from(input.u16()) % MAX_ROOM],
        };
        if opcode == LOSES {
            window.lose(u64::from(input.u8() % 4) * PIECE_BYTES);
        }
        let length = server.answer(&mut exchange, &mut buffer);
        let length = length.expect("memory that can be used");
        if length == 0 {
            continue;
        }
        assert!((HEADER_BYTES..=exchange.answer.len()).contains(&length));
        let said = u32::try_from(length).unwrap_or(u32::MAX);
        assert_eq!(exchange.answer[..4], said.to_le_bytes());
    }
    fs::write(share.join("d/told"), "").expect("a file");
    let mut told = Lately::default();
    for event in server.events() {
        // Whatever the guest knows, there is something to tell or there is nothing.
        let _ = server.tell_event(&event, &mut told);
    }
    drop(told);
    let mut beside: Vec<_> = fs::read_dir(place.path())
        .expect("a directory")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    beside.sort_unstable();
    assert_eq!(beside, ["secret", "share"]);
    assert_eq!(fs::read(&secret).expect("a file"), b"secret");
}
