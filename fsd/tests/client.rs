//! The front with a client, which is rust-vmm's own, and a driver's side of its rings.
#![cfg(target_os = "linux")]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::JoinHandle;

use devices::testing::{Buffer, DriverQueue};
use devices::virtio::F_VERSION_1;
use devices::virtio::fs::FsConfig;
use devices::{GuestRam, Ram};
use supermachine_fsd::{Front, ServeError, serve};
use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vm_memory::{Bytes, FileOffset, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

const MEMORY_BYTES: usize = 1 << 20;
/// Where the client says that it has its guest's memory.
const CLIENT: u64 = 0x7000_0000_0000;
const REQUEST: u64 = 0x8_0000;
const ANSWER: u64 = 0x9_0000;
const ENTRIES: u16 = 64;
/// The ring for requests.
const RING: usize = 1;

const LOOKUP: u32 = 1;
const OPEN: u32 = 14;
const READ: u32 = 15;
const INIT: u32 = 26;

/// A guest's memory, and a client that has it.
struct Client {
    frontend: Frontend,
    memory: File,
    queue: DriverQueue,
    kick: EventFd,
    call: EventFd,
    served: JoinHandle<Result<(), ServeError>>,
    place: tempfile::TempDir,
}

fn region(memory: &File) -> VhostUserMemoryRegionInfo {
    VhostUserMemoryRegionInfo {
        guest_phys_addr: 0,
        memory_size: MEMORY_BYTES as u64,
        userspace_addr: CLIENT,
        mmap_offset: 0,
        mmap_handle: memory.as_raw_fd(),
    }
}

/// A ring at the client's addresses of its table, available and used ring.
fn ring([table, available, used]: [u64; 3]) -> VringConfigData {
    VringConfigData {
        queue_max_size: ENTRIES,
        queue_size: ENTRIES,
        flags: 0,
        desc_table_addr: table,
        used_ring_addr: used,
        avail_ring_addr: available,
        log_addr: None,
    }
}

impl Client {
    /// One that has agreed on features and handed over memory.
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join("a"), "content").unwrap();
        let directory = File::open(place.path()).unwrap();
        let front = Front::new(directory.into(), FsConfig::new("share")).unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let served = std::thread::spawn(move || serve(theirs, front));
        let memory = tempfile::tempfile().unwrap();
        memory.set_len(MEMORY_BYTES as u64).unwrap();
        let file = FileOffset::new(memory.try_clone().unwrap(), 0);
        let range = (GuestAddress(0), MEMORY_BYTES, Some(file));
        let ram: GuestRam = Arc::new(Ram::from_ranges_with_files([range]).unwrap());
        let mut frontend = Frontend::from_stream(ours, 9);
        frontend.set_owner().unwrap();
        let offered = frontend.get_features().unwrap();
        let protocol = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
        assert_eq!(offered & (F_VERSION_1 | protocol), F_VERSION_1 | protocol);
        let words = frontend.get_protocol_features().unwrap();
        let wanted = VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::REPLY_ACK;
        assert!(words.contains(wanted));
        frontend.set_protocol_features(wanted).unwrap();
        frontend.set_hdr_flags(vhost::vhost_user::message::VhostUserHeaderFlag::NEED_REPLY);
        assert_eq!(frontend.get_queue_num().unwrap(), 9);
        frontend.set_features(F_VERSION_1 | protocol).unwrap();
        frontend.set_mem_table(&[region(&memory)]).unwrap();
        Self {
            frontend,
            memory,
            queue: DriverQueue::new(ram, 0x1_0000, ENTRIES),
            kick: EventFd::new(EFD_NONBLOCK).unwrap(),
            call: EventFd::new(EFD_NONBLOCK).unwrap(),
            served,
            place,
        }
    }

    /// Starts the ring, from where it stands.
    fn start(&mut self, base: u16) {
        let [table, available, used] = self.queue.addresses();
        let frontend = &mut self.frontend;
        frontend.set_vring_num(RING, ENTRIES).unwrap();
        let ring = ring([CLIENT + table, CLIENT + available, CLIENT + used]);
        frontend.set_vring_addr(RING, &ring).unwrap();
        frontend.set_vring_base(RING, base).unwrap();
        frontend.set_vring_call(RING, &self.call).unwrap();
        frontend.set_vring_kick(RING, &self.kick).unwrap();
        frontend.set_vring_enable(RING, true).unwrap();
    }

    fn started() -> Self {
        let mut client = Self::new();
        client.start(0);
        let hello = [7, 38, 128 << 10, 0].map(u32::to_le_bytes).concat();
        assert_eq!(
            client.ask(INIT, 0, &[hello, vec![0; 48]].concat()).len(),
            64
        );
        client
    }

    fn push(&mut self, opcode: u32, node: u64, arguments: &[u8]) {
        let length = u32::try_from(40 + arguments.len()).unwrap();
        let mut request = Vec::new();
        request.extend(length.to_le_bytes());
        request.extend(opcode.to_le_bytes());
        request.extend(9u64.to_le_bytes());
        request.extend(node.to_le_bytes());
        request.extend([0; 16]);
        request.extend(arguments);
        let ram = self.queue.ram().clone();
        ram.write_slice(&request, GuestAddress(REQUEST)).unwrap();
        let readable = Buffer::Readable {
            addr: REQUEST,
            len: length,
        };
        let writable = Buffer::Writable {
            addr: ANSWER,
            len: 4096,
        };
        self.queue.push(&[readable, writable]);
    }

    /// What follows the header of an answer without an error.
    fn answer(&mut self) -> Vec<u8> {
        let begun = std::time::Instant::now();
        let length = loop {
            if let Some((_, length)) = self.queue.poll() {
                break length;
            }
            assert!(begun.elapsed().as_secs() < 60, "no answer");
            std::thread::yield_now();
        };
        let mut answer = vec![0; usize::try_from(length).unwrap()];
        let ram = self.queue.ram();
        ram.read_slice(&mut answer, GuestAddress(ANSWER)).unwrap();
        assert_eq!(answer[4..8], [0; 4], "an error");
        answer.split_off(16)
    }

    fn ask(&mut self, opcode: u32, node: u64, arguments: &[u8]) -> Vec<u8> {
        self.push(opcode, node, arguments);
        self.kick.write(1).unwrap();
        self.answer()
    }

    fn open(&mut self, name: &[u8]) -> u64 {
        let node = number(&self.ask(LOOKUP, 1, name));
        assert!(node > 1);
        number(&self.ask(OPEN, node, &[0; 8]))
    }

    fn read(&mut self, handle: u64) -> Vec<u8> {
        let mut arguments = handle.to_le_bytes().to_vec();
        arguments.extend([0; 8]);
        arguments.extend(100u32.to_le_bytes());
        arguments.extend([0; 20]);
        self.ask(READ, 0, &arguments)
    }

    /// Goes away; how that was for the one who served it.
    fn leave(self) -> Result<(), ServeError> {
        drop(self.frontend);
        self.served.join().unwrap()
    }
}

fn number(answer: &[u8]) -> u64 {
    u64::from_le_bytes(answer[..8].try_into().unwrap())
}

#[test]
fn client_has_its_guest_read_a_file_and_leaves() {
    let mut client = Client::started();
    let handle = client.open(b"a\0");
    assert_eq!(client.read(handle), b"content");
    // It was told each time, or once for several.
    assert!((1..=5).contains(&client.call.read().unwrap()));
    client.leave().unwrap();
}

#[test]
fn ring_that_is_stopped_is_left_alone_and_goes_on_where_it_was() {
    let mut client = Client::started();
    let handle = client.open(b"a\0");
    // Only the open file is left of it.
    std::fs::remove_file(client.place.path().join("a")).unwrap();
    assert_eq!(client.frontend.get_vring_base(RING).unwrap(), 3);
    client.push(READ, 0, &[0; 40]);
    client.kick.write(1).unwrap();
    let mut arguments = handle.to_le_bytes().to_vec();
    arguments.resize(40, 0);
    assert_eq!(client.queue.poll(), None);
    client.start(3);
    // What was left in the ring is answered without another word: no such file is open.
    let begun = std::time::Instant::now();
    while client.queue.poll().is_none() {
        assert!(begun.elapsed().as_secs() < 60);
        std::thread::yield_now();
    }
    assert_eq!(client.read(handle), b"content");
    client.leave().unwrap();
}

#[test]
fn memory_is_exchanged_under_a_ring_that_runs() {
    let mut client = Client::started();
    let handle = client.open(b"a\0");
    client
        .frontend
        .set_mem_table(&[region(&client.memory)])
        .unwrap();
    assert_eq!(client.read(handle), b"content");
    // Without memory there is no ring.
    let nothing = VhostUserMemoryRegionInfo {
        userspace_addr: 1 << 40,
        ..region(&client.memory)
    };
    assert!(client.frontend.set_mem_table(&[nothing]).is_err());
    assert!(matches!(client.leave(), Err(ServeError::Client(_))));
}

/// Says something false; whether that was refused.
type Lie = fn(&mut Client) -> bool;

#[test]
fn clients_that_lie_are_given_up() {
    let lies: [(&str, Lie); 6] = [
        ("features", |client| {
            client.frontend.set_features(1 << 60).is_err()
        }),
        ("entries", |client| {
            client.frontend.set_vring_num(RING, 48).is_err()
        }),
        ("many entries", |client| {
            client.frontend.set_vring_num(RING, 2048).is_err()
        }),
        ("memory that is not there", |client| {
            let longer = VhostUserMemoryRegionInfo {
                memory_size: 2 * MEMORY_BYTES as u64,
                ..region(&client.memory)
            };
            client.frontend.set_mem_table(&[longer]).is_err()
        }),
        ("memory twice", |client| {
            let twice = [region(&client.memory), region(&client.memory)];
            client.frontend.set_mem_table(&twice).is_err()
        }),
        ("a ring elsewhere", |client| {
            let frontend = &mut client.frontend;
            frontend.set_vring_num(RING, ENTRIES).unwrap();
            let ring = ring([0x1000, CLIENT, CLIENT + (MEMORY_BYTES as u64) - 16]);
            frontend.set_vring_addr(RING, &ring).unwrap();
            frontend.set_vring_kick(RING, &client.kick).unwrap();
            frontend.set_vring_enable(RING, true).is_err()
        }),
    ];
    for (what, lie) in lies {
        let mut client = Client::new();
        assert!(lie(&mut client), "{what}");
        let outcome = client.leave();
        assert!(matches!(outcome, Err(ServeError::Client(_))), "{what}");
    }
}
