//! A VM's secrets in memory, ready for use: who is spoken for by which certificate, and what is put in.

use std::io;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::vault::Vault;
use crate::model::secret::{Secret, SecretHost};
use crate::net::http::Swap;

/// HTTP/1.1 and nothing else (RFC 7301): heads are read here.
pub(super) const PROTOCOLS: [&[u8]; 1] = [b"http/1.1"];

/// The secrets of one VM.
#[derive(Debug)]
pub(in crate::daemon) struct Keep {
    hosts: Vec<(SecretHost, Vec<Swap>)>,
    /// How its guest is spoken to.
    pub tls: Arc<ServerConfig>,
}

impl Keep {
    /// Of what is kept.
    pub fn of(secrets: &[Secret], vault: Vault) -> io::Result<Self> {
        if secrets.len() != vault.values.len() {
            return Err(io::Error::other("there are other secrets in it than the VM has"));
        }
        let swaps: Vec<(&Secret, Swap)> = secrets
            .iter()
            .zip(vault.values)
            .map(|(secret, value)| (secret, Swap { placeholder: secret.placeholder.clone(), value }))
            .collect();
        let of_host = |host: SecretHost| {
            let meant = swaps.iter().filter(|(secret, _)| secret.hosts.contains(&host));
            let meant = meant.map(|(_, swap)| swap.clone()).collect();
            (host, meant)
        };
        let hosts: Vec<(SecretHost, Vec<Swap>)> = Secret::hosts_of(secrets).into_iter().map(of_host).collect();
        let names = hosts.iter().map(|(host, _)| host.clone()).collect();
        let tls = server(names, vault.certificate, vault.key).map_err(io::Error::other)?;
        Ok(Self { hosts, tls: Arc::new(tls) })
    }

    /// The host called `name`, and what is put in on the way to it.
    pub fn host(&self, name: &str) -> Option<&(SecretHost, Vec<Swap>)> {
        self.hosts.iter().find(|(host, _)| host.is(name))
    }
}

/// What both sides of the proxy are encrypted by.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn server(hosts: Vec<SecretHost>, certificate: Vec<u8>, key: Vec<u8>) -> Result<ServerConfig, rustls::Error> {
    let provider = provider();
    let key = provider.key_provider.load_private_key(PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key)))?;
    let certified = Arc::new(CertifiedKey::new(vec![CertificateDer::from(certificate)], key));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(ByName { hosts, certified }));
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

/// The certificate for whoever asks for one of the hosts, and none for others.
#[derive(Debug)]
struct ByName {
    hosts: Vec<SecretHost>,
    certified: Arc<CertifiedKey>,
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name()?;
        self.hosts.iter().any(|host| host.is(name)).then(|| self.certified.clone())
    }
}
