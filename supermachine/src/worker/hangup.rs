//! Orders that take long are carried out only while somebody waits for them.

use rustix::event::{PollFd, PollFlags, poll};
use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::Builder;

/// Carries out an order of whoever is at the other end of `control`. Should
/// they be gone before it is done, the process ends at once and `runtime_dir`
/// with it: until then the worker does not listen, and would outlive them.
pub fn while_wanted<T, E: From<io::Error>>(
    control: &UnixStream,
    runtime_dir: &Path,
    order: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    let (done, until) = UnixStream::pair()?;
    std::thread::scope(|scope| {
        Builder::new()
            .name("wanted".into())
            .spawn_scoped(scope, move || {
                if is_closed_before(control, &until) {
                    let _ = std::fs::remove_dir_all(runtime_dir);
                    std::process::exit(1);
                }
            })?;
        let outcome = order();
        drop(done);
        outcome
    })
}

/// Waits until the other end of one of the two is closed; whether it is that of
/// the first. Nothing is read from it.
fn is_closed_before(first: &UnixStream, second: &UnixStream) -> bool {
    let mut fds = [
        PollFd::new(first, PollFlags::empty()),
        PollFd::new(second, PollFlags::empty()),
    ];
    while matches!(poll(&mut fds, None), Ok(0) | Err(rustix::io::Errno::INTR)) {}
    fds[1].revents().is_empty() && !fds[0].revents().is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::time::Duration;

    #[test]
    fn who_hangs_up_first_is_told_apart_whatever_is_there_to_read() {
        for is_first in [true, false] {
            let (mut near, control) = UnixStream::pair().unwrap();
            let (done, until) = UnixStream::pair().unwrap();
            near.write_all(b"unread").unwrap();
            let watcher = std::thread::spawn(move || is_closed_before(&control, &until));
            std::thread::sleep(Duration::from_millis(20));
            assert!(!watcher.is_finished());
            let kept: Box<dyn Send> = if is_first {
                drop(near);
                Box::new(done)
            } else {
                drop(done);
                Box::new(near)
            };
            assert_eq!(watcher.join().unwrap(), is_first);
            drop(kept);
        }
    }

    #[test]
    fn what_was_ordered_is_answered_and_the_next_order_can_be_read() {
        let (_near, control) = UnixStream::pair().unwrap();
        for number in 0..3 {
            let answer = while_wanted(&control, Path::new("/nowhere"), || {
                Ok::<_, io::Error>(number)
            });
            assert_eq!(answer.unwrap(), number);
        }
    }
}
