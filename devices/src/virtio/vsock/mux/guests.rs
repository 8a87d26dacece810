//! Where programs of the guest come out.

use std::ffi::OsString;

use super::super::connection::{Connection, Fate, Phase};
use super::super::packet::Header;
use super::super::{LAST_PRIVILEGED_PORT, socket};
use super::{MAX_CONNECTIONS, Mux, RESERVED_CONNECTIONS};
use crate::DeviceMemory;

impl<M: DeviceMemory> Mux<M> {
    /// Whether a process of the guest may have one more connection to the
    /// host's port.
    fn admits_guest(&self, header: &Header) -> bool {
        let count = self.connection_count();
        if self.privileged_ports.contains(&header.dst_port) {
            return header.src_port <= LAST_PRIVILEGED_PORT && count < MAX_CONNECTIONS;
        }
        count < MAX_CONNECTIONS - RESERVED_CONNECTIONS
    }

    /// The guest connects to a port of the host.
    pub(super) fn connect_host(&mut self, header: &Header) {
        let stream = match &self.stem {
            Some(path) if self.admits_guest(header) => {
                let mut target = OsString::from(path);
                target.push(format!("_{}", header.dst_port));
                socket::connect(target.as_ref()).ok()
            }
            _ => None,
        };
        let Some(stream) = stream else {
            return self.resets.push_back(header.reset());
        };
        let phase = Phase::Open;
        let mut connection = Connection::new(stream, header.dst_port, header.src_port, phase);
        connection.accept(header);
        match self.insert(connection) {
            Some(index) => self.settle(index, Fate::Keep),
            None => self.resets.push_back(header.reset()),
        }
    }
}

#[cfg(all(test, feature = "default"))]
mod tests {
    use super::super::super::VsockConfig;
    use super::*;
    use crate::Ram;
    use crate::reactor::MioReactor;

    #[test]
    fn guest_users_leave_connections_to_host_and_agent() {
        let reactor = MioReactor::spawn().unwrap();
        let config = VsockConfig {
            guest_cid: 3,
            privileged_ports: vec![1027],
            ..VsockConfig::default()
        };
        let mut mux = Mux::<Ram>::new(config, reactor.handle());
        let mut admits = |count, dst_port, src_port| {
            // Slots that are not free count as connections.
            mux.slots.clear();
            mux.slots.resize_with(count, || None);
            mux.admits_guest(&Header {
                dst_port,
                src_port,
                ..Header::default()
            })
        };
        let full = MAX_CONNECTIONS - RESERVED_CONNECTIONS;
        assert!(admits(full - 1, 5, 2000));
        assert!(!admits(full, 5, 2000));
        assert!(!admits(full, 5, 1023), "the port decides, not the process");
        assert!(admits(full, 1027, 1023));
        assert!(!admits(full, 1027, 1024));
        assert!(!admits(0, 1027, 1024));
        assert!(admits(MAX_CONNECTIONS - 1, 1027, 1));
        assert!(!admits(MAX_CONNECTIONS, 1027, 1));
    }
}
