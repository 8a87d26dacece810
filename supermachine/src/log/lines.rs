//! Events as lines.

use super::filter::Filter;
use exec_proto::Printable;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::io;
use std::os::fd::AsFd;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;

/// How long whoever reads the lines may keep a machine waiting for one.
const PATIENCE: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};

/// Writes what passes `filter` to standard error.
pub fn begin(filter: &Filter) {
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .log_internal_errors(false)
        .with_writer(|| StandardError)
        .with_filter(filter.iter().cloned().collect::<Targets>());
    // A program that is its own worker may have a listener already, which stays.
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(lines));
}

/// Standard error without a lock, which a process that forks could leave locked in
/// its child, and without errors: who cannot be told is not.
struct StandardError;

impl io::Write for StandardError {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let tame = tame(line);
        let mut rest = tame.as_bytes();
        let stderr = io::stderr();
        while !rest.is_empty() {
            match rustix::io::write(&stderr, rest) {
                Ok(count) if count > 0 => rest = &rest[count..],
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    let mut fds = [PollFd::from_borrowed_fd(stderr.as_fd(), PollFlags::OUT)];
                    if matches!(poll(&mut fds, Some(&PATIENCE)), Ok(0)) {
                        break;
                    }
                }
                Ok(_) | Err(_) => break,
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A line with everything escaped that could drive a terminal, whoever forgot that
/// it is the guest's.
fn tame(line: &[u8]) -> String {
    Printable::lines(&String::from_utf8_lossy(line)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    #[test]
    fn text_of_a_guest_stays_in_its_line_and_drives_no_terminal() {
        #[derive(Clone, Default)]
        struct Lines(Arc<Mutex<String>>);
        impl Write for Lines {
            fn write(&mut self, line: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().push_str(&tame(line));
                Ok(line.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        let foreign = "a\x1b[2J\u{9b}31m\u{202e}\nb";
        tracing::subscriber::with_default(subscriber, || {
            let _span = tracing::error_span!("machine", name = foreign).entered();
            tracing::info!(text = foreign, shown = %foreign, "event");
        });
        let text = lines.0.lock().unwrap().clone();
        assert!(
            text.contains("machine{name=") && text.contains("event"),
            "{text:?}"
        );
        assert!(
            text.chars().all(|c| c == '\n' || Printable::is_harmless(c)),
            "{text:?}"
        );
    }
}
