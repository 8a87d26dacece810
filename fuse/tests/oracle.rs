//! The same requests to fuse-backend-rs's server over its own passthrough and over ours:
//! the answers are the same, and so is what the host has afterwards.
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use devices::virtio::fs::FsConfig;
use fuse_backend_rs::abi::fuse_abi::{
    CreateIn, EntryOut, InHeader, InitIn, LinkIn, MkdirIn, Opcode, OpenIn, OpenOut, ReadIn,
    ReleaseIn, Rename2In, SetattrIn, SetxattrIn, WriteIn,
};
use fuse_backend_rs::api::filesystem::FileSystem;
use fuse_backend_rs::api::server::Server;
use fuse_backend_rs::passthrough::{Config, PassthroughFs};
use fuse_backend_rs::transport::{FuseBuf, FuseDevWriter, Reader, Writer};
use supermachine_fuse::Shared;
use vm_memory::ByteValued;

const ROOT: u64 = 1;
const STEPS: usize = 4000;
/// As many as collide all the time.
const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

type Answer = Result<Vec<u8>, i32>;

/// One server, and the directory behind it.
struct Side<F: FileSystem + Sync> {
    server: Server<F>,
    place: tempfile::TempDir,
}

impl<F: FileSystem<Inode = u64, Handle = u64> + Sync> Side<F> {
    fn new(make: impl FnOnce(&Path) -> F) -> Self {
        let place = tempfile::tempdir().unwrap();
        let server = Server::new(make(place.path()));
        let side = Self { server, place };
        let hello = InitIn {
            major: 7,
            minor: 38,
            max_readahead: 1 << 20,
            flags: 1 << 13,
        };
        side.ask(Opcode::Init, ROOT, &[hello.as_slice(), &[0; 48]])
            .unwrap();
        side
    }

    fn ask(&self, opcode: Opcode, node: u64, parts: &[&[u8]]) -> Answer {
        let body = parts.concat();
        let header = InHeader {
            len: u32::try_from(size_of::<InHeader>() + body.len()).unwrap(),
            opcode: opcode as u32,
            unique: 5,
            nodeid: node,
            ..InHeader::default()
        };
        let mut request = [header.as_slice(), &body].concat();
        let mut room = vec![0; 1 << 15];
        let (mut said, end) = std::io::pipe().unwrap();
        let reader = Reader::<()>::from_fuse_buffer(FuseBuf::new(&mut request)).unwrap();
        let writer = FuseDevWriter::<()>::new(end.as_raw_fd(), &mut room).unwrap();
        let writer = Writer::FuseDev(writer);
        // An error is in the answer as well.
        let _ = self.server.handle_message(reader, writer, None, None);
        drop(end);
        let mut answer = Vec::new();
        said.read_to_end(&mut answer).unwrap();
        let error = i32::from_le_bytes(answer[4..8].try_into().unwrap());
        match error {
            0 => Ok(answer.split_off(16)),
            error => Err(-error),
        }
    }

    fn named(&self, opcode: Opcode, parent: u64, arguments: &[u8], name: &str) -> Answer {
        self.ask(opcode, parent, &[arguments, name.as_bytes(), &[0]])
    }

    fn look(&self, parent: u64, name: &str) -> Result<u64, i32> {
        let answer = self.named(Opcode::Lookup, parent, &[], name)?;
        match u64::from_le_bytes(answer[..8].try_into().unwrap()) {
            0 => Err(libc::ENOENT),
            node => Ok(node),
        }
    }

    /// Opens a file, does something with the handle, and closes it.
    fn with_open(
        &self,
        node: u64,
        flags: i32,
        act: impl FnOnce(u64) -> Answer,
    ) -> Result<Vec<u8>, i32> {
        let asked = OpenIn {
            flags: flags.cast_unsigned(),
            ..OpenIn::default()
        };
        let answer = self.ask(Opcode::Open, node, &[asked.as_slice()])?;
        let handle = u64::from_le_bytes(answer[..8].try_into().unwrap());
        let done = act(handle);
        let release = ReleaseIn {
            fh: handle,
            ..ReleaseIn::default()
        };
        self.ask(Opcode::Release, node, &[release.as_slice()])
            .unwrap();
        done
    }

    /// What one step says that must be the same on both sides.
    fn step(&self, what: &Step) -> Result<String, i32> {
        let inner = self.look(ROOT, "dir")?;
        let parent = |at: usize| if at.is_multiple_of(2) { ROOT } else { inner };
        let (from, to) = (parent(what.from), parent(what.to));
        let (name, other) = (NAMES[what.name], NAMES[what.other]);
        match what.kind {
            0 => {
                // Over what is no file a kernel does not make one.
                if self.look(from, name).is_ok_and(|node| !self.is_file(node)) {
                    return Err(0);
                }
                let asked = CreateIn {
                    flags: (libc::O_RDWR | libc::O_CREAT).cast_unsigned(),
                    mode: 0o100_640,
                    ..CreateIn::default()
                };
                let answer = self.named(Opcode::Create, from, asked.as_slice(), name)?;
                let mut open = OpenOut::default();
                let bytes = &answer[size_of::<EntryOut>()..];
                open.as_mut_slice().copy_from_slice(bytes);
                let release = ReleaseIn {
                    fh: open.fh,
                    ..ReleaseIn::default()
                };
                let node = self.look(from, name)?;
                self.ask(Opcode::Release, node, &[release.as_slice()])?;
                Ok(entry(&answer))
            }
            1 => {
                let asked = MkdirIn {
                    mode: 0o750,
                    umask: 0,
                };
                let answer = self.named(Opcode::Mkdir, from, asked.as_slice(), name)?;
                Ok(entry(&answer))
            }
            2 => {
                let parts = [name.as_bytes(), &[0], other.as_bytes(), &[0]];
                Ok(entry(&self.ask(Opcode::Symlink, from, &parts)?))
            }
            3 => {
                let node = self.look(from, name)?;
                // Directories have no second name, says a kernel.
                if self.kind(node) == libc::S_IFDIR {
                    return Err(0);
                }
                let asked = LinkIn { oldnodeid: node };
                let answer = self.named(Opcode::Link, to, asked.as_slice(), other)?;
                Ok(entry(&answer))
            }
            4 | 5 => {
                let asked = Rename2In {
                    newdir: to,
                    flags: [0, 0, 1, 2][what.value % 4],
                    ..Rename2In::default()
                };
                let names = [name.as_bytes(), &[0], other.as_bytes(), &[0]].concat();
                let parts = [asked.as_slice(), &names];
                self.ask(Opcode::Rename2, from, &parts)
                    .map(|_| String::new())
            }
            6 => self
                .named(Opcode::Unlink, from, &[], name)
                .map(|_| String::new()),
            7 => self
                .named(Opcode::Rmdir, from, &[], name)
                .map(|_| String::new()),
            8 | 9 => self.content(self.look(from, name)?, what),
            10 => self.size(self.look(from, name)?, what),
            11 => {
                let node = self.look(from, name)?;
                if self.kind(node) != libc::S_IFLNK {
                    return Err(0);
                }
                let link = self.ask(Opcode::Readlink, node, &[])?;
                Ok(String::from_utf8_lossy(&link).into_owned())
            }
            12 => {
                let node = self.look(from, name)?;
                // Of links and the like a kernel says itself that they have none.
                if !self.is_file(node) {
                    return Err(0);
                }
                let asked = SetxattrIn {
                    size: 5,
                    flags: u32::try_from(what.value % 3).unwrap(),
                };
                let parts = [asked.as_slice(), b"user.key\0value"];
                self.ask(Opcode::Setxattr, node, &parts)
                    .map(|_| String::new())
            }
            _ => {
                // Some say that nothing is there with an error, and some with a time.
                self.look(from, name)?;
                Ok(entry(&self.named(Opcode::Lookup, from, &[], name)?))
            }
        }
    }

    /// Writes to a file or reads from it.
    fn content(&self, node: u64, what: &Step) -> Result<String, i32> {
        let (offset, size) = (what.value as u64 * 37, 200);
        if !self.is_file(node) {
            return Err(0);
        }
        let done = match what.kind {
            8 => self.with_open(node, libc::O_WRONLY, |fh| {
                let asked = WriteIn {
                    fh,
                    offset,
                    size,
                    ..WriteIn::default()
                };
                let data = [what.value.to_le_bytes()[0]; 200];
                self.ask(Opcode::Write, node, &[asked.as_slice(), &data])
            }),
            _ => self.with_open(node, libc::O_RDONLY, |fh| {
                let asked = ReadIn {
                    fh,
                    offset,
                    size,
                    ..ReadIn::default()
                };
                self.ask(Opcode::Read, node, &[asked.as_slice()])
            }),
        };
        done.map(|answer| format!("{answer:?}"))
    }

    fn size(&self, node: u64, what: &Step) -> Result<String, i32> {
        if !self.is_file(node) {
            return Err(0);
        }
        let asked = SetattrIn {
            valid: 1 << 3 | 1,
            size: what.value as u64 * 11,
            mode: 0o100_000 | [0o644, 0o600, 0o755][what.value % 3],
            ..SetattrIn::default()
        };
        let answer = self.ask(Opcode::Setattr, node, &[asked.as_slice()])?;
        Ok(attributes(&answer[16..]))
    }

    fn is_file(&self, node: u64) -> bool {
        self.kind(node) == libc::S_IFREG
    }

    fn kind(&self, node: u64) -> u32 {
        let answer = self.ask(Opcode::Getattr, node, &[&[0; 16]]).unwrap();
        let mode = u32::from_le_bytes(answer[16 + 60..16 + 64].try_into().unwrap());
        mode & libc::S_IFMT
    }
}

fn entry(answer: &[u8]) -> String {
    attributes(&answer[40..])
}

/// Size, mode, links and owner; of directories the size is the host's own matter.
fn attributes(attr: &[u8]) -> String {
    let word = |at: usize| u32::from_le_bytes(attr[at..at + 4].try_into().unwrap());
    let mode = word(60);
    let size = match mode & libc::S_IFMT == libc::S_IFDIR {
        true => 0,
        false => u64::from_le_bytes(attr[8..16].try_into().unwrap()),
    };
    format!("{size} {mode:o} {} {} {}", word(64), word(68), word(72))
}

#[derive(Debug)]
struct Step {
    kind: usize,
    from: usize,
    to: usize,
    name: usize,
    other: usize,
    value: usize,
}

/// SplitMix64, by Sebastiano Vigna (public domain).
fn next(state: &mut u64, below: usize) -> usize {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    usize::try_from((z ^ (z >> 31)) % below as u64).unwrap()
}

/// All that the host has: kind, mode, links and content of each.
fn tree(root: &Path, below: &Path, into: &mut BTreeMap<String, String>) {
    for found in fs::read_dir(below).unwrap() {
        let path = found.unwrap().path();
        let meta = fs::symlink_metadata(&path).unwrap();
        let content = match meta.file_type() {
            kind if kind.is_dir() => {
                tree(root, &path, into);
                String::new()
            }
            kind if kind.is_symlink() => format!("{:?}", fs::read_link(&path).unwrap()),
            _ => format!("{} {:?}", meta.nlink(), fs::read(&path).unwrap()),
        };
        let name = path.strip_prefix(root).unwrap().display().to_string();
        into.insert(name, format!("{:o} {content}", meta.mode()));
    }
}

#[test]
fn answers_are_those_of_the_other_passthrough() {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        println!("skipped: the other passthrough acts as whoever asks, which takes root");
        return;
    }
    let ours = Side::new(|place| {
        let directory = File::open(place).unwrap();
        Shared::new(directory.into(), &FsConfig::new("share")).unwrap()
    });
    let theirs = Side::new(|place| {
        let config = Config {
            root_dir: place.to_str().unwrap().to_owned(),
            do_import: true,
            xattr: true,
            ..Config::default()
        };
        let fs = PassthroughFs::<()>::new(config).unwrap();
        fs.import().unwrap();
        fs
    });
    fs::create_dir(ours.place.path().join("dir")).unwrap();
    fs::create_dir(theirs.place.path().join("dir")).unwrap();
    let mut state = 2026;
    let mut done = 0;
    for number in 0..STEPS {
        let what = Step {
            kind: next(&mut state, 14),
            from: next(&mut state, 2),
            to: next(&mut state, 2),
            name: next(&mut state, NAMES.len()),
            other: next(&mut state, NAMES.len()),
            value: next(&mut state, 40),
        };
        let said = ours.step(&what);
        let wanted = theirs.step(&what);
        assert_eq!(said, wanted, "step {number}: {what:?}");
        done += usize::from(said.is_ok());
    }
    assert!(done > STEPS / 4, "only {done} steps did something");
    let [mut own, mut other] = [BTreeMap::new(), BTreeMap::new()];
    tree(ours.place.path(), ours.place.path(), &mut own);
    tree(theirs.place.path(), theirs.place.path(), &mut other);
    assert_eq!(own, other);
}
