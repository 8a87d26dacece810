//! One end of a session: a socket that does not block, and TLS over it.

use std::io::{self, Read, Write};
use std::net::Shutdown;

use mio::net::{TcpStream, UnixStream};
use rustls::Connection;

/// A socket of either kind.
pub(crate) trait Socket: Read + Write {
    /// Tells the other end that nothing more comes.
    fn finish(&self);
}

impl Socket for TcpStream {
    fn finish(&self) {
        // One that is gone already is noticed when it is read.
        let _ = self.shutdown(Shutdown::Write);
    }
}

impl Socket for UnixStream {
    fn finish(&self) {
        let _ = self.shutdown(Shutdown::Write);
    }
}

/// What came from an end in one go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Got {
    /// Nothing now.
    Nothing,
    /// Something, if only of TLS's own.
    Some,
    /// Nothing any more.
    End,
}

/// One end of a session.
pub(crate) struct Side<S> {
    pub(crate) socket: S,
    /// None until it is known how to speak with it.
    pub(crate) tls: Option<Connection>,
    is_readable: bool,
    is_writable: bool,
    /// Nothing more comes; and it said so, if it is clean.
    is_over: bool,
    pub(crate) is_clean: bool,
    /// Nothing more is written to it; and it was told so, once it had everything.
    is_finished: bool,
    is_shut: bool,
    /// It takes nothing any more.
    pub(crate) is_deaf: bool,
}

impl<S: Socket> Side<S> {
    pub(crate) fn new(socket: S, tls: Option<Connection>) -> Self {
        Self {
            socket,
            tls,
            is_readable: true,
            is_writable: true,
            is_over: false,
            is_clean: false,
            is_finished: false,
            is_shut: false,
            is_deaf: false,
        }
    }

    pub(crate) fn ready(&mut self, readable: bool, writable: bool) {
        self.is_readable |= readable;
        self.is_writable |= writable;
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_none_or(|tls| tls.is_handshaking())
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Whether it has everything, and knows that.
    pub(crate) fn is_shut(&self) -> bool {
        self.is_shut || self.is_deaf
    }

    /// Whether it has everything that was written to it.
    pub(crate) fn is_flushed(&self) -> bool {
        self.is_deaf || !self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    /// Sends what TLS has to send, and after all of it the end; whether it was something.
    pub(crate) fn flush(&mut self) -> bool {
        let any = self.send();
        if self.is_finished && !self.is_shut && self.is_flushed() {
            self.is_shut = true;
            self.socket.finish();
        }
        any
    }

    fn send(&mut self) -> bool {
        let mut any = false;
        let Some(tls) = &mut self.tls else {
            return false;
        };
        while self.is_writable && !self.is_deaf && tls.wants_write() {
            match tls.write_tls(&mut self.socket) {
                Ok(0) => self.is_deaf = true,
                Ok(_) => any = true,
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => self.is_writable = false,
                    io::ErrorKind::Interrupted => {}
                    _ => self.is_deaf = true,
                },
            }
        }
        any
    }

    /// Receives a piece of TLS, and adds what it says to `plain`.
    ///
    /// # Errors
    /// What is no TLS.
    pub(crate) fn receive(&mut self, plain: &mut Vec<u8>) -> Result<Got, rustls::Error> {
        let Some(tls) = self
            .tls
            .as_mut()
            .filter(|_| self.is_readable && !self.is_over)
        else {
            return Ok(Got::Nothing);
        };
        match tls.read_tls(&mut self.socket) {
            Ok(_) => {}
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => {
                    self.is_readable = false;
                    return Ok(Got::Nothing);
                }
                io::ErrorKind::Interrupted => return Ok(Got::Some),
                _ => {
                    self.is_over = true;
                    self.is_deaf = true;
                    return Ok(Got::End);
                }
            },
        }
        self.process(plain)
    }

    /// Takes TLS that came another way.
    ///
    /// # Errors
    /// What is no TLS.
    pub(crate) fn receive_from(
        &mut self,
        mut bytes: &[u8],
        plain: &mut Vec<u8>,
    ) -> Result<(), rustls::Error> {
        self.process(plain)?;
        while !bytes.is_empty() {
            let Some(tls) = &mut self.tls else {
                break;
            };
            if tls.read_tls(&mut bytes).is_err() {
                return Err(rustls::Error::General("too much at once".to_owned()));
            }
            self.process(plain)?;
        }
        Ok(())
    }

    fn process(&mut self, plain: &mut Vec<u8>) -> Result<Got, rustls::Error> {
        let Some(tls) = &mut self.tls else {
            return Ok(Got::Nothing);
        };
        tls.process_new_packets()?;
        match tls.reader().read_to_end(plain) {
            // All that it had, and its word that there is no more.
            Ok(_) => {
                self.is_over = true;
                self.is_clean = true;
                Ok(Got::End)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Got::Some),
            Err(_) => {
                self.is_over = true;
                Ok(Got::End)
            }
        }
    }

    /// Takes what there is room for.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> usize {
        let Some(tls) = self.tls.as_mut().filter(|_| !self.is_deaf) else {
            // Nobody will have it.
            return bytes.len();
        };
        tls.writer().write(bytes).unwrap_or(0)
    }

    /// Tells it that nothing more comes, once it has everything.
    pub(crate) fn finish(&mut self, is_clean: bool) {
        if !self.is_finished {
            self.is_finished = true;
            if let Some(tls) = self.tls.as_mut().filter(|_| is_clean) {
                tls.send_close_notify();
            }
            self.flush();
        }
    }
}
