//! The types for tokio, over real machines.
#![cfg(feature = "tokio")]

mod support;

use std::io::Cursor;
use std::time::{Duration, Instant};

use supermachine::async_::AsyncImage;
use supermachine::{
    Command, CopyOptions, Error, ErrorKind, ExecState, FileOptions, Image, StreamOffsets,
    VmEventKind,
};
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn baked(name: &str) -> (AsyncImage, std::path::PathBuf) {
    let dir = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    let dir = dir.join(format!("{name}-{}", std::process::id()));
    let builder = Image::builder(busybox())
        .name("image")
        .vm_config(library_config())
        .layer_cache(cache().join("supermachine/images"))
        .snapshots_dir(&dir);
    (AsyncImage::build(builder).await.unwrap(), dir)
}

#[tokio::test]
async fn machines_are_started_used_and_stopped() {
    let (image, dir) = baked("async-vm").await;
    let vm = image.start(&library_config()).await.unwrap();
    vm.write_file("/tmp/x", "text").await.unwrap();
    assert_eq!(vm.read_file("/tmp/x").await.unwrap(), b"text");
    let out = vm
        .run(Command::new(["cat", "/tmp/x"]).timeout(Duration::from_secs(20)))
        .await
        .unwrap();
    assert_eq!(out.stdout, b"text");
    let mut file = FileOptions::default();
    file.max_bytes = 3;
    let short = vm
        .write_file_from("/tmp/y", &b"text"[..], file.clone())
        .await;
    assert!(
        matches!(short, Err(Error::CopyTooLarge { limit: 3, .. })),
        "{short:?}"
    );
    file.max_bytes = 4;
    vm.write_file_with("/tmp/y", "long", file.clone())
        .await
        .unwrap();
    assert_eq!(
        vm.read_file_with("/tmp/y", file.clone()).await.unwrap(),
        b"long"
    );
    let (read, sink) = vm.read_file_to("/tmp/y", Vec::new(), file).await.unwrap();
    assert_eq!((read, &sink[..]), (4, &b"long"[..]));
    let options = CopyOptions::default();
    let packed = vm.copy_out_tar("/tmp/y", Vec::new(), options.clone());
    let (copied, archive) = packed.await.unwrap();
    assert_eq!(copied.entries, 1);
    let unpacked = vm.copy_in_tar(Cursor::new(archive), "/tmp/d", options);
    assert_eq!(unpacked.await.unwrap().entries, 1);
    assert_eq!(vm.read_file("/tmp/d/y").await.unwrap(), b"long");
    let child = &vm.fork(1).await.unwrap()[0];
    assert_eq!(child.exec(["cat", "/tmp/x"]).await.unwrap().stdout, b"text");
    let mut events = vm.events().await.unwrap();
    vm.pause().await.unwrap();
    assert!(vm.is_paused() && vm.stats().await.unwrap().is_paused);
    let paused = vm.exec(["true"]).await.unwrap_err();
    assert!(matches!(paused, Error::Paused), "{paused:?}");
    vm.resume().await.unwrap();
    assert!(vm.exec(["true"]).await.unwrap().success());
    vm.exec(["sh", "-c", "echo seen > /dev/console"])
        .await
        .unwrap();
    // The console's line takes what is written to it after the command has ended.
    let begun = Instant::now();
    while !vm.console_log().await.unwrap().contains("seen") {
        assert!(begun.elapsed() < Duration::from_secs(30));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for expected in [
        VmEventKind::Started,
        VmEventKind::Paused,
        VmEventKind::Resumed,
    ] {
        assert_eq!(events.next_event().await.unwrap().kind, expected);
    }
    // Given up, it takes none.
    let soon = Duration::from_millis(10);
    assert!(
        tokio::time::timeout(soon, events.next_event())
            .await
            .is_err()
    );
    let shared = vm.clone();
    assert!(vm.shutdown(PATIENCE).await.unwrap());
    let last = events.next_event().await.unwrap().kind;
    assert!(
        matches!(last, VmEventKind::Ended { orderly: true, .. }),
        "{last:?}"
    );
    assert_eq!(events.next_event().await, None);
    let ended = shared.exec(["true"]).await.unwrap_err();
    assert_eq!(ended.kind(), ErrorKind::Ended, "{ended:?}");
    shared.stop().await.unwrap();
    let _ = std::fs::remove_dir_all(dir);
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_a_machine_can_be_given_up() {
    let (image, dir) = baked("async-pool").await;
    let pool = image
        .pool(|pool| pool.vm_config(library_config()).max(1).prestart(0))
        .await
        .unwrap();
    let vm = pool.acquire().await.unwrap();
    assert_eq!(vm.exec(["echo", "hi"]).await.unwrap().stdout, b"hi\n");
    for _ in 0..3 {
        let waited = tokio::time::timeout(Duration::from_millis(30), pool.acquire()).await;
        assert!(waited.is_err());
        assert_eq!(pool.stats().waiting, 0);
    }
    let waiting = tokio::spawn({
        let pool = pool.clone();
        async move { pool.acquire().await }
    });
    drop(vm);
    let vm = waiting.await.unwrap().unwrap();
    assert!(vm.copy_report().is_some());
    drop(vm);
    pool.shutdown().await;
    let _ = std::fs::remove_dir_all(dir);
}

/// Longer than anything takes on a host with too much to do.
const LONG: Duration = Duration::from_secs(100);

#[tokio::test]
async fn streams_of_a_command_are_read_and_written_by_tasks() {
    let (image, dir) = baked("async-streams").await;
    let vm = image.start(&library_config()).await.unwrap();
    // More than any buffer on the way holds, in both directions at once, on one thread.
    let command = Command::new(["sh", "-c", "echo begin >&2; cat; echo end >&2"]);
    let mut child = vm.spawn(command).await.unwrap();
    let (mut stdin, mut stdout) = (child.stdin().unwrap(), child.stdout().unwrap());
    let mut stderr = child.stderr().unwrap();
    assert!(child.stdin().is_none() && child.stdout().is_none());
    let sent = noise(3 << 20, 5);
    let (mut received, mut words) = (Vec::new(), String::new());
    let write = async {
        stdin.write_all(&sent).await.unwrap();
        stdin.shutdown().await.unwrap();
    };
    let (_, read, said) = tokio::join!(
        write,
        stdout.read_to_end(&mut received),
        stderr.read_to_string(&mut words)
    );
    assert_eq!((read.unwrap(), said.unwrap()), (sent.len(), 10));
    assert!(received == sent && words == "begin\nend\n");
    assert_eq!(stdout.offset(), sent.len() as u64);
    assert!(child.wait().await.unwrap().success());
    assert!(child.try_wait().unwrap().is_some());
    assert!(stdin.write_all(b"x").await.is_err(), "nobody is there");

    // Nobody reads this one, and it keeps nobody from anything.
    let stuck = vm.spawn(Command::new(["yes"])).await.unwrap();
    let mut child = vm.spawn(Command::new(["sleep", "1000"])).await.unwrap();
    let waited = tokio::time::timeout(Duration::from_millis(50), child.wait()).await;
    assert!(waited.is_err());
    child.signal(15).await.unwrap();
    assert_eq!(child.wait().await.unwrap().signal, Some(15));
    drop(stuck);

    let command = Command::new(["sh", "-c", "read x; echo $x"]).durable(true);
    let child = vm.spawn(command).await.unwrap();
    let id = child.detach().await.unwrap();
    let info = &vm.execs().await.unwrap()[0];
    assert!(info.id == id && matches!(info.state, ExecState::Running { .. }));
    let mut child = vm.attach(id, StreamOffsets::default()).await.unwrap();
    let mut stdin = child.stdin().unwrap();
    stdin.write_all(b"word\n").await.unwrap();
    let mut text = String::new();
    let mut stdout = child.stdout().unwrap();
    stdout.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "word\n");
    assert!(child.wait().await.unwrap().success());
    vm.stop().await.unwrap();
    let _ = std::fs::remove_dir_all(dir);
}

#[tokio::test]
async fn a_command_whose_future_is_dropped_is_killed_and_its_machine_is_free() {
    let (image, dir) = baked("async-cancel").await;
    let pool = image
        .pool(|pool| pool.vm_config(library_config()).max(1).prestart(0))
        .await
        .unwrap();
    let watcher = image.start(&library_config()).await.unwrap();
    // The first is cancelled while it runs, the second before or while it starts.
    for patience in [300, 0] {
        let vm = pool.acquire().await.unwrap();
        let begun = Instant::now();
        let run = vm.run(Command::new(["sh", "-c", "setsid sleep 77 & sleep 77"]));
        let patience = Duration::from_millis(patience);
        assert!(tokio::time::timeout(patience, run).await.is_err());
        drop(vm);
        // Leased again, which takes the machine back from whoever ran the command.
        let again = tokio::time::timeout(LONG, pool.acquire()).await.unwrap();
        drop(again.unwrap());
        assert!(begun.elapsed() < LONG);
        let run = watcher.run(Command::new(["sh", "-c", "setsid sleep 78 & sleep 78"]));
        assert!(tokio::time::timeout(patience, run).await.is_err());
    }
    let count = ["sh", "-c", "ps | grep -v grep | grep -c 'sleep 78'; true"];
    let begun = Instant::now();
    while watcher.exec(count).await.unwrap().stdout != b"0\n" {
        assert!(begun.elapsed() < LONG, "it goes on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    pool.shutdown().await;
    drop(watcher);
    let _ = std::fs::remove_dir_all(dir);
}
