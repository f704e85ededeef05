//! Releases as `release/publish` makes them, signed with a key that is made here.

use std::io::Write;
use std::path::{Path, PathBuf};

use base64ct::{Base64, Encoding};
use flate2::write::GzEncoder;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};

use crate::update::{Digest, Fetcher, Key, Origin, Place};

/// A program's first bytes for this machine, and `content`.
pub fn elf(content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 64];
    bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
    bytes[18] = 62;
    bytes.extend_from_slice(content);
    bytes
}

pub fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        builder.append_data(&mut header, name, *content).expect("added");
    }
    builder.into_inner().expect("made")
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("compressed");
    encoder.finish().expect("compressed")
}

/// Who signs.
pub struct Signer {
    pair: EcdsaKeyPair,
    random: SystemRandom,
}

impl Signer {
    pub fn new() -> Self {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).expect("a key");
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref(), &random).expect("a pair");
        Self { pair, random }
    }

    pub fn key(&self) -> Key {
        Key::of_point(self.pair.public_key().as_ref())
    }

    /// As `cosign sign-blob` writes it.
    pub fn sign(&self, content: &[u8]) -> String {
        Base64::encode_string(self.pair.sign(&self.random, content).expect("signed").as_ref())
    }
}

/// A folder of releases.
pub struct Releases {
    pub folder: tempfile::TempDir,
    pub signer: Signer,
    listed: Vec<Value>,
}

impl Releases {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder"), signer: Signer::new(), listed: Vec::new() }
    }

    /// Adds a release whose binary is `program`.
    pub fn add(&mut self, version: &str, program: &[u8]) -> &mut Self {
        let name = format!("banger-v{version}-x86_64.tar.gz");
        let archive = gzip(&tar(&[("banger", program), ("LICENSE", b"text")]));
        self.write(&format!("v{version}/{name}"), &archive);
        self.sign(&format!("v{version}/SHA256SUMS"), format!("{}  {name}\n", Digest::of(&archive)).as_bytes());
        self.listed.push(json!({
            "version": version, "date": "2026-03-01", "sums": format!("v{version}/SHA256SUMS"), "notes": "better",
            "tarballs": { "x86_64": { "url": format!("v{version}/{name}"), "size": archive.len() } },
        }));
        let manifest = json!({ "schema": 1, "releases": self.listed });
        self.sign("manifest.json", manifest.to_string().as_bytes());
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, content: &[u8]) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).expect("made");
        std::fs::write(path, content).expect("written");
    }

    /// A file and its signature.
    pub fn sign(&self, name: &str, content: &[u8]) {
        self.write(name, content);
        self.write(&format!("{name}.sig"), self.signer.sign(content).as_bytes());
    }

    /// Where an update finds them.
    pub fn origin(&self) -> Origin {
        let manifest = Place::File(self.path("manifest.json"));
        Origin { fetcher: Fetcher::impatient(), manifest, key: self.signer.key() }
    }
}
