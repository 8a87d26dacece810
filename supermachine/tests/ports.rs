//! Ports of the host that lead to services of guests without a network.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};
use supermachine::{Error, Trigger, Vm, running};
use support::shelf::*;
use support::*;

/// A guest's port on which everything is repeated.
const REPEATS: u16 = 7;
/// Another, of a service that listens on 127.0.0.1 alone: files.
const FILES: u16 = 8080;

/// Starts services, and waits until they are there.
fn serve(vm: &Vm) {
    sh(
        vm,
        "echo page > /tmp/page; \
         (busybox nc -ll -p 7 -e cat; :) > /dev/null 2>&1 < /dev/null & \
         busybox httpd -p 127.0.0.1:8080 -h /tmp; \
         until busybox netstat -ltn | grep -q ':7 '; do sleep 0.05; done",
    );
}

fn connect(to: impl std::net::ToSocketAddrs) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn said(stream: &mut (impl Read + Write), word: &str) -> String {
    stream.write_all(word.as_bytes()).unwrap();
    let mut answer = vec![0; word.len()];
    stream.read_exact(&mut answer).unwrap();
    String::from_utf8(answer).unwrap()
}

/// What a web server answers.
fn page(mut stream: TcpStream) -> String {
    stream.write_all(b"GET /page HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The ports that `ps` shows of a machine.
fn shown(vm: &Vm) -> Vec<String> {
    let found = running::find(vm.id()).unwrap();
    found.description.ports
}

#[test]
fn services_of_a_guest_without_a_network_are_reached() {
    let shelf = Shelf::new("exposed");
    let image = shelf.bake();
    let vm = image.start(&library_config()).unwrap();
    serve(&vm);
    let repeats = vm.expose_tcp(0, REPEATS).unwrap();
    let files = vm.expose_tcp(0, FILES).unwrap();
    assert!(repeats.local_addr().ip().is_loopback());

    // Two at a time, and an end in one direction that leaves the other open.
    let mut first = connect(repeats.local_addr());
    assert_eq!(said(&mut first, "one"), "one");
    let mut second = connect(repeats.local_addr());
    assert_eq!(said(&mut second, "two"), "two");
    // More than fits on the way there and back.
    let mut writer = second.try_clone().unwrap();
    let sender = thread::spawn(move || {
        writer.write_all(&vec![b'x'; 3 << 20]).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut rest = Vec::new();
    second.read_to_end(&mut rest).unwrap();
    sender.join().unwrap();
    assert!(rest.len() == 3 << 20 && rest.iter().all(|byte| *byte == b'x'));
    let answer = page(connect(files.local_addr()));
    assert!(answer.ends_with("page\n"), "{answer}");

    // Nobody else gets the port, and it is free when it was stopped.
    let port = repeats.local_addr().port();
    let taken = vm.expose_tcp(port, REPEATS).unwrap_err();
    assert!(matches!(&taken, Error::PortInUse { address } if address.contains(&port.to_string())));
    assert_eq!(
        shown(&vm),
        [
            format!("127.0.0.1:{port}->7/tcp"),
            format!("{}->8080/tcp", files.local_addr())
        ]
    );
    repeats.stop();
    repeats.stop();
    assert_eq!(said(&mut first, "still"), "still");
    assert_eq!(shown(&vm).len(), 1);
    let free = TcpListener::bind(repeats.local_addr()).unwrap();
    drop(free);

    // Another process of this user, by the machine's id.
    let other = running::find(vm.id()).unwrap();
    let again = other.expose_tcp(0, REPEATS).unwrap();
    assert_eq!(said(&mut connect(again.local_addr()), "other"), "other");

    // A socket, for this user alone, and not over something else.
    let path = shelf.0.join("s");
    let socket = vm.expose_unix(&path, REPEATS).unwrap();
    let mode = path.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut stream = UnixStream::connect(socket.path()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(said(&mut stream, "unix"), "unix");
    let taken = vm.expose_unix(&path, REPEATS).unwrap_err();
    assert!(matches!(taken, Error::PortInUse { .. }), "{taken}");
    drop(socket);
    assert!(!path.exists());

    // A client of a port without a service is reset, and not told of an empty answer.
    let nobody = vm.expose_tcp(0, 9).unwrap();
    let refused = connect(nobody.local_addr()).read(&mut [0]).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionReset);
    assert!(vm.expose_tcp(0, 0).is_err());

    // Ports end with their machine, and so do connections.
    let address = files.local_addr();
    vm.stop().unwrap();
    let refused = TcpStream::connect(address).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    // With or without a reset: it is over.
    assert_eq!(first.read(&mut [0]).unwrap_or(0), 0);
    files.stop();
}

#[test]
fn ports_of_a_lease_end_with_it_and_a_reset_machine_is_reached_anew() {
    let shelf = Shelf::new("leased");
    let image = shelf.bake();
    let builder = image.pool().vm_config(library_config()).max(1);
    let pool = builder.build().unwrap();
    let vm = pool.acquire().unwrap();
    let worker = worker_of(&vm);
    serve(&vm);
    let port = vm.expose_tcp(0, REPEATS).unwrap();
    let mut stream = connect(port.local_addr());
    assert_eq!(said(&mut stream, "one"), "one");
    drop(vm);
    // The next lease has nothing of it.
    let refused = TcpStream::connect(port.local_addr()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);

    let vm = pool.acquire().unwrap();
    assert_eq!(worker_of(&vm), worker, "the same, reset");
    serve(&vm);
    let port = vm.expose_tcp(0, REPEATS).unwrap();
    assert_eq!(said(&mut connect(port.local_addr()), "anew"), "anew");
    // A child has services of its own, and ports of its own.
    let child = vm.fork(1).unwrap().remove(0);
    let childs = child.expose_tcp(0, FILES).unwrap();
    sh(&child, "echo child > /tmp/page");
    let answer = page(connect(childs.local_addr()));
    assert!(answer.ends_with("child\n"), "{answer}");
    assert_eq!(said(&mut connect(port.local_addr()), "parent"), "parent");
    assert!(shown(&child).len() == 1 && shown(&vm).len() == 1);
    drop((child, vm));
    pool.shutdown();
}

#[test]
fn published_ports_of_a_detached_machine_are_reached_and_shown() {
    let sandbox = Sandbox::new();
    let script = "busybox nc -ll -p 7 -e cat";
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = format!("{}:7", held.local_addr().unwrap());
    let options = ["run", "-d", "-p", &taken, busybox(), "sh", "-c", script];
    let run = sandbox.run(&options);
    assert_eq!(run.code(), 125, "{}", run.err());
    assert!(run.err().contains("is in use"), "{}", run.err());
    let options = [
        "run",
        "-d",
        "--name",
        "echo",
        "-p",
        ":7",
        busybox(),
        "sh",
        "-c",
        script,
    ];
    let run = sandbox.run(&options);
    assert_eq!(run.code(), 0, "{}", run.err());
    let ps = sandbox.run(&["ps", "--format", "{{.Ports}}"]).out();
    let (address, guest) = ps.trim().split_once("->").unwrap_or_else(|| panic!("{ps}"));
    assert_eq!(guest, "7/tcp");
    // The command has begun, and may not listen yet.
    let begun = Instant::now();
    let answer = loop {
        let mut stream = connect(address);
        let mut answer = [0; 2];
        // Either may fail while the guest refuses.
        if stream.write_all(b"hi").is_ok() && stream.read_exact(&mut answer).is_ok() {
            break answer;
        }
        assert!(begun.elapsed() < PATIENCE);
        thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(&answer, b"hi");
    assert_eq!(sandbox.run(&["rm", "-f", "echo"]).code(), 0);
    let refused = TcpStream::connect(address).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn copy_of_a_bake_that_waited_for_its_port_answers_the_first_client() {
    let shelf = Shelf::new("answering");
    let image = shelf
        .builder()
        .cmd(["busybox", "nc", "-ll", "-p", "7", "-e", "cat"])
        .guest_port(REPEATS)
        .trigger(Trigger::Listener)
        .build()
        .unwrap();
    for _ in 0..2 {
        let vm = copy(&image);
        let port = vm.expose_tcp(0, REPEATS).unwrap();
        assert_eq!(said(&mut connect(port.local_addr()), "first"), "first");
    }
}
