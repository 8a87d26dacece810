//! The worker's side of questions that any process of the user may ask.

use crate::deadline::{Deadline, Timed};
use crate::limits::GLANCE_TIMEOUT;
use crate::link::monitor::{Answer, Question};
use crate::link::protocol;
use crate::{VmEvent, VmEventKind};
use rustix::event::{PollFd, PollFlags};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Most connections at a time, those to which events are told included.
const MOST_VISITORS: usize = 64;
/// Longest question in bytes, with its length.
const MOST_ASKED: usize = 1024;

/// What a worker does next.
pub enum Turn {
    /// Read an order of its owner, or its end.
    Order,
    /// Answer this.
    Question(Visitor, Question),
    /// Nobody wanted anything for as long as it was to wait.
    Quiet,
}

/// A connection of somebody who asks.
pub struct Visitor {
    stream: UnixStream,
    asked: Vec<u8>,
}

impl Visitor {
    /// Reads what there is: the whole question, or none yet. An error ends the visit.
    fn read(&mut self) -> io::Result<Option<Question>> {
        let mut bytes = [0; MOST_ASKED];
        match self.stream.read(&mut bytes) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => self.asked.extend_from_slice(&bytes[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if self.asked.len() > MOST_ASKED {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let Some((length, body)) = self.asked.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*length) as usize;
        if length > MOST_ASKED {
            return Err(io::ErrorKind::InvalidData.into());
        }
        match body.get(..length) {
            Some(body) => Ok(Some(serde_json::from_slice(body)?)),
            None => Ok(None),
        }
    }

    /// Answers. Whoever does not take that is no reason to wait.
    pub fn answer(self, answer: &Answer) {
        let _ = self.send(answer);
    }

    fn send(&self, answer: &Answer) -> io::Result<()> {
        let deadline = Deadline::within(GLANCE_TIMEOUT);
        protocol::send(Timed::new(&self.stream, deadline), answer)
    }
}

/// Those to whom it is told what happens to the machine. Clones tell the same.
#[derive(Clone, Default)]
pub struct News(Arc<Mutex<Vec<Arc<UnixStream>>>>);

impl News {
    fn listeners(&self) -> MutexGuard<'_, Vec<Arc<UnixStream>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells what has happened. Whoever has so much unread that this does not fit
    /// loses the connection, and learns so.
    pub fn tell(&self, kind: VmEventKind) {
        let mut listeners = self.listeners();
        if listeners.is_empty() {
            return;
        }
        let mut frame = Vec::new();
        if protocol::send(&mut frame, &VmEvent::now(kind)).is_err() {
            return;
        }
        listeners.retain(|stream| {
            let is_told = matches!((&**stream).write(&frame), Ok(count) if count == frame.len());
            if !is_told {
                let _ = stream.shutdown(Shutdown::Both);
            }
            is_told
        });
    }

    /// Answers, and tells from then on.
    pub fn add(&self, visitor: Visitor) {
        let mut listeners = self.listeners();
        if visitor.send(&Answer::Done { changed: true }).is_ok() {
            listeners.push(Arc::new(visitor.stream));
        }
    }
}

/// Where questions come in.
pub struct Monitor {
    listener: UnixListener,
    visitors: Vec<Visitor>,
    pub news: News,
}

impl Monitor {
    /// Of a socket that listens.
    pub fn of(listener: UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            visitors: Vec::new(),
            news: News::default(),
        })
    }

    /// Waits for what is next, an order before any question; without `patience` for
    /// as long as it takes.
    pub fn next(&mut self, control: &UnixStream, patience: Option<Duration>) -> Turn {
        let deadline = patience.map_or_else(Deadline::none, Deadline::within);
        loop {
            let listeners = self.news.listeners().clone();
            let ready = match self.wait(control, &listeners, deadline) {
                Ok(Some(ready)) => ready,
                Ok(None) => return Turn::Quiet,
                // Reading the order tells what is wrong.
                Err(_) => return Turn::Order,
            };
            let mut ready = ready.into_iter();
            if ready.next() == Some(true) {
                return Turn::Order;
            }
            let has_visitor = ready.next() == Some(true);
            let asked = self.read_some(&mut ready);
            for (stream, is_gone) in listeners.iter().zip(ready) {
                if is_gone {
                    let is_other = |other: &Arc<UnixStream>| !Arc::ptr_eq(other, stream);
                    self.news.listeners().retain(is_other);
                }
            }
            if has_visitor {
                self.let_in(listeners.len());
            }
            if let Some((visitor, question)) = asked {
                return Turn::Question(visitor, question);
            }
        }
    }

    /// Which of control connection, socket, visitors and listeners have something, in
    /// that order.
    fn wait(
        &self,
        control: &UnixStream,
        listeners: &[Arc<UnixStream>],
        deadline: Deadline,
    ) -> io::Result<Option<Vec<bool>>> {
        let visitors = self.visitors.iter().map(|visitor| &visitor.stream);
        let mut fds = vec![
            PollFd::new(control, PollFlags::IN),
            PollFd::new(&self.listener, PollFlags::IN),
        ];
        fds.extend(visitors.map(|stream| PollFd::new(stream, PollFlags::IN)));
        // Nothing is read from them: that they are gone is told all the same.
        let listeners = listeners.iter().map(|stream| &**stream);
        fds.extend(listeners.map(|stream| PollFd::new(stream, PollFlags::empty())));
        let is_ready = deadline.wait(&mut fds)?;
        Ok(is_ready.then(|| fds.iter().map(|fd| !fd.revents().is_empty()).collect()))
    }

    /// Reads from visitors until one has asked. The others' words stay where they are.
    fn read_some(&mut self, ready: &mut impl Iterator<Item = bool>) -> Option<(Visitor, Question)> {
        let mut asked = None;
        let mut staying = Vec::new();
        for mut visitor in std::mem::take(&mut self.visitors) {
            if ready.next() != Some(true) || asked.is_some() {
                staying.push(visitor);
                continue;
            }
            match visitor.read() {
                Ok(Some(question)) => asked = Some((visitor, question)),
                Ok(None) => staying.push(visitor),
                Err(_) => {}
            }
        }
        self.visitors = staying;
        asked
    }

    fn let_in(&mut self, listeners: usize) {
        // A visitor for whom there is no room is let in and out again.
        let Ok((stream, _)) = self.listener.accept() else {
            return;
        };
        let is_full = self.visitors.len() + listeners >= MOST_VISITORS;
        if !is_full && stream.set_nonblocking(true).is_ok() {
            self.visitors.push(Visitor {
                stream,
                asked: Vec::new(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::monitor::socket;
    use crate::link::runtime_dir::RuntimeDir;

    /// Longer than any of this takes on a busy host.
    const LONG: Duration = Duration::from_secs(60);

    struct Place {
        dir: RuntimeDir,
        monitor: Monitor,
        control: UnixStream,
        owner: UnixStream,
    }

    fn place() -> Place {
        let dir = RuntimeDir::create().unwrap();
        let (owner, control) = UnixStream::pair().unwrap();
        Place {
            monitor: Monitor::of(UnixListener::bind(socket(dir.path())).unwrap()).unwrap(),
            dir,
            control,
            owner,
        }
    }

    impl Place {
        fn visit(&self, bytes: &[u8]) -> UnixStream {
            let mut stream = UnixStream::connect(socket(self.dir.path())).unwrap();
            stream.write_all(bytes).unwrap();
            stream
        }

        fn next(&mut self) -> Turn {
            self.monitor.next(&self.control, Some(LONG))
        }
    }

    fn frame(question: Question) -> Vec<u8> {
        let mut frame = Vec::new();
        protocol::send(&mut frame, &question).unwrap();
        frame
    }

    #[test]
    fn questions_come_one_by_one_and_orders_before_them() {
        let mut place = place();
        let whole = frame(Question::Stats);
        let mut slow = place.visit(&whole[..5]);
        let quick = place.visit(&frame(Question::Console));
        let Turn::Question(visitor, Question::Console) = place.next() else {
            panic!("the question that is whole");
        };
        visitor.answer(&Answer::Done { changed: true });
        let answer = protocol::receive::<Answer>(&quick).unwrap();
        assert_eq!(answer, Some(Answer::Done { changed: true }));
        slow.write_all(&whole[5..]).unwrap();
        place.owner.write_all(b"order").unwrap();
        assert!(matches!(place.next(), Turn::Order));
        let mut order = [0; 5];
        place.control.read_exact(&mut order).unwrap();
        assert!(matches!(place.next(), Turn::Question(_, Question::Stats)));
        let quiet = place.monitor.next(&place.control, Some(Duration::ZERO));
        assert!(matches!(quiet, Turn::Quiet));
        drop(place.owner);
        let end = place.monitor.next(&place.control, Some(LONG));
        assert!(matches!(end, Turn::Order));
    }

    #[test]
    fn visitors_that_talk_nonsense_or_leave_are_let_go_of() {
        let mut place = place();
        let nonsense = [
            vec![0xff; 8],
            vec![b'x'; 3 * MOST_ASKED],
            [4, 0, 0, 0, b'n', b'o', b'p', b'e'].to_vec(),
            Vec::new(),
        ];
        let streams: Vec<UnixStream> = nonsense.iter().map(|bytes| place.visit(bytes)).collect();
        for stream in &streams {
            stream.shutdown(Shutdown::Write).unwrap();
        }
        let good = place.visit(&frame(Question::Stats));
        assert!(matches!(place.next(), Turn::Question(_, Question::Stats)));
        drop(good);
        // The last of them may have come in the same turn.
        while !place.monitor.visitors.is_empty() {
            let turn = place.monitor.next(&place.control, Some(Duration::ZERO));
            assert!(matches!(turn, Turn::Quiet));
        }
    }

    #[test]
    fn more_visitors_than_there_is_room_for_are_turned_away_and_hold_up_nobody() {
        let mut place = place();
        let silent: Vec<UnixStream> = (0..MOST_VISITORS + 8).map(|_| place.visit(b"")).collect();
        let turn = |place: &mut Place| place.monitor.next(&place.control, Some(Duration::ZERO));
        while place.monitor.visitors.len() < MOST_VISITORS {
            assert!(matches!(turn(&mut place), Turn::Quiet));
        }
        for _ in 0..32 {
            assert!(matches!(turn(&mut place), Turn::Quiet));
        }
        assert_eq!(place.monitor.visitors.len(), MOST_VISITORS);
        drop(silent);
        while !place.monitor.visitors.is_empty() {
            assert!(matches!(turn(&mut place), Turn::Quiet));
        }
        let _asks = place.visit(&frame(Question::Stats));
        assert!(matches!(place.next(), Turn::Question(_, Question::Stats)));
    }

    #[test]
    fn events_are_told_until_somebody_does_not_read_them() {
        let mut place = place();
        let reader = place.visit(&frame(Question::Watch));
        let Turn::Question(visitor, Question::Watch) = place.next() else {
            panic!("a question");
        };
        let news = place.monitor.news.clone();
        news.add(visitor);
        assert!(matches!(
            protocol::receive::<Answer>(&reader).unwrap(),
            Some(Answer::Done { .. })
        ));
        news.tell(VmEventKind::Paused);
        let event = protocol::receive::<VmEvent>(&reader).unwrap().unwrap();
        assert_eq!(event.kind, VmEventKind::Paused);
        // More than any system keeps for a reader that does not read.
        let mut told = 0;
        while !news.listeners().is_empty() {
            news.tell(VmEventKind::Resumed);
            told += 1;
            assert!(told < 1_000_000, "somebody reads this");
        }
        let mut whole = 0;
        while let Ok(Some(event)) = protocol::receive::<VmEvent>(&reader) {
            assert_eq!(event.kind, VmEventKind::Resumed);
            whole += 1;
        }
        assert!(whole > 0 && whole < told);
        // One that hangs up is forgotten without an event.
        let gone = place.visit(&frame(Question::Watch));
        let Turn::Question(visitor, Question::Watch) = place.next() else {
            panic!("a question");
        };
        news.add(visitor);
        drop(gone);
        while !news.listeners().is_empty() {
            let turn = place.monitor.next(&place.control, Some(Duration::ZERO));
            assert!(matches!(turn, Turn::Quiet));
        }
    }
}
