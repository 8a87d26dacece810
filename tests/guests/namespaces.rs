//! What befalls a host's network, and what its guests notice. These tests run once more
//! inside a network and with mounts of their own, where the host permits that to nobody
//! in particular (unshare(1)); where it does not, they say so and test nothing.

use std::net::{Ipv4Addr, UdpSocket};
use std::process::Command;
use std::thread;

use supermachine::{Network, Vm};
use supermachine_tests::{config, image, sh};

use crate::network::{CURL, LONG_BYTES, digest, long, reaching, server, start};

/// Set for the second run of a test.
const INSIDE: &str = "SUPERMACHINE_TEST_INSIDE";

/// Whether this is the second run of the test of this name. In the first one, makes that.
fn is_inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let apart = || {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "--net"]);
        command.args(["sh", "-c", r#"ip link set lo up && exec "$@""#, "sh"]);
        command
    };
    let tried = apart().arg("true").output();
    if !tried.as_ref().is_ok_and(|tried| tried.status.success()) {
        eprintln!("skipped: {test}: no namespaces here: {tried:?}");
        return false;
    }
    let own = std::env::current_exe().expect("a path");
    let run = apart()
        .arg(own)
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .expect("it was tried");
    let said = String::from_utf8_lossy(&run.stderr);
    eprintln!("{said}");
    let passed = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{passed}");
    assert!(passed.contains("1 passed"), "{test} is no test: {passed}");
    false
}

/// Runs a command of the host's; what it says if it fails.
fn host(script: &str) -> Result<(), String> {
    let run = Command::new("sh").args(["-c", script]).output();
    let run = run.expect("a shell");
    match run.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&run.stderr).trim().to_owned()),
    }
}

/// Has the host's loopback interface lose what is sent over it; how.
fn impair() -> Result<&'static str, String> {
    const NETEM: &str =
        "tc qdisc add dev lo root netem delay 3ms 2ms loss 2% duplicate 1% reorder 5%";
    const FILTER: &str = "for filter in iptables ip6tables; do \
         $filter -A INPUT -i lo -m statistic --mode random --probability 0.02 -j DROP || exit; \
         done; tc qdisc add dev lo root tbf rate 400mbit burst 128kb latency 20ms";
    let refused = match host(NETEM) {
        Ok(()) => return Ok("netem: lost, late, repeated and out of order"),
        Err(refused) => refused,
    };
    match host(FILTER) {
        Ok(()) => Ok("a filter: lost and slow"),
        Err(also) => Err(format!("netem: {refused}; a filter: {also}")),
    }
}

/// Segments that this host's TCP has sent again.
fn sent_again() -> u64 {
    let said = std::fs::read_to_string("/proc/net/snmp").expect("figures");
    let mut lines = said.lines().filter(|line| line.starts_with("Tcp:"));
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    let mut both = names.split(' ').zip(values.split(' '));
    let value = both.find_map(|(name, value)| (name == "RetransSegs").then_some(value));
    value.expect("RetransSegs").parse().expect("a number")
}

#[test]
fn streams_are_whole_over_a_host_that_loses_and_delays() {
    if !is_inside("namespaces::streams_are_whole_over_a_host_that_loses_and_delays") {
        return;
    }
    let port = server();
    let vm = start(&reaching(&[port]));
    match impair() {
        Ok(how) => eprintln!("by {how}"),
        Err(why) => return eprintln!("skipped: nothing is lost here: {why}"),
    }
    let url = format!("http://host.supermachine.internal:{port}");
    let script = format!(
        "for n in 1 2 3 4 5 6; do {CURL} {url}/long | sha256sum | cut -d' ' -f1 & done; wait; \
         head -c {LONG_BYTES} /dev/urandom > /tmp/up; \
         for n in 1 2 3 4; do {CURL} -H Expect: --data-binary @/tmp/up {url}/digest & done; \
         wait; sha256sum < /tmp/up | cut -d' ' -f1"
    );
    let said = sh(&vm, &script);
    let (down, up) = said.split_at(6 * 65);
    let wanted = digest(&long());
    assert!(down.lines().all(|line| line == wanted), "{down}");
    let (up, wanted) = up.split_at(4 * 64);
    assert_eq!(up, wanted.trim().repeat(4));
    // One after the other, each with its own beginning and end.
    let script = format!("for n in $(seq 40); do {CURL} {url}/ || echo failed; done | uniq -c");
    assert_eq!(sh(&vm, &script).trim(), "40 hello from the host");
    assert!(sent_again() > 0, "nothing was lost");
}

/// A name server on this address: every name has the address `answer`, and that as its text.
fn name_server(address: Ipv4Addr, answer: Ipv4Addr) -> Result<(), String> {
    let socket = UdpSocket::bind((address, 53)).map_err(|error| format!("port 53: {error}"))?;
    thread::spawn(move || {
        let mut question = [0; 512];
        while let Ok((bytes, from)) = socket.recv_from(&mut question) {
            if let Some(reply) = reply(&question[..bytes], answer) {
                // Whoever asked may be gone.
                let _ = socket.send_to(&reply, from);
            }
        }
    });
    Ok(())
}

/// The answer to a question (RFC 1035, 4.1).
fn reply(question: &[u8], answer: Ipv4Addr) -> Option<Vec<u8>> {
    let name = question.get(12..)?.iter().position(|byte| *byte == 0)?;
    let end = 12 + name + 5;
    let kind = *question.get(end - 3)?;
    let data = match kind {
        1 => answer.octets().to_vec(),
        16 => {
            let text = answer.to_string();
            [&[u8::try_from(text.len()).ok()?], text.as_bytes()].concat()
        }
        _ => Vec::new(),
    };
    let mut reply = question.get(..end)?.to_vec();
    reply[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(!data.is_empty()), 0, 0, 0, 0]);
    if !data.is_empty() {
        reply.extend([0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 0]);
        reply.extend(u16::try_from(data.len()).ok()?.to_be_bytes());
        reply.extend(data);
    }
    Some(reply)
}

/// What the guest is told of a name.
fn told(vm: &Vm) -> String {
    sh(vm, "dig +short name.example A; dig +short name.example TXT")
}

#[test]
fn resolver_that_changes_answers_what_is_asked_from_then_on() {
    if !is_inside("namespaces::resolver_that_changes_answers_what_is_asked_from_then_on") {
        return;
    }
    let servers = [
        (Ipv4Addr::new(127, 0, 0, 11), Ipv4Addr::new(9, 9, 9, 11)),
        (Ipv4Addr::new(127, 0, 0, 12), Ipv4Addr::new(9, 9, 9, 12)),
    ];
    let line = |server: usize| format!("nameserver {}\n", servers[server].0);
    let said = |server: usize| {
        let answer = servers[server].1;
        format!("{answer}\n\"{answer}\"\n")
    };
    let place = tempfile::tempdir().expect("a directory");
    let etc = place.path().join("etc");
    let etc = etc.display();
    // What is not readable is not needed.
    let prepared = host(&format!(
        "mkdir {etc}; cp -a /etc/. {etc}/ 2>/dev/null; rm -f {etc}/resolv.conf; \
         echo 'hosts: files dns' > {etc}/nsswitch.conf && printf '{}' > {etc}/resolv.conf && \
         mount --bind {etc} /etc",
        line(0)
    ));
    let listen = |(address, answer): &(Ipv4Addr, Ipv4Addr)| name_server(*address, *answer);
    let prepared = prepared.and_then(|()| servers.iter().try_for_each(listen));
    if let Err(why) = prepared {
        return eprintln!("skipped: the resolver cannot be changed here: {why}");
    }
    let config = config().with_memory_mib(512);
    let vm = image("clients").start(&config.with_network(Network::AllowAll));
    let vm = vm.unwrap_or_else(|error| panic!("it does not start: {error}"));
    assert_eq!(told(&vm), said(0));
    // Put in its place, as network managers do.
    std::fs::write("/etc/resolv.conf.new", line(1)).expect("a file");
    std::fs::rename("/etc/resolv.conf.new", "/etc/resolv.conf").expect("it is there");
    assert_eq!(told(&vm), said(1));
    // Written over.
    std::fs::write("/etc/resolv.conf", line(0)).expect("a file");
    assert_eq!(told(&vm), said(0));
    // None for a while, and then one again.
    std::fs::remove_file("/etc/resolv.conf").expect("it was there");
    let failed = sh(
        &vm,
        "dig +time=100 +tries=1 name.example A | grep -c SERVFAIL",
    );
    assert_eq!(failed, "1\n");
    std::fs::write("/etc/resolv.conf", line(1)).expect("a file");
    assert_eq!(told(&vm), said(1));
}
