//! Writes a guest's frames with our own functions, for tests and fuzzing.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};

use crate::io::{Close, FlowId, Frame, Io, Offloads, Query, Ticket, Transport};

/// Takes the last frame that is written, and has no sockets.
#[derive(Default)]
pub struct Pen(pub Vec<u8>);

impl Io for Pen {
    fn offloads(&self) -> Offloads {
        Offloads::default()
    }
    fn give(&mut self, frame: &Frame<'_>) -> bool {
        let [first, second] = frame.payload;
        self.0 = [frame.header, first, second].concat();
        true
    }
    fn connect(&mut self, _: FlowId, _: Transport, _: SocketAddr) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn connected(&mut self, _: FlowId) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn send(&mut self, _: FlowId, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn receive(&mut self, _: FlowId, _: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn finish_sending(&mut self, _: FlowId) {}
    fn close(&mut self, _: FlowId, _: Close) {}
    fn look_up(&mut self, _: Ticket, _: Query) -> bool {
        false
    }
    fn has_ipv6(&mut self) -> bool {
        false
    }

    fn is_own(&mut self, _: IpAddr) -> bool {
        false
    }
}
