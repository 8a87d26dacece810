//! What holds for every device, each tried through its registers and queues.

use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use vm_memory::{Bytes, GuestAddress};

use super::VirtioDevice;
use super::balloon::Balloon;
use super::blk::{Blk, BlkConfig};
use super::fs::{Fs, FsConfig};
use super::mem::{BLOCK_BYTES, Mem, MemConfig};
use super::mmio::VirtioMmio;
use super::net::{Net, NetBackend, NetConfig, NetFrame, NetPort};
use super::rng::Rng;
use super::vsock::{Vsock, VsockConfig};
use crate::reactor::MioReactor;
use crate::testing::{Buffer, CountingIrq, Driver, RecordingMemory, guest_ram};
use crate::{DeviceMemory, GuestRam, Ram};

mod chains;
mod memory;
mod positions;
mod races;
mod refilled;
mod wrapped;

const RAM_BYTES: usize = 4 << 20;
const RINGS: u64 = 0x1_0000;
/// Where requests and answers are, a page for each queue.
const DATA: u64 = 0x10_0000;
/// A page for the balloon to give away.
const SPARE_PAGE: u32 = 0x200;
const QUEUE: u16 = 16;

/// A request that a device answers without a condition.
#[derive(Clone)]
struct Request {
    queue: usize,
    buffers: Vec<Buffer>,
}

/// A device with its driver.
struct Rig<M: DeviceMemory = Ram> {
    name: &'static str,
    /// As the guest sees it.
    ram: GuestRam,
    /// As the device does.
    memory: Arc<M>,
    driver: Driver<M>,
    requests: Vec<Request>,
    /// Whom the network device serves.
    station: Option<Arc<Station>>,
    /// Dropped last.
    _reactor: Option<MioReactor>,
}

fn readable(addr: u64, len: u32) -> Buffer {
    Buffer::Readable { addr, len }
}

fn writable(addr: u64, len: u32) -> Buffer {
    Buffer::Writable { addr, len }
}

/// How a device sees a guest's memory.
type Seen<M> = fn(GuestRam) -> Arc<M>;

/// One of each.
fn rigs() -> Vec<Rig> {
    rigs_in(|ram| ram)
}

/// The same over another kind of memory.
fn rigs_in<M: DeviceMemory>(seen: Seen<M>) -> Vec<Rig<M>> {
    vec![
        rng(seen),
        balloon(seen),
        mem(seen),
        blk(seen),
        vsock(seen),
        fs(seen),
        net(seen),
    ]
}

fn rig<M: DeviceMemory>(
    name: &'static str,
    seen: Seen<M>,
    device: Box<dyn VirtioDevice<M>>,
    requests: Vec<Request>,
) -> Rig<M> {
    let ram = guest_ram(RAM_BYTES);
    let memory = seen(ram.clone());
    let irq = Arc::new(CountingIrq::default());
    let sizes = vec![QUEUE; device.queue_max_sizes().len()];
    let device = Arc::new(VirtioMmio::new(memory.clone(), irq.clone(), device));
    let driver = Driver::start(&ram, device, irq, RINGS, &sizes);
    Rig {
        name,
        ram,
        memory,
        driver,
        requests,
        station: None,
        _reactor: None,
    }
}

impl<M: DeviceMemory> Rig<M> {
    fn write(&self, addr: u64, bytes: &[u8]) {
        self.ram.write_slice(bytes, GuestAddress(addr)).unwrap();
    }

    /// Does what a device left over and the driver need not ask for again.
    fn go_on(&self) {
        self.driver.acknowledge();
        if let Some(station) = &self.station {
            station.go_on();
        }
    }
}

fn rng<M: DeviceMemory>(seen: Seen<M>) -> Rig<M> {
    let requests = vec![Request {
        queue: 0,
        buffers: vec![writable(DATA, 64)],
    }];
    rig("rng", seen, Box::new(Rng::host()), requests)
}

fn balloon<M: DeviceMemory>(seen: Seen<M>) -> Rig<M> {
    let page = |queue: u64| DATA + queue * 0x1000;
    let requests = vec![
        Request {
            queue: 0,
            buffers: vec![readable(page(0), 4)],
        },
        Request {
            queue: 1,
            buffers: vec![readable(page(1), 4)],
        },
        Request {
            queue: 2,
            buffers: vec![writable(u64::from(SPARE_PAGE) * 4096, 4096)],
        },
    ];
    let balloon = Balloon::new(RecordingMemory::new(4096));
    let rig = rig("balloon", seen, Box::new(balloon), requests);
    for queue in [0, 1] {
        rig.write(page(queue), &SPARE_PAGE.to_le_bytes());
    }
    rig
}

fn mem<M: DeviceMemory>(seen: Seen<M>) -> Rig<M> {
    let config = MemConfig {
        address: 4 << 30,
        region_bytes: 8 * BLOCK_BYTES,
    };
    let mem = Mem::new(config, RecordingMemory::new(4096)).unwrap();
    let requests = vec![Request {
        queue: 0,
        buffers: vec![readable(DATA, 24), writable(DATA + 0x1000, 10)],
    }];
    let rig = rig("mem", seen, Box::new(mem), requests);
    let mut request = [0; 24];
    // STATE of one block.
    request[0] = 3;
    request[8..16].copy_from_slice(&config.address.to_le_bytes());
    request[16] = 1;
    rig.write(DATA, &request);
    rig
}

fn blk<M: DeviceMemory>(seen: Seen<M>) -> Rig<M> {
    let file = tempfile::tempfile().unwrap();
    file.set_len(1 << 20).unwrap();
    let config = BlkConfig {
        queues: 2,
        ..BlkConfig::default()
    };
    let requests = (0..2).map(|queue| {
        let page = DATA + queue * 0x1000;
        Request {
            queue: usize::try_from(queue).unwrap(),
            buffers: vec![readable(page, 16), writable(page + 0x100, 513)],
        }
    });
    let requests = requests.collect();
    rig(
        "blk",
        seen,
        Box::new(Blk::new(file, config).unwrap()),
        requests,
    )
}

fn vsock<M: DeviceMemory>(seen: Seen<M>) -> Rig<M> {
    let reactor = MioReactor::spawn().unwrap();
    let config = VsockConfig {
        guest_cid: 3,
        ..VsockConfig::default()
    };
    let vsock = Vsock::new(config, reactor.handle()).unwrap();
    // A reset of no connection, which is ignored.
    let requests = vec![Request {
        queue: 1,
        buffers: vec![readable(DATA, 44)],
    }];
    let mut rig = rig("vsock", seen, Box::new(vsock), requests);
    let mut packet = [0; 44];
    packet[0] = 3;
    packet[8] = 2;
    packet[28] = 1;
    packet[30] = 3;
    rig.write(DATA, &packet);
    rig._reactor = Some(reactor);
    rig
}

fn fs<M: DeviceMemory>(seen: Seen<M>) -> Rig<M> {
    let directory = tempfile::tempdir().unwrap();
    let directory = File::open(directory.path()).unwrap();
    let fs = Fs::new(directory.into(), FsConfig::new("share")).unwrap();
    // What is forgotten has no answer.
    let requests = vec![
        Request {
            queue: 0,
            buffers: vec![readable(DATA, 40), readable(DATA + 0x100, 8)],
        },
        Request {
            queue: 1,
            buffers: vec![readable(DATA + 0x1000, 40), writable(DATA + 0x1100, 96)],
        },
    ];
    let rig = rig("fs", seen, Box::new(fs), requests);
    // `FUSE_FORGET` of a file nobody knows, and `FUSE_STATFS` of the directory.
    for (at, opcode, node) in [(DATA, 2, 99), (DATA + 0x1000, 17, 1)] {
        let mut header = [0; 40];
        (header[0], header[4], header[16]) = (40, opcode, node);
        rig.write(at, &header);
    }
    rig
}

/// A backend of the network device that takes and gives all that it can, on the
/// thread that wakes it, but no more than a queue's worth.
#[derive(Default)]
struct Station {
    port: OnceLock<Weak<dyn NetPort>>,
    has_more: AtomicBool,
}

impl Station {
    fn go_on(&self) {
        if self.has_more.load(Ordering::SeqCst) {
            self.wake();
        }
    }
}

impl NetBackend for Station {
    fn attach(&self, port: Weak<dyn NetPort>) {
        assert!(self.port.set(port).is_ok());
    }

    fn wake(&self) {
        let port = self.port.get().and_then(Weak::upgrade).unwrap();
        let frame = NetFrame {
            parts: [&[1; 60], &[], &[]],
            checksum: None,
            segmentation: None,
        };
        let mut taken = Vec::new();
        let most = 0..QUEUE;
        let takes = most.clone().all(|_| port.take(&mut taken).is_some());
        let gives = most.clone().all(|_| port.give(&frame));
        port.flush();
        self.has_more.store(takes || gives, Ordering::SeqCst);
    }

    fn is_active(&self) -> bool {
        true
    }

    fn save(&self) -> Vec<u8> {
        Vec::new()
    }

    fn restore(&self, _: &[u8]) -> bool {
        true
    }
}

fn net<M: DeviceMemory>(seen: Seen<M>) -> Rig<M> {
    let station = Arc::new(Station::default());
    let config = NetConfig {
        mac: [2, 0, 0, 0, 0, 2],
        mtu: 1500,
    };
    let net = Net::new(config, station.clone());
    let requests = vec![
        Request {
            queue: 0,
            buffers: vec![writable(DATA, 2048)],
        },
        Request {
            queue: 1,
            buffers: vec![readable(DATA + 0x1000, 12), readable(DATA + 0x1100, 60)],
        },
    ];
    let mut rig = rig("net", seen, Box::new(net), requests);
    rig.station = Some(station);
    rig
}
