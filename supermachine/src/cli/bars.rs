//! A bar for each layer that is on its way, below the line that says what is done.

use super::terminal;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

/// What is drawn on the terminal, which is to go before anything else is said there.
static DRAWN: Mutex<Option<MultiProgress>> = Mutex::new(None);
/// Of more layers than this that are on their way the others have no bar.
const MAX_BARS: usize = 8;

/// How far a layer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// A short name.
    pub name: String,
    pub bytes: u64,
    pub total_bytes: u64,
}

/// What is drawn.
pub struct Bars {
    all: MultiProgress,
    line: ProgressBar,
    layers: BTreeMap<usize, ProgressBar>,
}

impl Bars {
    /// Bars on the terminal that standard error is.
    pub fn of_terminal() -> Self {
        let bars = Self::on(Box::new(Terminal::default()));
        *DRAWN.lock().unwrap_or_else(PoisonError::into_inner) = Some(bars.all.clone());
        bars
    }

    fn on(terminal: Box<dyn TermLike>) -> Self {
        let target = ProgressDrawTarget::term_like(terminal);
        let all = MultiProgress::with_draw_target(target);
        let line = ProgressBar::new_spinner().with_style(style("{wide_msg}"));
        Self {
            line: all.add(line),
            all,
            layers: BTreeMap::new(),
        }
    }

    /// Draws the line, and those of the layers that are neither all here nor still to
    /// begin.
    pub fn draw(&mut self, line: String, layers: &BTreeMap<usize, Layer>) {
        self.line.set_message(line);
        self.layers.retain(|at, bar| {
            let stays = layers.contains_key(at);
            if !stays {
                bar.finish_and_clear();
            }
            stays
        });
        for (at, layer) in layers.iter().take(MAX_BARS) {
            let bar = self.layers.entry(*at).or_insert_with(|| {
                let bar = ProgressBar::new(layer.total_bytes);
                let style = style("{prefix} [{bar:24}] {binary_bytes} of {binary_total_bytes}");
                self.all.add(bar.with_style(style.progress_chars("=> ")))
            });
            bar.set_position(layer.bytes);
            // This is drawn whatever was drawn just before, which a position is not.
            bar.set_prefix(layer.name.clone());
        }
    }

    /// Takes all of it away.
    pub fn clear(self) {
        // There is no one to tell.
        let _ = self.all.clear();
        DRAWN.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

fn style(template: &'static str) -> ProgressStyle {
    // The templates are those of this file.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Takes away what is on the terminal, if there is something: something else is to be
/// said.
pub fn erase() {
    let drawn = DRAWN.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(drawn) = drawn.filter(|_| takes_text()) {
        let _ = drawn.clear();
    }
}

/// Whether the terminal takes text: one that was stopped holds nobody up.
pub fn takes_text() -> bool {
    let stderr = io::stderr();
    let none = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let takes = poll(&mut [PollFd::new(&stderr, PollFlags::OUT)], Some(&none));
    matches!(takes, Ok(1))
}

/// Standard error, written to at once or not at all.
#[derive(Debug, Default)]
struct Terminal(Mutex<String>);

impl Terminal {
    fn push(&self, text: &str) -> io::Result<()> {
        let mut pending = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pending.push_str(text);
        Ok(())
    }

    /// A control sequence with a count (ECMA-48 §8.3), if there is anything to count.
    fn control(&self, count: usize, what: char) -> io::Result<()> {
        match count {
            0 => Ok(()),
            count => self.push(&format!("\x1b[{count}{what}")),
        }
    }
}

impl TermLike for Terminal {
    fn width(&self) -> u16 {
        terminal::size().map_or(80, |(columns, _)| columns.max(20))
    }

    fn height(&self) -> u16 {
        terminal::size().map_or(24, |(_, rows)| rows.max(2))
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.control(n, 'A')
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.control(n, 'B')
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.control(n, 'C')
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.control(n, 'D')
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.push(text)?;
        self.push("\n")
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.push(text)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.push("\r\x1b[2K")
    }

    fn flush(&self) -> io::Result<()> {
        let mut pending = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = std::mem::take(&mut *pending);
        io::stderr().lock().write_all(text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    const COLUMNS: usize = 80;

    /// What a terminal shows, line by line, and where its cursor is: behind the last
    /// column too, from where the next character begins a line.
    #[derive(Debug, Default, Clone)]
    struct Screen(Arc<Mutex<(Vec<String>, usize, usize)>>);

    impl Screen {
        fn shown(&self) -> Vec<String> {
            let screen = self.0.lock().unwrap();
            let lines = screen.0.iter().map(|line| line.trim_end().to_owned());
            lines.filter(|line| !line.is_empty()).collect()
        }

        fn moved(&self, rows: isize, columns: isize) -> io::Result<()> {
            let mut screen = self.0.lock().unwrap();
            screen.1 = screen.1.saturating_add_signed(rows);
            screen.2 = screen.2.saturating_add_signed(columns);
            Ok(())
        }
    }

    impl TermLike for Screen {
        fn width(&self) -> u16 {
            u16::try_from(COLUMNS).unwrap()
        }

        fn move_cursor_up(&self, n: usize) -> io::Result<()> {
            self.moved(-isize::try_from(n).unwrap(), 0)
        }

        fn move_cursor_down(&self, n: usize) -> io::Result<()> {
            self.moved(isize::try_from(n).unwrap(), 0)
        }

        fn move_cursor_right(&self, n: usize) -> io::Result<()> {
            self.moved(0, isize::try_from(n).unwrap())
        }

        fn move_cursor_left(&self, n: usize) -> io::Result<()> {
            self.moved(0, -isize::try_from(n).unwrap())
        }

        fn write_line(&self, text: &str) -> io::Result<()> {
            self.write_str(text)?;
            let mut screen = self.0.lock().unwrap();
            screen.1 += 1;
            screen.2 = 0;
            Ok(())
        }

        fn write_str(&self, text: &str) -> io::Result<()> {
            let screen = &mut *self.0.lock().unwrap();
            for char in text.chars() {
                if screen.2 == COLUMNS {
                    (screen.1, screen.2) = (screen.1 + 1, 0);
                }
                while screen.0.len() <= screen.1 {
                    screen.0.push(" ".repeat(COLUMNS));
                }
                let line = screen.0[screen.1].chars().enumerate();
                let line = line.map(|(at, old)| if at == screen.2 { char } else { old });
                screen.0[screen.1] = line.collect();
                screen.2 += 1;
            }
            Ok(())
        }

        fn clear_line(&self) -> io::Result<()> {
            let mut screen = self.0.lock().unwrap();
            let row = screen.1;
            if let Some(line) = screen.0.get_mut(row) {
                *line = " ".repeat(COLUMNS);
            }
            screen.2 = 0;
            Ok(())
        }

        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    fn layer(name: &str, bytes: u64) -> Layer {
        Layer {
            name: name.to_owned(),
            bytes,
            total_bytes: 4 << 20,
        }
    }

    #[test]
    fn each_layer_on_its_way_has_a_bar_and_none_is_left() {
        let screen = Screen::default();
        let mut bars = Bars::on(Box::new(screen.clone()));
        let mut layers = BTreeMap::from([(0, layer("aaaa", 0)), (2, layer("cccc", 3 << 20))]);
        bars.draw("reading".to_owned(), &layers);
        let shown = screen.shown();
        assert_eq!(shown.len(), 3, "{shown:?}");
        assert_eq!(shown[0], "reading");
        assert!(shown[1].starts_with("aaaa [") && shown[1].ends_with("0 B of 4.00 MiB"));
        assert!(shown[2].starts_with("cccc [======") && shown[2].ends_with("3.00 MiB of 4.00 MiB"));

        // One is done, another begins.
        layers.remove(&0);
        layers.insert(1, layer("bbbb", 1 << 20));
        bars.draw("still reading".to_owned(), &layers);
        let shown = screen.shown();
        assert_eq!(shown.len(), 3, "{shown:?}");
        assert_eq!(shown[0], "still reading");
        assert!(!shown.concat().contains("aaaa") && shown.concat().contains("bbbb"));
        bars.clear();
        assert_eq!(screen.shown(), [""; 0]);
    }

    #[test]
    fn an_image_of_many_layers_does_not_fill_the_screen() {
        let screen = Screen::default();
        let mut bars = Bars::on(Box::new(screen.clone()));
        let layers = (0..100).map(|at| (at, layer("x", 1))).collect();
        bars.draw("reading".to_owned(), &layers);
        assert_eq!(screen.shown().len(), 1 + MAX_BARS);
    }
}
