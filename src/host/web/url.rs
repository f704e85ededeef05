//! Addresses of servers, where they send to, and which of them may do without TLS.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Most bytes: signed addresses of blobs have a few thousand.
const MOST: usize = 16 << 10;

/// `https://HOST[:PORT]/PATH[?QUERY]`, or the same without TLS; never with a user in it.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    /// Whether it is `https`.
    pub secure: bool,
    authority: String,
    rest: String,
}

impl Url {
    /// The address of `rest`, a path and perhaps a query, at `authority`.
    pub fn new(secure: bool, authority: &str, rest: &str) -> Self {
        Self { secure, authority: authority.to_ascii_lowercase(), rest: rest.to_owned() }
    }

    /// What `text` says; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let visible = text.bytes().all(|b| matches!(b, b'!'..=b'~') && !matches!(b, b'\\' | b'<' | b'>' | b'"'));
        if text.len() > MOST || !visible {
            return Err("the address is too long or has characters that none has");
        }
        let (scheme, after) = text.split_once("://").ok_or("the address has no scheme")?;
        let secure = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return Err("the address is neither https nor http"),
        };
        let after = after.split('#').next().unwrap_or_default();
        let end = after.find(['/', '?']).unwrap_or(after.len());
        let (authority, rest) = after.split_at(end);
        if authority.is_empty() || !authority.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b)) {
            return Err("the address has no host, or more than a host and a port");
        }
        let rest = if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") };
        Ok(Self { secure, authority: authority.to_ascii_lowercase(), rest })
    }

    /// Where `location` leads from here (RFC 3986 section 5.2, without dots in paths).
    pub fn join(&self, location: &str) -> Result<Self, &'static str> {
        let scheme = if self.secure { "https" } else { "http" };
        let query = location.find('?').unwrap_or(location.len());
        if location[..query].contains("://") {
            return Self::parse(location);
        }
        if location.starts_with("//") {
            return Self::parse(&format!("{scheme}:{location}"));
        }
        let path = self.rest.split('?').next().unwrap_or_default();
        let rest = match location.as_bytes().first() {
            Some(b'/') => location.to_owned(),
            Some(b'?') => format!("{path}{location}"),
            _ => format!("{}/{location}", path.rsplit_once('/').map_or("", |(folder, _)| folder)),
        };
        Self::parse(&format!("{scheme}://{}{rest}", self.authority))
    }

    /// The same with `query` added, each value encoded.
    pub fn with_query(&self, query: &[(&str, &str)]) -> Self {
        let mut url = self.clone();
        for (name, value) in query {
            url.rest.push(if url.rest.contains('?') { '&' } else { '?' });
            url.rest.push_str(&format!("{name}={}", encoded(value)));
        }
        url
    }

    /// Without its query, which may let in whoever knows it.
    pub fn without_query(&self) -> Self {
        let path = self.rest.split('?').next().unwrap_or_default();
        Self { rest: path.to_owned(), ..self.clone() }
    }

    /// The last part of its path; empty where that ends with a slash.
    pub fn file_name(&self) -> &str {
        let path = self.rest.split('?').next().unwrap_or_default();
        path.rsplit('/').next().unwrap_or_default()
    }

    /// Host and port as written.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Whether what is meant for one may be shown to the other.
    pub fn same_origin(&self, other: &Self) -> bool {
        self.secure == other.secure && self.host() == other.host() && self.port() == other.port()
    }

    /// Host as written, an address of version 6 in brackets.
    pub fn host(&self) -> &str {
        host_of(&self.authority)
    }

    /// Its port, the scheme's where none is written.
    pub fn port(&self) -> &str {
        let after = &self.authority[self.host().len()..];
        let default = if self.secure { "443" } else { "80" };
        after.rsplit_once(':').map_or(default, |(_, port)| port)
    }

    /// Whether it is on this machine.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.authority)
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", if self.secure { "https" } else { "http" }, self.authority, self.rest)
    }
}

impl fmt::Debug for Url {
    /// Without what may be a signature.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.authority)
    }
}

/// A host, with its port or without, without the port; brackets stay.
fn host_of(authority: &str) -> &str {
    match authority.find(']') {
        Some(end) => &authority[..=end],
        None => authority.split(':').next().unwrap_or_default(),
    }
}

/// Whether `authority` is this machine: `localhost`, 127.0.0.0/8, ::1.
pub fn is_loopback(authority: &str) -> bool {
    let host = host_of(authority).trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host.parse::<Ipv4Addr>().is_ok_and(|a| a.is_loopback())
        || host.parse::<Ipv6Addr>().is_ok_and(|a| a.is_loopback())
}

/// Whether `authority` may be spoken to without TLS: this machine, or `HOST` or `HOST:PORT` in the list.
pub fn may_be_plain(authority: &str, insecure: &[String]) -> bool {
    is_loopback(authority)
        || insecure.iter().any(|i| i.eq_ignore_ascii_case(authority) || i.eq_ignore_ascii_case(host_of(authority)))
}

/// As a value in a query or a form (RFC 3986 section 2.1).
pub fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' | b':' => out.push(byte as char),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_lead_where_they_say() {
        let here = Url::parse("https://Registry.example:8443/v2/a/blobs/x?y=1").expect("a URL");
        for (location, there) in [
            ("https://cdn.example/z?s=a://b", "https://cdn.example/z?s=a://b"),
            ("//cdn.example/z", "https://cdn.example/z"),
            ("/z?u=http://x", "https://registry.example:8443/z?u=http://x"),
            ("?z", "https://registry.example:8443/v2/a/blobs/x?z"),
            ("z", "https://registry.example:8443/v2/a/blobs/z"),
            ("http://cdn.example", "http://cdn.example/"),
        ] {
            assert_eq!(here.join(location).expect(location).to_string(), there);
        }
        for bad in ["ftp://x/", "https://u:p@x/", "https:///x", "https://x/a b", "https://x\\y/", "https://é/"] {
            assert!(here.join(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_the_same_host_port_and_scheme_are_one_origin() {
        let one = |a: &str, b: &str| Url::parse(a).expect(a).same_origin(&Url::parse(b).expect(b));
        assert!(one("https://a.example/x", "https://A.example:443/y"));
        assert!(!one("https://a.example/", "http://a.example/"));
        assert!(!one("https://a.example/", "https://a.example:444/"));
        assert!(!one("https://a.example/", "https://b.example/"));
        assert!(!one("https://a.example/", "https://a.example.b.example/"));
    }

    #[test]
    fn this_machine_and_what_is_listed_may_be_plain() {
        let listed = ["box.example".to_owned(), "other.example:5000".to_owned()];
        for (authority, plain) in [
            ("localhost:5000", true),
            ("127.3.2.1", true),
            ("[::1]:5000", true),
            ("box.example", true),
            ("box.example:99", true),
            ("other.example:5000", true),
            ("other.example", false),
            ("localhost.example", false),
            ("127.0.0.1.example", false),
            ("10.0.0.1:5000", false),
        ] {
            assert_eq!(may_be_plain(authority, &listed), plain, "{authority}");
        }
    }
}
