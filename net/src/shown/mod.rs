//! The names that the first bytes of a connection show.

mod hello;
mod request;

/// Most bytes that are looked at: the longest hello of TLS, in records.
pub(crate) const MAX_SHOWN_BYTES: usize = 20 << 10;

/// What a connection's first bytes show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Shown {
    /// That is not known before there are so many bytes.
    More(usize),
    /// A hello of TLS, for a host of this name.
    Tls(Option<String>),
    /// A request of HTTP, for hosts of these names.
    Http(Vec<String>),
    /// Neither of the two.
    Other,
    /// The beginning of one of the two, which readers could understand differently.
    Unclear,
}

/// Looks at the first bytes of a connection, of which `known` were looked at before.
pub(crate) fn look(bytes: &[u8], known: usize) -> Shown {
    let shown = match bytes.first() {
        None => Shown::More(1),
        Some(&hello::HANDSHAKE) => hello::read(bytes),
        Some(byte) if byte.is_ascii_uppercase() => request::read(bytes, known),
        Some(_) => Shown::Other,
    };
    match shown {
        Shown::More(bytes) if bytes > MAX_SHOWN_BYTES => Shown::Unclear,
        shown => shown,
    }
}

/// A name as it is looked up: in small letters, without a dot at its end. None for an
/// address.
fn name(text: &str) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    let whole = lower.strip_suffix('.').unwrap_or(&lower);
    let is_address = whole.parse::<std::net::IpAddr>().is_ok() || whole.starts_with('[');
    (!is_address).then(|| whole.to_owned())
}

#[cfg(test)]
mod tests;
