//! Guests that take all that there is of something.

use super::apart::{has_descriptors, is_alone};
use super::owners::guest_of;
use super::*;
use crate::virtio::fs::host::{Identity, Stat};
use crate::virtio::fs::nodes::{Link, MAX_NODES};

/// What the names and numbers of a guest that forgets nothing may take at most.
const MOST_BYTES: u64 = 1 << 30;
/// Descriptors of the process that runs out of them.
const DESCRIPTORS: usize = 64;

fn resident_bytes() -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.unwrap().split_whitespace().nth(1).unwrap();
    kib.parse::<u64>().unwrap() << 10
}

/// The longest name that there is with this number.
fn name(number: usize) -> Box<CStr> {
    let mut bytes = vec![b'n'; 255];
    let digits = number.to_string();
    bytes[..digits.len()].copy_from_slice(digits.as_bytes());
    CString::new(bytes).unwrap().into()
}

fn link(number: usize) -> Link {
    Link {
        parent: ROOT,
        name: name(number),
        followed: false,
    }
}

fn file(number: usize) -> Stat {
    Stat {
        identity: Identity {
            dev: 77,
            ino: number as u64,
            ..Identity::default()
        },
        mode: 0o100_644,
        ..Stat::default()
    }
}

#[test]
fn who_looks_up_a_million_names_and_forgets_none_takes_bounded_memory() {
    if !is_alone(
        "virtio::fs::server::tests::floods::who_looks_up_a_million_names_and_forgets_none_takes_bounded_memory",
    ) {
        return;
    }
    let mut guest = Guest::new();
    fs::write(guest.host("known"), "content").unwrap();
    fs::write(guest.host("other"), "").unwrap();
    let known = guest.look(ROOT, c"known").unwrap();
    let before = resident_bytes();
    let mut told = 0;
    while guest
        .server
        .nodes()
        .look_up(link(told), &file(told))
        .is_ok()
    {
        told += 1;
    }
    assert_eq!(told, MAX_NODES - 1);
    // Each by further names, as of hard links.
    for round in 1..=2 {
        for number in 0..told {
            let further = link(round * MAX_NODES + number);
            guest
                .server
                .nodes()
                .look_up(further, &file(number))
                .unwrap();
        }
    }
    let taken = resident_bytes() - before;
    println!("{} MiB", taken >> 20);
    assert!(taken < MOST_BYTES, "{taken}");
    // Nobody is told of more, and nothing is made that nobody is told of.
    let full = Errno::NFILE;
    assert_eq!(guest.look(ROOT, c"other"), Err(full));
    assert_eq!(guest.create(ROOT, c"new", 0o644), Err(full));
    assert_eq!(guest.make_directory(ROOT, c"new"), Err(full));
    assert_eq!(guest.symlink(ROOT, c"new", c"known"), Err(full));
    assert!(fs::symlink_metadata(guest.host("new")).is_err());
    let listed = guest.list(ROOT, true, 4096).unwrap();
    let entries: Vec<_> = listed
        .iter()
        .filter(|(name, _)| !name.starts_with('.'))
        .collect();
    assert_eq!(entries.len(), 2, "{listed:?}");
    // What it knows it can use, and what it forgets makes room.
    assert_eq!(guest.attributes(known.node), Ok(known));
    let again = guest.server.nodes().number(&file(5).identity).unwrap();
    guest.raw(message(opcode::FORGET, again, &9_u64.to_le_bytes()), 0);
    assert!(guest.look(ROOT, c"other").is_ok());
    guest.ask(opcode::DESTROY, 0, &[]).unwrap();
    assert!(guest.create(ROOT, c"new", 0o644).is_ok());
}

#[test]
fn who_opens_all_that_the_host_lets_is_told_so_and_nothing_is_lost() {
    if !has_descriptors(
        "virtio::fs::server::tests::floods::who_opens_all_that_the_host_lets_is_told_so_and_nothing_is_lost",
        DESCRIPTORS,
    ) {
        return;
    }
    let records = Owners::Recorded(Owner::default());
    for owners in [Owners::from(Owner::default()), records.clone()] {
        let keeps_records = owners == records;
        let mut guest = guest_of(owners);
        fs::create_dir(guest.host("d")).unwrap();
        fs::write(guest.host("d/a"), "content").unwrap();
        let [d, a] = ["d", "d/a"].map(|path| guest.walk(path).unwrap().node);
        let (node, first) = guest.create(ROOT, c"f", 0o644).unwrap();
        let answer = guest.ask(opcode::OPENDIR, ROOT, &[0; 8]).unwrap();
        let listing = Fields(&answer).u64().unwrap();
        let mut open = Vec::new();
        let full = loop {
            match guest.open(node, open::RDWR) {
                Ok(handle) => open.push(handle),
                Err(error) => break error,
            }
        };
        assert_eq!(full, Errno::MFILE);
        assert!((20..DESCRIPTORS).contains(&open.len()), "{}", open.len());
        // What needs one more is refused, whole, and never as what is not there.
        assert_eq!(guest.look(d, c"a"), Err(full));
        assert_eq!(guest.open(a, 0), Err(full));
        assert_eq!(guest.create(ROOT, c"new", 0o644), Err(full));
        assert_eq!(guest.make_directory(ROOT, c"new"), Err(full));
        assert_eq!(guest.unlink(d, c"a"), Err(full));
        assert!(guest.host("d/a").exists() && !guest.host("new").exists());
        // A record can only be read of an open file.
        let told = guest.look(ROOT, c"f");
        assert_eq!(told.is_err(), keeps_records, "{told:?}");
        // What is open goes on, and lists are whole.
        assert_eq!(guest.write(first, 0, b"still"), Ok(5));
        assert_eq!(guest.read(open[0], 0, 9), Ok(b"still".to_vec()));
        let listed = guest.list_opened((ROOT, listing), true, 4096).unwrap();
        let mut names: Vec<&str> = listed.iter().map(|(name, _)| &**name).collect();
        names.sort_unstable();
        assert_eq!(names, [".", "..", "d", "f"]);
        for handle in open {
            guest.release(handle).unwrap();
        }
        assert!(guest.make_directory(ROOT, c"new").is_ok());
        assert_eq!(guest.look(d, c"a").map(|told| told.size), Ok(7));
    }
}
