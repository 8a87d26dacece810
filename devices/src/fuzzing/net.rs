//! A driver's frames and buffers, whole and broken, and frames for it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use vm_memory::{Bytes, GuestAddress};

use super::{Input, MAX_OPS, RAM_BYTES, patterned_ram};
use crate::GuestRam;
use crate::testing::{Buffer, CountingIrq, Driver};
use crate::virtio::mmio::{VirtioMmio, status};
use crate::virtio::net::{MAX_FRAME_BYTES, Net, NetBackend, NetConfig, NetFrame, NetPort};

const RINGS: u64 = 0x1000;
const RX_BUFFERS: u64 = 0x1_0000;
const RX_STRIDE: u64 = 0x1000;
const TX_BUFFERS: u64 = 0x2_0000;
const TX_STRIDE: u64 = 0x2000;
const QUEUE: u16 = 16;
const HEADER_BYTES: usize = 12;
/// `VIRTIO_NET_F_MRG_RXBUF`.
const MRG_RXBUF: u64 = 1 << 15;
const CONFIG: NetConfig = NetConfig {
    mac: [2, 0, 0, 0, 0, 2],
    mtu: 1500,
};

/// A backend that knows its port, and nothing else.
#[derive(Default)]
struct Cable(Mutex<Option<Weak<dyn NetPort>>>);

impl NetBackend for Cable {
    fn attach(&self, port: Weak<dyn NetPort>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(port);
    }

    fn wake(&self) {}

    fn is_active(&self) -> bool {
        true
    }

    fn save(&self) -> Vec<u8> {
        Vec::new()
    }

    fn restore(&self, saved: &[u8]) -> bool {
        saved.is_empty()
    }
}

struct Run {
    ram: GuestRam,
    driver: Driver,
    port: Arc<dyn NetPort>,
    /// Whether the driver joins buffers.
    joins: bool,
    /// Address and length of each receive buffer on offer, by head.
    offered: HashMap<u16, (u64, u32)>,
    /// Frames that were sent and not taken, and those that were given and not read.
    sent: VecDeque<Vec<u8>>,
    given: VecDeque<Vec<u8>>,
    /// The driver has broken its rings: nothing is known of what arrives.
    is_broken: bool,
    sends: u64,
}

/// Plays a driver that mostly keeps to its queues. Fails if a frame arrives other than it
/// was sent, either way, is longer than one may be, or ends up where no buffer is.
pub fn fuzz_net(data: &[u8]) {
    let mut input = Input(data);
    let unwanted = if input.u8() % 4 == 0 { MRG_RXBUF } else { 0 };
    let backend = Arc::new(Cable::default());
    let net: Net = Net::new(CONFIG, backend.clone());
    let ram = patterned_ram();
    let irq = Arc::new(CountingIrq::default());
    let device = Arc::new(VirtioMmio::new(ram.clone(), irq.clone(), Box::new(net)));
    let port = backend.0.lock().unwrap_or_else(PoisonError::into_inner);
    let port = port.as_ref().and_then(Weak::upgrade);
    let mut run = Run {
        driver: Driver::start_without(&ram, device, irq, RINGS, &[QUEUE, QUEUE], unwanted),
        ram,
        port: port.expect("the device is there"),
        joins: unwanted == 0,
        offered: HashMap::new(),
        sent: VecDeque::new(),
        given: VecDeque::new(),
        is_broken: false,
        sends: 0,
    };
    for _ in 0..MAX_OPS {
        if input.is_empty() || run.driver.status() & status::NEEDS_RESET != 0 {
            break;
        }
        run.step(&mut input);
    }
    let stopped = run.driver.status() & status::NEEDS_RESET != 0;
    assert!(!stopped || run.is_broken, "a sound driver was stopped");
    run.driver.write(0x070, 0);
    assert!(run.port.take(&mut Vec::new()).is_none(), "after a reset");
}

impl Run {
    fn step(&mut self, input: &mut Input<'_>) {
        match input.u8() % 16 {
            0..3 => self.offer(input),
            3..6 => self.send(input),
            6..8 => self.take(),
            8..11 => self.give(input),
            11 => self.port.flush(),
            12..14 => self.receive(),
            14 => self.save_and_go_back(),
            _ => self.break_a_ring(input),
        }
    }

    fn offer(&mut self, input: &mut Input<'_>) {
        let len = input.pick(&[12, 13, 64, 1526, 4096]);
        let slots = (0..u64::from(QUEUE)).map(|slot| RX_BUFFERS + slot * RX_STRIDE);
        let is_used = |addr: &u64| self.offered.values().any(|(other, _)| other == addr);
        let free: Option<u64> = slots.into_iter().find(|addr| !is_used(addr));
        if let Some(addr) = free
            && self.driver.queues[0].free_descriptors() > 1
        {
            let head = self.driver.queues[0].push(&[Buffer::Writable { addr, len }]);
            self.offered.insert(head, (addr, len));
            self.driver.notify(0);
        }
    }

    /// The driver sends a frame in some pieces, of which each may be the same again.
    fn send(&mut self, input: &mut Input<'_>) {
        while self.driver.queues[1].poll().is_some() {}
        let pieces = usize::from(input.u8() % 11);
        // Those that are on their way keep their places.
        if self.driver.queues[1].free_descriptors() < pieces + 1 || self.sent.len() > 14 {
            return;
        }
        let at = TX_BUFFERS + self.sends % 16 * TX_STRIDE;
        self.sends += 1;
        let len = u32::from(input.u16()) % 8000;
        let head = if input.u8() == 0 { input.u8() % 12 } else { 12 };
        let piece: Vec<u8> = (0..len)
            .map(|n| n.to_le_bytes()[0] ^ input.0.len().to_le_bytes()[0])
            .collect();
        let header = vec![0; usize::from(head)];
        let whole = [header, piece].concat();
        self.ram
            .write_slice(&whole, GuestAddress(at))
            .expect("buffer is in RAM");
        let again = Buffer::Readable {
            addr: at + u64::from(head),
            len,
        };
        let mut chain = vec![Buffer::Readable {
            addr: at,
            len: u32::from(head) + len,
        }];
        let mut bytes = whole.clone();
        for _ in 1..pieces {
            chain.push(again);
            bytes.extend(&whole[usize::from(head)..]);
        }
        self.driver.queues[1].push(&chain);
        self.driver.notify(1);
        let frame = bytes.get(HEADER_BYTES..).unwrap_or_default();
        self.sent.push_back(match frame.len() {
            0..=MAX_FRAME_BYTES => frame.to_vec(),
            _ => Vec::new(),
        });
    }

    fn take(&mut self) {
        let mut frame = vec![1; 10];
        // As many as there may be, and one for the end.
        for _ in 0..=QUEUE {
            if self.port.take(&mut frame).is_none() {
                let is_all = self.sent.is_empty() || self.is_broken;
                assert!(is_all, "{} frames are missing", self.sent.len());
                return;
            }
            assert!(frame.len() <= MAX_FRAME_BYTES);
            let sent = self.sent.pop_front();
            assert!(
                self.is_broken || sent.as_ref() == Some(&frame),
                "another frame"
            );
        }
        assert!(self.is_broken, "more frames than were sent");
    }

    fn give(&mut self, input: &mut Input<'_>) {
        let len = match input.u8() {
            0 => MAX_FRAME_BYTES,
            1..128 => usize::from(input.u8()),
            _ => usize::from(input.u16()),
        };
        let bytes: Vec<u8> = (0..=250).cycle().skip(self.given.len()).take(len).collect();
        let (first, rest) = bytes.split_at(usize::from(input.u8()).min(len));
        let (second, third) = rest.split_at(usize::from(input.u16()).min(rest.len()));
        let frame = NetFrame {
            parts: [first, second, third],
            checksum: (input.u8() < 128).then_some((34, 16)),
            segmentation: None,
        };
        let before = self.beside_buffers();
        if self.port.give(&frame) {
            self.given.push_back(bytes);
        }
        let is_same = self.is_broken || self.beside_buffers() == before;
        assert!(is_same, "it wrote beside the buffers");
    }

    /// All memory, with zeroes in place of rings and of buffers on offer.
    fn beside_buffers(&self) -> Vec<u8> {
        let mut bytes = vec![0; RAM_BYTES];
        self.ram
            .read_slice(&mut bytes, GuestAddress(0))
            .expect("RAM is there");
        let offered = self.offered.values();
        let buffers = offered.map(|(addr, len)| (*addr, u64::from(*len)));
        for (start, len) in buffers.chain([(RINGS, RX_BUFFERS - RINGS)]) {
            let place = |address| usize::try_from(address).expect("it is in RAM");
            bytes[place(start)..place(start + len)].fill(0);
        }
        bytes
    }

    /// The driver reads what it was given.
    fn receive(&mut self) {
        let mut left = 0;
        let mut frame = Vec::new();
        for _ in 0..=QUEUE {
            let Some((head, len)) = self.driver.queues[0].poll() else {
                break;
            };
            let Some((addr, room)) = self.offered.remove(&head) else {
                assert!(self.is_broken, "buffer was not on offer");
                continue;
            };
            if self.is_broken {
                continue;
            }
            assert!(len <= room, "{len} bytes in a buffer of {room}");
            let mut bytes = vec![0; usize::try_from(len).expect("it is small")];
            self.ram
                .read_slice(&mut bytes, GuestAddress(addr))
                .expect("buffer is in RAM");
            if left == 0 {
                left = usize::from(u16::from_le_bytes([bytes[10], bytes[11]]));
                assert!(left == 1 || self.joins && left > 0, "{left} buffers");
                frame = bytes.split_off(HEADER_BYTES);
            } else {
                frame.extend(bytes);
            }
            left -= 1;
            if left == 0 {
                self.compare(&frame);
            }
        }
        assert!(left == 0 || self.is_broken, "{left} buffers are missing");
    }

    /// Frames come in the order in which they were given. One that has no room in a
    /// buffer, for a driver that joins none, does not come.
    fn compare(&mut self, frame: &[u8]) {
        while let Some(given) = self.given.pop_front() {
            if given == frame {
                return;
            }
            assert!(!self.joins, "another frame, or none");
        }
        panic!("a frame that nobody gave");
    }

    /// The machine goes back to the moment it is in.
    fn save_and_go_back(&mut self) {
        let device = &self.driver.device;
        device.pause();
        assert!(self.port.take(&mut Vec::new()).is_none(), "while paused");
        let state = device.state();
        assert_eq!(device.reset_to(&state), Ok(()), "own state is refused");
        device.resume();
    }

    /// What no sound driver does.
    fn break_a_ring(&mut self, input: &mut Input<'_>) {
        self.is_broken = true;
        let queue = &self.driver.queues[usize::from(input.u8() % 2)];
        for _ in 0..=input.u8() % 3 {
            let (addr, len) = (input.address(), input.len());
            let (flags, next) = (input.u16() & 7, input.u16() % 20);
            queue.set_descriptor(input.u16() % 18, addr, len, flags, next);
        }
        match input.u8() % 4 {
            0 => queue.set_avail_index(input.u16()),
            1 => queue.set_used_event(input.u16()),
            _ => queue.make_available(input.u16() % 18),
        }
        self.driver.notify(u32::from(input.u8() % 2));
    }
}
