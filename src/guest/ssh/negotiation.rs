//! Which algorithms are used (RFC 4253, section 7.1): few, and none that is weak.
//!
//! The first of the client's names that is ours too is taken. Both ciphers authenticate by themselves, so
//! there is no MAC to agree on. The cipher that counts packets is only for clients of the strict exchange,
//! which a packet that was cut out cannot mislead (CVE-2023-48795).

use ring::rand::{SecureRandom, SystemRandom};

use super::cipher::Kind;
use super::data::{Reader, Writer};
use super::error::SessionError;
use super::numbers::KEXINIT;

/// One X25519 under its two names (RFC 8731).
const EXCHANGES: [&str; 2] = ["curve25519-sha256", "curve25519-sha256@libssh.org"];

/// Says that this server takes part in the strict exchange.
const STRICT_SERVER: &str = "kex-strict-s-v00@openssh.com";
const STRICT_CLIENT: &str = "kex-strict-c-v00@openssh.com";

/// Says that the client reads `EXT_INFO` (RFC 8308).
const EXTENSIONS_CLIENT: &str = "ext-info-c";

/// The only kind of host key.
pub const HOST_KEY: &str = "ssh-ed25519";

/// Names of authentication that comes after the cipher; never used, but a list must not be empty.
const MACS: &str = "hmac-sha2-256-etm@openssh.com,hmac-sha2-256";

/// What was agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreed {
    /// From the client.
    pub incoming: Kind,
    /// To the client.
    pub outgoing: Kind,
    /// Whether the client has sent the exchange's first message of another algorithm already.
    pub skip_guess: bool,
}

/// What a first `KEXINIT` says beside algorithms.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Traits {
    /// Whether the exchange is strict.
    pub strict: bool,
    /// Whether the client reads extensions.
    pub extensions: bool,
}

/// Our `KEXINIT`, for a client that is `strict` or not known yet.
pub fn offer(strict: bool) -> Result<Vec<u8>, SessionError> {
    let mut cookie = [0; 16];
    SystemRandom::new().fill(&mut cookie).map_err(|_| SessionError::Crypto("draw random bytes"))?;
    let exchanges = [&EXCHANGES[..], &[STRICT_SERVER]].concat().join(",");
    let ciphers = usable(strict).map(Kind::name).collect::<Vec<_>>().join(",");
    let mut message = Writer::message(KEXINIT).bytes(&cookie).string(exchanges).string(HOST_KEY);
    for list in [&*ciphers, &*ciphers, MACS, MACS, "none", "none", "", ""] {
        message = message.string(list);
    }
    Ok(message.byte(false).number(0).done())
}

fn usable(strict: bool) -> impl Iterator<Item = Kind> + Clone {
    Kind::ALL.into_iter().filter(move |kind| strict || !kind.counts_packets())
}

/// What the client's first `KEXINIT` says of itself.
pub fn traits(message: &[u8]) -> Result<Traits, SessionError> {
    let mut reader = Reader::new(message);
    reader.bytes(1 + 16)?;
    let exchanges = reader.text()?;
    let has = |wanted: &str| exchanges.split(',').any(|name| name == wanted);
    Ok(Traits { strict: has(STRICT_CLIENT), extensions: has(EXTENSIONS_CLIENT) })
}

/// What follows from the client's `KEXINIT` and what was offered to it, as to one that is `strict` or not.
pub fn agree(message: &[u8], strict: bool) -> Result<Agreed, SessionError> {
    let mut reader = Reader::new(message);
    reader.bytes(1 + 16)?;
    let (exchanges, host_keys) = (reader.text()?, reader.text()?);
    let (incoming, outgoing) = (reader.text()?, reader.text()?);
    let _macs = (reader.text()?, reader.text()?);
    let compressions = (reader.text()?, reader.text()?);
    let _languages = (reader.text()?, reader.text()?);
    let guesses = reader.boolean()?;
    first(exchanges, &EXCHANGES, "key exchange")?;
    first(host_keys, &[HOST_KEY], "host key")?;
    first(compressions.0, &["none"], "compression")?;
    first(compressions.1, &["none"], "compression")?;
    // A guess is right when it is the first choice of both (RFC 4253, section 7).
    let is_right = first_name(exchanges) == EXCHANGES[0] && first_name(host_keys) == HOST_KEY;
    let (kinds, names): (Vec<_>, Vec<_>) = usable(strict).map(|kind| (kind, kind.name())).unzip();
    let cipher = |list| first(list, &names, "cipher").map(|at| kinds[at]);
    Ok(Agreed { incoming: cipher(incoming)?, outgoing: cipher(outgoing)?, skip_guess: guesses && !is_right })
}

fn first_name(list: &str) -> &str {
    list.split(',').next().unwrap_or_default()
}

/// Which of `ours` is the first name of `list` that is there.
fn first(list: &str, ours: &[&str], what: &'static str) -> Result<usize, SessionError> {
    let found = list.split(',').find_map(|name| ours.iter().position(|own| *own == name));
    found.ok_or_else(|| SessionError::NothingInCommon { what, ours: ours.join(",") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_client(exchanges: &str, ciphers: &str, guesses: bool) -> Vec<u8> {
        let mut message = Writer::message(KEXINIT).bytes(&[0; 16]).string(exchanges).string("ssh-rsa,ssh-ed25519");
        for list in [ciphers, ciphers, "hmac-md5", "hmac-md5", "zlib,none", "none", "", ""] {
            message = message.string(list);
        }
        message.byte(guesses).number(0).done()
    }

    #[test]
    fn the_clients_first_name_that_is_ours_is_taken() {
        let all = "3des-cbc,aes256-gcm@openssh.com,chacha20-poly1305@openssh.com";
        let agreed = agree(&of_client("x,curve25519-sha256", all, true), true).expect("agreed");
        assert_eq!((agreed.incoming, agreed.outgoing, agreed.skip_guess), (Kind::Aes256Gcm, Kind::Aes256Gcm, true));
        assert!(agree(&of_client("diffie-hellman-group1-sha1", all, false), true).is_err());
    }

    #[test]
    fn who_knows_nothing_of_ours_is_told_what_there_is() {
        let told = |exchange, cipher| match agree(&of_client(exchange, cipher, false), false) {
            Err(error) => error.to_string(),
            Ok(agreed) => panic!("{agreed:?}"),
        };
        assert_eq!(
            told("curve25519-sha256", "aes256-ctr,aes128-ctr"),
            "no common cipher: this server has aes128-gcm@openssh.com,aes256-gcm@openssh.com"
        );
        assert_eq!(
            told("diffie-hellman-group14-sha256", "aes128-gcm@openssh.com"),
            "no common key exchange: this server has curve25519-sha256,curve25519-sha256@libssh.org"
        );
    }

    #[test]
    fn packets_are_only_counted_for_strict_clients() {
        let only = "chacha20-poly1305@openssh.com";
        assert!(agree(&of_client("curve25519-sha256", only, false), true).is_ok());
        assert!(agree(&of_client("curve25519-sha256", only, false), false).is_err());
        assert!(!String::from_utf8_lossy(&offer(false).expect("an offer")).contains(only));
        let message = of_client("curve25519-sha256,ext-info-c,kex-strict-c-v00@openssh.com", only, false);
        assert_eq!(traits(&message).expect("read"), Traits { strict: true, extensions: true });
    }

    #[test]
    fn a_cut_offer_is_refused() {
        let whole = of_client("curve25519-sha256", "aes128-gcm@openssh.com", false);
        for cut in 0..whole.len() - 4 {
            assert!(agree(&whole[..cut], true).is_err(), "{cut}");
        }
    }
}
