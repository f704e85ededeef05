//! What others wrote, through each parser of this room; the fuzzer has no other way in.

use super::version::Version;
use super::{key, manifest, sums, unpack};

/// Manifests, sums, signatures, keys and archives.
pub fn documents(bytes: &[u8]) {
    if let Ok(manifest) = manifest::parse(bytes) {
        assert!(manifest.releases.windows(2).all(|pair| pair[0].version < pair[1].version));
    }
    if let Ok(files) = sums::parse(bytes) {
        for (name, digest) in files {
            assert!(!name.contains(['/', '\0', '\n']) && digest.hex().len() == 64, "{name}");
            assert_eq!(sums::find(bytes, &name), Ok(digest));
        }
    }
    // Either way is fine: it must only end.
    let _ = key::decode("file", bytes);
    if let Ok(key) = key::Key::from_pem("key", bytes) {
        assert!(key.verify("file", bytes, b"AAAA").is_err());
    }
    let mut out = Vec::new();
    if let Ok(digest) = unpack::unpack(bytes, &mut out, "x86_64") {
        assert_eq!(digest, super::Digest::of(&out));
    }
}

/// A version that parses is written as one that parses to the same.
pub fn version(text: &str) {
    if let Ok(version) = text.parse::<Version>() {
        assert_eq!(version.to_string().parse(), Ok(version));
        assert!(!version.tarball("x86_64").contains(['/', ' ']));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn whatever_others_write_is_read_or_refused(
            any in "\\PC{0,200}",
            version in "v?[0-9]{0,3}(\\.|-|rc|[0-9]){0,8}",
            sums in "([0-9a-f]{63,65}( |  )[a-z0-9./-]{0,10}\n?){0,3}",
            manifest in "\\{\"schema\":1,\"releases\":\\[(\\{\"version\":\"[0-9.]{5}\",\"date\":\"2026-01-01\",\"sums\":\"s\",\"tarballs\":\\{\\}\\},?){0,2}\\]\\}",
        ) {
            for text in [&any, &version, &sums, &manifest] {
                super::version(text);
                super::documents(text.as_bytes());
            }
        }
    }
}
