//! Names that people choose for VMs, images and kernels.
//!
//! A name reaches hostnames, DNS, file paths and messages, so the grammar is narrow and a name
//! is never rewritten: what was typed is what is used, or it is refused.

use std::fmt;
use std::str::FromStr;

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was given.
    #[error("{what} name is empty")]
    Empty {
        /// What the name is of.
        what: &'static str,
    },
    /// Too many characters.
    #[error("{what} name has {length} characters; at most {limit} are allowed")]
    TooLong {
        /// What the name is of.
        what: &'static str,
        /// Its length in characters.
        length: usize,
        /// The most that is allowed.
        limit: usize,
    },
    /// A character outside the grammar.
    #[error("{what} name {name:?} contains {found:?}; allowed are {allowed}")]
    Character {
        /// What the name is of.
        what: &'static str,
        /// The offending name, escaped when printed.
        name: String,
        /// The first character that is not allowed.
        found: char,
        /// The grammar in words.
        allowed: &'static str,
    },
    /// A separator at an end.
    #[error("{what} name {name:?} must begin and end with a letter or digit")]
    Edge {
        /// What the name is of.
        what: &'static str,
        /// The offending name.
        name: String,
    },
}

struct Grammar {
    what: &'static str,
    limit: usize,
    extra: &'static [char],
    allowed: &'static str,
}

impl Grammar {
    fn check(&self, text: &str) -> Result<(), NameError> {
        let what = self.what;
        if text.is_empty() {
            return Err(NameError::Empty { what });
        }
        let length = text.chars().count();
        if length > self.limit {
            return Err(NameError::TooLong { what, length, limit: self.limit });
        }
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        if let Some(found) = text.chars().find(|c| !plain(*c) && !self.extra.contains(c)) {
            return Err(NameError::Character { what, name: text.to_owned(), found, allowed: self.allowed });
        }
        if !text.starts_with(plain) || !text.ends_with(plain) {
            return Err(NameError::Edge { what, name: text.to_owned() });
        }
        Ok(())
    }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $grammar:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                $grammar.check(text)?;
                Ok(Self(text.to_owned()))
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        super::checked_string_codec!($name);
    };
}

name_type!(
    /// A VM's name: a DNS label (RFC 1123 section 2.1) in lower case, 1-63 of `a-z 0-9 -`.
    VmName,
    Grammar { what: "VM", limit: 63, extra: &['-'], allowed: "a-z, 0-9 and '-'" }
);
name_type!(
    /// An image's local name: 1-128 of `a-z 0-9 . _ -`.
    ImageName,
    Grammar { what: "image", limit: 128, extra: &['-', '.', '_'], allowed: "a-z, 0-9, '.', '_' and '-'" }
);
name_type!(
    /// A kernel's local name: 1-128 of `a-z 0-9 . _ -`.
    KernelName,
    Grammar { what: "kernel", limit: 128, extra: &['-', '.', '_'], allowed: "a-z, 0-9, '.', '_' and '-'" }
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_dns_labels_as_they_are() {
        for good in ["a", "0", "box", "my-vm-2", &"a".repeat(63)] {
            assert_eq!(good.parse::<VmName>().map(|n| n.to_string()), Ok(good.to_owned()));
        }
    }

    #[test]
    fn refuses_what_is_not_a_dns_label() {
        let bad = ["", "Box", "-a", "a-", "a.b", "a/../b", "a\nb", "a b", "bøx", "a\0", &"a".repeat(64)];
        for name in bad {
            assert!(name.parse::<VmName>().is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_refusal_shows_the_name_escaped() {
        let error = "a\nb".parse::<VmName>().map_err(|e| e.to_string());
        assert_eq!(error, Err(r#"VM name "a\nb" contains '\n'; allowed are a-z, 0-9 and '-'"#.into()));
    }

    #[test]
    fn decoding_checks_too() {
        let config = bincode::config::standard();
        let bytes = bincode::encode_to_vec("../etc", config).expect("encodes");
        assert!(bincode::decode_from_slice::<VmName, _>(&bytes, config).is_err());
    }

    #[test]
    fn image_names_take_dots_but_no_path() {
        assert!("python-3.12".parse::<ImageName>().is_ok());
        for bad in ["..", ".hidden", "a/b", "A"] {
            assert!(bad.parse::<ImageName>().is_err(), "{bad}");
        }
    }
}
