//! Programs that map files of a mount with DAX.

use std::fs::{self, File};
use std::time::{Duration, Instant};

use supermachine::{DaxPolicy, MountSpec, Vm};
use supermachine_tests::{config, image};

/// Maps a file, writes what it has mapped to new ones, and changes it by another
/// mapping; the sums of all.
const PROGRAM: &str = r"
import hashlib, mmap, os
def total(data): return hashlib.sha256(data).hexdigest()
source = os.open('/work/data', os.O_RDWR)
seen = mmap.mmap(source, 0, prot=mmap.PROT_READ)
for name, flags in (('/work/plain', 0), ('/work/direct', os.O_DIRECT), ('/other/plain', 0)):
    out = os.open(name, os.O_CREAT | os.O_WRONLY | flags, 0o644)
    done = 0
    while done < len(seen):
        done += os.write(out, memoryview(seen)[done:done + (1 << 20)])
    os.close(out)
    print(total(open(name, 'rb').read()))
changed = mmap.mmap(source, 0)
changed[5000:5005] = b'guest'
print(seen[5000:5005].decode())
if os.fork() == 0:
    changed[-5:] = b'child'
    os._exit(0)
os.wait()
print(seen[-5:].decode())
into = os.open('/work/direct', os.O_RDWR | os.O_DIRECT)
print(os.preadv(into, [memoryview(changed)[:1 << 20]], 1 << 20))
print(total(seen))
";

#[test]
fn python_writes_and_reads_what_it_has_mapped() {
    let dir = std::env::temp_dir().join(format!("supermachine-mapped-{}", std::process::id()));
    fs::create_dir_all(dir.join("other")).unwrap();
    let mut content: Vec<u8> = (0..3 << 18_u32)
        .flat_map(|n: u32| n.wrapping_mul(0x9e37_79b9).to_le_bytes())
        .collect();
    fs::write(dir.join("data"), &content).unwrap();
    let mapped = |spec: MountSpec| spec.with_dax(DaxPolicy::Always).with_dax_window_mib(32);
    let work = MountSpec::new(&dir, "data").at("/work");
    let other = MountSpec::new(dir.join("other"), "other").at("/other");
    let config = config().with_vcpus(2).with_memory_mib(512);
    let config = config.with_mount(mapped(work)).with_mount(mapped(other));
    let vm = image("python3").start(&config).unwrap();
    let run = vm.exec_builder().argv(["python3", "-c", PROGRAM]);
    let out = run.timeout(Duration::from_secs(100)).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    assert!(out.success() && lines.len() == 7, "{out:?}");
    assert!(lines[0] == lines[1] && lines[0] == lines[2]);
    assert!(fs::read(dir.join("other/plain")).unwrap() == content);
    assert!(fs::read(dir.join("plain")).unwrap() == content);
    assert!(fs::read(dir.join("direct")).unwrap() == content);
    assert_eq!(lines[3..6], ["guest", "child", "1048576"]);
    let end = content.len() - 5;
    content[end..].copy_from_slice(b"child");
    let (first, second) = content.split_at_mut(1 << 20);
    first.copy_from_slice(&second[..1 << 20]);
    assert!(fs::read(dir.join("data")).unwrap() == content);
    drop(vm);
    fs::remove_dir_all(dir).unwrap();
}

/// Maps a file, and reads a byte behind where the host ends it, over and over, without a
/// look at the file; what ends the program is its status.
const READER: &str = r"
import mmap, os, sys, time
source = os.open('/work/data', os.O_RDONLY)
seen = mmap.mmap(source, 0, prot=mmap.PROT_READ)
assert seen[3 << 20] == 7
open('/tmp/ready', 'w').close()
begun = time.monotonic()
while time.monotonic() - begun < 30:
    if seen[3 << 20] not in (0, 7):
        sys.exit(1)
    time.sleep(0.001)
sys.exit(2)
";

#[test]
fn a_mapped_file_that_the_host_makes_shorter_is_a_bus_error_of_the_program_alone() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path();
    let data = dir.join("data");
    fs::write(&data, vec![7; 4 << 20]).unwrap();
    let mount = MountSpec::new(dir, "data").at("/work");
    let mount = mount.with_dax(DaxPolicy::Always).with_dax_window_mib(32);
    let config = config().with_memory_mib(512).with_mount(mount);
    let vm = image("python3").start(&config).unwrap();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let run = vm.exec_builder().argv(["python3", "-c", READER]);
            run.timeout(Duration::from_secs(60)).output().unwrap()
        });
        until("the program", || vm.read_file("/tmp/ready").is_ok());
        File::options()
            .write(true)
            .open(&data)
            .unwrap()
            .set_len(10)
            .unwrap();
        let out = reader.join().unwrap();
        let bus_error = rustix::process::Signal::BUS.as_raw();
        assert_eq!(out.status.signal, Some(bus_error), "{out:?}");
    });
    // The guest goes on, and reads what there is.
    assert_eq!(vm.exec(["cat", "/work/data"]).unwrap().stdout, vec![7; 10]);
    fs::write(&data, vec![7; 4 << 20]).unwrap();
    until("the file", || {
        let size = vm.exec(["stat", "-c", "%s", "/work/data"]).unwrap();
        size.stdout == b"4194304\n"
    });
}

fn until(what: &str, wanted: impl Fn() -> bool) {
    let begun = Instant::now();
    while !wanted() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The memory that the kernel of a guest has left for others, in KiB.
fn available_kib(vm: &Vm) -> u64 {
    let text = String::from_utf8(vm.read_file("/proc/meminfo").unwrap()).unwrap();
    let mut lines = text.lines();
    let line = lines.find(|line| line.starts_with("MemAvailable:"));
    let number = line.unwrap().split_whitespace().nth(1);
    number.unwrap().parse().unwrap()
}

#[test]
fn a_window_has_up_to_eight_gibibytes_and_takes_a_sixty_fourth_of_that() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path();
    let file = File::create(dir.join("data")).unwrap();
    // Mapped all at once, it takes nearly all of the window.
    file.set_len(7 << 30).unwrap();
    let with = |mib| {
        let mount = MountSpec::new(dir, "data").at("/work");
        let mount = mount.with_dax(DaxPolicy::Always).with_dax_window_mib(mib);
        let config = config().with_memory_mib(512).with_mount(mount);
        image("python3").start(&config).unwrap()
    };
    let small = available_kib(&with(256));
    let vm = with(8192);
    let taken = small - available_kib(&vm);
    let page_structs = (8192 - 256) << 10 >> 6;
    assert!(taken.abs_diff(page_structs) < 8 << 10, "{taken} KiB");
    let program = "import mmap, os\n\
        seen = mmap.mmap(os.open('/work/data', os.O_RDWR), 0)\n\
        for at in range(0, len(seen), 2 << 20): seen[at] = 1\n\
        print(sum(seen[at] for at in range(0, len(seen), 2 << 20)))";
    let run = vm.exec_builder().argv(["python3", "-c", program]);
    let out = run.timeout(Duration::from_secs(100)).output().unwrap();
    assert_eq!(out.stdout, b"3584\n", "{out:?}");
}
