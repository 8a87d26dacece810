//! Registries that stall, cut, lie, loop and lead elsewhere: what can be got is got, and
//! what cannot ends with an error that names it and leaves nothing behind.

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use supermachine_oci_bake::{BakeError, BakeOptions, ImageError, LayerError, Reference};
use supermachine_oci_pull::{Client, ClientConfig, PullError, PullPolicy};
use support::*;

/// More than a blob's progress needs to count.
const BYTES: usize = 400_000;

/// A registry that answers `answer` where it answers anything, else as it should.
fn server(
    image: &Image,
    answer: impl Fn(&Image, &Request) -> Option<Reply> + Send + Sync + 'static,
) -> Server {
    let image = image.clone();
    Server::start(move |request| answer(&image, request).unwrap_or_else(|| image.answer(request)))
}

/// Pulls into a store of its own, which must be whole or empty after that, and give the
/// image once the registry behaves.
fn try_pull(server: &Server, image: &Image, config: ClientConfig) -> Result<(), BakeError> {
    let scratch = Scratch::new();
    let store = scratch.store();
    let reference = format!("{}/a:v1", server.host());
    let pulled = pull_with(config, &reference, PullPolicy::Missing, &store);
    match &pulled {
        Ok(baked) => assert_whole(baked, image),
        Err(_) => {
            let answers = image.clone();
            let honest = Server::start(move |request| answers.answer(request));
            let reference = format!("{}/a:v1", honest.host());
            assert_whole(&pull(&reference, &store).unwrap(), image);
        }
    }
    assert_eq!(scratch.layers(), 2);
    assert!(
        files(&scratch.0.join("cache/layers"))
            .iter()
            .all(|path| path.extension().is_some_and(|end| end == "squashfs"))
    );
    pulled.map(drop)
}

#[test]
fn a_cut_connection_goes_on_where_it_was() {
    let image = Image::new(BYTES);
    let cuts = First::times(3);
    let server = server(&image, move |image, request| {
        let cut = image.is_layer(request) && cuts.take();
        cut.then(|| image.answer(request).ending(Ending::Cut(100_000)))
    });
    try_pull(&server, &image, config()).unwrap();
    let ranges: Vec<_> = server
        .seen()
        .iter()
        .filter(|request| image.is_layer(request))
        .map(|request| request.header("range").map(str::to_owned))
        .collect();
    let expected = [None, Some(100_000), Some(200_000), Some(300_000)];
    assert_eq!(
        ranges,
        expected.map(|from| from.map(|n| format!("bytes={n}-")))
    );
}

/// containerd#3974: there is no limit for the whole, and what gets further may fail for
/// ever.
#[test]
fn a_connection_that_always_breaks_is_good_enough_while_it_gets_further() {
    let image = Image::new(BYTES * 3);
    let server = server(&image, |image, request| {
        let reply = || image.answer(request).ending(Ending::Cut(70_000));
        image.is_layer(request).then(reply)
    });
    try_pull(&server, &image, config()).unwrap();
    assert!(server.count(|request| image.is_layer(request)) > 10);
}

/// docker/model-runner#873: the whole, where a part was asked for.
#[test]
fn an_ignored_range_is_not_appended() {
    let image = Image::new(BYTES);
    let cut = First::times(1);
    let server = server(&image, move |image, request| {
        if !image.is_layer(request) {
            return None;
        }
        let whole = Reply::new(200, image.layer_bytes());
        Some(if cut.take() {
            whole.ending(Ending::Cut(150_000))
        } else {
            whole
        })
    });
    try_pull(&server, &image, config()).unwrap();
    assert_eq!(server.count(|request| image.is_layer(request)), 2);
}

/// containerd#12291: a part of which nobody says which, or of which it is said that it
/// is another one.
#[test]
fn a_part_that_is_not_the_one_asked_for_is_not_taken() {
    for range in [
        None,
        Some("bytes 0-9/400"),
        Some("bytes x"),
        Some("bytes 7-/*"),
    ] {
        let image = Image::new(BYTES);
        let cut = First::times(1);
        let server = server(&image, move |image, request| {
            if !image.is_layer(request) {
                return None;
            }
            if cut.take() {
                return Some(image.answer(request).ending(Ending::Cut(150_000)));
            }
            request.header("range")?;
            let reply = Reply::new(206, image.layer_bytes());
            Some(match range {
                Some(range) => reply.header("Content-Range", range),
                None => reply,
            })
        });
        try_pull(&server, &image, config()).unwrap();
        assert_eq!(
            server.count(|request| image.is_layer(request)),
            3,
            "{range:?}"
        );
    }
}

#[test]
fn a_registry_that_does_not_know_its_own_length_is_asked_for_the_whole() {
    let image = Image::new(BYTES);
    let cut = First::times(1);
    let server = server(&image, move |image, request| {
        if !image.is_layer(request) {
            return None;
        }
        if cut.take() {
            return Some(image.answer(request).ending(Ending::Cut(150_000)));
        }
        request.header("range").map(|_| Reply::new(416, ""))
    });
    try_pull(&server, &image, config()).unwrap();
}

#[test]
fn a_silent_connection_is_given_up_and_made_again() {
    let image = Image::new(BYTES);
    let stalls = First::times(2);
    let server = server(&image, move |image, request| {
        let stall = image.is_layer(request) && stalls.take();
        stall.then(|| image.answer(request).ending(Ending::Stall(100_000)))
    });
    let mut config = config();
    // A slow machine may be silent for longer, and is asked again then.
    config.stall_timeout = Duration::from_secs(1);
    config.attempts = 50;
    try_pull(&server, &image, config).unwrap();
    assert!(server.count(|request| image.is_layer(request)) >= 3);
}

#[test]
fn a_registry_that_never_says_anything_is_an_error_that_says_so() {
    let image = Image::new(0);
    let server = server(&image, |_, request| {
        let stall = request.path.contains("/manifests/");
        stall.then(|| Reply::new(200, "{}").ending(Ending::Stall(0)))
    });
    let mut config = config();
    config.stall_timeout = Duration::from_millis(200);
    config.attempts = 2;
    let error = try_pull(&server, &image, config).unwrap_err();
    assert!(
        matches!(cause(&error), PullError::Stalled { .. }),
        "{}",
        chain(&error)
    );
}

#[test]
fn cancelling_ends_a_silent_connection_at_once() {
    let image = Image::new(BYTES);
    let (stalled, is_stalled) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicBool::new(false)),
    );
    let flag = Arc::clone(&stalled);
    let server = server(&image, move |image, request| {
        image.is_layer(request).then(|| {
            flag.store(true, Ordering::Relaxed);
            image.answer(request).ending(Ending::Stall(100_000))
        })
    });
    let mut config = config();
    config.stall_timeout = Duration::from_secs(600);
    let scratch = Scratch::new();
    let store = scratch.store();
    let options = BakeOptions::default();
    let reference = Reference::parse(&format!("{}/a:v1", server.host())).unwrap();
    let name = reference.registry_name().unwrap();
    let client = Client::new(config);
    let begun = Instant::now();
    let error = std::thread::scope(|scope| {
        let pull = scope.spawn(|| client.pull(name, PullPolicy::Missing, &options, &store));
        while !stalled.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(5));
        }
        options.cancel.cancel();
        pull.join().unwrap().unwrap_err()
    });
    assert!(matches!(error, BakeError::Cancelled), "{}", chain(&error));
    assert!(begun.elapsed() < Duration::from_secs(300));
    // The other one may have been done by then.
    assert!(scratch.layers() <= 1);
    is_stalled.store(true, Ordering::Relaxed);
}

/// containers/image#618.
#[test]
fn a_busy_registry_is_left_alone_for_as_long_as_it_says() {
    let image = Image::new(1000);
    let busy = First::times(4);
    let server = server(&image, move |_, request| {
        let refuse = request.path.contains("/manifests/") && busy.take();
        refuse.then(|| {
            let past = "Sun, 06 Nov 1994 08:49:37 GMT";
            Reply::new(429, "slow down").header("Retry-After", past)
        })
    });
    let mut config = config();
    // Were the date not understood, this would take the rest of the day.
    config.first_pause = Duration::from_secs(80_000);
    config.longest_pause = Duration::from_secs(80_000);
    try_pull(&server, &image, config).unwrap();
    assert_eq!(server.count(|r| r.path.ends_with("/manifests/v1")), 5);
}

#[test]
fn a_registry_that_wants_more_patience_than_there_is_is_an_error() {
    let image = Image::new(0);
    let server = server(&image, |_, request| {
        let refuse = request.path.contains("/manifests/");
        refuse.then(|| Reply::new(429, "").header("Retry-After", "86400"))
    });
    let error = try_pull(&server, &image, config()).unwrap_err();
    let PullError::TooBusy { wait, .. } = cause(&error) else {
        panic!("{}", chain(&error));
    };
    assert_eq!(wait.as_secs(), 86_400);
    assert_eq!(server.count(|r| r.path.contains("/manifests/")), 1);
}

#[test]
fn failures_that_pass_are_tried_again_and_no_more_often_than_that() {
    for status in [408, 500, 502, 503, 504] {
        let image = Image::new(1000);
        let fails = First::times(4);
        let server = server(&image, move |image, request| {
            let fail = image.is_layer(request) && fails.take();
            fail.then(|| Reply::new(status, ""))
        });
        try_pull(&server, &image, config()).unwrap();
        assert_eq!(
            server.count(|request| image.is_layer(request)),
            5,
            "{status}"
        );
    }
    let image = Image::new(1000);
    let server = server(&image, |image, request| {
        image.is_layer(request).then(|| Reply::new(503, ""))
    });
    let error = try_pull(&server, &image, config()).unwrap_err();
    assert!(matches!(
        cause(&error),
        PullError::Status { status: 503, .. }
    ));
    assert_eq!(server.count(|request| image.is_layer(request)), 5);
}

/// rust-oci-client#165: another content than the digest says.
#[test]
fn content_of_another_digest_is_refused() {
    let image = Image::new(BYTES);
    let server = server(&image, |image, request| {
        let mut bytes = image.layer_bytes().to_vec();
        bytes[1000] ^= 1;
        image.is_layer(request).then(|| Reply::new(200, bytes))
    });
    let error = try_pull(&server, &image, config()).unwrap_err();
    let BakeError::Layer { source, .. } = &error else {
        panic!("{}", chain(&error));
    };
    let is_named = match source {
        LayerError::Content(error) => matches!(**error, ImageError::DigestMismatch { .. }),
        LayerError::Compression { .. } => true,
        _ => false,
    };
    assert!(is_named, "{}", chain(&error));
}

/// rust-oci-client#149: the digest in the reference.
#[test]
fn a_manifest_of_another_digest_is_refused() {
    let image = Image::new(0);
    let server = server(&image, |image, request| {
        let (kind, bytes) = &image.manifests["v1"];
        let mut bytes = bytes.clone();
        bytes.push(b' ');
        let is_manifest = request.path.contains("/manifests/");
        is_manifest.then(|| Reply::new(200, bytes).header("Content-Type", kind))
    });
    let scratch = Scratch::new();
    let pinned = format!("{}/a@{}", server.host(), image.root);
    let error = pull(&pinned, &scratch.store()).unwrap_err();
    assert!(
        matches!(
            error,
            BakeError::Image(ImageError::DigestMismatch { .. } | ImageError::SizeMismatch { .. })
        ),
        "{}",
        chain(&error)
    );
}

#[test]
fn a_blob_of_another_length_is_refused_before_it_is_read() {
    let image = Image::new(BYTES);
    for length in [10, 10 << 30] {
        let server = server(&image, move |image, request| {
            let mut reply = Reply::new(200, "0123456789");
            reply.length = Some(length);
            image.is_layer(request).then_some(reply)
        });
        let error = try_pull(&server, &image, config()).unwrap_err();
        let PullError::WrongLength { actual, .. } = cause(&error) else {
            panic!("{}", chain(&error));
        };
        assert_eq!(*actual, length);
    }
}

#[test]
fn what_is_no_registry_is_named() {
    for kind in ["text/html", "text/html; charset=utf-8", "image/png"] {
        let image = Image::new(0);
        let server = server(&image, move |_, request| {
            let is_manifest = request.path.contains("/manifests/");
            is_manifest
                .then(|| Reply::new(200, "<html>log in to the Wi-Fi").header("Content-Type", kind))
        });
        let error = try_pull(&server, &image, config()).unwrap_err();
        assert!(
            matches!(cause(&error), PullError::Answer { .. }),
            "{}",
            chain(&error)
        );
    }
}

#[test]
fn a_manifest_without_an_end_is_refused() {
    let image = Image::new(0);
    let server = server(&image, |image, request| {
        let (kind, _) = &image.manifests["v1"];
        let mut reply = Reply::new(200, vec![b' '; (4 << 20) + 10]).header("Content-Type", kind);
        reply.length = Some(10 << 30);
        request.path.contains("/manifests/").then_some(reply)
    });
    let error = try_pull(&server, &image, config()).unwrap_err();
    assert!(
        matches!(cause(&error), PullError::TooLarge { .. }),
        "{}",
        chain(&error)
    );
}

#[test]
fn redirections_to_where_nobody_should_be_led_are_refused() {
    for location in [
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "http://192.0.2.1/x?signature=hunter2",
        "https://user:hunter2@127.0.0.1/x",
        "data:text/plain,x",
        "",
    ] {
        let image = Image::new(0);
        let server = server(&image, move |image, request| {
            let lead = || Reply::new(307, "").header("Location", location);
            image.is_layer(request).then(lead)
        });
        let error = try_pull(&server, &image, config()).unwrap_err();
        assert!(
            matches!(cause(&error), PullError::Redirect { .. }),
            "{}",
            chain(&error)
        );
        let text = format!("{} {error:?}", chain(&error));
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn a_circle_of_redirections_ends() {
    let image = Image::new(0);
    let server = server(&image, |image, request| {
        let again = || Reply::new(302, "").header("Location", request.path.clone());
        image.is_layer(request).then(again)
    });
    let error = try_pull(&server, &image, config()).unwrap_err();
    assert!(
        matches!(cause(&error), PullError::Redirect { .. }),
        "{}",
        chain(&error)
    );
    assert_eq!(server.count(|request| image.is_layer(request)), 11);
}

/// containerd#9552: the mirror fails in the middle of a blob, and the registry has the
/// rest.
#[test]
fn the_registry_goes_on_where_a_mirror_failed() {
    let image = Image::new(BYTES);
    let first = First::times(1);
    let mirror = server(&image, move |image, request| {
        if !image.is_layer(request) {
            return None;
        }
        Some(match first.take() {
            true => image.answer(request).ending(Ending::Cut(150_000)),
            false => Reply::new(500, ""),
        })
    });
    let answers = image.clone();
    let registry = Server::start(move |request| answers.answer(request));
    let mut config = config();
    config.mirrors = vec![(registry.host(), format!("http://{}/prefix", mirror.host()))];
    let scratch = Scratch::new();
    let reference = format!("{}/a/b:v1", registry.host());
    let pulled = pull_with(config, &reference, PullPolicy::Missing, &scratch.store()).unwrap();
    assert_whole(&pulled, &image);
    let asked: Vec<Request> = registry.seen();
    let blobs: Vec<_> = asked.iter().filter(|request| request.is_blob()).collect();
    assert_eq!(blobs.len(), 1, "{blobs:?}");
    assert_eq!(blobs[0].header("range"), Some("bytes=150000-"));
    assert!(
        mirror
            .seen()
            .iter()
            .all(|r| r.path.starts_with("/prefix/v2/a/b/"))
    );
}

#[test]
fn a_mirror_without_the_image_is_passed_over() {
    for status in [404, 401, 403, 500] {
        let image = Image::new(1000);
        let mirror = Server::start(move |_| Reply::new(status, ""));
        let answers = image.clone();
        let registry = Server::start(move |request| answers.answer(request));
        let mut config = config();
        config.mirrors = vec![(registry.host(), mirror.host())];
        let scratch = Scratch::new();
        let reference = format!("{}/a:v1", registry.host());
        let pulled = pull_with(config, &reference, PullPolicy::Missing, &scratch.store()).unwrap();
        assert_whole(&pulled, &image);
        assert!(mirror.count(|request| request.path.contains("/manifests/")) > 0);
    }
}

#[test]
fn the_addresses_of_a_foreign_layer_are_not_followed() {
    let asked = Arc::new(Mutex::new(0));
    let count = Arc::clone(&asked);
    let elsewhere = Server::start(move |_| {
        *count.lock().unwrap() += 1;
        Reply::new(200, "")
    });
    let mut image = Image::new(1000);
    let (kind, bytes) = image.manifests["v1"].clone();
    let mut manifest: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    for layer in manifest["layers"].as_array_mut().unwrap() {
        layer["urls"] = serde_json::json!([elsewhere.url("/layer")]);
    }
    let bytes = manifest.to_string().into_bytes();
    image.root = supermachine_oci_bake::Digest::sha256_of(&bytes).to_string();
    for name in ["v1".to_owned(), image.root.clone()] {
        image.manifests.insert(name, (kind.clone(), bytes.clone()));
    }
    let server = server(&image, |_, _| None);
    try_pull(&server, &image, config()).unwrap();
    assert_eq!(*asked.lock().unwrap(), 0);
}
