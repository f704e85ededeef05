//! What is kept of a VM's secrets: their values, and the certificate that its guest is shown in the name of
//! their hosts. One file, the owner's alone, in the VM's folder: gone with it.
//!
//! The authority that signed the certificate lives no longer than this takes: nobody can have it sign
//! another. To be sure, it is one for these names only (RFC 5280 section 4.2.1.10).

use std::io;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    KeyPair, KeyUsagePurpose, NameConstraints,
};

use crate::model::VmName;
use crate::model::secret::{Secret, SecretValue};
use crate::os::files::{read_limited, write_atomic};
use crate::protocol::frame;

/// Largest file that is read.
const LIMIT: u64 = 128 << 10;

/// For how many years a guest takes the certificate for valid: longer than anybody keeps a VM.
const YEARS: i32 = 20;

/// A year of seconds.
const YEAR: u64 = 31_556_952;

/// What is kept.
#[derive(Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub(in crate::daemon) struct Vault {
    /// The authority's certificate, PEM: what the guest shall trust.
    pub authority: String,
    /// The certificate for the hosts, DER.
    pub certificate: Vec<u8>,
    /// Its private key, PKCS #8. Secret.
    pub key: Vec<u8>,
    /// The secrets, in the order of the VM's specification.
    pub values: Vec<SecretValue>,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vault").field("values", &self.values.len()).finish_non_exhaustive()
    }
}

/// A vault as it lies on the disk; append-only.
#[derive(bincode::Encode, bincode::Decode)]
enum Stored {
    V1(Vault),
}

impl Vault {
    /// For the secrets of the VM `name`, at `now` (Unix seconds).
    pub fn make(name: &VmName, secrets: &[Secret], values: Vec<SecretValue>, now: u64) -> io::Result<Self> {
        if values.len() != secrets.len() {
            // Of a daemon that ended before they were written down.
            return Err(io::Error::other("the values of its secrets are not there"));
        }
        let hosts: Vec<String> = Secret::hosts_of(secrets).iter().map(|host| host.name().to_owned()).collect();
        let issuer = authority(name, &hosts, now).map_err(io::Error::other)?;
        let (certificate, key) = certificate(&issuer, hosts, now).map_err(io::Error::other)?;
        let authority = pem_rfc7468::encode_string("CERTIFICATE", pem_rfc7468::LineEnding::LF, issuer.der());
        Ok(Self { authority: authority.map_err(io::Error::other)?, certificate, key, values })
    }

    /// Writes it to `path`; it is on the disk when this returns.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let bytes = frame::encode(&Stored::V1(self.clone())).map_err(io::Error::other)?;
        write_atomic(path, &bytes[frame::HEADER..], 0o600)
    }

    /// Reads it from `path`.
    pub fn read(path: &Path) -> io::Result<Self> {
        let bytes = read_limited(path, LIMIT)?;
        let Stored::V1(vault) = frame::decode(&bytes).map_err(io::Error::other)?;
        Ok(vault)
    }
}

fn authority(name: &VmName, hosts: &[String], now: u64) -> Result<CertifiedIssuer<'static, KeyPair>, rcgen::Error> {
    let mut params = lasting(CertificateParams::default(), now);
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("banger, secrets of VM {name}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let permitted_subtrees = hosts.iter().cloned().map(GeneralSubtree::DnsName).collect();
    params.name_constraints = Some(NameConstraints { permitted_subtrees, excluded_subtrees: Vec::new() });
    CertifiedIssuer::self_signed(params, KeyPair::generate()?)
}

fn certificate(
    issuer: &CertifiedIssuer<'static, KeyPair>,
    hosts: Vec<String>,
    now: u64,
) -> Result<(Vec<u8>, Vec<u8>), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = lasting(CertificateParams::new(hosts)?, now);
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "banger, in the name of a secret's host");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, issuer)?;
    Ok((certificate.der().to_vec(), key.serialize_der()))
}

fn lasting(mut params: CertificateParams, now: u64) -> CertificateParams {
    let year = 1970 + i32::try_from(now / YEAR).unwrap_or_default();
    params.not_before = rcgen::date_time_ymd(year - 1, 1, 1);
    params.not_after = rcgen::date_time_ymd(year + YEARS, 1, 1);
    params
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::secret::Placeholder;

    pub(in crate::daemon::secrets) fn made(host: &str) -> (Vec<Secret>, Vault) {
        let secrets = vec![Secret {
            name: "TOKEN".parse().expect("a name"),
            placeholder: Placeholder::from_random(7),
            hosts: vec![host.parse().expect("a host")],
        }];
        let value = SecretValue::new(&secrets[0].name, "hunter2".to_owned()).expect("a value");
        let name = "box".parse().expect("a name");
        let vault = Vault::make(&name, &secrets, vec![value], 1_790_000_000).expect("made");
        (secrets, vault)
    }

    #[test]
    fn a_vault_without_values_is_not_made() {
        let (secrets, _) = made("api.example");
        let name = "box".parse().expect("a name");
        assert!(Vault::make(&name, &secrets, Vec::new(), 1_790_000_000).is_err());
    }

    #[test]
    fn a_vault_is_read_back_and_nobody_else_may_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secrets");
        let (_, vault) = made("api.example");
        vault.write(&path).expect("written");
        assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(Vault::read(&path).expect("read"), vault);
        assert!(!format!("{vault:?}").contains("hunter2"));
        let bytes = std::fs::read(&path).expect("read");
        for length in 0..bytes.len() {
            std::fs::write(&path, &bytes[..length]).expect("written");
            assert!(Vault::read(&path).is_err(), "{length}");
        }
    }
}
