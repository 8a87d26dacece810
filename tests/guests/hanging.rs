//! Programs that hang while they are started.

use std::io::{BufRead, BufReader};
use std::time::Duration;
use supermachine_tests::{Guest, sh};

/// Mounts a file system whose server never answers, and says so.
const SILENT: &str = "
import ctypes, os, time
server = os.open('/dev/fuse', os.O_RDWR)
os.makedirs('/tmp/silent')
options = f'fd={server},rootmode=40000,user_id=0,group_id=0'.encode()
assert ctypes.CDLL(None).mount(b'x', b'/tmp/silent', b'fuse', 0, options) == 0
print('mounted', flush=True)
time.sleep(100000)
";

#[test]
fn machine_is_copied_while_a_program_hangs_before_it_runs() {
    let guest = Guest::boot("python3", 1, 256);
    let vm = guest.vm();
    let server = vm.exec_builder().argv(["python3", "-c", SILENT]);
    let mut server = server.spawn().unwrap();
    let mut said = String::new();
    let mut output = BufReader::new(server.stdout().unwrap());
    output.read_line(&mut said).unwrap();
    assert_eq!(said, "mounted\n");
    std::thread::scope(|scope| {
        let hanging = vm.exec_builder().argv(["/tmp/silent/program"]);
        let hanging = hanging.timeout(Duration::MAX);
        let hanging = scope.spawn(move || hanging.output());
        // Long enough for the agent to be in the middle of it.
        std::thread::sleep(Duration::from_secs(1));
        assert!(!hanging.is_finished());
        for _ in 0..2 {
            let children = vm.fork(1).unwrap();
            assert_eq!(sh(&children[0], "echo on"), "on\n");
        }
        assert_eq!(sh(vm, "echo on"), "on\n");
        // Without its server the file system fails, and the program with it.
        drop((output, server));
        let outcome = hanging.join().unwrap();
        assert!(!outcome.is_ok_and(|outcome| outcome.success()));
    });
    guest.finish();
}
