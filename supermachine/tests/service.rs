//! What an embedder asks of copies that run a service: ids of their own, how
//! the workload does, and connections to it.

mod support;

use exec_proto::client::{Event, Session};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};
use supermachine::compat::{VmResources, VolumeSpec};
use supermachine::{Error, Image, MachineId, Vm, VmConfig, WorkloadState};
use support::shelf::*;
use support::*;

/// The guest's machine id, which must be what the report says.
fn machine_id(vm: &Vm) -> String {
    let text = String::from_utf8(vm.read_file("/etc/machine-id").unwrap()).unwrap();
    let id = vm.copy_report().unwrap().machine_id.unwrap();
    assert_eq!(text, format!("{:032x}\n", u128::from_be_bytes(id)));
    text
}

#[test]
fn machine_ids_are_the_snapshots_random_or_fixed() {
    let shelf = Shelf::new("ids");
    let random = library_config().with_machine_id(MachineId::Random);
    // The warm-up sees the image's, and so does whoever asks for no other.
    let image = shelf
        .builder()
        .vm_config(random.clone())
        .with_warmup(|vm| vm.write_file("/etc/machine-id", b"of the snapshot\n"))
        .build()
        .unwrap();
    for _ in 0..2 {
        let vm = image.start(&library_config()).unwrap();
        assert_eq!(
            vm.read_file("/etc/machine-id").unwrap(),
            b"of the snapshot\n"
        );
        assert_eq!(vm.copy_report().unwrap().machine_id, None);
    }

    let mut seen = BTreeSet::new();
    let vm = image.start(&random).unwrap();
    assert!(seen.insert(machine_id(&vm)));
    for child in vm.fork(2).unwrap() {
        assert!(seen.insert(machine_id(&child)));
    }
    let pool = image.pool().vm_config(random).max(1).build().unwrap();
    for _ in 0..3 {
        assert!(seen.insert(machine_id(&pool.acquire().unwrap())));
    }
    pool.shutdown();

    let fixed = library_config().with_machine_id(MachineId::Fixed([0xa5; 16]));
    for _ in 0..2 {
        let vm = image.start(&fixed).unwrap();
        assert_eq!(machine_id(&vm), format!("{}\n", "a5".repeat(16)));
    }
}

#[test]
fn a_machine_that_boots_takes_its_id_too() {
    let image = Image::load_with_cache(busybox(), cache().join("supermachine/images")).unwrap();
    let id = MachineId::Fixed([0x5a; 16]);
    let vm = image.start(&library_config().with_machine_id(id)).unwrap();
    assert_eq!(
        vm.read_file("/etc/machine-id").unwrap(),
        format!("{}\n", "5a".repeat(16)).as_bytes()
    );
}

#[test]
fn host_names_that_were_given_are_reported() {
    let shelf = Shelf::new("names");
    let image = shelf.builder().build().unwrap();
    let named = |config: &VmConfig| image.start(config).unwrap().copy_report().unwrap();
    // The first start is the baked machine's, which nobody named.
    assert!(!named(&library_config()).hostname_set);
    assert!(named(&library_config().with_hostname("web-1")).hostname_set);
}

/// Waits for a state of the workload.
fn await_state(vm: &Vm, wanted: impl Fn(&WorkloadState) -> bool) {
    let begun = Instant::now();
    loop {
        let status = vm.workload_status().unwrap();
        if wanted(&status.state) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{status:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_workload_is_watched_and_signalled() {
    let shelf = Shelf::new("workload");
    let serve = "trap 'echo bye; exit 7' TERM; echo hello; while :; do sleep 0.1; done";
    let image = shelf.builder().cmd(["sh", "-c", serve]).build().unwrap();
    let pool = image
        .pool()
        .vm_config(library_config())
        .max(1)
        .build()
        .unwrap();
    // Each lease has a workload that nobody has ended yet.
    for _ in 0..2 {
        let vm = pool.acquire().unwrap();
        let begun = Instant::now();
        while vm.workload_status().unwrap().tail != b"hello\n" {
            assert!(begun.elapsed() < PATIENCE);
            std::thread::sleep(Duration::from_millis(20));
        }
        await_state(&vm, |state| matches!(state, WorkloadState::Running { .. }));
        vm.workload_signal(15).unwrap();
        await_state(
            &vm,
            |state| matches!(state, WorkloadState::Exited(status) if status.code == Some(7)),
        );
        let status = vm.workload_status().unwrap();
        let text = String::from_utf8_lossy(&status.tail);
        // The shell may say how its sleep ended.
        let is_whole = text.starts_with("hello\n") && text.contains("bye\n");
        assert!(is_whole, "{text}");
        assert_eq!(status.output_bytes, status.tail.len() as u64);
        vm.workload_signal(15).unwrap();
        assert!(matches!(vm.workload_signal(65), Err(Error::Protocol(_))));
    }
    pool.shutdown();
}

#[test]
fn ports_of_the_guest_are_connected_to_or_refused() {
    let shelf = Shelf::new("ports");
    let image = shelf.builder().build().unwrap();
    let vm = image.start(&library_config()).unwrap();
    let status = vm.workload_status().unwrap();
    assert_eq!(status.state, WorkloadState::NotStarted);
    assert!(matches!(vm.workload_signal(15), Err(Error::Exec { .. })));

    let mut stream = vm.connect(exec_proto::EXEC_PORT).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut session = Session::new();
    stream.write_all(session.outgoing()).unwrap();
    let mut bytes = [0; 4096];
    let hello = loop {
        if let Some(event) = session.next_event().unwrap() {
            break event;
        }
        let count = stream.read(&mut bytes).unwrap();
        assert_ne!(count, 0);
        session.feed(&bytes[..count]);
    };
    assert!(matches!(hello, Event::Hello { .. }), "{hello:?}");

    assert!(matches!(vm.connect(4), Err(Error::Connection { .. })));
    assert!(vm.exec(["true"]).unwrap().success());
}

#[test]
fn a_description_of_a_saved_machine_does_what_it_says() {
    let shelf = Shelf::new("described");
    let builder = shelf.builder().cmd(["sh", "-c", "exec httpd -f -p 80"]);
    let image = builder.listener_required(true).build().unwrap();
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let (saved, mux, exec) = (
        shelf.0.join("saved"),
        shelf.0.join("mux"),
        shelf.0.join("exec"),
    );
    let mut resources = VmResources::from_snapshot(path(image.snapshot_path().unwrap()))
        .with_snapshot_on_listener(path(&saved))
        .with_quiesce_ms(1)
        .with_vsock_mux(path(&mux))
        .with_vsock_exec(path(&exec))
        .with_http_port("0");
    resources.snapshot.after_ms = Some(1);
    resources.snapshot.at_heartbeat = Some(2);
    // 64 MiB.
    resources.balloon_target_pages = Some(64 << 8);
    let vm = resources.restore(&library_config()).unwrap();
    assert_eq!(vm.status().unwrap().ballooned_bytes, 64 << 20);
    assert_eq!(sh(&vm, "ps | grep -c 'root  *httpd -f'"), "1");
    for socket in [&mux, &exec] {
        UnixStream::connect(socket).unwrap();
    }
    let mut http = std::net::TcpStream::connect(vm.http().unwrap().local_addr()).unwrap();
    http.set_read_timeout(Some(PATIENCE)).unwrap();
    http.write_all(b"GET /etc/hosts HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    http.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1."), "{answer}");
    // It goes on, and what was saved does too.
    assert_eq!(
        vm.saved()
            .unwrap()
            .snapshot_path()
            .unwrap()
            .parent()
            .unwrap(),
        saved
    );
    let copy = vm.saved().unwrap().start(&library_config()).unwrap();
    assert_eq!(sh(&copy, "ps | grep -c 'root  *httpd -f'"), "1");
    drop(vm);
    for socket in [mux, exec] {
        assert!(socket.symlink_metadata().is_err(), "{socket:?} is left");
    }
    // No trigger, nothing saved.
    let plain = VmResources::from_snapshot(path(&saved));
    let vm = plain.restore(&library_config()).unwrap();
    assert!(vm.saved().is_none() && sh(&vm, "echo on") == "on");
}

#[test]
fn a_description_of_a_saved_machine_brings_files_that_it_can_write_to() {
    let shelf = Shelf::new("described-volumes");
    let image = shelf.builder().volume_slots(1).build().unwrap();
    let snapshot = image.snapshot_path().unwrap();
    let (file, saved) = (shelf.0.join("data.img"), shelf.0.join("saved"));
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let with = |guest_path: &str| {
        let volume = VolumeSpec::new(text(&file), guest_path).with_size_bytes(40 << 20);
        VmResources::from_snapshot(text(snapshot)).with_volume(volume)
    };
    let config = library_config();
    let first = with("/data").with_snapshot_after_ms(1, text(&saved));
    let vm = first.restore(&config).unwrap();
    assert_eq!(std::fs::metadata(&file).unwrap().len(), 40 << 20);
    sh(&vm, "echo kept > /data/file; sync");
    // Nobody else has it meanwhile.
    let refused = with("/data").restore(&config).unwrap_err();
    assert!(matches!(refused, Error::VolumeInUse { .. }), "{refused}");
    drop(vm);
    let vm = with("/elsewhere").restore(&config).unwrap();
    assert_eq!(sh(&vm, "cat /elsewhere/file"), "kept");
    drop(vm);
    // What was saved before it was written has what it held then, to itself.
    let copy = VmResources::from_snapshot(text(&saved));
    let copy = copy.restore(&config).unwrap();
    assert_eq!(sh(&copy, "ls /data; echo own > /data/own"), "lost+found");
    std::fs::write(&file, "no file system").unwrap();
    let refused = with("/data").restore(&config).unwrap_err();
    assert!(refused.to_string().contains("cut short"), "{refused}");
    let two = with("/data").with_volume(VolumeSpec::new(text(&shelf.0.join("b")), "/b"));
    let refused = two.restore(&config).unwrap_err().to_string();
    assert!(
        refused.contains("`b`") || refused.contains("cut short"),
        "{refused}"
    );
}
