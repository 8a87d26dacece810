//! Where host programs come in.

use std::io::ErrorKind;
use std::os::unix::net::UnixStream;

use super::super::connection::{Connection, Fate, Phase};
use super::super::socket::Listener;
use super::{FIRST_HOST_PORT, MAX_CONNECTIONS, Mux};
use crate::DeviceMemory;

/// A listener of the device.
pub(super) struct Door {
    pub(super) listener: Listener,
    /// The port its clients get; `None` if they choose.
    pub(super) guest_port: Option<u32>,
}

impl<M: DeviceMemory> Mux<M> {
    pub(super) fn accept_all(&mut self) {
        self.clients_wait = false;
        for index in 0..self.doors.len() {
            loop {
                if self.connection_count() >= MAX_CONNECTIONS {
                    self.clients_wait = true;
                    break;
                }
                let door = &self.doors[index];
                let guest_port = door.guest_port;
                match door.listener.accept() {
                    Ok(stream) => self.admit(stream, guest_port),
                    Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                    Err(error) => {
                        // Anything else is a lack of descriptors or memory:
                        // the next connection that ends brings us back.
                        self.clients_wait |= error.kind() != ErrorKind::WouldBlock;
                        break;
                    }
                }
            }
        }
    }

    pub(in super::super) fn admit(&mut self, stream: UnixStream, guest_port: Option<u32>) {
        let connection = match guest_port {
            Some(guest_port) => {
                let Some(host_port) = self.free_host_port(guest_port) else {
                    return;
                };
                let phase = Phase::Connecting { via_mux: false };
                let mut connection = Connection::new(stream, host_port, guest_port, phase);
                connection.request(false);
                connection
            }
            None => Connection::new(stream, 0, 0, Phase::Handshake(Vec::new())),
        };
        if let Some(index) = self.insert(connection) {
            self.handshake(index);
            self.settle(index, Fate::Keep);
        }
    }

    pub(super) fn free_host_port(&mut self, guest_port: u32) -> Option<u32> {
        // There are more ports than connections, so one of these is free.
        for _ in 0..=MAX_CONNECTIONS {
            let port = self.next_host_port;
            self.next_host_port = match port.checked_add(1) {
                // The last is VMADDR_PORT_ANY.
                Some(u32::MAX) | None => FIRST_HOST_PORT,
                Some(next) => next,
            };
            if !self.by_ports.contains_key(&(port, guest_port)) {
                return Some(port);
            }
        }
        None
    }

    /// Closes the connections of clients that have not been let in.
    pub(super) fn refuse_waiting(&mut self) {
        for door in &self.doors {
            door.listener.refuse_waiting();
        }
    }
}
