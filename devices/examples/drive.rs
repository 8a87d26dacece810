//! Drives five devices as a guest's drivers do, without a machine: entropy, a disk, the
//! balloon, a directory and sockets. A monitor's tests do the same with its devices.
//!
//! `cargo run -p supermachine-devices --features testing --example drive`

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use supermachine_devices::GuestRam;
use supermachine_devices::reactor::MioReactor;
use supermachine_devices::testing::{Buffer, CountingIrq, Driver, RecordingMemory, guest_ram};
use supermachine_devices::virtio::VirtioDevice;
use supermachine_devices::virtio::balloon::Balloon;
use supermachine_devices::virtio::blk::{Blk, BlkConfig};
use supermachine_devices::virtio::fs::{Fs, FsConfig};
use supermachine_devices::virtio::mmio::VirtioMmio;
use supermachine_devices::virtio::rng::Rng;
use supermachine_devices::virtio::vsock::{Vsock, VsockConfig};
use vm_memory::{Bytes, GuestAddress};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Where in the guest's memory rings, requests and answers are.
const RINGS: u64 = 0x1_0000;
const REQUEST: u64 = 0x8_0000;
const ANSWER: u64 = 0x9_0000;

/// A device in its transport, and the driver that has started it.
struct Machine {
    ram: GuestRam,
    driver: Driver,
}

impl Machine {
    fn new(device: Box<dyn VirtioDevice>, queues: &[u16]) -> Self {
        let ram = guest_ram(16 << 20);
        let irq = Arc::new(CountingIrq::default());
        let transport = VirtioMmio::new(ram.clone(), irq.clone(), device);
        let driver = Driver::start(&ram, Arc::new(transport), irq, RINGS, queues);
        Self { ram, driver }
    }

    /// Has the device read `request`, and gives it `room` bytes for an answer.
    fn push(&mut self, queue: u32, request: &[u8], room: u32) -> Result<()> {
        self.ram.write_slice(request, GuestAddress(REQUEST))?;
        let mut chain = Vec::new();
        if let Ok(len @ 1..) = u32::try_from(request.len()) {
            chain.push(Buffer::Readable { addr: REQUEST, len });
        }
        if room > 0 {
            let addr = ANSWER;
            chain.push(Buffer::Writable { addr, len: room });
        }
        self.driver.queues[usize::try_from(queue)?].push(&chain);
        self.driver.notify(queue);
        Ok(())
    }

    /// Waits for the device's interrupt; what it has written.
    fn answer(&mut self, queue: u32) -> Result<Vec<u8>> {
        let (_, written) = self.driver.wait_used(usize::try_from(queue)?);
        let mut answer = vec![0; usize::try_from(written)?];
        self.ram.read_slice(&mut answer, GuestAddress(ANSWER))?;
        Ok(answer)
    }

    fn ask(&mut self, queue: u32, request: &[u8], room: u32) -> Result<Vec<u8>> {
        self.push(queue, request, room)?;
        self.answer(queue)
    }
}

fn entropy() -> Result<()> {
    let mut machine = Machine::new(Box::new(Rng::host()), &[16]);
    let bytes = machine.ask(0, &[], 32)?;
    assert_eq!(bytes.len(), 32);
    println!("rng: {} bytes", bytes.len());
    Ok(())
}

fn disk() -> Result<()> {
    let file = tempfile::tempfile()?;
    file.set_len(1 << 20)?;
    let blk = Blk::new(file.try_clone()?, BlkConfig::default())?;
    let mut machine = Machine::new(Box::new(blk), &[64]);
    // VIRTIO_BLK_T_OUT to sector 3, and its 512 bytes.
    let mut request = [1u32, 0, 3, 0].map(u32::to_le_bytes).concat();
    request.extend([b'x'; 512]);
    assert_eq!(machine.ask(0, &request, 1)?, [0], "VIRTIO_BLK_S_OK");
    let mut sector = [0; 512];
    file.read_exact_at(&mut sector, 3 * 512)?;
    assert_eq!(sector, [b'x'; 512]);
    println!("blk: sector 3 is in the file");
    Ok(())
}

fn balloon() -> Result<()> {
    let memory = RecordingMemory::new(4096);
    let balloon = Arc::new(Balloon::new(memory.clone()));
    let mut machine = Machine::new(Box::new(balloon.clone()), &[128, 128, 32]);
    balloon.set_target_pages(2);
    let pages = [0x300u32, 0x301].map(u32::to_le_bytes).concat();
    machine.ask(0, &pages, 0)?;
    let discarded = memory.discarded.lock().map_err(|_| "a lock")?.clone();
    assert_eq!(discarded.iter().map(|(_, bytes)| bytes).sum::<u64>(), 8192);
    println!("balloon: two pages are the host's: {discarded:x?}");
    Ok(())
}

fn directory() -> Result<()> {
    let place = tempfile::tempdir()?;
    std::fs::write(place.path().join("hello"), "content")?;
    let root = File::open(place.path())?;
    let fs: Fs = Fs::new(root.into(), FsConfig::new("share"))?;
    let mut machine = Machine::new(Box::new(fs), &[64, 64]);
    // A header of FUSE (length, opcode, unique, node, and who asks), and arguments.
    let mut ask = |opcode: u32, node: u64, arguments: &[u8]| {
        let length = u32::try_from(40 + arguments.len())?;
        let mut request = [length, opcode, 9, 0].map(u32::to_le_bytes).concat();
        request.extend(node.to_le_bytes());
        request.extend([0; 16]);
        request.extend(arguments);
        let answer = machine.ask(1, &request, 4096)?;
        assert_eq!(answer[4..8], [0; 4], "an error");
        Ok::<_, Box<dyn std::error::Error>>(answer[16..].to_vec())
    };
    let first = |answer: &[u8]| answer.first_chunk().copied().map(u64::from_le_bytes);
    let node = first(&ask(1, 1, b"hello\0")?).ok_or("LOOKUP says no node")?;
    let handle = first(&ask(14, node, &[0; 8])?).ok_or("OPEN says no handle")?;
    let mut arguments = handle.to_le_bytes().to_vec();
    arguments.extend([0, 0, 100].map(u32::to_le_bytes).concat());
    arguments.extend([0; 20]);
    let content = ask(15, node, &arguments)?;
    assert_eq!(content, b"content");
    println!("fs: {}", String::from_utf8_lossy(&content));
    Ok(())
}

fn sockets() -> Result<()> {
    const PORTS: [u32; 2] = [1234, 52];
    let place = tempfile::tempdir()?;
    let stem = place.path().join("vsock");
    // What the guest reaches as port 52 of the host.
    let listener = UnixListener::bind(place.path().join("vsock_52"))?;
    let config = VsockConfig {
        guest_cid: 3,
        mux: None,
        stem: Some(stem),
        listeners: Vec::new(),
        privileged_ports: Vec::new(),
    };
    let reactor = MioReactor::spawn()?;
    let vsock = Vsock::new(config, reactor.handle())?;
    let mut machine = Machine::new(Box::new(vsock), &[64, 64, 16]);
    let packet = |operation: u16, data: &[u8]| {
        let mut packet = [3u64, 2].map(u64::to_le_bytes).concat();
        packet.extend(PORTS.map(u32::to_le_bytes).concat());
        packet.extend(u32::try_from(data.len()).unwrap_or(0).to_le_bytes());
        packet.extend([1, operation].map(u16::to_le_bytes).concat());
        packet.extend([0, 1 << 16, 0].map(u32::to_le_bytes).concat());
        packet.extend(data);
        packet
    };
    // VIRTIO_VSOCK_OP_REQUEST, and room for what comes back.
    machine.push(0, &[], 4096)?;
    machine.ask(1, &packet(1, &[]), 0)?;
    let answer = machine.answer(0)?;
    assert_eq!(answer[30..32], [2, 0], "VIRTIO_VSOCK_OP_RESPONSE");
    let (mut host, _) = listener.accept()?;
    machine.ask(1, &packet(5, b"from the guest"), 0)?;
    let mut said = [0; 14];
    host.read_exact(&mut said)?;
    assert_eq!(&said, b"from the guest");
    machine.push(0, &[], 4096)?;
    host.write_all(b"from the host")?;
    // Credit may come before it.
    let data = loop {
        let packet = machine.answer(0)?;
        if packet[30..32] == [5, 0] {
            break packet[44..].to_vec();
        }
        machine.push(0, &[], 4096)?;
    };
    assert_eq!(data, b"from the host");
    println!("vsock: {}", String::from_utf8_lossy(&data));
    Ok(())
}

fn main() -> Result<()> {
    entropy()?;
    disk()?;
    balloon()?;
    directory()?;
    sockets()
}
