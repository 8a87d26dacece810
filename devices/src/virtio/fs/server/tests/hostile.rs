//! What no kernel says.

use super::*;

#[test]
fn requests_of_every_kind_and_length_get_an_answer_or_none() {
    let mut guest = Guest::new();
    fs::write(guest.host("a"), "content").unwrap();
    fs::create_dir(guest.host("d")).unwrap();
    for request in (0..=64).chain([4096, u32::MAX]) {
        // The host's disks have others to wait for.
        if request == opcode::SYNCFS {
            continue;
        }
        for pattern in 0..5 {
            // What was opened goes each time: other tests need descriptors, too.
            guest.server.reset();
            let file = guest.walk("a").unwrap().node;
            let handle = guest.open(file, open::RDWR).unwrap();
            let answer = guest.ask(opcode::OPENDIR, ROOT, &[0; 8]).unwrap();
            let dir_handle = Fields(&answer).u64().unwrap();
            let byte = |at: usize| match pattern {
                0 => 0,
                1 => 0xff,
                2 => b'a',
                // Handles and small numbers, eight bytes apart.
                3 => handle.to_le_bytes()[at % 8],
                _ => dir_handle.to_le_bytes()[at % 8],
            };
            for node in [0, ROOT, file, u64::MAX] {
                for length in [0, 1, 7, 8, 15, 16, 24, 40, 47, 48, 64, 88, 200] {
                    let arguments: Vec<u8> = (0..length).map(byte).collect();
                    for room in [0, 15, 16, 100, 5000] {
                        let _ = guest.raw(message(request, node, &arguments), room);
                    }
                }
            }
            fs::write(guest.host("a"), "content").unwrap();
        }
    }
    guest.server.reset();
    for length in 0..IN_HEADER_BYTES {
        assert_eq!(guest.raw(vec![1; length], 100), None);
    }
    let mut names: Vec<_> = fs::read_dir(guest.place.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["outside", "share"]);
    assert_eq!(fs::read(guest.outside("secret")).unwrap(), b"secret");
}

#[test]
fn forged_nodes_and_handles_are_nobodys() {
    let mut guest = Guest::new();
    fs::write(guest.host("a"), "content").unwrap();
    let node = guest.walk("a").unwrap().node;
    for forged in [0, 3, node + 1, u64::MAX] {
        assert_eq!(guest.attributes(forged), Err(Errno::STALE));
        assert_eq!(guest.look(forged, c"a"), Err(Errno::STALE));
        assert_eq!(guest.open(forged, 0), Err(Errno::STALE));
        assert_eq!(guest.read(forged, 0, 9), Err(Errno::BADF));
        assert_eq!(guest.write(forged, 0, b"x"), Err(Errno::BADF));
        guest.server.nodes().forget(forged, u64::MAX);
    }
    // A file is no directory, and none that can be read is written.
    assert_eq!(guest.look(node, c"x"), Err(Errno::STALE));
    let reader = guest.open(node, 0).unwrap();
    assert_eq!(guest.write(reader, 0, b"x"), Err(Errno::BADF));
    let answer = guest.ask(opcode::OPENDIR, ROOT, &[0; 8]).unwrap();
    let directory = Fields(&answer).u64().unwrap();
    assert_eq!(guest.read(directory, 0, 9), Err(Errno::ISDIR));
    guest.server.nodes().forget(ROOT, u64::MAX);
    assert!(guest.attributes(ROOT).is_ok());
}

#[test]
fn offsets_and_lengths_beyond_every_file_are_refused() {
    let mut guest = Guest::new();
    let (node, handle) = guest.create(ROOT, c"a", 0o644).unwrap();
    for offset in [u64::MAX, u64::MAX - 4, i64::MAX as u64 - 2] {
        assert!(guest.write(handle, offset, b"12345").is_err());
        assert!(!matches!(guest.read(handle, offset, 9), Ok(data) if !data.is_empty()));
        assert!(guest.set(node, set::SIZE, offset, 0).is_err());
        for mode in [0, 1, 2, 3, 0x10, 0xff, u32::MAX] {
            let mut arguments = Body::default();
            let arguments = arguments.u64(handle).u64(offset).u64(offset);
            arguments.u32(mode).u32(0);
            assert!(guest.ask(opcode::FALLOCATE, 0, &arguments.0).is_err());
        }
        for whence in [0, 3, 4, 5, u32::MAX] {
            let mut arguments = Body::default();
            arguments.u64(handle).u64(offset).u32(whence).u32(0);
            assert!(guest.ask(opcode::LSEEK, 0, &arguments.0).is_err());
        }
        let mut arguments = Body::default();
        let arguments = arguments.u64(handle).u64(offset).u64(0).u64(handle);
        arguments.u64(offset).u64(u64::MAX).u64(0);
        assert!(guest.ask(opcode::COPY_FILE_RANGE, 0, &arguments.0).is_err());
    }
    assert_eq!(fs::metadata(guest.host("a")).unwrap().len(), 0);
    // More data than comes along, and more than is allowed.
    let mut arguments = Body::default();
    let arguments = arguments.u64(handle).u64(0).u32(100).u32(0);
    arguments.u64(0).u64(0).bytes(b"short");
    let refused = guest.ask(opcode::WRITE, 0, &arguments.0);
    assert_eq!(refused, Err(Errno::INVAL));
    assert_eq!(guest.read(handle, 0, u32::MAX), Err(Errno::INVAL));
    let long = vec![0; MAX_ARGUMENT_BYTES + 1];
    assert_eq!(guest.ask(opcode::SETXATTR, node, &long), Err(Errno::TOOBIG));
}

#[cfg(target_os = "linux")]
#[test]
fn pipes_sockets_and_devices_are_neither_opened_nor_made() {
    use std::os::unix::net::UnixListener;
    let mut guest = Guest::new();
    let pipe = guest.host("pipe");
    rustix::fs::mkfifoat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::Mode::from_raw_mode(0o666),
    )
    .unwrap();
    let _socket = UnixListener::bind(guest.host("socket")).unwrap();
    for (name, kind) in [(c"pipe", 0o010_000), (c"socket", 0o140_000)] {
        let told = guest.look(ROOT, name).unwrap();
        assert_eq!(told.mode & host::TYPE, kind);
        // It would wait for whoever opens the other end.
        assert_eq!(guest.open(told.node, 0), Err(Errno::OPNOTSUPP));
        assert_eq!(guest.open(told.node, open::WRONLY), Err(Errno::OPNOTSUPP));
        assert!(guest.set(told.node, set::MODE, 0, 0o777).is_err());
        let flags = open::RDWR | CREATE;
        let made = guest.create_with(ROOT, name, 0o644, flags);
        assert_eq!(made, Err(Errno::EXIST), "{name:?}");
    }
    for mode in [0o010_644, 0o020_644, 0o060_644, 0o140_644] {
        let mut arguments = Body::default();
        arguments
            .u32(mode)
            .u32(0x103)
            .u32(0)
            .u32(0)
            .bytes(b"made\0");
        let refused = guest.ask(opcode::MKNOD, ROOT, &arguments.0);
        assert_eq!(refused, Err(Errno::PERM), "{mode:o}");
    }
    let mut arguments = Body::default();
    arguments
        .u32(0o100_644)
        .u32(0)
        .u32(0)
        .u32(0)
        .bytes(b"made\0");
    guest.ask(opcode::MKNOD, ROOT, &arguments.0).unwrap();
    assert!(fs::symlink_metadata(guest.host("made")).unwrap().is_file());
}

#[test]
fn handles_are_bounded() {
    use crate::virtio::fs::handles::{Handle, Handles, MAX_HANDLES, SavedHandle};
    let mut handles = Handles::default();
    let saved = Handle::Saved(SavedHandle {
        number: 1,
        node: 2,
        is_dir: false,
        flags: 0,
    });
    for _ in 0..MAX_HANDLES {
        handles.insert(saved.clone()).unwrap();
    }
    assert_eq!(handles.insert(saved.clone()), Err(Errno::NFILE));
    handles.clear();
    handles.limit(2);
    handles.insert(saved.clone()).unwrap();
    handles.insert(saved.clone()).unwrap();
    assert_eq!(handles.insert(saved), Err(Errno::NFILE));
}
