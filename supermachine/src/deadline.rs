//! When a wait is over: one moment for all of it, fixed when it begins, however
//! much or little the other side sends meanwhile.

use crate::Error;
use crate::limits::{LONGEST_POLL, PASSING_PAUSE};
use crate::link::passing;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{self, Read, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// The end of a wait, or none.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    begun: Instant,
    limit: Option<Duration>,
}

impl Deadline {
    /// So long from now.
    pub fn within(limit: Duration) -> Self {
        Self {
            begun: Instant::now(),
            limit: Some(limit),
        }
    }

    /// The wait has no end of its own.
    pub fn none() -> Self {
        Self {
            begun: Instant::now(),
            limit: None,
        }
    }

    /// What is left; `None` without an end.
    pub fn left(&self) -> Option<Duration> {
        let limit = self.limit?;
        Some(limit.saturating_sub(self.begun.elapsed()))
    }

    /// What is left, but not more than `most`.
    pub fn left_of(&self, most: Duration) -> Duration {
        self.left().map_or(most, |left| left.min(most))
    }

    /// Whether the wait is over.
    pub fn has_passed(&self) -> bool {
        self.left().is_some_and(|left| left.is_zero())
    }

    /// This one, or so long from now if that comes first.
    pub fn at_most(self, limit: Duration) -> Self {
        if self.left().is_some_and(|left| left <= limit) {
            return self;
        }
        Self::within(limit)
    }

    /// This one, so much later.
    pub fn later_by(self, time: Duration) -> Self {
        // Added to the limit, because not every system can subtract from its
        // first moments.
        Self {
            limit: self.limit.map(|limit| limit.saturating_add(time)),
            ..self
        }
    }

    /// The time it gave from its start; zero without an end.
    pub fn limit(&self) -> Duration {
        self.limit.unwrap_or_default()
    }

    /// The error of a wait for `what` that is over.
    pub fn error(&self, what: &'static str) -> Error {
        Error::Timeout {
            what,
            after: self.limit(),
        }
    }

    /// Waits until one of `fds` has what it is asked for; `false` once the wait
    /// is over.
    pub fn wait(&self, fds: &mut [PollFd<'_>]) -> io::Result<bool> {
        loop {
            let left = self.left_of(LONGEST_POLL);
            let wait = Timespec::try_from(left).unwrap_or(Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            });
            match poll(fds, Some(&wait)) {
                Ok(0) if self.has_passed() => return Ok(false),
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return Ok(true),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits for `what` on one stream. [`io::ErrorKind::TimedOut`] once the
    /// wait is over.
    pub fn wait_for(&self, stream: &UnixStream, what: PollFlags) -> io::Result<()> {
        if self.wait(&mut [PollFd::new(stream, what)])? {
            Ok(())
        } else {
            Err(io::ErrorKind::TimedOut.into())
        }
    }
}

/// A stream that does not block, read and written by one deadline.
#[derive(Debug)]
pub struct Timed<'a> {
    stream: &'a UnixStream,
    deadline: Deadline,
}

impl<'a> Timed<'a> {
    /// `stream` must not block.
    pub fn new(stream: &'a UnixStream, deadline: Deadline) -> Self {
        Self { stream, deadline }
    }

    /// Repeats `attempt` until it works or the time is up. The clock is looked
    /// at each time: who always has another byte gets no further than others.
    fn until<T>(
        &self,
        readiness: PollFlags,
        mut attempt: impl FnMut() -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            if self.deadline.has_passed() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            match attempt() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.deadline.wait_for(self.stream, readiness)?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}

impl Timed<'_> {
    /// Passes open files on.
    pub fn pass(&self, files: &[BorrowedFd<'_>]) -> io::Result<()> {
        for some in files.chunks(passing::AT_ONCE) {
            self.until(PollFlags::OUT, || match passing::pass(self.stream, some) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                    std::thread::sleep(PASSING_PAUSE);
                    Err(io::ErrorKind::Interrupted.into())
                }
                passed => passed,
            })?;
        }
        Ok(())
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut stream = self.stream;
        self.until(PollFlags::IN, || stream.read(buffer))
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut stream = self.stream;
        self.until(PollFlags::OUT, || stream.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Far longer than the limits here, far shorter than a hang.
    const SOON: Duration = Duration::from_secs(20);

    fn pair() -> (UnixStream, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (ours, theirs)
    }

    #[test]
    fn a_peer_that_drips_gets_no_more_time_than_a_silent_one() {
        let (ours, mut theirs) = pair();
        let dripper = std::thread::spawn(move || {
            while theirs.write_all(b".").is_ok() {
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let begun = Instant::now();
        let deadline = Deadline::within(Duration::from_millis(200));
        let mut all = vec![0; 1 << 20];
        let error = Timed::new(&ours, deadline)
            .read_exact(&mut all)
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() < SOON);
        drop(ours);
        dripper.join().unwrap();
    }

    #[test]
    fn a_peer_that_takes_little_by_little_gets_no_more_time() {
        let (ours, mut theirs) = pair();
        let sipper = std::thread::spawn(move || {
            let mut some = [0; 4096];
            while matches!(theirs.read(&mut some), Ok(1..)) {
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let deadline = Deadline::within(Duration::from_millis(200));
        let error = Timed::new(&ours, deadline)
            .write_all(&vec![0; 16 << 20])
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(ours);
        sipper.join().unwrap();
    }

    #[test]
    fn the_earlier_of_two_ends_counts_and_none_is_no_end() {
        let hour = Duration::from_secs(3600);
        assert!(Deadline::none().left().is_none());
        assert!(!Deadline::none().has_passed());
        assert!(Deadline::within(Duration::ZERO).has_passed());
        assert!(Deadline::none().at_most(Duration::ZERO).has_passed());
        assert!(Deadline::within(Duration::ZERO).at_most(hour).has_passed());
        assert!(Deadline::within(hour).at_most(Duration::ZERO).has_passed());
        let longest = Deadline::within(Duration::MAX);
        assert!(!longest.later_by(Duration::MAX).has_passed());
        assert_eq!(longest.left_of(hour), hour);
    }
}
