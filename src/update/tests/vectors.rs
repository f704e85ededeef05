//! Test vectors made once with openssl 3 (the private halves were thrown away), and openssl itself where it is installed:
//!
//!     openssl ecparam -name prime256v1 -genkey -noout -out k; openssl ec -in k -pubout
//!     openssl dgst -sha256 -sign k FILE | openssl base64 -A

use std::io::Write;
use std::process::{Command, Stdio};

use crate::update::key::Key;

/// The key of [`SIGNED`].
pub const KEY: &str = "\
-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAELRSdYWytWVF0146SDJDC7osm6hd3
5uzY8Pn2xVnp6Wr4GCPetgPMaD9Tte0jy0jadCCy5tuuREdkk2j0a92mIA==
-----END PUBLIC KEY-----
";

/// Another of the same kind.
pub const OTHER_KEY: &str = "\
-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEdJJbNKNbCCBj0o0OsQSZCtxXyoY3
pfA85avvdSMXOafoCChcqhOJNrteI3zrggiy5Y1TiISjH+PadxKh4AJBJQ==
-----END PUBLIC KEY-----
";

/// Of another curve.
pub const P384_KEY: &str = "\
-----BEGIN PUBLIC KEY-----
MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAE+Emj0GCA48kLhKaCsH7pdxfdbcHTX1Dx
F6gHYsAc3zofT7tZePEv4WdS7g95Ilnkwb3mS8AJD6fHH86Sy3zpJVrQfataZbn9
R8eMWPaPYfA87hVU1kJs5mSIHqea1VXn
-----END PUBLIC KEY-----
";

/// Of another kind.
pub const ED25519_KEY: &str = "\
-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEA51MKWQDhgyeIPaNRDrtVZdJhaDqySUwxYAxEjqiwBew=
-----END PUBLIC KEY-----
";

/// Contents and their signatures.
pub const SIGNED: [(&[u8], &str); 3] = [
    (
        b"what is signed\n",
        "MEQCIG0z/CDCsF+pY4dfScWy/OkNgKGIbb+kzFV8RwYmDNWuAiBlnRf0DYxNbDHclZTVf6ffdxvihCKS5Skag3bMOyw/JA==",
    ),
    (b"", "MEQCICEtY5sG48IvQouJB47ZY235wVVqswOa2D6YT13QU/TmAiAlEy9eJGazWzOa+2v1r9XUr4/Z660zg+Z6drDo1X2NXA=="),
    (&[b'x'; 300], "MEYCIQDhXAASCOHn8saXkLlcjYIXCg3PHMb06D4ICgcBoZH/RAIhAO4RRRaJDONF8s73gUSRfhbEkiCgOUQNPFBnZfY/NiYt"),
];

/// [`KEY`], read.
pub fn key() -> Key {
    Key::from_pem("test.pub", KEY.as_bytes()).expect("a key")
}

/// Whether openssl, which must be there, finds that `signature`, base64 of DER, of `content` was made by the key in `pem`.
pub fn openssl_verifies(pem: &str, content: &[u8], signature: &str) -> bool {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("key"), pem).expect("written");
    std::fs::write(at("signature.b64"), signature).expect("written");
    let decoded = Command::new("openssl").args(["base64", "-d", "-A", "-in"]).arg(at("signature.b64")).output();
    std::fs::write(at("signature"), decoded.expect("openssl runs").stdout).expect("written");
    let mut command = Command::new("openssl");
    command.args(["dgst", "-sha256", "-verify"]).arg(at("key")).arg("-signature").arg(at("signature"));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("openssl");
    child.stdin.take().expect("a pipe").write_all(content).expect("written");
    child.wait().expect("ended").success()
}
