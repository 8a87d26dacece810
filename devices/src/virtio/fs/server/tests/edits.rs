//! What the guest is told of what the host changes, and not of what it changed itself.

use super::*;
use crate::virtio::fs::watch::{HostEvent, Pending};
use crate::virtio::fs::wire::NOTIFY_CHANGED;
use std::time::{Duration, Instant};

/// How long a host may take to say something.
const PATIENCE: Duration = Duration::from_secs(20);

/// A message, read as the guest's kernel does.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Change {
    parent: u64,
    child: u64,
    mask: u32,
    name: String,
}

fn read(message: &[u8]) -> Change {
    let mut fields = Fields(message);
    assert_eq!(fields.u32().unwrap() as usize, message.len());
    assert_eq!(fields.u32().unwrap(), NOTIFY_CHANGED);
    assert_eq!(fields.u64().unwrap(), 0, "it answers nothing");
    let (parent, child) = (fields.u64().unwrap(), fields.u64().unwrap());
    let (mask, _cookie) = (fields.u32().unwrap(), fields.u32().unwrap());
    assert_eq!(fields.u32().unwrap() as usize, fields.0.len() - 4);
    assert_eq!(fields.u32().unwrap(), 0);
    let name = String::from_utf8_lossy(fields.0).into_owned();
    Change {
        parent,
        child,
        mask,
        name,
    }
}

fn watched() -> Guest {
    let guest = Guest::new();
    let server = guest.server.with_watch(host::watch().unwrap());
    let mut guest = Guest { server, ..guest };
    let mut arguments = Body::default();
    let arguments = arguments.u32(7).u32(38).u32(0).u32(0);
    guest.ask(opcode::INIT, 0, &arguments.0).unwrap();
    guest
}

impl Guest {
    /// What it is told now, once the host has said all that was done before.
    fn told(&self) -> Vec<Change> {
        let watch = self.server.watch().unwrap();
        // The last thing that the host says.
        let mark = self.host("mark");
        fs::write(&mark, "").unwrap();
        fs::remove_file(&mark).unwrap();
        let mut events: Vec<HostEvent> = Vec::new();
        let begun = Instant::now();
        let is_last =
            |event: &HostEvent| &*event.name == c"mark" && event.mask & HostEvent::DELETE != 0;
        while !events.last().is_some_and(is_last) {
            assert!(begun.elapsed() < PATIENCE, "{events:?}");
            assert!(watch.host().take(&mut events));
        }
        watch.settle();
        let mut pending = Pending::default();
        events
            .into_iter()
            .filter(|event| &*event.name != c"mark")
            .for_each(|event| pending.add(event));
        let mut lately = Lately::default();
        let mut changes = Vec::new();
        while let Some(event) = pending.first() {
            if let Some(message) = self.server.tell_event(event, &mut lately) {
                changes.push(read(&message));
            }
            pending.remove_first();
        }
        changes
    }

    /// The same, as kinds and names.
    fn told_of(&self) -> Vec<(u32, String)> {
        let told = self.told().into_iter();
        told.map(|change| (change.mask, change.name)).collect()
    }
}

#[test]
fn host_s_edits_are_told_of_with_the_nodes_that_the_guest_knows() {
    let mut guest = watched();
    fs::write(guest.host("a"), "old").unwrap();
    fs::create_dir(guest.host("d")).unwrap();
    guest.told();
    let (a, d) = (guest.walk("a").unwrap().node, guest.walk("d").unwrap().node);
    fs::write(guest.host("a"), "new").unwrap();
    fs::write(guest.host("d/b"), "").unwrap();
    fs::rename(guest.host("a"), guest.host("d/c")).unwrap();
    fs::remove_file(guest.host("d/b")).unwrap();
    let change = |parent, child, mask, name: &str| Change {
        parent,
        child,
        mask,
        name: name.to_owned(),
    };
    let told = guest.told();
    // What is gone again when it is told has no content to speak of.
    let expected = [
        change(d, 0, HostEvent::CREATE, "b"),
        change(ROOT, 0, HostEvent::MOVED_FROM, "a"),
        change(d, a, HostEvent::MOVED_TO, "c"),
        change(d, 0, HostEvent::DELETE, "b"),
    ];
    assert_eq!(told, expected);
    fs::write(guest.host("d/c"), "newer").unwrap();
    let expected = [
        change(d, a, HostEvent::MODIFY, "c"),
        change(d, a, HostEvent::CLOSE_WRITE, "c"),
    ];
    assert_eq!(guest.told(), expected);
    // A directory of the host that the guest does not know is not watched.
    fs::create_dir(guest.host("d/e")).unwrap();
    let expected = [change(d, 0, HostEvent::CREATE | HostEvent::DIRECTORY, "e")];
    assert_eq!(guest.told(), expected);
    fs::write(guest.host("d/e/f"), "").unwrap();
    assert_eq!(guest.told(), []);
    guest.walk("d/e").unwrap();
    fs::write(guest.host("d/e/f"), "").unwrap();
    assert!(!guest.told().is_empty());
}

#[test]
fn guest_is_not_told_of_what_it_did_itself() {
    let mut guest = watched();
    let (node, handle) = guest.create(ROOT, c"a", 0o644).unwrap();
    assert_eq!(guest.write(handle, 0, b"content"), Ok(7));
    guest.set(node, set::MODE, 0, 0o600).unwrap();
    guest.set(node, set::SIZE, 3, 0).unwrap();
    let d = guest.make_directory(ROOT, c"d").unwrap().node;
    guest.symlink(d, c"l", c"../a").unwrap();
    guest.rename((ROOT, c"a"), (d, c"b"), 0).unwrap();
    assert_eq!(guest.told_of(), []);
    // The close comes much later than the last write.
    let mut arguments = Body::default();
    arguments.u64(handle).u64(0).u64(0);
    guest.ask(opcode::RELEASE, node, &arguments.0).unwrap();
    guest.unlink(d, c"l").unwrap();
    guest.unlink(d, c"b").unwrap();
    assert_eq!(guest.told_of(), []);
    // The host's are told of between its own.
    let (node, _) = guest.create(d, c"n", 0o644).unwrap();
    fs::write(guest.host("d/n"), "host").unwrap();
    fs::write(guest.host("d/m"), "host").unwrap();
    let told = guest.told();
    let of_host: Vec<_> = told.iter().filter(|change| change.name == "m").collect();
    assert_eq!(of_host.len(), 3, "{told:?}");
    assert!(
        told.iter()
            .any(|change| change.child == node && change.mask == HostEvent::MODIFY)
    );
    assert!(
        !told
            .iter()
            .any(|change| change.name == "n" && change.mask == HostEvent::CREATE)
    );
}

#[test]
fn replaced_file_is_told_of_as_another() {
    let mut guest = watched();
    fs::write(guest.host("a"), "old").unwrap();
    guest.walk("a").unwrap();
    guest.told();
    // As editors write.
    fs::write(guest.host(".a.swp"), "new").unwrap();
    fs::rename(guest.host(".a.swp"), guest.host("a")).unwrap();
    let told = guest.told();
    let last = told.last().unwrap();
    assert_eq!(
        (last.mask, &*last.name, last.child),
        (HostEvent::MOVED_TO, "a", 0)
    );
}

#[test]
fn dependencies_and_objects_are_not_watched_and_what_is_forgotten_neither() {
    let mut guest = watched();
    for name in ["node_modules/x", ".git/objects/00", "src/objects"] {
        fs::create_dir_all(guest.host(name)).unwrap();
    }
    for name in ["node_modules/x", ".git/objects/00", "src/objects"] {
        guest.walk(name).unwrap();
    }
    guest.told();
    for name in ["node_modules/x/a", ".git/objects/a", ".git/objects/00/a"] {
        fs::write(guest.host(name), "").unwrap();
    }
    assert_eq!(guest.told_of(), []);
    fs::write(guest.host(".git/HEAD"), "").unwrap();
    fs::write(guest.host("src/objects/a"), "").unwrap();
    let told = guest.told_of();
    assert!(told.iter().any(|(_, name)| name == "HEAD"), "{told:?}");
    assert!(told.iter().any(|(_, name)| name == "a"), "{told:?}");
    let node = guest.walk("src/objects").unwrap().node;
    let forget = message(opcode::FORGET, node, &u64::MAX.to_le_bytes());
    assert_eq!(guest.raw(forget, 0), None);
    fs::write(guest.host("src/objects/b"), "").unwrap();
    assert_eq!(guest.told_of(), []);
    // Of several at once, also if there are fewer than is said.
    let node = guest.walk("src/objects").unwrap().node;
    let mut several = Body::default();
    several.u32(2).u32(0).u64(node).u64(u64::MAX);
    let forget = message(opcode::BATCH_FORGET, 0, &several.0);
    guest.raw(forget, 0);
    assert!(!guest.server.watch().unwrap().host().holds(node));
}

#[test]
fn guest_that_was_saved_is_told_of_the_directories_that_it_knew() {
    let mut guest = watched();
    fs::create_dir_all(guest.host("d/e")).unwrap();
    fs::create_dir(guest.host("gone")).unwrap();
    let e = guest.walk("d/e").unwrap().node;
    guest.walk("gone").unwrap();
    fs::remove_dir(guest.host("gone")).unwrap();
    fs::create_dir(guest.host("gone")).unwrap();
    let guest = saved::go_on_with(guest, |server| server.with_watch(host::watch().unwrap()));
    let guest = guest.unwrap();
    guest.server.watch_restored();
    fs::write(guest.host("gone/a"), "").unwrap();
    fs::write(guest.host("d/e/a"), "").unwrap();
    let told = guest.told();
    assert!(told.iter().all(|change| change.parent == e), "{told:?}");
    let kinds: Vec<u32> = told.iter().map(|change| change.mask).collect();
    assert_eq!(kinds, [HostEvent::CREATE, HostEvent::CLOSE_WRITE]);
    // The next guest of the device knows nothing.
    guest.server.reset();
    guest.server.watch_root();
    fs::write(guest.host("d/e/b"), "").unwrap();
    assert_eq!(guest.told_of(), []);
}

#[test]
fn a_name_that_is_changed_while_requests_are_under_way_waits_for_them() {
    let guest = watched();
    let watch = guest.server.watch().unwrap();
    let request = watch.begin(7);
    std::thread::scope(|scope| {
        let settled = scope.spawn(|| {
            let begun = Instant::now();
            watch.settle();
            begun.elapsed()
        });
        std::thread::sleep(Duration::from_millis(30));
        // One that begins later is not waited for.
        let _later = watch.begin(8);
        drop(request);
        assert!(settled.join().unwrap() >= Duration::from_millis(10));
    });
    let stat = host::stat(directory(&guest.host("."))).unwrap();
    let of = |node| watch.left_content(&stat.identity, node);
    assert_eq!(of(Some(8)), (None, false));
    let _busy = watch.begin(8);
    assert!(of(Some(8)).1 && !of(Some(9)).1 && !of(None).1);
}
