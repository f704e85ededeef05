//! The words of a command line where the image has no shell to find them: quotes and backslashes as a shell
//! reads them, and nothing that a shell would replace (sh(1), quoting).

/// The words, or what is wrong with the line.
pub fn split(line: &[u8]) -> Result<Vec<Vec<u8>>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut bytes = line.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b' ' | b'\t' | b'\n' => words.extend(word.take()),
            b'\'' => single(&mut bytes, word.get_or_insert_default())?,
            b'"' => double(&mut bytes, word.get_or_insert_default())?,
            b'\\' => match bytes.next().ok_or("it ends with a backslash")? {
                b'\n' => {}
                other => word.get_or_insert_default().push(other),
            },
            b'|' | b'&' | b';' | b'<' | b'>' | b'(' | b')' | b'$' | b'`' => {
                return Err("it means something to a shell only");
            }
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    // What makes a shell become the program; here it is always so.
    if words.len() > 1 && line.trim_ascii_start().starts_with(b"exec ") {
        words.remove(0);
    }
    Ok(words)
}

fn single(bytes: &mut impl Iterator<Item = u8>, word: &mut Vec<u8>) -> Result<(), &'static str> {
    loop {
        match bytes.next().ok_or("a quote is not closed")? {
            b'\'' => return Ok(()),
            other => word.push(other),
        }
    }
}

fn double(bytes: &mut impl Iterator<Item = u8>, word: &mut Vec<u8>) -> Result<(), &'static str> {
    loop {
        match bytes.next().ok_or("a quote is not closed")? {
            b'"' => return Ok(()),
            b'$' | b'`' => return Err("it means something to a shell only"),
            b'\\' => match bytes.next().ok_or("a quote is not closed")? {
                b'\n' => {}
                special @ (b'"' | b'\\' | b'$' | b'`') => word.push(special),
                other => word.extend([b'\\', other]),
            },
            other => word.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        let words = split(line.as_bytes()).expect("words");
        words.into_iter().map(|word| String::from_utf8(word).expect("text")).collect()
    }

    #[test]
    fn words_are_those_that_a_shell_would_find() {
        assert_eq!(words("/hello  a 'b c' \"d \\\" \\e\" f\\ g ''"), ["/hello", "a", "b c", "d \" \\e", "f g", ""]);
        assert_eq!(words("exec '/a b' x"), ["/a b", "x"]);
        assert_eq!(words("a'b'\"c\""), ["abc"]);
        assert_eq!(words(" \n"), [""; 0]);
        assert_eq!(words("exec"), ["exec"]);
    }

    #[test]
    fn what_only_a_shell_could_do_is_refused() {
        for line in ["a | b", "a; b", "a $HOME", "a \"$HOME\"", "a 'b", "a \"b", "a \\", "a > b", "a `b`", "(a)"] {
            assert!(split(line.as_bytes()).is_err(), "{line}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_quoted_comes_back(given in proptest::collection::vec(".*", 1..5)) {
            let quoted = |word: &String| format!("'{}'", word.replace('\'', "'\\''"));
            let line = given.iter().map(quoted).collect::<Vec<_>>().join(" ");
            proptest::prop_assert_eq!(words(&line), given);
        }
    }
}
