//! How far a pull is, on standard error.

use super::output::complain;
use indicatif::{HumanBytes, MultiProgress, ProgressBar, ProgressStyle};
use oci_bake::{Event, Progress};
use std::collections::BTreeMap;
use std::io::{IsTerminal, stderr};
use std::sync::{Mutex, PoisonError};

/// Bars for layers on a terminal, a line for each elsewhere.
#[derive(Debug, Default)]
pub struct Shown(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    layers: usize,
    /// Bytes read of layers, and their bars on a terminal.
    running: BTreeMap<usize, (u64, Option<ProgressBar>)>,
    bars: Option<MultiProgress>,
}

impl Progress for Shown {
    fn report(&self, event: &Event<'_>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match *event {
            Event::Resolved { layers } => {
                state.layers = layers;
                state.bars = stderr().is_terminal().then(MultiProgress::new);
            }
            Event::Read {
                layer,
                bytes,
                total_bytes,
            } => state.read(layer, bytes, total_bytes),
            Event::Baked { layer, .. } => state.done(layer),
            // What is here already is no news.
            _ => {}
        }
    }
}

impl State {
    fn read(&mut self, layer: usize, bytes: u64, total_bytes: u64) {
        let title = self.title(layer);
        let bars = self.bars.as_ref();
        let entry = self.running.entry(layer).or_insert_with(|| {
            let bar = bars.map(|bars| {
                let bar = bars.add(ProgressBar::new(total_bytes));
                let style = ProgressStyle::with_template(
                    "{msg} [{bar:30}] {bytes} of {total_bytes}, {bytes_per_sec}",
                );
                if let Ok(style) = style {
                    bar.set_style(style.progress_chars("=> "));
                }
                bar.with_message(title)
            });
            (0, bar)
        });
        entry.0 = bytes;
        if let Some(bar) = &entry.1 {
            bar.set_position(bytes);
        }
    }

    fn done(&mut self, layer: usize) {
        let title = self.title(layer);
        match self.running.remove(&layer) {
            Some((_, Some(bar))) => bar.finish(),
            Some((bytes, None)) => {
                complain(&format!("{title}: {} pulled\n", HumanBytes(bytes)));
            }
            None => {}
        }
    }

    fn title(&self, layer: usize) -> String {
        format!("layer {} of {}", layer + 1, self.layers)
    }
}
