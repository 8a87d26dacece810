//! Warming a machine up before it is captured, by a function of another language.
//!
//! The bake runs on a thread that has the machine, and the function on its
//! language's own. What the function wants of the machine is sent to that thread,
//! which does it and goes on when the function has ended.

use std::sync::{Arc, Mutex, PoisonError, mpsc};

use supermachine::{Error, ExecOutcome, OciImageBuilder, Vm, WhileWanted};
use tokio::sync::oneshot;

use crate::{BindingError, ExecOptions, Result};

/// What the thread of the bake is sent.
enum Message {
    /// Do this with the machine.
    Job(Box<dyn FnOnce(&Vm) + Send>),
    /// The function has ended.
    End(std::result::Result<(), String>),
}

/// The machine that is warmed up. It is there until the function has ended.
#[derive(Debug, Clone)]
pub struct WarmupVm(Arc<Mutex<Option<mpsc::Sender<Message>>>>);

/// A function that warms a machine up: it is given that and what to call in the end,
/// and must not wait.
pub type Warmup = Box<dyn Fn(WarmupVm, WarmupEnd) + Send + Sync>;

/// Says that the function has ended. Dropping it says that it failed.
#[derive(Debug)]
pub struct WarmupEnd(Option<mpsc::Sender<Message>>);

impl WarmupEnd {
    /// It has ended well, or with what it says.
    pub fn end(mut self, result: std::result::Result<(), String>) {
        if let Some(sender) = self.0.take() {
            // A bake that is over waits for nothing.
            let _ = sender.send(Message::End(result));
        }
    }
}

impl Drop for WarmupEnd {
    fn drop(&mut self) {
        if let Some(sender) = self.0.take() {
            let lost = "its result was lost".to_owned();
            let _ = sender.send(Message::End(Err(lost)));
        }
    }
}

impl WarmupVm {
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&WhileWanted<'_>) -> std::result::Result<T, Error> + Send + 'static,
    ) -> Result<T> {
        let over = || BindingError::released("machine that was warmed up");
        let sender = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let (reply, answer) = oneshot::channel();
        // Dropped with the call.
        let call = Arc::new(());
        let asked = Arc::downgrade(&call);
        let job = Message::Job(Box::new(move |vm| {
            let done = work(&vm.while_wanted(move || asked.strong_count() > 0));
            // The caller may have gone.
            let _ = reply.send(done);
        }));
        sender.ok_or_else(over)?.send(job).map_err(|_| over())?;
        let done = answer.await;
        drop(call);
        Ok(done.map_err(|_| over())??)
    }

    /// Runs a command and collects its output.
    ///
    /// # Errors
    /// As [`crate::Machine::exec`].
    pub async fn exec(&self, options: ExecOptions) -> Result<ExecOutcome> {
        let command = options.command()?;
        self.with(move |vm| vm.run(&command)).await
    }

    /// Writes a file in the guest.
    ///
    /// # Errors
    /// As [`Vm::write_file`].
    pub async fn write_file(&self, path: String, bytes: Vec<u8>) -> Result<()> {
        self.with(move |vm| vm.write_file(&path, &bytes)).await
    }

    /// Reads a file of the guest.
    ///
    /// # Errors
    /// As [`Vm::read_file`].
    pub async fn read_file(&self, path: String) -> Result<Vec<u8>> {
        self.with(move |vm| vm.read_file(&path)).await
    }
}

/// What a function said that failed, for whoever awaits the bake.
#[derive(Debug, Clone, Default)]
pub(crate) struct Complaint(Arc<Mutex<Option<String>>>);

impl Complaint {
    pub(crate) fn take(&self) -> Option<String> {
        let mut complaint = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        complaint.take()
    }
}

/// Makes the builder run `warmup`, and puts its error into `complaint` if it fails.
pub(crate) fn with_warmup(
    builder: OciImageBuilder,
    warmup: Warmup,
    complaint: Complaint,
) -> OciImageBuilder {
    builder.with_warmup(move |vm| {
        let (sender, messages) = mpsc::channel();
        let proxy = WarmupVm(Arc::new(Mutex::new(Some(sender.clone()))));
        warmup(proxy.clone(), WarmupEnd(Some(sender)));
        let result = std::thread::scope(|scope| {
            loop {
                match messages.recv() {
                    Ok(Message::Job(job)) => drop(scope.spawn(move || job(vm))),
                    Ok(Message::End(result)) => return result,
                    Err(_) => return Err("its result was lost".to_owned()),
                }
            }
        });
        *proxy.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
        result.map_err(|said| {
            *complaint.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(said);
            Error::Cancelled
        })
    })
}
