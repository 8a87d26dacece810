//! Files that the guest maps.

use super::saved::go_on_with;
use super::*;
use crate::testing::RecordingWindow;
use crate::virtio::fs::PieceAccess;
use crate::virtio::fs::wire::mapping;

const PIECES: u64 = 4;

struct Mapping {
    offset: u64,
    bytes: u64,
    flags: u64,
    place: u64,
}

/// What Linux asks for to read the first piece of a file.
const FIRST: Mapping = Mapping {
    offset: 0,
    bytes: PIECE_BYTES,
    flags: mapping::READ,
    place: 0,
};

fn guest(read_only: bool, policy: DaxPolicy) -> (Guest, Arc<RecordingWindow>) {
    let window = RecordingWindow::new(32 << 30, PIECES);
    let mut guest = Guest::with(SymlinkPolicy::Opaque, read_only);
    guest.server = guest.server.with_window(window.clone(), policy);
    (guest, window)
}

impl Guest {
    fn map(&mut self, node: u64, wanted: &Mapping) -> Result<(), Errno> {
        let mut arguments = Body::default();
        let arguments = arguments.u64(u64::MAX).u64(wanted.offset).u64(wanted.bytes);
        arguments.u64(wanted.flags).u64(wanted.place);
        let answer = self.ask(opcode::SETUPMAPPING, node, &arguments.0)?;
        assert!(answer.is_empty());
        Ok(())
    }

    fn unmap(&mut self, ranges: &[(u64, u64)]) -> Result<(), Errno> {
        let mut arguments = Body::default();
        arguments.u32(u32::try_from(ranges.len()).unwrap());
        for (place, bytes) in ranges {
            arguments.u64(*place).u64(*bytes);
        }
        self.ask(opcode::REMOVEMAPPING, ROOT, &arguments.0)
            .map(drop)
    }
}

fn sparse(path: &Path, bytes: u64) {
    fs::File::create(path).unwrap().set_len(bytes).unwrap();
}

#[test]
fn file_is_seen_in_the_window_and_no_longer_when_it_is_taken_out() {
    let (mut guest, window) = guest(false, DaxPolicy::Always);
    fs::write(guest.host("a"), "content").unwrap();
    sparse(&guest.host("b"), 3 * PIECE_BYTES);
    let [a, b] = ["a", "b"].map(|name| guest.walk(name).unwrap().node);
    guest.map(a, &FIRST).unwrap();
    assert_eq!(window.look(0, 9), b"content");
    fs::write(guest.host("a"), "changed").unwrap();
    assert_eq!(window.look(0, 9), b"changed");
    let wide = Mapping {
        offset: PIECE_BYTES,
        bytes: 2 * PIECE_BYTES,
        flags: mapping::READ | mapping::WRITE,
        place: 2 * PIECE_BYTES,
    };
    guest.map(b, &wide).unwrap();
    let write = Some(PieceAccess::Write);
    let all = [
        (0, Some(PieceAccess::Read)),
        (2 * PIECE_BYTES, write),
        (3 * PIECE_BYTES, write),
    ];
    assert_eq!(window.shown(), all);
    // Another file in its place, without a word of the first.
    guest.map(b, &FIRST).unwrap();
    assert_eq!(window.renewed(), 0);
    assert_eq!(window.look(0, 3), [0; 3]);
    // The same with the right to write: it is there all the while.
    let writable = Mapping {
        flags: mapping::READ | mapping::WRITE,
        ..FIRST
    };
    guest.map(b, &writable).unwrap();
    assert_eq!((window.renewed(), window.shown()[0]), (1, (0, write)));
    let gone = [(0, PIECE_BYTES), (2 * PIECE_BYTES, PIECE_BYTES)];
    guest.unmap(&gone).unwrap();
    assert_eq!(window.shown(), [(3 * PIECE_BYTES, write)]);
    guest.unmap(&gone).unwrap();
    guest.ask(opcode::DESTROY, 0, &[]).unwrap();
    assert_eq!(window.shown(), []);
}

#[test]
fn nonsense_is_refused_and_changes_nothing() {
    let (mut guest, window) = guest(false, DaxPolicy::Always);
    fs::write(guest.host("a"), "content").unwrap();
    fs::create_dir(guest.host("d")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        guest.host("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    let [a, d, pipe] = ["a", "d", "pipe"].map(|name| guest.walk(name).unwrap().node);
    let last = PIECES * PIECE_BYTES;
    let bad = [
        Mapping { place: 1, ..FIRST },
        Mapping {
            place: last,
            ..FIRST
        },
        Mapping {
            place: u64::MAX - PIECE_BYTES + 1,
            ..FIRST
        },
        Mapping { bytes: 0, ..FIRST },
        Mapping {
            bytes: 4096,
            ..FIRST
        },
        Mapping {
            bytes: last + PIECE_BYTES,
            ..FIRST
        },
        Mapping {
            bytes: u64::MAX - PIECE_BYTES + 1,
            place: PIECE_BYTES,
            ..FIRST
        },
        Mapping {
            offset: 4096,
            ..FIRST
        },
        Mapping {
            offset: u64::MAX - PIECE_BYTES + 1,
            ..FIRST
        },
        Mapping {
            offset: 1 << 63,
            ..FIRST
        },
        Mapping {
            offset: (1 << 63) - PIECE_BYTES,
            ..FIRST
        },
        Mapping { flags: 4, ..FIRST },
        Mapping {
            flags: u64::MAX,
            ..FIRST
        },
    ];
    for wanted in &bad {
        assert_eq!(guest.map(a, wanted), Err(Errno::INVAL));
    }
    for (node, error) in [
        (d, Errno::NODEV),
        (pipe, Errno::NODEV),
        (ROOT, Errno::NODEV),
        (99, Errno::STALE),
        (0, Errno::STALE),
    ] {
        assert_eq!(guest.map(node, &FIRST), Err(error), "{node}");
    }
    for range in [
        (1, PIECE_BYTES),
        (0, 1),
        (last, PIECE_BYTES),
        (0, u64::MAX),
        (0, 0),
    ] {
        assert_eq!(guest.unmap(&[range]), Err(Errno::INVAL));
    }
    // It says that there are more than there are.
    let counted = u32::MAX.to_le_bytes();
    let answer = guest.ask(opcode::REMOVEMAPPING, ROOT, &counted);
    assert_eq!(answer, Err(Errno::INVAL));
    assert_eq!(
        guest.ask(opcode::SETUPMAPPING, a, &[0; 39]),
        Err(Errno::INVAL)
    );
    assert_eq!(window.shown(), []);
    let mut plain = Guest::new();
    fs::write(plain.host("a"), "content").unwrap();
    let node = plain.walk("a").unwrap().node;
    assert_eq!(plain.map(node, &FIRST), Err(Errno::NOSYS));
    assert_eq!(plain.unmap(&[]), Err(Errno::NOSYS));
}

#[test]
fn mapping_gives_no_more_than_the_mount_and_takes_what_a_write_takes() {
    let writable = Mapping {
        flags: mapping::READ | mapping::WRITE,
        ..FIRST
    };
    let (mut refused, window) = guest(true, DaxPolicy::Always);
    fs::write(refused.host("a"), "content").unwrap();
    let node = refused.walk("a").unwrap().node;
    assert_eq!(refused.map(node, &writable), Err(Errno::ROFS));
    refused.map(node, &FIRST).unwrap();
    assert_eq!(window.shown(), [(0, Some(PieceAccess::Read))]);
    let (mut guest, window) = guest(false, DaxPolicy::Always);
    fs::write(guest.host("a"), "content").unwrap();
    let privileged = fs::Permissions::from_mode(0o6755);
    fs::set_permissions(guest.host("a"), privileged).unwrap();
    let node = guest.walk("a").unwrap().node;
    guest.map(node, &FIRST).unwrap();
    let mode = |guest: &Guest| fs::metadata(guest.host("a")).unwrap().mode() & 0o7777;
    assert_eq!(mode(&guest), 0o6755);
    guest.map(node, &writable).unwrap();
    assert_eq!(mode(&guest), 0o755);
    // Whose name has gone is reached as long as it is open, as it is open.
    let reading = guest.open(node, 0).unwrap();
    fs::remove_file(guest.host("a")).unwrap();
    guest.unmap(&[(0, PIECE_BYTES)]).unwrap();
    assert_eq!(guest.map(node, &writable), Err(Errno::STALE));
    guest.map(node, &FIRST).unwrap();
    assert_eq!(window.look(0, 7), b"content");
    let mut arguments = Body::default();
    arguments.u64(reading).u64(0).u64(0);
    guest.ask(opcode::RELEASE, node, &arguments.0).unwrap();
    assert_eq!(guest.map(node, &FIRST), Err(Errno::STALE));
    // What takes its name is another file.
    fs::write(guest.host("a"), "other").unwrap();
    assert_eq!(guest.map(node, &FIRST), Err(Errno::STALE));
}

#[test]
fn files_are_marked_by_policy_and_only_with_a_window() {
    const FLAGS_AT: usize = 84;
    let flags = |guest: &mut Guest, name: &str| {
        let node = guest.walk(name).unwrap().node;
        let answer = guest.ask(opcode::GETATTR, node, &[0; 16]).unwrap();
        Fields(&answer[16 + FLAGS_AT..]).u32().unwrap()
    };
    for (policy, expected) in [
        (Some(DaxPolicy::LargeFiles), [0, 2, 0]),
        (Some(DaxPolicy::Always), [2, 2, 0]),
        (None, [0, 0, 0]),
    ] {
        let mut guest = match policy {
            Some(policy) => guest(false, policy).0,
            None => Guest::new(),
        };
        sparse(&guest.host("small"), PIECE_BYTES / 2 - 1);
        sparse(&guest.host("large"), PIECE_BYTES / 2);
        fs::create_dir(guest.host("d")).unwrap();
        let found = ["small", "large", "d"].map(|name| flags(&mut guest, name));
        assert_eq!(found, expected, "{policy:?}");
        // What Linux 6.12 says of itself, and what it says without DAX.
        for (offered, word) in [(0x7fff_ffff_u32, 2_u32), (0x3bff_ffff, 0)] {
            let mut arguments = Body::default();
            let arguments = arguments.u32(7).u32(41).u32(1 << 20).u32(offered).u32(word);
            let answer = guest
                .ask(opcode::INIT, 0, &arguments.bytes(&[0; 44]).0)
                .unwrap();
            assert_eq!(answer.len(), 64);
            let agreed = Fields(&answer[12..]).u32().unwrap();
            let aligned = u16::from_le_bytes([answer[30], answer[31]]);
            let more = Fields(&answer[32..]).u32().unwrap();
            let maps = policy.is_some() && word != 0;
            assert_eq!(agreed & (1 << 26) != 0, maps);
            assert_eq!(
                (aligned, more),
                (
                    if policy.is_some() { 21 } else { 0 },
                    if maps { 2 } else { 0 }
                )
            );
        }
    }
}

#[test]
fn what_was_lost_is_shown_again_before_the_next_answer() {
    let (mut guest, window) = guest(false, DaxPolicy::Always);
    fs::write(guest.host("a"), "content").unwrap();
    fs::write(guest.host("gone"), "content").unwrap();
    let [a, gone] = ["a", "gone"].map(|name| guest.walk(name).unwrap().node);
    guest.map(a, &FIRST).unwrap();
    let second = Mapping {
        place: PIECE_BYTES,
        ..FIRST
    };
    guest.map(gone, &second).unwrap();
    fs::remove_file(guest.host("gone")).unwrap();
    for place in [0, PIECE_BYTES, 3 * PIECE_BYTES] {
        window.lose(place);
    }
    guest.attributes(a).unwrap();
    assert_eq!(window.renewed(), 1);
    guest.attributes(a).unwrap();
    assert_eq!(window.renewed(), 1);
    assert_eq!(window.look(0, 7), b"content");
}

#[test]
fn copies_see_the_same_files_where_they_were_and_zeros_in_place_of_others() {
    let (mut guest, _) = guest(false, DaxPolicy::Always);
    for name in ["kept", "replaced", "gone"] {
        fs::write(guest.host(name), name).unwrap();
    }
    for (n, name) in (0..).zip(["kept", "replaced", "gone"]) {
        let node = guest.walk(name).unwrap().node;
        let flags = mapping::READ | mapping::WRITE;
        let place = n * PIECE_BYTES;
        guest
            .map(
                node,
                &Mapping {
                    flags,
                    place,
                    ..FIRST
                },
            )
            .unwrap();
    }
    let kept = guest.walk("kept").unwrap().node;
    fs::rename(guest.host("replaced"), guest.host("old")).unwrap();
    fs::write(guest.host("replaced"), "other").unwrap();
    fs::remove_file(guest.host("gone")).unwrap();
    let window = RecordingWindow::new(32 << 30, PIECES);
    let mut copy = go_on_with(guest, |server| {
        server.with_window(window.clone(), DaxPolicy::Always)
    })
    .unwrap();
    let expected = [
        (0, Some(PieceAccess::Write)),
        (PIECE_BYTES, None),
        (2 * PIECE_BYTES, None),
    ];
    assert_eq!(window.shown(), expected);
    assert_eq!(window.look(0, 9), b"kept");
    copy.map(
        kept,
        &Mapping {
            place: PIECE_BYTES,
            ..FIRST
        },
    )
    .unwrap();
    assert_eq!(window.look(PIECE_BYTES, 9), b"kept");
    // A copy that may not write any more keeps what its guest writes.
    copy.server.rules.read_only = true;
    let window = RecordingWindow::new(32 << 30, PIECES);
    let copy = go_on_with(copy, |server| {
        server.with_window(window.clone(), DaxPolicy::LargeFiles)
    })
    .unwrap();
    let expected = [
        (0, Some(PieceAccess::Keep)),
        (PIECE_BYTES, Some(PieceAccess::Read)),
        (2 * PIECE_BYTES, None),
    ];
    assert_eq!(window.shown(), expected);
    // Windows are where they were, and as long.
    let place = copy.place.path().to_owned();
    assert!(place.exists());
    assert!(go_on_with(copy, |server| server).is_none());
    for window in [
        RecordingWindow::new(33 << 30, PIECES),
        RecordingWindow::new(32 << 30, PIECES + 1),
    ] {
        let (mut other, _) = guest_with_a_mapping();
        other.attributes(ROOT).unwrap();
        let gone_on = go_on_with(other, |server| {
            server.with_window(window, DaxPolicy::Always)
        });
        assert!(gone_on.is_none());
    }
}

fn guest_with_a_mapping() -> (Guest, Arc<RecordingWindow>) {
    let (mut guest, window) = guest(false, DaxPolicy::Always);
    fs::write(guest.host("a"), "content").unwrap();
    let node = guest.walk("a").unwrap().node;
    guest.map(node, &FIRST).unwrap();
    (guest, window)
}

#[test]
fn windows_that_cannot_have_been_saved_are_refused() {
    let (guest, window) = guest_with_a_mapping();
    let good = guest.server.save();
    assert_eq!(guest.server.restore(&good), Some(()));
    let first = good.window.shown[0].1;
    let places = [1, PIECES * PIECE_BYTES, u64::MAX - PIECE_BYTES + 1];
    let offsets = [1, u64::MAX - PIECE_BYTES + 1, 1 << 63];
    let mut bad: Vec<Vec<(u64, Shown)>> = Vec::new();
    bad.extend(places.map(|place| vec![(place, first)]));
    bad.extend(offsets.map(|offset| vec![(0, Shown { offset, ..first })]));
    bad.push(vec![(0, first), (0, first)]);
    for shown in bad {
        let mut saved = good.clone();
        saved.window.shown = shown;
        assert_eq!(guest.server.restore(&saved), None);
    }
    // A node that is not there is a file that is not there.
    let mut saved = good.clone();
    saved.window.shown[0].1.node = 77;
    assert_eq!(guest.server.restore(&saved), Some(()));
    assert_eq!(window.shown(), [(0, None)]);
}

#[test]
fn what_may_be_lost_of_what_was_written_is_an_error_of_the_next_sync_and_of_no_other() {
    let (mut guest, window) = guest(false, DaxPolicy::Always);
    sparse(&guest.host("a"), PIECE_BYTES);
    let node = guest.walk("a").unwrap().node;
    let handle = guest.open(node, open::RDWR).unwrap();
    let sync = |guest: &mut Guest, data_only: u32| {
        let mut arguments = Body::default();
        arguments.u64(handle).u32(data_only).u32(0);
        guest.ask(opcode::FSYNC, node, &arguments.0).map(drop)
    };
    guest.map(node, &FIRST).unwrap();
    // Nothing was written where it is only read.
    window.lose(0);
    assert_eq!(sync(&mut guest, 0), Ok(()));
    let flags = mapping::READ | mapping::WRITE;
    guest.map(node, &Mapping { flags, ..FIRST }).unwrap();
    for data_only in [0, 1] {
        window.lose(0);
        assert_eq!(sync(&mut guest, data_only), Err(Errno::IO));
        assert_eq!(sync(&mut guest, data_only), Ok(()));
    }
}
