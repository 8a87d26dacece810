//! A copy that does not come up: was it the snapshot's files?
//!
//! Memory and layers are too large to be compared with their checksums each
//! time. They are once a copy is late or fails, so that damage is told as what
//! it is, soon, and the image can be baked again.

use crate::Error;
use crate::embedder::process::Process;
use crate::error::Cause;
use crate::limits::{LATE_COPY, REMOVAL_LOCK_TIMEOUT};
use crate::template::Template;
use snapshot::SnapshotError;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel};
use std::thread::{Builder, JoinHandle};
use tracing::warn;

/// What looking at the files gave.
type Verdict = Option<Result<(), SnapshotError>>;

/// Has `make` make a machine of `template` in a worker. Should that take long or
/// fail because files are damaged, [`Error::Damaged`] says so.
pub fn doubting<T>(
    template: &Arc<Template>,
    worker: &Arc<Process>,
    make: impl FnOnce() -> Result<T, Error>,
) -> Result<T, Error> {
    let (done, until) = channel();
    // Without a thread files are looked at in the end.
    let watch = watch(template.clone(), worker.clone(), until).ok();
    let made = make();
    drop(done);
    let seen = || watch.and_then(|watch| watch.join().ok().flatten());
    blame(template, made, seen)
}

/// Tells damage of the files of `template` as what it is, if it is why nothing
/// was `made` of them.
pub fn blame<T>(
    template: &Template,
    made: Result<T, Error>,
    seen: impl FnOnce() -> Verdict,
) -> Result<T, Error> {
    match made {
        Ok(made) => Ok(made),
        // It was not made of these files at all.
        Err(error @ Error::Rebake { .. }) => Err(error),
        Err(error) => match seen().unwrap_or_else(|| template.snapshot().verify()) {
            Err(damage) if damage.wants_rebake() => Err(template.give_up(damage)),
            _ => Err(error),
        },
    }
}

/// Looks at the files once a copy is late, and ends its worker if they are
/// damaged: nothing good can come of it.
fn watch(
    template: Arc<Template>,
    worker: Arc<Process>,
    until: Receiver<()>,
) -> std::io::Result<JoinHandle<Verdict>> {
    let look = move || {
        if !matches!(
            until.recv_timeout(LATE_COPY),
            Err(RecvTimeoutError::Timeout)
        ) {
            return None;
        }
        let verdict = template.snapshot().verify();
        let is_damaged = matches!(&verdict, Err(damage) if damage.wants_rebake());
        // It may have come up meanwhile, late for another reason.
        if is_damaged && matches!(until.try_recv(), Err(TryRecvError::Empty)) {
            worker.kill();
        }
        Some(verdict)
    };
    Builder::new().name("doubt".into()).spawn(look)
}

impl Template {
    /// The error for a snapshot that turned out to be damaged. One that can be
    /// baked again is found by nobody any more.
    fn give_up(&self, source: SnapshotError) -> Error {
        if let (Some((store, image)), Some(number)) = (self.cached(), self.snapshot().number())
            && let Ok(lock) = store.lock(image, REMOVAL_LOCK_TIMEOUT)
        {
            // If that fails, the next copy has the same to say.
            let _ = lock.retire(number);
        }
        warn!(snapshot = %self.path().display(), error = %source, "snapshot is damaged");
        Error::Damaged {
            path: self.path().to_path_buf(),
            source: Cause::of_snapshot(source),
        }
    }
}
