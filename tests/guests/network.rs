//! What a guest with a network reaches: servers of these tests, on the host's
//! loopback interface.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_linger;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};
use sha2::{Digest, Sha256};
use supermachine::{
    Command, Error, Network, NetworkCause, NetworkEnd, NetworkFlow, NetworkPolicy, NetworkVerdict,
    Vm, VmConfig, running,
};
use supermachine_tests::{config, image, sh};

/// Bytes of the long answer, which are no multiple of anything.
pub const LONG_BYTES: usize = 3_000_017;

/// Bytes a second of a machine that is limited.
const RATE: u64 = 2_000_000;

pub fn long() -> Vec<u8> {
    let mut state = 1_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(LONG_BYTES).collect()
}

pub fn digest(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Serves one request of a connection: `/` with a word, `/long` with much, and
/// everything that is sent with its digest.
fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let header = header.trim().to_ascii_lowercase();
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        if header.is_empty() {
            break;
        }
    }
    let mut sent = vec![0; length];
    reader.read_exact(&mut sent)?;
    let body = match path.as_str() {
        "/long" => long(),
        "/digest" => digest(&sent).into_bytes(),
        _ => b"hello from the host\n".to_vec(),
    };
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    )?;
    stream.write_all(&body)
}

/// A web server; the number of its port.
pub fn server() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let port = listener.local_addr().expect("it has one").port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that went away is its own affair.
            thread::spawn(move || drop(serve(stream)));
        }
    });
    port
}

/// Takes connections and gives them to the test.
pub fn accepting(listener: TcpListener) -> (u16, Receiver<TcpStream>) {
    let port = listener.local_addr().expect("it has one").port();
    let (send, accepted) = channel();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if send.send(stream).is_err() {
                return;
            }
        }
    });
    (port, accepted)
}

pub fn reaching(ports: &[u16]) -> VmConfig {
    let policy = NetworkPolicy::allow_all();
    config().with_network(ports.iter().copied().fold(policy, NetworkPolicy::host_port))
}

pub fn start(config: &VmConfig) -> Vm {
    let started = image("nginx").start(config);
    started.unwrap_or_else(|error| panic!("it does not start: {error}"))
}

/// `curl` as these tests use it: a slow host is given time.
pub const CURL: &str = "curl -sS -m 100 ";

#[test]
fn guest_fetches_from_and_sends_to_a_listed_port_of_the_host() {
    let port = server();
    let vm = start(&reaching(&[port]));
    let url = format!("http://host.supermachine.internal:{port}");
    assert_eq!(sh(&vm, &format!("{CURL} {url}/")), "hello from the host\n");
    let downloaded = sh(&vm, &format!("{CURL} {url}/long | sha256sum"));
    assert_eq!(downloaded.split(' ').next(), Some(&*digest(&long())));
    let script = format!(
        "head -c 2000003 /dev/urandom > /tmp/up; \
         sha256sum < /tmp/up | cut -d' ' -f1; \
         {CURL} -H Expect: --data-binary @/tmp/up {url}/digest"
    );
    let uploaded = sh(&vm, &script);
    let (wanted, got) = uploaded.split_once('\n').expect("two lines");
    assert_eq!(wanted, got);
    // What became of the connections is written down, once they are over.
    let long_one = |flow: &NetworkFlow| flow.received_bytes > LONG_BYTES as u64;
    let begun = Instant::now();
    let flow = loop {
        let log = vm.network_log().expect("a log");
        if let Some(flow) = log.into_iter().find(long_one) {
            break flow;
        }
        assert!(begun.elapsed() < Duration::from_secs(100), "it never ended");
        thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(flow.name.as_deref(), Some("host.supermachine.internal"));
    assert_eq!((flow.port, flow.cause), (port, NetworkCause::HostPort));
    assert_eq!(
        (flow.verdict, flow.end),
        (NetworkVerdict::Allow, NetworkEnd::Closed)
    );
    // Its one vCPU never sleeps: nobody waits for that before there are frames.
    let script = format!(
        "while :; do :; done & {CURL} {url}/long | sha256sum; kill $!; \
         while :; do :; done & {CURL} -H Expect: --data-binary @/tmp/up {url}/digest; kill $!"
    );
    let busy = sh(&vm, &script);
    let down_and_up = busy.replace("  -\n", " ");
    assert_eq!(down_and_up, format!("{} {got}", digest(&long())));
    // Several at once, and one after the other.
    let script = format!(
        "for n in 1 2 3 4; do {CURL} {url}/long | sha256sum > /tmp/$n & done; wait; \
         cat /tmp/[1234] | sort -u | wc -l; \
         for n in $(seq 30); do {CURL} {url}/ || echo failed; done | sort -u"
    );
    assert_eq!(sh(&vm, &script), "1\nhello from the host\n");
    // The resolver knows the host, too.
    let script = format!(
        "sed /internal/d /etc/hosts > /tmp/hosts; cat /tmp/hosts > /etc/hosts; {CURL} {url}/"
    );
    assert_eq!(sh(&vm, &script), "hello from the host\n");
}

/// Where this host is reached by others, if it is private.
fn private_address() -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // Nothing is sent: the host only chooses the address it would send from.
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    match socket.local_addr().ok()? {
        SocketAddr::V4(address) if address.ip().is_private() => Some(*address.ip()),
        _ => None,
    }
}

fn metadata_service() -> IpAddr {
    [169, 254, 169, 254].into()
}

#[test]
fn nothing_private_is_reached_that_is_not_listed() {
    // At all addresses of the host, of both families if it has both.
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0))
        .or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)))
        .expect("a port is free");
    listener.set_nonblocking(true).expect("it can be polled");
    let port = listener.local_addr().expect("it has one").port();
    let vm = start(&reaching(&[server()]));
    let mut hosts: Vec<String> = [
        "host.supermachine.internal",
        "192.168.127.1",
        "169.254.169.254",
        "10.0.0.1",
        "172.17.0.1",
        "100.100.100.200",
        "127.1.2.3",
        "0.0.0.0",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "[fd00:ec2::254]",
    ]
    .map(str::to_owned)
    .to_vec();
    if let Some(address) = private_address() {
        hosts.extend([address.to_string(), format!("[::ffff:{address}]")]);
    }
    for host in &hosts {
        // Refused, and never silence.
        let script = format!("{CURL} -o /dev/null http://{host}:{port}/ 2>/dev/null; echo $?");
        let status = sh(&vm, &script);
        assert_eq!(status, "7\n", "{host}");
    }
    let accepted = listener.accept();
    let none = accepted
        .as_ref()
        .is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
    assert!(none, "{accepted:?}");
    // And it is all written down.
    let stats = vm.stats().expect("figures").network.expect("a network");
    let log = vm.network_log().expect("a log");
    let metadata = log.iter().find(|flow| flow.address == metadata_service());
    let metadata = metadata.expect("it was tried");
    assert_eq!(metadata.verdict, NetworkVerdict::Deny);
    assert_eq!(metadata.cause, NetworkCause::NotPublic);
    assert_eq!((metadata.port, metadata.end), (port, NetworkEnd::Denied));
    let denied = log
        .iter()
        .filter(|flow| flow.verdict == NetworkVerdict::Deny);
    assert_eq!(stats.refused, denied.count() as u64, "{log:?}");
}

/// A program that connects, waits for a line, and writes down what became of that.
fn reader(gateway: &str, port: u16, name: &str) -> String {
    format!(
        "exec 3<>/dev/tcp/{gateway}/{port}\n\
         echo ready >&3\n\
         touch /tmp/connected-{name}\n\
         read line <&3\n\
         echo \"status $? line $line\" > /tmp/read-{name}\n"
    )
}

#[test]
fn copies_lose_connections_at_once_and_make_others() {
    let mut remotes = vec![("192.168.127.1", "v4", Ipv4Addr::LOCALHOST.into())];
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
        let loopback: IpAddr = Ipv6Addr::LOCALHOST.into();
        remotes.push(("fd53:4d00::1", "v6", loopback));
    }
    let listening = remotes.iter().map(|(_, _, loopback)| {
        let listener = TcpListener::bind((*loopback, 0)).expect("a port is free");
        accepting(listener)
    });
    let listening: Vec<_> = listening.collect();
    let web = server();
    let ports = listening.iter().map(|(port, _)| *port);
    let ports: Vec<u16> = ports.chain([web]).collect();
    let vm = start(&reaching(&ports));
    let patience = Duration::from_secs(100);
    let mut kept = Vec::new();
    for ((gateway, name, _), (port, accepted)) in remotes.iter().zip(&listening) {
        let program = reader(gateway, *port, name);
        let file = format!("/tmp/reader-{name}");
        vm.write_file(&file, program.as_bytes()).expect("a file");
        let script = format!(
            "bash {file} < /dev/null > /tmp/log 2>&1 & \
             for n in $(seq 900); do [ -e /tmp/connected-{name} ] && exit; sleep 0.1; done; \
             cat /tmp/log >&2; false"
        );
        sh(&vm, &script);
        let mut stream = accepted.recv_timeout(patience).expect("the guest connects");
        stream.set_read_timeout(Some(patience)).expect("a limit");
        let mut ready = [0; 6];
        stream.read_exact(&mut ready).expect("the guest writes");
        let wait =
            format!("until [ -s /tmp/read-{name} ]; do sleep 0.1; done; cat /tmp/read-{name}");
        kept.push((stream, wait));
    }
    let place = tempfile::tempdir().expect("a directory");
    let snapshot = vm.snapshot(place.path().join("copy")).expect("a snapshot");
    let fetch = format!("{CURL} http://host.supermachine.internal:{web}/ 2>/dev/null; echo $?");

    let policy = NetworkPolicy::deny_all().host_port(web).rate_in(RATE);
    let copy = snapshot.start(&config().with_network(policy));
    let copy = copy.expect("a copy");
    // Its programs heard that the connections are over.
    for (_, wait) in &kept {
        assert_eq!(sh(&copy, wait), "status 1 line \n");
    }
    assert_eq!(sh(&copy, &fetch), "hello from the host\n0\n");
    // It is given as much as it may take, and not faster.
    let begun = Instant::now();
    let script = format!("{CURL} http://host.supermachine.internal:{web}/long | sha256sum");
    let downloaded = sh(&copy, &script);
    assert_eq!(downloaded.split(' ').next(), Some(&*digest(&long())));
    let beyond_burst = LONG_BYTES as u64 - RATE / 10;
    assert!(begun.elapsed() >= Duration::from_millis(beyond_burst * 1000 / RATE));
    let stats = copy.stats().expect("figures").network.expect("a network");
    assert!(stats.waits > 0, "{stats:?}");
    drop(copy);
    // What a copy may reach, its snapshot does not say.
    let shut = snapshot.start(&config()).expect("a copy");
    assert_eq!(sh(&shut, &fetch), "7\n");
    drop(shut);
    // The machine it was copied from has its connections still.
    for (stream, wait) in &mut kept {
        stream
            .write_all(b"still here\n")
            .expect("the guest is there");
        assert_eq!(sh(&vm, wait), "status 0 line still here\n");
    }
    assert_eq!(sh(&vm, &fetch), "hello from the host\n0\n");
}

/// The worker of a machine of this name.
fn worker(name: &str) -> Pid {
    let found = running::find(name).expect("it runs");
    let pid = found.description.worker_pid;
    Pid::from_raw(pid.try_into().expect("a process")).expect("a process")
}

/// Waits until a process is stopped by a signal, or is not any more.
fn wait_until_stopped(pid: Pid, is_stopped: bool) {
    let path = format!("/proc/{}/stat", pid.as_raw_nonzero());
    let begun = Instant::now();
    loop {
        let stat = std::fs::read_to_string(&path).expect("it is there");
        let (_, state) = stat.rsplit_once(") ").expect("its name is in brackets");
        if state.starts_with('T') == is_stopped {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(100), "{stat}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Reads a line that the guest wrote.
fn line_of(stream: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    stream.read_line(&mut line).expect("the guest writes");
    line
}

/// What one program of the guest does, told by the host over its connection: it fetches
/// when it has read a line, says when it has asked once more for what was not answered,
/// then what came of it; and then it reads another line.
const TOLD: &str = r"
exec 3<>/dev/tcp/192.168.127.1/$1 4<>/dev/tcp/192.168.127.1/$1
echo kept >&3
echo doomed >&4
read line <&3
curl -sS -m 100 http://192.168.127.1:$2/ > /tmp/fetched 2>&1 &
until grep -q ' 02 [0-9A-F:]* [0-9A-F:]* 0000000[1-9A-F] ' /proc/net/tcp; do sleep 0.1; done
echo asked again >&3
wait
cat /tmp/fetched >&3
read line <&3
echo $line >&3
read line <&4
echo status $? >&3
curl -sS -m 100 http://192.168.127.1:$2/ >&3
";

#[test]
fn guest_goes_on_when_its_worker_was_out_of_descriptors_or_stood_still() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let (port, accepted) = accepting(listener);
    let web = server();
    let name = format!("stands-still-{}", std::process::id());
    let vm = start(&reaching(&[port, web]).with_name(&name));
    let worker = worker(&name);
    let child = vm.spawn(&Command::new([
        "bash",
        "-c",
        TOLD,
        "bash",
        &port.to_string(),
        &web.to_string(),
    ]));
    let child = child.expect("a program");
    let patience = Duration::from_secs(100);
    let mut streams = [(); 2].map(|()| {
        let stream = accepted.recv_timeout(patience).expect("the guest connects");
        stream.set_read_timeout(Some(patience)).expect("a limit");
        let mut stream = BufReader::new(stream);
        (line_of(&mut stream), stream)
    });
    // They may be accepted in either order.
    streams.sort_by(|(one, _), (other, _)| other.cmp(one));
    let [(kept_says, mut kept), (doomed_says, doomed)] = streams;
    assert_eq!((&*kept_says, &*doomed_says), ("kept\n", "doomed\n"));

    // No descriptor is left: what is open goes on, and what is new waits.
    let none = Rlimit {
        current: Some(0),
        ..getrlimit(Resource::Nofile)
    };
    let before = prlimit(Some(worker), Resource::Nofile, none).expect("a limit");
    kept.get_mut().write_all(b"fetch\n").expect("it is open");
    assert_eq!(line_of(&mut kept), "asked again\n");
    prlimit(Some(worker), Resource::Nofile, before).expect("a limit");
    assert_eq!(line_of(&mut kept), "hello from the host\n");

    // It stands still, as when a host is suspended: what came meanwhile is there afterwards,
    // and who went away is known to have gone.
    kill_process(worker, Signal::STOP).expect("a signal");
    wait_until_stopped(worker, true);
    kept.get_mut()
        .write_all(b"still here\n")
        .expect("it is open");
    set_socket_linger(doomed.get_ref(), Some(Duration::ZERO)).expect("it is a socket");
    drop(doomed);
    thread::sleep(Duration::from_secs(2));
    kill_process(worker, Signal::CONT).expect("a signal");
    assert_eq!(line_of(&mut kept), "still here\n");
    assert_eq!(line_of(&mut kept), "status 1\n");
    assert_eq!(line_of(&mut kept), "hello from the host\n");
    assert!(child.wait().expect("it ends").success());
}

#[test]
fn copies_have_an_interface_only_if_their_snapshot_has_one() {
    let vm = start(&config());
    assert_eq!(sh(&vm, "ls /sys/class/net | grep -c eth; true"), "0\n");
    let place = tempfile::tempdir().expect("a directory");
    let snapshot = vm.snapshot(place.path().join("copy")).expect("a snapshot");
    let refused = snapshot.start(&config().with_network(Network::AllowAll));
    assert!(matches!(refused, Err(Error::Unsuitable { .. })));
}
