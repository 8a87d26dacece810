use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::GuestRam;
use crate::testing::{Buffer, CountingIrq, Driver, DriverQueue, guest_ram};
use crate::virtio::F_RING_EVENT_IDX;
use crate::virtio::mmio::{VirtioMmio, status};

const RINGS: u64 = 0x1_0000;
const BUFFERS: u64 = 0x4_0000;
const CONFIG: NetConfig = NetConfig {
    mac: [2, 0, 0, 0, 0, 2],
    mtu: 1500,
};

/// A backend that only remembers.
#[derive(Default)]
struct Recorder {
    port: Mutex<Option<Weak<dyn NetPort>>>,
    wakes: AtomicUsize,
    is_active: AtomicBool,
    restored: Mutex<Vec<u8>>,
}

impl Recorder {
    fn port(&self) -> Arc<dyn NetPort> {
        let port = self.port.lock().unwrap();
        port.as_ref().unwrap().upgrade().unwrap()
    }

    fn wakes(&self) -> usize {
        self.wakes.load(Ordering::SeqCst)
    }
}

impl NetBackend for Recorder {
    fn attach(&self, port: Weak<dyn NetPort>) {
        *self.port.lock().unwrap() = Some(port);
    }

    fn wake(&self) {
        self.wakes.fetch_add(1, Ordering::SeqCst);
    }

    fn is_active(&self) -> bool {
        self.is_active.load(Ordering::SeqCst)
    }

    fn save(&self) -> Vec<u8> {
        b"flows".to_vec()
    }

    fn restore(&self, saved: &[u8]) -> bool {
        *self.restored.lock().unwrap() = saved.to_vec();
        saved == b"flows"
    }
}

struct Bench {
    ram: GuestRam,
    driver: Driver,
    backend: Arc<Recorder>,
    port: Arc<dyn NetPort>,
}

fn bench_without(unwanted: u64) -> Bench {
    let ram = guest_ram(4 << 20);
    let backend = Arc::new(Recorder::default());
    let net: Net = Net::new(CONFIG, backend.clone());
    let irq = Arc::new(CountingIrq::default());
    let device = Arc::new(VirtioMmio::new(ram.clone(), irq.clone(), Box::new(net)));
    let driver = Driver::start_without(&ram, device, irq, RINGS, &[256, 256], unwanted);
    Bench {
        port: backend.port(),
        ram,
        driver,
        backend,
    }
}

fn bench() -> Bench {
    bench_without(0)
}

impl Bench {
    fn receive_queue(&mut self) -> &mut DriverQueue {
        &mut self.driver.queues[0]
    }

    /// Posts `count` receive buffers of `len` bytes, one after the other.
    fn post(&mut self, count: u64, len: u32) {
        for n in 0..count {
            let addr = BUFFERS + n * u64::from(len);
            self.receive_queue().push(&[Buffer::Writable { addr, len }]);
        }
    }

    fn send(&mut self, header: &[u8], frame: &[u8]) {
        let sent = u64::from(self.driver.queues[1].avail_index());
        let at = BUFFERS + 0x10_0000 + sent * 0x2_0000;
        self.ram.write_slice(header, GuestAddress(at)).unwrap();
        self.ram.write_slice(frame, GuestAddress(at + 64)).unwrap();
        let len = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap();
        let parts = [(at, len(header)), (at + 64, len(frame))];
        let buffers = parts.map(|(addr, len)| Buffer::Readable { addr, len });
        self.driver.queues[1].push(&buffers);
        self.driver.notify(1);
    }

    fn read(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.ram.read_slice(&mut bytes, GuestAddress(at)).unwrap();
        bytes
    }

    fn needs_reset(&self) -> bool {
        self.driver.status() & status::NEEDS_RESET != 0
    }
}

fn plain(bytes: &[u8]) -> NetFrame<'_> {
    NetFrame {
        parts: [bytes, &[], &[]],
        checksum: None,
        segmentation: None,
    }
}

#[test]
fn frames_go_from_the_driver_to_the_backend() {
    let mut bench = bench();
    let mut frame = vec![9; 3];
    assert_eq!(bench.port.take(&mut frame), None);
    bench.send(&[0; 12], b"first");
    bench.send(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], b"second");
    assert_eq!(bench.backend.wakes(), 2);
    let sent = bench.port.take(&mut frame).unwrap();
    assert!(!sent.is_unsummed && frame == b"first");
    let sent = bench.port.take(&mut frame).unwrap();
    assert!(sent.is_unsummed && frame == b"second");
    assert_eq!(bench.port.take(&mut frame), None);
    assert_eq!(bench.driver.irq.pulses(), 0);
    bench.port.flush();
    assert_eq!(bench.driver.irq.pulses(), 1, "one for both");
    bench.send(&[0; 12], b"third");
    assert!(bench.driver.queues[1].wants_notification(2));
}

#[test]
fn frames_go_from_the_backend_to_the_driver() {
    let mut bench = bench();
    bench.post(2, 100);
    let frame = NetFrame {
        parts: [b"head", b"er, ", b"payload"],
        checksum: Some((34, 16)),
        segmentation: Some(NetSegmentation {
            is_v6: false,
            segment_bytes: 1460,
            header_bytes: 54,
        }),
    };
    assert!(bench.port.give(&frame));
    bench.port.flush();
    assert_eq!(bench.driver.irq.pulses(), 1);
    assert_eq!(bench.receive_queue().poll().unwrap().1, 12 + 15);
    let header = [1, 1, 54, 0, 0xb4, 5, 34, 0, 16, 0, 1, 0];
    assert_eq!(bench.read(BUFFERS, 12), header);
    assert_eq!(bench.read(BUFFERS + 12, 15), b"header, payload");
    assert!(bench.port.give(&plain(b"x")));
    assert_eq!(
        bench.read(BUFFERS + 100, 13),
        b"\0\0\0\0\0\0\0\0\0\0\x01\0x"
    );
}

#[test]
fn long_frame_is_there_all_at_once_in_as_many_buffers_as_it_takes() {
    let mut bench = bench();
    bench.post(20, 4096);
    // The driver wants to hear of the third buffer, which is in the middle.
    bench.receive_queue().set_used_event(2);
    let bytes: Vec<u8> = (0..=255).cycle().take(60_000).collect();
    assert!(bench.port.give(&plain(&bytes)));
    assert_eq!(bench.receive_queue().used_index(), 15);
    bench.port.flush();
    assert_eq!(bench.driver.irq.pulses(), 1);
    assert_eq!(bench.read(BUFFERS + 10, 2), 15_u16.to_le_bytes());
    let mut left = 12 + bytes.len();
    while let Some((_, used)) = bench.receive_queue().poll() {
        assert_eq!(used as usize, left.min(4096));
        left -= used as usize;
    }
    assert_eq!(left, 0);
    assert_eq!(bench.read(BUFFERS + 12, bytes.len()), bytes);
}

#[test]
fn frame_without_room_uses_nothing_and_is_given_when_there_is() {
    let mut bench = bench();
    bench.post(2, 100);
    let bytes = [7; 250];
    assert!(!bench.port.give(&plain(&bytes)));
    assert_eq!(bench.receive_queue().used_index(), 0);
    let addr = BUFFERS + 0x1_0000;
    bench
        .receive_queue()
        .push(&[Buffer::Writable { addr, len: 100 }]);
    assert!(bench.receive_queue().wants_notification(2));
    let before = bench.backend.wakes();
    bench.driver.notify(0);
    assert_eq!(bench.backend.wakes(), before + 1);
    assert!(bench.port.give(&plain(&bytes)));
    assert_eq!(bench.receive_queue().used_index(), 3);
    assert_eq!(bench.read(BUFFERS + 12, 188), [7; 188]);
    assert_eq!(bench.read(addr, 62), [7; 62]);
}

#[test]
fn driver_that_joins_no_buffers_gets_no_long_frames() {
    let mut bench = bench_without(feature::MRG_RXBUF);
    let offloads = bench.port.offloads();
    assert!(offloads.checksum && !offloads.segments_v4 && !offloads.segments_v6);
    bench.post(2, 100);
    assert!(bench.port.give(&plain(&[1; 300])), "it is lost");
    assert_eq!(bench.receive_queue().used_index(), 0);
    assert!(bench.port.give(&plain(&[1; 88])));
    assert_eq!(bench.receive_queue().used_index(), 1);
}

#[test]
fn offloads_are_what_the_driver_took() {
    let all = bench().port.offloads();
    assert!(all.checksum && all.segments_v4 && all.segments_v6);
    let none = bench_without(feature::GUEST_CSUM).port.offloads();
    assert_eq!(none, NetOffloads::default(), "segments need checksums");
}

#[test]
fn driver_without_event_indices_is_told_all_the_same() {
    let mut bench = bench_without(F_RING_EVENT_IDX);
    bench.post(4, 100);
    assert!(bench.port.give(&plain(&[1; 150])));
    bench.port.flush();
    assert_eq!(bench.driver.irq.pulses(), 1);
}

#[test]
fn of_what_is_no_frame_an_empty_one_is_left_and_the_device_free() {
    let mut bench = bench();
    bench.send(&[0; 5], b"");
    bench.send(&[0; 12], &vec![0; MAX_FRAME_BYTES + 1]);
    bench.send(&[0; 12], &vec![3; MAX_FRAME_BYTES]);
    let mut frame = b"the one before".to_vec();
    // One at a time: a driver that sends nothing else does not keep the device.
    for taken in 1..3 {
        let sent = bench.port.take(&mut frame);
        assert_eq!(sent, Some(NetSent { is_unsummed: false }));
        assert_eq!(frame, b"");
        assert_eq!(bench.driver.queues[1].used_index(), taken);
    }
    assert!(bench.port.take(&mut frame).is_some());
    assert_eq!(frame, vec![3; MAX_FRAME_BYTES]);
    assert!(!bench.needs_reset());
    assert_eq!(bench.driver.queues[1].used_index(), 3);
}

#[test]
fn mistakes_of_the_driver_stop_the_device_until_it_is_reset() {
    let mut bench = bench();
    bench.post(1, 11);
    assert!(!bench.port.give(&plain(b"x")));
    assert!(bench.needs_reset());
    assert!(!bench.port.give(&plain(b"x")));
    let mut frame = Vec::new();
    bench.send(&[0; 12], b"frame");
    assert_eq!(bench.port.take(&mut frame), None);
    // A descriptor outside of memory.
    let mut bench = self::bench();
    bench.driver.queues[1].push(&[Buffer::Readable {
        addr: 1 << 40,
        len: 64,
    }]);
    assert_eq!(bench.port.take(&mut frame), None);
    assert!(bench.needs_reset());
}

#[test]
fn paused_device_leaves_memory_alone() {
    let mut bench = bench();
    bench.post(2, 100);
    bench.driver.device.pause();
    bench.send(&[0; 12], b"frame");
    let mut frame = Vec::new();
    assert_eq!(bench.port.take(&mut frame), None);
    assert!(!bench.port.give(&plain(b"x")));
    bench.port.flush();
    let before = bench.backend.wakes();
    bench.driver.device.resume();
    assert_eq!(bench.backend.wakes(), before + 1, "there is a frame");
    assert!(bench.port.take(&mut frame).is_some());
    // With nothing to do, a pause wakes nobody.
    bench.driver.device.pause();
    bench.driver.device.resume();
    assert_eq!(bench.backend.wakes(), before + 1);
    bench.backend.is_active.store(true, Ordering::SeqCst);
    bench.driver.device.pause();
    bench.driver.device.resume();
    assert_eq!(bench.backend.wakes(), before + 2);
}

#[test]
fn configuration_shows_address_link_and_mtu() {
    let bench = bench();
    let mut space = [0xff; 16];
    for (at, byte) in (0x100..).zip(&mut space) {
        let mut one = [0];
        crate::MmioDevice::read(&*bench.driver.device, at, &mut one);
        *byte = one[0];
    }
    assert_eq!(space[..6], CONFIG.mac);
    assert_eq!(space[6..12], [1, 0, 1, 0, 0xdc, 5]);
}

#[test]
fn state_of_another_interface_or_a_damaged_backend_is_refused() {
    let backend = Arc::new(Recorder::default());
    let net: Net = Net::new(CONFIG, backend.clone());
    let device: &dyn VirtioDevice = &net;
    let good = NetState {
        mac: CONFIG.mac,
        mtu: CONFIG.mtu,
        backend: b"flows".to_vec(),
    };
    assert_eq!(device.state(), SavedState::of(&good));
    assert_eq!(device.restore(&device.state()), Ok(()));
    assert_eq!(*backend.restored.lock().unwrap(), b"flows");
    let with = |change: fn(&mut NetState)| {
        let mut state = good.clone();
        change(&mut state);
        device.restore(&SavedState::of(&state))
    };
    let refused = |what| Err(RestoreError::Invalid(what));
    assert_eq!(with(|state| state.mac[0] = 4), refused("mac"));
    assert_eq!(with(|state| state.mtu = 9000), refused("mtu"));
    assert_eq!(with(|state| state.backend.clear()), refused("backend"));
    let long = with(|state| state.backend.resize(MAX_BACKEND_BYTES + 1, 0));
    assert_eq!(long, refused("bytes"));
}
