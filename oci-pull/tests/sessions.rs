//! Logging in and out.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use supermachine_oci_pull::{ClientConfig, Kept, PullError, PullPolicy, Secret, login, logout};
use support::*;

/// A registry that takes `user` with `hunter2`.
fn server(image: &Image) -> Server {
    let image = image.clone();
    let good = format!("Basic {}", BASE64_STANDARD.encode("user:hunter2"));
    Server::start(
        move |request| match request.header("authorization") == Some(&good) {
            true => image.answer(request),
            false => Reply::new(401, "").header("WWW-Authenticate", "Basic realm=x"),
        },
    )
}

fn with_files(scratch: &Scratch) -> ClientConfig {
    let mut config = config();
    config.credentials.files = vec![scratch.0.join("docker/config.json")];
    config.credentials.helper_directories = vec![scratch.0.clone()];
    config
}

#[test]
fn a_login_serves_pulls_until_the_logout() {
    let image = Image::new(1000);
    let server = server(&image);
    let scratch = Scratch::new();
    let config = with_files(&scratch);
    let path = config.credentials.files[0].clone();
    let reference = format!("{}/a:v1", server.host());
    let pull = || {
        let scratch = Scratch::new();
        pull_with(
            config.clone(),
            &reference,
            PullPolicy::Missing,
            &scratch.store(),
        )
    };

    let wrong = login(&config, &server.host(), "user", &Secret::new("hunter3")).unwrap_err();
    assert!(matches!(wrong, PullError::Denied { .. }), "{wrong}");
    assert!(!path.exists() && !format!("{wrong} {wrong:?}").contains("hunter3"));

    // What else is in the file stays.
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let before = json!({ "auths": { "other": { "auth": "x" } }, "detachKeys": "ctrl-q" });
    fs::write(&path, before.to_string()).unwrap();
    let kept = login(&config, &server.host(), "user", &Secret::new("hunter2")).unwrap();
    assert_eq!(kept, Kept::File(path.clone()));
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let document: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(document["detachKeys"], "ctrl-q");
    assert_eq!(document["auths"]["other"]["auth"], "x");
    assert_whole(&pull().unwrap(), &image);

    assert_eq!(
        logout(&config, &server.host()).unwrap(),
        Kept::File(path.clone())
    );
    let document: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(document, before);
    assert!(matches!(
        cause(&pull().unwrap_err()),
        PullError::LoginNeeded { .. }
    ));
    assert_eq!(logout(&config, &server.host()).unwrap(), Kept::Nowhere);
    assert_eq!(files(path.parent().unwrap()), [path]);
}

#[test]
fn a_credential_helper_keeps_what_it_is_named_for() {
    let image = Image::new(0);
    let server = server(&image);
    let scratch = Scratch::new();
    let config = with_files(&scratch);
    let path = config.credentials.files[0].clone();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let before = json!({ "credsStore": "mine" }).to_string();
    fs::write(&path, &before).unwrap();
    let asked = scratch.0.join("asked");
    let record = format!("(echo \"$1\"; cat; echo) >> {}", asked.display());
    helper(&scratch, "mine", &record);
    let kept = login(&config, &server.host(), "user", &Secret::new("hunter2")).unwrap();
    assert_eq!(kept, Kept::Helper("mine".into()));
    logout(&config, &server.host()).unwrap();
    let text = fs::read_to_string(&asked).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let entry: Value = serde_json::from_str(lines[1]).unwrap();
    assert_eq!((lines[0], &entry["Secret"]), ("store", &json!("hunter2")));
    assert_eq!(lines[2..], ["erase", &server.host()]);
    assert_eq!(fs::read_to_string(&path).unwrap(), before);

    helper(&scratch, "mine", "echo hunter2; exit 1");
    let error = login(&config, &server.host(), "user", &Secret::new("hunter2")).unwrap_err();
    assert!(matches!(error, PullError::Helper { .. }), "{error}");
    assert!(!format!("{error} {error:?}").contains("hunter2"));
}

#[test]
fn what_is_no_registry_is_not_logged_in_to() {
    let scratch = Scratch::new();
    let config = with_files(&scratch);
    for registry in [
        "",
        "http://x.example",
        "x.example/y",
        "a b",
        "x.example:port",
        "user",
    ] {
        let error = login(&config, registry, "user", &Secret::new("p")).unwrap_err();
        assert!(
            matches!(error, PullError::Setting { .. }),
            "{registry}: {error}"
        );
    }
    assert!(files(&scratch.0).is_empty());
}
