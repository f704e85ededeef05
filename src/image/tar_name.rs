//! Names in archives: bytes that somebody else chose → the parts of a path that stays inside.

use super::ImageError;

/// ext4's limit for one part of a path (`EXT4_NAME_LEN`, fs/ext4/ext4.h).
const LONGEST_PART: usize = 255;
/// Linux' limit for a whole path (`PATH_MAX`, linux/limits.h).
const LONGEST_PATH: usize = 4096;

/// The error for an entry called `name`.
pub(super) fn refused(name: &[u8], reason: impl Into<String>) -> ImageError {
    ImageError::Entry { name: name.escape_ascii().to_string(), reason: reason.into() }
}

/// The parts of `name` below the root. A leading `/` and `./` mean the root itself; `..` is refused,
/// since no honest archiver writes it; no part means the root.
pub(super) fn parts(name: &[u8]) -> Result<Vec<Vec<u8>>, ImageError> {
    if name.len() > LONGEST_PATH {
        return Err(refused(&name[..80], "its name is longer than 4096 bytes"));
    }
    if name.contains(&0) {
        return Err(refused(name, "its name holds a NUL"));
    }
    let mut parts = Vec::new();
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(refused(name, "its name climbs with `..`")),
            part if part.len() > LONGEST_PART => return Err(refused(name, "a part of its name exceeds 255 bytes")),
            part => parts.push(part.to_owned()),
        }
    }
    Ok(parts)
}

/// The target of symbolic link `name`: only a guest follows it, so it may lead anywhere.
pub(super) fn link_target(name: &[u8], target: &[u8]) -> Result<Box<[u8]>, ImageError> {
    if target.is_empty() || target.len() >= LONGEST_PATH {
        return Err(refused(name, format!("its link target has {} bytes", target.len())));
    }
    if target.contains(&0) {
        return Err(refused(name, "its link target holds a NUL"));
    }
    Ok(target.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_below_the_root() {
        for (name, expected) in
            [("./a/b", "a/b"), ("/a//b/", "a/b"), ("a/./b", "a/b"), (".", ""), ("./", ""), ("/", ""), ("ä/…", "ä/…")]
        {
            assert_eq!(parts(name.as_bytes()).expect(name).join(&b'/'), expected.as_bytes());
        }
    }

    #[test]
    fn refuses_what_climbs_and_what_cannot_be_written() {
        let long = "x".repeat(256);
        let deep = "x/".repeat(3000);
        for bad in [&b".."[..], b"../a", b"a/../../b", b"a/..", b"a\0b", long.as_bytes(), deep.as_bytes()] {
            assert!(parts(bad).is_err(), "{bad:?}");
        }
    }
}
