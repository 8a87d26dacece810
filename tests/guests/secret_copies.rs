//! Secrets and open connections of machines that are copied, forked, and used by one
//! after the other.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use supermachine::{Network, NetworkPolicy, Vm, VmConfig};
use supermachine_tests::{config, image, sh};

use crate::network::accepting;
use crate::secrets::{AUTHORITY, NAME, PATIENCE, host, is_below, value};

/// Opens a connection, says so, and writes down how reading from it ends.
const READER: &str = r"
exec 3<>/dev/tcp/192.168.127.1/$1
echo ready >&3
touch /tmp/connected
read line <&3
echo status $? line $line > /tmp/read
";
/// Waits until the reader has read.
const READ: &str = "until [ -s /tmp/read ]; do sleep 0.1; done; cat /tmp/read";
/// What a command knows of the secret, and the authority that it trusts.
const KNOWN: &str = "echo $API_KEY; sha256sum < /run/supermachine/authority.crt; \
                     grep -c BEGIN /run/supermachine/authority.crt";

/// Two ports of the host: of one that has a secret, and of one that keeps connections.
struct Host {
    secret: u16,
    heads: Receiver<String>,
    plain: u16,
    accepted: Receiver<TcpStream>,
}

impl Host {
    fn new() -> Self {
        let (secret, heads) = host();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let (plain, accepted) = accepting(listener);
        Self {
            secret,
            heads,
            plain,
            accepted,
        }
    }

    fn config(&self, value: &str) -> VmConfig {
        let ports = [self.secret, self.plain];
        let policy = ports
            .into_iter()
            .fold(NetworkPolicy::deny_all(), NetworkPolicy::host_port);
        let secret = Network::secret("API_KEY", value)
            .for_host(&format!("{NAME}:{}", self.secret))
            .with_authorities(AUTHORITY);
        config().with_network(policy).with_secret(secret)
    }

    /// Has the guest ask the host, which must get this value.
    fn asks(&self, vm: &Vm, value: &str) {
        let url = format!("https://{NAME}:{}/", self.secret);
        let curl = "curl -sS -m 100 -o /dev/null -H \"Authorization: Bearer $API_KEY\"";
        sh(vm, &format!("{curl} {url}"));
        let head = self.heads.recv_timeout(PATIENCE).expect("a request");
        let wanted = format!("Authorization: Bearer {value}\r\n");
        assert!(head.contains(&wanted), "{head}");
    }

    /// Has the guest open a connection that stays; the host's end.
    fn keeps(&self, vm: &Vm) -> TcpStream {
        vm.write_file("/tmp/reader", READER.as_bytes())
            .expect("a file");
        let script = format!(
            "bash /tmp/reader {} < /dev/null > /tmp/log 2>&1 & \
             for n in $(seq 900); do [ -e /tmp/connected ] && exit; sleep 0.1; done; \
             cat /tmp/log >&2; false",
            self.plain
        );
        sh(vm, &script);
        let mut stream = self.accepted.recv_timeout(PATIENCE).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
        let mut ready = [0; 6];
        stream.read_exact(&mut ready).expect("the guest writes");
        stream
    }
}

/// The placeholder, and the authority, of which there is one.
fn known(vm: &Vm) -> (String, String) {
    let said = sh(vm, KNOWN);
    let lines: Vec<&str> = said.lines().collect();
    let [placeholder, authority, "1"] = lines[..] else {
        panic!("it knows {said:?}");
    };
    assert!(!placeholder.is_empty());
    (placeholder.to_owned(), authority.to_owned())
}

fn assert_reset(stream: &mut TcpStream) {
    let end = stream.read(&mut [0]);
    let is_reset = end
        .as_ref()
        .is_err_and(|error| error.kind() == ErrorKind::ConnectionReset);
    assert!(is_reset, "{end:?}");
}

#[test]
fn copies_have_other_secrets_and_children_have_those_of_their_machine() {
    let host = Host::new();
    let vm = image("nginx").start(&host.config(&value()));
    let vm = vm.unwrap_or_else(|error| panic!("it does not start: {error}"));
    host.asks(&vm, &value());
    let mine = known(&vm);
    let mut kept = host.keeps(&vm);
    let place = tempfile::tempdir().expect("a directory");
    let snapshot = vm.snapshot(place.path().join("copy")).expect("a snapshot");
    assert!(is_below(place.path(), &mine.0));
    assert!(!is_below(place.path(), &value()));

    // A copy has an authority and a placeholder of its own, for the value that it was
    // given, and what it had open is over at once.
    let other = format!("{}-of-the-copy", value());
    let copy = snapshot.start(&host.config(&other)).expect("a copy");
    assert_eq!(sh(&copy, READ), "status 1 line\n");
    let its = known(&copy);
    assert!(its.0 != mine.0 && its.1 != mine.1, "{its:?}, {mine:?}");
    host.asks(&copy, &other);
    drop(copy);
    // One without secrets has neither value nor anybody who would put it in.
    let plain = NetworkPolicy::deny_all().host_port(host.secret);
    let bare = snapshot.start(&config().with_network(plain));
    let bare = bare.expect("a copy");
    assert_eq!(sh(&bare, "echo \"[$API_KEY]\""), "[]\n");
    drop(bare);

    // A child goes on with what its programs have in memory.
    let children = vm.fork(2).expect("children");
    for child in &children {
        assert_eq!(known(child), mine);
        assert_eq!(sh(child, READ), "status 1 line\n");
        host.asks(child, &value());
    }
    drop(children);

    // Of all this the machine itself has felt nothing.
    host.asks(&vm, &value());
    kept.write_all(b"still here\n").expect("the guest is there");
    assert_eq!(sh(&vm, READ), "status 0 line still here\n");
}

#[test]
fn machines_of_a_pool_keep_secrets_and_lose_connections_between_two_users() {
    let host = Host::new();
    let vm = image("nginx").start(&host.config(&value()));
    let vm = vm.unwrap_or_else(|error| panic!("it does not start: {error}"));
    let kept = host.keeps(&vm);
    let place = tempfile::tempdir().expect("a directory");
    let snapshot = vm.snapshot(place.path().join("pool")).expect("a snapshot");
    drop(vm);
    drop(kept);

    let value = format!("{}-of-the-pool", value());
    let pool = snapshot.pool().vm_config(host.config(&value));
    let pool = pool.max(1).prestart(0).build().expect("a pool");
    let mut before = None;
    for user in 0..3 {
        let vm = pool.acquire().expect("a machine");
        // The connection of the snapshot is over each time anew.
        assert_eq!(sh(&vm, READ), "status 1 line\n", "user {user}");
        sh(&vm, "rm /tmp/read /tmp/connected");
        // Nor does it say where others have been.
        let log = vm.network_log().expect("a log");
        assert!(log.iter().all(|flow| flow.port != host.secret), "{log:?}");
        let known = known(&vm);
        assert_eq!(before.get_or_insert_with(|| known.clone()), &known);
        host.asks(&vm, &value);
        let mut own = host.keeps(&vm);
        drop(vm);
        // What a user leaves open, the next one does not have.
        assert_reset(&mut own);
    }
    assert_eq!(pool.stats().spawned, 1, "one machine, which was reset");
    pool.shutdown_within(Duration::from_secs(10));
}
