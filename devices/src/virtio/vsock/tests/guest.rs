//! A guest's socket driver: just enough of Linux's to hold the device to its
//! promises. Every packet from the device is checked on arrival.

use std::collections::{HashMap, VecDeque};

use vm_memory::GuestMemory;
use vm_memory::bitmap::Bitmap;

use super::*;

pub(super) const CID: u64 = 42;
/// Guest port of the one listener.
pub(super) const PORT: u32 = 1000;
/// Host port that only privileged processes reach.
pub(super) const PRIVILEGED: u32 = 27;
const RAM_BYTES: usize = 16 << 20;
const RINGS: u64 = 0x1_0000;
const RX_BUFFERS: u64 = 0x10_0000;
const TX_BUFFERS: u64 = 0x40_0000;
/// Bytes of each receive buffer; Linux uses a page for header and payload.
pub(super) const RX_BYTES: u32 = 4096;
const EVENT_BUFFERS: u64 = 0xf_0000;
const TX_BYTES: u64 = 0x1_1000;
const QUEUE: u16 = 64;

/// (host port, guest port)
pub(super) type Ports = (u32, u32);

/// One connection as the guest sees it.
#[derive(Default)]
pub(super) struct Stream {
    /// Data received and not read.
    pub(super) inbox: VecDeque<u8>,
    /// Bytes received in all, modulo 2³².
    pub(super) received: u32,
    /// Bytes read by the application.
    pub(super) taken: u32,
    /// Receive buffer the guest announces.
    pub(super) buf_alloc: u32,
    /// What the device last heard of `taken`.
    pub(super) announced: u32,
    /// Bytes sent to the host.
    pub(super) sent: u32,
    pub(super) peer_buf_alloc: u32,
    pub(super) peer_fwd_cnt: u32,
    /// SHUTDOWN flags received.
    pub(super) shutdown: u32,
    pub(super) reset: bool,
    pub(super) credit_requests: usize,
}

/// What a reset in place brings back.
pub(super) struct Moment {
    pub(super) state: MmioState,
    ram: Vec<u8>,
    queues: Vec<DriverQueue>,
    rx_addresses: HashMap<u16, u64>,
}

pub(super) struct Guest {
    pub(super) ram: GuestRam,
    pub(super) driver: Driver,
    pub(super) dir: TempDir,
    pub(super) streams: HashMap<Ports, Stream>,
    /// Requests of the host not yet answered.
    pub(super) requests: VecDeque<Ports>,
    /// Resets for connections the guest does not know.
    pub(super) stray_resets: usize,
    /// Context ids, not the host's, that answered with a reset.
    pub(super) foreign_resets: Vec<u64>,
    pub(super) buf_alloc: u32,
    tx_next: u64,
    rx_addresses: HashMap<u16, u64>,
    pub(super) shared: Arc<Shared<Ram>>,
    /// Dropped last.
    _reactor: MioReactor,
}

impl Guest {
    pub(super) fn start() -> Self {
        let mut guest = Self::not_ready();
        guest.boot();
        guest
    }

    /// A device whose driver has not started.
    pub(super) fn not_ready() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = VsockConfig {
            guest_cid: CID,
            mux: Some(dir.path().join("mux").into()),
            stem: Some(dir.path().join("mux")),
            listeners: vec![VsockListener {
                socket: dir.path().join("exec").into(),
                guest_port: PORT,
            }],
            privileged_ports: vec![PRIVILEGED],
        };
        Self {
            dir,
            ..Self::with(config)
        }
    }

    /// The same with sockets elsewhere.
    pub(super) fn with(config: VsockConfig) -> Self {
        let ram = guest_ram(RAM_BYTES);
        let reactor = MioReactor::spawn().unwrap();
        let vsock = Vsock::new(config, reactor.handle()).unwrap();
        let shared = vsock.shared.clone();
        let irq = Arc::new(CountingIrq::default());
        let device = Arc::new(VirtioMmio::new(ram.clone(), irq.clone(), Box::new(vsock)));
        Self {
            driver: Driver {
                device,
                irq,
                queues: Vec::new(),
            },
            ram,
            dir: tempfile::tempdir().unwrap(),
            streams: HashMap::new(),
            requests: VecDeque::new(),
            stray_resets: 0,
            foreign_resets: Vec::new(),
            buf_alloc: 64 << 10,
            tx_next: 0,
            rx_addresses: HashMap::new(),
            shared,
            _reactor: reactor,
        }
    }

    /// Waits until the device holds exactly `count` connections.
    pub(super) fn wait_for_connections(&self, count: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.shared.lock().connection_count() != count {
            assert!(Instant::now() < deadline, "not {count} connections");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub(super) fn boot(&mut self) {
        self.start_driver();
        self.offer_all();
    }

    /// Offers a queue's worth of receive buffers.
    pub(super) fn offer_all(&mut self) {
        for slot in 0..u64::from(QUEUE) {
            self.offer(RX_BUFFERS + slot * u64::from(RX_BYTES));
        }
        self.driver.notify(0);
    }

    /// A guest whose rings all stand at `position`, as after that many
    /// buffers, put back to that moment. It has heard of that.
    pub(super) fn start_at(position: u16) -> Self {
        let mut guest = Self::not_ready();
        guest.start_driver();
        guest.driver.device.pause();
        let mut state = guest.driver.device.state();
        for (queue, saved) in guest.driver.queues.iter_mut().zip(&mut state.queues) {
            queue.set_position(position);
            (saved.next_avail, saved.next_used) = (position, position);
        }
        guest.driver.device.reset_to(&state).unwrap();
        guest.driver.device.resume();
        guest
    }

    /// Offers a receive buffer by an indirect table, cut in the middle of what
    /// will be its packet's header.
    pub(super) fn offer_indirect(&mut self, table: u64, addr: u64) {
        let cut = 20;
        let parts = [
            Buffer::Writable { addr, len: cut },
            Buffer::Writable {
                addr: addr + u64::from(cut),
                len: RX_BYTES - cut,
            },
        ];
        let head = self.driver.queues[0].push_indirect(table, &parts);
        self.rx_addresses.insert(head, addr);
    }

    /// Starts the driver without any receive buffers.
    pub(super) fn start_driver(&mut self) {
        let (device, irq) = (self.driver.device.clone(), self.driver.irq.clone());
        self.driver = Driver::start(&self.ram, device, irq, RINGS, &[QUEUE, QUEUE, 16]);
        self.rx_addresses.clear();
    }

    pub(super) fn offer(&mut self, addr: u64) {
        let head = self.driver.queues[0].push(&[Buffer::Writable {
            addr,
            len: RX_BYTES,
        }]);
        self.rx_addresses.insert(head, addr);
    }

    pub(super) fn mux(&self) -> PathBuf {
        self.dir.path().join("mux")
    }

    pub(super) fn exec(&self) -> PathBuf {
        self.dir.path().join("exec")
    }

    /// A client of the listener.
    pub(super) fn client(&self) -> UnixStream {
        patient(UnixStream::connect(self.exec()).unwrap())
    }

    /// Sends raw descriptors' worth of bytes in one chain.
    pub(super) fn transmit(&mut self, bytes: &[u8]) {
        while self.driver.queues[1].poll().is_some() {}
        let addr = TX_BUFFERS + self.tx_next % 64 * TX_BYTES;
        self.tx_next += 1;
        self.ram.write_slice(bytes, GuestAddress(addr)).unwrap();
        let len = u32::try_from(bytes.len()).unwrap();
        self.driver.queues[1].push(&[Buffer::Readable { addr, len }]);
        self.driver.notify(1);
    }

    pub(super) fn header(&self, (host_port, guest_port): Ports, op: u16) -> Header {
        let stream = self.streams.get(&(host_port, guest_port));
        Header {
            src_cid: CID,
            dst_cid: HOST_CID,
            src_port: guest_port,
            dst_port: host_port,
            len: 0,
            kind: 1,
            op,
            flags: 0,
            buf_alloc: stream.map_or(self.buf_alloc, |s| s.buf_alloc),
            fwd_cnt: stream.map_or(0, |s| s.taken),
        }
    }

    pub(super) fn control(&mut self, ports: Ports, op: u16, flags: u32) {
        let mut header = self.header(ports, op);
        header.flags = flags;
        if let Some(stream) = self.streams.get_mut(&ports) {
            stream.announced = stream.taken;
        }
        self.transmit(&header.encode());
    }

    /// Sends data without regard to credit.
    pub(super) fn send_anyway(&mut self, ports: Ports, data: &[u8]) {
        let mut header = self.header(ports, op::RW);
        header.len = u32::try_from(data.len()).unwrap();
        let stream = self.streams.get_mut(&ports).unwrap();
        stream.sent = stream.sent.wrapping_add(header.len);
        stream.announced = stream.taken;
        let mut packet = header.encode().to_vec();
        packet.extend(data);
        self.transmit(&packet);
    }

    /// Bytes the device has room for.
    pub(super) fn credit(&self, ports: Ports) -> u32 {
        let stream = &self.streams[&ports];
        let in_flight = stream.sent.wrapping_sub(stream.peer_fwd_cnt);
        assert!(in_flight <= stream.peer_buf_alloc, "device took too much");
        stream.peer_buf_alloc - in_flight
    }

    /// Sends data as credit allows.
    pub(super) fn send(&mut self, ports: Ports, mut data: &[u8]) {
        while !data.is_empty() {
            self.wait("credit", |guest| guest.credit(ports) > 0);
            let len = data.len().min(self.credit(ports) as usize).min(64 << 10);
            self.send_anyway(ports, &data[..len]);
            data = &data[len..];
        }
    }

    /// Takes data out of a stream's inbox, as an application would.
    pub(super) fn take(&mut self, ports: Ports, max: usize) -> Vec<u8> {
        let stream = self.streams.get_mut(&ports).unwrap();
        let len = stream.inbox.len().min(max);
        let data: Vec<u8> = stream.inbox.drain(..len).collect();
        stream.taken = stream.taken.wrapping_add(u32::try_from(len).unwrap());
        let unannounced = stream.taken.wrapping_sub(stream.announced);
        if unannounced > stream.buf_alloc / 2 {
            self.control(ports, op::CREDIT_UPDATE, 0);
        }
        data
    }

    /// Reads exactly `len` bytes.
    pub(super) fn read(&mut self, ports: Ports, len: usize) -> Vec<u8> {
        let mut data = Vec::new();
        while data.len() < len {
            self.wait("data", |guest| !guest.streams[&ports].inbox.is_empty());
            data.extend(self.take(ports, len - data.len()));
        }
        data
    }

    /// Accepts the next connection of the host, which must be to `port`.
    pub(super) fn accept(&mut self, port: u32) -> Ports {
        let ports = self.next_request();
        assert_eq!(ports.1, port);
        self.answer(ports);
        ports
    }

    pub(super) fn next_request(&mut self) -> Ports {
        self.wait("request", |guest| !guest.requests.is_empty());
        self.requests.pop_front().unwrap()
    }

    pub(super) fn answer(&mut self, ports: Ports) {
        self.control(ports, op::RESPONSE, 0);
    }

    fn new_stream(&self) -> Stream {
        Stream {
            buf_alloc: self.buf_alloc,
            ..Stream::default()
        }
    }

    /// Connects to a port of the host; false if it refused.
    pub(super) fn connect(&mut self, ports: Ports) -> bool {
        let stream = self.new_stream();
        self.streams.insert(ports, stream);
        self.control(ports, op::REQUEST, 0);
        self.wait("answer", |guest| {
            let stream = &guest.streams[&ports];
            stream.reset || stream.peer_buf_alloc != 0
        });
        !self.streams[&ports].reset
    }

    /// Handles packets until `done`, woken by interrupts alone.
    pub(super) fn wait(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let seen = self.driver.irq.pulses();
            self.poll();
            if done(self) {
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no {what} within {PATIENCE:?}");
            self.driver.irq.wait_beyond(seen, left);
        }
    }

    /// Offers an event buffer, as Linux does after it handled one.
    pub(super) fn offer_event(&mut self) {
        self.driver.queues[2].push(&[Buffer::Writable {
            addr: EVENT_BUFFERS,
            len: 8,
        }]);
        self.driver.notify(2);
    }

    /// Waits for the event that says that all connections are gone.
    pub(super) fn hear_of_reset(&mut self) {
        let (_, len) = self.driver.wait_used(2);
        assert_eq!(len, 4);
        let event: u32 = self.ram.read_obj(GuestAddress(EVENT_BUFFERS)).unwrap();
        assert_eq!(event, 0);
        self.streams.clear();
        self.requests.clear();
    }

    /// Packets that wait to be handled.
    pub(super) fn has_packets(&self) -> bool {
        self.driver.queues[0].clone().poll().is_some()
    }

    pub(super) fn save(&mut self) -> Moment {
        self.driver.device.pause();
        let mut ram = vec![0; RAM_BYTES];
        self.ram.read_slice(&mut ram, GuestAddress(0)).unwrap();
        let moment = Moment {
            state: self.driver.device.state(),
            ram,
            queues: self.driver.queues.clone(),
            rx_addresses: self.rx_addresses.clone(),
        };
        self.driver.device.resume();
        moment
    }

    /// What the machine does between its device's pause and what follows.
    pub(super) fn put_back(&mut self, moment: &Moment) {
        self.ram.write_slice(&moment.ram, GuestAddress(0)).unwrap();
        self.driver.queues.clone_from(&moment.queues);
        self.rx_addresses.clone_from(&moment.rx_addresses);
    }

    pub(super) fn bring_back(&mut self, moment: &Moment) {
        self.driver.device.pause();
        self.put_back(moment);
        self.driver.device.reset_to(&moment.state).unwrap();
        self.driver.device.resume();
    }

    /// Handles what the device has sent and gives the buffers back.
    pub(super) fn poll(&mut self) {
        self.driver.acknowledge();
        let mut handled = false;
        while let Some((head, len)) = self.driver.queues[0].poll() {
            let addr = self.rx_addresses.remove(&head).unwrap();
            self.arrived(addr, len);
            self.offer(addr);
            handled = true;
        }
        if handled {
            self.driver.notify(0);
        }
    }

    fn arrived(&mut self, addr: u64, len: u32) {
        let mut bytes = [0; HEADER_BYTES];
        self.ram.read_slice(&mut bytes, GuestAddress(addr)).unwrap();
        let region = self.ram.iter().next().unwrap();
        for at in addr..addr + u64::from(len) {
            let at = usize::try_from(at).unwrap();
            assert!(region.bitmap().dirty_at(at), "{at:#x} is not marked");
        }
        let header = Header::decode(&bytes);
        assert_eq!(header.len as usize + HEADER_BYTES, len as usize);
        assert_eq!((header.dst_cid, header.kind), (CID, 1));
        if header.src_cid != HOST_CID {
            assert_eq!(header.op, op::RST, "a packet from {}", header.src_cid);
            self.foreign_resets.push(header.src_cid);
            return;
        }
        let ports = (header.src_port, header.dst_port);
        if header.op == op::REQUEST {
            let stream = self.new_stream();
            assert!(self.streams.insert(ports, stream).is_none());
            self.requests.push_back(ports);
        }
        let Some(stream) = self.streams.get_mut(&ports) else {
            assert_eq!(header.op, op::RST, "packet for an unknown connection");
            self.stray_resets += 1;
            return;
        };
        assert!(!stream.reset, "packet after a reset: {header:?}");
        if header.op == op::RST {
            stream.reset = true;
            return;
        }
        stream.peer_buf_alloc = header.buf_alloc;
        stream.peer_fwd_cnt = header.fwd_cnt;
        let in_flight = stream.sent.wrapping_sub(header.fwd_cnt);
        assert!(in_flight <= stream.sent, "device took what was never sent");
        match header.op {
            op::RW => {
                let mut data = vec![0; header.len as usize];
                let at = GuestAddress(addr + HEADER_BYTES as u64);
                self.ram.read_slice(&mut data, at).unwrap();
                assert!(!data.is_empty(), "empty data packet");
                assert_eq!(stream.shutdown & SHUTDOWN_SEND, 0, "data after the end");
                stream.received = stream.received.wrapping_add(header.len);
                stream.inbox.extend(data);
                // The credit invariant of virtio 1.2 §5.10.6.3.
                let held = stream.received.wrapping_sub(stream.announced);
                assert!(held <= stream.buf_alloc, "device overran the guest");
            }
            op::SHUTDOWN => stream.shutdown |= header.flags,
            op::CREDIT_REQUEST => {
                stream.credit_requests += 1;
                self.control(ports, op::CREDIT_UPDATE, 0);
            }
            op::REQUEST | op::RESPONSE | op::CREDIT_UPDATE => {}
            other => panic!("unknown operation {other}"),
        }
    }
}
