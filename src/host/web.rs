//! The way to servers from this host: addresses, the environment's proxies, the certificates that are trusted here, and
//! how long is waited. Who asks for what, and which redirects are followed, is for whoever asks.

/// Which request takes which proxy.
mod proxy;
/// Addresses.
mod url;

use std::sync::Arc;
use std::time::Duration;

use log::warn;
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use proxy::{Named, Proxies};

pub use url::{Url, encoded, may_be_plain};

/// For the connection with TLS.
const CONNECT: Duration = Duration::from_secs(20);
/// For the head of an answer, which a cache between here and a server begins to fetch only now, and for the next
/// bytes of it: one limit of the network's for both.
const READ: Duration = Duration::from_secs(60);

/// Why a server is not even asked.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    /// A proxy that the environment names and that cannot be used.
    #[error("cannot use the proxy that {variable} names: {reason}")]
    Proxy {
        /// The variable.
        variable: &'static str,
        /// Why not.
        reason: &'static str,
    },
    /// This machine trusts nobody.
    #[error("this host trusts no certificate at all: apt-get install ca-certificates, or set SSL_CERT_FILE")]
    NoCertificates,
}

/// What asks: directly, or by the proxy for the address.
pub struct Agents {
    direct: Agent,
    /// By the proxy for requests with TLS.
    secure: Agent,
    /// By the proxy for the others.
    plain: Agent,
    proxies: Proxies,
    trusts_somebody: bool,
}

impl Agents {
    /// With the proxies of this process and the certificates of this host. No redirect is followed, and no status is an
    /// error.
    pub fn of_this_process() -> Self {
        let roots = certificates();
        let trusts_somebody = !roots.is_empty();
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::from(roots))
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build();
        let agent = |named: Option<&Named>| {
            let proxy = named.and_then(|named| named.proxy.as_ref().ok()).cloned();
            let config = Agent::config_builder()
                .proxy(proxy)
                .http_status_as_error(false)
                .max_redirects(0)
                .max_redirects_will_error(false)
                .user_agent(concat!("banger/", env!("CARGO_PKG_VERSION")))
                .timeout_connect(Some(CONNECT))
                .timeout_per_read(Some(READ))
                .timeout_per_write(Some(READ))
                .timeout_recv_response(Some(READ))
                .tls_config(tls.clone());
            config.build().new_agent()
        };
        let proxies = Proxies::of_this_process();
        Self {
            direct: agent(None),
            secure: agent(proxies.secure.as_ref()),
            plain: agent(proxies.plain.as_ref()),
            proxies,
            trusts_somebody,
        }
    }

    /// The one that asks for `url`.
    pub fn for_address(&self, url: &Url) -> Result<&Agent, WebError> {
        if url.secure && !self.trusts_somebody {
            return Err(WebError::NoCertificates);
        }
        Ok(match (self.proxies.is_for(url)?, url.secure) {
            (false, _) => &self.direct,
            (true, true) => &self.secure,
            (true, false) => &self.plain,
        })
    }
}

/// The certificates that this machine trusts, or those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name.
fn certificates() -> Vec<Certificate<'static>> {
    let found = rustls_native_certs::load_native_certs();
    for error in found.errors {
        warn!("some certificates that this host trusts cannot be read: {error}");
    }
    found.certs.iter().map(|der| Certificate::from_der(der).to_owned()).collect()
}
