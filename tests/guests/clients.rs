//! Programs as people use them, over a guest's network: clients in the guest reach
//! servers in the same guest by way of the host, over what leads out and what leads in.

use std::io::copy;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use supermachine::{NetworkPolicy, TcpForwarder};
use supermachine_tests::{config, image, sh};

const PROGRAM: &str = include_str!("../programs/clients.sh");

/// The program's parts, and what each says once all in it have done what they were to do.
const PARTS: [(&str, &str); 6] = [
    ("servers", ""),
    (
        "web",
        "curl\ncurl upload\ncurl resume\ncurl http/2\nwget\nwget resume\n",
    ),
    ("repositories", "git\napt-get\n"),
    (
        "talk",
        "redis-cli\nssh\nscp\nrsync over ssh\nrsync\nnc half-close\n",
    ),
    ("names", "dig\ndig +tcp, EDNS\nping\nping in pieces\n"),
    ("nested", "nested network\n"),
];

/// Ports of the guest's servers, in the order in which the program is told of them: two
/// for the web, redis, ssh, rsync, and one that counts.
const SERVERS: [u16; 6] = [80, 81, 6379, 22, 873, 9000];

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

#[test]
fn programs_of_debian_work_over_the_network() {
    let listeners = SERVERS.map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port"));
    let ports = listeners
        .each_ref()
        .map(|listener| listener.local_addr().expect("it has one").port());
    let policy = ports
        .into_iter()
        .fold(NetworkPolicy::deny_all(), NetworkPolicy::host_port);
    let config = config().with_memory_mib(512).with_network(policy);
    let started = image("clients").start(&config);
    let vm = started.unwrap_or_else(|error| panic!("it does not start: {error}"));
    let mut forwarders: Vec<TcpForwarder> = Vec::new();
    for (listener, server) in listeners.into_iter().zip(SERVERS) {
        let forwarder = vm.expose_tcp(0, server).expect("a port");
        relay(listener, forwarder.local_addr());
        forwarders.push(forwarder);
    }
    vm.write_file("/tmp/clients.sh", PROGRAM.as_bytes())
        .expect("a file");
    let ports = ports.map(|port| port.to_string()).join(" ");
    for (part, said) in PARTS {
        let script = format!("bash /tmp/clients.sh {part} {ports}");
        assert_eq!(sh(&vm, &script), said, "{part}");
    }
}
