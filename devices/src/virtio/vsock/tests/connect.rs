//! How connections come about, and go with the device.

use super::*;

#[test]
fn listener_client_is_bridged_to_its_guest_port() {
    let mut guest = Guest::start();
    let mut client = guest.client();
    let ports = guest.accept(1000);
    client.write_all(b"hello").unwrap();
    assert_eq!(guest.read(ports, 5), b"hello");
    guest.send(ports, b"world!");
    let mut reply = [0; 6];
    client.read_exact(&mut reply).unwrap();
    assert_eq!(&reply, b"world!");
}

#[test]
fn mux_client_chooses_its_port() {
    let mut guest = Guest::start();
    let mut client = patient(UnixStream::connect(guest.mux()).unwrap());
    client.write_all(b"CONNECT 77\nearly").unwrap();
    let ports = guest.accept(77);
    let line = read_line(&mut client);
    assert_eq!(line, format!("OK {}\n", ports.0));
    assert_eq!(guest.read(ports, 5), b"early");
    guest.send(ports, b"x");
    let mut byte = [0];
    client.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"x");
}

#[test]
fn mux_client_that_says_nonsense_is_closed() {
    let guest = Guest::start();
    let lines: [&[u8]; 5] = [
        b"HELLO 1\n",
        b"CONNECT x\n",
        b"CONNECT 4294967296\n",
        b"CONNECT 1 2\n",
        &[b'C'; 64],
    ];
    for line in lines {
        let mut client = patient(UnixStream::connect(guest.mux()).unwrap());
        client.write_all(line).unwrap();
        assert_closed(&mut client);
    }
    guest.wait_for_connections(0);
}

#[test]
fn refused_client_is_closed() {
    let mut guest = Guest::start();
    let mut listened = guest.client();
    let ports = guest.next_request();
    guest.control(ports, op::RST, 0);
    assert_closed(&mut listened);
    let mut muxed = patient(UnixStream::connect(guest.mux()).unwrap());
    muxed.write_all(b"CONNECT 5\n").unwrap();
    let ports = guest.next_request();
    guest.control(ports, op::RST, 0);
    assert_closed(&mut muxed);
    guest.wait_for_connections(0);
}

#[test]
fn clients_before_the_driver_wait_for_it() {
    let mut guest = Guest::not_ready();
    let mut clients: Vec<_> = (0..100).map(|_| guest.client()).collect();
    for (index, client) in (0u8..).zip(&mut clients) {
        client.write_all(&[index]).unwrap();
    }
    guest.boot();
    let mut seen = Vec::new();
    for _ in 0..100 {
        let ports = guest.accept(guest::PORT);
        seen.extend(guest.read(ports, 1));
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..100).collect::<Vec<u8>>());
}

#[test]
fn sockets_are_private_and_go_with_the_device() {
    let guest = Guest::not_ready();
    let (mux, exec) = (guest.mux(), guest.exec());
    for path in [&mux, &exec] {
        let mode = std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let Guest {
        driver, dir: _dir, ..
    } = guest;
    drop(driver);
    assert!(!mux.exists() && !exec.exists());
}

#[test]
fn sockets_that_were_made_elsewhere_serve_and_keep_their_paths() {
    let dir = tempfile::tempdir().unwrap();
    let [mux, exec] = ["mux", "exec"].map(|name| dir.path().join(name));
    let open = |path| VsockSocket::Open(VsockSocket::listen(path).unwrap().into());
    let config = VsockConfig {
        guest_cid: CID,
        mux: Some(open(&mux)),
        listeners: vec![VsockListener {
            socket: open(&exec),
            guest_port: guest::PORT,
        }],
        ..VsockConfig::default()
    };
    for path in [&mux, &exec] {
        let mode = std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    // A client that comes before the device waits for it.
    let mut early = patient(UnixStream::connect(&exec).unwrap());
    let mut guest = Guest::with(config);
    guest.boot();
    let ports = guest.accept(guest::PORT);
    early.write_all(b"early").unwrap();
    assert_eq!(guest.read(ports, 5), b"early");
    let mut muxed = patient(UnixStream::connect(&mux).unwrap());
    muxed.write_all(b"CONNECT 77\nhello").unwrap();
    let ports = guest.accept(77);
    assert_eq!(guest.read(ports, 5), b"hello");
    // Without a stem the guest reaches nothing, whatever is there.
    let _nobody = UnixListener::bind(dir.path().join("mux_9")).unwrap();
    assert!(!guest.connect((9, 5000)));
    drop(guest);
    assert!(mux.exists() && exec.exists());
    assert!(
        UnixStream::connect(&exec).is_err(),
        "nobody listens any more"
    );
}

#[test]
fn existing_paths_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("taken");
    std::fs::write(&path, "mine").unwrap();
    let reactor = MioReactor::spawn().unwrap();
    let config = VsockConfig {
        guest_cid: CID,
        mux: Some(path.as_path().into()),
        ..VsockConfig::default()
    };
    let outcome = Vsock::<Ram>::new(config, reactor.handle());
    assert!(matches!(outcome, Err(VsockError::Bind { .. })));
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
}

#[test]
fn reserved_context_ids_are_refused() {
    let reactor = MioReactor::spawn().unwrap();
    for guest_cid in [0, 1, 2, u64::from(u32::MAX), u64::MAX] {
        let config = VsockConfig {
            guest_cid,
            ..VsockConfig::default()
        };
        let outcome = Vsock::<Ram>::new(config, reactor.handle());
        assert!(matches!(outcome, Err(VsockError::BadCid(_))));
    }
}

#[test]
fn guest_reaches_sockets_beside_the_mux_path() {
    let mut guest = Guest::start();
    let listener = UnixListener::bind(guest.dir.path().join("mux_9")).unwrap();
    assert!(guest.connect((9, 5000)));
    let mut server = patient(listener.accept().unwrap().0);
    guest.send((9, 5000), b"ping");
    let mut data = [0; 4];
    server.read_exact(&mut data).unwrap();
    assert_eq!(&data, b"ping");
    server.write_all(b"pong").unwrap();
    assert_eq!(guest.read((9, 5000), 4), b"pong");
    assert!(!guest.connect((10, 5000)), "nobody listens there");
    // A second request for a connection that exists ends it.
    guest.control((9, 5000), op::REQUEST, 0);
    guest.wait("reset", |guest| guest.streams[&(9, 5000)].reset);
    assert_closed(&mut server);
}

#[test]
fn reset_closes_connections_and_the_next_driver_serves_again() {
    let mut guest = Guest::start();
    let mut client = guest.client();
    guest.accept(guest::PORT);
    guest.driver.write(0x070, 0);
    assert_closed(&mut client);
    let mut waiting = guest.client();
    guest.streams.clear();
    guest.boot();
    let ports = guest.accept(guest::PORT);
    waiting.write_all(b"again").unwrap();
    assert_eq!(guest.read(ports, 5), b"again");
}

#[test]
fn restored_guest_hears_that_its_connections_are_gone() {
    let mut guest = Guest::start();
    let client = guest.client();
    guest.accept(guest::PORT);
    guest.poll();
    guest.driver.queues[2].push(&[Buffer::Writable {
        addr: 0x8_0000,
        len: 8,
    }]);
    let state = guest.driver.device.state();
    let reactor = MioReactor::spawn().unwrap();
    let restore = |guest_cid| {
        let config = VsockConfig {
            guest_cid,
            ..VsockConfig::default()
        };
        let vsock = Vsock::new(config, reactor.handle()).unwrap();
        let (ram, irq) = (guest.ram.clone(), guest.driver.irq.clone());
        let device = VirtioMmio::new(ram, irq, Box::new(vsock));
        device.restore(&state).map(|()| device)
    };
    assert!(restore(CID + 1).is_err());
    let device = restore(CID).unwrap();
    guest
        .ram
        .write_obj(u32::MAX, GuestAddress(0x8_0000))
        .unwrap();
    guest.driver.device = Arc::new(device);
    guest.driver.notify(2);
    drop(client);
    let event: u32 = guest.ram.read_obj(GuestAddress(0x8_0000)).unwrap();
    assert!(guest.driver.queues[2].poll().is_some() && event != 1);
}

#[test]
fn two_thousand_connections_echo() {
    const COUNT: usize = 2000;
    let mut guest = Guest::start();
    let mut clients = Vec::new();
    let mut ports = Vec::new();
    // Accept as we go: the backlog is not that deep.
    for index in 0..COUNT {
        let mut client = guest.client();
        client.write_all(&index.to_le_bytes()).unwrap();
        clients.push(client);
        ports.push(guest.accept(guest::PORT));
    }
    guest.wait_for_connections(COUNT);
    for &ports in &ports {
        let data = guest.read(ports, 8);
        guest.send(ports, &data);
    }
    for (index, client) in clients.iter_mut().enumerate() {
        let mut data = [0; 8];
        client.read_exact(&mut data).unwrap();
        assert_eq!(usize::from_le_bytes(data), index);
    }
    drop(clients);
    for ports in ports {
        guest.wait("shutdown", |guest| guest.streams[&ports].shutdown == 3);
        guest.control(ports, op::RST, 0);
    }
    guest.wait_for_connections(0);
}
