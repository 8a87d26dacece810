//! Tokens and passwords: who gets which, and that nobody else does.

mod support;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;
use supermachine_oci_pull::{ClientConfig, PullError, PullPolicy};
use support::*;

/// What no error, log or other host may have.
const PASSWORD: &str = "hunter2";

fn with_file(scratch: &Scratch, document: &serde_json::Value) -> ClientConfig {
    let path = scratch.0.join("config.json");
    fs::write(&path, document.to_string()).unwrap();
    let mut config = config();
    config.credentials.files = vec![path];
    config
}

fn logged_in(scratch: &Scratch, host: &str) -> ClientConfig {
    let auth = BASE64_STANDARD.encode(format!("user:{PASSWORD}"));
    with_file(scratch, &json!({ "auths": { host: { "auth": auth } } }))
}

fn basic() -> String {
    format!(
        "Basic {}",
        BASE64_STANDARD.encode(format!("user:{PASSWORD}"))
    )
}

/// A registry that asks for tokens of `/token`, of which each serves `uses` requests.
fn tokens(image: &Image, challenge: &'static str, uses: usize, user: Option<String>) -> Server {
    let image = image.clone();
    let left = Arc::new(AtomicUsize::new(0));
    let number = AtomicUsize::new(0);
    Server::start(move |request| {
        if request.path == "/token" {
            let form = request.body.contains("refresh_token=identity");
            if user.as_deref() != request.header("authorization") && !form {
                return Reply::new(401, "");
            }
            left.store(uses, Ordering::Relaxed);
            let token = format!("t{}", number.fetch_add(1, Ordering::Relaxed) + 1);
            return Reply::new(200, json!({ "token": token }).to_string());
        }
        let current = format!("Bearer t{}", number.load(Ordering::Relaxed));
        let is_good = request.header("authorization") == Some(&current)
            && left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
                .is_ok();
        if is_good {
            return image.answer(request);
        }
        let host = request.header("host").unwrap();
        Reply::new(401, "").header("WWW-Authenticate", challenge.replace("HOST", host))
    })
}

const WITH_SCOPE: &str =
    r#"Bearer realm="http://HOST/token",service="s",scope="repository:a/b:pull""#;

#[test]
fn a_token_is_got_and_used_for_everything() {
    let image = Image::new(1000);
    let server = tokens(&image, WITH_SCOPE, 100, None);
    let scratch = Scratch::new();
    let reference = format!("{}/a/b:v1", server.host());
    assert_whole(&pull(&reference, &scratch.store()).unwrap(), &image);
    let asked: Vec<_> = server
        .seen()
        .into_iter()
        .filter(|r| r.path == "/token")
        .collect();
    assert_eq!(asked.len(), 1);
    assert!(
        asked[0]
            .query
            .contains("service=s&scope=repository%3Aa%2Fb%3Apull")
    );
}

/// jdx/mise#11132.
#[test]
fn a_token_that_expires_during_the_pull_is_got_anew() {
    let image = Image::new(1000);
    // One for the manifest and the config; it is over when both layers are asked for, and
    // those who do need one new token together.
    let server = tokens(&image, WITH_SCOPE, 2, None);
    let scratch = Scratch::new();
    let reference = format!("{}/a/b:v1", server.host());
    assert_whole(&pull(&reference, &scratch.store()).unwrap(), &image);
    assert_eq!(server.count(|request| request.path == "/token"), 2);
}

/// artifact-keeper#821: a challenge that does not say for what.
#[test]
fn a_challenge_without_scope_is_answered_for_the_repository() {
    let image = Image::new(1000);
    let server = tokens(&image, r#"Bearer realm="http://HOST/token""#, 100, None);
    let scratch = Scratch::new();
    let reference = format!("{}/a/b:v1", server.host());
    assert_whole(&pull(&reference, &scratch.store()).unwrap(), &image);
    let asked: Vec<_> = server
        .seen()
        .into_iter()
        .filter(|r| r.path == "/token")
        .collect();
    assert!(
        asked[0].query.contains("scope=repository%3Aa%2Fb%3Apull"),
        "{}",
        asked[0].query
    );
}

/// containerd#9648.
#[test]
fn a_mirror_is_asked_for_tokens_of_its_own() {
    let image = Image::new(1000);
    let mirror = tokens(&image, r#"Bearer realm="http://HOST/token""#, 100, None);
    let mut config = config();
    config.mirrors = vec![("registry.example".into(), mirror.host())];
    let scratch = Scratch::new();
    let reference = "registry.example/a/b:v1";
    let pulled = pull_with(config, reference, PullPolicy::Missing, &scratch.store()).unwrap();
    assert_whole(&pulled, &image);
}

#[test]
fn a_registry_that_refuses_every_token_is_not_asked_for_ever() {
    let image = Image::new(0);
    let server = tokens(&image, WITH_SCOPE, 0, None);
    let scratch = Scratch::new();
    let reference = format!("{}/a/b:v1", server.host());
    let error = pull(&reference, &scratch.store()).unwrap_err();
    assert!(
        matches!(cause(&error), PullError::Denied { .. }),
        "{}",
        chain(&error)
    );
    assert!(server.seen().len() < 10, "{:?}", server.seen());
}

#[test]
fn a_password_gets_a_token_and_a_wrong_one_an_error_without_it() {
    let image = Image::new(1000);
    let server = tokens(&image, WITH_SCOPE, 100, Some(basic()));
    let scratch = Scratch::new();
    let reference = format!("{}/a/b:v1", server.host());
    let error = pull(&reference, &scratch.store()).unwrap_err();
    assert!(
        matches!(cause(&error), PullError::LoginNeeded { .. }),
        "{}",
        chain(&error)
    );
    assert!(chain(&error).contains(&format!("supermachine login {}", server.host())));

    let config = logged_in(&scratch, &server.host());
    let pulled = pull_with(config, &reference, PullPolicy::Missing, &scratch.store()).unwrap();
    assert_whole(&pulled, &image);

    let other = Scratch::new();
    let auth = BASE64_STANDARD.encode(format!("other:{PASSWORD}"));
    let config = with_file(
        &other,
        &json!({ "auths": { server.host(): { "auth": auth } } }),
    );
    let error = pull_with(config, &reference, PullPolicy::Missing, &other.store()).unwrap_err();
    assert!(
        matches!(cause(&error), PullError::Denied { .. }),
        "{}",
        chain(&error)
    );
    let text = format!("{} {error:?}", chain(&error));
    assert!(!text.contains(PASSWORD) && !text.contains(&auth), "{text}");
}

#[test]
fn an_identity_token_gets_tokens_by_a_form() {
    let image = Image::new(1000);
    let server = tokens(&image, WITH_SCOPE, 100, Some("none".into()));
    let scratch = Scratch::new();
    let entry = json!({ "auth": "", "identitytoken": "identity" });
    let config = with_file(&scratch, &json!({ "auths": { server.host(): entry } }));
    let reference = format!("{}/a/b:v1", server.host());
    let pulled = pull_with(config, &reference, PullPolicy::Missing, &scratch.store()).unwrap();
    assert_whole(&pulled, &image);
    let seen = server.seen();
    let form = seen
        .iter()
        .find(|request| request.path == "/token")
        .unwrap();
    assert_eq!(form.method, "POST");
    assert!(form.query.is_empty() && form.body.contains("grant_type=refresh_token"));
}

/// A registry that takes a name and a password.
fn password(image: &Image) -> Server {
    let image = image.clone();
    Server::start(
        move |request| match request.header("authorization") == Some(&basic()) {
            true => image.answer(request),
            false => Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"x, y\""),
        },
    )
}

/// A3S-Lab/Box#85.
#[test]
fn a_registry_that_only_knows_passwords_gets_one_once_it_asked() {
    let image = Image::new(1000);
    let server = password(&image);
    let scratch = Scratch::new();
    let reference = format!("{}/a/b:v1", server.host());
    let error = pull(&reference, &scratch.store()).unwrap_err();
    assert!(
        matches!(cause(&error), PullError::LoginNeeded { .. }),
        "{}",
        chain(&error)
    );
    let before = server.seen().len();
    let config = logged_in(&scratch, &server.host());
    let pulled = pull_with(config, &reference, PullPolicy::Missing, &scratch.store()).unwrap();
    assert_whole(&pulled, &image);
    let seen = server.seen();
    assert_eq!(seen[before].header("authorization"), None);
}

/// opa#6580, renovate#3877: storage refuses requests with two signatures.
#[test]
fn credentials_do_not_follow_a_redirection_to_another_host() {
    let image = Image::new(100_000);
    let answers = image.clone();
    let storage = Server::start(move |request| match request.header("authorization") {
        Some(_) => Reply::new(400, "two ways to authenticate"),
        None => answers.answer(request),
    });
    let (answers, to) = (image.clone(), storage.url(""));
    let server = Server::start(move |request| {
        if request.header("authorization") != Some(&basic()) {
            return Reply::new(401, "").header("WWW-Authenticate", "Basic");
        }
        match request.is_blob() {
            true => Reply::new(307, "").header("Location", format!("{to}{}?sig=1", request.path)),
            false => answers.answer(request),
        }
    });
    let scratch = Scratch::new();
    let config = logged_in(&scratch, &server.host());
    let reference = format!("{}/a/b:v1", server.host());
    let pulled = pull_with(config, &reference, PullPolicy::Missing, &scratch.store()).unwrap();
    assert_whole(&pulled, &image);
    assert!(storage.count(|request| request.query == "sig=1") >= 2);
}

#[test]
fn passwords_are_not_sent_where_a_challenge_wants_them_without_tls() {
    for realm in [
        "http://192.0.2.1/token?x=hunter2",
        "ftp://127.0.0.1/token",
        "token",
        "",
    ] {
        let server = Server::start(move |_| {
            let challenge = format!("Bearer realm=\"{realm}\"");
            Reply::new(401, "").header("WWW-Authenticate", challenge)
        });
        let scratch = Scratch::new();
        let config = logged_in(&scratch, &server.host());
        let reference = format!("{}/a/b:v1", server.host());
        let error =
            pull_with(config, &reference, PullPolicy::Missing, &scratch.store()).unwrap_err();
        assert!(
            matches!(cause(&error), PullError::Realm { .. }),
            "{}",
            chain(&error)
        );
        assert!(!chain(&error).contains(PASSWORD), "{}", chain(&error));
    }
}

/// A credential helper, which records what it was asked.
fn asked_helper(scratch: &Scratch, name: &str, script: &str) {
    let asked = scratch.0.join("asked");
    let record = format!("read server; echo \"$1 $server\" >> {}", asked.display());
    helper(scratch, name, &format!("{record}\n{script}"));
}

/// docker/model-runner#1033.
#[test]
fn a_credential_helper_is_asked() {
    let answer = format!("echo '{{\"Username\":\"user\",\"Secret\":\"{PASSWORD}\"}}'");
    for kind in ["credHelpers", "credsStore"] {
        let image = Image::new(1000);
        let server = password(&image);
        let scratch = Scratch::new();
        asked_helper(&scratch, "mine", &answer);
        let document = match kind {
            "credHelpers" => {
                json!({ "credHelpers": { server.host(): "mine" }, "credsStore": "none" })
            }
            _ => json!({ "credsStore": "mine" }),
        };
        let mut config = with_file(&scratch, &document);
        config.credentials.helper_directories = vec![scratch.0.clone()];
        let reference = format!("{}/a/b:v1", server.host());
        let pulled = pull_with(config, &reference, PullPolicy::Missing, &scratch.store()).unwrap();
        assert_whole(&pulled, &image);
        let asked = fs::read_to_string(scratch.0.join("asked")).unwrap();
        assert_eq!(
            asked.lines().next(),
            Some(format!("get {}", server.host()).as_str())
        );
    }
}

/// containerd/nerdctl#1263: Docker Hub by its address, and by its name.
#[test]
fn helpers_are_asked_for_docker_hub_by_both_its_names() {
    let scratch = Scratch::new();
    asked_helper(
        &scratch,
        "mine",
        "echo 'credentials not found in native keychain'; exit 1",
    );
    let mut config = with_file(&scratch, &json!({ "credsStore": "mine" }));
    config.credentials.helper_directories = vec![scratch.0.clone()];
    let found = config.credentials.find("docker.io", "library/x").unwrap();
    assert_eq!(found, None);
    let asked = fs::read_to_string(scratch.0.join("asked")).unwrap();
    assert_eq!(asked, "get https://index.docker.io/v1/\nget docker.io\n");
}

#[test]
fn a_helper_that_hangs_or_floods_or_babbles_is_an_error_without_secrets() {
    for (script, words) in [
        ("exec sleep 1000", "took too long"),
        // Its own child has the pipe.
        ("sleep 30 & exit 0", "took too long"),
        (
            "while true; do echo hunter2hunter2hunter2hunter2hunter2hunter2; done",
            "more than any",
        ),
        ("echo hunter2; exit 3", "failed"),
        (
            "echo hunter2 >&2; echo '{\"Username\":\"hunter2\"}'",
            "something else",
        ),
        ("printf '\\377'", "something else"),
    ] {
        let scratch = Scratch::new();
        asked_helper(&scratch, "mine", script);
        let mut config = with_file(&scratch, &json!({ "credsStore": "mine" }));
        config.credentials.helper_directories = vec![scratch.0.clone()];
        config.credentials.helper_timeout = match words {
            "took too long" => Duration::from_millis(300),
            _ => Duration::from_secs(300),
        };
        let begun = Instant::now();
        let error = config.credentials.find("r.example", "x").unwrap_err();
        assert!(matches!(error, PullError::Helper { .. }), "{error}");
        assert!(error.to_string().contains(words), "{script}: {error}");
        assert!(!format!("{error} {error:?}").contains(PASSWORD), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(200));
    }
}

#[test]
fn a_helper_is_a_program_and_no_path() {
    for name in ["", "../x", "a b", ".x", "/bin/sh"] {
        let scratch = Scratch::new();
        let config = with_file(&scratch, &json!({ "credsStore": name }));
        let error = config.credentials.find("r.example", "x").unwrap_err();
        assert!(error.to_string().contains("no program's"), "{error}");
    }
}

#[test]
fn files_are_read_as_docker_and_podman_write_them() {
    let auth = |user: &str| json!({ "auth": BASE64_STANDARD.encode(format!("{user}:p")) });
    for (key, registry, repository, found) in [
        ("r.example", "r.example", "a/b", true),
        ("https://r.example", "r.example", "a/b", true),
        ("https://r.example/v1/", "r.example", "a/b", true),
        ("r.example/a", "r.example", "a/b", true),
        ("r.example/a/b", "r.example", "a/b", true),
        ("r.example/a/c", "r.example", "a/b", false),
        ("r.example:5000", "r.example", "a/b", false),
        ("example", "r.example", "a/b", false),
        (
            "https://index.docker.io/v1/",
            "docker.io",
            "library/x",
            true,
        ),
        ("docker.io", "docker.io", "library/x", true),
    ] {
        let scratch = Scratch::new();
        let config = with_file(&scratch, &json!({ "auths": { key: auth("u") } }));
        let login = config.credentials.find(registry, repository).unwrap();
        assert_eq!(login.is_some(), found, "{key}");
    }
    // The nearest key counts, and the first file.
    let scratch = Scratch::new();
    let both = json!({ "auths": { "r.example": auth("far"), "r.example/a": auth("near") } });
    let mut config = with_file(&scratch, &both);
    let second = scratch.0.join("second.json");
    fs::write(
        &second,
        json!({ "auths": { "r.example": auth("second"), "s.example": auth("s") } }).to_string(),
    )
    .unwrap();
    config.credentials.files.push(second);
    let user = |registry: &str, repository: &str| {
        format!(
            "{:?}",
            config.credentials.find(registry, repository).unwrap()
        )
    };
    assert!(user("r.example", "a/b").contains("near"));
    assert!(user("r.example", "c").contains("far"));
    assert!(user("s.example", "c").contains("\"s\""));
    assert!(user("t.example", "c").contains("None"));
}

#[test]
fn a_damaged_file_is_named_and_nothing_of_it_shown() {
    for text in [
        "{\"auths\": {\"r.example\": {\"auth\": \"hunter2",
        "[\"hunter2\"]",
        "{\"auths\": {\"r.example\": {\"auth\": \"hunter2!\"}}}",
        "{\"auths\": {\"r.example\": \"hunter2\"}}",
    ] {
        let scratch = Scratch::new();
        let path = scratch.0.join("config.json");
        fs::write(&path, text).unwrap();
        let mut config = config();
        config.credentials.files = vec![path];
        let error = config.credentials.find("r.example", "x").unwrap_err();
        assert!(error.to_string().contains("config.json"), "{error}");
        assert!(!format!("{error} {error:?}").contains(PASSWORD), "{error}");
    }
}
