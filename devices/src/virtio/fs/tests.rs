//! The device behind its registers and queues.

use std::fs::File;
use std::sync::Arc;

use vm_memory::{Bytes, GuestAddress};

use super::wire::{Body, ENTRY_BYTES, Fields, IN_HEADER_BYTES, OUT_HEADER_BYTES, ROOT, opcode};
use super::*;
use crate::testing::{Buffer, CountingIrq, Driver, guest_ram};
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
