//! Tests of the cache's files.

use std::io::Read;

use super::*;
use crate::decompress::Format;
use crate::digest::Algorithm;
use crate::spool::Spools;

fn scratch(name: &str) -> (PathBuf, Store, Cancel) {
    let process = std::process::id();
    let dir = std::env::temp_dir().join(format!("oci-bake-store-{process}-{name}"));
    let cancel = Cancel::default();
    let store = Store::open(&dir).unwrap().cancelled_by(&cancel);
    (dir, store, cancel)
}

#[test]
fn a_layer_cancelled_while_it_is_written_leaves_nothing() {
    let (dir, store, cancel) = scratch("publish");
    let files = || fs::read_dir(dir.join("layers")).unwrap().count();
    let result = store.publish("x", false, |out| {
        out.write_all(&[1; 3 << 20])?;
        assert_eq!(files(), 1);
        cancel.cancel();
        out.write_all(&[1; 3 << 20])?;
        panic!("went on after it was cancelled");
    });
    assert!(matches!(result, Err(LayerError::Io(_))));
    assert_eq!(files(), 0);
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn what_the_dead_left_goes_at_once_and_what_is_written_stays() {
    let (dir, store, _) = scratch("sweep");
    let dead = dir.join("layers/.x.1-2-3.tmp");
    fs::write(&dead, "x").unwrap();
    let files = || fs::read_dir(dir.join("layers")).unwrap().count();
    let result = store.publish("x", false, |_| {
        assert_eq!(files(), 2);
        Store::open(&dir).unwrap();
        assert_eq!(files(), 1);
        Err(io::Error::other("enough").into())
    });
    assert!(result.is_err() && !dead.exists());

    // Also what was made a moment ago, while somebody sweeps all the time.
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                Store::open(&dir).unwrap();
            }
        });
        for _ in 0..300 {
            let (file, path) = store.temporary("x").unwrap();
            assert!(path.exists());
            store.spool().unwrap();
            drop(file);
            let _ = fs::remove_file(path);
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(files(), 0);
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn decompressing_ends_when_cancelled() {
    let (dir, store, cancel) = scratch("spool");
    struct Endless<'a>(u32, &'a Cancel);
    impl Read for Endless<'_> {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            self.0 += 1;
            assert!(self.0 < 100, "went on after it was cancelled");
            if self.0 == 10 {
                self.1.cancel();
            }
            buf.fill(0);
            Ok(buf.len())
        }
    }
    let result = Spools::default().add(
        &store,
        Endless(0, &cancel),
        (Format::Plain, &crate::decompress::Windows::default()),
        (0, &crate::limits::Limits::default()),
        Algorithm::Sha256,
    );
    assert!(matches!(result, Err(LayerError::Io(_))));
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn waiting_for_another_baker_ends_when_cancelled() {
    let (dir, store, cancel) = scratch("lock");
    let held = store.lock("x").unwrap();
    assert!(held.is_some());
    cancel.cancel();
    assert!(store.lock("x").is_err());
    fs::remove_dir_all(dir).unwrap();
}
