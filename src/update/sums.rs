//! `SHA256SUMS` as `sha256sum` writes it: a digest, two spaces, a name. The names carry the version, so the sums of one
//! release are of no use for another.

use super::digest::Digest;

/// Most bytes of one.
pub const MOST_SUMS: u64 = 64 << 10;

/// Why sums are of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SumsError {
    /// A line that `sha256sum` does not write.
    #[error("line {line} of SHA256SUMS is not a digest and the name of a file")]
    Line {
        /// Counted from 1.
        line: usize,
    },
    /// A name that is there twice.
    #[error("SHA256SUMS names {0} twice")]
    Twice(String),
    /// They are of other files.
    #[error("SHA256SUMS does not name {0}: it is of another release, or of other machines")]
    Missing(String),
}

/// The digest of the file called `name`.
pub fn find(text: &[u8], name: &str) -> Result<Digest, SumsError> {
    parse(text)?
        .into_iter()
        .find(|(n, _)| n == name)
        .map(|(_, digest)| digest)
        .ok_or(SumsError::Missing(name.to_owned()))
}

/// All files and their digests.
pub fn parse(text: &[u8]) -> Result<Vec<(String, Digest)>, SumsError> {
    let text = std::str::from_utf8(text).map_err(|_| SumsError::Line { line: 1 })?;
    let mut files: Vec<(String, Digest)> = Vec::new();
    for (at, line) in text.split_terminator('\n').enumerate() {
        let (digest, name) = file(line).ok_or(SumsError::Line { line: at + 1 })?;
        if files.iter().any(|(other, _)| other == name) {
            return Err(SumsError::Twice(name.to_owned()));
        }
        files.push((name.to_owned(), digest));
    }
    Ok(files)
}

fn file(line: &str) -> Option<(Digest, &str)> {
    let (digest, name) = line.split_once("  ")?;
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-~+".contains(&b));
    let fine = plain && (1..=128).contains(&name.len()) && !name.starts_with(['.', '-']);
    fine.then_some(())?;
    Some((digest.parse().ok()?, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(content: &[u8], name: &str) -> String {
        format!("{}  {name}\n", Digest::of(content))
    }

    #[test]
    fn what_sha256sum_writes_is_read() {
        let text = line(b"a", "banger-v0.2.0-x86_64.tar.gz") + &line(b"b", "banger_0.2.0~rc.1_amd64.deb");
        assert_eq!(find(text.as_bytes(), "banger-v0.2.0-x86_64.tar.gz"), Ok(Digest::of(b"a")));
        let missing = find(text.as_bytes(), "banger-v0.3.0-x86_64.tar.gz").expect_err("another release's");
        assert_eq!(missing, SumsError::Missing("banger-v0.3.0-x86_64.tar.gz".into()));
        assert_eq!(parse(b""), Ok(vec![]));
    }

    #[test]
    fn what_it_does_not_write_is_refused() {
        let good = line(b"a", "a");
        for bad in [
            "\n".to_owned(),
            good.replace("  ", " "),
            good.replace("  ", " *"),
            good.replace("  ", "   "),
            good.to_uppercase(),
            good[1..].to_owned(),
            line(b"a", "../a"),
            line(b"a", "a/b"),
            line(b"a", ".a"),
            line(b"a", "-a"),
            line(b"a", ""),
            line(b"a", "a b"),
            line(b"a", "a\r"),
            line(b"a", "ä"),
            line(b"a", &"a".repeat(129)),
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert_eq!(parse(format!("{good}{good}").as_bytes()), Err(SumsError::Twice("a".into())));
        assert!(parse(b"\xff").is_err());
    }
}
