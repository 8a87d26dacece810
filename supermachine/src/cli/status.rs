//! What the tool is about to do, for who waits: on a terminal one line that changes
//! and goes, elsewhere a line for each step.

use super::output::{complain, is_terminal, plain};
use super::terminal;
use crate::limits::cli::{STATUS_DELAY, STATUS_PAUSE};
use oci_bake::{Event, Progress};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

/// Whether a line stands on the terminal that is to go.
static DRAWN: AtomicBool = AtomicBool::new(false);
/// Back to the line's start, and nothing behind it.
const ERASE: &str = "\r\x1b[K";

/// Where steps are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Nowhere.
    Silent,
    /// In a line of each.
    Lines,
    /// In one line of the terminal.
    Line,
}

impl Manner {
    /// For a command that people wait for: `lines` says whether those who have no
    /// terminal are told too.
    pub fn of(quiet: bool, lines: bool) -> Self {
        match (quiet, is_terminal(io::stderr()), lines) {
            (true, ..) | (false, false, false) => Self::Silent,
            (false, true, _) => Self::Line,
            (false, false, true) => Self::Lines,
        }
    }
}

/// Tells steps until it is dropped.
#[derive(Debug)]
pub struct Status {
    manner: Manner,
    shared: Arc<Shared>,
    drawer: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    text: Mutex<Text>,
    over: Condvar,
}

#[derive(Debug, Default)]
struct Text {
    line: String,
    is_over: bool,
    layers: usize,
}

impl Status {
    pub fn new(manner: Manner) -> Self {
        let shared = Arc::new(Shared::default());
        let drawer = (manner == Manner::Line).then(|| {
            let shared = shared.clone();
            let thread = std::thread::Builder::new().name("status".into());
            // Without one nothing is told.
            thread.spawn(move || draw(&shared)).ok()
        });
        Self {
            manner,
            shared,
            drawer: drawer.flatten(),
        }
    }

    /// The step that begins.
    pub fn say(&self, step: &str) {
        match self.manner {
            Manner::Silent => {}
            Manner::Lines => complain(&format!("supermachine: {}\n", plain(step))),
            Manner::Line => step.clone_into(&mut self.shared.lock().line),
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Text> {
        self.text.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress for Status {
    fn report(&self, event: &Event<'_>) {
        let layers = {
            let mut text = self.shared.lock();
            if let Event::Resolved { layers } = event {
                text.layers = *layers;
            }
            text.layers
        };
        let of = |layer: &usize| format!("layer {} of {layers}", layer + 1);
        match (event, self.manner) {
            (Event::Resolved { layers }, _) => {
                self.say(&format!("reading an image of {layers} layers"))
            }
            (Event::Baked { layer, .. }, _) => self.say(&format!("{}: converted", of(layer))),
            // For who sees it change.
            (
                Event::Read {
                    layer,
                    bytes,
                    total_bytes,
                },
                Manner::Line,
            ) => {
                let percent = bytes.saturating_mul(100) / (*total_bytes).max(1);
                self.say(&format!("{}: {percent} %", of(layer)));
            }
            _ => {}
        }
    }
}

/// Draws what is done until it is over, but nothing that is over soon.
fn draw(shared: &Shared) {
    let begun = Instant::now();
    let mut pause = STATUS_DELAY;
    let mut text = shared.lock();
    loop {
        let waited = shared
            .over
            .wait_timeout_while(text, pause, |text| !text.is_over);
        text = waited.unwrap_or_else(PoisonError::into_inner).0;
        if text.is_over {
            break;
        }
        pause = STATUS_PAUSE;
        if text.line.is_empty() {
            continue;
        }
        let width = terminal::size().map_or(80, |(columns, _)| usize::from(columns.max(20)));
        let line = format!("{} ({} s)", plain(&text.line), begun.elapsed().as_secs());
        let line: String = line.chars().take(width - 1).collect();
        if write_at_once(&format!("{ERASE}{line}")) {
            DRAWN.store(true, Ordering::SeqCst);
        }
    }
    drop(text);
    erase();
}

/// Takes the line away, if there is one: something else is to be said.
pub fn erase() {
    if DRAWN.swap(false, Ordering::SeqCst) {
        write_at_once(ERASE);
    }
}

/// Writes to a terminal that takes it: one that was stopped holds nobody up.
fn write_at_once(text: &str) -> bool {
    let stderr = io::stderr();
    let none = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let takes = poll(&mut [PollFd::new(&stderr, PollFlags::OUT)], Some(&none));
    matches!(takes, Ok(1)) && stderr.lock().write_all(text.as_bytes()).is_ok()
}

impl Drop for Status {
    fn drop(&mut self) {
        self.shared.lock().is_over = true;
        self.shared.over.notify_all();
        if let Some(drawer) = self.drawer.take() {
            let _ = drawer.join();
        }
    }
}
