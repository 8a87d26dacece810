//! Credential helpers: programs `docker-credential-NAME` that keep passwords.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::error::{PullError, show};
use crate::login::Login;

/// Most bytes of an answer.
const MAX_ANSWER_BYTES: u64 = 1 << 20;
/// How often an ended helper is looked for.
const POLL: Duration = Duration::from_millis(10);

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// Where helpers are, and how long they may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Helpers<'a> {
    pub(crate) directories: &'a [PathBuf],
    pub(crate) timeout: Duration,
}

/// What a helper knows of a server.
pub(crate) fn get(
    helpers: Helpers<'_>,
    name: &str,
    server: &str,
) -> Result<Option<Login>, PullError> {
    let (text, succeeded) = ask(helpers, name, "get", server)?;
    if !succeeded {
        // The word of docker's helper library, and of others.
        let lower = text.to_ascii_lowercase();
        if lower.contains("credentials not found") || lower.contains("no credentials") {
            return Ok(None);
        }
        return Err(failed(name, "failed"));
    }
    let answer: Answer = serde_json::from_str(&text)
        .map_err(|_| failed(name, "answered something else than credentials"))?;
    if answer.secret.is_empty() {
        return Ok(None);
    }
    Ok(Some(Login::of(&answer.username, &answer.secret)))
}

fn failed(name: &str, reason: &str) -> PullError {
    PullError::Helper {
        program: show(name),
        reason: reason.to_owned(),
    }
}

/// Runs a helper with `input`: what it printed, and whether it succeeded. What it
/// says on its standard error nobody sees, since it may be a password.
pub(crate) fn ask(
    helpers: Helpers<'_>,
    name: &str,
    action: &str,
    input: &str,
) -> Result<(String, bool), PullError> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if name.is_empty() || name.starts_with('.') || !name.chars().all(is_word) {
        return Err(failed(name, "has a name that is no program's"));
    }
    let program = format!("docker-credential-{name}");
    let mut own = helpers.directories.iter().map(|dir| dir.join(&program));
    let path = own
        .find(|path| path.exists())
        .unwrap_or_else(|| PathBuf::from(&program));
    let mut child = Command::new(path)
        .arg(action)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| failed(name, &format!("cannot be started: {error}")))?;
    let deadline = Instant::now() + helpers.timeout;
    let outcome = converse(&mut child, input, deadline);
    // Also of one that goes on; it may have ended by now.
    let _ = child.kill();
    let reaped = child.wait();
    match outcome {
        Err(reason) => Err(failed(name, reason)),
        Ok((text, succeeded)) => {
            reaped.map_err(|_| failed(name, "cannot be waited for"))?;
            Ok((text, succeeded))
        }
    }
}

/// Threads that may be left behind do what may block: a helper's own children can hold
/// its pipes open for ever.
fn converse(
    child: &mut Child,
    input: &str,
    deadline: Instant,
) -> Result<(String, bool), &'static str> {
    const SLOW: &str = "took too long";
    if let Some(mut stdin) = child.stdin.take() {
        let input = input.as_bytes().to_vec();
        // It may not read, and end before it has.
        std::thread::spawn(move || stdin.write_all(&input));
    }
    let (sender, receiver) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            let read = stdout.take(MAX_ANSWER_BYTES + 1).read_to_end(&mut text);
            // Nobody waits any more if this fails.
            let _ = sender.send(read.map(|_| text));
        });
    }
    let left = || deadline.saturating_duration_since(Instant::now());
    let text = receiver.recv_timeout(left()).map_err(|_| SLOW)?;
    let text = text.map_err(|_| "cannot be read from")?;
    if text.len() as u64 > MAX_ANSWER_BYTES {
        return Err("answered more than any credentials are");
    }
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if left().is_zero() => return Err(SLOW),
            Ok(None) => std::thread::sleep(POLL),
            Err(_) => return Err("cannot be waited for"),
        }
    };
    let text = String::from_utf8(text).map_err(|_| "answered something else than text")?;
    Ok((text.trim().to_owned(), status.success()))
}
