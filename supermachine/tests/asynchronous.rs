//! The types for tokio, over real machines.
#![cfg(feature = "tokio")]

mod support;

use std::time::Duration;

use supermachine::async_::AsyncImage;
use supermachine::{Command, Error, ErrorKind, Image, VmEventKind};
use support::*;

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
    assert!(vm.console_log().await.unwrap().contains("seen"));
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
