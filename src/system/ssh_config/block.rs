//! The marked lines in the user's file. They stand at its top: an `Include` that follows a `Host` or `Match` holds for
//! what that names only (ssh_config(5)). So whatever the file ends with stays as it is. Pure: bytes in, bytes out.

/// First and last of the lines.
const BEGIN: &str = "# >>> banger ssh-config: `banger ssh-config --uninstall` takes these lines away";
const END: &str = "# <<< banger ssh-config";

/// What stands before the words for what was made.
const MADE: &str = "# made: ";

/// What was not there before the lines were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Made {
    /// The file.
    pub file: bool,
    /// The folder that it is in.
    pub folder: bool,
}

/// The lines begin and do not end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unclosed {
    /// Number of the first line, from 1.
    pub line: usize,
}

/// The lines as they were found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The path that is included.
    pub path: String,
    /// What was made for them.
    pub made: Made,
    /// Whether they stand behind a `Host` or a `Match`.
    pub is_limited: bool,
}

/// `content` with the lines at its top, ended as its own lines are.
pub fn with(content: &[u8], path: &str, made: Made) -> Vec<u8> {
    let mut lines = vec![BEGIN.to_owned()];
    match made {
        Made { file: false, .. } => {}
        Made { file: true, folder: false } => lines.push(format!("{MADE}file")),
        Made { file: true, folder: true } => lines.push(format!("{MADE}file folder")),
    }
    lines.extend([format!("Include \"{path}\""), END.to_owned()]);
    let ending = if ends_lines_with_cr(content) { "\r\n" } else { "\n" };
    let block: String = lines.iter().flat_map(|line| [line, ending]).collect();
    [block.as_bytes(), content].concat()
}

fn ends_lines_with_cr(content: &[u8]) -> bool {
    content.iter().position(|b| *b == b'\n').is_some_and(|at| content[..at].ends_with(b"\r"))
}

/// `content` without the lines, however often they are there; the first of them, if any.
pub fn without(content: &[u8]) -> Result<(Vec<u8>, Option<Found>), Unclosed> {
    let (mut rest, mut first, mut open) = (Vec::with_capacity(content.len()), None::<Found>, None);
    let mut is_limited = false;
    for (number, line) in content.split_inclusive(|b| *b == b'\n').enumerate() {
        let text = String::from_utf8_lossy(line);
        let text = text.trim();
        match &mut open {
            None if text == BEGIN => {
                open = Some((number + 1, Found { path: String::new(), made: Made::default(), is_limited }));
            }
            None => {
                is_limited |= is_limiting(text);
                rest.extend_from_slice(line);
            }
            Some((_, found)) if text == END => {
                first.get_or_insert(found.clone());
                open = None;
            }
            Some((_, found)) => learn(found, text),
        }
    }
    match open {
        None => Ok((rest, first)),
        Some((line, _)) => Err(Unclosed { line }),
    }
}

fn learn(found: &mut Found, line: &str) {
    if let Some(words) = line.strip_prefix(MADE) {
        let has = |wanted: &str| words.split(' ').any(|word| word == wanted);
        found.made = Made { file: has("file"), folder: has("folder") };
    } else if let Some(path) = line.strip_prefix("Include \"").and_then(|rest| rest.strip_suffix('"')) {
        found.path = path.to_owned();
    }
}

fn is_limiting(line: &str) -> bool {
    let keyword = line.split(|c: char| c.is_whitespace() || c == '=').next().unwrap_or_default();
    keyword.eq_ignore_ascii_case("host") || keyword.eq_ignore_ascii_case("match")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PATH: &str = "/home/u/.config/banger/ssh_config";

    const FILES: [&[u8]; 8] = [
        b"",
        b"\n",
        b"Host a\n  User b\n",
        b"Host a\n  User b",
        b"Host a\r\n  User b\r\n",
        b"Host a\r\n  User b",
        b"\xef\xbb\xbf# \xff\xfe\nHost *\n\n\n",
        b"\r\n\r\nHost x",
    ];

    #[test]
    fn what_was_put_in_comes_out_to_the_byte() {
        for file in FILES {
            for made in [Made::default(), Made { file: true, folder: false }, Made { file: true, folder: true }] {
                let found = Found { path: PATH.into(), made, is_limited: false };
                assert_eq!(without(&with(file, PATH, made)), Ok((file.to_vec(), Some(found))));
            }
            assert_eq!(without(file), Ok((file.to_vec(), None)));
        }
    }

    #[test]
    fn lines_end_as_those_of_the_file_do() {
        let ended = |file: &[u8]| with(file, PATH, Made::default());
        assert!(ended(b"Host a\r\n").split_inclusive(|b| *b == b'\n').all(|line| line.ends_with(b"\r\n")));
        assert!(!ended(b"Host a\nHost b\r\n").starts_with(&[BEGIN.as_bytes(), b"\r"].concat()));
    }

    #[test]
    fn lines_that_were_moved_doubled_or_changed_are_found() {
        let block = with(b"", PATH, Made::default());
        let file = [b"Port 1\n", block.as_slice(), b"Host a\n", &block, b"User b"].concat();
        let (rest, found) = without(&file).expect("closed");
        assert_eq!(rest, b"Port 1\nHost a\nUser b");
        assert!(!found.expect("found").is_limited);
        for limiting in ["Host a\n", "  match all\n", "HOST=a\n"] {
            let (_, found) = without(&[limiting.as_bytes(), &block].concat()).expect("closed");
            assert!(found.expect("found").is_limited, "{limiting}");
        }
        let text = String::from_utf8(block).expect("text").replace("Include", "# Include");
        assert_eq!(without(text.as_bytes()).expect("closed").1.expect("found").path, "");
    }

    #[test]
    fn lines_that_do_not_end_are_not_guessed() {
        let file = format!("Host a\n{BEGIN}\nInclude \"x\"\nHost b\n");
        assert_eq!(without(file.as_bytes()), Err(Unclosed { line: 2 }));
    }

    proptest! {
        #[test]
        fn any_file_comes_back(file in proptest::collection::vec(any::<u8>(), 0..200)) {
            let there = with(&file, PATH, Made::default());
            prop_assert_eq!(without(&there).map(|(rest, _)| rest), Ok(file));
        }
    }
}
