//! The server with a guest that says what it likes, over real directories.

use std::ffi::{CStr, CString};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::*;
use crate::virtio::fs::Owner;
use crate::virtio::fs::requests::InMemory;
use crate::virtio::fs::wire::{ENTRY_BYTES, ROOT, open, set};

#[cfg(target_os = "linux")]
mod apart;
#[cfg(target_os = "linux")]
mod edits;
#[cfg(target_os = "linux")]
mod failing;
#[cfg(target_os = "linux")]
mod floods;
mod hostile;
mod links;
mod mapped;
mod names;
mod owners;
mod reported;
mod saved;
mod single;

/// Open flags of an arm64 guest that are none of ours.
const GUEST_LARGEFILE: u32 = 0o400_000;
const CREATE: u32 = 0o100;

/// What the guest is told of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Told {
    node: u64,
    mode: u32,
    size: u64,
    nlink: u32,
    uid: u32,
}

/// A shared directory with a file beside it that is not shared.
struct Guest {
    server: Server,
    place: tempfile::TempDir,
    buffer: Vec<u8>,
}

impl Guest {
    fn new() -> Self {
        Self::with(SymlinkPolicy::Opaque, false)
    }

    fn with(symlinks: SymlinkPolicy, read_only: bool) -> Self {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir(place.path().join("share")).unwrap();
        fs::create_dir(place.path().join("outside")).unwrap();
        fs::write(place.path().join("outside/secret"), "secret").unwrap();
        let rules = Rules {
            read_only,
            symlinks,
            owners: Owner { uid: 7, gid: 8 }.into(),
        };
        Self {
            server: Server::new(directory(&place.path().join("share")), rules).unwrap(),
            place,
            buffer: Vec::new(),
        }
    }

    fn host(&self, name: &str) -> PathBuf {
        self.place.path().join("share").join(name)
    }

    fn outside(&self, name: &str) -> PathBuf {
        self.place.path().join("outside").join(name)
    }

    /// Sends whatever it is; what follows the header of the answer.
    fn raw(&mut self, request: Vec<u8>, room: usize) -> Option<Result<Vec<u8>, i32>> {
        let mut exchange = InMemory {
            request: &request,
            answer: vec![0; room],
        };
        let length = self.server.answer(&mut exchange, &mut self.buffer).unwrap();
        assert!(length <= room);
        if length == 0 {
            return None;
        }
        let answer = &exchange.answer[..length];
        let mut fields = Fields(answer);
        assert_eq!(fields.u32().unwrap() as usize, length);
        let error = fields.u32().unwrap().cast_signed();
        assert_eq!(
            fields.u64().unwrap(),
            0x1234,
            "the answer is to another one"
        );
        match error {
            0 => Some(Ok(fields.0.to_vec())),
            error => {
                assert!(fields.0.is_empty());
                Some(Err(-error))
            }
        }
    }

    fn ask(&mut self, request: u32, node: u64, arguments: &[u8]) -> Result<Vec<u8>, Errno> {
        let request = message(request, node, arguments);
        let answer = self.raw(request, 70_000).expect("an answer");
        answer.map_err(Errno::from_raw_os_error)
    }

    fn look(&mut self, parent: u64, name: &CStr) -> Result<Told, Errno> {
        let answer = self.ask(opcode::LOOKUP, parent, name.to_bytes_with_nul())?;
        match told(&answer) {
            Told { node: 0, .. } => Err(Errno::NOENT),
            told => Ok(told),
        }
    }

    /// Looks up a path, component for component, as a kernel does.
    fn walk(&mut self, path: &str) -> Result<Told, Errno> {
        let mut at = ROOT;
        let mut found = Err(Errno::INVAL);
        for name in path.split('/') {
            let entry = self.look(at, &CString::new(name).unwrap())?;
            at = entry.node;
            found = Ok(entry);
        }
        found
    }

    fn open(&mut self, node: u64, flags: u32) -> Result<u64, Errno> {
        let mut arguments = Body::default();
        arguments.u32(flags | GUEST_LARGEFILE).u32(0);
        let answer = self.ask(opcode::OPEN, node, &arguments.0)?;
        Fields(&answer).u64()
    }

    fn create(&mut self, parent: u64, name: &CStr, mode: u32) -> Result<(u64, u64), Errno> {
        let flags = open::RDWR | CREATE | open::EXCL | GUEST_LARGEFILE;
        self.create_with(parent, name, mode, flags)
    }

    fn create_with(
        &mut self,
        parent: u64,
        name: &CStr,
        mode: u32,
        flags: u32,
    ) -> Result<(u64, u64), Errno> {
        let mut arguments = Body::default();
        let arguments = arguments.u32(flags).u32(mode).u32(0o022).u32(0);
        arguments.bytes(name.to_bytes_with_nul());
        let answer = self.ask(opcode::CREATE, parent, &arguments.0)?;
        let handle = Fields(&answer[ENTRY_BYTES..]).u64()?;
        Ok((told(&answer).node, handle))
    }

    fn read(&mut self, handle: u64, offset: u64, size: u32) -> Result<Vec<u8>, Errno> {
        let mut arguments = Body::default();
        let arguments = arguments.u64(handle).u64(offset).u32(size).u32(0);
        arguments.u64(0).u32(0).u32(0);
        self.ask(opcode::READ, 0, &arguments.0)
    }

    fn write(&mut self, handle: u64, offset: u64, data: &[u8]) -> Result<u32, Errno> {
        self.write_with(handle, offset, data, 0)
    }

    fn write_with(
        &mut self,
        handle: u64,
        offset: u64,
        data: &[u8],
        flags: u32,
    ) -> Result<u32, Errno> {
        let mut arguments = Body::default();
        let length = u32::try_from(data.len()).unwrap();
        let arguments = arguments.u64(handle).u64(offset).u32(length).u32(0);
        arguments.u64(0).u32(flags).u32(0).bytes(data);
        let answer = self.ask(opcode::WRITE, 0, &arguments.0)?;
        Fields(&answer).u32()
    }

    fn attributes(&mut self, node: u64) -> Result<Told, Errno> {
        let mut arguments = Body::default();
        arguments.u32(0).u32(0).u64(0);
        let answer = self.ask(opcode::GETATTR, node, &arguments.0)?;
        Ok(told_attributes(node, &answer[16..]))
    }

    fn set(&mut self, node: u64, valid: u32, size: u64, mode: u32) -> Result<Told, Errno> {
        let mut arguments = Body::default();
        let arguments = arguments.u32(valid).u32(0).u64(0).u64(size).u64(0);
        let arguments = arguments.u64(1_000_000).u64(2_000_000).u64(0);
        let arguments = arguments.u32(5).u32(6).u32(0).u32(mode).u32(0);
        arguments.u32(1000).u32(1000).u32(0);
        let answer = self.ask(opcode::SETATTR, node, &arguments.0)?;
        Ok(told_attributes(node, &answer[16..]))
    }

    fn rename(&mut self, from: (u64, &CStr), to: (u64, &CStr), flags: u32) -> Result<(), Errno> {
        let mut arguments = Body::default();
        let arguments = arguments.u64(to.0).u32(flags).u32(0);
        let arguments = arguments.bytes(from.1.to_bytes_with_nul());
        arguments.bytes(to.1.to_bytes_with_nul());
        self.ask(opcode::RENAME2, from.0, &arguments.0).map(drop)
    }

    fn symlink(&mut self, parent: u64, name: &CStr, target: &CStr) -> Result<Told, Errno> {
        let mut arguments = name.to_bytes_with_nul().to_vec();
        arguments.extend(target.to_bytes_with_nul());
        let answer = self.ask(opcode::SYMLINK, parent, &arguments)?;
        Ok(told(&answer))
    }

    fn make_directory(&mut self, parent: u64, name: &CStr) -> Result<Told, Errno> {
        let mut arguments = Body::default();
        let arguments = arguments.u32(0o755).u32(0);
        arguments.bytes(name.to_bytes_with_nul());
        let answer = self.ask(opcode::MKDIR, parent, &arguments.0)?;
        Ok(told(&answer))
    }

    fn unlink(&mut self, parent: u64, name: &CStr) -> Result<(), Errno> {
        let name = name.to_bytes_with_nul();
        self.ask(opcode::UNLINK, parent, name).map(drop)
    }

    /// All names of a directory and what is told of each, in pieces of `size`.
    fn list(&mut self, node: u64, plus: bool, size: u32) -> Result<Vec<(String, u64)>, Errno> {
        let answer = self.ask(opcode::OPENDIR, node, &[0; 8])?;
        let handle = Fields(&answer).u64()?;
        let names = self.list_opened((node, handle), plus, size)?;
        let mut arguments = Body::default();
        arguments.u64(handle).u64(0).u64(0);
        self.ask(opcode::RELEASEDIR, node, &arguments.0)?;
        Ok(names)
    }

    fn list_opened(
        &mut self,
        (node, handle): (u64, u64),
        plus: bool,
        size: u32,
    ) -> Result<Vec<(String, u64)>, Errno> {
        let mut names = Vec::new();
        let mut offset = 0;
        loop {
            let mut arguments = Body::default();
            let arguments = arguments.u64(handle).u64(offset).u32(size).u32(0);
            arguments.u64(0).u32(0).u32(0);
            let request = if plus {
                opcode::READDIRPLUS
            } else {
                opcode::READDIR
            };
            let answer = self.ask(request, node, &arguments.0)?;
            assert!(answer.len() <= size as usize);
            if answer.is_empty() {
                break;
            }
            let mut rest = &answer[..];
            while !rest.is_empty() {
                let known = if plus { told(rest).node } else { 0 };
                let mut entry = Fields(&rest[if plus { ENTRY_BYTES } else { 0 }..]);
                entry.u64()?;
                offset = entry.u64()?;
                let length = entry.u32()? as usize;
                entry.u32()?;
                let name = String::from_utf8_lossy(&entry.0[..length]).into_owned();
                let before = if plus { ENTRY_BYTES } else { 0 };
                rest = &rest[before + crate::virtio::fs::wire::dirent_bytes(length)..];
                names.push((name, known));
            }
        }
        Ok(names)
    }

    fn release(&mut self, handle: u64) -> Result<(), Errno> {
        let mut arguments = Body::default();
        arguments.u64(handle).u64(0).u64(0);
        self.ask(opcode::RELEASE, 0, &arguments.0).map(drop)
    }
}

fn directory(path: &Path) -> OwnedFd {
    fs::File::open(path).unwrap().into()
}

fn message(request: u32, node: u64, arguments: &[u8]) -> Vec<u8> {
    let mut message = Body::default();
    let length = u32::try_from(IN_HEADER_BYTES + arguments.len()).unwrap();
    let header = message.u32(length).u32(request).u64(0x1234).u64(node);
    header.u32(0).u32(0).u32(1).u32(0).bytes(arguments);
    message.0
}

fn told(entry: &[u8]) -> Told {
    let node = Fields(entry).u64().unwrap();
    told_attributes(node, &entry[40..])
}

fn told_attributes(node: u64, attributes: &[u8]) -> Told {
    let at32 = |at: usize| Fields(&attributes[at..]).u32().unwrap();
    Told {
        node,
        size: Fields(&attributes[8..]).u64().unwrap(),
        mode: at32(60),
        nlink: at32(64),
        uid: at32(68),
    }
}

#[test]
fn files_are_made_written_read_and_removed() {
    let mut guest = Guest::new();
    let (node, handle) = guest.create(ROOT, c"a", 0o100_640).unwrap();
    assert_eq!(guest.write(handle, 0, b"hello"), Ok(5));
    assert_eq!(guest.write(handle, 8, b"!"), Ok(1));
    assert_eq!(guest.read(handle, 0, 100), Ok(b"hello\0\0\0!".to_vec()));
    assert_eq!(guest.read(handle, 4, 1), Ok(b"o".to_vec()));
    assert_eq!(guest.read(handle, 9, 1), Ok(Vec::new()));
    let host = fs::metadata(guest.host("a")).unwrap();
    assert_eq!((host.len(), host.mode() & 0o7777), (9, 0o640));
    let told = guest.attributes(node).unwrap();
    assert_eq!((told.size, told.mode, told.uid), (9, 0o100_640, 7));
    fs::write(guest.host("a"), "from the host").unwrap();
    assert_eq!(guest.read(handle, 0, 100), Ok(b"from the host".to_vec()));
    guest.unlink(ROOT, c"a").unwrap();
    assert!(!guest.host("a").exists());
    assert_eq!(guest.look(ROOT, c"a"), Err(Errno::NOENT));
}

#[test]
fn large_reads_and_writes_go_through_in_one_request() {
    let mut guest = Guest::new();
    let (_, handle) = guest.create(ROOT, c"a", 0o644).unwrap();
    let data: Vec<u8> = (0..60_000u32).flat_map(u32::to_le_bytes).collect();
    assert_eq!(guest.write(handle, 3, &data), Ok(240_000));
    assert_eq!(fs::read(guest.host("a")).unwrap()[3..], data);
    let mut arguments = Body::default();
    let arguments = arguments.u64(handle).u64(3).u32(1 << 20).u32(0);
    arguments.u64(0).u64(0);
    let request = message(opcode::READ, 0, &arguments.0);
    let answer = guest.raw(request, OUT_HEADER_BYTES + (1 << 20)).unwrap();
    assert_eq!(answer, Ok(data));
}

#[test]
fn writes_append_where_the_guest_says_so() {
    let mut guest = Guest::new();
    fs::write(guest.host("log"), "one\n").unwrap();
    let node = guest.look(ROOT, c"log").unwrap().node;
    let handle = guest.open(node, open::WRONLY | open::APPEND).unwrap();
    fs::write(guest.host("log"), "one\ntwo\n").unwrap();
    // The guest has not heard of the second line.
    let appended = guest.write_with(handle, 4, b"three\n", open::WRONLY | open::APPEND);
    assert_eq!(appended, Ok(6));
    assert_eq!(fs::read(guest.host("log")).unwrap(), b"one\ntwo\nthree\n");
    assert_eq!(guest.write_with(handle, 0, b"ONE", open::WRONLY), Ok(3));
    assert_eq!(fs::read(guest.host("log")).unwrap(), b"ONE\ntwo\nthree\n");
}

#[test]
fn directories_are_listed_whole_however_small_the_pieces() {
    let mut guest = Guest::new();
    let names: Vec<String> = (0..500).map(|n| format!("file-with-a-name-{n}")).collect();
    for name in &names {
        fs::write(guest.host(name), "").unwrap();
    }
    for (plus, size) in [(false, 4096), (true, 4096), (false, 300), (true, 300)] {
        let listed = guest.list(ROOT, plus, size).unwrap();
        let mut found: Vec<&str> = listed.iter().map(|(name, _)| &**name).collect();
        found.sort_unstable();
        let mut expected: Vec<&str> = names.iter().map(|name| &**name).collect();
        expected.extend([".", ".."]);
        expected.sort_unstable();
        assert_eq!(found, expected);
        for (name, node) in &listed {
            let is_told = plus && !matches!(&**name, "." | "..");
            assert_eq!(*node != 0, is_told, "{name}");
        }
    }
}

#[test]
fn attributes_are_set_on_the_host() {
    let mut guest = Guest::new();
    fs::write(guest.host("a"), "content").unwrap();
    let node = guest.look(ROOT, c"a").unwrap().node;
    let told = guest
        .set(node, set::SIZE | set::MODE, 3, 0o104_711)
        .unwrap();
    assert_eq!((told.size, told.mode), (3, 0o100_711));
    let told = guest.set(node, set::ATIME | set::MTIME, 0, 0).unwrap();
    assert_eq!(told.size, 3);
    let host = fs::metadata(guest.host("a")).unwrap();
    assert_eq!((host.atime(), host.mtime()), (1_000_000, 2_000_000));
    assert_eq!((host.atime_nsec(), host.mtime_nsec()), (5, 6));
    // Owners stay: the guest's ids are not the host's.
    let before = (host.uid(), host.gid());
    guest.set(node, 0b110, 0, 0).unwrap();
    let host = fs::metadata(guest.host("a")).unwrap();
    assert_eq!((host.uid(), host.gid()), before);
    guest.set(ROOT, set::MODE, 0, 0o700).unwrap();
    assert_eq!(fs::metadata(guest.host(".")).unwrap().mode() & 0o777, 0o700);
}

#[test]
fn file_without_a_name_is_there_as_long_as_it_is_open() {
    let mut guest = Guest::new();
    let (node, handle) = guest.create(ROOT, c"a", 0o644).unwrap();
    guest.unlink(ROOT, c"a").unwrap();
    assert_eq!(guest.attributes(node).map(|told| told.nlink), Ok(0));
    assert_eq!(guest.write(handle, 0, b"xy"), Ok(2));
    let told = guest.set(node, set::SIZE | set::MODE, 1, 0o600).unwrap();
    assert_eq!((told.size, told.mode & 0o777), (1, 0o600));
    let mut arguments = Body::default();
    arguments.u64(handle).u64(0).u64(0);
    guest.ask(opcode::RELEASE, node, &arguments.0).unwrap();
    assert_eq!(guest.attributes(node), Err(Errno::STALE));
}

#[test]
fn cache_is_kept_from_open_to_open_only_if_nothing_changed() {
    let mut guest = Guest::new();
    fs::write(guest.host("a"), "content").unwrap();
    let node = guest.look(ROOT, c"a").unwrap().node;
    let keeps = |guest: &mut Guest| {
        let answer = guest.ask(opcode::OPEN, node, &[0; 8]).unwrap();
        Fields(&answer[8..]).u32().unwrap() & wire::OPEN_KEEP_CACHE != 0
    };
    assert!(!keeps(&mut guest));
    assert!(keeps(&mut guest));
    fs::write(guest.host("a"), "changed and longer").unwrap();
    assert!(!keeps(&mut guest));
    assert!(keeps(&mut guest));
}

#[test]
fn only_attributes_of_programs_are_shared() {
    let mut guest = Guest::new();
    fs::write(guest.host("a"), "").unwrap();
    let node = guest.look(ROOT, c"a").unwrap().node;
    let set = |name: &CStr, value: &[u8]| {
        let mut arguments = Body::default();
        let arguments = arguments.u32(u32::try_from(value.len()).unwrap()).u32(0);
        arguments.bytes(name.to_bytes_with_nul()).bytes(value);
        arguments.0.clone()
    };
    let get = |name: &CStr, size: u32| {
        let mut arguments = Body::default();
        let arguments = arguments.u32(size).u32(0);
        arguments.bytes(name.to_bytes_with_nul());
        arguments.0.clone()
    };
    match guest.ask(opcode::SETXATTR, node, &set(c"user.x", b"value")) {
        // Not every file system of a host has them.
        Err(Errno::OPNOTSUPP) => return,
        answer => assert_eq!(answer, Ok(Vec::new())),
    }
    let value = guest.ask(opcode::GETXATTR, node, &get(c"user.x", 100));
    assert_eq!(value, Ok(b"value".to_vec()));
    let length = guest.ask(opcode::GETXATTR, node, &get(c"user.x", 0));
    assert_eq!(length, Ok(vec![5, 0, 0, 0, 0, 0, 0, 0]));
    let short = guest.ask(opcode::GETXATTR, node, &get(c"user.x", 4));
    assert_eq!(short, Err(Errno::RANGE));
    for name in [
        c"security.capability",
        c"trusted.x",
        c"system.posix_acl_access",
    ] {
        let refused = guest.ask(opcode::SETXATTR, node, &set(name, b"value"));
        assert_eq!(refused, Err(Errno::OPNOTSUPP), "{name:?}");
        let refused = guest.ask(opcode::GETXATTR, node, &get(name, 100));
        assert_eq!(refused, Err(Errno::OPNOTSUPP), "{name:?}");
    }
    let names = guest.ask(opcode::LISTXATTR, node, &get(c"", 100));
    assert_eq!(names, Ok(b"user.x\0".to_vec()));
    let name = c"user.x".to_bytes_with_nul();
    assert_eq!(guest.ask(opcode::REMOVEXATTR, node, name), Ok(Vec::new()));
    assert!(
        guest
            .ask(opcode::GETXATTR, node, &get(c"user.x", 9))
            .is_err()
    );
}

#[test]
fn holes_and_copies_are_the_hosts() {
    let mut guest = Guest::new();
    let (_, from) = guest.create(ROOT, c"from", 0o644).unwrap();
    let (_, to) = guest.create(ROOT, c"to", 0o644).unwrap();
    guest.write(from, 0, b"0123456789").unwrap();
    let mut arguments = Body::default();
    let arguments = arguments.u64(from).u64(2).u64(0).u64(to).u64(1);
    arguments.u64(u64::MAX >> 2).u64(0);
    match guest.ask(opcode::COPY_FILE_RANGE, 0, &arguments.0) {
        Ok(answer) => {
            assert_eq!(Fields(&answer).u32(), Ok(8));
            assert_eq!(fs::read(guest.host("to")).unwrap(), b"\x0023456789");
        }
        Err(error) => assert_eq!(error, Errno::OPNOTSUPP),
    }
    let mut arguments = Body::default();
    arguments.u64(to).u64(0).u64(4096).u32(0).u32(0);
    match guest.ask(opcode::FALLOCATE, 0, &arguments.0) {
        Ok(_) => assert_eq!(fs::metadata(guest.host("to")).unwrap().len(), 4096),
        Err(error) => assert_eq!(error, Errno::OPNOTSUPP),
    }
}

#[test]
fn handshake_takes_what_both_sides_know() {
    let mut guest = Guest::new();
    let hello = |major: u32, minor: u32| {
        let mut arguments = Body::default();
        let arguments = arguments.u32(major).u32(minor).u32(128 << 10).u32(u32::MAX);
        arguments.bytes(&[0xff; 48]);
        arguments.0.clone()
    };
    let answer = guest.ask(opcode::INIT, 0, &hello(7, 41)).unwrap();
    assert_eq!(answer.len(), 64);
    let mut fields = Fields(&answer);
    assert_eq!((fields.u32(), fields.u32()), (Ok(7), Ok(wire::MINOR)));
    assert_eq!(fields.u32(), Ok(128 << 10));
    assert_ne!(fields.u32().unwrap() & init::AUTO_INVAL_DATA, 0);
    let newer = guest.ask(opcode::INIT, 0, &hello(8, 0)).unwrap();
    assert_eq!(newer.len(), 8, "it asks again with our version");
    for old in [(6, 99), (7, 30)] {
        let refused = guest.ask(opcode::INIT, 0, &hello(old.0, old.1));
        assert_eq!(refused, Err(Errno::PROTO));
    }
}

#[test]
fn kernel_that_begins_knows_nothing_of_what_was_before() {
    let mut guest = Guest::new();
    fs::write(guest.host("a"), "content").unwrap();
    let node = guest.look(ROOT, c"a").unwrap().node;
    let handle = guest.open(node, open::RDWR).unwrap();
    let mut hello = Body::default();
    hello.u32(7).u32(38).u32(128 << 10).u32(u32::MAX);
    hello.bytes(&[0; 48]);
    guest.ask(opcode::INIT, 0, &hello.0).unwrap();
    assert_eq!(guest.read(handle, 0, 7), Err(Errno::BADF));
    let forgotten = guest.ask(opcode::GETATTR, node, &[0; 16]);
    assert_eq!(forgotten, Err(Errno::STALE));
    assert!(guest.look(ROOT, c"a").is_ok());
}

#[test]
fn file_is_emptied_also_by_who_opens_it_to_read() {
    let mut guest = Guest::new();
    fs::write(guest.host("a"), "content").unwrap();
    let node = guest.look(ROOT, c"a").unwrap().node;
    let handle = guest.open(node, open::TRUNC).unwrap();
    assert_eq!(fs::metadata(guest.host("a")).unwrap().len(), 0);
    assert_eq!(guest.read(handle, 0, 10), Ok(Vec::new()));
    assert_eq!(guest.write(handle, 0, b"x"), Err(Errno::BADF));
}

#[test]
fn privileges_of_a_file_go_when_it_is_changed() {
    let mut guest = Guest::new();
    let mode = |guest: &Guest| fs::metadata(guest.host("a")).unwrap().mode() & 0o7777;
    let make = |guest: &mut Guest| {
        fs::write(guest.host("a"), "x").unwrap();
        let rights = fs::Permissions::from_mode(0o6755);
        fs::set_permissions(guest.host("a"), rights).unwrap();
        guest.look(ROOT, c"a").unwrap().node
    };
    let node = make(&mut guest);
    let handle = guest.open(node, open::RDWR).unwrap();
    assert_eq!(mode(&guest), 0o6755);
    guest.write(handle, 0, b"y").unwrap();
    assert_eq!(mode(&guest), 0o755);
    let node = make(&mut guest);
    guest.set(node, set::SIZE, 0, 0).unwrap();
    assert_eq!(mode(&guest), 0o755);
    let node = make(&mut guest);
    guest.open(node, open::RDWR | open::TRUNC).unwrap();
    assert_eq!(mode(&guest), 0o755);
}

#[test]
fn nothing_of_a_read_only_directory_changes() {
    let mut guest = Guest::with(SymlinkPolicy::Opaque, true);
    fs::write(guest.host("a"), "content").unwrap();
    fs::create_dir(guest.host("d")).unwrap();
    let node = guest.look(ROOT, c"a").unwrap().node;
    let handle = guest.open(node, 0).unwrap();
    assert_eq!(guest.read(handle, 0, 9), Ok(b"content".to_vec()));
    let refused = Errno::ROFS;
    assert_eq!(guest.open(node, open::RDWR), Err(refused));
    assert_eq!(guest.open(node, open::WRONLY), Err(refused));
    assert_eq!(guest.open(node, open::TRUNC), Err(refused));
    assert_eq!(guest.write(handle, 0, b"x"), Err(refused));
    assert_eq!(guest.create(ROOT, c"b", 0o644), Err(refused));
    assert_eq!(guest.make_directory(ROOT, c"b"), Err(refused));
    assert_eq!(guest.symlink(ROOT, c"b", c"a"), Err(refused));
    assert_eq!(guest.unlink(ROOT, c"a"), Err(refused));
    assert_eq!(guest.rename((ROOT, c"a"), (ROOT, c"b"), 0), Err(refused));
    assert_eq!(guest.set(node, set::MODE, 0, 0), Err(refused));
    // Whatever the arguments are.
    for request in [
        opcode::MKNOD,
        opcode::RMDIR,
        opcode::RENAME,
        opcode::LINK,
        opcode::SETXATTR,
        opcode::REMOVEXATTR,
        opcode::FALLOCATE,
        opcode::COPY_FILE_RANGE,
    ] {
        assert_eq!(
            guest.ask(request, ROOT, &[0; 64]),
            Err(refused),
            "{request}"
        );
    }
    assert_eq!(fs::read(guest.host("a")).unwrap(), b"content");
    assert_eq!(guest.list(ROOT, true, 4096).unwrap().len(), 4);
}
