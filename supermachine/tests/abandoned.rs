//! Calls that nobody wants any more: they end, and leave nothing that is half there.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use supermachine::{Command, Error, Vm, running};
use support::shelf::sh;
use support::*;

/// Until something holds that must come to hold.
fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Programs of the guest that have this in their words.
fn programs(vm: &Vm, words: &str) -> String {
    sh(
        vm,
        &format!("ps -o args | grep -v grep | grep -c '{words}'; true"),
    )
}

/// A call that is wanted for as long as it takes to begin.
fn soon() -> impl Fn() -> bool + Send + Sync + 'static {
    let begun = Instant::now();
    move || begun.elapsed() < Duration::from_millis(300)
}

#[test]
fn copies_and_commands_end_when_they_are_not_wanted_any_more() {
    let config = library_config().with_memory_mib(1024);
    let vm = library_image().start(&config).unwrap();
    let dir = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    let dir = dir.join(format!("abandoned-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    // More than anybody waits for.
    sh(&vm, "truncate -s 60G /tmp/large");
    let copied = vm
        .while_wanted(soon())
        .copy_out("/tmp/large", dir.join("large"));
    assert!(matches!(copied, Err(Error::Cancelled)), "{copied:?}");
    until("the guest goes on packing", || {
        programs(&vm, "files pack") == "0"
    });
    let large = std::fs::File::create(dir.join("large")).unwrap();
    large.set_len(60 << 30).unwrap();
    let copied = vm
        .while_wanted(soon())
        .copy_in(dir.join("large"), "/tmp/large");
    assert!(matches!(copied, Err(Error::Cancelled)), "{copied:?}");
    until("the guest goes on unpacking", || {
        programs(&vm, "files unpack") == "0"
    });
    sh(&vm, "rm -f /tmp/large");
    let ran = vm.while_wanted(soon()).run(&Command::new(["sleep", "79"]));
    assert!(matches!(ran, Err(Error::Cancelled)), "{ran:?}");
    until("the command goes on", || programs(&vm, "sleep 79") == "0");
    // Before it is begun, and while it is wanted.
    let never = vm.while_wanted(|| false).write_file("/tmp/never", b"x");
    assert!(matches!(never, Err(Error::Cancelled)), "{never:?}");
    let kept = vm.while_wanted(|| true);
    kept.write_file("/tmp/kept", b"kept").unwrap();
    assert_eq!(kept.read_file("/tmp/kept").unwrap(), b"kept");
    assert!(vm.stat("/tmp/never").is_err());
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn snapshot_that_is_not_wanted_while_it_is_made_is_not_published() {
    let vm = library_image().start(&library_config()).unwrap();
    let dir = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    let dir = dir.join(format!("unpublished-{}", std::process::id()));
    let dest = dir.join("one");
    // Each time it is asked it says yes once more, until it is said to be enough.
    let mut asked = 0;
    loop {
        let left = Arc::new(AtomicUsize::new(asked));
        let wanted = move || {
            let taken = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
            taken.is_ok()
        };
        match vm.while_wanted(wanted).snapshot(&dest) {
            Err(Error::Cancelled) => {
                let opened = supermachine::Image::from_snapshot(&dest);
                assert!(opened.is_err(), "it is there, though it was refused");
                // The machine goes on.
                assert_eq!(sh(&vm, "echo on"), "on");
                asked += 1;
            }
            published => {
                let copy = published.unwrap().start(&library_config()).unwrap();
                assert_eq!(sh(&copy, "echo copy"), "copy");
                break;
            }
        }
    }
    // Before the machine stands still, and before it is published.
    assert!(asked >= 2, "{asked}");
    let left: Vec<_> = std::fs::read_dir(&dest).unwrap().collect();
    std::fs::remove_dir_all(&dir).unwrap();
    assert_eq!(left.len(), 2, "more than one generation: {left:?}");
}

#[cfg(feature = "tokio")]
mod tasks {
    use super::*;
    use std::io::Read;
    use std::sync::mpsc::{Receiver, channel};
    use supermachine::async_::AsyncImage;
    use supermachine::{ExecState, FileOptions};
    use tokio::time::timeout;

    const SOON: Duration = Duration::from_millis(300);

    /// Gives a piece for each that it is told of.
    struct Told(Receiver<()>);

    impl Read for Told {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            match self.0.recv() {
                Ok(()) => {
                    buffer.fill(b'x');
                    Ok(buffer.len())
                }
                Err(_) => Ok(0),
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn file_whose_writer_has_gone_is_not_there() {
        let image = AsyncImage::from(library_image());
        let vm = image.start(&library_config()).await.unwrap();
        let (tell, told) = channel();
        tell.send(()).unwrap();
        let mut options = FileOptions::default();
        options.max_bytes = 100 << 20;
        let writes = vm.write_file_from("/srv/half", Told(told), options);
        assert!(timeout(SOON, writes).await.is_err());
        // The source ends only now, so that what was written looks whole.
        tell.send(()).unwrap();
        drop(tell);
        let quiet = vm.write_file("/srv/after", "x").await;
        quiet.unwrap();
        for _ in 0..20 {
            let names = vm.exec(["ls", "-A", "/srv"]).await.unwrap().stdout;
            assert_eq!(String::from_utf8_lossy(&names), "after\n");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        vm.stop().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_there_too_late_is_let_go_of() {
        let image = AsyncImage::from(library_image());
        let test = format!("abandoned-{}", std::process::id());
        let config = library_config().with_label("test", &test);
        let vm = image.start(&config).await.unwrap();
        let own = || {
            let all = running::list();
            let labels = all.iter().map(|vm| vm.description.labels.get("test"));
            labels.filter(|label| *label == Some(&test)).count()
        };
        let before = own();
        assert!(timeout(Duration::ZERO, vm.fork(3)).await.is_err());
        // Forks of one machine take turns, so that the first is done with by then.
        drop(vm.fork(1).await.unwrap());
        let begun = Instant::now();
        while own() > before {
            assert!(begun.elapsed() < PATIENCE, "children go on");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let command = Command::new(["sleep", "1000"]).durable(true);
        assert!(timeout(Duration::ZERO, vm.spawn(command)).await.is_err());
        let begun = Instant::now();
        loop {
            let execs = vm.execs().await.unwrap();
            if execs
                .iter()
                .any(|info| matches!(info.state, ExecState::Exited(_)))
            {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "{execs:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        vm.stop().await.unwrap();
    }
}
