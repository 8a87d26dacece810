//! The device behind its registers and queues.

use std::fs::File;
use std::sync::Arc;

use vm_memory::{Bytes, GuestAddress};

use super::wire::{Body, ENTRY_BYTES, Fields, IN_HEADER_BYTES, OUT_HEADER_BYTES, ROOT, opcode};
use super::*;
use crate::testing::{Buffer, CountingIrq, Driver, RecordingWindow, guest_ram};
use crate::virtio::mmio::{VirtioMmio, status};
use crate::{GuestRam, MmioDevice};

const RINGS: u64 = 0x1_0000;
const REQUEST: u64 = 0x8_0000;
const ANSWER: u64 = 0x9_0000;
const REQUESTS: u32 = 1;

struct Guest {
    ram: GuestRam,
    driver: Driver,
    place: tempfile::TempDir,
}

fn device(place: &tempfile::TempDir) -> Fs {
    let directory = File::open(place.path()).unwrap();
    Fs::new(directory.into(), FsConfig::new("share")).unwrap()
}

fn guest() -> Guest {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("a"), "content").unwrap();
    let ram = guest_ram(8 << 20);
    let irq = Arc::new(CountingIrq::default());
    let transport = VirtioMmio::new(ram.clone(), irq.clone(), Box::new(device(&place)));
    let driver = Driver::start(&ram, Arc::new(transport), irq, RINGS, &[64, 64]);
    Guest { ram, driver, place }
}

#[test]
fn what_a_request_has_in_the_window_is_taken_from_the_file_that_is_seen_there() {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("a"), vec![b'a'; 8192]).unwrap();
    std::fs::write(place.path().join("b"), "").unwrap();
    let (ram, irq) = (guest_ram(8 << 20), Arc::new(CountingIrq::default()));
    let window = RecordingWindow::new(32 << 30, 2);
    let directory = File::open(place.path()).unwrap();
    let config = FsConfig {
        dax: DaxPolicy::Always,
        ..FsConfig::new("share")
    };
    let fs: Fs = Fs::with_window(directory.into(), config, window.clone()).unwrap();
    assert_eq!(
        VirtioDevice::<Ram>::shared_memory(&fs, 0),
        Some(SharedMemory {
            address: 32 << 30,
            bytes: 2 * PIECE_BYTES
        })
    );
    assert_eq!(VirtioDevice::<Ram>::shared_memory(&fs, 1), None);
    let transport = VirtioMmio::new(ram.clone(), irq.clone(), Box::new(fs));
    let driver = Driver::start(&ram, Arc::new(transport), irq, RINGS, &[64, 64]);
    let mut guest = Guest { ram, driver, place };
    let [a, b] = [c"a", c"b"].map(|name| guest.node(name));
    let message = |opcode, node, arguments: &Body, data: u32| {
        let mut request = Body::default();
        let length = IN_HEADER_BYTES + arguments.0.len();
        let length = u32::try_from(length).unwrap() + data;
        let header = request.u32(length).u32(opcode).u64(9).u64(node);
        header.u64(0).u64(0).bytes(&arguments.0);
        request.0
    };
    let mut handles = [a, b].map(|node| {
        let mut arguments = Body::default();
        arguments.u32(2).u32(0);
        let answer = guest.ask(&message(opcode::OPEN, node, &arguments, 0));
        Fields(&answer[OUT_HEADER_BYTES..]).u64().unwrap()
    });
    let mut arguments = Body::default();
    let wanted = arguments.u64(u64::MAX).u64(0).u64(PIECE_BYTES);
    wanted.u64(3).u64(PIECE_BYTES);
    let answer = guest.ask(&message(opcode::SETUPMAPPING, a, &arguments, 0));
    assert_eq!(answer.len(), OUT_HEADER_BYTES);
    // What is mapped of one is written to the other, and read over the first.
    let data = |handle: u64, offset: u64, size: u32| {
        let mut arguments = Body::default();
        let fields = arguments.u64(handle).u64(offset).u32(size).u32(0);
        fields.u64(0).u32(2).u32(0);
        arguments
    };
    let seen = (32 << 30) + PIECE_BYTES + 100;
    let written = data(handles[1], 0, 5000);
    guest.push_with(
        &message(opcode::WRITE, b, &written, 5000),
        Some((seen, 5000)),
        None,
    );
    assert_eq!(guest.answer().len(), OUT_HEADER_BYTES + 8);
    let file = |guest: &Guest, name| std::fs::read(guest.place.path().join(name)).unwrap();
    assert_eq!(file(&guest, "b"), vec![b'a'; 5000]);
    std::fs::write(guest.place.path().join("b"), vec![b'b'; 600]).unwrap();
    let read = message(opcode::READ, b, &data(handles[1], 0, 600), 0);
    guest.push_with(&read, None, Some((seen, 600)));
    guest.answer();
    assert_eq!(file(&guest, "a")[100..700], vec![b'b'; 600]);
    // Where nothing is seen there is nothing.
    handles.swap(0, 1);
    let nowhere = data(handles[0], 0, 600);
    let request = message(opcode::WRITE, b, &nowhere, 600);
    guest.push_with(&request, Some(((32 << 30) + 100, 600)), None);
    let begun = std::time::Instant::now();
    while guest.driver.read(0x070) & status::NEEDS_RESET == 0 {
        assert!(begun.elapsed().as_secs() < 60);
        std::thread::yield_now();
    }
}

fn look_up(name: &std::ffi::CStr) -> Vec<u8> {
    let name = name.to_bytes_with_nul();
    let mut request = Body::default();
    let length = u32::try_from(IN_HEADER_BYTES + name.len()).unwrap();
    let header = request.u32(length).u32(opcode::LOOKUP).u64(9).u64(ROOT);
    header.u64(0).u64(0).bytes(name);
    request.0
}

impl Guest {
    fn push(&mut self, queue: u32, request: &[u8], room: u32) {
        self.ram
            .write_slice(request, GuestAddress(REQUEST))
            .unwrap();
        // Split where no structure ends.
        let (first, rest) = (7, u32::try_from(request.len()).unwrap() - 7);
        let mut chain = vec![
            Buffer::Readable {
                addr: REQUEST,
                len: first,
            },
            Buffer::Readable {
                addr: REQUEST + 7,
                len: rest,
            },
        ];
        if room > 0 {
            chain.push(Buffer::Writable {
                addr: ANSWER,
                len: 3,
            });
            chain.push(Buffer::Writable {
                addr: ANSWER + 3,
                len: room - 3,
            });
        }
        self.driver.queues[queue as usize].push(&chain);
        self.driver.notify(queue);
    }

    /// A request with data, or room for it, that is elsewhere.
    fn push_with(&mut self, request: &[u8], data: Option<(u64, u32)>, room: Option<(u64, u32)>) {
        self.ram
            .write_slice(request, GuestAddress(REQUEST))
            .unwrap();
        let mut chain = vec![Buffer::Readable {
            addr: REQUEST,
            len: u32::try_from(request.len()).unwrap(),
        }];
        chain.extend(data.map(|(addr, len)| Buffer::Readable { addr, len }));
        let header = if room.is_some() { 16 } else { 64 };
        chain.push(Buffer::Writable {
            addr: ANSWER,
            len: header,
        });
        chain.extend(room.map(|(addr, len)| Buffer::Writable { addr, len }));
        self.driver.queues[REQUESTS as usize].push(&chain);
        self.driver.notify(REQUESTS);
    }

    fn ask(&mut self, request: &[u8]) -> Vec<u8> {
        self.push(REQUESTS, request, 4096);
        self.answer()
    }

    fn answer(&mut self) -> Vec<u8> {
        let (_, length) = self.driver.wait_used(REQUESTS as usize);
        let mut answer = vec![0; length as usize];
        self.ram
            .read_slice(&mut answer, GuestAddress(ANSWER))
            .unwrap();
        answer
    }

    fn node(&mut self, name: &std::ffi::CStr) -> u64 {
        let answer = self.ask(&look_up(name));
        assert_eq!(answer.len(), OUT_HEADER_BYTES + ENTRY_BYTES);
        Fields(&answer[OUT_HEADER_BYTES..]).u64().unwrap()
    }
}

#[test]
fn requests_are_answered_off_the_thread_that_notifies() {
    let mut guest = guest();
    let mut tag = [0; 40];
    for (at, word) in (0x100..).step_by(4).zip(tag.chunks_mut(4)) {
        guest.driver.device.read(at, word);
    }
    assert_eq!(&tag[..6], b"share\0");
    assert_eq!(tag[36..], [1, 0, 0, 0]);
    let node = guest.node(c"a");
    assert!(node > ROOT);
    assert_eq!(guest.node(c"none"), 0);
    // What is forgotten has no answer, and comes on a queue of its own.
    let mut forget = Body::default();
    let header = forget.u32(48).u32(opcode::FORGET).u64(0).u64(node);
    header.u64(0).u64(0).u64(1);
    guest.push(0, &forget.0, 0);
    assert_eq!(guest.driver.wait_used(0).1, 0);
    assert_ne!(guest.node(c"a"), node);
}

#[test]
fn paused_device_leaves_requests_until_it_goes_on() {
    let mut guest = guest();
    guest.driver.device.pause();
    guest.push(REQUESTS, &look_up(c"a"), 4096);
    let state = guest.driver.device.state();
    assert_eq!(guest.driver.queues[1].used_index(), 0);
    // Put back to this moment, it finds the request that was left.
    guest.driver.device.reset_to(&state).unwrap();
    guest.driver.device.resume();
    assert_eq!(guest.answer().len(), OUT_HEADER_BYTES + ENTRY_BYTES);
}

#[test]
fn state_is_for_a_device_with_the_same_tag() {
    let mut guest = guest();
    let node = guest.node(c"a");
    let state = guest.driver.device.state();
    let take = |tag: &str| {
        let directory = File::open(guest.place.path()).unwrap();
        let fs: Fs = Fs::new(directory.into(), FsConfig::new(tag)).unwrap();
        let irq = Arc::new(CountingIrq::default());
        let other = VirtioMmio::new(guest.ram.clone(), irq, Box::new(fs));
        other.restore(&state)
    };
    assert_eq!(take("share"), Ok(()));
    assert_eq!(take("other"), Err(RestoreError::Invalid("tag")));
    // Put back in place, it knows what it knew.
    guest.driver.device.pause();
    guest.driver.device.reset_to(&state).unwrap();
    guest.driver.device.resume();
    assert_eq!(guest.node(c"a"), node);
}

#[test]
fn requests_that_are_none_are_given_back_and_broken_chains_stop_the_device() {
    let mut guest = guest();
    guest.push(REQUESTS, &[0xff; 20], 4096);
    assert_eq!(guest.driver.wait_used(1).1, 0);
    guest.push(REQUESTS, &look_up(c"a"), 10);
    assert_eq!(guest.driver.wait_used(1).1, 0);
    assert!(guest.node(c"a") > ROOT);
    let nowhere = Buffer::Readable {
        addr: 1 << 40,
        len: 100,
    };
    guest.driver.queues[1].push(&[nowhere]);
    guest.driver.notify(REQUESTS);
    // It waits for what is in flight, and for nothing that will not come.
    assert!(guest.driver.device.state().needs_reset);
    assert_ne!(guest.driver.status() & status::NEEDS_RESET, 0);
    guest.driver.write(0x070, 0);
    assert_eq!(guest.driver.status(), 0);
}

#[test]
fn tags_and_numbers_of_threads_that_cannot_be_are_refused() {
    let place = tempfile::tempdir().unwrap();
    let make = |config: FsConfig| {
        let directory = File::open(place.path()).unwrap();
        Fs::<Ram>::new(directory.into(), config).map(drop)
    };
    for tag in ["", "with\0zero", &"t".repeat(37)] {
        assert!(matches!(make(FsConfig::new(tag)), Err(FsError::BadTag(_))));
    }
    for workers in [0, 17] {
        let config = FsConfig {
            workers,
            ..FsConfig::new("tag")
        };
        assert!(matches!(make(config), Err(FsError::BadWorkers(_))));
    }
    assert!(make(FsConfig::new("t".repeat(36))).is_ok());
    let file = File::open(std::env::current_exe().unwrap()).unwrap();
    let refused = Fs::<Ram>::new(file.into(), FsConfig::new("tag"));
    assert!(matches!(refused, Err(FsError::Directory(_))));
}

#[cfg(target_os = "linux")]
mod notified;
