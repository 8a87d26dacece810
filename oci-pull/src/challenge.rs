//! What a registry says it wants of those it does not know (RFC 9110 §11.6.1, and
//! the distribution project's token authentication).

/// Longest header that is looked at.
const MAX_HEADER_BYTES: usize = 16 << 10;

/// One way to authenticate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// Name and password with every request.
    Basic,
    /// A token from somewhere.
    Bearer {
        realm: String,
        service: String,
        /// None if the registry does not say what for.
        scope: Option<String>,
    },
}

/// The challenges in a `WWW-Authenticate` header that this knows, in their order.
/// One header may have several, whose parameters are separated by commas as they
/// are themselves.
pub(crate) fn parse(header: &str) -> Vec<Challenge> {
    let mut found: Vec<(String, Vec<(String, String)>)> = Vec::new();
    let mut rest = match header.len() > MAX_HEADER_BYTES {
        true => "",
        false => header,
    };
    loop {
        rest = rest.trim_start_matches([',', ' ', '\t']);
        let (word, after) = token(rest);
        if word.is_empty() {
            break;
        }
        let after = after.trim_start_matches([' ', '\t']);
        match (after.strip_prefix('='), found.last_mut()) {
            (Some(value), Some((_, parameters))) => {
                let (value, after) = value_of(value.trim_start_matches([' ', '\t']));
                parameters.push((word.to_ascii_lowercase(), value));
                rest = after;
            }
            // A parameter of nothing.
            (Some(_), None) => break,
            (None, _) => {
                found.push((word.to_ascii_lowercase(), Vec::new()));
                rest = after;
            }
        }
    }
    found.into_iter().filter_map(known).collect()
}

fn known((scheme, parameters): (String, Vec<(String, String)>)) -> Option<Challenge> {
    let of = |name: &str| {
        let mut all = parameters.iter().filter(|(key, _)| key == name);
        Some(all.next()?.1.clone())
    };
    match scheme.as_str() {
        "basic" => Some(Challenge::Basic),
        "bearer" => Some(Challenge::Bearer {
            realm: of("realm")?,
            service: of("service").unwrap_or_default(),
            scope: of("scope").filter(|scope| !scope.is_empty()),
        }),
        _ => None,
    }
}

/// A token of RFC 9110, and what follows.
fn token(text: &str) -> (&str, &str) {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let end = text.find(|c| !is_token(c)).unwrap_or(text.len());
    text.split_at(end)
}

/// A token or a quoted string without its quotes, and what follows.
fn value_of(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        // Some leave the quotes out around addresses, too.
        let end = text.find([',', ' ']).unwrap_or(text.len());
        let (value, rest) = text.split_at(end);
        return (value.to_owned(), rest);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: &str, scope: Option<&str>) -> Challenge {
        Challenge::Bearer {
            realm: realm.into(),
            service: service.into(),
            scope: scope.map(str::to_owned),
        }
    }

    #[test]
    fn quoted_commas_belong_to_the_value() {
        assert_eq!(
            parse(
                r#"Bearer realm="https://a/t",service="r,x \"y\"",scope="repository:a/b:pull,push""#
            ),
            [bearer(
                "https://a/t",
                "r,x \"y\"",
                Some("repository:a/b:pull,push")
            )]
        );
    }

    #[test]
    fn several_challenges_in_one_header_are_all_found() {
        assert_eq!(
            parse(r#"Negotiate, BASIC realm="x, y", Bearer realm=https://a/t , service = s"#),
            [Challenge::Basic, bearer("https://a/t", "s", None)]
        );
    }

    #[test]
    fn what_makes_no_sense_is_no_challenge() {
        for text in [
            "",
            "=",
            "realm=\"x\"",
            "Bearer",
            "Bearer service=s",
            "Digest realm=x",
            "\"",
            ",,, ,",
        ] {
            assert_eq!(parse(text), [], "{text}");
        }
        assert_eq!(parse("Basic realm=\"unfinished"), [Challenge::Basic]);
        assert_eq!(parse(&format!("Basic {}", "x".repeat(20_000))), []);
    }
}
