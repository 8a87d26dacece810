//! A host whose disk is full, or fails: a file system of FUSE that this process serves to
//! its own kernel, in which the shared directory is.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use super::apart::has_mounts;
use super::owners::{guest_of, make_by, user};
use super::*;
use crate::virtio::fs::{FsConfig, Requests};

/// More than the longest request of a kernel, and the longest answer.
const BUFFER_BYTES: usize = (1 << 20) + (64 << 10);

/// Requests that the disk answers with an error.
type Faults = Arc<Mutex<BTreeMap<u32, Errno>>>;

/// Mounts a directory of this process's at another.
fn serve(backing: &Path, at: &Path) -> Faults {
    let options = fs::OpenOptions::new().read(true).write(true).clone();
    let kernel = options.open("/dev/fuse").unwrap();
    // The command inherits it.
    let inherited = rustix::io::dup(&kernel).unwrap();
    let number = inherited.as_raw_fd();
    let options = format!("fd={number},rootmode=40000,user_id=0,group_id=0");
    let mounted = Command::new("mount")
        .args(["-i", "-t", "fuse", "-o", &options, "failing"])
        .arg(at)
        .status();
    assert!(mounted.unwrap().success());
    drop(inherited);
    let faults = Faults::default();
    let config = FsConfig::new("disk");
    let requests = Requests::new(directory(backing), &config).unwrap();
    let told = faults.clone();
    // Ends with the process.
    thread::spawn(move || answer(&kernel, &requests, &told));
    faults
}

fn answer(kernel: &File, requests: &Requests, faults: &Faults) {
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Ok(length) = rustix::io::read(kernel, &mut buffer[..]) {
        let request = &buffer[..length];
        let header = InHeader::read(request[..IN_HEADER_BYTES].try_into().unwrap());
        let fault = faults.lock().unwrap().get(&header.opcode).copied();
        let answer = match fault {
            None => requests.answer(request, BUFFER_BYTES),
            Some(error) => {
                let mut answer = Body::default();
                answer.u32(16).u32((-error.raw_os_error()).cast_unsigned());
                answer.u64(header.unique);
                answer.0
            }
        };
        if !answer.is_empty() {
            // The kernel may have given up on it.
            let _ = rustix::io::write(kernel, &answer);
        }
    }
}

/// A guest whose directory is on such a disk.
struct Failing {
    guest: Guest,
    faults: Faults,
}

impl Failing {
    fn new(owners: Owners) -> Self {
        let guest = guest_of(owners);
        let backing = guest.outside("disk");
        fs::create_dir(&backing).unwrap();
        let at = guest.host("");
        let faults = serve(&backing, &at);
        let server = Server::new(directory(&at), guest.server.rules.clone()).unwrap();
        let guest = Guest { server, ..guest };
        Self { guest, faults }
    }

    /// What the disk has, behind its back.
    fn disk(&self, name: &str) -> PathBuf {
        self.guest.outside("disk").join(name)
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.disk("")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
        names.sort_unstable();
        names
    }

    /// What becomes of something while requests of one kind fail.
    fn failing<T>(
        &mut self,
        request: u32,
        error: Errno,
        act: impl FnOnce(&mut Guest) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        self.faults.lock().unwrap().insert(request, error);
        let done = act(&mut self.guest);
        self.faults.lock().unwrap().clear();
        done
    }
}

/// What a disk says that is broken, full, or more than its user may have of it.
const ERRORS: [Errno; 4] = [Errno::IO, Errno::NOSPC, Errno::DQUOT, Errno::ROFS];

#[test]
fn errors_of_the_hosts_disk_are_the_guests() {
    if !has_mounts("virtio::fs::server::tests::failing::errors_of_the_hosts_disk_are_the_guests") {
        return;
    }
    let mut host = Failing::new(Owner { uid: 7, gid: 8 }.into());
    for name in ["a", "b"] {
        fs::write(host.disk(name), "content").unwrap();
    }
    fs::create_dir(host.disk("d")).unwrap();
    let before = host.names();
    let a = host.guest.look(ROOT, c"a").unwrap().node;
    let handle = host.guest.open(a, open::RDWR).unwrap();
    for error in ERRORS {
        let failed = host.failing(opcode::WRITE, error, |guest| {
            guest.write(handle, 0, b"lost")
        });
        assert_eq!(failed, Err(error));
        let failed = host.failing(opcode::SETATTR, error, |guest| {
            guest.set(a, set::SIZE, 3, 0)
        });
        assert_eq!(failed.map(drop), Err(error));
        let failed = host.failing(opcode::FSYNC, error, |guest| {
            let mut arguments = Body::default();
            arguments.u64(handle).u64(0);
            guest.ask(opcode::FSYNC, a, &arguments.0)
        });
        assert_eq!(failed, Err(error));
        let failed = host.failing(opcode::UNLINK, error, |guest| guest.unlink(ROOT, c"b"));
        assert_eq!(failed, Err(error));
        let failed = host.failing(opcode::RENAME, error, |guest| {
            guest.rename((ROOT, c"a"), (ROOT, c"z"), 0)
        });
        assert_eq!(failed, Err(error));
        let failed = host.failing(opcode::LINK, error, |guest| {
            let mut arguments = Body::default();
            arguments.u64(a).bytes(b"z\0");
            guest.ask(opcode::LINK, ROOT, &arguments.0)
        });
        assert_eq!(failed, Err(error));
        let failed = host.failing(opcode::FALLOCATE, error, |guest| {
            let mut arguments = Body::default();
            arguments.u64(handle).u64(0).u64(1 << 20).u32(0).u32(0);
            guest.ask(opcode::FALLOCATE, a, &arguments.0)
        });
        assert_eq!(failed, Err(error));
        let failed = host.failing(opcode::OPEN, error, |guest| guest.open(a, 0));
        assert_eq!(failed, Err(error));
        let failed = host.failing(opcode::OPENDIR, error, |guest| guest.list(ROOT, true, 4096));
        assert_eq!(failed, Err(error));
        let fresh = host.guest.walk("none").unwrap_err();
        assert_eq!(fresh, Errno::NOENT);
        let failed = host.failing(opcode::LOOKUP, error, |guest| guest.look(ROOT, c"fresh"));
        assert_eq!(failed, Err(error));
        // All of it is as it was, and the guest goes on.
        assert_eq!(host.names(), before);
        assert_eq!(fs::read(host.disk("a")).unwrap(), b"content");
        assert_eq!(host.guest.write(handle, 0, b"content"), Ok(7));
        assert_eq!(host.guest.list(ROOT, true, 4096).unwrap().len(), 5);
    }
    // The host's kernel makes one error of what it cannot read.
    let b = host.guest.look(ROOT, c"b").unwrap().node;
    let reader = host.guest.open(b, 0).unwrap();
    let failed = host.failing(opcode::READ, Errno::IO, |guest| guest.read(reader, 0, 9));
    assert_eq!(failed, Err(Errno::IO));
    assert_eq!(host.guest.read(reader, 0, 9), Ok(b"content".to_vec()));
}

#[test]
fn what_the_hosts_disk_cannot_finish_is_not_there() {
    if !has_mounts(
        "virtio::fs::server::tests::failing::what_the_hosts_disk_cannot_finish_is_not_there",
    ) {
        return;
    }
    let squashed = Owners::from(Owner { uid: 7, gid: 8 });
    let recorded = Owners::Recorded(Owner::default());
    for owners in [squashed, recorded] {
        // Owner and mode are recorded, or the umask took something of the mode.
        let last = match owners {
            Owners::Recorded(_) => opcode::SETXATTR,
            _ => opcode::SETATTR,
        };
        let mut host = Failing::new(owners);
        // Each with what the disk is asked for it, in order.
        for error in ERRORS {
            for fault in [opcode::CREATE, last] {
                let failed = host.failing(fault, error, |guest| guest.create(ROOT, c"f", 0o666));
                assert_eq!((failed, host.names()), (Err(error), vec![]), "{fault}");
            }
            for fault in [opcode::CREATE, last] {
                let failed = host.failing(fault, error, |guest| {
                    let mut arguments = Body::default();
                    let arguments = arguments.u32(0o100_666).u32(0).u32(0).u32(0);
                    guest.ask(opcode::MKNOD, ROOT, &arguments.bytes(b"n\0").0)
                });
                assert_eq!((failed, host.names()), (Err(error), vec![]), "{fault}");
            }
            for fault in [opcode::MKDIR, opcode::OPENDIR, last] {
                let failed = host.failing(fault, error, |guest| {
                    let mut arguments = Body::default();
                    let arguments = arguments.u32(0o777).u32(0);
                    guest.ask(opcode::MKDIR, ROOT, &arguments.bytes(b"d\0").0)
                });
                assert_eq!((failed, host.names()), (Err(error), vec![]), "{fault}");
            }
            let failed = host.failing(opcode::SYMLINK, error, |guest| {
                guest.symlink(ROOT, c"l", c"f").map(drop)
            });
            assert_eq!((failed, host.names()), (Err(error), vec![]));
        }
        assert!(host.guest.create(ROOT, c"f", 0o666).is_ok());
        assert!(host.guest.make_directory(ROOT, c"d").is_ok());
        assert_eq!(host.names(), ["d", "f"]);
    }
}

#[test]
fn records_that_the_hosts_disk_does_not_give_are_nobody_elses() {
    if !has_mounts(
        "virtio::fs::server::tests::failing::records_that_the_hosts_disk_does_not_give_are_nobody_elses",
    ) {
        return;
    }
    let mut host = Failing::new(Owners::Recorded(Owner::default()));
    let node = make_by(&mut host.guest, user(1000, 100), c"a", 0o600).unwrap();
    let owned = host.guest.attributes(node).unwrap();
    assert_eq!(owned.uid, 1000);
    let failed = host.failing(opcode::GETXATTR, Errno::IO, |guest| guest.attributes(node));
    assert_eq!(failed, Err(Errno::IO));
    let failed = host.failing(opcode::GETXATTR, Errno::IO, |guest| {
        guest.set(node, set::MODE, 0, 0o644)
    });
    assert_eq!(failed, Err(Errno::IO));
    assert_eq!(host.guest.attributes(node), Ok(owned));
    // The guest's kernel believes for a moment that it is there.
    thread::sleep(Duration::from_millis(1100));
    let failed = host.failing(opcode::GETXATTR, Errno::IO, |guest| guest.look(ROOT, c"a"));
    assert_eq!(failed, Err(Errno::IO));
    assert_eq!(host.guest.look(ROOT, c"a"), Ok(owned));
}
