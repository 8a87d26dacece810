//! A host with TLS, and a guest that speaks to it through a broker.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, SystemTime};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
};
use supermachine_broker::{Broker, Connection, Orders, Secret, Value};
pub use supermachine_broker::{Malformed, Refusal, Report};

pub const SECRET: &str = "sk-the-real-value-0123456789-0123456789";
pub const LONG_BYTES: usize = 3 << 20;
/// For what never comes.
const PATIENCE: Duration = Duration::from_secs(60);

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls_graviola::default_provider())
}

/// An authority for hosts, as the world has them.
pub struct Authority(Orders);

impl Authority {
    pub fn new() -> Self {
        // What makes certificates for guests makes those of tests, too.
        Self(Orders::new(&[], SystemTime::now()).unwrap())
    }

    fn certificate(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.0.certificate_pem().as_bytes()).unwrap()
    }
}

/// A server that answers with what it was asked.
pub struct Host {
    name: String,
    address: SocketAddr,
    authority: CertificateDer<'static>,
    requests: Mutex<Receiver<String>>,
    body_bytes: Arc<Mutex<usize>>,
}

const CERTIFICATES: &[(&str, &[u8], &[u8])] = &[
    (
        "api.example.com",
        include_bytes!("../certificates/api.crt"),
        include_bytes!("../certificates/api.key"),
    ),
    (
        "other.example.com",
        include_bytes!("../certificates/other.crt"),
        include_bytes!("../certificates/other.key"),
    ),
];

impl Host {
    pub fn start(name: &str) -> Self {
        let (_, certificate, key) = CERTIFICATES
            .iter()
            .find(|(known, ..)| *known == name)
            .unwrap();
        let certificate = CertificateDer::from_pem_slice(certificate).unwrap();
        let key = PrivateKeyDer::from_pem_slice(key).unwrap();
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, requests) = channel();
        let body_bytes = Arc::new(Mutex::new(0));
        let counted = body_bytes.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let (config, sender, counted) = (config.clone(), sender.clone(), counted.clone());
                thread::spawn(move || drop(serve(stream, config, &sender, &counted)));
            }
        });
        let authority = include_bytes!("../certificates/authority.crt");
        Self {
            name: name.to_owned(),
            address,
            authority: CertificateDer::from_pem_slice(authority).unwrap(),
            requests: Mutex::new(requests),
            body_bytes,
        }
    }

    pub fn broker(&self) -> Broker {
        self.broker_for(&self.name)
    }

    pub fn broker_for(&self, name: &str) -> Broker {
        broker(name, &self.authority)
    }

    pub fn broker_that_trusts(&self, authority: &Authority) -> Broker {
        broker(&self.name, &authority.certificate())
    }

    /// The next request that has come, its body included.
    pub fn next_request(&self) -> String {
        self.requests
            .lock()
            .unwrap()
            .recv_timeout(PATIENCE)
            .unwrap()
    }

    pub fn seen_none(&self) -> bool {
        self.requests.lock().unwrap().try_recv().is_err()
    }

    pub fn body_bytes(&self) -> usize {
        *self.body_bytes.lock().unwrap()
    }
}

fn broker(name: &str, root: &CertificateDer<'_>) -> Broker {
    let secret = Secret {
        name: "KEY".into(),
        value: Value::new(SECRET),
        hosts: vec![name.parse().unwrap()],
        headers: Vec::new(),
        roots: vec![root.to_vec()],
    };
    Broker::new(Orders::new(&[secret], SystemTime::now()).unwrap()).unwrap()
}

fn serve(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    requests: &Sender<String>,
    counted: &Mutex<usize>,
) -> io::Result<()> {
    let raw = stream.try_clone()?;
    let mut tls = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if tls.read(&mut byte)? == 0 {
                return Ok(());
            }
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let mut body = String::new();
        if let Some(length) = field(&head, "content-length") {
            let mut bytes = vec![0; length.parse().unwrap()];
            tls.read_exact(&mut bytes)?;
            body = String::from_utf8(bytes).unwrap();
        } else if field(&head, "transfer-encoding").is_some() {
            *counted.lock().unwrap() = read_chunks(&mut tls)?;
        }
        let path = head.split(' ').nth(1).unwrap().to_owned();
        let text = format!("{head}{body}");
        let _ = requests.send(text.clone());
        match path.as_str() {
            "/upgrade" => {
                tls.write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n")?;
                tls.flush()?;
                io::copy(&mut Echo(&mut tls), &mut io::sink())?;
                return Ok(());
            }
            "/cut" | "/reset" => {
                tls.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")?;
                tls.flush()?;
                if path == "/cut" {
                    raw.shutdown(Shutdown::Both)?;
                }
                // What is dropped with bytes unread is reset.
                return Ok(());
            }
            "/long" => {
                tls.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
                for _ in 0..LONG_BYTES / 1024 {
                    tls.write_all(&[b'l'; 1024])?;
                }
                tls.write_all(b"the end")?;
                tls.conn.send_close_notify();
                tls.flush()?;
                return Ok(());
            }
            _ => {}
        }
        let length = text.len();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{text}");
        tls.write_all(answer.as_bytes())?;
        tls.flush()?;
    }
}

/// Sends back what is read.
struct Echo<'a, S: Read + Write>(&'a mut S);

impl<S: Read + Write> Read for Echo<'_, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.0.read(buffer)?;
        self.0.write_all(&buffer[..got])?;
        self.0.flush()?;
        Ok(got)
    }
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (field, value) = line.split_once(':')?;
        field.eq_ignore_ascii_case(name).then_some(value.trim())
    })
}

/// Reads a chunked body; its bytes.
fn read_chunks(from: &mut impl Read) -> io::Result<usize> {
    let line = |from: &mut dyn Read| -> io::Result<String> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            from.read_exact(&mut byte)?;
            line.push(byte[0]);
        }
        Ok(String::from_utf8(line).unwrap().trim().to_owned())
    };
    let mut total = 0;
    loop {
        let size = usize::from_str_radix(&line(from)?, 16).unwrap();
        let mut content = vec![0; size];
        from.read_exact(&mut content)?;
        line(from)?;
        total += size;
        if size == 0 {
            return Ok(total);
        }
    }
}

/// A program of the guest's, with its end of a connection.
pub struct Guest {
    tls: StreamOwned<ClientConnection, UnixStream>,
    reports: Receiver<Report>,
    pub placeholder: String,
}

impl Guest {
    /// Connects, and is answered.
    pub fn begin(broker: &Broker, host: &Host) -> Self {
        let mut guest = Self::connect(broker, host, &host.name, &host.name);
        guest.handshake().unwrap();
        guest
    }

    pub fn connect_to_port(broker: &Broker, host: &Host, name: &str, port: u16) -> Self {
        Self::with(broker, host, (name, port), name, &[])
    }

    /// Connects as a program that speaks these protocols.
    pub fn that_speaks(broker: &Broker, host: &Host, protocols: &[&str]) -> Self {
        Self::with(broker, host, (&host.name, 443), &host.name, protocols)
    }

    /// What was agreed on with it.
    pub fn protocol(&self) -> Option<&[u8]> {
        self.tls.conn.alpn_protocol()
    }

    /// Connects to a host as `told`, and shows the name `shown`.
    pub fn connect(broker: &Broker, host: &Host, told: &str, shown: &str) -> Self {
        Self::with(broker, host, (told, 443), shown, &[])
    }

    fn with(
        broker: &Broker,
        host: &Host,
        (told, port): (&str, u16),
        shown: &str,
        protocols: &[&str],
    ) -> Self {
        let mut roots = RootCertStore::empty();
        let pem = broker.orders().certificate_pem();
        roots
            .add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap())
            .unwrap();
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let protocols = protocols.iter();
        config.alpn_protocols = protocols.map(|name| name.as_bytes().to_vec()).collect();
        let name = ServerName::try_from(shown.to_owned()).unwrap();
        let mut tls = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut begun = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut begun).unwrap();
        }
        let (own, other) = UnixStream::pair().unwrap();
        own.set_read_timeout(Some(PATIENCE)).unwrap();
        own.set_write_timeout(Some(PATIENCE)).unwrap();
        let (sender, reports) = channel();
        broker.serve(Connection {
            guest: other,
            host: TcpStream::connect(host.address).unwrap(),
            name: told.to_owned(),
            port,
            begun,
            done: Box::new(move |report| drop(sender.send(report))),
        });
        Self {
            tls: StreamOwned::new(tls, own),
            reports,
            placeholder: broker.orders().placeholders().next().unwrap().1.to_owned(),
        }
    }

    pub fn handshake(&mut self) -> io::Result<()> {
        while self.tls.conn.is_handshaking() {
            self.tls.conn.complete_io(&mut self.tls.sock)?;
        }
        Ok(())
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.tls.write_all(bytes).unwrap();
        self.tls.flush().unwrap();
    }

    /// Sends something and reads the answer, which says its length.
    pub fn ask(&mut self, request: &str) -> String {
        // A request that is refused early is not read to its end.
        let _ = self.tls.write_all(request.as_bytes());
        let _ = self.tls.flush();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.extend(self.receive(1));
        }
        let head = String::from_utf8(answer).unwrap();
        let length = field(&head, "content-length").map_or(0, |length| length.parse().unwrap());
        head + &String::from_utf8(self.receive(length)).unwrap()
    }

    pub fn receive(&mut self, bytes: usize) -> Vec<u8> {
        let mut got = vec![0; bytes];
        let mut at = 0;
        while at < bytes {
            let StreamOwned { conn, sock } = &mut self.tls;
            match conn.reader().read(&mut got[at..]) {
                Ok(0) => panic!("it ended after {at} bytes"),
                Ok(count) => at += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // What it has not sent may not be wanted any more.
                    conn.read_tls(sock).unwrap();
                    conn.process_new_packets().unwrap();
                }
                Err(error) => panic!("{error}"),
            }
        }
        got
    }

    /// All that comes, and whether it ended as it should.
    pub fn receive_all(&mut self) -> (Vec<u8>, bool) {
        let mut got = Vec::new();
        let is_clean = self.tls.read_to_end(&mut got).is_ok();
        (got, is_clean)
    }

    /// Hangs up; what became of the secrets.
    pub fn end(self) -> Report {
        drop(self.tls);
        self.reports.recv_timeout(PATIENCE).unwrap()
    }
}
