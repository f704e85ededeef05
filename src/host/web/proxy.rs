//! Which requests take which proxy: the environment's variables as curl(1) reads them (section "ENVIRONMENT"), and what
//! `NO_PROXY` excepts, networks included.
//!
//! Plain HTTP has the variable in small letters only: a server that runs this as CGI would let a request set the other
//! (CVE-2016-5385). A proxy that cannot be used is an error where it would be: going around it may be what nobody allowed.

use std::net::IpAddr;

use super::WebError;
use super::url::Url;

/// The proxies of an environment.
pub struct Proxies {
    /// Of requests with TLS.
    pub secure: Option<Named>,
    /// Of the others.
    pub plain: Option<Named>,
    except: Vec<String>,
}

/// A proxy, and the variable that names it.
#[derive(Clone)]
pub struct Named {
    variable: &'static str,
    pub proxy: Result<ureq::Proxy, &'static str>,
}

impl Proxies {
    /// Those of this process.
    pub fn of_this_process() -> Self {
        Self::from_variables(|name| std::env::var_os(name).map(|text| text.to_string_lossy().into_owned()))
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let first = |names: &[&'static str]| {
            names.iter().find_map(|name| Some((*name, variable(name).filter(|text| !text.trim().is_empty())?)))
        };
        let named = |names: &[&'static str]| {
            let (variable, text) = first(names).or_else(|| first(&["all_proxy", "ALL_PROXY"]))?;
            Some(Named { variable, proxy: parse(text.trim()) })
        };
        let except = first(&["no_proxy", "NO_PROXY"]).map(|(_, text)| text).unwrap_or_default();
        let except = except.split([',', ' ', '\t']).filter(|entry| !entry.is_empty());
        Self {
            secure: named(&["https_proxy", "HTTPS_PROXY"]),
            plain: named(&["http_proxy"]),
            except: except.map(str::to_ascii_lowercase).collect(),
        }
    }

    /// Whether a request for `url` takes the proxy of its kind.
    pub fn is_for(&self, url: &Url) -> Result<bool, WebError> {
        let named = if url.secure { &self.secure } else { &self.plain };
        let host = bare(url.host()).trim_end_matches('.');
        // What is on this machine is not on the proxy's; and what is plain there must not leave this one.
        let Some(named) = named.as_ref().filter(|_| !url.is_loopback()) else { return Ok(false) };
        if self.except.iter().any(|entry| excepts(entry, host, url.port())) {
            return Ok(false);
        }
        match named.proxy {
            Ok(_) => Ok(true),
            Err(reason) => Err(WebError::Proxy { variable: named.variable, reason }),
        }
    }
}

fn parse(text: &str) -> Result<ureq::Proxy, &'static str> {
    let scheme = text.split_once("://").map_or("http", |(scheme, _)| scheme).to_ascii_lowercase();
    match scheme.as_str() {
        "http" | "https" => ureq::Proxy::new(text).map_err(|_| "it is no address"),
        scheme if scheme.starts_with("socks") => Err("it speaks SOCKS, and only http:// and https:// are known here"),
        _ => Err("it is neither http:// nor https://"),
    }
}

/// An address without the brackets that it has before a port.
fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

/// Whether `entry` of `NO_PROXY` is about `host` at `port`: `*`, an address, a network, a domain with all below it; the last
/// and an address with a port or without.
fn excepts(entry: &str, host: &str, port: &str) -> bool {
    let address = host.parse::<IpAddr>().ok();
    if entry == "*" {
        return true;
    }
    if let Some((network, bits)) = entry.split_once('/') {
        let (network, bits) = (bare(network).parse(), bits.parse());
        return matches!((address, network, bits), (Some(a), Ok(n), Ok(bits)) if is_in(a, n, bits));
    }
    let (name, at) = match entry.rsplit_once(':') {
        // An address of version 6 has colons of its own.
        Some((name, at)) if entry.parse::<IpAddr>().is_err() && !at.contains(']') => (name, Some(at)),
        _ => (entry, None),
    };
    if at.is_some_and(|at| at != port) {
        return false;
    }
    if let Some(address) = address {
        return bare(name).parse() == Ok(address);
    }
    let domain = name.strip_prefix('*').unwrap_or(name).trim_matches('.');
    let below = host.strip_suffix(domain).filter(|_| !domain.is_empty());
    below.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

fn is_in(address: IpAddr, network: IpAddr, bits: u32) -> bool {
    match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(n)) if bits <= 32 => {
            (a.to_bits() ^ n.to_bits()).checked_shr(32 - bits).unwrap_or(0) == 0
        }
        (IpAddr::V6(a), IpAddr::V6(n)) if bits <= 128 => {
            (a.to_bits() ^ n.to_bits()).checked_shr(128 - bits).unwrap_or(0) == 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(set: &[(&str, &str)]) -> Proxies {
        let set: Vec<(String, String)> = set.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        Proxies::from_variables(|name| set.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone()))
    }

    fn host(named: &Option<Named>) -> Option<String> {
        named.as_ref().map(|named| named.proxy.as_ref().expect("a proxy").host().to_owned())
    }

    fn is_for(proxies: &Proxies, url: &str) -> Result<bool, String> {
        proxies.is_for(&Url::parse(url).expect(url)).map_err(|e| e.to_string())
    }

    #[test]
    fn the_variable_is_chosen_by_the_scheme_and_the_one_for_all_comes_last() {
        let all = ("ALL_PROXY", "http://all.example");
        for (set, secure, plain) in [
            (&[][..], None, None),
            (&[all][..], Some("all.example"), Some("all.example")),
            (&[all, ("HTTPS_PROXY", "s.example:8080")][..], Some("s.example"), Some("all.example")),
            (&[("HTTP_PROXY", "p.example")][..], None, None),
            (&[("http_proxy", "p.example")][..], None, Some("p.example")),
            (&[("https_proxy", "one.example"), ("HTTPS_PROXY", "two.example")][..], Some("one.example"), None),
            (&[all, ("https_proxy", " ")][..], Some("all.example"), Some("all.example")),
        ] {
            let found = proxies(set);
            assert_eq!((host(&found.secure).as_deref(), host(&found.plain).as_deref()), (secure, plain), "{set:?}");
        }
    }

    #[test]
    fn what_is_excepted_and_this_machine_are_reached_directly() {
        for (except, url, proxied) in [
            ("", "https://r.example/", true),
            ("*", "https://r.example/", false),
            (" corp.example , x.example", "https://R.corp.example/", false),
            (".corp.example", "https://corp.example/", false),
            ("*.corp.example", "https://a.b.corp.example/", false),
            ("corp.example.", "https://r.corp.example/", false),
            ("corp.example", "https://mycorp.example/", true),
            ("r.example:5000", "https://r.example:5000/", false),
            ("r.example:5000", "https://r.example/", true),
            ("r.example:443", "https://r.example/", false),
            ("10.0.0.0/8", "https://10.1.2.3:5000/", false),
            ("10.0.0.0/8", "https://11.1.2.3/", true),
            ("0.0.0.0/0", "https://11.1.2.3/", false),
            ("10.0.0.0/33", "https://10.0.0.0/", true),
            ("10.1.2.3", "https://10.1.2.3:5000/", false),
            ("10.1.2.3:5000", "https://10.1.2.3/", true),
            ("1.2.3", "https://0.1.2.3/", true),
            ("fd00::/8", "https://[fd01::1]:5000/", false),
            ("fd01::1", "https://[fd01::1]:5000/", false),
            ("[fd01::1]:5000", "https://[fd01::1]:5000/", false),
            ("[fd01::1]:5000", "https://[fd01::1]/", true),
            (".", "https://r.example/", true),
            ("", "https://127.0.0.1:5000/", false),
            ("", "https://localhost/", false),
        ] {
            let found = proxies(&[("https_proxy", "p.example"), ("NO_PROXY", except)]);
            assert_eq!(is_for(&found, url), Ok(proxied), "{except:?} {url}");
        }
    }

    #[test]
    fn a_proxy_that_cannot_be_used_is_not_gone_around() {
        let found = proxies(&[("ALL_PROXY", "socks5h://u:secret@p.example"), ("no_proxy", "free.example")]);
        let error = is_for(&found, "https://r.example/").expect_err("SOCKS");
        assert!(error.contains("ALL_PROXY") && error.contains("SOCKS") && !error.contains("secret"), "{error}");
        assert_eq!(is_for(&found, "https://free.example/"), Ok(false));
        let found = proxies(&[("https_proxy", "http://")]);
        assert!(is_for(&found, "https://r.example/").expect_err("no host").contains("no address"));
    }
}
