//! What the tool is about to do, for who waits: on a terminal a line that changes, with a
//! bar for each layer that is on its way, and all of it goes; elsewhere a line for each
//! step.

use super::bars::{Bars, Layer, takes_text};
use super::output::{complain, is_terminal, plain};
use crate::limits::cli::{STATUS_DELAY, STATUS_PAUSE};
use oci_bake::{Digest, Event, Progress};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

pub use super::bars::erase;

/// Digits of a digest that people tell layers by, as Docker shows them.
const SHORT_DIGITS: usize = 12;

/// Where steps are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Nowhere.
    Silent,
    /// In a line of each.
    Lines,
    /// In one line of the terminal, with bars below it.
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
    /// Those that are on their way.
    coming: BTreeMap<usize, Layer>,
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
        match *event {
            Event::Resolved { layers } => {
                self.say(&format!("reading an image of {layers} layers"));
            }
            Event::Read {
                layer,
                diff_id,
                bytes,
                total_bytes,
            } if self.manner == Manner::Line => {
                let mut text = self.shared.lock();
                if bytes >= total_bytes {
                    // All of it is here, and is converted when its turn comes.
                    text.coming.remove(&layer);
                    return;
                }
                let coming = Layer {
                    name: short(diff_id),
                    bytes,
                    total_bytes,
                };
                text.coming.insert(layer, coming);
            }
            Event::Baked { layer, .. } => self.say(&format!("{}: converted", of(&layer))),
            _ => {}
        }
    }
}

/// What people tell a layer by.
fn short(digest: &Digest) -> String {
    digest.hex().chars().take(SHORT_DIGITS).collect()
}

/// Draws what is done until it is over, but nothing that is over soon.
fn draw(shared: &Shared) {
    let begun = Instant::now();
    let mut pause = STATUS_DELAY;
    let mut bars = None;
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
        if text.line.is_empty() || !takes_text() {
            continue;
        }
        let line = format!("{} ({} s)", plain(&text.line), begun.elapsed().as_secs());
        let coming = text.coming.clone();
        // Whoever tells something does not wait for the terminal.
        drop(text);
        bars.get_or_insert_with(Bars::of_terminal)
            .draw(line, &coming);
        text = shared.lock();
    }
    drop(text);
    if let Some(bars) = bars {
        bars.clear();
    }
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
