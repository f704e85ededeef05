//! Secrets as asked for: where their values are read, and what stands for them.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::args::{AskedSecret, Source};
use super::report::Failure;
use crate::model::secret::{Placeholder, Secret, SecretValue};
use crate::os::random;
use crate::protocol::{Fault, FaultKind};

/// The secrets of a new VM, each with a placeholder of its own.
pub fn named(asked: &[AskedSecret]) -> Vec<Secret> {
    asked
        .iter()
        .map(|asked| Secret { name: asked.name.clone(), placeholder: placeholder(), hosts: asked.hosts.clone() })
        .collect()
}

fn placeholder() -> Placeholder {
    Placeholder::from_random(u128::from(random::number()) << 64 | u128::from(random::number()))
}

/// Their values, in the same order.
pub fn values(asked: &[AskedSecret]) -> Result<Vec<SecretValue>, Failure> {
    asked.iter().map(value).collect()
}

fn value(asked: &AskedSecret) -> Result<SecretValue, Failure> {
    let text = match &asked.source {
        Source::Variable(variable) => match std::env::var_os(variable) {
            None => {
                let message = format!("the secret {}: the variable {variable} is not set here", asked.name);
                return Err(refused(message).hint(format!("export {variable}=... before this, or take file:PATH")));
            }
            Some(text) => text.into_encoded_bytes(),
        },
        Source::File(path) => read(path)
            .map_err(|e| refused(format!("the secret {}: cannot read {}: {e}", asked.name, path.display())))?,
    };
    // What is no text is nothing for a header either, which is said next.
    let text = String::from_utf8(text).unwrap_or_else(|_| "\u{fffd}".to_owned());
    SecretValue::new(&asked.name, text).map_err(|e| Fault::of(FaultKind::BadRequest, &e).into())
}

fn refused(message: String) -> Failure {
    Failure::new(FaultKind::BadRequest, message)
}

/// The content of a file, without the line end that editors put behind it.
fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    // One line end more than a value may have, and one byte more than that.
    let limit = SecretValue::MAX as u64 + 3;
    let mut content = Vec::new();
    File::open(path)?.take(limit).read_to_end(&mut content)?;
    let content = content.strip_suffix(b"\n").map_or(content.clone(), <[u8]>::to_vec);
    Ok(content.strip_suffix(b"\r").map_or(content.clone(), <[u8]>::to_vec))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(source: Source) -> AskedSecret {
        AskedSecret { name: "T".parse().expect("a name"), source, hosts: vec!["a.example".parse().expect("a host")] }
    }

    #[test]
    fn a_file_is_read_without_its_last_line_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("token");
        let value = |content: &[u8]| {
            std::fs::write(&path, content).expect("written");
            values(&[asked(Source::File(path.clone()))]).map(|values| values[0].expose().to_owned())
        };
        for content in ["abc", "abc\n", "abc\r\n"] {
            assert_eq!(value(content.as_bytes()).expect("a value"), "abc");
        }
        for bad in [&b"abc\n\n"[..], b"", b"\n", b"a\nb", b"\xff", &[b'x'; 5000]] {
            let Err(Failure::Fault { fault, .. }) = value(bad) else { panic!("refused") };
            assert!(fault.message.starts_with("the secret T h"), "{}", fault.message);
        }
    }

    #[test]
    fn what_is_not_there_is_named() {
        for source in [Source::Variable("BANGER_NOT_SET_HERE".into()), Source::File("/nonexistent".into())] {
            let failure = values(&[asked(source)]).expect_err("refused");
            assert_eq!(failure.kind(), Some(FaultKind::BadRequest));
        }
    }

    #[test]
    fn no_two_placeholders_are_equal() {
        let secrets = named(&[asked(Source::Variable("A".into())), asked(Source::Variable("A".into()))]);
        assert_ne!(secrets[0].placeholder, secrets[1].placeholder);
    }
}
