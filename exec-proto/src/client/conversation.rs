//! What the agent owes the host, and which replies make sense when.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::Event;
use crate::{Kind, MAX_FILE_BYTES, ProtoError, Reply, STDIN_WINDOW_BYTES, StdinState};

/// An answer the agent owes, oldest first.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Owed {
    Exec {
        started: bool,
        /// Commands of the chain that may still come.
        steps: usize,
        /// Its id is known, or it is not durable.
        identified: bool,
    },
    Attach,
    Execs,
    Pong(u64),
    File(Vec<u8>),
    FileWritten,
    Done,
    Resumed,
    Workload,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Stdin {
    /// No command that wants any.
    #[default]
    None,
    Open,
    /// Closed by us or by the command.
    Closed,
}

#[derive(Debug, Default)]
pub(super) struct Conversation {
    greeted: bool,
    pub(super) owed: VecDeque<Owed>,
    pub(super) stdin: Stdin,
    pub(super) stdin_window: usize,
    /// A write was cut short and waits for [`Event::StdinReady`].
    pub(super) stdin_starved: bool,
    /// The command was asked to go on alone.
    pub(super) detaching: bool,
    pub(super) over: bool,
}

impl Conversation {
    /// True from the moment an `Exec` is queued until its end.
    pub(super) fn has_command(&self) -> bool {
        // A command can only be the youngest request.
        matches!(self.owed.back(), Some(Owed::Exec { .. } | Owed::Attach))
    }

    /// Digests one frame; most become an event.
    pub(super) fn accept(
        &mut self,
        kind: Kind,
        payload: &[u8],
    ) -> Result<Option<Event>, ProtoError> {
        let unexpected = ProtoError::Unexpected { kind: kind.byte() };
        if self.over {
            return Err(unexpected);
        }
        let opening = matches!(kind, Kind::Hello | Kind::AgentReady);
        if !self.greeted && !opening {
            return Err(ProtoError::HelloExpected { kind: kind.byte() });
        }
        let reply = Reply::decode(kind, payload)?;
        if self.greeted && self.serves_command() && !matches!(reply, Reply::Error(_)) {
            return self.accept_of_command(kind, reply);
        }
        match (reply, self.owed.front_mut()) {
            (Reply::Hello(hello), _) if !self.greeted => {
                self.greeted = true;
                Ok(Some(Event::Hello(hello)))
            }
            (Reply::Ready(ready), _) if !self.greeted => {
                self.greeted = true;
                Ok(Some(Event::Ready(ready)))
            }
            // A peer that refuses the hello itself has no request to refer to.
            (Reply::Error(failure), _) => {
                self.over = true;
                self.stdin = Stdin::Closed;
                self.owed.clear();
                Ok(Some(Event::Failed(failure)))
            }
            (Reply::Pong(nonce), Some(Owed::Pong(sent))) if nonce == *sent => {
                self.owed.pop_front();
                Ok(Some(Event::Pong(nonce)))
            }
            (Reply::FileData { last, data }, Some(Owed::File(file))) => {
                if file.len().saturating_add(data.len()) > MAX_FILE_BYTES {
                    return Err(ProtoError::BadPayload {
                        kind: kind.byte(),
                        what: "file larger than its limit",
                    });
                }
                file.extend_from_slice(data);
                if !last {
                    return Ok(None);
                }
                let file = core::mem::take(file);
                self.owed.pop_front();
                Ok(Some(Event::File(file)))
            }
            (Reply::FileWritten(bytes), Some(Owed::FileWritten)) => {
                self.owed.pop_front();
                Ok(Some(Event::FileWritten { bytes }))
            }
            (Reply::Done, Some(Owed::Done)) => {
                self.owed.pop_front();
                Ok(Some(Event::Done))
            }
            (Reply::Resumed(resumed), Some(Owed::Resumed)) => {
                self.owed.pop_front();
                Ok(Some(Event::Resumed(resumed)))
            }
            (Reply::Workload(report), Some(Owed::Workload)) => {
                self.owed.pop_front();
                Ok(Some(Event::Workload(report)))
            }
            (Reply::Execs(execs), Some(Owed::Execs)) => {
                self.owed.pop_front();
                Ok(Some(Event::Execs(execs)))
            }
            _ => Err(unexpected),
        }
    }

    /// True while the oldest unanswered request is a command.
    fn serves_command(&self) -> bool {
        matches!(self.owed.front(), Some(Owed::Exec { .. } | Owed::Attach))
    }

    /// Digests a frame of a command that was started or taken up.
    fn accept_of_command(
        &mut self,
        kind: Kind,
        reply: Reply<'_>,
    ) -> Result<Option<Event>, ProtoError> {
        match (reply, self.owed.front_mut()) {
            (Reply::Started { pid }, Some(Owed::Exec { started, .. })) if !*started => {
                *started = true;
                Ok(Some(Event::Started { pid }))
            }
            (
                Reply::Durable { id },
                Some(Owed::Exec {
                    started: true,
                    identified,
                    ..
                }),
            ) if !*identified => {
                *identified = true;
                Ok(Some(Event::Durable { id }))
            }
            (
                Reply::Step(exited),
                Some(Owed::Exec {
                    started: true,
                    steps,
                    ..
                }),
            ) if *steps > 0 => {
                *steps -= 1;
                Ok(Some(Event::Step(exited)))
            }
            (Reply::Detached { id, sent }, Some(Owed::Exec { started: true, .. }))
                if self.detaching =>
            {
                self.over = true;
                self.stdin = Stdin::Closed;
                self.owed.clear();
                Ok(Some(Event::Detached { id, sent }))
            }
            (Reply::Attached(attached), Some(owed @ Owed::Attach)) => {
                *owed = Owed::Exec {
                    started: true,
                    steps: usize::MAX,
                    identified: true,
                };
                self.attach_stdin(kind, attached.stdin)?;
                Ok(Some(Event::Attached(attached)))
            }
            (Reply::Gap { stderr, bytes }, Some(Owed::Exec { started: true, .. })) => {
                Ok(Some(Event::Gap { stderr, bytes }))
            }
            (Reply::Stdout(data), Some(Owed::Exec { started: true, .. })) => {
                Ok(Some(Event::Stdout(data.to_vec())))
            }
            (Reply::Stderr(data), Some(Owed::Exec { started: true, .. })) => {
                Ok(Some(Event::Stderr(data.to_vec())))
            }
            (Reply::StdinWindow(bytes), Some(Owed::Exec { started: true, .. })) => {
                self.widen_stdin(kind, bytes)
            }
            (Reply::StdinClosed, Some(Owed::Exec { started: true, .. })) => {
                let was_open = self.stdin == Stdin::Open;
                self.stdin = Stdin::Closed;
                Ok(was_open.then_some(Event::StdinClosed))
            }
            (Reply::Exited(exited), Some(Owed::Exec { started: true, .. })) => {
                self.stdin = Stdin::None;
                self.detaching = false;
                self.owed.pop_front();
                Ok(Some(Event::Exited(exited)))
            }
            _ => Err(ProtoError::Unexpected { kind: kind.byte() }),
        }
    }

    /// A command that is taken up has as much window as its agent says, up to the
    /// whole.
    fn attach_stdin(&mut self, kind: Kind, stdin: StdinState) -> Result<(), ProtoError> {
        (self.stdin, self.stdin_window) = match stdin {
            StdinState::Closed => (Stdin::Closed, 0),
            StdinState::Open(window) if window as usize <= STDIN_WINDOW_BYTES => {
                (Stdin::Open, window as usize)
            }
            StdinState::Open(_) => {
                return Err(ProtoError::BadPayload {
                    kind: kind.byte(),
                    what: "a window larger than there is",
                });
            }
        };
        Ok(())
    }

    /// The window never grows beyond its start: an agent that grants more than
    /// it was sent is broken, and would make us buffer without bound.
    fn widen_stdin(&mut self, kind: Kind, bytes: u32) -> Result<Option<Event>, ProtoError> {
        let window = self.stdin_window.saturating_add(bytes as usize);
        if self.stdin == Stdin::None || window > STDIN_WINDOW_BYTES {
            return Err(ProtoError::BadPayload {
                kind: kind.byte(),
                what: "more stdin granted than was sent",
            });
        }
        self.stdin_window = window;
        let wake = core::mem::take(&mut self.stdin_starved) && self.stdin == Stdin::Open;
        Ok(wake.then_some(Event::StdinReady))
    }
}
