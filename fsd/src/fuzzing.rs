//! Fuzz logic of the front as a function over bytes, for a fuzzer and for the replay in
//! this crate's own tests: a client that says what it likes, in any order.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;

use devices::virtio::fs::FsConfig;
use rustix::event::EventfdFlags;
use vhost::vhost_user::VhostUserBackendReqHandlerMut as _;
use vhost::vhost_user::message::{
    VhostUserMemoryRegion, VhostUserSingleMemoryRegion, VhostUserVringAddrFlags,
};

use crate::Front;

/// Most things that a client says in a run.
const MAX_STEPS: usize = 200;
const MEMORY_BYTES: u64 = 1 << 18;
/// Where the client has the memory, and where the rings are in it.
const CLIENT: u64 = 0x7000_0000_0000;
const RINGS: u64 = 0x1_0000;
const REQUEST: u64 = 0x2_0000;
const ANSWER: u64 = 0x3_0000;
/// Requests whose work the host would feel: to take disk, and to wait for it.
const LEFT_OUT: [u8; 4] = [43, 20, 30, 50];

/// The input, taken apart from its front; zeroes after its end.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn u8(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.u8()))
    }

    /// One of the rings, and now and then none of them.
    fn ring(&mut self) -> u8 {
        self.u8() % 11
    }

    /// One of these, and now and then any number.
    fn pick(&mut self, choices: &[u64]) -> u64 {
        match usize::from(self.u8()) {
            255 => self.u64(),
            at => choices[at % choices.len()],
        }
    }

    fn region(&mut self) -> VhostUserMemoryRegion {
        let guest = self.pick(&[0, 0, 0, MEMORY_BYTES, 1 << 40]);
        let bytes = self.pick(&[MEMORY_BYTES, MEMORY_BYTES, 0x1_0000, 2 * MEMORY_BYTES]);
        let client = self.pick(&[CLIENT, CLIENT, CLIENT + MEMORY_BYTES, 0]);
        let offset = self.pick(&[0, 0, 0, 0x1000]);
        VhostUserMemoryRegion::new(guest, bytes, client, offset)
    }

    /// Something to be signalled by, and now and then a file.
    fn event(&mut self, file: &File) -> Option<File> {
        match self.u8() % 16 {
            0 => None,
            1 => file.try_clone().ok(),
            signalled => {
                let count = u32::from(signalled % 2);
                let event = rustix::event::eventfd(count, EventfdFlags::NONBLOCK);
                event.ok().map(File::from)
            }
        }
    }
}

fn single(region: VhostUserMemoryRegion) -> VhostUserSingleMemoryRegion {
    VhostUserSingleMemoryRegion::new(
        region.guest_phys_addr,
        region.memory_size,
        region.user_addr,
        region.mmap_offset,
    )
}

/// Has a request in the ring at the next place.
fn put_request(input: &mut Input<'_>, memory: &File, next: &mut u16) {
    let opcode = input.u8() % 53;
    if LEFT_OUT.contains(&opcode) {
        return;
    }
    let mut request = vec![0; 8];
    request[4] = opcode;
    request.extend([9, 0, 0, 0, 0, 0, 0, 0, input.u8() % 4, 0, 0, 0, 0, 0, 0, 0]);
    request.extend([0; 16]);
    request.extend((0..input.u8() % 48).map(|_| input.u8()));
    request.extend(b"a\0");
    let length = u32::try_from(request.len()).unwrap_or(0);
    let descriptor = |at: u64, bytes: u32, flags: u16, next: u16| {
        let mut text = at.to_le_bytes().to_vec();
        text.extend(bytes.to_le_bytes());
        text.extend(flags.to_le_bytes());
        text.extend(next.to_le_bytes());
        text
    };
    let table = [
        descriptor(input.pick(&[REQUEST]), length, 1, 1),
        descriptor(input.pick(&[ANSWER]), 4096, 2, 0),
    ];
    let slot = u64::from(*next % 16);
    *next = next.wrapping_add(1);
    let writes = [
        (REQUEST, request),
        (RINGS, table.concat()),
        (RINGS + 0x1004 + 2 * slot, vec![0; 2]),
        (RINGS + 0x1002, next.to_le_bytes().to_vec()),
    ];
    for (at, bytes) in writes {
        memory.write_all_at(&bytes, at).expect("a file");
    }
}

fn step(input: &mut Input<'_>, front: &mut Front, memory: &File, next: &mut u16) {
    let file = || memory.try_clone().expect("a descriptor");
    let ring = input.ring();
    let number = u32::from(ring);
    // What is refused ends a real client; here it goes on, which is worse.
    let _ = match input.u8() % 16 {
        0 => front.set_features(input.pick(&[1 << 32, 1 << 32 | 1 << 30, 1 << 29, 0])),
        1 => {
            let regions: Vec<_> = (0..input.u8() % 3).map(|_| input.region()).collect();
            let files = regions.iter().map(|_| file()).collect();
            front.set_mem_table(&regions, files)
        }
        2 => front.add_mem_region(&single(input.region()), file()),
        3 => front.remove_mem_region(&single(input.region())),
        4 => {
            let entries = input.pick(&[16, 16, 0, 48, 1 << 15]);
            front.set_vring_num(number, u32::try_from(entries).unwrap_or(u32::MAX))
        }
        5 | 6 => {
            let [table, available, used] = [0, 0x1000, 0x2000]
                .map(|offset| input.pick(&[CLIENT + RINGS + offset, CLIENT + RINGS + offset]));
            let flags = VhostUserVringAddrFlags::empty();
            front.set_vring_addr(number, flags, table, used, available, 0)
        }
        7 => front.set_vring_base(number, input.u8().into()),
        8 => front.get_vring_base(number).map(drop),
        9 => front.set_vring_kick(ring, input.event(memory)),
        10 => front.set_vring_call(ring, input.event(memory)),
        11 => front.set_vring_err(ring, input.event(memory)),
        12 => front.set_vring_enable(number, !input.u8().is_multiple_of(4)),
        13 => {
            put_request(input, memory, next);
            front.kicked(ring.into())
        }
        14 => front.kicked(ring.into()),
        _ => front.reset_device(),
    };
}

/// Whatever a client says, in any order, the front says yes or no to it, and touches
/// nothing beside the shared directory.
///
/// # Panics
/// When it does something else.
pub fn fuzz_front(data: &[u8]) {
    let mut input = Input(data);
    let place = tempfile::tempdir().expect("a directory");
    let share = place.path().join("share");
    let secret = place.path().join("secret");
    fs::create_dir(&share).expect("a directory");
    fs::write(&secret, "secret").expect("a file");
    fs::write(share.join("a"), "content").expect("a file");
    let memory = tempfile::tempfile().expect("a file");
    memory.set_len(MEMORY_BYTES).expect("a file");
    let root = File::open(&share).expect("a directory");
    let mut front = Front::new(root.into(), FsConfig::new("fuzz")).expect("a device");
    let mut next = 0;
    for _ in 0..MAX_STEPS {
        if input.0.is_empty() {
            break;
        }
        step(&mut input, &mut front, &memory, &mut next);
    }
    drop(front);
    let beside = fs::read_dir(place.path()).expect("a directory").count();
    assert_eq!(beside, 2);
    assert_eq!(fs::read(&secret).expect("a file"), b"secret");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    const BUDGET: Duration = Duration::from_millis(1200);

    /// A ring that is set up, used, stopped and set up again, as [`fuzz_front`] reads it.
    const CORPUS: [&[u8]; 2] = [
        &[
            0, 0, 1, 0, 1, 1, 0, 0, 0, 0, 1, 4, 0, 1, 5, 0, 0, 0, 1, 9, 2, 1, 10, 3, 1, 12, 1, 1,
            13, 26, 0, 4, 7, 0, 0, 0, 0, 0, 1, 14, 1, 13, 1, 1, 0, 0, 0, 1, 8, 1, 9, 2, 1, 14, 0,
            15,
        ],
        &[
            0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 4, 0, 2, 6, 0, 0, 0, 2, 9, 3, 2, 13, 1, 1, 0, 0, 0, 0, 3,
            0, 0, 0, 0, 0, 1, 0, 2, 14,
        ],
    ];

    /// SplitMix64, by Sebastiano Vigna (public domain): enough for mutations.
    fn next(state: &mut u64) -> usize {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) >> 33).unwrap_or(0)
    }

    #[test]
    fn clients_that_say_anything_get_an_answer() {
        CORPUS.into_iter().for_each(fuzz_front);
        let mut state = 13;
        let mut pool: Vec<Vec<u8>> = CORPUS.map(<[u8]>::to_vec).into();
        let begun = Instant::now();
        let mut runs = 0;
        while begun.elapsed() < BUDGET {
            let at = next(&mut state) % pool.len();
            let mut input = pool[at].clone();
            for _ in 0..=next(&mut state) % 6 {
                let at = next(&mut state) % (input.len() + 1);
                let byte = next(&mut state).to_le_bytes()[0];
                match next(&mut state) % 3 {
                    0 if at < input.len() => input[at] = byte,
                    1 => input.insert(at, byte),
                    _ => input.extend_from_slice(CORPUS[next(&mut state) % CORPUS.len()]),
                }
            }
            input.truncate(600);
            fuzz_front(&input);
            runs += 1;
            if pool.len() < 64 {
                pool.push(input);
            }
        }
        assert!(runs > 0);
    }
}
