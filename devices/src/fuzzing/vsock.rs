//! Socket packets of a guest, against the doings of host programs.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, OnceLock};

use vm_memory::{Bytes, GuestAddress};

use super::{Input, MAX_OPS, patterned_ram};
use crate::GuestRam;
use crate::reactor::MioReactor;
use crate::testing::{Buffer, CountingIrq, Driver};
use crate::virtio::mmio::{VirtioMmio, status};
use crate::virtio::vsock::{Bench, Vsock};

const RINGS: u64 = 0x1000;
const RX_BUFFERS: u64 = 0x1_0000;
const TX_BUFFER: u64 = 0x3_0000;
const EVENT_BUFFER: u64 = 0x2_f000;
const RX_BYTES: u32 = 2048;
const CID: u64 = 3;
/// Operations with their names in the standard: REQUEST to CREDIT_REQUEST.
const OPS: [u16; 7] = [1, 2, 3, 4, 5, 6, 7];

struct Run {
    ram: GuestRam,
    driver: Driver,
    bench: Bench,
    /// Programs on the host, one per connection tried.
    programs: Vec<Option<UnixStream>>,
    /// Address of each receive buffer on offer, by head.
    offered: HashMap<u16, u64>,
    /// Ports of connections the guest heard of, newest last.
    ports: Vec<(u32, u32)>,
}

/// Plays guest packets and host socket operations. Fails if the device's
/// tables disagree with each other, or if it sends a malformed packet.
pub fn fuzz_vsock(data: &[u8]) {
    // The reactor's thread is started once; events are given by hand, in the
    // order the input says.
    static REACTOR: OnceLock<Option<MioReactor>> = OnceLock::new();
    let Some(reactor) = REACTOR.get_or_init(|| MioReactor::spawn().ok()) else {
        return;
    };
    let mut input = Input(data);
    let Ok((vsock, bench)) = Vsock::bench(CID, reactor.handle()) else {
        return;
    };
    let ram = patterned_ram();
    let irq = Arc::new(CountingIrq::default());
    let device = Arc::new(VirtioMmio::new(ram.clone(), irq.clone(), Box::new(vsock)));
    let mut run = Run {
        driver: Driver::start(&ram, device, irq, RINGS, &[16, 16, 16]),
        ram,
        bench,
        programs: Vec::new(),
        offered: HashMap::new(),
        ports: Vec::new(),
    };
    for slot in 0..u64::from(input.u8() % 17) {
        run.offer(RX_BUFFERS + slot * u64::from(RX_BYTES));
    }
    run.driver.notify(0);
    for _ in 0..MAX_OPS {
        if input.is_empty() || run.driver.status() & status::NEEDS_RESET != 0 {
            break;
        }
        run.step(&mut input);
        run.bench.check();
    }
    run.driver.write(0x070, 0);
    run.bench.check();
}

impl Run {
    fn offer(&mut self, addr: u64) {
        let len = RX_BYTES;
        let head = self.driver.queues[0].push(&[Buffer::Writable { addr, len }]);
        self.offered.insert(head, addr);
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.u8() % 8 {
            0 => {
                if self.programs.len() < 64
                    && let Ok((ours, theirs)) = UnixStream::pair()
                    && ours.set_nonblocking(true).is_ok()
                    && theirs.set_nonblocking(true).is_ok()
                {
                    let port = (input.u8() > 63).then_some(u32::from(input.u8()));
                    self.programs.push(Some(theirs));
                    self.bench.admit(ours, port);
                }
            }
            1 => self.program(input),
            2 => {
                let slot = u32::from(input.u8() % 64);
                self.bench.event(slot, input.u8());
            }
            3 => self.receive(),
            4 if input.u8() < 32 => self.reset_in_place(input),
            4 => self.receive(),
            _ => self.send(input),
        }
    }

    /// The machine goes back to the moment it is in, and its guest handles
    /// the event of that at once, later or never.
    fn reset_in_place(&mut self, input: &mut Input<'_>) {
        let device = &self.driver.device;
        device.pause();
        let state = device.state();
        assert_eq!(device.reset_to(&state), Ok(()), "own state is refused");
        while self.driver.queues[2].poll().is_some() {}
        for _ in 0..input.u8() % 3 {
            if self.driver.queues[2].free_descriptors() > 0 {
                self.driver.queues[2].push(&[Buffer::Writable {
                    addr: EVENT_BUFFER,
                    len: 8,
                }]);
                self.driver.notify(2);
            }
        }
    }

    /// Some program does something to its socket.
    fn program(&mut self, input: &mut Input<'_>) {
        let count = self.programs.len().max(1);
        let index = usize::from(input.u8()) % count;
        let Some(slot) = self.programs.get_mut(index) else {
            return;
        };
        let Some(stream) = slot else { return };
        let kind = input.u8() % 6;
        // A program that cannot write or read right now does not.
        match kind {
            0 => drop(stream.write(b"CONNECT 7\n")),
            1 => drop(stream.write(&vec![1; usize::from(input.u16())])),
            2 => drop(stream.read(&mut vec![0; usize::from(input.u16())])),
            3 => drop(stream.shutdown(Shutdown::Write)),
            4 => drop(stream.shutdown(Shutdown::Read)),
            _ => *slot = None,
        }
        self.bench.event_for_all();
    }

    /// The guest takes what was sent to it and offers the buffers again.
    fn receive(&mut self) {
        while let Some((head, len)) = self.driver.queues[0].poll() {
            let addr = self.offered.remove(&head).expect("buffer was on offer");
            assert!((44..=RX_BYTES).contains(&len), "packet of {len} bytes");
            self.learn(addr, len);
            self.offer(addr);
        }
        self.driver.acknowledge();
        self.driver.notify(0);
    }

    fn learn(&mut self, addr: u64, len: u32) {
        let mut header = [0; 44];
        self.ram
            .read_slice(&mut header, GuestAddress(addr))
            .expect("buffer is in RAM");
        let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| header[at + i]));
        // A reset may come in the name of whoever the guest tried to reach.
        assert!(word(0) == 2 || header[30] == 3, "source context id");
        assert_eq!(word(8), 3, "destination context id");
        assert_eq!(word(24) + 44, len, "payload length");
        assert_eq!(header[28..30], [1, 0], "socket type");
        assert!((1..=7).contains(&header[30]), "operation");
        let ports = (word(16), word(20));
        if self.ports.len() < 64 && !self.ports.contains(&ports) {
            self.ports.push(ports);
        }
    }

    /// The guest sends a packet, mostly for a connection there is.
    fn send(&mut self, input: &mut Input<'_>) {
        while self.driver.queues[1].poll().is_some() {}
        if self.driver.queues[1].free_descriptors() < 2 {
            return;
        }
        let (host, guest) = match input.u8() {
            0 => (input.u32(), input.u32()),
            choice => {
                let count = self.ports.len().max(1);
                let known = self.ports.get(usize::from(choice) % count);
                known.copied().unwrap_or((1 << 30, u32::from(input.u8())))
            }
        };
        let payload = match input.u8() {
            0 => input.u32(),
            1..32 => 0,
            _ => u32::from(input.u16() % 0x8000),
        };
        let op = match input.u8() {
            0 => input.u16(),
            _ => input.pick(&OPS),
        };
        let mut header = Vec::with_capacity(44);
        let odd = input.u8();
        header.extend(if odd == 0 { input.u64() } else { CID }.to_le_bytes());
        header.extend(if odd == 1 { input.u64() } else { 2 }.to_le_bytes());
        header.extend(guest.to_le_bytes());
        header.extend(host.to_le_bytes());
        header.extend(payload.to_le_bytes());
        header.extend(if odd == 2 { input.u16() } else { 1 }.to_le_bytes());
        header.extend(op.to_le_bytes());
        header.extend(u32::from(input.u8()).to_le_bytes());
        header.extend(input.pick(&[0, 1, 4096, 1 << 18, u32::MAX]).to_le_bytes());
        header.extend(if odd == 3 { input.u32() } else { 0 }.to_le_bytes());
        self.ram
            .write_slice(&header, GuestAddress(TX_BUFFER))
            .expect("buffer is in RAM");
        let given = if odd == 4 {
            u32::from(input.u16())
        } else {
            44 + payload.min(0x8000)
        };
        let cut = u32::from(input.u8()).min(given);
        let mut chain = Vec::new();
        if cut > 0 {
            chain.push(Buffer::Readable {
                addr: TX_BUFFER,
                len: cut,
            });
        }
        chain.push(Buffer::Readable {
            addr: TX_BUFFER + u64::from(cut),
            len: given - cut,
        });
        self.driver.queues[1].push(&chain);
        self.driver.notify(1);
    }
}
