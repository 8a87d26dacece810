//! Fuzz logic over states that are damaged, but have good checksums.

use std::path::Path;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use devices::MmioDevice;
use devices::virtio::mmio::VirtioMmio;
use devices::virtio::net::{NetBackend, NetConfig, NetFrame, NetPort};
use snapshot::{RamMapping, Scope, Section, SectionKind, StateFile, StateWriter};
use vm_memory::VolatileMemory;

use super::{
    ExitReason, PrepareOptions, PreparedMachine, RestoreOptions, RunningMachine, SavedMachine,
};
use crate::arch::aarch64::{affinity, layout};
use crate::backend::table::TableEngine;
use crate::fuzzing::Input;
use crate::memory::GuestMemory;
use crate::spec::{Network, Owners, Share, SymlinkPolicy};

pub(super) const RAM_BYTES: u64 = 16 << 20;
/// Where the guest's program is, behind the rings of its devices.
const ENTRY: u64 = layout::RAM + (1 << 20);
/// Guest memory for each queue's rings.
const QUEUE_BYTES: u64 = 0x4000;
/// How long what was restored may run.
const RUN: Duration = Duration::from_millis(2);
/// How long stopping it may take on a busy host.
const PATIENCE: Duration = Duration::from_secs(20);
/// Most vCPUs it may get: each is a thread.
const VCPUS: u32 = 4;

/// Writes to memory and to its console, sleeps until the next interrupt, and
/// begins again.
const PROGRAM: [u32; 8] = [
    0xd2a1_8001, // mov x1, #0x0c00_0000: replaced by the UART's address below
    0x5280_0820, // mov w0, #'A'
    0xb900_0020, // str w0, [x1]
    0xf900_0083, // str x3, [x4]
    0xf940_0085, // ldr x5, [x4]
    0x9100_0463, // add x3, x3, #1
    0xd503_207f, // wfi
    0x17ff_fffa, // b to the second
];

/// What state files hold of one device, vCPU or controller.
struct Part {
    kind: SectionKind,
    instance: u16,
    version: u16,
    scope: Scope,
    bytes: Vec<u8>,
}

fn write_register(device: &VirtioMmio, offset: u64, value: u64) {
    let [a, b, c, d, ..] = value.to_le_bytes();
    device.write(offset, &[a, b, c, d]);
}

fn read_register(device: &VirtioMmio, offset: u64) -> u32 {
    let mut value = [0; 4];
    device.read(offset, &mut value);
    u32::from_le_bytes(value)
}

/// Does what a driver does to take a device: all features, all queues (virtio
/// 1.2 §4.2.3.1).
fn drive(device: &VirtioMmio, slot: u64) {
    for status in [1, 3] {
        write_register(device, 0x70, status);
    }
    for half in 0..2 {
        write_register(device, 0x14, half);
        let features = read_register(device, 0x10);
        write_register(device, 0x24, half);
        write_register(device, 0x20, features.into());
    }
    write_register(device, 0x70, 11);
    for queue in 0..8 {
        write_register(device, 0x30, queue);
        let size = u64::from(read_register(device, 0x34)).min(64);
        if size == 0 {
            break;
        }
        let rings = layout::RAM + (slot * 8 + queue) * QUEUE_BYTES;
        write_register(device, 0x38, size);
        for (offset, address) in [
            (0x80, rings),
            (0x90, rings + 0x1000),
            (0xa0, rings + 0x2000),
        ] {
            write_register(device, offset, address);
            write_register(device, offset + 4, address >> 32);
        }
        write_register(device, 0x44, 1);
    }
    write_register(device, 0x70, 15);
    // It is the driver's from now on, or gave up.
    assert!(read_register(device, 0x70) & 0x4f == 15, "slot {slot}");
}

fn prepared() -> PreparedMachine {
    let options = PrepareOptions {
        vcpus: 1,
        ..PrepareOptions::default()
    };
    PreparedMachine::new(&TableEngine::software(), options).expect("the software engine is there")
}

/// What the machines here have of the host: any file is a disk that can be read, and any
/// directory can be mounted.
pub(super) fn options() -> RestoreOptions {
    let program = std::env::current_exe().unwrap_or_default();
    let directory = program.parent().unwrap_or(Path::new("/"));
    RestoreOptions {
        disks: vec![(&*program).into()],
        shares: vec![share(directory)],
        network: Some(network()),
        ..RestoreOptions::default()
    }
}

/// Bytes of the frames that a [`Peer`] gives.
pub(super) const FRAME_BYTES: usize = 1700;

/// Takes each frame, and gives one as often as there is room.
#[derive(Default)]
struct Peer(OnceLock<Weak<dyn NetPort>>);

impl NetBackend for Peer {
    fn attach(&self, port: Weak<dyn NetPort>) {
        let _ = self.0.set(port);
    }

    fn wake(&self) {
        let Some(port) = self.0.get().and_then(Weak::upgrade) else {
            return;
        };
        while port.take(&mut Vec::new()).is_some() {}
        while port.give(&NetFrame {
            parts: [&[1; FRAME_BYTES], &[], &[]],
            checksum: None,
            segmentation: None,
        }) {}
        port.flush();
    }

    fn is_active(&self) -> bool {
        false
    }

    fn save(&self) -> Vec<u8> {
        Vec::new()
    }

    fn restore(&self, _: &[u8]) -> bool {
        true
    }
}

/// A network interface whose other end takes and gives all it can.
pub(super) fn network() -> Network {
    Network {
        config: NetConfig {
            mac: [2, 0, 0, 0, 0, 2],
            mtu: 1500,
        },
        backend: Arc::new(Peer::default()),
    }
}

/// A directory that a guest can mount.
pub(super) fn share(directory: &Path) -> Share {
    Share {
        directory: directory.into(),
        tag: "share".into(),
        read_only: true,
        symlinks: SymlinkPolicy::default(),
        owners: Owners::default(),
        dax: None,
        watched: true,
        open_files: 100,
    }
}

/// A machine with a driver for each device, that has run.
pub(super) fn good() -> Result<SavedMachine, super::MachineError> {
    let mut prepared = prepared();
    prepared.create_vcpus(2)?;
    let options = options();
    let others = super::assembly::open_others(
        &options.disks,
        &[],
        &options.shares,
        options.network.as_ref(),
        prepared.windows(),
    )?;
    let memory = GuestMemory::allocate(layout::RAM, RAM_BYTES)?;
    write_program(memory.host());
    let machine = prepared.assemble(memory, others, VCPUS)?;
    if let Some(parts) = &*machine.parts() {
        for (slot, device) in (0..).zip(&parts.devices.virtio) {
            drive(device, slot);
        }
    }
    machine.control.cpu_on(affinity(0), ENTRY, 0);
    machine.resume();
    let begun = Instant::now();
    // A vCPU that has not begun has no state yet.
    while machine.total_exits() == 0 && begun.elapsed() < PATIENCE {
        std::thread::sleep(RUN);
    }
    machine.pause()?;
    machine.save()
}

fn write_program(ram: &RamMapping) {
    let uart = u32::try_from(layout::UART >> 16).unwrap_or(0);
    let mut program = PROGRAM;
    // MOVZ X1, #UART, LSL #16.
    program[0] = 0xd2a0_0001 | uart << 5;
    for (at, word) in (0..).zip(program) {
        let offset = usize::try_from(ENTRY - layout::RAM).unwrap_or(0) + at * 4;
        // It is inside of RAM.
        let _ = ram.slice().get_ref(offset).map(|place| place.store(word));
    }
}

/// The sections of a good state file.
fn good_parts() -> &'static [Part] {
    static PARTS: OnceLock<Vec<Part>> = OnceLock::new();
    PARTS.get_or_init(|| {
        let saved = good().expect("a good machine can be saved");
        let file = saved
            .encode()
            .and_then(|bytes| Ok(StateFile::parse(bytes)?));
        let file = file.expect("a good state can be written");
        assert_eq!(SavedMachine::decode(&file).expect("and read"), saved);
        let part = |section: Section<'_>| Part {
            kind: section.kind,
            instance: section.instance,
            version: section.version,
            scope: section.scope,
            bytes: section.bytes.to_vec(),
        };
        file.sections().map(part).collect()
    })
}

/// Changes one thing somewhere in one section.
fn damage(parts: &mut [Part], input: &mut Input<'_>) {
    let which = usize::from(input.u8()) % parts.len();
    let bytes = &mut parts[which].bytes;
    let at = usize::from(input.u16()) % bytes.len().max(1);
    let operation = input.u8();
    let value = input.number();
    match (operation % 7, bytes.get_mut(at)) {
        (0, Some(byte)) => *byte ^= 1 << (value & 7),
        (1, Some(byte)) => *byte = value.to_le_bytes()[0],
        (2, Some(_)) => {
            // A number of a fixed length, as registers have.
            let end = bytes.len().min(at + 8);
            let len = end - at;
            bytes[at..end].copy_from_slice(&value.to_le_bytes()[..len]);
        }
        (3, Some(_)) => {
            // A number of a variable length in place of another.
            let mut varint = Vec::new();
            let mut rest = value;
            while rest > 0x7f {
                varint.push(rest.to_le_bytes()[0] | 0x80);
                rest >>= 7;
            }
            varint.push(rest.to_le_bytes()[0]);
            let end = bytes[at..].iter().position(|byte| byte & 0x80 == 0);
            let end = end.map_or(bytes.len(), |length| at + length + 1);
            bytes.splice(at..end, varint);
        }
        (4, Some(_)) => drop(bytes.remove(at)),
        (5, _) => bytes.insert(at, value.to_le_bytes()[0]),
        (_, _) => bytes.truncate(at),
    }
}

/// Damages the state of a machine as `data` says, with good checksums; without
/// data not at all. What
/// can be read and restored nevertheless runs or ends like any machine.
///
/// # Panics
/// When a thread of the machine panics, or it cannot be stopped.
pub fn fuzz_saved_machine(data: &[u8]) {
    let mut input = Input(data);
    let copied = good_parts().iter().map(|part| Part {
        bytes: part.bytes.clone(),
        ..*part
    });
    let mut parts: Vec<Part> = copied.collect();
    let changes = if data.is_empty() {
        0
    } else {
        1 + input.u8() % 4
    };
    for _ in 0..changes {
        damage(&mut parts, &mut input);
    }
    // That of the interrupt controller has a checksum of its own.
    for part in &mut parts {
        if part.kind == SectionKind::INTERRUPTS {
            softhv::fuzzing::fix_gic_checksum(&mut part.bytes);
        }
    }
    let mut writer = StateWriter::new();
    for part in &parts {
        let section = Section {
            kind: part.kind,
            instance: part.instance,
            version: part.version,
            scope: part.scope,
            bytes: &part.bytes,
        };
        if writer.section(&section).is_err() {
            return;
        }
    }
    let Ok(file) = writer.finish() else {
        return;
    };
    let file = StateFile::parse(file).expect("what the writer takes the reader does");
    let Ok(saved) = SavedMachine::decode(&file) else {
        return;
    };
    let ram = RamMapping::anonymous(RAM_BYTES).expect("there is memory");
    write_program(&ram);
    let restored = prepared().restore_over(RAM_BYTES, || Ok(ram), &saved, &options());
    match restored {
        Ok((machine, _)) => run(&machine),
        Err(error) => assert!(changes > 0, "{error}"),
    }
}

/// Lets a machine run while its guest's driver is impatient.
fn run(machine: &RunningMachine) {
    machine.resume();
    let devices: Vec<Arc<VirtioMmio>> = match &*machine.parts() {
        Some(parts) => parts.devices.virtio.clone(),
        None => Vec::new(),
    };
    for device in &devices {
        (0..8).for_each(|queue| write_register(device, 0x50, queue));
    }
    let ended = machine.wait_timeout(RUN);
    let lost = |reason: &ExitReason| matches!(reason, ExitReason::VcpuLost { .. });
    assert!(!ended.as_ref().is_some_and(lost), "{ended:?}");
    let begun = Instant::now();
    // It can be captured as well as any, or is not there any more.
    if ended.is_none() && machine.pause().is_ok() {
        let _ = machine.save();
        machine.resume();
    }
    drop(devices);
    machine.stop().expect("any machine can be stopped");
    let ended = machine.wait();
    assert!(!lost(&ended), "{ended:?}");
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
}
