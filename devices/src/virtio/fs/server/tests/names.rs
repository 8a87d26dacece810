//! Files that have several names, other names, or names that are others' now.

use super::*;

#[test]
fn renamed_files_and_directories_are_found_without_being_looked_up_again() {
    let mut guest = Guest::new();
    fs::create_dir_all(guest.host("a/b")).unwrap();
    fs::write(guest.host("a/b/c"), "content").unwrap();
    let file = guest.walk("a/b/c").unwrap().node;
    guest.rename((ROOT, c"a"), (ROOT, c"z"), 0).unwrap();
    assert_eq!(guest.attributes(file).map(|told| told.size), Ok(7));
    let z = guest.look(ROOT, c"z").unwrap().node;
    let b = guest.look(z, c"b").unwrap().node;
    guest.rename((b, c"c"), (ROOT, c"d"), 0).unwrap();
    let handle = guest.open(file, 0).unwrap();
    assert_eq!(guest.read(handle, 0, 99), Ok(b"content".to_vec()));
}

#[test]
fn exchanged_files_are_each_others() {
    let mut guest = Guest::new();
    fs::write(guest.host("a"), "1").unwrap();
    fs::write(guest.host("b"), "22").unwrap();
    let (a, b) = (guest.walk("a").unwrap(), guest.walk("b").unwrap());
    // Not every file system of a host can do it.
    if guest.rename((ROOT, c"a"), (ROOT, c"b"), 2).is_ok() {
        assert_eq!(guest.attributes(a.node).unwrap().size, 1);
        assert_eq!(guest.attributes(b.node).unwrap().size, 2);
        assert_eq!(guest.walk("a").unwrap().node, b.node);
        assert_eq!(guest.walk("b").unwrap().node, a.node);
    }
    let taken = guest.rename((ROOT, c"a"), (ROOT, c"b"), 1);
    assert_eq!(taken, Err(Errno::EXIST));
    let whiteout = guest.rename((ROOT, c"a"), (ROOT, c"c"), 4);
    assert_eq!(whiteout, Err(Errno::INVAL));
}

#[test]
fn file_with_two_names_is_one_file_and_outlives_either() {
    let mut guest = Guest::new();
    let (node, _) = guest.create(ROOT, c"a", 0o644).unwrap();
    let mut arguments = Body::default();
    arguments.u64(node).bytes(b"b\0");
    let answer = guest.ask(opcode::LINK, ROOT, &arguments.0).unwrap();
    assert_eq!((told(&answer).node, told(&answer).nlink), (node, 2));
    guest.unlink(ROOT, c"b").unwrap();
    assert_eq!(guest.attributes(node).map(|told| told.nlink), Ok(1));
    let (second, _) = guest.create(ROOT, c"b", 0o644).unwrap();
    assert_ne!(second, node);
    assert_eq!(guest.attributes(node).map(|told| told.nlink), Ok(1));
}

#[test]
fn node_is_stale_when_the_host_puts_another_file_in_its_place() {
    let mut guest = Guest::new();
    fs::create_dir(guest.host("d")).unwrap();
    fs::write(guest.host("d/a"), "old").unwrap();
    let directory = guest.walk("d").unwrap().node;
    let file = guest.walk("d/a").unwrap().node;
    fs::rename(guest.host("d/a"), guest.host("kept")).unwrap();
    fs::write(guest.host("d/a"), "new").unwrap();
    assert_eq!(guest.attributes(file), Err(Errno::STALE));
    assert_eq!(guest.open(file, 0), Err(Errno::STALE));
    assert_ne!(guest.walk("d/a").unwrap().node, file);
    fs::rename(guest.host("d"), guest.host("moved")).unwrap();
    fs::create_dir(guest.host("d")).unwrap();
    assert_eq!(guest.look(directory, c"a"), Err(Errno::STALE));
    assert_eq!(guest.make_directory(directory, c"x"), Err(Errno::STALE));
    assert!(!guest.host("d/x").exists() && !guest.host("moved/x").exists());
}

#[test]
fn directory_that_the_host_moves_out_is_out_of_reach() {
    let mut guest = Guest::new();
    fs::create_dir(guest.host("d")).unwrap();
    fs::write(guest.host("d/a"), "mine").unwrap();
    let directory = guest.walk("d").unwrap().node;
    let file = guest.walk("d/a").unwrap().node;
    let answer = guest.ask(opcode::OPENDIR, directory, &[0; 8]).unwrap();
    let handle = Fields(&answer).u64().unwrap();
    fs::rename(guest.host("d"), guest.outside("d")).unwrap();
    fs::write(guest.outside("d/later"), "not yours").unwrap();
    let stale = Err(Errno::STALE);
    assert_eq!(guest.look(directory, c"later"), stale);
    assert_eq!(guest.attributes(file), stale);
    assert_eq!(guest.make_directory(directory, c"x"), stale);
    assert_eq!(guest.unlink(directory, c"a"), Err(Errno::STALE));
    let mut arguments = Body::default();
    let arguments = arguments.u64(handle).u64(0).u32(4096).u32(0);
    arguments.u64(0).u64(0);
    let listed = guest.ask(opcode::READDIRPLUS, directory, &arguments.0);
    assert_eq!(listed, Err(Errno::STALE));
    assert!(guest.outside("d/a").exists() && !guest.outside("d/x").exists());
}

#[test]
fn names_that_are_more_than_one_entry_are_refused_in_every_request() {
    let mut guest = Guest::new();
    fs::write(guest.host("a"), "").unwrap();
    fs::create_dir(guest.host("d")).unwrap();
    let node = guest.walk("a").unwrap().node;
    for name in [c"", c".", c"..", c"../outside", c"d/x", c"/etc", c"a/"] {
        let refused = Err(Errno::INVAL);
        assert_eq!(guest.look(ROOT, name), refused, "{name:?}");
        assert_eq!(guest.make_directory(ROOT, name), refused, "{name:?}");
        assert_eq!(guest.symlink(ROOT, name, c"a"), refused, "{name:?}");
        assert_eq!(guest.create(ROOT, name, 0o644), Err(Errno::INVAL));
        assert_eq!(guest.unlink(ROOT, name), Err(Errno::INVAL));
        for flags in [0, 1] {
            let moved = guest.rename((ROOT, c"a"), (ROOT, name), flags);
            assert_eq!(moved, Err(Errno::INVAL), "{name:?}");
            let moved = guest.rename((ROOT, name), (ROOT, c"b"), flags);
            assert_eq!(moved, Err(Errno::INVAL), "{name:?}");
        }
        let mut arguments = Body::default();
        arguments.u64(node).bytes(name.to_bytes_with_nul());
        let linked = guest.ask(opcode::LINK, ROOT, &arguments.0);
        assert_eq!(linked, Err(Errno::INVAL), "{name:?}");
    }
    let long = CString::new(vec![b'n'; 256]).unwrap();
    assert_eq!(guest.look(ROOT, &long), Err(Errno::NAMETOOLONG));
}
