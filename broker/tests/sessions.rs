//! Guests, hosts of secrets, and the broker between them, over sockets of this process.

mod support;

use support::*;

#[test]
fn host_gets_the_value_and_the_guest_never_has_it() {
    let host = Host::start("api.example.com");
    let broker = host.broker();
    let mut guest = Guest::begin(&broker, &host);
    let place = guest.placeholder.clone();
    for number in 0..20 {
        let answer = guest.ask(&format!(
            "GET /{number} HTTP/1.1\r\nHost: api.example.com\r\nAuthorization: Bearer {place}\r\n\r\n"
        ));
        // The host sends back what it got: the guest reads its placeholder again.
        assert!(
            answer.contains(&format!("Authorization: Bearer {place}")),
            "{answer}"
        );
        assert!(!answer.contains(SECRET), "{answer}");
        let got = host.next_request();
        assert!(
            got.contains(&format!("Authorization: Bearer {SECRET}\r\n")),
            "{got}"
        );
        assert!(!got.contains(&place));
    }
    let report = guest.end();
    assert_eq!(report.used, ["KEY"]);
    assert!(
        report.misplaced.is_empty() && report.refusal.is_none(),
        "{report:?}"
    );
}

#[test]
fn requests_arrive_whole_however_they_are_sent() {
    let host = Host::start("api.example.com");
    let broker = host.broker();
    let mut guest = Guest::begin(&broker, &host);
    let head = format!(
        "POST / HTTP/1.1\r\nHost: api.example.com\r\nX-Key: {}\r\nTransfer-Encoding: chunked\r\n\r\n",
        guest.placeholder
    );
    for piece in head.as_bytes().chunks(3) {
        guest.send(piece);
    }
    for _ in 0..50 {
        guest.send(b"2710\r\n");
        guest.send(&[b'x'; 10_000]);
        guest.send(b"\r\n");
    }
    let answer = guest.ask("0\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let got = host.next_request();
    assert!(got.contains(&format!("X-Key: {SECRET}\r\n")), "{got}");
    assert_eq!(host.body_bytes(), 500_000);
    assert_eq!(guest.end().used, ["KEY"]);
}

#[test]
fn host_that_cannot_be_verified_gets_nothing() {
    let host = Host::start("other.example.com");
    let broker = host.broker_for("api.example.com");
    let mut guest = Guest::connect(&broker, &host, "api.example.com", "api.example.com");
    assert!(guest.handshake().is_err());
    let report = guest.end();
    assert_eq!(report.refusal, Some(Refusal::Host));
    assert!(report.used.is_empty() && host.seen_none());

    // The right name, by an authority that nobody named.
    let host = Host::start("api.example.com");
    let broker = host.broker_that_trusts(&Authority::new());
    let mut guest = Guest::connect(&broker, &host, "api.example.com", "api.example.com");
    assert!(guest.handshake().is_err());
    assert_eq!(guest.end().refusal, Some(Refusal::Host));
    assert!(host.seen_none());
}

#[test]
fn hello_for_another_host_is_refused() {
    let host = Host::start("api.example.com");
    let broker = host.broker();
    let mut guest = Guest::connect(&broker, &host, "api.example.com", "other.example.com");
    assert!(guest.handshake().is_err());
    assert_eq!(guest.end().refusal, Some(Refusal::Guest));
    // And where there is no secret for the port.
    let mut guest = Guest::connect_to_port(&broker, &host, "api.example.com", 444);
    assert!(guest.handshake().is_err());
    assert_eq!(guest.end().refusal, Some(Refusal::Guest));
    assert!(host.seen_none());
}

#[test]
fn client_of_http_2_is_given_http_1_1_or_refused_before_it_sends_anything() {
    let host = Host::start("api.example.com");
    let broker = host.broker();
    let mut guest = Guest::that_speaks(&broker, &host, &["h2", "http/1.1"]);
    guest.handshake().unwrap();
    assert_eq!(guest.protocol(), Some(&b"http/1.1"[..]));
    let request = format!(
        "GET / HTTP/1.1\r\nHost: api.example.com\r\nKey: {}\r\n\r\n",
        guest.placeholder
    );
    guest.ask(&request);
    assert!(host.next_request().contains(SECRET));
    assert_eq!(guest.end().used, ["KEY"]);
    // One that speaks nothing else is told so, in the words of TLS.
    let mut guest = Guest::that_speaks(&broker, &host, &["h2"]);
    let error = guest.handshake().unwrap_err().to_string();
    assert!(error.contains("NoApplicationProtocol"), "{error}");
    let report = guest.end();
    assert_eq!(report.refusal, Some(Refusal::Guest));
    assert!(report.used.is_empty() && host.seen_none());
}

#[test]
fn requests_that_could_be_understood_differently_are_answered_and_not_passed_on() {
    let host = Host::start("api.example.com");
    let broker = host.broker();
    for (request, refusal) in [
        (
            "GET / HTTP/1.1\r\nHost: other.example.com\r\nA: PLACE\r\n\r\n",
            Malformed::Host,
        ),
        (
            "TRACE / HTTP/1.1\r\nHost: api.example.com\r\nA: PLACE\r\n\r\n",
            Malformed::Method,
        ),
        (
            "CONNECT a:1 HTTP/1.1\r\nHost: api.example.com\r\nA: PLACE\r\n\r\n",
            Malformed::Method,
        ),
        (
            "POST / HTTP/1.1\r\nHost: api.example.com\r\nA: PLACE\r\nContent-Length: 1\r\n\
             Transfer-Encoding: chunked\r\n\r\n",
            Malformed::Length,
        ),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Malformed::Request),
    ] {
        let mut guest = Guest::begin(&broker, &host);
        let answer = guest.ask(&request.replace("PLACE", &guest.placeholder.clone()));
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        let report = guest.end();
        assert_eq!(
            report.refusal,
            Some(Refusal::Malformed(refusal)),
            "{request}"
        );
        assert!(report.used.is_empty());
    }
    let mut guest = Guest::begin(&broker, &host);
    let endless = format!(
        "GET / HTTP/1.1\r\nHost: api.example.com\r\nA: {}",
        "b".repeat(70_000)
    );
    let answer = guest.ask(&endless);
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert_eq!(
        guest.end().refusal,
        Some(Refusal::Malformed(Malformed::TooLong))
    );
    assert!(host.seen_none());
}

#[test]
fn placeholder_in_a_body_stays_there_and_is_told() {
    let host = Host::start("api.example.com");
    let broker = host.broker();
    let mut guest = Guest::begin(&broker, &host);
    let place = guest.placeholder.clone();
    guest.ask(&format!(
        "POST /{place} HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: {}\r\n\r\n{place}",
        place.len()
    ));
    let got = host.next_request();
    assert!(got.contains(&place) && !got.contains(SECRET), "{got}");
    let report = guest.end();
    assert_eq!(report.misplaced, ["KEY"]);
    assert!(report.used.is_empty());
}

#[test]
fn connection_that_is_upgraded_passes_bytes_as_they_are() {
    let host = Host::start("api.example.com");
    let broker = host.broker();
    let mut guest = Guest::begin(&broker, &host);
    let place = guest.placeholder.clone();
    let answer = guest.ask(&format!(
        "GET /upgrade HTTP/1.1\r\nHost: api.example.com\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nAuthorization: {place}\r\n\r\n"
    ));
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    assert!(host.next_request().contains(SECRET));
    // It ends like a value, and nothing follows.
    let sent = format!("frame {place} {}", &SECRET[..10]);
    guest.send(sent.as_bytes());
    assert_eq!(guest.receive(sent.len()), sent.as_bytes());
    let report = guest.end();
    assert_eq!(
        (report.used, report.misplaced),
        (vec!["KEY".to_owned()], vec!["KEY".to_owned()])
    );
}

#[test]
fn host_that_ends_in_the_middle_of_an_answer_ends_the_guests_too() {
    let host = Host::start("api.example.com");
    let broker = host.broker();
    for path in ["/cut", "/reset"] {
        let mut guest = Guest::begin(&broker, &host);
        guest.send(format!("GET {path} HTTP/1.1\r\nHost: api.example.com\r\n\r\n").as_bytes());
        let (got, is_clean) = guest.receive_all();
        assert!(!is_clean, "{path}");
        assert!(!String::from_utf8_lossy(&got).contains("the end"), "{path}");
        host.next_request();
        guest.end();
    }
}

#[test]
fn long_answers_arrive_whole_and_to_the_end() {
    let host = Host::start("api.example.com");
    let broker = host.broker();
    let mut guest = Guest::begin(&broker, &host);
    guest.send(b"GET /long HTTP/1.1\r\nHost: api.example.com\r\n\r\n");
    let (got, is_clean) = guest.receive_all();
    assert!(is_clean);
    assert!(got.len() > LONG_BYTES, "{}", got.len());
    assert!(got.ends_with(b"the end"));
    assert!(guest.end().refusal.is_none());
}

#[test]
fn answers_that_end_like_a_value_arrive_whole() {
    let host = Host::start("api.example.com");
    let broker = host.broker();
    let mut guest = Guest::begin(&broker, &host);
    for bytes in [1, 3, 4, 20] {
        let answer = guest.ask(&format!(
            "POST / HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: {bytes}\r\n\r\n{}",
            &SECRET[..bytes]
        ));
        assert!(answer.ends_with(&SECRET[..bytes]), "{answer}");
    }
}

#[test]
fn guests_that_only_begin_hold_up_nobody() {
    let host = Host::start("api.example.com");
    let broker = host.broker();
    let mut slow: Vec<Guest> = (0..10).map(|_| Guest::begin(&broker, &host)).collect();
    for guest in &mut slow {
        guest.send(b"GET / HTTP/1.1\r\nHost: api.exa");
    }
    let mut guest = Guest::begin(&broker, &host);
    let answer = guest.ask("GET / HTTP/1.1\r\nHost: api.example.com\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    for mut guest in slow {
        let answer = guest.ask("mple.com\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

#[test]
fn broker_that_goes_ends_its_connections_and_says_so() {
    let host = Host::start("api.example.com");
    let broker = host.broker();
    let mut guest = Guest::begin(&broker, &host);
    guest.ask("GET / HTTP/1.1\r\nHost: api.example.com\r\n\r\n");
    drop(broker);
    let report = guest.end();
    assert!(report.used.is_empty() && report.refusal.is_none());
}
