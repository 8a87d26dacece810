//! Answers that nobody wants, as errors.

use std::io::Read;
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use ureq::http::HeaderMap;
use ureq::http::header::{CONTENT_TYPE, RETRY_AFTER};

use crate::date::http_date;
use crate::error::{PullError, show};
use crate::network::Answer;

/// Most bytes of an error's text that are read.
const MAX_ERROR_BYTES: u64 = 16 << 10;

/// The error for a status that nobody wants.
pub(crate) fn of_status(answer: Answer, what: String) -> PullError {
    PullError::Status {
        host: answer.host.clone(),
        status: answer.response.status().as_u16(),
        retry_after: retry_after(answer.response.headers()),
        message: message(answer),
        what,
    }
}

/// Seconds, or a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    match text.parse::<u64>() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => {
            let then = http_date(text)?;
            Some(then.duration_since(SystemTime::now()).unwrap_or_default())
        }
    }
}

/// What a registry's error says in words (OCI distribution specification, "Error
/// codes"), in brackets.
pub(crate) fn message(answer: Answer) -> String {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<OneError>,
    }
    #[derive(Deserialize)]
    struct OneError {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let headers = answer.response.headers();
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    if !kind.is_some_and(|kind| kind.contains("json")) {
        return String::new();
    }
    let mut bytes = Vec::new();
    let body = answer.response.into_body().into_reader();
    // Half of it may do; if not, the status does.
    let _ = body.take(MAX_ERROR_BYTES).read_to_end(&mut bytes);
    let Ok(Errors { errors }) = serde_json::from_slice(&bytes) else {
        return String::new();
    };
    match errors.first() {
        Some(OneError { code, message }) => format!(" ({}: {})", show(code), show(message)),
        None => String::new(),
    }
}
