//! Whom files belong to.

use super::*;
use crate::virtio::fs::{IdMap, IdRange};

pub(super) fn guest_of(owners: Owners) -> Guest {
    let guest = Guest::new();
    let rules = Rules {
        owners,
        ..guest.server.rules.clone()
    };
    let server = Server::new(directory(&guest.host("")), rules).unwrap();
    Guest { server, ..guest }
}

/// As [`message`], from somebody.
fn message_by(by: Owner, request: u32, node: u64, arguments: &[u8]) -> Vec<u8> {
    let mut message = message(request, node, arguments);
    message[24..28].copy_from_slice(&by.uid.to_le_bytes());
    message[28..32].copy_from_slice(&by.gid.to_le_bytes());
    message
}

fn ask_by(guest: &mut Guest, by: Owner, request: u32, arguments: &[u8]) -> Result<Vec<u8>, Errno> {
    let answer = guest.raw(message_by(by, request, ROOT, arguments), 4096);
    answer.unwrap().map_err(Errno::from_raw_os_error)
}

pub(super) fn make_by(guest: &mut Guest, by: Owner, name: &CStr, mode: u32) -> Result<u64, Errno> {
    let flags = open::RDWR | CREATE | open::EXCL;
    let mut arguments = Body::default();
    let arguments = arguments.u32(flags).u32(mode).u32(0).u32(0);
    arguments.bytes(name.to_bytes_with_nul());
    ask_by(guest, by, opcode::CREATE, &arguments.0).map(|answer| told(&answer).node)
}

/// User, group and mode that the guest is told.
fn seen(guest: &mut Guest, node: u64) -> (u32, u32, u32) {
    let mut arguments = Body::default();
    arguments.u32(0).u32(0).u64(0);
    let answer = guest.ask(opcode::GETATTR, node, &arguments.0).unwrap();
    let at = |at: usize| Fields(&answer[16 + at..]).u32().unwrap();
    (at(68), at(72), at(60) & 0o7777)
}

fn give(guest: &mut Guest, node: u64, uid: u32, gid: u32) -> Result<(), Errno> {
    let mut arguments = Body::default();
    let arguments = arguments.u32(set::UID | set::GID).u32(0).u64(0).u64(0);
    let arguments = arguments.u64(0).u64(0).u64(0).u64(0);
    let arguments = arguments.u32(0).u32(0).u32(0).u32(0).u32(0);
    arguments.u32(uid).u32(gid).u32(0);
    guest.ask(opcode::SETATTR, node, &arguments.0).map(drop)
}

/// Whose it is what this process makes.
fn own_ids() -> (u32, u32) {
    let made = fs::metadata(tempfile::tempdir().unwrap().path()).unwrap();
    (made.uid(), made.gid())
}

pub(super) fn user(uid: u32, gid: u32) -> Owner {
    Owner { uid, gid }
}

#[test]
fn everything_is_one_owners_unless_a_mount_says_otherwise() {
    let mut guest = Guest::new();
    let node = make_by(&mut guest, user(33, 34), c"a", 0o640).unwrap();
    assert_eq!(seen(&mut guest, node), (7, 8, 0o640));
    give(&mut guest, node, 1, 2).unwrap();
    assert_eq!(seen(&mut guest, node), (7, 8, 0o640));
}

#[test]
fn numbers_of_the_guest_stand_for_those_of_the_host() {
    let (uid, gid) = own_ids();
    let range = |host| IdRange {
        guest: 1000,
        host,
        count: 2,
    };
    let map = IdMap {
        users: vec![range(uid)],
        groups: vec![range(gid)],
    };
    let mut guest = guest_of(Owners::Map(map));
    fs::write(guest.host("hosts"), "").unwrap();
    let hosts = guest.walk("hosts").unwrap().node;
    assert_eq!(seen(&mut guest, hosts).0, 1000);
    let node = make_by(&mut guest, user(1000, 1000), c"a", 0o640).unwrap();
    assert_eq!(seen(&mut guest, node), (1000, 1000, 0o640));
    assert_eq!(fs::metadata(guest.host("a")).unwrap().uid(), uid);
    // Who has no number on the host makes nothing, and is given nothing.
    for by in [user(0, 1000), user(1000, 0), user(1002, 1000)] {
        assert_eq!(make_by(&mut guest, by, c"b", 0o640), Err(Errno::OVERFLOW));
        let mut name = Body::default();
        name.u32(0o755).u32(0).bytes(b"d\0");
        let made = ask_by(&mut guest, by, opcode::MKDIR, &name.0);
        assert_eq!(made, Err(Errno::OVERFLOW));
        let made = ask_by(&mut guest, by, opcode::SYMLINK, b"l\0/\0");
        assert_eq!(made, Err(Errno::OVERFLOW));
        assert_eq!(give(&mut guest, node, by.uid, by.gid), Err(Errno::OVERFLOW));
    }
    assert_eq!(fs::read_dir(guest.host("")).unwrap().count(), 2);
    // Root gives files away, and others may not; nothing is left of what could not be.
    let others = make_by(&mut guest, user(1001, 1001), c"c", 0o600);
    match uid {
        0 => {
            let told = seen(&mut guest, others.unwrap());
            assert_eq!(told, (1001, 1001, 0o600));
            let host = fs::metadata(guest.host("c")).unwrap();
            assert_eq!((host.uid(), host.gid()), (uid + 1, gid + 1));
            let link = ask_by(&mut guest, user(1001, 1001), opcode::SYMLINK, b"l\0/\0");
            assert_eq!(told_owner(&link.unwrap()), 1001);
            let host = fs::symlink_metadata(guest.host("l")).unwrap();
            assert_eq!(host.uid(), 1);
            give(&mut guest, node, 1001, 1000).unwrap();
            assert_eq!(seen(&mut guest, node), (1001, 1000, 0o640));
        }
        _ => {
            assert_eq!(others, Err(Errno::PERM));
            assert!(!guest.host("c").exists());
        }
    }
}

fn told_owner(entry: &[u8]) -> u32 {
    told(entry).uid
}

/// One whose owners are recorded, where the file system takes that.
fn recorded(owner: Owner) -> Option<Guest> {
    let guest = guest_of(Owners::Recorded(owner));
    let none = rustix::fs::XattrFlags::empty();
    let probe = rustix::fs::setxattr(guest.host(""), c"user.probe", b"", none);
    if probe.is_err() {
        println!("skipped: this file system has no extended attributes of users");
    }
    probe.ok().map(|()| guest)
}

#[test]
fn owners_and_modes_are_recorded_and_the_host_keeps_its_own() {
    let Some(mut guest) = recorded(user(7, 8)) else {
        return;
    };
    fs::write(guest.host("hosts"), "").unwrap();
    fs::set_permissions(guest.host("hosts"), fs::Permissions::from_mode(0o644)).unwrap();
    let hosts = guest.walk("hosts").unwrap().node;
    assert_eq!(seen(&mut guest, hosts), (7, 8, 0o644));
    let node = make_by(&mut guest, user(33, 34), c"a", 0o104_000).unwrap();
    assert_eq!(seen(&mut guest, node), (33, 34, 0o4000));
    let host = fs::metadata(guest.host("a")).unwrap();
    assert_eq!((host.uid(), host.mode() & 0o7777), (own_ids().0, 0o600));
    give(&mut guest, node, 0, u32::MAX - 1).unwrap();
    guest.set(node, set::MODE, 0, 0o6755).unwrap();
    assert_eq!(seen(&mut guest, node), (0, u32::MAX - 1, 0o6755));
    let host = fs::metadata(guest.host("a")).unwrap();
    assert_eq!(host.mode() & 0o7777, 0o755);
    let mut text = [0; 64];
    let key = c"user.containers.override_stat";
    let length = rustix::fs::getxattr(guest.host("a"), key, &mut text[..]).unwrap();
    assert_eq!(&text[..length], b"0:4294967294:06755");
    // A guest that looks afresh is told the same, and in lists too.
    let listed = guest.list(ROOT, true, 4096).unwrap();
    let again = listed.iter().find(|(name, _)| name == "a").unwrap().1;
    assert_eq!(again, node);
    let looked = guest.look(ROOT, c"a").unwrap();
    assert_eq!((looked.uid, looked.mode), (0, 0o106_755));
    attribute_is_not_the_guests(&mut guest, node);
    // Links and what lies have none.
    let link = ask_by(&mut guest, user(33, 34), opcode::SYMLINK, b"l\0/\0");
    assert_eq!(told_owner(&link.unwrap()), 7);
    let none = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(guest.host("hosts"), key, b"0:0:lies", none).unwrap();
    assert_eq!(seen(&mut guest, hosts), (7, 8, 0o644));
}

#[test]
fn privileges_go_when_content_or_owner_changes() {
    let Some(mut guest) = recorded(user(0, 0)) else {
        return;
    };
    let node = make_by(&mut guest, user(33, 34), c"a", 0o755).unwrap();
    let handle = guest.open(node, open::RDWR).unwrap();
    let other = guest.open(node, open::RDWR).unwrap();
    type Change<'a> = &'a dyn Fn(&mut Guest);
    let changes: [(&str, Change<'_>); 6] = [
        ("write", &|guest| {
            assert_eq!(guest.write(handle, 0, b"xy"), Ok(2));
        }),
        // By a handle that has written before.
        ("write again", &|guest| {
            assert_eq!(guest.write(handle, 0, b"xy"), Ok(2));
        }),
        ("allocate", &|guest| {
            let mut arguments = Body::default();
            arguments.u64(other).u64(0).u64(100).u32(0).u32(0);
            guest.ask(opcode::FALLOCATE, node, &arguments.0).unwrap();
        }),
        ("size", &|guest| {
            guest.set(node, set::SIZE, 1, 0).unwrap();
        }),
        ("truncating open", &|guest| {
            guest.open(node, open::RDWR | open::TRUNC).unwrap();
        }),
        ("owner", &|guest| give(guest, node, 33, 34).unwrap()),
    ];
    for (what, change) in changes {
        guest.set(node, set::MODE, 0, 0o6755).unwrap();
        assert_eq!(seen(&mut guest, node), (33, 34, 0o6755), "{what}");
        change(&mut guest);
        assert_eq!(seen(&mut guest, node), (33, 34, 0o755), "{what}");
    }
    // To read it takes nothing.
    guest.set(node, set::MODE, 0, 0o2755).unwrap();
    guest.read(handle, 0, 10).unwrap();
    assert_eq!(seen(&mut guest, node), (33, 34, 0o2755));
}

#[test]
fn what_is_made_in_a_directory_is_its_groups_where_that_is_recorded() {
    let Some(mut guest) = recorded(user(7, 8)) else {
        return;
    };
    let plain = make_by(&mut guest, user(33, 34), c"plain", 0o640).unwrap();
    assert_eq!(seen(&mut guest, plain), (33, 34, 0o640));
    give(&mut guest, ROOT, 5, 6).unwrap();
    guest.set(ROOT, set::MODE, 0, 0o2775).unwrap();
    let file = make_by(&mut guest, user(33, 34), c"file", 0o640).unwrap();
    assert_eq!(seen(&mut guest, file), (33, 6, 0o640));
    let mut name = Body::default();
    name.u32(0o755).u32(0).bytes(b"dir\0");
    let dir = ask_by(&mut guest, user(33, 34), opcode::MKDIR, &name.0);
    let dir = told(&dir.unwrap()).node;
    assert_eq!(seen(&mut guest, dir), (33, 6, 0o2755));
    let host = fs::metadata(guest.host("dir")).unwrap();
    assert_eq!(host.mode() & 0o7777, 0o755);
    // A directory keeps it when it is given away.
    give(&mut guest, dir, 1, 2).unwrap();
    assert_eq!(seen(&mut guest, dir), (1, 2, 0o2755));
}

#[test]
fn pipes_sockets_and_devices_are_recorded_and_are_files_of_the_host() {
    let Some(mut guest) = recorded(user(0, 0)) else {
        return;
    };
    let null = 1 << 8 | 3;
    for (name, mode, device) in [
        (c"pipe", 0o010_600, 0),
        (c"socket", 0o140_755, 0),
        (c"null", 0o020_666, null),
        (c"disk", 0o060_660, 0x801),
    ] {
        let mut arguments = Body::default();
        let arguments = arguments.u32(mode).u32(device).u32(0).u32(0);
        arguments.bytes(name.to_bytes_with_nul());
        let made = ask_by(&mut guest, user(33, 34), opcode::MKNOD, &arguments.0);
        let made = made.unwrap();
        assert_eq!(told(&made).mode, mode, "{name:?}");
        let host = fs::symlink_metadata(guest.host(name.to_str().unwrap())).unwrap();
        assert!(host.is_file() && host.len() == 0);
        // Found afresh, and after a change of what else is recorded.
        let looked = guest.look(ROOT, name).unwrap();
        guest.set(looked.node, set::MODE, 0, 0o644).unwrap();
        let entry = guest.ask(opcode::LOOKUP, ROOT, name.to_bytes_with_nul());
        let entry = entry.unwrap();
        assert_eq!(told(&entry).mode, mode & host::TYPE | 0o644);
        // `rdev` of `struct fuse_attr`.
        let at = 40 + 76;
        assert_eq!(entry[at..at + 4], device.to_le_bytes(), "{name:?}");
    }
    // What they are is not in the list, so a guest looks.
    let answer = guest.ask(opcode::OPENDIR, ROOT, &[0; 8]).unwrap();
    let mut arguments = Body::default();
    let arguments = arguments.u64(Fields(&answer).u64().unwrap()).u64(0);
    arguments.u32(4096).bytes(&[0; 20]);
    let listed = guest.ask(opcode::READDIR, ROOT, &arguments.0).unwrap();
    let mut rest = &listed[..];
    while !rest.is_empty() {
        let mut entry = Fields(rest);
        entry.skip(16).unwrap();
        let length = entry.u32().unwrap() as usize;
        let kind = entry.u32().unwrap();
        let is_directory = entry.0.starts_with(b".");
        assert_eq!(kind, if is_directory { 4 } else { 0 });
        rest = &rest[crate::virtio::fs::wire::dirent_bytes(length)..];
    }
    // Elsewhere the guest has them in its own tree.
    let mut plain = super::Guest::new();
    let mut arguments = Body::default();
    arguments
        .u32(0o010_600)
        .u32(0)
        .u32(0)
        .u32(0)
        .bytes(b"pipe\0");
    let refused = plain.ask(opcode::MKNOD, ROOT, &arguments.0);
    assert_eq!(refused, Err(Errno::PERM));
}

/// A guest that is told of an earlier one sees a change that nobody made.
#[test]
fn what_was_made_is_told_with_the_time_of_its_last_change() {
    let own = own_ids();
    let range = |host| IdRange {
        guest: 0,
        host,
        count: 1,
    };
    let map = IdMap {
        users: vec![range(own.0)],
        groups: vec![range(own.1)],
    };
    let all = [
        Owners::Squash(user(0, 0)),
        Owners::Map(map),
        Owners::Recorded(user(0, 0)),
    ];
    for owners in all {
        let mut guest = guest_of(owners.clone());
        let mut made = Body::default();
        // More than the mask of this process leaves.
        made.u32(0o777).u32(0).bytes(b"dir\0");
        let answer = ask_by(&mut guest, user(0, 0), opcode::MKDIR, &made.0);
        let Ok(dir) = answer else {
            println!("skipped: {owners:?} cannot be had here: {answer:?}");
            continue;
        };
        let mut made = Body::default();
        let flags = open::RDWR | CREATE;
        made.u32(flags).u32(0o666).u32(0).u32(0).bytes(b"file\0");
        let file = ask_by(&mut guest, user(0, 0), opcode::CREATE, &made.0).unwrap();
        for (name, entry) in [("dir", dir), ("file", file)] {
            let host = fs::metadata(guest.host(name)).unwrap();
            let (seconds, nanos) = (40 + 40, 40 + 56);
            let host_nanos = u32::try_from(host.ctime_nsec()).unwrap();
            assert_eq!(entry[seconds..seconds + 8], host.ctime().to_le_bytes());
            let told = &entry[nanos..nanos + 4];
            assert_eq!(told, host_nanos.to_le_bytes(), "{name}, {owners:?}");
        }
    }
}

fn attribute_is_not_the_guests(guest: &mut Guest, node: u64) {
    let mut name = Body::default();
    name.u32(64).u32(0);
    let listed = guest.ask(opcode::LISTXATTR, node, &name.0).unwrap();
    assert!(listed.is_empty(), "{listed:?}");
    name.bytes(b"user.containers.override_stat\0");
    let asked = guest.ask(opcode::GETXATTR, node, &name.0);
    assert_eq!(asked, Err(Errno::OPNOTSUPP));
    let mut lie = Body::default();
    let lie = lie.u32(5).u32(0);
    lie.bytes(b"user.containers.override_stat\x000:0:0");
    let told = guest.ask(opcode::SETXATTR, node, &lie.0);
    assert_eq!(told, Err(Errno::OPNOTSUPP));
}
