//! Programs that map files of a mount with DAX.

use std::fs;
use std::time::Duration;

use supermachine::{DaxPolicy, MountSpec};
use supermachine_tests::{config, image};

/// Maps a file, writes what it has mapped to new ones, and changes it by another
/// mapping; the sums of all.
const PROGRAM: &str = r"
import hashlib, mmap, os
def total(data): return hashlib.sha256(data).hexdigest()
source = os.open('/work/data', os.O_RDWR)
seen = mmap.mmap(source, 0, prot=mmap.PROT_READ)
for name, flags in (('plain', 0), ('direct', os.O_DIRECT)):
    out = os.open('/work/' + name, os.O_CREAT | os.O_WRONLY | flags, 0o644)
    done = 0
    while done < len(seen):
        done += os.write(out, memoryview(seen)[done:done + (1 << 20)])
    os.close(out)
    print(total(open('/work/' + name, 'rb').read()))
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
    fs::create_dir_all(&dir).unwrap();
    let mut content: Vec<u8> = (0..3 << 18_u32)
        .flat_map(|n: u32| n.wrapping_mul(0x9e37_79b9).to_le_bytes())
        .collect();
    fs::write(dir.join("data"), &content).unwrap();
    let mount = MountSpec::new(&dir, "data").at("/work");
    let mount = mount.with_dax(DaxPolicy::Always).with_dax_window_mib(32);
    let config = config()
        .with_vcpus(2)
        .with_memory_mib(512)
        .with_mount(mount);
    let vm = image("python3").start(&config).unwrap();
    let run = vm.exec_builder().argv(["python3", "-c", PROGRAM]);
    let out = run.timeout(Duration::from_secs(100)).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    assert!(out.success() && lines.len() == 6, "{out:?}");
    assert_eq!(lines[0], lines[1]);
    assert!(fs::read(dir.join("plain")).unwrap() == content);
    assert!(fs::read(dir.join("direct")).unwrap() == content);
    assert_eq!(lines[2..5], ["guest", "child", "1048576"]);
    let end = content.len() - 5;
    content[end..].copy_from_slice(b"child");
    let (first, second) = content.split_at_mut(1 << 20);
    first.copy_from_slice(&second[..1 << 20]);
    assert!(fs::read(dir.join("data")).unwrap() == content);
    drop(vm);
    fs::remove_dir_all(dir).unwrap();
}
