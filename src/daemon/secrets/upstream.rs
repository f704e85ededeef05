//! The way to the host itself. Its certificate must be one that this host trusts, for its very name: so it
//! does not matter whose address the name leads to.

use std::io;
use std::net::{Ipv4Addr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_rustls::TlsConnector;
use futures_rustls::client::TlsStream;
use log::{debug, warn};
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig, RootCertStore};
use smol::Async;

use super::keep::{PROTOCOLS, provider};
use crate::daemon::Daemon;
use crate::daemon::blocking::unblock;
use crate::daemon::dns;
use crate::model::secret::SecretHost;
use crate::net::http::Refusal;
use crate::vmm::deadline::within;

/// How long one address may take to answer, and TLS to be agreed upon.
const PATIENCE: Duration = Duration::from_secs(5);
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Most addresses that are tried.
const ADDRESSES: usize = 4;

/// For how long the certificates that this host trusts are not read again.
const FRESH: Duration = Duration::from_secs(60);

/// Whom this host trusts, as read last.
#[derive(Debug, Default)]
pub(super) struct Trust {
    read: Mutex<Option<(Instant, Arc<ClientConfig>)>>,
}

/// A connection to the host of a secret.
pub(super) type Upstream = TlsStream<Async<TcpStream>>;

/// Connects to `host`.
pub(super) async fn connect(daemon: &Daemon, trust: &Trust, host: &SecretHost) -> Result<Upstream, Refusal> {
    let unreachable = |why: String| Refusal::Unreachable { host: host.to_string(), why };
    let config = trust.config().await.map_err(|e| unreachable(e.to_string()))?;
    let addresses = dns::addresses(daemon, host.name()).await;
    let addresses = addresses.ok_or_else(|| unreachable("the host's DNS servers do not answer".to_owned()))?;
    if addresses.is_empty() {
        return Err(unreachable("its name has no IPv4 address".to_owned()));
    }
    let stream = reach(&addresses, host.port()).await.map_err(unreachable)?;
    let name = ServerName::try_from(host.name().to_owned()).map_err(|e| unreachable(e.to_string()))?;
    match within(HANDSHAKE, TlsConnector::from(config).connect(name, stream)).await {
        Some(Ok(stream)) => Ok(stream),
        Some(Err(e)) => Err(unreachable(reason(&e))),
        None => Err(unreachable("it does not agree upon TLS in time".to_owned())),
    }
}

/// The first of `addresses` that answers.
async fn reach(addresses: &[Ipv4Addr], port: u16) -> Result<Async<TcpStream>, String> {
    let mut why = String::new();
    for address in addresses.iter().take(ADDRESSES) {
        match within(PATIENCE, Async::<TcpStream>::connect((*address, port))).await {
            Some(Ok(stream)) => return Ok(stream),
            Some(Err(e)) => why = format!("{address} port {port}: {e}"),
            None => why = format!("{address} port {port} does not answer in time"),
        }
        debug!("{why}");
    }
    Err(why)
}

/// Why TLS failed, with what may cure it.
fn reason(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            "this host does not trust whoever signed its certificate (update-ca-certificates, then it does)".to_owned()
        }
        Some(rustls::Error::InvalidCertificate(other)) => format!("its certificate is refused: {other}"),
        Some(other) => format!("no TLS with it: {other}"),
        None => format!("no TLS with it: {error}"),
    }
}

impl Trust {
    /// How hosts are spoken to.
    async fn config(&self) -> io::Result<Arc<ClientConfig>> {
        let known = self.read.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((since, config)) = known
            && since.elapsed() < FRESH
        {
            return Ok(config);
        }
        let config = Arc::new(unblock(client).await?);
        *self.read.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), config.clone()));
        Ok(config)
    }
}

/// Trusts what this host does, or what `SSL_CERT_FILE` and `SSL_CERT_DIR` say.
fn client() -> io::Result<ClientConfig> {
    let found = rustls_native_certs::load_native_certs();
    for error in found.errors {
        warn!("some certificates that this host trusts cannot be read: {error}");
    }
    let mut roots = RootCertStore::empty();
    let (taken, ignored) = roots.add_parsable_certificates(found.certs);
    debug!("{taken} certificates are trusted, {ignored} could not be read");
    if roots.is_empty() {
        return Err(io::Error::other("this host trusts no certificate at all: apt-get install ca-certificates"));
    }
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    config.resumption = Resumption::disabled();
    Ok(config)
}
