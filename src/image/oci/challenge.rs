//! `WWW-Authenticate` as text → how a registry wants to be logged in to. Pure (RFC 9110 section 11.6.1).

use ureq::http::HeaderMap;

/// Most bytes of the header that are looked at.
const MOST: usize = 4096;

/// What a registry asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// Name and password with each request.
    Basic,
    /// A token from somewhere else (distribution spec, "token authentication").
    Bearer {
        /// Where.
        realm: String,
        /// For whom, in the words of that place.
        service: Option<String>,
        /// For what.
        scope: Option<String>,
    },
}

/// The first challenge that is known here, a token's before a password's.
pub(super) fn parse(header: &str) -> Option<Challenge> {
    let header = header.get(..header.len().min(MOST))?;
    let challenges = split(header);
    let bearer = challenges.iter().find(|(scheme, _)| scheme == "bearer").and_then(|(_, parameters)| {
        let value = |name: &str| parameters.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
        Some(Challenge::Bearer { realm: value("realm")?, service: value("service"), scope: value("scope") })
    });
    let basic = || challenges.iter().any(|(scheme, _)| scheme == "basic").then_some(Challenge::Basic);
    bearer.or_else(basic)
}

/// All that `headers` ask for.
pub(super) fn of(headers: &HeaderMap) -> String {
    let values = headers.get_all("WWW-Authenticate");
    values.iter().filter_map(|v| v.to_str().ok()).collect::<Vec<_>>().join(", ")
}

/// Whether whoever was let in is told that this is not for him, so that asking again is no use (RFC 6750 section 3.1).
pub(super) fn is_insufficient(header: &str) -> bool {
    let header = header.get(..header.len().min(MOST)).unwrap_or_default();
    let told = |(name, value): &(String, String)| name == "error" && value == "insufficient_scope";
    split(header).iter().any(|(_, parameters)| parameters.iter().any(told))
}

type Parameters = Vec<(String, String)>;

/// Schemes with their parameters, names in lower case.
fn split(header: &str) -> Vec<(String, Parameters)> {
    let mut found: Vec<(String, Parameters)> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let (word, after) = token(rest);
        if word.is_empty() {
            return found;
        }
        match after.trim_start().strip_prefix('=') {
            Some(text) => {
                let (value, after) = value(text.trim_start());
                if let Some((_, parameters)) = found.last_mut() {
                    parameters.push((word.to_ascii_lowercase(), value));
                }
                rest = after;
            }
            None => {
                found.push((word.to_ascii_lowercase(), Vec::new()));
                rest = after;
            }
        }
    }
}

/// A token (RFC 9110 section 5.6.2) and what follows.
fn token(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~/:".contains(c)));
    text.split_at(end.unwrap_or(text.len()))
}

/// A value, quoted or not, and what follows.
fn value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let (word, after) = token(text);
        return (word.to_owned(), after);
    };
    let (mut value, mut escaped) = (String::new(), false);
    for (at, c) in quoted.char_indices() {
        match c {
            '\\' if !escaped => escaped = true,
            '"' if !escaped => return (value, &quoted[at + 1..]),
            c => {
                value.push(c);
                escaped = false;
            }
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_that_is_not_enough_is_told_from_a_token_that_is_old() {
        assert!(is_insufficient(r#"Bearer realm="https://a",scope="x",error="insufficient_scope""#));
        assert!(!is_insufficient(r#"Bearer realm="https://a",error="invalid_token""#));
        assert!(!is_insufficient(r#"Bearer realm="error=insufficient_scope""#));
    }

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Option<Challenge> {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Some(Challenge::Bearer { realm: realm.to_owned(), service: owned(service), scope: owned(scope) })
    }

    #[test]
    fn challenges_as_registries_write_them_are_understood() {
        let hub = r#"Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull""#;
        let hub_read = bearer("https://auth.example/token", Some("registry.example"), Some("repository:a/b:pull"));
        for (header, read) in [
            (hub, hub_read),
            (r#"Basic realm="Registry""#, Some(Challenge::Basic)),
            ("basic", Some(Challenge::Basic)),
            (r#"Basic realm="a", Bearer realm="https://b""#, bearer("https://b", None, None)),
            ("BEARER Realm = https://b , Service=x", bearer("https://b", Some("x"), None)),
            (r#"Bearer realm="a\"b,c""#, bearer("a\"b,c", None, None)),
            (r#"Negotiate, Basic realm="x""#, Some(Challenge::Basic)),
            ("Bearer", None),
            ("Digest realm=\"x\"", None),
            ("", None),
            ("=,=\"", None),
            ("Bearer realm=\"", bearer("", None, None)),
        ] {
            assert_eq!(parse(header), read, "{header}");
        }
    }
}
