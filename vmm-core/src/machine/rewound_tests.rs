//! Whether a reset brings back every page that a device wrote, each device
//! writing in each of its ways. Nobody but the device writes to the pages that
//! its answers are in, and nothing else could mark them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use devices::testing::{Buffer, CountingIrq, Driver, DriverQueue};
use devices::virtio::mmio::VirtioMmio;
use devices::{GuestRam, MmioDevice};
use snapshot::{Description, EngineId, Stamp, Store, SystemFiles, Written};
use vm_memory::{Bytes, GuestAddress};

use super::control::Power;
use super::damaged::{FRAME_BYTES, network, share};
use super::{MachineError, PrepareOptions, PreparedMachine, RestoreOptions, RunningMachine};
use crate::arch::aarch64::{affinity, layout};
use crate::backend::table::TableEngine;
use crate::hypervisor::Architecture as Guests;
use crate::memory::GuestMemory;

const RAM_BYTES: u64 = 16 << 20;
const ENTRY: u64 = layout::RAM + (1 << 20);
const RINGS: u64 = layout::RAM + (2 << 20);
const RINGS_OF_A_DEVICE: u64 = 0x1_0000;
/// Requests: written before the machine is saved.
const REQUESTS: u64 = layout::RAM + (4 << 20);
/// Answers: written by devices alone.
const ANSWERS: u64 = layout::RAM + (8 << 20);
const ANSWERS_OF_A_REQUEST: u64 = 0x8_0000;
/// What memory holds where nobody wrote: not zero, so that a discard shows.
const BACKGROUND: u8 = 0xa5;
const PATIENCE: Duration = Duration::from_secs(30);

/// A request: the slot of its device, its queue, its own bytes and the ranges
/// of the answer, each an offset and a length.
struct Request {
    slot: usize,
    queue: u16,
    bytes: Vec<u8>,
    answers: &'static [(u64, u32)],
}

/// Ranges that begin and end at, before and behind edges of 4 and 16 KiB.
fn requests() -> Vec<Request> {
    let blk = |kind: u8| vec![kind, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut state = vec![0; 24];
    state[0] = 3;
    let (hot, _) = crate::arch::of(Guests::Aarch64)
        .layout()
        .hot_region(RAM_BYTES);
    state[8..16].copy_from_slice(&hot.to_le_bytes());
    state[16] = 1;
    let page = u32::try_from(ANSWERS / 4096).unwrap() + 0x700;
    let fuse = |len: u8, opcode: u8, node: u8| {
        let mut request = vec![0; len.into()];
        (request[0], request[4], request[16]) = (len, opcode, node);
        request
    };
    vec![
        // Random numbers over an edge of 4 KiB, of 16 KiB, and a whole page; enough
        // on each side that they are never what was there.
        Request {
            slot: 1,
            queue: 0,
            bytes: vec![],
            answers: &[(0xff8, 16)],
        },
        Request {
            slot: 1,
            queue: 0,
            bytes: vec![],
            answers: &[(0x3ff8, 16)],
        },
        Request {
            slot: 1,
            queue: 0,
            bytes: vec![],
            answers: &[(0x4000, 4096)],
        },
        // A page for the balloon, which writes no answer.
        Request {
            slot: 2,
            queue: 0,
            bytes: page.to_le_bytes().to_vec(),
            answers: &[],
        },
        Request {
            slot: 3,
            queue: 0,
            bytes: state,
            answers: &[(0x1ff9, 10)],
        },
        // A read that is served at once, with its status on a page of its own,
        // one for the worker threads, and the disk's name.
        Request {
            slot: 4,
            queue: 0,
            bytes: blk(0),
            answers: &[(0x3f00, 512), (0x7fff, 1)],
        },
        Request {
            slot: 4,
            queue: 0,
            bytes: blk(0),
            answers: &[(0x0200, 0x4_0000), (0x7_0000, 1)],
        },
        Request {
            slot: 4,
            queue: 0,
            bytes: blk(8),
            answers: &[(0x3ffa, 20), (0x8000, 1)],
        },
        // Figures of a file system, over both kinds of edges, and a file to forget,
        // which has no answer.
        Request {
            slot: 5,
            queue: 2,
            bytes: fuse(40, 17, 1),
            answers: &[(0xfd0, 96)],
        },
        Request {
            slot: 5,
            queue: 2,
            bytes: fuse(40, 17, 1),
            answers: &[(0x3fff, 16), (0x7ffe, 80)],
        },
        Request {
            slot: 5,
            queue: 0,
            bytes: fuse(48, 2, 99),
            answers: &[],
        },
        // A frame of the guest's.
        Request {
            slot: 6,
            queue: 1,
            bytes: vec![0; 72],
            answers: &[],
        },
    ]
}

/// A packet of the guest to nobody, which is answered by a reset.
fn stray() -> [u8; 44] {
    let mut packet = [0; 44];
    (packet[0], packet[8], packet[28], packet[30]) = (3, 2, 1, 5);
    packet
}

/// Where the reset packet and the socket device's event go to.
const PACKET: u64 = ANSWERS + 30 * 0x4_0000 + 0x3ff0;
const EVENT: u64 = ANSWERS + 31 * 0x4_0000 + 0xffe;

/// The buffers that a frame goes to, which takes both.
const FRAME: [(u64, u32); 2] = [
    (ANSWERS + 26 * 0x4_0000 + 0xf00, 1000),
    (ANSWERS + 26 * 0x4_0000 + 0x7e00, 1000),
];
/// What of the frame and its header is in the second.
const REST_BYTES: u64 = FRAME_BYTES as u64 + 12 - 1000;

fn transports(machine: &RunningMachine) -> (Vec<Arc<VirtioMmio>>, GuestRam) {
    let parts = machine.parts();
    let parts = parts.as_ref().unwrap();
    (parts.devices.virtio.clone(), parts.memory.ram().clone())
}

fn prepared() -> PreparedMachine {
    let options = PrepareOptions {
        vcpus: 1,
        ..PrepareOptions::default()
    };
    PreparedMachine::new(&TableEngine::software(), options).unwrap()
}

/// A machine whose guest sleeps, with a driver for each device; the queues.
fn original(disk: &Path) -> (RunningMachine, Vec<Vec<DriverQueue>>) {
    let mut prepared = prepared();
    prepared.create_vcpus(1).unwrap();
    let others = super::assembly::open_others(
        &[disk.into()],
        &[],
        &[share(disk.parent().unwrap())],
        Some(&network()),
        prepared.windows(),
    );
    let memory = GuestMemory::allocate(layout::RAM, RAM_BYTES).unwrap();
    let ram = memory.ram().clone();
    let background = vec![BACKGROUND; usize::try_from(RAM_BYTES).unwrap()];
    ram.write_slice(&background, GuestAddress(layout::RAM))
        .unwrap();
    // wfi; b to it.
    for (at, word) in [(0, 0xd503_207f_u32), (4, 0x17ff_ffff)] {
        ram.write_obj(word, GuestAddress(ENTRY + at)).unwrap();
    }
    for (n, request) in (0..).zip(requests()) {
        let at = GuestAddress(REQUESTS + n * 0x1000);
        ram.write_slice(&request.bytes, at).unwrap();
    }
    ram.write_slice(&stray(), GuestAddress(REQUESTS + 0x8_0000))
        .unwrap();
    let machine = prepared.assemble(memory, others.unwrap(), 1).unwrap();
    let mut queues = Vec::new();
    for (slot, device) in (0..).zip(transports(&machine).0) {
        let sizes: &[u16] = match slot {
            0 | 2 | 5 => &[16, 16, 16],
            6 => &[16, 16],
            _ => &[16],
        };
        let irq = Arc::new(CountingIrq::default());
        let base = RINGS + slot * RINGS_OF_A_DEVICE;
        queues.push(Driver::start(&ram, device, irq, base, sizes).queues);
    }
    // For the event that a copy is told of.
    queues[0][2].push(&[Buffer::Writable {
        addr: EVENT,
        len: 8,
    }]);
    machine.control.cpu_on(affinity(0), ENTRY, 0);
    machine.resume();
    wait("vCPU", || machine.control.power() == [Power::On]);
    machine.pause().unwrap();
    (machine, queues)
}

fn content(machine: &RunningMachine) -> Vec<u8> {
    let (_, ram) = transports(machine);
    let mut bytes = vec![0; usize::try_from(RAM_BYTES).unwrap()];
    ram.read_slice(&mut bytes, GuestAddress(layout::RAM))
        .unwrap();
    bytes
}

/// Pages of 4 KiB that are not the same, by number.
fn different(one: &[u8], other: &[u8]) -> Vec<usize> {
    let pages = one.chunks(4096).zip(other.chunks(4096)).enumerate();
    let pages = pages.filter(|(_, (one, other))| one != other);
    pages.map(|(n, _)| n).collect()
}

/// Adds a request and waits until the device has used it.
fn ask(device: &VirtioMmio, index: u16, queue: &mut DriverQueue, buffers: &[Buffer]) {
    queue.push(buffers);
    device.write(0x050, &u32::from(index).to_le_bytes());
    let wanted = queue.avail_index();
    wait("an answer", || queue.used_index() == wanted);
}

fn wait(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "no {what}");
        std::thread::yield_now();
    }
}

/// Makes every device of a copy write; the pages that they must have changed.
fn use_devices(machine: &RunningMachine, queues: &[Vec<DriverQueue>]) -> Vec<u64> {
    let (devices, ram) = transports(machine);
    let here = |queue: &DriverQueue| queue.in_ram(ram.clone());
    let mut queues: Vec<Vec<DriverQueue>> = queues
        .iter()
        .map(|queues| queues.iter().map(here).collect())
        .collect();
    // The guest is told of the reset by itself, and acknowledges it.
    wait("event", || queues[0][2].used_index() == 1);
    let spare = [Buffer::Writable {
        addr: EVENT + 0x2000,
        len: 8,
    }];
    queues[0][2].push(&spare);
    devices[0].write(0x050, &2_u32.to_le_bytes());
    queues[0][0].push(&[Buffer::Writable {
        addr: PACKET,
        len: 4096,
    }]);
    let packet = [Buffer::Readable {
        addr: REQUESTS + 0x8_0000,
        len: 44,
    }];
    ask(&devices[0], 1, &mut queues[0][1], &packet);
    devices[0].write(0x050, &0_u32.to_le_bytes());
    wait("packet", || queues[0][0].used_index() == 1);
    let mut changed = vec![PACKET, PACKET + 40, EVENT, EVENT + 3];
    for (n, request) in (0..).zip(requests()) {
        let mut chain = Vec::new();
        if let Ok(len @ 1..) = u32::try_from(request.bytes.len()) {
            let addr = REQUESTS + n * 0x1000;
            chain.push(Buffer::Readable { addr, len });
        }
        let base = ANSWERS + n * ANSWERS_OF_A_REQUEST;
        for &(offset, len) in request.answers {
            let addr = base + offset;
            chain.push(Buffer::Writable { addr, len });
            changed.extend([addr, addr + u64::from(len) - 1]);
        }
        let queue = &mut queues[request.slot][usize::from(request.queue)];
        ask(&devices[request.slot], request.queue, queue, &chain);
    }
    let [first, second] = FRAME.map(|(addr, len)| Buffer::Writable { addr, len });
    queues[6][0].push(&[first]);
    ask(&devices[6], 0, &mut queues[6][0], &[second]);
    changed.extend([FRAME[0].0, FRAME[0].0 + 999]);
    changed.extend([FRAME[1].0, FRAME[1].0 + REST_BYTES - 1]);
    changed
}

fn stored(machine: &RunningMachine, root: &Path) -> (Store, Stamp) {
    let saved = machine.save().unwrap();
    let store = Store::new(root).unwrap();
    let mut draft = store.lock("m", Duration::ZERO).unwrap().draft().unwrap();
    let state = saved.encode().unwrap();
    let written = machine.store_memory(|memory| {
        let written = Written::write(&SystemFiles, draft.path(), memory, &state);
        Ok::<_, MachineError>(written.unwrap())
    });
    draft.adopt(written.unwrap()).unwrap();
    let stamp = Stamp::new(EngineId::new("soft"));
    let description = Description {
        key: String::new(),
        created_unix_s: 0,
        stamp: stamp.clone(),
        vcpus: 1,
        resources: Vec::new(),
        labels: BTreeMap::new(),
    };
    draft.publish(description).unwrap();
    (store, stamp)
}

#[test]
fn a_reset_brings_back_every_page_that_any_device_wrote() {
    let _one = super::lock(&super::ONE_MACHINE);
    let base = std::env::temp_dir().join(format!("vmm-rewound-{}", std::process::id()));
    std::fs::create_dir_all(&base).unwrap();
    let disk = base.join("disk");
    std::fs::write(&disk, vec![0x3c; 1 << 20]).unwrap();
    let (first, queues) = original(&disk);
    let (store, stamp) = stored(&first, &base.join("snapshots"));
    drop(first);
    let snapshot = store.open("m", &stamp).unwrap();
    let saved = super::SavedMachine::decode(snapshot.state()).unwrap();
    let options = RestoreOptions {
        disks: vec![disk.as_path().into()],
        shares: vec![share(&base)],
        network: Some(network()),
        ..RestoreOptions::default()
    };
    let (copy, _) = prepared().restore(&snapshot, &saved, &options).unwrap();
    // Restored, it is paused: not even the event is there yet.
    let baseline = content(&copy);
    for round in 0..3 {
        copy.resume();
        let changed = use_devices(&copy, &queues);
        copy.pause().unwrap();
        let pages = different(&content(&copy), &baseline);
        for address in changed {
            let page = usize::try_from((address - layout::RAM) / 4096).unwrap();
            assert!(
                pages.contains(&page),
                "{round}: {address:#x} was not written"
            );
        }
        let report = copy.reset(&saved).unwrap();
        assert!(report.pages.is_some(), "all memory was mapped afresh");
        let left = different(&content(&copy), &baseline);
        assert!(left.is_empty(), "{round}: pages {left:x?}");
        // Nothing more comes before it goes on.
        std::thread::sleep(Duration::from_millis(20));
        assert!(different(&content(&copy), &baseline).is_empty());
    }
    drop(copy);
    std::fs::remove_dir_all(base).unwrap();
}
