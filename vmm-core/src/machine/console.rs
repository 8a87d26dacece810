use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes of console output that are kept.
pub const CONSOLE_TAIL_BYTES: usize = 16 * 1024;

/// What the kernel prints when it gives up.
const PANIC: &[u8] = b"Kernel panic - not syncing";

/// The end of what the guest wrote to its console. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct ConsoleTail {
    bytes: Arc<Mutex<VecDeque<u8>>>,
}

impl ConsoleTail {
    /// The last bytes, at most [`CONSOLE_TAIL_BYTES`].
    pub fn bytes(&self) -> Vec<u8> {
        self.lock().iter().copied().collect()
    }

    /// The same as text, with what is not UTF-8 replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }

    pub(super) fn shows_panic(&self) -> bool {
        let bytes = self.bytes();
        bytes.windows(PANIC.len()).any(|window| window == PANIC)
    }

    fn push(&self, data: &[u8]) {
        let mut bytes = self.lock();
        let data = &data[data.len().saturating_sub(CONSOLE_TAIL_BYTES)..];
        let excess = (bytes.len() + data.len()).saturating_sub(CONSOLE_TAIL_BYTES);
        bytes.drain(..excess);
        bytes.extend(data);
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<u8>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The console's output: the tail, and whoever else listens.
pub(super) struct ConsoleSink {
    pub(super) tail: ConsoleTail,
    pub(super) listener: Option<Box<dyn Write + Send>>,
}

impl Write for ConsoleSink {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.tail.push(data);
        // That a listener went away does not concern the guest.
        if let Some(listener) = &mut self.listener
            && listener.write_all(data).is_err()
        {
            self.listener = None;
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Some(listener) = &mut self.listener
            && listener.flush().is_err()
        {
            self.listener = None;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sink(listener: Option<Box<dyn Write + Send>>) -> (ConsoleTail, ConsoleSink) {
        let tail = ConsoleTail::default();
        let sink = ConsoleSink {
            tail: tail.clone(),
            listener,
        };
        (tail, sink)
    }

    #[test]
    fn only_the_end_is_kept() {
        let (tail, mut sink) = sink(None);
        for n in 0..4096 {
            writeln!(sink, "line {n}").unwrap();
        }
        assert_eq!(tail.bytes().len(), CONSOLE_TAIL_BYTES);
        assert!(tail.text().ends_with("line 4095\n"));
        sink.write_all(&[b'x'; 3 * CONSOLE_TAIL_BYTES]).unwrap();
        assert_eq!(tail.bytes(), [b'x'; CONSOLE_TAIL_BYTES]);
    }

    #[test]
    fn a_listener_that_went_away_does_not_stop_the_console() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (tail, mut sink) = sink(Some(Box::new(Closed)));
        sink.write_all(b"one").unwrap();
        sink.write_all(b"two").unwrap();
        sink.flush().unwrap();
        assert_eq!(tail.text(), "onetwo");
    }

    #[test]
    fn a_panic_shows_even_when_split_over_writes() {
        let (tail, mut sink) = sink(None);
        sink.write_all(b"[ 1.0] Kernel panic - not").unwrap();
        assert!(!tail.shows_panic());
        sink.write_all(b" syncing: VFS").unwrap();
        assert!(tail.shows_panic());
    }
}
