//! Images out of a container engine, which here is a socket of the test.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;

use serde_json::json;
use supermachine_oci_bake::{
    BakeError, BakeOptions, BakedImage, Digest, ImageError, LayerBuilder, Store,
};
use supermachine_oci_pull::{ContainerEngine, PullError};

/// A directory with the socket of an engine, and a cache.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("oci-pull-engine-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn bake(&self, name: &str, options: &BakeOptions) -> Result<BakedImage, BakeError> {
        let store = Store::open(self.0.join("cache")).unwrap();
        ContainerEngine::at(self.0.join("socket")).bake(name, options, &store)
    }

    /// Answers one request, and gives its first line.
    fn serve(&self, answer: impl FnOnce(&mut UnixStream) + Send + 'static) -> JoinHandle<String> {
        let listener = UnixListener::bind(self.0.join("socket")).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let first = lines.next().unwrap().unwrap();
            while !lines.next().unwrap().unwrap().is_empty() {}
            answer(&mut stream);
            first
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// An archive of `docker save` for a processor.
fn archive(architecture: &str) -> Vec<u8> {
    let layer = LayerBuilder::new()
        .file("f", 0o644, vec![7; 100_000])
        .to_tar()
        .unwrap();
    let config = json!({
        "architecture": architecture, "os": "linux",
        "config": { "Cmd": ["/f"] },
        "rootfs": { "type": "layers", "diff_ids": [Digest::sha256_of(&layer).to_string()] },
    })
    .to_string();
    let name = format!("{}.json", Digest::sha256_of(config.as_bytes()).hex());
    let manifest = json!([{ "Config": name, "RepoTags": ["a:1"], "Layers": ["l/layer.tar"] }]);
    LayerBuilder::new()
        .file("manifest.json", 0o644, manifest.to_string())
        .file(&name, 0o644, config)
        .file("l/layer.tar", 0o644, layer)
        .to_tar()
        .unwrap()
}

fn reply(head: &str, body: &[u8]) -> Vec<u8> {
    [head.as_bytes(), b"\r\n\r\n", body].concat()
}

/// What comes of an answer, and the first line of the request.
fn outcome(answer: Vec<u8>) -> (Result<BakedImage, BakeError>, String) {
    let place = Place::new();
    let engine = place.serve(move |stream| {
        // The client may have gone away.
        let _ = stream.write_all(&answer);
    });
    let result = place.bake("a:1", &BakeOptions::default());
    (result, engine.join().unwrap())
}

fn failure(answer: Vec<u8>) -> String {
    let error = outcome(answer).0.unwrap_err();
    let error = PullError::of(error).expect("an error of the engine");
    assert!(
        matches!(
            error,
            PullError::Engine { .. } | PullError::NotInEngine { .. }
        ),
        "{error}"
    );
    assert!(!error.to_string().contains("  "), "{error}");
    error.to_string()
}

#[test]
fn an_image_is_taken_out_of_an_engine() {
    let archive = archive("arm64");
    let length = archive.len();
    for head in [
        "HTTP/1.0 200 OK\r\nContent-Type: application/x-tar".to_owned(),
        format!("HTTP/1.1 200 OK\r\ncontent-length: {length}"),
    ] {
        let (baked, request) = outcome(reply(&head, &archive));
        let baked = baked.unwrap();
        assert_eq!(request, "GET /images/a:1/get HTTP/1.0");
        assert_eq!(
            (baked.layers.len(), baked.config.cmd),
            (1, vec!["/f".to_owned()])
        );
    }
}

#[test]
fn what_an_engine_has_not_or_cannot_give_is_told() {
    let text = failure(reply(
        "HTTP/1.0 404 Not Found",
        br#"{"message":"no such image"}"#,
    ));
    assert!(
        text.contains("no image `a:1`") && text.contains("docker://a:1"),
        "{text}"
    );
    let long = format!(r#"{{"message":"broken \u001b[2J {}"}}"#, "x".repeat(10_000));
    let text = failure(reply("HTTP/1.0 500 No", long.as_bytes()));
    assert!(text.contains("500: broken") && text.len() < 1000, "{text}");
    assert!(!text.contains('\x1b'), "{text}");
    let text = failure(reply("HTTP/1.0 503 No", b"<html>"));
    assert!(text.contains("503: <html>"), "{text}");
    for (answer, part) in [
        (Vec::new(), "without an answer"),
        (b"HTTP/1.0 200".to_vec(), "without an answer"),
        (b"220 smtp ready\r\n\r\n".to_vec(), "no HTTP"),
        (vec![b'x'; 200_000], "no HTTP"),
        (
            reply("HTTP/1.0 200 OK\r\nContent-Length: -1", b""),
            "no length",
        ),
        (
            reply("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked", b""),
            "in pieces",
        ),
        (
            reply("HTTP/1.0 200 OK\r\nContent-Length: 9000", b"half"),
            "half way",
        ),
    ] {
        let text = failure(answer);
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn an_archive_that_is_not_whole_or_not_for_us_is_refused() {
    let whole = archive("arm64");
    for half in [
        &whole[..0],
        &whole[..700],
        &whole[..whole.len() / 2],
        b"no archive",
    ] {
        let (result, _) = outcome(reply("HTTP/1.0 200 OK", half));
        assert!(
            matches!(result, Err(BakeError::Image(_))),
            "{} bytes",
            half.len()
        );
    }
    let mut damaged = whole.clone();
    let at = whole.len() - 50_000;
    damaged[at] ^= 1;
    let (result, _) = outcome(reply("HTTP/1.0 200 OK", &damaged));
    assert!(matches!(result, Err(BakeError::Layer { .. })), "{result:?}");
    let (result, _) = outcome(reply("HTTP/1.0 200 OK", &archive("amd64")));
    let is_other = |error| matches!(error, BakeError::Image(ImageError::WrongPlatform { .. }));
    assert!(is_other(result.unwrap_err()));
    // More than anyone should send.
    let place = Place::new();
    let engine = place.serve(|stream| {
        let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n");
        while stream.write_all(&[0; 1 << 16]).is_ok() {}
    });
    let mut options = BakeOptions::default();
    options.limits.max_layer_bytes = 1 << 20;
    assert!(matches!(
        place.bake("a:1", &options),
        Err(BakeError::Image(_))
    ));
    engine.join().unwrap();
}

#[test]
fn no_engine_and_no_name_are_told() {
    let place = Place::new();
    for (name, part) in [
        ("a:1", "DOCKER_HOST"),
        ("../x", "no name"),
        ("a b", "no name"),
    ] {
        let error = place.bake(name, &BakeOptions::default()).unwrap_err();
        let text = PullError::of(error).unwrap().to_string();
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn waiting_for_an_engine_ends_when_cancelled() {
    let place = Place::new();
    let options = BakeOptions::default();
    let (asked, is_asked) = mpsc::channel();
    let (ended, is_ended) = mpsc::channel::<()>();
    let engine = place.serve(move |_| {
        asked.send(()).unwrap();
        // Not a word until the other side is gone.
        let _ = is_ended.recv();
    });
    let cancel = options.cancel.clone();
    let canceller = std::thread::spawn(move || {
        is_asked.recv().unwrap();
        cancel.cancel();
    });
    let error = place.bake("a:1", &options).unwrap_err();
    assert!(matches!(error, BakeError::Cancelled), "{error}");
    drop(ended);
    canceller.join().unwrap();
    engine.join().unwrap();
}
