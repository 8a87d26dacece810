//! Ports of the host that lead to services of a guest.
//!
//! They need no network of the guest's: each connection is one to the guest's agent,
//! which connects to the service in there.

mod door;
mod open;
mod relay;
mod streams;
mod udp;

use crate::exec::Liveness;
use crate::link::sockets;
use crate::running::RunningVm;
use crate::{Error, Vm};
use door::Door;
use open::Open;
pub(crate) use open::{Lease, OwnPorts, Ports};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use streams::Listener;

/// A TCP port of the host that leads to one of a guest, until this is stopped or
/// dropped, or the machine ends.
#[derive(Debug)]
pub struct TcpForwarder {
    local_addr: SocketAddr,
    open: Open,
}

impl TcpForwarder {
    /// Where it listens; with the port that the system chose, if that was left to it.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Takes no more connections; the port is free when this returns. Connections that
    /// are open go on. May be called again.
    pub fn stop(&self) {
        self.open.stop();
    }

    #[cfg(feature = "cli")]
    pub(crate) fn keep(self) {
        self.open.keep();
    }
}

/// A UDP port of the host that leads to one of a guest, until this is stopped or
/// dropped, or the machine ends.
#[derive(Debug)]
pub struct UdpForwarder {
    local_addr: SocketAddr,
    open: Open,
}

impl UdpForwarder {
    /// Where it takes datagrams; with the port that the system chose, if that was left
    /// to it.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Takes no more datagrams; the port is free when this returns. May be called again.
    pub fn stop(&self) {
        self.open.stop();
    }

    #[cfg(feature = "cli")]
    pub(crate) fn keep(self) {
        self.open.keep();
    }
}

/// A Unix socket of the host that leads to a TCP port of a guest, until this is stopped
/// or dropped, or the machine ends.
#[derive(Debug)]
pub struct UnixForwarder {
    path: PathBuf,
    open: Open,
}

impl UnixForwarder {
    /// Where the socket is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes no more connections, and removes the socket. Connections that are open go
    /// on. May be called again.
    pub fn stop(&self) {
        self.open.stop();
    }
}

/// The host's own address, which nobody else reaches.
fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// What a port leads to.
struct Way {
    ports: Arc<Ports>,
    door: Door,
    guest_port: u16,
}

impl Way {
    fn new(ports: Arc<Ports>, door: Door, guest_port: u16) -> Result<Self, Error> {
        match guest_port {
            0 => Err(Error::Unsuitable {
                what: "exposing port 0 of the guest",
                needs: "the number of a port",
            }),
            guest_port => Ok(Self {
                ports,
                door,
                guest_port,
            }),
        }
    }

    fn of(vm: &Vm, guest_port: u16) -> Result<Self, Error> {
        vm.instance().check_running()?;
        Self::new(vm.ports().clone(), Door::of(vm.instance()), guest_port)
    }

    fn of_running(vm: &RunningVm, guest_port: u16) -> Result<Self, Error> {
        let door = Door::new(sockets::exec(vm.dir()), Arc::new(Seen(vm.clone())));
        Self::new(Arc::default(), door, guest_port)
    }

    fn tcp(self, host: SocketAddr) -> Result<TcpForwarder, Error> {
        let (listener, local_addr) = Listener::tcp(host)?;
        let shown = format!("{local_addr}->{}/tcp", self.guest_port);
        let open = streams::serve(self, listener, shown)?;
        Ok(TcpForwarder { local_addr, open })
    }

    fn udp(self, host: SocketAddr) -> Result<UdpForwarder, Error> {
        let (socket, local_addr) = udp::bind(host)?;
        let shown = format!("{local_addr}->{}/udp", self.guest_port);
        let open = udp::serve(self, socket, shown)?;
        Ok(UdpForwarder { local_addr, open })
    }

    fn unix(self, path: &Path) -> Result<UnixForwarder, Error> {
        let listener = Listener::unix(path)?;
        let shown = format!("{}->{}/tcp", path.display(), self.guest_port);
        let open = streams::serve(self, listener, shown)?;
        let path = path.to_owned();
        Ok(UnixForwarder { path, open })
    }
}

/// Knows whether a machine of another process still runs.
#[derive(Debug)]
struct Seen(RunningVm);

impl Liveness for Seen {
    fn end_within(&self, _patience: Duration) -> Option<Error> {
        (!self.0.is_running()).then(|| Error::Ended {
            reason: "its process is gone".into(),
        })
    }
}

impl Vm {
    /// Connects a TCP port of the host's loopback interface to one of the guest, with or
    /// without a network there, and whether the service listens on the guest's
    /// 127.0.0.1, `::1` or all addresses. With 0 the system chooses the host's port.
    ///
    /// A service that is not there yet is found by the next connection; until then the
    /// clients' are reset. What this gives ends with the machine, and with the lease of
    /// one that belongs to a pool. A fork and a snapshot have none of it. Up to 512
    /// connections are open at a time, and more wait.
    ///
    /// # Errors
    /// [`Error::PortInUse`] if another socket has the port, [`Error::Ended`] once the
    /// machine has ended.
    pub fn expose_tcp(&self, host_port: u16, guest_port: u16) -> Result<TcpForwarder, Error> {
        self.expose_tcp_at(loopback(host_port), guest_port)
    }

    /// As [`Vm::expose_tcp`], on an address of the host that others may reach.
    ///
    /// # Errors
    /// As [`Vm::expose_tcp`].
    pub fn expose_tcp_at(&self, host: SocketAddr, guest_port: u16) -> Result<TcpForwarder, Error> {
        Way::of(self, guest_port)?.tcp(host)
    }

    /// Connects a UDP port of the host's loopback interface to one of the guest. Each
    /// sender has a socket of its own in the guest, until it was silent for two minutes
    /// or 256 others came after it.
    ///
    /// # Errors
    /// As [`Vm::expose_tcp`].
    pub fn expose_udp(&self, host_port: u16, guest_port: u16) -> Result<UdpForwarder, Error> {
        self.expose_udp_at(loopback(host_port), guest_port)
    }

    /// As [`Vm::expose_udp`], on an address of the host that others may reach.
    ///
    /// # Errors
    /// As [`Vm::expose_tcp`].
    pub fn expose_udp_at(&self, host: SocketAddr, guest_port: u16) -> Result<UdpForwarder, Error> {
        Way::of(self, guest_port)?.udp(host)
    }

    /// Connects a Unix socket of the host to a TCP port of the guest, as
    /// [`Vm::expose_tcp`] does with a port. The socket is made, for this user alone, and
    /// removed when it is stopped.
    ///
    /// # Errors
    /// As [`Vm::expose_tcp`]; [`Error::PortInUse`] if there is anything at the path.
    pub fn expose_unix(
        &self,
        host_path: impl AsRef<Path>,
        guest_port: u16,
    ) -> Result<UnixForwarder, Error> {
        Way::of(self, guest_port)?.unix(host_path.as_ref())
    }
}

impl RunningVm {
    /// Connects a TCP port of the host's loopback interface to one of the guest, as
    /// [`Vm::expose_tcp`] does, for as long as this process wants.
    ///
    /// # Errors
    /// As [`Vm::expose_tcp`].
    pub fn expose_tcp(&self, host_port: u16, guest_port: u16) -> Result<TcpForwarder, Error> {
        Way::of_running(self, guest_port)?.tcp(loopback(host_port))
    }

    /// As [`Vm::expose_udp`], for as long as this process wants.
    ///
    /// # Errors
    /// As [`Vm::expose_tcp`].
    pub fn expose_udp(&self, host_port: u16, guest_port: u16) -> Result<UdpForwarder, Error> {
        Way::of_running(self, guest_port)?.udp(loopback(host_port))
    }

    /// As [`Vm::expose_unix`], for as long as this process wants.
    ///
    /// # Errors
    /// As [`Vm::expose_unix`].
    pub fn expose_unix(
        &self,
        host_path: impl AsRef<Path>,
        guest_port: u16,
    ) -> Result<UnixForwarder, Error> {
        Way::of_running(self, guest_port)?.unix(host_path.as_ref())
    }
}
