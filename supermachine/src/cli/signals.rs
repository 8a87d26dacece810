//! What signals to the tool mean: before the command runs they end the tool,
//! which first takes back what it has half done; after that they go to the
//! command.

use super::output::Progress;
use super::{status, terminal};
use crate::exec::Channel;
use crate::limits::cli::{IMPATIENCE, STALL, STALL_PAUSE, STALL_WATCH};
use crate::link::runtime_dir;
use crate::{Error, Vm, host, unfinished};
use oci_bake::Cancel;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};
use signal_hook::iterator::Signals;
use std::collections::VecDeque;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// So many requests to end within [`IMPATIENCE`] end us even if the
/// guest's command does not care.
const MOST_REQUESTS: usize = 3;

/// Who sends us signals, and so what more than one request to end means.
pub enum Audience {
    /// Somebody who waits for the command: the third request to end takes `vm`
    /// down with us, and so does one while nobody reads our output.
    Terminal {
        /// The machine, if it is ours.
        vm: Option<Arc<Vm>>,
        /// How our output does.
        progress: Arc<Progress>,
    },
    /// Other processes of the tool, by whom a machine can be ended as well.
    Tool,
}

/// A running command, as far as signals concern it.
struct Running {
    audience: Audience,
    /// A thread sends, so that a connection that takes nothing cannot keep us
    /// from counting.
    forward: Sender<i32>,
}

/// What there is to end, and so what a signal means.
enum Phase {
    /// Nothing that needs more than the process's end.
    Idle,
    /// Files are being written that the thread doing so must remove.
    Preparing(Cancel),
    /// That thread was told, because of this signal.
    Cancelled(i32),
    /// The command runs.
    Running(Running),
}

/// Handles signals on a thread of its own from the start to the end.
pub struct Forwarder {
    phase: Arc<Mutex<Phase>>,
}

impl Forwarder {
    /// From here on signals are ours, but for those that whoever started us has us
    /// ignore, as nohup does.
    pub fn install() -> Result<Self, Error> {
        let ignored = host::ignored_signals();
        let is_ignored = |signal: &i32| ignored >> (signal - 1) & 1 == 1;
        let terminals = [SIGINT, SIGHUP, SIGQUIT];
        let wanted = terminals.into_iter().filter(|signal| !is_ignored(signal));
        Self::of(wanted)
    }

    /// From here on all signals are ours: of a supervisor, which has left whoever
    /// started it.
    pub fn install_all() -> Result<Self, Error> {
        Self::of([SIGINT, SIGHUP, SIGQUIT])
    }

    fn of(signals: impl IntoIterator<Item = i32>) -> Result<Self, Error> {
        let always = [SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH];
        let mut signals = Signals::new(always.into_iter().chain(signals))
            .map_err(Error::system("set signal handlers up"))?;
        let phase = Arc::new(Mutex::new(Phase::Idle));
        let shared = phase.clone();
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                let mut requests = VecDeque::new();
                for signal in signals.forever() {
                    handle(signal, &shared, &mut requests);
                }
            })
            .map_err(Error::system("start a thread"))?;
        Ok(Self { phase })
    }

    /// Does what leaves files behind if the process just ends. A signal ends
    /// it early, and the process after it; a second one does not wait.
    pub fn prepare<T>(&self, work: impl FnOnce(&Cancel) -> T) -> T {
        let cancel = Cancel::default();
        *self.phase() = Phase::Preparing(cancel.clone());
        let result = work(&cancel);
        let mut phase = self.phase();
        if let Phase::Cancelled(signal) = *phase {
            end_process(signal, None);
        }
        *phase = Phase::Idle;
        result
    }

    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From here on signals go to the command, by `pass`.
    pub fn attach(
        &self,
        audience: Audience,
        pass: impl Fn(i32) + Send + 'static,
    ) -> Result<(), Error> {
        let forward = forwarder(pass)?;
        *self.phase() = Phase::Running(Running { audience, forward });
        Ok(())
    }

    /// Waits for a signal that is ending the process, if one is: what it
    /// breaks on the way is no news.
    pub fn settle(&self) {
        drop(self.phase());
    }
}

/// Passes signals on to a command whose connection is here.
pub fn to_command(channel: Arc<Channel>, tty: bool) -> impl Fn(i32) + Send + 'static {
    move |signal| {
        if signal != SIGWINCH {
            // A broken connection is the reader's news.
            let _ = channel.signal(signal.unsigned_abs());
        } else if let (true, Some((columns, rows))) = (tty, terminal::size()) {
            let _ = channel.resize(columns, rows);
        }
    }
}

fn forwarder(pass: impl Fn(i32) + Send + 'static) -> Result<Sender<i32>, Error> {
    let (forward, signals) = channel::<i32>();
    std::thread::Builder::new()
        .name("forward".into())
        .spawn(move || signals.iter().for_each(pass))
        .map_err(Error::system("start a thread"))?;
    Ok(forward)
}

fn handle(signal: i32, phase: &Arc<Mutex<Phase>>, requests: &mut VecDeque<Instant>) {
    let mut guard = phase.lock().unwrap_or_else(PoisonError::into_inner);
    let command = match &*guard {
        Phase::Running(command) => command,
        _ if signal == SIGWINCH => return,
        Phase::Preparing(cancel) => {
            cancel.cancel();
            *guard = Phase::Cancelled(signal);
            return;
        }
        // Still locked: no command starts any more.
        Phase::Idle | Phase::Cancelled(_) => end_process(signal, None),
    };
    let _ = command.forward.send(signal);
    if !matches!(signal, SIGINT | SIGTERM | SIGHUP | SIGQUIT) {
        return;
    }
    let Audience::Terminal { vm, progress } = &command.audience else {
        return;
    };
    let now = Instant::now();
    requests.retain(|then| now.duration_since(*then) < IMPATIENCE);
    requests.push_back(now);
    if requests.len() >= MOST_REQUESTS {
        end_process(signal, vm.as_deref());
    }
    let (progress, vm, shared) = (progress.clone(), vm.clone(), phase.clone());
    // Without the thread, three signals still end us.
    let _ = std::thread::Builder::new()
        .name("stall".into())
        .spawn(move || {
            while now.elapsed() < STALL_WATCH {
                std::thread::sleep(STALL_PAUSE);
                if progress.stalled_since(now) > STALL {
                    let _settled = shared.lock().unwrap_or_else(PoisonError::into_inner);
                    end_process(signal, vm.as_deref());
                }
            }
        });
}

/// Ends this process as the signal would have, leaving nothing behind. The
/// caller holds the lock that [`Forwarder::settle`] waits for.
fn end_process(signal: i32, vm: Option<&Vm>) -> ! {
    terminal::restore();
    status::erase();
    if let Some(vm) = vm {
        vm.abandon();
    }
    unfinished::remove_all_for_exit();
    runtime_dir::remove_all_for_exit();
    std::process::exit(128 + signal)
}
