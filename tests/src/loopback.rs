//! Machines whose programs reach servers of the same machine by way of the host: out over
//! the guest's network, and in again over ports of the host.

use std::io::copy;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use supermachine::{Image, NetworkPolicy, TcpForwarder, Vm, VmConfig};

use crate::sh_within;

/// A machine, and ports of the host that lead back to it.
pub struct Loopback {
    /// The machine.
    pub vm: Vm,
    ports: Vec<u16>,
    /// Open as long as the machine runs.
    _forwarders: Vec<TcpForwarder>,
}

impl Loopback {
    /// Starts a machine that may reach what `policy` says, and ports of the host that lead
    /// to these of its own.
    ///
    /// # Panics
    /// If something is missing.
    pub fn start(image: &Image, config: VmConfig, policy: NetworkPolicy, servers: &[u16]) -> Self {
        let bind = |_: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let listeners: Vec<_> = servers.iter().map(bind).collect();
        let port = |listener: &TcpListener| listener.local_addr().expect("it has one").port();
        let ports: Vec<u16> = listeners.iter().map(port).collect();
        let policy = ports.iter().copied().fold(policy, NetworkPolicy::host_port);
        let started = image.start(&config.with_network(policy));
        let vm = started.unwrap_or_else(|error| panic!("it does not start: {error}"));
        let mut forwarders = Vec::new();
        for (listener, server) in listeners.into_iter().zip(servers) {
            let forwarder = vm.expose_tcp(0, *server).expect("a port is free");
            relay(listener, forwarder.local_addr());
            forwarders.push(forwarder);
        }
        Self {
            vm,
            ports,
            _forwarders: forwarders,
        }
    }

    /// Runs a part of a script, which is told of the host's ports; what it says.
    ///
    /// # Panics
    /// If it fails, or takes longer than `limit`.
    pub fn run(&self, script: &str, part: &str, more: &str, limit: Duration) -> String {
        let write = self.vm.write_file("/tmp/clients.sh", script.as_bytes());
        write.expect("a file");
        let ports: Vec<String> = self.ports.iter().map(u16::to_string).collect();
        let line = format!("bash /tmp/clients.sh {part} {} {more}", ports.join(" "));
        sh_within(&self.vm, &line, limit)
    }
}

/// Passes on what one end says until it finishes.
fn pass(from: &TcpStream, to: &TcpStream) {
    let (mut reader, mut writer) = (from, to);
    // An end that went away is the other's affair.
    let _ = copy(&mut reader, &mut writer);
    let _ = to.shutdown(Shutdown::Write);
}

/// Leads what connects here to another port: that one is known only when the machine
/// runs, and this one has to be before.
fn relay(listener: TcpListener, to: SocketAddr) {
    thread::spawn(move || {
        for near in listener.incoming().flatten() {
            let Ok(far) = TcpStream::connect(to) else {
                continue;
            };
            thread::spawn(move || {
                thread::scope(|scope| {
                    scope.spawn(|| pass(&near, &far));
                    pass(&far, &near);
                });
            });
        }
    });
}
