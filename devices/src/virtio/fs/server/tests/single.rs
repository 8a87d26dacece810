//! A device of one file.

use super::*;
use crate::virtio::DeviceState;
use crate::virtio::fs::FsState;

const FILE: u64 = 2;

fn rules(read_only: bool) -> Rules {
    Rules {
        read_only,
        symlinks: SymlinkPolicy::Opaque,
        owners: Owner { uid: 7, gid: 8 }.into(),
    }
}

/// A guest with the file `share/one` of its place alone.
fn guest(read_only: bool) -> Guest {
    let guest = Guest::new();
    fs::write(guest.host("one"), "content").unwrap();
    fs::write(guest.host("beside"), "beside").unwrap();
    let mut how = fs::File::options();
    let file = how.read(true).write(!read_only);
    let file = file.open(guest.host("one")).unwrap();
    Guest {
        server: Server::new(file.into(), rules(read_only)).unwrap(),
        ..guest
    }
}

#[test]
fn the_file_is_alone_in_its_directory_and_is_read_and_written() {
    let mut guest = guest(false);
    let told = guest.look(ROOT, c"file").unwrap();
    assert_eq!((told.node, told.size, told.uid), (FILE, 7, 7));
    assert_eq!(guest.attributes(ROOT).unwrap().mode, 0o040_755);
    // What it is told it is to believe for no time at all: a copy has another file.
    let answer = guest.ask(opcode::GETATTR, FILE, &[0; 16]).unwrap();
    assert_eq!(answer[..8], [0; 8]);
    let answer = guest.ask(opcode::LOOKUP, ROOT, b"file\0").unwrap();
    assert_eq!(answer[24..32], [0; 8]);
    for name in [c"one", c"beside", c"files"] {
        assert_eq!(guest.look(ROOT, name), Err(Errno::NOENT));
    }
    assert_eq!(guest.look(FILE, c"file"), Err(Errno::NOTDIR));
    for (plus, size, node) in [(false, 4096, 0), (false, 32, 0), (true, 400, FILE)] {
        let listed = guest.list(ROOT, plus, size).unwrap();
        let expected = [(".", 0), ("..", 0), ("file", node)];
        assert_eq!(listed, expected.map(|(name, node)| (name.to_owned(), node)));
    }
    assert_eq!(guest.list(ROOT, true, 100), Err(Errno::INVAL));
    let reader = guest.open(FILE, 0).unwrap();
    let writer = guest.open(FILE, open::RDWR | open::APPEND).unwrap();
    assert_eq!(guest.write(reader, 0, b"x"), Err(Errno::BADF));
    // Where the end is, the guest's kernel says: the other handle does not append.
    assert_eq!(guest.write_with(writer, 7, b"!", open::APPEND), Ok(1));
    let other = guest.open(FILE, open::RDWR).unwrap();
    assert_eq!(guest.write(other, 0, b"C"), Ok(1));
    assert_eq!(guest.read(reader, 0, 99), Ok(b"Content!".to_vec()));
    fs::write(guest.host("one"), "host").unwrap();
    assert_eq!(guest.read(reader, 0, 99), Ok(b"host".to_vec()));
    let told = guest
        .set(FILE, set::SIZE | set::MODE, 2, 0o104_640)
        .unwrap();
    assert_eq!((told.size, told.mode), (2, 0o100_640));
    assert!(guest.open(FILE, open::WRONLY | open::TRUNC).is_ok());
    assert_eq!(fs::read(guest.host("one")).unwrap(), b"");
    assert_eq!(fs::read(guest.host("beside")).unwrap(), b"beside");
}

#[test]
fn nothing_is_made_or_removed_and_nothing_else_is_reached() {
    let mut guest = guest(false);
    guest.look(ROOT, c"file").unwrap();
    assert_eq!(guest.create(ROOT, c"new", 0o644), Err(Errno::PERM));
    assert_eq!(guest.unlink(ROOT, c"file"), Err(Errno::PERM));
    assert_eq!(guest.symlink(ROOT, c"l", c"/"), Err(Errno::PERM));
    assert_eq!(guest.make_directory(ROOT, c"d").err(), Some(Errno::PERM));
    let moved = guest.rename((ROOT, c"file"), (ROOT, c"beside"), 0);
    assert_eq!(moved, Err(Errno::PERM));
    assert_eq!(guest.set(ROOT, set::MODE, 0, 0), Err(Errno::PERM));
    for node in [0, 3, u64::MAX] {
        assert!(guest.attributes(node).is_err(), "{node}");
        assert!(guest.open(node, 0).is_err(), "{node}");
    }
    assert!(guest.open(ROOT, 0).is_err());
    let mut listed: Vec<_> = fs::read_dir(guest.host("")).unwrap().flatten().collect();
    listed.sort_by_key(fs::DirEntry::file_name);
    let names: Vec<_> = listed.iter().map(fs::DirEntry::file_name).collect();
    assert_eq!(names, ["beside", "one"]);
    // Every request with every node, and whatever arguments: none gets anywhere.
    for request in 0..=60 {
        for node in [0, ROOT, FILE, 3] {
            for fill in [0, 1, 0xff] {
                guest.raw(message(request, node, &[fill; 128]), 4096);
            }
        }
    }
    assert_eq!(fs::read(guest.host("beside")).unwrap(), b"beside");
    assert_eq!(fs::read_dir(guest.host("")).unwrap().count(), 2);
}

#[test]
fn file_that_is_read_only_is_not_written_and_must_be_open_for_what_is_done() {
    let mut guest = guest(true);
    guest.look(ROOT, c"file").unwrap();
    let reader = guest.open(FILE, 0).unwrap();
    assert_eq!(guest.read(reader, 0, 99), Ok(b"content".to_vec()));
    assert_eq!(guest.open(FILE, open::RDWR), Err(Errno::ROFS));
    assert_eq!(guest.write(reader, 0, b"x"), Err(Errno::ROFS));
    assert_eq!(guest.set(FILE, set::MODE, 0, 0o777), Err(Errno::ROFS));
    let file = fs::File::open(guest.host("one")).unwrap();
    let made = Server::new(file.into(), rules(false));
    assert_eq!(made.err(), Some(Errno::ROFS));
}

#[test]
fn handles_go_on_with_the_file_that_a_copy_is_given() {
    let mut guest = guest(false);
    guest.look(ROOT, c"file").unwrap();
    let handle = guest.open(FILE, open::RDWR).unwrap();
    let state = FsState::of("tag", &guest.server).to_bytes();
    let state = FsState::from_bytes(&state).unwrap();
    let mut how = fs::File::options();
    let other = how
        .read(true)
        .write(true)
        .open(guest.host("beside"))
        .unwrap();
    let server = Server::new(other.into(), rules(false)).unwrap();
    state.give_to(&server).unwrap();
    guest.server = server;
    assert_eq!(guest.read(handle, 0, 99), Ok(b"beside".to_vec()));
    assert_eq!(guest.write(handle, 0, b"B"), Ok(1));
    assert_eq!(fs::read(guest.host("beside")).unwrap(), b"Beside");
}
