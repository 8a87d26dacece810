//! Who in the guest may reach what of the host.

use super::*;
use guest::PRIVILEGED;

/// A socket where the guest's connections to `port` would arrive.
fn listener(guest: &Guest, port: u32) -> UnixListener {
    let path = guest.dir.path().join(format!("mux_{port}"));
    let listener = UnixListener::bind(path).unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

fn assert_untouched(listener: &UnixListener) {
    let nobody = listener.accept().unwrap_err();
    assert_eq!(nobody.kind(), ErrorKind::WouldBlock);
}

#[test]
fn unprivileged_processes_do_not_reach_a_privileged_port() {
    let mut guest = Guest::start();
    let agent = listener(&guest, PRIVILEGED);
    let others = listener(&guest, PRIVILEGED + 1);
    for port in (1024..4096).chain([1 << 16, u32::MAX - 1, u32::MAX]) {
        assert!(!guest.connect((PRIVILEGED, port)), "from {port}");
    }
    assert_untouched(&agent);
    guest.wait_for_connections(0);
    // What was refused has cost nobody else anything.
    for port in [1, LAST_PRIVILEGED_PORT] {
        assert!(guest.connect((PRIVILEGED, port)), "from {port}");
        guest.send((PRIVILEGED, port), b"hello");
        let mut stream = patient(agent.accept().unwrap().0);
        stream.set_nonblocking(false).unwrap();
        let mut hello = [0; 5];
        stream.read_exact(&mut hello).unwrap();
        assert_eq!(&hello, b"hello");
    }
    // Other ports are anybody's.
    assert!(guest.connect((PRIVILEGED + 1, 1024)));
    assert!(others.accept().is_ok());
}

#[test]
fn packets_that_lie_about_who_or_whom_reach_nobody() {
    let mut guest = Guest::start();
    let agent = listener(&guest, PRIVILEGED);
    let request = guest.header((PRIVILEGED, 1), op::REQUEST);
    // To nobody, the loopback, the guest itself, any, and numbers that are the
    // host's if they are cut.
    for dst_cid in [0, 1, CID, u64::from(u32::MAX), HOST_CID | 1 << 32, u64::MAX] {
        guest.transmit(&Header { dst_cid, ..request }.encode());
        guest.wait("reset", |guest| guest.foreign_resets.contains(&dst_cid));
    }
    for src_cid in [0, 1, HOST_CID, CID + 1, CID | 1 << 32, u64::MAX] {
        guest.transmit(&Header { src_cid, ..request }.encode());
    }
    guest.poll();
    assert_untouched(&agent);
    guest.wait_for_connections(0);
    assert!(guest.connect((PRIVILEGED, 1)));
}
