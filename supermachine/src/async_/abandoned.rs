//! What becomes of calls whose futures are dropped.

use crate::exec::tasks::{AsyncExecChild, blocking};
use crate::{Error, ExecChild, PooledVm, Vm, WhileWanted};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What has a machine in it.
pub trait AsVm: Send + Sync + 'static {
    fn as_vm(&self) -> &Vm;
}

impl AsVm for Vm {
    fn as_vm(&self) -> &Vm {
        self
    }
}

impl AsVm for PooledVm {
    fn as_vm(&self) -> &Vm {
        self
    }
}

/// Set when the future that has it is dropped.
#[derive(Default)]
struct Abandoned(Arc<AtomicBool>);

impl Drop for Abandoned {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Does what blocks on a thread of tokio for that, with a machine that gives up when the
/// future is dropped.
pub async fn while_wanted<V: AsVm, T: Send + 'static>(
    vm: &Arc<V>,
    work: impl FnOnce(&WhileWanted<'_>) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let vm = vm.clone();
    let abandoned = Abandoned::default();
    let seen = abandoned.0.clone();
    let is_wanted = move || !seen.load(Ordering::Acquire);
    blocking(move || work(&vm.as_vm().while_wanted(is_wanted))).await
}

/// A command that was started for somebody who may have gone. Dropped, it is killed, also
/// if it is durable.
pub struct Unclaimed(Option<ExecChild>);

impl Unclaimed {
    pub fn new(child: ExecChild) -> Self {
        Self(Some(child))
    }

    /// The command, for who asked for it.
    pub fn claim(mut self) -> Result<AsyncExecChild, Error> {
        self.0
            .take()
            .map(AsyncExecChild::new)
            .ok_or(Error::Cancelled)
    }
}

impl Drop for Unclaimed {
    fn drop(&mut self) {
        // Others end with their connection.
        if let Some(child) = self.0.take().filter(|child| child.id().is_some()) {
            // A machine that takes no signal any more has no command either.
            let _ = child.kill();
        }
    }
}
