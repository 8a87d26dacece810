//! What happens to a machine, for whoever wants to know.

mod workload;

use crate::Error;
use crate::deadline::{Deadline, Timed};
use crate::embedder::ask;
use crate::limits::{ANSWER_TIMEOUT, EVENT_PAUSE};
use crate::link::monitor::{Answer, Question};
use crate::link::protocol;
use rustix::event::PollFlags;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant, SystemTime};
pub(crate) use workload::Watch;

/// Most events that are kept for somebody who does not take them. Of more, the oldest
/// are missed.
const MOST_KEPT: usize = 1024;

/// Something that happened to a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct VmEvent {
    /// When, by this host's clock. As JSON, milliseconds since 1970.
    #[serde(rename = "unix_ms", with = "unix_ms")]
    pub at: SystemTime,
    /// What.
    #[serde(flatten)]
    pub kind: VmEventKind,
}

impl VmEvent {
    pub(crate) fn now(kind: VmEventKind) -> Self {
        Self {
            at: SystemTime::now(),
            kind,
        }
    }
}

/// What happened to a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum VmEventKind {
    /// It runs. Told first, of one that was started before, too.
    Started,
    /// It was paused.
    Paused,
    /// It goes on after a pause.
    Resumed,
    /// It was brought back to its snapshot, as pools do between two uses.
    Reset,
    /// Its workload listens on a TCP port which the image exposes; without such, on
    /// port 80.
    Listening {
        /// The port.
        port: u16,
    },
    /// Its workload has ended.
    WorkloadExited {
        /// Exit code, if it exited.
        code: Option<i32>,
        /// Signal number, if one ended it.
        signal: Option<i32>,
    },
    /// The guest's kernel killed a program, because there was no memory left for the
    /// machine or the program's control group. The guest's console says so: whoever is
    /// root in the guest can write the same.
    OomKilled {
        /// Its process id in the guest.
        pid: u32,
        /// Its name, at most 64 characters of it.
        program: String,
    },
    /// It ended. Nothing follows.
    Ended {
        /// How.
        reason: String,
        /// The guest turned itself off, or the machine was stopped.
        orderly: bool,
    },
    /// Events were not taken in time, and are lost.
    Missed {
        /// How many; 0 if nobody counted them. Nothing follows then.
        count: u64,
    },
}

/// The events of one machine, from [`crate::Vm::events`]. What is not taken is kept, up
/// to 1,024 events; neither the machine nor its worker ever waits for it.
///
/// As an iterator it waits for each event and ends after the last.
#[derive(Debug)]
pub struct VmEvents {
    queue: Arc<Queue>,
    /// Shut down, its thread ends.
    stream: Arc<UnixStream>,
}

#[derive(Debug, Default)]
struct Queue {
    kept: Mutex<Kept>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Kept {
    events: VecDeque<VmEvent>,
    missed: u64,
    is_over: bool,
    waker: Option<Waker>,
}

impl Kept {
    /// The next event, if there is one.
    fn take(&mut self) -> Option<VmEvent> {
        let count = std::mem::take(&mut self.missed);
        if count > 0 {
            return Some(VmEvent::now(VmEventKind::Missed { count }));
        }
        self.events.pop_front()
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, event: VmEvent) {
        let mut kept = self.lock();
        if kept.is_over {
            return;
        }
        kept.is_over = matches!(
            event.kind,
            VmEventKind::Ended { .. } | VmEventKind::Missed { count: 0 }
        );
        if kept.events.len() >= MOST_KEPT {
            kept.events.pop_front();
            kept.missed = kept.missed.saturating_add(1);
        }
        kept.events.push_back(event);
        let waker = kept.waker.take();
        drop(kept);
        self.changed.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl VmEvents {
    /// Follows the machine of a directory.
    pub(crate) fn follow(dir: &Path, mut watch: Watch) -> Result<Self, Error> {
        let deadline = Deadline::within(ANSWER_TIMEOUT);
        let (stream, answer) = ask::ask(dir, Question::Watch, deadline)?;
        let Answer::Done { .. } = answer else {
            return Err(ask::unexpected());
        };
        let stream = Arc::new(stream);
        let queue = Arc::<Queue>::default();
        queue.push(VmEvent::now(VmEventKind::Started));
        let (to, from) = (queue.clone(), stream.clone());
        std::thread::Builder::new()
            .name("vm-events".into())
            .spawn(move || {
                let last = forward(&from, &to, &mut watch);
                to.push(VmEvent::now(last));
            })
            .map_err(Error::system("start a thread"))?;
        Ok(Self { queue, stream })
    }

    /// The next event, if there is one already.
    pub fn try_next(&self) -> Option<VmEvent> {
        self.queue.lock().take()
    }

    /// Waits up to `patience` for the next event; `None` if none came, or there will be
    /// no more.
    pub fn next_within(&self, patience: Duration) -> Option<VmEvent> {
        let begun = Instant::now();
        let mut kept = self.queue.lock();
        loop {
            if let Some(event) = kept.take() {
                return Some(event);
            }
            let left = patience.saturating_sub(begun.elapsed());
            if kept.is_over || left.is_zero() {
                return None;
            }
            let waited = self.queue.changed.wait_timeout(kept, left);
            kept = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits for the next event without a thread, as a future of no particular runtime;
    /// `None` if there will be no more. Dropped before it is ready, it has taken none.
    /// One task at a time.
    pub async fn next_event(&mut self) -> Option<VmEvent> {
        poll_fn(|context| {
            let mut kept = self.queue.lock();
            match kept.take() {
                Some(event) => Poll::Ready(Some(event)),
                None if kept.is_over => Poll::Ready(None),
                None => {
                    kept.waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}

impl Iterator for VmEvents {
    type Item = VmEvent;

    fn next(&mut self) -> Option<VmEvent> {
        self.next_within(Duration::MAX)
    }
}

impl Drop for VmEvents {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// Passes on what the worker tells, and looks at the workload in between, until there is
/// no more; the last event.
fn forward(from: &UnixStream, to: &Queue, watch: &mut Watch) -> VmEventKind {
    let mut looked: Option<Instant> = None;
    loop {
        if watch.is_needed() && looked.is_none_or(|then| then.elapsed() >= EVENT_PAUSE) {
            watch.look(|kind| to.push(VmEvent::now(kind)));
            looked = Some(Instant::now());
        }
        let pause = if watch.is_needed() {
            Deadline::within(EVENT_PAUSE)
        } else {
            Deadline::none()
        };
        match pause.wait_for(from, PollFlags::IN) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => continue,
            Err(_) => return lost(watch),
        }
        let timed = Timed::new(from, Deadline::within(ANSWER_TIMEOUT));
        match protocol::receive::<VmEvent>(timed) {
            Ok(Some(event)) => {
                if event.kind == VmEventKind::Reset {
                    watch.begin_again();
                }
                if matches!(event.kind, VmEventKind::Ended { .. }) {
                    return event.kind;
                }
                to.push(event);
            }
            Ok(None) | Err(_) => return lost(watch),
        }
    }
}

/// The last event of a machine whose worker says no more.
fn lost(watch: &Watch) -> VmEventKind {
    if watch.has_worker() {
        return VmEventKind::Missed { count: 0 };
    }
    VmEventKind::Ended {
        reason: "its process is gone".into(),
        orderly: false,
    }
}

/// Times as milliseconds since 1970.
mod unix_ms {
    use serde::{Deserialize, Deserializer, Serializer};
    use std::time::{Duration, SystemTime};

    pub fn serialize<S: Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
        let since = time.duration_since(SystemTime::UNIX_EPOCH);
        let ms = since.unwrap_or_default().as_millis();
        to.serialize_u64(u64::try_from(ms).unwrap_or(u64::MAX))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SystemTime, D::Error> {
        let since = Duration::from_millis(u64::deserialize(from)?);
        SystemTime::UNIX_EPOCH
            .checked_add(since)
            .ok_or_else(|| serde::de::Error::custom("a time that no clock has"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listening(port: u16) -> VmEvent {
        VmEvent::now(VmEventKind::Listening { port })
    }

    fn events() -> VmEvents {
        VmEvents {
            queue: Arc::default(),
            stream: Arc::new(UnixStream::pair().unwrap().0),
        }
    }

    #[test]
    fn events_are_objects_with_a_name_and_a_time() {
        let mut event = listening(80);
        event.at = SystemTime::UNIX_EPOCH + Duration::from_millis(1234);
        let text = serde_json::to_string(&event).unwrap();
        assert_eq!(text, r#"{"unix_ms":1234,"event":"listening","port":80}"#);
        assert_eq!(serde_json::from_str::<VmEvent>(&text).unwrap(), event);
        let far = r#"{"unix_ms":18446744073709551615,"event":"paused"}"#;
        // Whether a clock has that time is the system's business; nothing panics.
        let _ = serde_json::from_str::<VmEvent>(far);
    }

    #[test]
    fn whoever_takes_none_keeps_the_latest_and_learns_how_many_are_missed() {
        let events = events();
        let count = u16::try_from(MOST_KEPT).unwrap() + 10;
        (0..count).for_each(|port| events.queue.push(listening(port)));
        let first = events.try_next().unwrap().kind;
        assert_eq!(first, VmEventKind::Missed { count: 10 });
        for port in 10..count {
            let event = events.try_next().unwrap();
            assert_eq!(event.kind, VmEventKind::Listening { port });
        }
        assert_eq!(events.try_next(), None);
    }

    #[test]
    fn the_end_is_the_last_and_wakes_whoever_waits() {
        let mut events = events();
        let queue = events.queue.clone();
        let waiting = std::thread::spawn(move || {
            let kinds: Vec<VmEventKind> = events.by_ref().map(|event| event.kind).collect();
            (kinds, events.next_within(Duration::MAX))
        });
        let end = VmEventKind::Ended {
            reason: "off".into(),
            orderly: true,
        };
        queue.push(listening(1));
        queue.push(VmEvent::now(end.clone()));
        queue.push(listening(2));
        let expected = vec![VmEventKind::Listening { port: 1 }, end];
        assert_eq!(waiting.join().unwrap(), (expected, None));
    }
}
