use super::*;

/// A hello with extensions, as one message.
fn message(extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0x13, 1, 1, 0]);
    let mut all = Vec::new();
    for (kind, content) in extensions {
        all.extend(kind.to_be_bytes());
        all.extend(u16::try_from(content.len()).unwrap().to_be_bytes());
        all.extend(content);
    }
    body.extend(u16::try_from(all.len()).unwrap().to_be_bytes());
    body.extend(all);
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[1], &length[1..], &body].concat()
}

/// The extension with a server's name.
fn sni(name: &str) -> (u16, Vec<u8>) {
    let length = u16::try_from(name.len()).unwrap();
    let mut content = (length + 3).to_be_bytes().to_vec();
    content.push(0);
    content.extend(length.to_be_bytes());
    content.extend(name.as_bytes());
    (0, content)
}

/// A message in records of so many bytes.
fn records(message: &[u8], bytes: usize) -> Vec<u8> {
    let records = message.chunks(bytes).map(|content| {
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&[22, 3, 1, length[0], length[1]], content].concat()
    });
    records.collect::<Vec<_>>().concat()
}

/// What is shown once all has come, byte for byte.
fn in_the_end(bytes: &[u8]) -> Shown {
    let mut known = 0;
    for length in 1..=bytes.len() {
        match look(&bytes[..length], known) {
            Shown::More(wanted) => {
                assert!(wanted > length, "{wanted} at {length}");
                assert_eq!(look(&bytes[..length], 0), Shown::More(wanted));
            }
            shown => return shown,
        }
        known = length;
    }
    Shown::More(0)
}

#[test]
fn name_of_a_hello_is_found_however_it_is_split() {
    let hello = message(&[(10, vec![0; 300]), sni("API.Example.com")]);
    for bytes in [7, 40, 100, 16_000] {
        let shown = in_the_end(&records(&hello, bytes));
        assert_eq!(shown, Shown::Tls(Some("api.example.com".into())), "{bytes}");
    }
    let behind = [records(&hello, 16_000), vec![0; 100]].concat();
    assert!(matches!(look(&behind, 0), Shown::Tls(Some(_))));
}

#[test]
fn hello_may_have_no_name() {
    let shown = in_the_end(&records(&message(&[(10, vec![0; 4])]), 16_000));
    assert_eq!(shown, Shown::Tls(None));
}

#[test]
fn hellos_that_readers_understand_differently_are_unclear() {
    let two = message(&[sni("a.example"), sni("b.example")]);
    let mut list = sni("a.example");
    list.1.extend([0, 0, 1, b'b']);
    let address = message(&[sni("192.0.2.1")]);
    let spaces = message(&[sni("a b")]);
    for hello in [two, message(&[list]), address, spaces] {
        assert_eq!(in_the_end(&records(&hello, 16_000)), Shown::Unclear);
    }
    let tiny = records(&message(&[sni("a.example")]), 1);
    assert_eq!(in_the_end(&tiny), Shown::Unclear);
    for bad in [
        &[22, 3, 1, 0, 0][..],
        &[22, 3, 1, 0xff, 0xff],
        &[22, 2, 0, 0, 9],
    ] {
        assert_eq!(in_the_end(bad), Shown::Unclear, "{bad:?}");
    }
    // A message longer than anybody sends.
    let long = [&[22, 3, 1, 0, 4, 1, 0xff, 0xff, 0xff][..], &[0; 9]].concat();
    assert_eq!(in_the_end(&long), Shown::Unclear);
}

#[test]
fn hosts_of_a_request_are_found_however_it_is_split() {
    let http = |names: &[&str]| Shown::Http(names.iter().map(|name| (*name).into()).collect());
    for (request, names) in [
        (
            "GET / HTTP/1.1\r\nHost: A.example:8080\r\n\r\n",
            &["a.example"][..],
        ),
        (
            "GET / HTTP/1.1\r\nX: y\r\nhost:a.example.\r\n\r\nbody",
            &["a.example"],
        ),
        ("GET / HTTP/1.0\r\n\r\n", &[]),
        ("GET / HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n", &[]),
        ("GET / HTTP/1.1\r\nHost: [2001:db8::1]:80\r\n\r\n", &[]),
        (
            "GET http://b.example/x HTTP/1.1\r\nHost: a.example\r\n\r\n",
            &["b.example", "a.example"],
        ),
        (
            "CONNECT b.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n",
            &["b.example", "a.example"],
        ),
        (
            "GET / HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n",
            &["a.example", "b.example"],
        ),
    ] {
        assert_eq!(in_the_end(request.as_bytes()), http(names), "{request}");
    }
}

#[test]
fn requests_that_readers_understand_differently_are_unclear() {
    for request in [
        "GET / HTTP/1.1\r\nX: y\nHost: a.example\r\n\r\n",
        "GET / HTTP/1.1\nHost: a.example\n\n",
        "GET / HTTP/1.1\r\nX: y\rHost: b.example\r\nHost: a.example\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a.example\r\n\r\n",
        "GET / HTTP/1.1\r\n folded\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: a.example\r\n\r\n",
        "GET x HTTP/1.1\r\nHost: a.example\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.example@b.example\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        assert_eq!(in_the_end(request.as_bytes()), Shown::Unclear, "{request}");
    }
    let endless = "GET / HTTP/1.1\r\nX: ".to_owned() + &"y".repeat(MAX_SHOWN_BYTES);
    assert_eq!(look(endless.as_bytes(), 0), Shown::Unclear);
}

#[test]
fn other_protocols_are_neither() {
    for bytes in [
        &b"SSH-2.0-OpenSSH\r\n"[..],
        b"\0\0\0\x08\x04\xd2\x16\x2f",
        b"EHLO a.example\r\n",
        b"USER a\n",
        b"*1\r\n",
    ] {
        assert_eq!(in_the_end(bytes), Shown::Other, "{bytes:?}");
    }
}
