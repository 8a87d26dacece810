//! A registry in this process, which does what each test wants of it.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use supermachine_oci_bake::{
    BakeError, BakeOptions, BakedImage, Digest, ImageBuilder, LayerBuilder, LayerCompression,
    Reference, Store,
};
use supermachine_oci_pull::{Client, ClientConfig, PullError, PullPolicy};

/// First byte of a TLS connection.
const TLS_HANDSHAKE: u8 = 0x16;

#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub query: String,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub fn is_blob(&self) -> bool {
        self.path.contains("/blobs/")
    }
}

/// How an answer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Whole,
    /// After so many bytes of the body the connection is closed.
    Cut(usize),
    /// After so many bytes nothing more comes.
    Stall(usize),
}

#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub ending: Ending,
    /// What `Content-Length` says, if not the truth.
    pub length: Option<u64>,
}

impl Reply {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
            ending: Ending::Whole,
            length: None,
        }
    }

    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn ending(mut self, ending: Ending) -> Self {
        self.ending = ending;
        self
    }

    fn write(&self, stream: &mut impl Write, ended: &AtomicBool) -> io::Result<()> {
        let length = self.length.unwrap_or(self.body.len() as u64);
        let mut head = format!(
            "HTTP/1.1 {} x\r\nConnection: close\r\nContent-Length: {length}\r\n",
            self.status
        );
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        stream.write_all(format!("{head}\r\n").as_bytes())?;
        match self.ending {
            Ending::Whole => stream.write_all(&self.body)?,
            Ending::Cut(n) => stream.write_all(&self.body[..n.min(self.body.len())])?,
            Ending::Stall(n) => {
                stream.write_all(&self.body[..n.min(self.body.len())])?;
                stream.flush()?;
                while !ended.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        }
        stream.flush()
    }
}

type Handler = dyn Fn(&Request) -> Reply + Send + Sync;

/// A server on this machine, which ends with this.
pub struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_with(None, handler)
    }

    /// The same, with TLS if `tls` says how.
    pub fn start_with(
        tls: Option<Arc<rustls::ServerConfig>>,
        handler: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, ended) = (
            Arc::new(Mutex::new(Vec::new())),
            Arc::new(AtomicBool::new(false)),
        );
        let (log, end): (Arc<Mutex<Vec<Request>>>, _) = (Arc::clone(&seen), Arc::clone(&ended));
        let handler: Arc<Handler> = Arc::new(handler);
        let accept = move || {
            for stream in listener.incoming() {
                if end.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let (log, end, handler) = (log.clone(), end.clone(), handler.clone());
                let tls = tls.clone();
                std::thread::spawn(move || {
                    // The client may go at any time.
                    let _ = match tls {
                        None => serve_plain(stream, &log, &end, &*handler),
                        Some(config) => serve_tls(config, stream, &log, &end, &*handler),
                    };
                });
            }
        };
        Self {
            address,
            seen,
            ended,
            thread: Some(std::thread::spawn(accept)),
        }
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// All that was asked so far.
    pub fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    pub fn count(&self, which: impl Fn(&Request) -> bool) -> usize {
        self.seen().iter().filter(|request| which(request)).count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // Wakes it up.
        let _ = TcpStream::connect(self.address);
        self.thread.take().unwrap().join().unwrap();
    }
}

/// Serves who does not speak TLS.
fn serve_plain(
    stream: TcpStream,
    log: &Mutex<Vec<Request>>,
    ended: &AtomicBool,
    handler: &Handler,
) -> io::Result<()> {
    let mut first = [0];
    if stream.peek(&mut first)? == 0 || first[0] == TLS_HANDSHAKE {
        return Ok(());
    }
    serve(stream, log, ended, handler).map(drop)
}

fn serve_tls(
    config: Arc<rustls::ServerConfig>,
    stream: TcpStream,
    log: &Mutex<Vec<Request>>,
    ended: &AtomicBool,
    handler: &Handler,
) -> io::Result<()> {
    let connection = rustls::ServerConnection::new(config).map_err(io::Error::other)?;
    let stream = rustls::StreamOwned::new(connection, stream);
    let mut stream = serve(stream, log, ended, handler)?;
    stream.conn.send_close_notify();
    stream.flush()
}

fn serve<S: Read + Write>(
    stream: S,
    log: &Mutex<Vec<Request>>,
    ended: &AtomicBool,
    handler: &Handler,
) -> io::Result<S> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    let length = headers
        .get("content-length")
        .and_then(|text| text.parse().ok());
    let mut body = String::new();
    reader
        .by_ref()
        .take(length.unwrap_or(0))
        .read_to_string(&mut body)?;
    let request = Request {
        method: method.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        headers,
        body,
    };
    if request.method.is_empty() {
        // Nothing was asked.
        return Ok(reader.into_inner());
    }
    log.lock().unwrap().push(request.clone());
    handler(&request).write(reader.get_mut(), ended)?;
    Ok(reader.into_inner())
}

/// An image, as a registry has it.
#[derive(Debug, Clone)]
pub struct Image {
    /// Manifests by tag and by digest, with their media types.
    pub manifests: BTreeMap<String, (String, Vec<u8>)>,
    pub blobs: BTreeMap<String, Vec<u8>>,
    pub root: String,
    /// The digest of its largest layer.
    pub layer: String,
}

impl Image {
    /// An image whose second layer has so many bytes that do not compress.
    pub fn new(bytes: usize) -> Self {
        let mut state = 1u32;
        let content: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .take(bytes)
        .collect();
        let builder = ImageBuilder::new()
            .layer(
                LayerBuilder::new()
                    .dir("bin", 0o755)
                    .file("bin/sh", 0o755, "#!x"),
            )
            .layer(LayerBuilder::new().file("content", 0o644, content))
            .compression(LayerCompression::Gzip)
            .cmd(["/bin/sh"]);
        Self::of(builder)
    }

    pub fn of(builder: ImageBuilder) -> Self {
        let scratch = Scratch::new();
        let layout = scratch.0.join("layout");
        builder.write_layout(&layout).unwrap();
        let json = |bytes: &[u8]| -> serde_json::Value { serde_json::from_slice(bytes).unwrap() };
        let index = json(&fs::read(layout.join("index.json")).unwrap());
        let root = index["manifests"][0]["digest"].as_str().unwrap().to_owned();
        let kind = index["manifests"][0]["mediaType"]
            .as_str()
            .unwrap()
            .to_owned();
        let mut blobs = BTreeMap::new();
        for entry in fs::read_dir(layout.join("blobs/sha256")).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            blobs.insert(format!("sha256:{name}"), fs::read(&path).unwrap());
        }
        let manifest = blobs.remove(&root).unwrap();
        let layers = json(&manifest)["layers"].as_array().unwrap().clone();
        let layer = layers.iter().max_by_key(|l| l["size"].as_u64()).unwrap();
        Self {
            layer: layer["digest"].as_str().unwrap().to_owned(),
            manifests: ["v1", &root]
                .map(|name| (name.to_owned(), (kind.clone(), manifest.clone())))
                .into(),
            blobs,
            root,
        }
    }

    /// What a registry answers that does everything right.
    pub fn answer(&self, request: &Request) -> Reply {
        let last = request.path.rsplit('/').next().unwrap();
        if request.path == "/v2/" {
            return Reply::new(200, "{}");
        }
        if request.is_blob() {
            let Some(blob) = self.blobs.get(last) else {
                return Reply::new(404, "");
            };
            return match request.header("range") {
                None => Reply::new(200, blob.clone()),
                Some(range) => part(blob, range),
            };
        }
        match self.manifests.get(last) {
            Some((kind, bytes)) => Reply::new(200, bytes.clone()).header("Content-Type", kind),
            None => Reply::new(
                404,
                r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"x"}]}"#,
            )
            .header("Content-Type", "application/json"),
        }
    }

    pub fn is_layer(&self, request: &Request) -> bool {
        request.path.ends_with(&self.layer)
    }

    pub fn layer_bytes(&self) -> &[u8] {
        &self.blobs[&self.layer]
    }
}

/// What follows `bytes=N-`.
pub fn part(blob: &[u8], range: &str) -> Reply {
    let from = range
        .strip_prefix("bytes=")
        .and_then(|range| range.strip_suffix('-'));
    let from: usize = from.unwrap().parse().unwrap();
    let total = blob.len();
    if from >= total {
        return Reply::new(416, "").header("Content-Range", format!("bytes */{total}"));
    }
    Reply::new(206, &blob[from..]).header(
        "Content-Range",
        format!("bytes {from}-{}/{total}", total - 1),
    )
}

/// Does something the first `times` times only.
pub struct First(AtomicUsize);

impl First {
    pub fn times(times: usize) -> Self {
        Self(AtomicUsize::new(times))
    }

    pub fn take(&self) -> bool {
        let less = |left: usize| left.checked_sub(1);
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
            .is_ok()
    }
}

/// A directory of its own, removed at the end.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("oci-pull-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn store(&self) -> Store {
        Store::open(self.0.join("cache")).unwrap()
    }

    pub fn layers(&self) -> usize {
        files(&self.0.join("cache/layers")).len()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// A credential helper `docker-credential-NAME`.
///
/// Written by another process: one that this process starts meanwhile would inherit the
/// open file, which cannot be run as long as that holds it.
pub fn helper(scratch: &Scratch, name: &str, script: &str) {
    let path = scratch.0.join(format!("docker-credential-{name}"));
    let mut shell = Command::new("sh")
        .args(["-c", "cat > \"$0\" && chmod 755 \"$0\""])
        .arg(&path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let text = format!("#!/bin/sh\n{script}\n");
    let mut stdin = shell.stdin.take().unwrap();
    stdin.write_all(text.as_bytes()).unwrap();
    drop(stdin);
    assert!(shell.wait().unwrap().success());
}

/// Settings that wait for nothing for long, and so often that no slow machine matters.
pub fn config() -> ClientConfig {
    let mut config = ClientConfig::default();
    config.first_pause = Duration::from_millis(1);
    config
}

pub fn pull_with(
    config: ClientConfig,
    reference: &str,
    policy: PullPolicy,
    store: &Store,
) -> Result<BakedImage, BakeError> {
    let reference = Reference::parse(reference).unwrap();
    let name = reference.registry_name().unwrap();
    Client::new(config).pull(name, policy, &BakeOptions::default(), store)
}

pub fn pull(reference: &str, store: &Store) -> Result<BakedImage, BakeError> {
    pull_with(config(), reference, PullPolicy::Missing, store)
}

/// The error of this crate that a bake ended with.
pub fn cause(error: &BakeError) -> &PullError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<PullError>() {
            return found;
        }
        // Errors of a reader hide theirs.
        if let Some(found) = error
            .downcast_ref::<io::Error>()
            .and_then(|error| error.get_ref()?.downcast_ref())
        {
            return found;
        }
        cause = error.source();
    }
    panic!("no error of this crate: {}", chain(error));
}

pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

/// That the layers of an image are what they should be.
pub fn assert_whole(baked: &BakedImage, image: &Image) {
    let manifest: Digest = image.root.parse().unwrap();
    assert_eq!(baked.manifest_digest, Some(manifest));
    assert_eq!(baked.layers.len(), 2);
}
