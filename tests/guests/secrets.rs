//! Secrets that a guest uses and never has: hosts of this process, and curl in a guest.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use supermachine::{Network, NetworkFlow, NetworkPolicy, NetworkSecretsUse, Vm};
use supermachine_tests::{config, image, sh};

pub const NAME: &str = "host.supermachine.internal";
pub const AUTHORITY: &[u8] = include_bytes!("certificates/authority.crt");
/// The value, in parts: the whole is in no image of this program.
const VALUE: [&str; 2] = ["sk-the-real-value-", "9c41d7e2-9c41d7e2"];
/// For what never comes.
pub const PATIENCE: Duration = Duration::from_secs(100);

pub fn value() -> String {
    VALUE.concat()
}

/// A host with TLS, which answers with the head of each request; its port, and the heads.
pub fn host() -> (u16, Receiver<String>) {
    let certificate = include_bytes!("certificates/host.crt");
    let key = include_bytes!("certificates/host.key");
    let provider = Arc::new(rustls_graviola::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(certificate).expect("a certificate")],
            PrivateKeyDer::from_pem_slice(key).expect("a key"),
        );
    let config = Arc::new(config.expect("a key of the certificate"));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let port = listener.local_addr().expect("it has one").port();
    let (send, heads) = channel();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (config, send) = (config.clone(), send.clone());
            // A client that went away is its own affair.
            thread::spawn(move || drop(serve(stream, config, &send)));
        }
    });
    (port, heads)
}

fn serve(stream: TcpStream, config: Arc<ServerConfig>, heads: &Sender<String>) -> io::Result<()> {
    let connection = ServerConnection::new(config).map_err(io::Error::other)?;
    let mut reader = BufReader::new(StreamOwned::new(connection, stream));
    loop {
        let head = read_head(&mut reader)?;
        let _ = heads.send(head.clone());
        let length = head.len();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{head}");
        reader.get_mut().write_all(answer.as_bytes())?;
        reader.get_mut().flush()?;
    }
}

/// A host without TLS, which says nothing; its port, and the heads of its requests.
fn host_in_clear() -> (u16, Receiver<String>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let port = listener.local_addr().expect("it has one").port();
    let (send, heads) = channel();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that went away is its own affair.
            let _ = read_head(&mut BufReader::new(&stream)).map(|head| send.send(head));
            let _ = (&stream).write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
        }
    });
    (port, heads)
}

/// The head of a request.
fn read_head(reader: &mut impl BufRead) -> io::Result<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(head)
}

/// The record of the connection to a port, once it is over.
fn flow_to(vm: &Vm, port: u16) -> NetworkFlow {
    let begun = Instant::now();
    loop {
        let log = vm.network_log().expect("a log");
        // A client may begin with both addresses of the name, and use one.
        let is_it = |flow: &NetworkFlow| flow.port == port && flow.sent_bytes > 0;
        if let Some(flow) = log.into_iter().find(is_it) {
            return flow;
        }
        assert!(begun.elapsed() < PATIENCE, "it never ended");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Whether a text is in one of the files below a directory.
pub fn is_below(directory: &Path, text: &str) -> bool {
    // Memory is mostly zeroes, which end lines here.
    let grep = Command::new("grep")
        .args([
            "--recursive",
            "--quiet",
            "--text",
            "--null-data",
            "--fixed-strings",
        ])
        .args(["-e", text])
        .arg(directory)
        .status();
    match grep.expect("grep").code() {
        Some(0) => true,
        Some(1) => false,
        code => panic!("grep cannot look through it: {code:?}"),
    }
}

#[test]
fn hosts_get_secrets_that_their_guest_never_has() {
    let (own, own_heads) = host();
    let (other, other_heads) = host();
    let (untrusted, untrusted_heads) = host();
    let clear_host = host_in_clear();
    let policy = [own, other, untrusted, clear_host.0]
        .into_iter()
        .fold(NetworkPolicy::allow_all(), NetworkPolicy::host_port);
    let secret = Network::secret("API_KEY", value()).for_host(&format!("{NAME}:{own}"));
    // This one's host is known by the authorities of the system, which are not its.
    let second = Network::secret("SECOND", value()).for_host(&format!("{NAME}:{untrusted}"));
    let config = config()
        .with_network(policy)
        .with_secret(secret.with_authorities(AUTHORITY))
        .with_secret(second);
    let started = image("nginx").start(&config);
    let vm = started.unwrap_or_else(|error| panic!("it does not start: {error}"));
    let curl = "curl -sS -m 100 -H \"Authorization: Bearer $API_KEY\"";

    // Two requests of one connection, by a program that was told nothing.
    let url = format!("https://{NAME}:{own}");
    let answers = sh(&vm, &format!("echo $API_KEY; {curl} {url}/1 {url}/2"));
    let (placeholder, answers) = answers.split_once('\n').expect("two lines");
    assert_eq!(placeholder.len(), value().len());
    assert_ne!(placeholder, value());
    for path in ["/1", "/2"] {
        let head = own_heads.recv_timeout(PATIENCE).expect("a request");
        assert!(head.starts_with(&format!("GET {path} ")), "{head}");
        let credentials = format!("Authorization: Bearer {}\r\n", value());
        assert!(head.contains(&credentials), "{head}");
    }
    // What the host sent back of it, the guest read as what it knows.
    assert!(
        answers.contains(placeholder) && !answers.contains(&value()),
        "{answers}"
    );
    let flow = flow_to(&vm, own);
    let used = NetworkSecretsUse {
        used: vec!["API_KEY".to_owned()],
        ..NetworkSecretsUse::default()
    };
    assert_eq!(flow.secrets, Some(used));

    // A program that would rather speak HTTP/2 works, too.
    let version = sh(
        &vm,
        &format!("{curl} --http2 -o /dev/null -w '%{{http_version}}' {url}/3"),
    );
    assert_eq!(version, "1.1");
    let head = own_heads.recv_timeout(PATIENCE).expect("a request");
    assert!(head.contains(&value()), "{head}");

    // A host that it is not for gets the placeholder, if the guest trusts it at all.
    sh(&vm, &format!("{curl} -k https://{NAME}:{other}/"));
    let head = other_heads.recv_timeout(PATIENCE).expect("a request");
    assert!(
        head.contains(placeholder) && !head.contains(&value()),
        "{head}"
    );
    assert_eq!(flow_to(&vm, other).secrets, None);

    // In clear text it is seen that it left.
    let (clear, clear_heads) = clear_host;
    sh(&vm, &format!("{curl} http://{NAME}:{clear}/"));
    let head = clear_heads.recv_timeout(PATIENCE).expect("a request");
    assert!(head.contains(placeholder), "{head}");
    let secrets = flow_to(&vm, clear).secrets.expect("it was seen");
    assert_eq!(secrets.misplaced, ["API_KEY"]);
    assert!(secrets.used.is_empty() && secrets.refused.is_none());

    // One that cannot be verified gets nothing, though the guest would not mind.
    let refused = format!("{curl} -k https://{NAME}:{untrusted}/ || echo failed");
    assert!(sh(&vm, &refused).ends_with("failed\n"));
    let secrets = flow_to(&vm, untrusted)
        .secrets
        .expect("it is one of a secret's");
    assert_eq!(secrets.refused.as_deref(), Some("host_unverified"));
    assert!(secrets.used.is_empty() && untrusted_heads.try_recv().is_err());

    // Neither its memory nor its state has the value, and both have what stands for it.
    let directory = tempfile::tempdir().expect("a directory");
    let snapshot = vm.snapshot(directory.path().join("snapshot"));
    snapshot.unwrap_or_else(|error| panic!("it cannot be written: {error}"));
    assert!(is_below(directory.path(), placeholder));
    assert!(!is_below(directory.path(), &value()));
    assert!(!format!("{vm:?}").contains(&value()));
}
