//! Whether somebody has the key that they show: signatures of clients.

use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm};

use super::data::Reader;

/// Kinds of keys, as `authorized_keys` names them.
pub const KINDS: [&str; 4] = ["ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ssh-rsa"];

/// Kinds of signatures, as a client is told (RFC 8308, section 3.1). SHA-1 is not among them.
pub const ALGORITHMS: &str = "ssh-ed25519,ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,rsa-sha2-512,rsa-sha2-256";

/// Whether `algorithm` is one, and of the kind of the key `blob`.
pub fn fits(algorithm: &str, blob: &[u8]) -> bool {
    let kind = Reader::new(blob).text().unwrap_or_default();
    let wanted = if algorithm.starts_with("rsa-sha2-") { "ssh-rsa" } else { algorithm };
    ALGORITHMS.split(',').any(|known| known == algorithm) && kind == wanted
}

/// Whether `signature` is that of the key `blob` over `message`, by `algorithm`.
pub fn is_genuine(algorithm: &str, blob: &[u8], message: &[u8], signature: &[u8]) -> bool {
    fits(algorithm, blob) && verify(algorithm, blob, message, signature).is_some()
}

fn verify(algorithm: &str, blob: &[u8], message: &[u8], signature: &[u8]) -> Option<()> {
    let mut signature = Reader::new(signature);
    if signature.text().ok()? != algorithm {
        return None;
    }
    let signature = signature.string().ok()?;
    let mut key = Reader::new(blob);
    let _kind = key.string().ok()?;
    match algorithm {
        "ssh-ed25519" => of_point(&signature::ED25519, key.string().ok()?, message, signature),
        "ecdsa-sha2-nistp256" => of_curve(&signature::ECDSA_P256_SHA256_FIXED, key, message, signature, 32),
        "ecdsa-sha2-nistp384" => of_curve(&signature::ECDSA_P384_SHA384_FIXED, key, message, signature, 48),
        "rsa-sha2-256" => of_rsa(&signature::RSA_PKCS1_2048_8192_SHA256, key, message, signature),
        "rsa-sha2-512" => of_rsa(&signature::RSA_PKCS1_2048_8192_SHA512, key, message, signature),
        _ => None,
    }
}

fn of_point(by: &'static dyn VerificationAlgorithm, point: &[u8], message: &[u8], signature: &[u8]) -> Option<()> {
    UnparsedPublicKey::new(by, point).verify(message, signature).ok()
}

/// Two numbers (RFC 5656, section 3.1.2), which the library wants at full length behind each other.
fn of_curve(
    by: &'static dyn VerificationAlgorithm,
    mut key: Reader<'_>,
    message: &[u8],
    signature: &[u8],
    width: usize,
) -> Option<()> {
    let _curve = key.string().ok()?;
    let mut numbers = Reader::new(signature);
    let mut fixed = Vec::with_capacity(2 * width);
    for _ in 0..2 {
        let digits = digits(numbers.string().ok()?);
        fixed.extend(std::iter::repeat_n(0, width.checked_sub(digits.len())?));
        fixed.extend_from_slice(digits);
    }
    of_point(by, key.string().ok()?, message, &fixed)
}

fn of_rsa(by: &'static signature::RsaParameters, mut key: Reader<'_>, message: &[u8], signature: &[u8]) -> Option<()> {
    let (e, n) = (digits(key.string().ok()?), digits(key.string().ok()?));
    // A signature may come without its leading zeros (RFC 8332, section 3, says it should not).
    let mut whole = vec![0; n.len().saturating_sub(signature.len())];
    whole.extend_from_slice(signature);
    RsaPublicKeyComponents { n, e }.verify(by, message, &whole).ok()
}

/// A number without leading zeros.
fn digits(number: &[u8]) -> &[u8] {
    let first = number.iter().position(|byte| *byte != 0).unwrap_or(number.len());
    &number[first..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::ssh::data::Writer;

    #[test]
    fn a_signature_of_another_kind_or_key_is_none() {
        let blob = Writer::default().string("ssh-ed25519").string([1; 32]).done();
        let signature = Writer::default().string("ssh-ed25519").string([0; 64]).done();
        assert!(!is_genuine("ssh-ed25519", &blob, b"", &signature));
        assert!(fits("ssh-ed25519", &blob));
        for other in ["ssh-rsa", "rsa-sha2-512", "ecdsa-sha2-nistp256", "", "none"] {
            assert!(!fits(other, &blob), "{other}");
        }
        for cut in 0..blob.len() {
            assert!(!is_genuine("ssh-ed25519", &blob[..cut], b"", &signature[..cut]));
        }
    }
}
