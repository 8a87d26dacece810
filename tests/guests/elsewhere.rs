//! The file system device in another monitor.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use supermachine_tests::suites::{Kit, Place, Side, qemu};
use supermachine_tests::{busybox, required};

const LIMIT: Duration = Duration::from_secs(60);

/// What a guest of QEMU's reads and writes by vhost-user, and what the host has of it.
#[test]
fn guest_of_qemu_has_a_directory() {
    if let Err(reason) = qemu::is_here() {
        println!("skipped: {reason}");
        return;
    }
    let shared = tempfile::tempdir_in(supermachine_tests::target_dir()).unwrap();
    fs::write(shared.path().join("hello"), "from the host\n").unwrap();
    let layout = required("demo/busybox", "cargo xtask images");
    let kit = Kit::of(layout, vec![("busybox".to_owned(), busybox())]).unwrap();
    // A guest that comes after another finds what that has left.
    for turn in 1..=2 {
        let mut guest = Place::start(Side::OursInQemu, shared.path(), &kit).unwrap();
        let mut said = |command: &str| guest.run(command, LIMIT).unwrap();
        assert_eq!(said("cat /share/hello"), "from the host\n0\n");
        let written = format!("echo {turn} >> /share/turns && cat /share/turns");
        let turns: String = (1..=turn).map(|turn| format!("{turn}\n")).collect();
        assert_eq!(said(&written), format!("{turns}0\n"));
        let large = "yes | head -c 3000000 > /share/large && md5sum < /share/large";
        assert_eq!(said(large), "f30a749ec7a7b55d3a75349f242c4cd8  -\n0\n");
        // It is a pipe to the guest, and a plain file here.
        let pipe = "rm -f /share/pipe; busybox mkfifo -m 640 /share/pipe && chown 5:6 /share/pipe; \
                    stat -c '%F %a %u %g' /share/pipe; \
                    (echo through > /share/pipe &) ; cat /share/pipe";
        assert_eq!(said(pipe), "fifo 640 5 6\nthrough\n0\n");
        // The guest mounts it anew, and then it still has it.
        let again = "cd / && umount /share && mount -t virtiofs share /share && cat /share/hello";
        assert_eq!(said(again), "from the host\n0\n");
    }
    let host = |name: &str| fs::metadata(shared.path().join(name)).unwrap();
    assert_eq!(host("large").len(), 3_000_000);
    assert!(host("pipe").is_file());
    assert_eq!(host("pipe").permissions().mode() & 0o7777, 0o640);
}
