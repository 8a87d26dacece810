//! `run -it`: the machine is a supervisor's, as with `--detach`, and we are at its
//! terminal until it ends or we leave it.

use super::attach::{pass_input_on, say, show};
use super::detached::Attended;
use super::frames::Frame;
use super::keys::{Keys, Watch};
use super::output::{self, Progress, plain};
use super::signals::{Audience, Forwarder};
use super::terminal::{self, RawTerminal};
use crate::Error;
use signal_hook::consts::SIGWINCH;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// Shows the command until it has ended, and returns its status; or until the keys leave
/// it, which is no failure.
pub fn attend(machine: Attended, keys: &Keys, signals: &Forwarder) -> Result<u8, Error> {
    let raw = RawTerminal::enter().map_err(Error::system("set the terminal up"))?;
    let clone = machine.stream.try_clone();
    let to = clone.map_err(Error::system("duplicate a socket"))?;
    let to = Arc::new(Mutex::new(to));
    let progress = Arc::new(Progress::default());
    let audience = Audience::Terminal {
        // It ends with our connection.
        vm: None,
        progress: progress.clone(),
    };
    let pass = {
        let to = to.clone();
        move |signal| {
            let frame = match (signal, terminal::size()) {
                (SIGWINCH, None) => return,
                (SIGWINCH, Some((columns, rows))) => Frame::Size(columns, rows),
                _ => Frame::Signal(u8::try_from(signal).unwrap_or_default()),
            };
            // A broken connection is the reader's news.
            let _ = say(&to, &frame);
        }
    };
    signals.attach(audience, pass)?;
    let has_left = Arc::new(AtomicBool::new(false));
    let (watch, leaves) = (Watch::new(keys), has_left.clone());
    // Ends with the process: a read of standard input cannot be ended.
    std::thread::Builder::new()
        .name("stdin".into())
        .spawn(move || pass_input_on(&to, watch, &leaves))
        .map_err(Error::system("start a thread"))?;
    let shown = show(&machine.stream, &progress);
    signals.settle();
    drop(raw);
    if has_left.load(Ordering::SeqCst) {
        let name = plain(machine.name());
        output::complain(&format!(
            "\nsupermachine: {name} runs on; `supermachine attach {name}` takes it up again\n"
        ));
        return Ok(0);
    }
    machine.settle();
    match shown? {
        Some(end) => Ok(end.told()),
        None => Err(Error::Ended {
            reason: "its supervisor is gone".into(),
        }),
    }
}
