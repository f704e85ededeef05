//! Names in archives: bytes that somebody else chose → the parts of a path that stays inside.

use super::ImageError;

/// ext4's limit for one part of a path (`EXT4_NAME_LEN`, fs/ext4/ext4.h).
const LONGEST_PART: usize = 255;
/// Linux' limit for a whole path (`PATH_MAX`, linux/limits.h).
const LONGEST_PATH: usize = 4096;

/// The error for an entry called `name`.
pub(super) fn refused(name: &[u8], reason: impl Into<String>) -> ImageError {
    ImageError::Entry { name: String::from_utf8_lossy(name).into_owned(), reason: reason.into() }
}

/// The parts of `name` below the root. A leading `/` and `./` mean the root itself; `..` is refused,
/// since no honest archiver writes it; no part means the root.
pub(super) fn parts(name: &[u8]) -> Result<Vec<String>, ImageError> {
    let text = text(name)?;
    if text.len() > LONGEST_PATH {
        return Err(refused(&name[..80], "its name is longer than 4096 bytes"));
    }
    let mut parts = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => return Err(refused(name, "its name climbs with `..`")),
            part if part.len() > LONGEST_PART => return Err(refused(name, "a part of its name exceeds 255 bytes")),
            part => parts.push(part.to_owned()),
        }
    }
    Ok(parts)
}

/// The target of symbolic link `name`, as text.
pub(super) fn link_target(name: &[u8], target: &[u8]) -> Result<String, ImageError> {
    if target.is_empty() || target.len() >= LONGEST_PATH {
        return Err(refused(name, format!("its link target has {} bytes", target.len())));
    }
    match std::str::from_utf8(target) {
        Ok(text) if !text.contains('\0') => Ok(text.to_owned()),
        _ => Err(refused(name, "its link target is not UTF-8, which the image writer requires")),
    }
}

fn text(name: &[u8]) -> Result<&str, ImageError> {
    let text = std::str::from_utf8(name)
        .map_err(|_| refused(name, "its name is not UTF-8, which the image writer requires"))?;
    if text.contains('\0') {
        return Err(refused(name, "its name holds a NUL"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_below_the_root() {
        for (name, expected) in
            [("./a/b", "a/b"), ("/a//b/", "a/b"), ("a/./b", "a/b"), (".", ""), ("./", ""), ("/", ""), ("ä/…", "ä/…")]
        {
            assert_eq!(parts(name.as_bytes()).expect(name).join("/"), expected);
        }
    }

    #[test]
    fn refuses_what_climbs_and_what_cannot_be_written() {
        let long = "x".repeat(256);
        let deep = "x/".repeat(3000);
        for bad in [&b".."[..], b"../a", b"a/../../b", b"a/..", b"a\0b", b"\xff", long.as_bytes(), deep.as_bytes()] {
            assert!(parts(bad).is_err(), "{bad:?}");
        }
    }
}
