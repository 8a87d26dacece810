//! Making a restored, reset or forked copy a machine of its own, and getting
//! one ready for being copied.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use exec_proto::{Failure, Resume, Resumed};

use super::failure::not_permitted;
use super::files::replace_file;
use super::hold::{self, Hold};
use super::{Agent, names};
use crate::sys;

/// Where the kernel lists and switches CPUs.
const CPUS: &str = "/sys/devices/system/cpu";
/// Most CPUs a list may name; the kernel is built for fewer.
const MAX_CPUS: usize = 4096;

/// Files of the kernel through which a machine changes what it is, opened
/// before a guest can hide them.
#[derive(Debug, Default)]
pub(super) struct Controls {
    /// Stands in for the kernel's boot id.
    boot_id: Option<File>,
    cpus: Option<File>,
    online: Option<File>,
    present: Option<File>,
    drop_caches: Option<File>,
    hold: Hold,
    /// One change at a time.
    busy: Mutex<()>,
}

impl Controls {
    pub(super) fn open(boot_id: Option<File>) -> Self {
        let cpus = Path::new(CPUS);
        Self {
            boot_id,
            cpus: File::open(cpus).ok(),
            online: File::open(cpus.join("online")).ok(),
            present: File::open(cpus.join("present")).ok(),
            drop_caches: OpenOptions::new()
                .write(true)
                .open("/proc/sys/vm/drop_caches")
                .ok(),
            hold: Hold::open(),
            busy: Mutex::new(()),
        }
    }
}

/// Does all that `wanted` says, and then lets programs go on that were held. A
/// generator that does not take its seed or a clock that cannot be set fails
/// the whole, and the copy must not be used.
pub(super) fn resume(agent: &Agent, wanted: &Resume<'_>) -> Result<Resumed, Failure> {
    agent.require_machine_control()?;
    let controls = &agent.controls;
    let _one = controls.busy.lock().unwrap_or_else(PoisonError::into_inner);
    let begun = sys::monotonic_ns();
    sys::reseed_kernel(agent.places.random.as_fd(), wanted.seed, &wanted.generation)
        .map_err(|error| not_permitted(&error, "cannot reseed"))?;
    let before = sys::wall_ns();
    sys::set_clock(wanted.wall_ns)
        .map_err(|error| not_permitted(&error, "cannot set the clock"))?;
    let hostname_set = !wanted.hostname.is_empty() && names::change(wanted.hostname).is_ok();
    if let Some(id) = wanted.machine_id {
        let line = format!("{:032x}\n", u128::from_be_bytes(id));
        replace_file(Path::new("/etc/machine-id"), 0o444, line.as_bytes())?;
    }
    let boot_id = new_boot_id(controls).unwrap_or_default();
    let vcpus_online = set_vcpus(controls, wanted.vcpus);
    if !wanted.stay_held {
        controls.hold.release()?;
    }
    Ok(Resumed {
        reseeded: true,
        clock_step_ns: step(before, wanted.wall_ns),
        hostname_set,
        boot_id,
        vcpus_online,
        work_ns: sys::monotonic_ns().saturating_sub(begun),
    })
}

/// How long a call to the host may hold up a capture.
const CALL_WAIT: Duration = Duration::from_millis(600);

/// Flushes file systems and, if asked, drops the page cache.
pub(super) fn quiesce(agent: &Agent, drop_caches: bool) -> Result<(), Failure> {
    agent.require_machine_control()?;
    sys::sync_all();
    if drop_caches {
        let file = agent.controls.drop_caches.as_ref();
        // 1: the page cache and nothing else (Documentation/admin-guide/sysctl/vm.rst).
        file.ok_or_else(|| io::ErrorKind::NotFound.into())
            .and_then(|file| file.write_all_at(b"1\n", 0))
            .map_err(|error| not_permitted(&error, "cannot drop caches"))?;
    }
    agent.standby.settle(CALL_WAIT);
    Ok(())
}

/// Fails if there is a program beside the agent: what a host asks before it copies
/// a machine whose kernel would not hold it.
pub(super) fn require_no_programs(agent: &Agent) -> Result<(), Failure> {
    agent.require_machine_control()?;
    hold::require_no_programs(Path::new("/proc"))
}

/// Lets programs go on that [`resume`] has left held.
pub(super) fn release(agent: &Agent) -> Result<(), Failure> {
    agent.require_machine_control()?;
    agent.controls.hold.release()
}

fn step(from: u64, to: u64) -> i64 {
    let step = i128::from(to) - i128::from(from);
    let bound = if step < 0 { i64::MIN } else { i64::MAX };
    i64::try_from(step).unwrap_or(bound)
}

/// Writes a random boot id into the file that covers the kernel's.
fn new_boot_id(controls: &Controls) -> Option<[u8; 16]> {
    let file = controls.boot_id.as_ref()?;
    let mut id = [0; 16];
    sys::random_bytes(&mut id).ok()?;
    // RFC 9562, 5.4: version 4, variant 10.
    id[6] = id[6] & 0x0f | 0x40;
    id[8] = id[8] & 0x3f | 0x80;
    file.write_all_at(uuid(id).as_bytes(), 0).ok()?;
    Some(id)
}

/// A UUID in its usual form, with the line end the kernel gives it.
fn uuid(id: [u8; 16]) -> String {
    let hex = format!("{:032x}", u128::from_be_bytes(id));
    let mut text = String::with_capacity(37);
    for (index, digit) in hex.chars().enumerate() {
        if matches!(index, 8 | 12 | 16 | 20) {
            text.push('-');
        }
        text.push(digit);
    }
    text.push('\n');
    text
}

/// Brings CPUs online or offline until `wanted` are, as far as they are there,
/// and tells how many are online; 0 changes nothing.
fn set_vcpus(controls: &Controls, wanted: u32) -> u32 {
    let online = |controls: &Controls| read_list(controls.online.as_ref()).unwrap_or_default();
    let count = |list: &[u32]| u32::try_from(list.len()).unwrap_or(u32::MAX);
    let before = online(controls);
    if wanted == 0 || count(&before) == wanted {
        return count(&before);
    }
    let (Some(dir), Some(present)) = (&controls.cpus, read_list(controls.present.as_ref())) else {
        return count(&before);
    };
    // The lowest numbers stay: the first CPU cannot go.
    let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
    for (index, cpu) in present.iter().enumerate() {
        let should = index < wanted;
        if should == before.contains(cpu) {
            continue;
        }
        let name = std::ffi::CString::new(format!("cpu{cpu}/online")).unwrap_or_default();
        // One that refuses shows in the count.
        if let Ok(switch) = sys::open_at(dir.as_fd(), &name, libc::O_WRONLY) {
            let _ = sys::write(switch.as_fd(), if should { b"1" } else { b"0" });
        }
    }
    count(&online(controls))
}

fn read_list(file: Option<&File>) -> Option<Vec<u32>> {
    let mut text = [0; 256];
    let len = file?.read_at(&mut text, 0).ok()?;
    cpu_list(text.get(..len)?)
}

/// Reads a list as the kernel writes it, such as `0-3,5`.
fn cpu_list(text: &[u8]) -> Option<Vec<u32>> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let mut list = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
        for cpu in first..=last {
            if list.len() >= MAX_CPUS {
                return None;
            }
            list.push(cpu);
        }
    }
    Some(list)
}

#[cfg(test)]
mod tests {
    use super::*;
    use exec_proto::ErrorKind;

    #[test]
    fn cpu_lists_are_read_and_nonsense_is_refused() {
        assert_eq!(cpu_list(b"0\n"), Some(vec![0]));
        assert_eq!(cpu_list(b"0-2,5,7-8\n"), Some(vec![0, 1, 2, 5, 7, 8]));
        for bad in [&b""[..], b"a", b"0-", b"0-4294967295", b"\xff"] {
            assert_eq!(cpu_list(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn boot_id_is_written_as_the_kernel_would() {
        let id: [u8; 16] = std::array::from_fn(|i| u8::try_from(i).unwrap());
        assert_eq!(uuid(id), "00010203-0405-0607-0809-0a0b0c0d0e0f\n");
    }

    #[test]
    fn machine_whose_generator_takes_no_seed_is_not_resumed() {
        let mut agent = Agent::of_machine(None).unwrap();
        agent.places.random = File::open("/dev/null").unwrap();
        let now = sys::wall_ns();
        let failure = resume(&agent, &Resume::new(&[1; 32], now, [2; 16])).unwrap_err();
        assert_eq!(failure.kind, ErrorKind::NotPermitted);
        assert_eq!(failure.errno, libc::ENOTTY);
    }

    #[test]
    fn clock_steps_of_any_size_have_a_number() {
        assert_eq!(step(5, 3), -2);
        assert_eq!(step(0, u64::MAX), i64::MAX);
        assert_eq!(step(u64::MAX, 0), i64::MIN);
    }

    #[test]
    fn boot_id_in_its_file_is_random_and_returned() {
        let path = std::env::temp_dir().join(format!("sm-boot-id-{}", std::process::id()));
        std::fs::write(&path, "00000000-0000-0000-0000-000000000000\n").unwrap();
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        let controls = Controls {
            boot_id: Some(file),
            ..Controls::default()
        };
        let first = new_boot_id(&controls).unwrap();
        let second = new_boot_id(&controls).unwrap();
        assert_ne!(first, second);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), uuid(second));
        assert_eq!((second[6] >> 4, second[8] >> 6), (4, 2));
        std::fs::remove_file(&path).unwrap();
    }
}
