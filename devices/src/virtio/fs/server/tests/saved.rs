//! A server that goes on where another one was.

use super::*;
use crate::virtio::DeviceState;
use crate::virtio::fs::FsState;

fn go_on(guest: Guest) -> Guest {
    go_on_with(guest, |server| server).unwrap()
}

/// The same with something for the new server; `None` if that refuses the state.
pub(super) fn go_on_with(guest: Guest, make: impl FnOnce(Server) -> Server) -> Option<Guest> {
    let state = FsState::of("tag", &guest.server);
    let bytes = state.to_bytes();
    let state = FsState::from_bytes(&bytes).unwrap();
    assert_eq!(state.to_bytes(), bytes);
    let server = Server::new(guest.server.root.try_clone().unwrap(), guest.server.rules);
    let server = make(server.unwrap());
    state.give_to(&server).ok()?;
    Some(Guest { server, ..guest })
}

#[test]
fn nodes_and_handles_go_on_by_name_and_identity() {
    let mut guest = Guest::new();
    fs::create_dir(guest.host("d")).unwrap();
    fs::write(guest.host("d/kept"), "kept").unwrap();
    fs::write(guest.host("d/replaced"), "old").unwrap();
    fs::write(guest.host("d/gone"), "gone").unwrap();
    let directory = guest.walk("d").unwrap().node;
    let mut opened = |name: &str| {
        let node = guest.walk(name).unwrap().node;
        (node, guest.open(node, open::RDWR).unwrap())
    };
    let kept = opened("d/kept");
    let replaced = opened("d/replaced");
    let gone = opened("d/gone");
    let answer = guest.ask(opcode::OPENDIR, directory, &[0; 8]).unwrap();
    let listing = Fields(&answer).u64().unwrap();
    // What the host does while the machine is nowhere.
    fs::rename(guest.host("d/replaced"), guest.host("d/old")).unwrap();
    fs::write(guest.host("d/replaced"), "new").unwrap();
    fs::remove_file(guest.host("d/gone")).unwrap();
    let mut guest = go_on(guest);
    assert_eq!(guest.read(kept.1, 0, 9), Ok(b"kept".to_vec()));
    assert_eq!(guest.write(kept.1, 0, b"K"), Ok(1));
    assert_eq!(guest.attributes(kept.0).map(|told| told.size), Ok(4));
    for (node, handle) in [replaced, gone] {
        assert_eq!(guest.read(handle, 0, 9), Err(Errno::STALE));
        assert_eq!(guest.attributes(node), Err(Errno::STALE));
    }
    assert_eq!(fs::read(guest.host("d/replaced")).unwrap(), b"new");
    let mut arguments = Body::default();
    let arguments = arguments.u64(listing).u64(0).u32(4096).u32(0);
    arguments.u64(0).u64(0);
    assert!(guest.ask(opcode::READDIR, directory, &arguments.0).is_ok());
    // What is new has numbers that were not used before.
    let (node, handle) = guest.create(ROOT, c"new", 0o644).unwrap();
    assert!(node > gone.0 && handle > listing);
    // And again, with handles that nobody used in between.
    let mut guest = go_on(go_on(guest));
    assert_eq!(guest.read(kept.1, 0, 9), Ok(b"Kept".to_vec()));
}

#[test]
fn what_cannot_have_been_saved_is_refused() {
    let mut guest = Guest::new();
    guest.create(ROOT, c"a", 0o644).unwrap();
    let good = FsState::of("tag", &guest.server).to_bytes();
    for length in 0..good.len() {
        assert_eq!(FsState::from_bytes(&good[..length]), None, "{length}");
    }
    let mut refused = 0;
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            // Whatever it is taken for, nothing but the tree is reached by it.
            match FsState::from_bytes(&bad) {
                Some(state) => drop(state.give_to(&guest.server)),
                None => refused += 1,
            }
        }
    }
    assert!(refused > 100, "{refused}");
}
