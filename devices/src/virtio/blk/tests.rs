use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use vm_memory::bitmap::Bitmap;
use vm_memory::{Bytes, GuestAddress, GuestMemory};

use super::*;
use crate::GuestRam;
use crate::MmioDevice;
use crate::testing::{Buffer, CountingIrq, Driver, guest_ram};
use crate::virtio::mmio::{VirtioMmio, status};

const RINGS: u64 = 0x1_0000;
const HEADERS: u64 = 0x8_0000;
const STATUSES: u64 = 0x9_0000;
const DATA: u64 = 0x10_0000;

const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPP: u8 = 2;

pub(super) struct Disk {
    pub(super) ram: GuestRam,
    pub(super) driver: Driver,
    pub(super) file: File,
    next: u64,
}

/// A disk of `len` bytes, byte n of sector s being s + n.
pub(super) fn disk(len: usize, config: BlkConfig) -> Disk {
    let mut file = tempfile::tempfile().unwrap();
    let content: Vec<u8> = (0..len).map(|at| pattern(at as u64)).collect();
    file.write_all(&content).unwrap();
    disk_on(file, config)
}

fn pattern(at: u64) -> u8 {
    ((at / 512 + at % 512) % 251) as u8
}

pub(super) fn disk_on(file: File, config: BlkConfig) -> Disk {
    let ram = guest_ram(8 << 20);
    let irq = Arc::new(CountingIrq::default());
    let queues = usize::from(config.queues);
    let blk = Blk::new(file.try_clone().unwrap(), config).unwrap();
    let device = Arc::new(VirtioMmio::new(ram.clone(), irq.clone(), Box::new(blk)));
    let driver = Driver::start(&ram, device, irq, RINGS, &vec![64; queues]);
    Disk {
        ram,
        driver,
        file,
        next: 0,
    }
}

impl Disk {
    /// Submits a request with `data` between header and status.
    fn submit(&mut self, kind: u32, sector: u64, data: &[Buffer]) -> (u16, u64) {
        let slot = self.next % 64;
        self.next += 1;
        let header = HEADERS + slot * 16;
        let status = STATUSES + slot;
        let ram = &self.ram;
        ram.write_obj(kind.to_le(), GuestAddress(header)).unwrap();
        ram.write_obj(0u32, GuestAddress(header + 4)).unwrap();
        ram.write_obj(sector.to_le(), GuestAddress(header + 8))
            .unwrap();
        ram.write_obj(0xffu8, GuestAddress(status)).unwrap();
        let mut chain = vec![Buffer::Readable {
            addr: header,
            len: 16,
        }];
        chain.extend(data);
        chain.push(Buffer::Writable {
            addr: status,
            len: 1,
        });
        let head = self.driver.queues[0].push(&chain);
        self.driver.notify(0);
        (head, status)
    }

    /// Submits a request and waits for it: its status, and the used length.
    fn run(&mut self, kind: u32, sector: u64, data: &[Buffer]) -> (u8, u32) {
        let (head, status) = self.submit(kind, sector, data);
        let (done, len) = self.driver.wait_used(0);
        assert_eq!(done, head);
        (self.ram.read_obj(GuestAddress(status)).unwrap(), len)
    }

    fn bytes(&self, addr: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        self.ram.read_slice(&mut data, GuestAddress(addr)).unwrap();
        data
    }
}

fn writable(addr: u64, len: u32) -> Buffer {
    Buffer::Writable { addr, len }
}

fn readable(addr: u64, len: u32) -> Buffer {
    Buffer::Readable { addr, len }
}

fn on_disk(file: &File, offset: u64, len: usize) -> Vec<u8> {
    use std::os::unix::fs::FileExt;
    let mut data = vec![0; len];
    file.read_exact_at(&mut data, offset).unwrap();
    data
}

#[test]
fn read_scatters_over_segments_of_any_size() {
    let mut disk = disk(64 << 10, BlkConfig::default());
    let parts = [
        writable(DATA, 100),
        writable(DATA + 0x1000, 1),
        writable(DATA + 0x2000, 923),
    ];
    assert_eq!(disk.run(0, 3, &parts), (OK, 1025));
    let mut got = disk.bytes(DATA, 100);
    got.extend(disk.bytes(DATA + 0x1000, 1));
    got.extend(disk.bytes(DATA + 0x2000, 923));
    let want: Vec<u8> = (1536..1536 + 1024).map(pattern).collect();
    assert_eq!(got, want);
}

#[test]
fn a_read_marks_what_it_wrote_and_nothing_else() {
    let mut disk = disk(64 << 10, BlkConfig::default());
    disk.run(0, 0, &[writable(DATA, 512)]);
    let region = disk.ram.iter().next().unwrap();
    region.bitmap().take(|_, _| ());
    let parts = [
        writable(DATA + 0x1_0000, 512),
        writable(DATA + 0x2_0ffc, 512),
    ];
    assert_eq!(disk.run(0, 3, &parts), (OK, 1025));
    let region = disk.ram.iter().next().unwrap();
    let written = |addr: u64| region.bitmap().dirty_at(usize::try_from(addr).unwrap());
    for addr in [DATA + 0x1_0000, DATA + 0x2_0000, DATA + 0x2_1000] {
        assert!(written(addr), "{addr:#x}");
    }
    for addr in [DATA, DATA + 0x1_1000, DATA + 0x2_2000] {
        assert!(!written(addr), "{addr:#x}");
    }
}

#[test]
fn read_larger_than_the_bounce_buffer_is_whole() {
    let mut disk = disk(1 << 20, BlkConfig::default());
    assert_eq!(
        disk.run(0, 0, &[writable(DATA, 1 << 20)]),
        (OK, (1 << 20) + 1)
    );
    let want: Vec<u8> = (0..1 << 20).map(pattern).collect();
    assert!(disk.bytes(DATA, 1 << 20) == want);
}

#[test]
fn write_reaches_the_file_and_reads_back() {
    let mut disk = disk(64 << 10, BlkConfig::default());
    disk.ram
        .write_slice(&[0xab; 1024], GuestAddress(DATA))
        .unwrap();
    let parts = [readable(DATA, 700), readable(DATA + 700, 324)];
    assert_eq!(disk.run(1, 5, &parts), (OK, 1));
    assert_eq!(disk.run(4, 0, &[]), (OK, 1));
    assert_eq!(on_disk(&disk.file, 5 * 512, 1024), [0xab; 1024]);
    assert_eq!(on_disk(&disk.file, 7 * 512, 1), [pattern(7 * 512)]);
}

#[test]
fn what_was_moved_is_counted_and_what_failed_is_not() {
    let mut disk = disk(64 << 10, BlkConfig::default());
    disk.run(0, 0, &[writable(DATA, 512)]);
    disk.run(0, 0, &[writable(DATA, 32 << 10)]);
    disk.run(1, 5, &[readable(DATA, 1024)]);
    // Past the end, and no data at all.
    disk.run(0, 1 << 20, &[writable(DATA, 512)]);
    disk.run(1, 1 << 20, &[readable(DATA, 512)]);
    disk.run(4, 0, &[]);
    let moved = disk.driver.device.traffic();
    let expected = Traffic {
        reads: 2,
        read_bytes: 512 + (32 << 10),
        writes: 1,
        written_bytes: 1024,
    };
    assert_eq!(moved, Some(expected));
}

#[test]
fn header_split_over_descriptors_is_understood() {
    let mut disk = disk(4096, BlkConfig::default());
    let mut header = [0; 16];
    header[8] = 1;
    disk.ram
        .write_slice(&header, GuestAddress(HEADERS))
        .unwrap();
    disk.driver.queues[0].push(&[
        readable(HEADERS, 5),
        readable(HEADERS + 5, 11),
        writable(DATA, 513),
    ]);
    disk.driver.notify(0);
    assert_eq!(disk.driver.wait_used(0).1, 513);
    assert_eq!(disk.bytes(DATA, 1), [pattern(512)]);
    assert_eq!(disk.bytes(DATA + 512, 1), [OK]);
}

#[test]
fn sectors_past_the_end_are_errors() {
    let mut disk = disk(4096, BlkConfig::default());
    let one = [writable(DATA, 512)];
    assert_eq!(disk.run(0, 7, &one).0, OK);
    assert_eq!(disk.run(0, 8, &one).0, IOERR);
    assert_eq!(disk.run(0, 7, &[writable(DATA, 1024)]).0, IOERR);
    assert_eq!(disk.run(0, u64::MAX, &one).0, IOERR);
    assert_eq!(disk.run(0, u64::MAX / 512, &one).0, IOERR);
    assert_eq!(disk.run(1, 8, &[readable(DATA, 512)]).0, IOERR);
    assert_eq!(disk.run(0, 0, &[writable(DATA, 511)]).0, IOERR);
    assert_eq!(on_disk(&disk.file, 0, 1), [0]);
    assert_eq!(disk.file.metadata().unwrap().len(), 4096);
}

#[test]
fn read_only_disk_refuses_every_change() {
    let config = BlkConfig {
        read_only: true,
        ..BlkConfig::default()
    };
    let mut disk = disk(4096, config);
    assert_ne!(disk.driver.offered() & feature::RO, 0);
    assert_eq!(disk.driver.offered() & feature::DISCARD, 0);
    disk.ram.write_slice(&[9; 512], GuestAddress(DATA)).unwrap();
    assert_eq!(disk.run(1, 0, &[readable(DATA, 512)]).0, IOERR);
    put_range(&disk, 0, 8, 0);
    assert_eq!(disk.run(11, 0, &[readable(DATA, 16)]).0, IOERR);
    assert_eq!(disk.run(13, 0, &[readable(DATA, 16)]).0, IOERR);
    assert_eq!(disk.run(4, 0, &[]).0, OK);
    let want: Vec<u8> = (0..4096).map(pattern).collect();
    assert_eq!(on_disk(&disk.file, 0, 4096), want);
}

#[test]
fn partial_last_sector_of_a_read_only_disk_is_padded() {
    let config = BlkConfig {
        read_only: true,
        ..BlkConfig::default()
    };
    let mut disk = disk(1000, config);
    assert_eq!(disk.run(0, 1, &[writable(DATA, 512)]).0, OK);
    let mut want: Vec<u8> = (512..1000).map(pattern).collect();
    want.resize(512, 0);
    assert_eq!(disk.bytes(DATA, 512), want);
    assert_eq!(disk.run(0, 2, &[writable(DATA, 512)]).0, IOERR);
}

fn put_range(disk: &Disk, sector: u64, sectors: u32, flags: u32) {
    let ram = &disk.ram;
    ram.write_obj(sector, GuestAddress(DATA)).unwrap();
    ram.write_obj(sectors, GuestAddress(DATA + 8)).unwrap();
    ram.write_obj(flags, GuestAddress(DATA + 12)).unwrap();
}

#[test]
fn write_zeroes_clears_just_its_range() {
    for flags in [0, 1] {
        let mut disk = disk(64 << 10, BlkConfig::default());
        put_range(&disk, 16, 16, flags);
        assert_eq!(disk.run(13, 0, &[readable(DATA, 16)]).0, OK);
        assert_eq!(on_disk(&disk.file, 16 * 512, 8192), vec![0; 8192]);
        assert_eq!(on_disk(&disk.file, 15 * 512, 1), [pattern(15 * 512)]);
        assert_eq!(on_disk(&disk.file, 32 * 512, 1), [pattern(32 * 512)]);
        assert_eq!(disk.file.metadata().unwrap().len(), 64 << 10);
    }
}

#[test]
fn bad_zero_ranges_are_refused() {
    let mut disk = disk(4096, BlkConfig::default());
    let one = [readable(DATA, 16)];
    put_range(&disk, 0, 9, 0);
    assert_eq!(disk.run(13, 0, &one).0, IOERR);
    put_range(&disk, u64::MAX, 1, 0);
    assert_eq!(disk.run(11, 0, &one).0, IOERR);
    put_range(&disk, 0, u32::MAX, 0);
    assert_eq!(disk.run(13, 0, &one).0, IOERR);
    put_range(&disk, 0, 1, 2);
    assert_eq!(disk.run(13, 0, &one).0, UNSUPP);
    put_range(&disk, 0, 1, 1);
    assert_eq!(disk.run(11, 0, &one).0, UNSUPP);
    put_range(&disk, 0, 8, 0);
    assert_eq!(disk.run(11, 0, &[readable(DATA, 15)]).0, IOERR);
    assert_eq!(disk.run(11, 0, &[]).0, IOERR);
    assert_eq!(disk.run(11, 0, &[readable(DATA, 17 * 16)]).0, IOERR);
    assert_eq!(disk.run(11, 0, &one).0, OK);
}

#[test]
fn identity_is_told() {
    let config = BlkConfig {
        id: "layer-0".into(),
        ..BlkConfig::default()
    };
    let mut disk = disk(4096, config);
    assert_eq!(disk.run(8, 0, &[writable(DATA, 20)]).0, OK);
    assert_eq!(disk.bytes(DATA, 20), b"layer-0\0\0\0\0\0\0\0\0\0\0\0\0\0");
}

#[test]
fn unknown_requests_are_unsupported() {
    let mut disk = disk(4096, BlkConfig::default());
    assert_eq!(disk.run(2, 0, &[]).0, UNSUPP);
    assert_eq!(disk.run(u32::MAX, 0, &[writable(DATA, 64)]).0, UNSUPP);
}

#[test]
fn chains_that_are_no_requests_need_a_reset() {
    let shapes: [&[Buffer]; 4] = [
        &[readable(HEADERS, 16)],
        &[writable(STATUSES, 1)],
        &[readable(HEADERS, 15), writable(STATUSES, 1)],
        &[readable(HEADERS, 16), writable(1 << 40, 1)],
    ];
    for shape in shapes {
        let mut disk = disk(4096, BlkConfig::default());
        let seen = disk.driver.irq.pulses();
        disk.driver.queues[0].push(shape);
        disk.driver.notify(0);
        let patience = std::time::Duration::from_secs(10);
        assert!(disk.driver.irq.wait_beyond(seen, patience) > seen);
        assert_ne!(disk.driver.status() & status::NEEDS_RESET, 0);
        assert_eq!(disk.driver.acknowledge(), 2);
    }
}

#[test]
fn many_requests_in_flight_all_complete() {
    // Too large to be served from the cache by the notification.
    const LEN: u32 = 144 << 10;
    let config = BlkConfig {
        queues: 2,
        ..BlkConfig::default()
    };
    let mut disk = disk(1 << 20, config);
    for round in 0..4u64 {
        let mut expected = Vec::new();
        for slot in 0..20u64 {
            let sector = (round * 131 + slot * 17) % 1700;
            let addr = DATA + slot * u64::from(LEN);
            let (head, status) = disk.submit(0, sector, &[writable(addr, LEN)]);
            expected.push((head, status, sector, addr));
        }
        for _ in 0..20 {
            let (head, len) = disk.driver.wait_used(0);
            assert_eq!(len, LEN + 1);
            let at = expected.iter().position(|e| e.0 == head).unwrap();
            let (_, status, sector, addr) = expected.swap_remove(at);
            assert_eq!(disk.bytes(status, 1), [OK]);
            let last = u64::from(LEN) - 1;
            assert_eq!(disk.bytes(addr, 1), [pattern(sector * 512)]);
            assert_eq!(disk.bytes(addr + last, 1), [pattern(sector * 512 + last)]);
        }
    }
}

#[test]
fn cached_reads_and_slow_requests_mix() {
    let mut disk = disk(64 << 10, BlkConfig::default());
    disk.ram.write_slice(&[8; 512], GuestAddress(DATA)).unwrap();
    let mut expected = Vec::new();
    for slot in 0..20u64 {
        let addr = DATA + 0x1000 * (slot + 1);
        let request = match slot % 3 {
            0 => disk.submit(1, 100, &[readable(DATA, 512)]),
            1 => disk.submit(0, slot, &[writable(addr, 512)]),
            _ => disk.submit(4, 0, &[]),
        };
        expected.push(request);
    }
    for _ in 0..20 {
        let (head, _) = disk.driver.wait_used(0);
        let at = expected.iter().position(|e| e.0 == head).unwrap();
        let (_, status) = expected.swap_remove(at);
        assert_eq!(disk.bytes(status, 1), [OK]);
    }
    assert_eq!(disk.bytes(DATA + 0x1000 * 2, 1), [pattern(512)]);
    assert_eq!(disk.driver.device.state().queues[0].next_used, 20);
}

/// A block of squashfs that begins between pages is a page longer than 128 KiB.
#[test]
fn a_cached_block_of_squashfs_is_read_while_the_guest_notifies() {
    let mut disk = disk(256 << 10, BlkConfig::default());
    // The host may have to wait now and then, and some hosts cannot tell.
    let mut is_served_at_once = |len: u32| {
        (0..100).any(|_| {
            disk.submit(0, 1, &[writable(DATA, len)]);
            let served = disk.driver.queues[0].poll();
            let (_, read) = served.unwrap_or_else(|| disk.driver.wait_used(0));
            assert_eq!(read, len + 1);
            served.is_some()
        })
    };
    let whole_pages = is_served_at_once(128 << 10);
    assert_eq!(is_served_at_once(132 << 10), whole_pages);
    let want: Vec<u8> = (512..512 + (132 << 10)).map(pattern).collect();
    assert!(disk.bytes(DATA, 132 << 10) == want);
}

#[test]
fn reset_with_requests_in_flight_leaves_ram_alone_afterwards() {
    let mut disk = disk(1 << 20, BlkConfig::default());
    for _ in 0..20 {
        disk.submit(0, 0, &[writable(DATA, 1 << 19)]);
    }
    disk.driver.write(0x070, 0);
    assert_eq!(disk.driver.status(), 0);
    disk.ram
        .write_slice(&[0x77; 4096], GuestAddress(DATA))
        .unwrap();
    std::thread::sleep(std::time::Duration::from_millis(30));
    assert_eq!(disk.bytes(DATA, 4096), [0x77; 4096]);
}

#[test]
fn writes_are_durable_at_once_without_the_flush_feature() {
    let ram = guest_ram(8 << 20);
    let irq = Arc::new(CountingIrq::default());
    let file = tempfile::tempfile().unwrap();
    file.set_len(4096).unwrap();
    let blk = Blk::new(file.try_clone().unwrap(), BlkConfig::default()).unwrap();
    let device = Arc::new(VirtioMmio::new(ram.clone(), irq.clone(), Box::new(blk)));
    let driver = Driver::start_without(&ram, device, irq, RINGS, &[64], feature::FLUSH);
    let mut disk = Disk {
        ram,
        driver,
        file,
        next: 0,
    };
    disk.ram.write_slice(&[3; 512], GuestAddress(DATA)).unwrap();
    assert_eq!(disk.run(1, 0, &[readable(DATA, 512)]).0, OK);
    assert_eq!(on_disk(&disk.file, 0, 512), [3; 512]);
}

#[test]
fn impossible_configurations_are_refused() {
    let file = || {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        file
    };
    let long = BlkConfig {
        id: "x".repeat(21),
        ..BlkConfig::default()
    };
    assert!(matches!(
        Blk::<Ram>::new(file(), long),
        Err(BlkError::BadId(_))
    ));
    let none = BlkConfig {
        queues: 0,
        ..BlkConfig::default()
    };
    assert!(matches!(
        Blk::<Ram>::new(file(), none),
        Err(BlkError::BadQueues(0))
    ));
    let lazy = BlkConfig {
        workers: 0,
        ..BlkConfig::default()
    };
    assert!(matches!(
        Blk::<Ram>::new(file(), lazy),
        Err(BlkError::BadWorkers(0))
    ));
    let empty = Blk::<Ram>::new(tempfile::tempfile().unwrap(), BlkConfig::default());
    assert!(matches!(empty, Err(BlkError::TooSmall(0))));
}

#[test]
fn saved_disk_continues_and_another_disk_is_refused() {
    let mut disk = disk(64 << 10, BlkConfig::default());
    assert_eq!(disk.run(0, 0, &[writable(DATA, 512)]).0, OK);
    let state = disk.driver.device.state();
    let other = |len: u64| {
        let file = tempfile::tempfile().unwrap();
        file.set_len(len).unwrap();
        let blk = Blk::new(file, BlkConfig::default()).unwrap();
        VirtioMmio::new(disk.ram.clone(), disk.driver.irq.clone(), Box::new(blk))
    };
    assert!(other(32 << 10).restore(&state).is_err());
    let same = other(64 << 10);
    same.restore(&state).unwrap();
    assert_eq!(same.state(), state);
    disk.driver.device = Arc::new(same);
    disk.ram.write_slice(&[1; 512], GuestAddress(DATA)).unwrap();
    assert_eq!(disk.run(0, 1, &[writable(DATA, 512)]).0, OK);
    assert_eq!(disk.bytes(DATA, 512), [0; 512]);
}

#[test]
fn disk_over_a_base_leaves_it_alone_and_goes_back_to_it() {
    let base = tempfile::tempfile().unwrap();
    let content: Vec<u8> = (0..64 << 10).map(pattern).collect();
    (&base).write_all(&content).unwrap();
    let overlay = Overlay::new(base.try_clone().unwrap(), tempfile::tempfile().unwrap());
    let overlay = Arc::new(overlay.unwrap());
    let mut disk = disk(64 << 10, BlkConfig::default());
    let blk = Blk::over(overlay.clone(), BlkConfig::default()).unwrap();
    let state = disk.driver.device.state();
    let over = VirtioMmio::new(disk.ram.clone(), disk.driver.irq.clone(), Box::new(blk));
    over.restore(&state).unwrap();
    let over = Arc::new(over);
    disk.driver.device = over.clone();
    // Across two blocks, and neither of them whole.
    disk.ram
        .write_slice(&[9; 1024], GuestAddress(DATA))
        .unwrap();
    assert_eq!(disk.run(1, 15, &[readable(DATA, 1024)]).0, OK);
    assert_eq!(disk.run(0, 14, &[writable(DATA, 2048)]).0, OK);
    let read = disk.bytes(DATA, 2048);
    assert_eq!(read[..512], content[14 * 512..15 * 512]);
    assert_eq!(read[512..1536], [9; 1024]);
    assert_eq!(read[1536..], content[17 * 512..18 * 512]);
    assert_eq!(disk.run(4, 0, &[]).0, OK);
    assert_eq!(disk.run(1, 127, &[readable(DATA, 1024)]).0, IOERR);
    assert_eq!(on_disk(&base, 0, 64 << 10), content);
    over.pause();
    overlay.rewind().unwrap();
    over.resume();
    assert_eq!(disk.run(0, 0, &[writable(DATA, 64 << 10)]).0, OK);
    assert_eq!(disk.bytes(DATA, 64 << 10), content);
    // The base of another length is another disk.
    base.set_len(32 << 10).unwrap();
    let shorter = Overlay::new(base, tempfile::tempfile().unwrap()).unwrap();
    let blk = Blk::over(Arc::new(shorter), BlkConfig::default()).unwrap();
    let shorter = VirtioMmio::new(disk.ram.clone(), disk.driver.irq.clone(), Box::new(blk));
    assert!(shorter.restore(&state).is_err());
}

#[test]
fn paused_disk_leaves_ram_alone_and_catches_up() {
    let mut disk = disk(1 << 20, BlkConfig::default());
    let (device, ram) = (disk.driver.device.clone(), disk.ram.clone());
    let last = DATA + (1 << 20);
    for _ in 0..20 {
        disk.submit(0, 0, &[writable(DATA, 1 << 19)]);
    }
    device.pause();
    let state = device.state();
    assert_eq!(state.queues[0].next_avail, state.queues[0].next_used);
    ram.write_slice(&[0x77; 512], GuestAddress(DATA)).unwrap();
    let (_, status) = disk.submit(0, 3, &[writable(last, 512)]);
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!(disk.bytes(DATA, 512), [0x77; 512]);
    assert_eq!(device.state(), state);
    device.resume();
    for _ in 0..21 {
        disk.driver.wait_used(0);
    }
    assert_eq!(disk.bytes(status, 1), [OK]);
    assert_eq!(disk.bytes(last, 1), [pattern(3 * 512)]);
}

#[test]
fn busy_disk_goes_back_to_a_saved_state_again_and_again() {
    let mut disk = disk(1 << 20, BlkConfig::default());
    assert_eq!(disk.run(0, 0, &[writable(DATA, 512)]).0, OK);
    // One request that only a machine that comes back works on.
    disk.driver.device.pause();
    let (_, status) = disk.submit(0, 5, &[writable(DATA, 512)]);
    let state = disk.driver.device.state();
    let mut image = vec![0; 1 << 20];
    disk.ram.read_slice(&mut image, GuestAddress(0)).unwrap();
    let queues = disk.driver.queues.clone();
    disk.driver.device.resume();
    for _ in 0..50 {
        disk.driver.wait_used(0);
        for _ in 0..15 {
            disk.submit(0, 0, &[writable(DATA, 1 << 19)]);
        }
        disk.driver.device.pause();
        disk.ram.write_slice(&image, GuestAddress(0)).unwrap();
        disk.ram
            .write_slice(&[9; 4096], GuestAddress(DATA))
            .unwrap();
        disk.driver.device.reset_to(&state).unwrap();
        disk.driver.device.resume();
        disk.driver.queues.clone_from(&queues);
        // Whether or not its interrupt came already.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while disk.driver.device.state().queues[0].next_used != 2 {
            assert!(std::time::Instant::now() < deadline);
        }
        assert_eq!(disk.bytes(status, 1), [OK]);
        assert_eq!(disk.bytes(DATA, 1), [pattern(5 * 512)]);
        assert_eq!(disk.bytes(DATA + 512, 1), [9]);
    }
}

#[test]
fn empty_disk_of_a_copy_is_filled_and_the_driver_told() {
    let config = BlkConfig {
        may_be_empty: true,
        ..BlkConfig::default()
    };
    let mut disk = disk_on(tempfile::tempfile().unwrap(), config.clone());
    // Not a byte can be read that another disk would have otherwise.
    assert_eq!(disk.run(0, 0, &[writable(DATA, 512)]).0, IOERR);
    let device = disk.driver.device.clone();
    device.pause();
    let state = device.state();
    let file = tempfile::tempfile().unwrap();
    file.set_len(32 << 10).unwrap();
    let other = |config: BlkConfig| {
        let blk = Blk::new(file.try_clone().unwrap(), config).unwrap();
        VirtioMmio::new(disk.ram.clone(), disk.driver.irq.clone(), Box::new(blk))
    };
    assert!(other(BlkConfig::default()).restore(&state).is_err());
    let filled = other(config.clone());
    filled.pause();
    filled.restore(&state).unwrap();
    // Saved again before its driver hears of it, it is empty still.
    assert_eq!(filled.state(), state);
    let configuration_changes = |device: &VirtioMmio| {
        let mut status = [0; 4];
        device.read(0x060, &mut status);
        status[0] & 2 != 0
    };
    assert!(!configuration_changes(&filled));
    filled.resume();
    assert!(configuration_changes(&filled));
    let mut capacity = [0; 8];
    filled.read(0x100, &mut capacity);
    assert_eq!(u64::from_le_bytes(capacity), 64);
    // A disk with content is no other's.
    filled.pause();
    let state = filled.state();
    file.set_len(16 << 10).unwrap();
    assert!(other(config).restore(&state).is_err());
}

#[test]
fn file_that_was_grown_is_a_larger_disk_to_its_driver_and_one_cut_short_is_none() {
    let mut disk = disk(16 << 10, BlkConfig::default());
    let data = Buffer::Writable {
        addr: DATA,
        len: 512,
    };
    assert_eq!(disk.run(0, 32, &[data]).0, IOERR);
    let capacity = |disk: &Disk| {
        let mut bytes = [0; 8];
        disk.driver.device.read(0x100, &mut bytes);
        u64::from_le_bytes(bytes)
    };
    disk.file.set_len((32 << 10) + 511).unwrap();
    assert_eq!(capacity(&disk), 32);
    let generation = |disk: &Disk| {
        let mut bytes = [0; 4];
        disk.driver.device.read(0xfc, &mut bytes);
        u32::from_le_bytes(bytes)
    };
    let before = generation(&disk);
    disk.driver.device.backing_changed();
    assert_eq!((capacity(&disk), generation(&disk)), (64, before + 1));
    assert_eq!(disk.run(0, 63, &[data]), (OK, 513));
    assert_eq!(disk.run(0, 64, &[data]).0, IOERR);
    disk.file.set_len(1024).unwrap();
    disk.driver.device.backing_changed();
    assert_eq!((capacity(&disk), generation(&disk)), (64, before + 1));
    assert_eq!(disk.run(0, 63, &[data]).0, IOERR);
    assert_eq!(disk.run(0, 1, &[data]).0, OK);
}
