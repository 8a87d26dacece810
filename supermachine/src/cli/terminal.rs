//! The user's terminal: raw while a command has it, and restored whatever
//! happens.

#[cfg(feature = "pull")]
use rustix::termios::LocalModes;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Whether a command had the terminal, so that the cursor may be anywhere.
static WAS_RAW: AtomicBool = AtomicBool::new(false);

/// What the terminal was like before; also read by the panic hook.
static SAVED: Mutex<Option<Termios>> = Mutex::new(None);

/// Standard input as a raw terminal, until dropped.
pub struct RawTerminal(());

impl RawTerminal {
    /// Makes standard input raw, if it is a terminal.
    pub fn enter() -> io::Result<Option<Self>> {
        let stdin = io::stdin();
        if !isatty(&stdin) {
            return Ok(None);
        }
        let before = tcgetattr(&stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        WAS_RAW.store(true, Ordering::Relaxed);
        *SAVED.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            restore();
            previous(info);
        }));
        tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        Ok(Some(Self(())))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        restore();
    }
}

/// Standard input as a terminal that does not show what is typed, until dropped.
#[cfg(feature = "pull")]
pub struct HiddenInput(());

#[cfg(feature = "pull")]
impl HiddenInput {
    /// Hides what is typed, if standard input is a terminal.
    pub fn enter() -> io::Result<Option<Self>> {
        let stdin = io::stdin();
        if !isatty(&stdin) {
            return Ok(None);
        }
        let before = tcgetattr(&stdin)?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        *SAVED.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        tcsetattr(&stdin, OptionalActions::Flush, &hidden)?;
        Ok(Some(Self(())))
    }
}

#[cfg(feature = "pull")]
impl Drop for HiddenInput {
    fn drop(&mut self) {
        restore();
    }
}

/// Whether a command of this process has had the terminal.
pub fn was_raw() -> bool {
    WAS_RAW.load(Ordering::Relaxed)
}

/// Puts the terminal back, if it was changed.
pub fn restore() {
    let saved = SAVED.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(termios) = saved {
        // Without waiting for output to drain: nobody may be reading it.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &termios);
    }
}

/// Columns and rows of the terminal on standard output or input.
pub fn size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(io::stdout())
        .or_else(|_| tcgetwinsize(io::stdin()))
        .ok()?;
    Some((size.ws_col, size.ws_row))
}
