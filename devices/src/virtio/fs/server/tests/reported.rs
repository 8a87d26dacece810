//! What users of other servers have reported, by the numbers of the reports.

use super::*;

/// Descriptors of this process that lead to files in a place.
#[cfg(target_os = "linux")]
fn descriptors_in(place: &Path) -> usize {
    let open = fs::read_dir("/proc/self/fd").unwrap().flatten();
    let targets = open.filter_map(|entry| fs::read_link(entry.path()).ok());
    targets.filter(|target| target.starts_with(place)).count()
}

/// libkrun#505, docker/for-mac#6783: a descriptor for each file that was looked at.
#[cfg(target_os = "linux")]
#[test]
fn no_descriptor_is_held_for_files_that_were_looked_at() {
    let mut guest = Guest::new();
    for number in 0..2000 {
        fs::write(guest.host(&format!("f{number}")), "").unwrap();
    }
    let place = guest.place.path().to_owned();
    let before = descriptors_in(&place);
    for number in 0..1000 {
        let name = CString::new(format!("f{number}")).unwrap();
        guest.look(ROOT, &name).unwrap();
    }
    assert_eq!(guest.list(ROOT, true, 4096).unwrap().len(), 2002);
    assert_eq!(descriptors_in(&place), before);
}

/// libkrun#700, #705: a file that was renamed over is not found by its handle.
#[test]
fn file_that_is_renamed_over_takes_what_is_done_by_its_handle() {
    let mut guest = Guest::new();
    let (old, handle) = guest.create(ROOT, c"a", 0o644).unwrap();
    let (new, other) = guest.create(ROOT, c"b", 0o644).unwrap();
    assert_eq!(guest.write(handle, 0, b"old"), Ok(3));
    assert_eq!(guest.write(other, 0, b"newer"), Ok(5));
    guest.rename((ROOT, c"b"), (ROOT, c"a"), 0).unwrap();
    let told = guest.set(old, set::MODE, 0, 0o640).unwrap();
    assert_eq!((told.mode & 0o777, told.nlink, told.size), (0o640, 0, 3));
    assert_eq!(guest.read(handle, 0, 9).unwrap(), b"old");
    assert_eq!(guest.write(handle, 3, b"er"), Ok(2));
    for (node, handle) in [(old, handle), (new, other)] {
        let mut arguments = Body::default();
        arguments.u64(handle).u64(0).u64(0);
        guest.ask(opcode::RELEASE, node, &arguments.0).unwrap();
    }
    assert_eq!(guest.look(ROOT, c"a").map(|told| told.node), Ok(new));
    assert_eq!(fs::read(guest.host("a")).unwrap(), b"newer");
}

/// docker/sandboxes#488: what the host appends is not seen by who has the file open.
#[test]
fn what_the_host_appends_is_read_by_a_handle_that_was_open() {
    use std::io::Write;
    let mut guest = Guest::new();
    fs::write(guest.host("log"), "one ").unwrap();
    let node = guest.look(ROOT, c"log").unwrap().node;
    let handle = guest.open(node, 0).unwrap();
    assert_eq!(guest.read(handle, 0, 100).unwrap(), b"one ");
    let log = fs::File::options().append(true).open(guest.host("log"));
    log.unwrap().write_all(b"two").unwrap();
    assert_eq!(guest.attributes(node).map(|told| told.size), Ok(7));
    assert_eq!(guest.read(handle, 0, 100).unwrap(), b"one two");
}

/// docker/desktop-feedback#628: the owner of the shared directory becomes root's.
#[test]
fn owner_of_the_shared_directory_stays_who_it_is() {
    let mut guest = Guest::new();
    let owner = |guest: &mut Guest| guest.attributes(ROOT).unwrap().uid;
    assert_eq!(owner(&mut guest), 7);
    guest.make_directory(ROOT, c"d").unwrap();
    guest.create(ROOT, c"a", 0o600).unwrap();
    guest.set(ROOT, set::MODE, 0, 0o700).unwrap();
    guest.unlink(ROOT, c"a").unwrap();
    assert_eq!(owner(&mut guest), 7);
}

/// docker/sandboxes#507: a directory somebody is in counts as removed after many files
/// were made there.
#[test]
fn directory_is_the_same_one_whatever_is_made_in_it() {
    let mut guest = Guest::new();
    let directory = guest.make_directory(ROOT, c"d").unwrap().node;
    for number in 0..5000 {
        let name = CString::new(format!("f{number}")).unwrap();
        let (node, handle) = guest.create(directory, &name, 0o644).unwrap();
        let mut arguments = Body::default();
        arguments.u64(handle).u64(0).u64(0);
        guest.ask(opcode::RELEASE, node, &arguments.0).unwrap();
    }
    assert_eq!(guest.look(ROOT, c"d").map(|told| told.node), Ok(directory));
    assert!(guest.attributes(directory).unwrap().nlink > 0);
    assert_eq!(guest.list(directory, false, 4096).unwrap().len(), 5002);
}

/// microsandbox#1115: each listing of a directory takes memory of the host for ever.
#[test]
fn what_was_listed_and_forgotten_takes_no_memory() {
    let mut guest = Guest::new();
    for number in 0..50 {
        fs::write(guest.host(&format!("f{number}")), "").unwrap();
    }
    let known = |guest: &Guest| guest.server.save().nodes.len();
    let before = known(&guest);
    for _ in 0..20 {
        let listed = guest.list(ROOT, true, 4096).unwrap();
        assert!(known(&guest) >= before + 50);
        for (_, node) in listed.into_iter().filter(|(_, node)| *node > ROOT) {
            let forget = message(opcode::FORGET, node, &1_u64.to_le_bytes());
            assert!(guest.raw(forget, 100).is_none());
        }
        assert_eq!(known(&guest), before);
    }
    assert!(guest.server.save().handles.is_empty());
}
