//! Text as troff reads it: groff_char(7), man(7). What is typed must come out as it is typed.

/// One line of something typed: quotes, dashes and the like stay those of ASCII.
pub fn typed(text: &str) -> String {
    let mut line = String::new();
    for c in text.chars() {
        match c {
            '\\' => line.push_str("\\e"),
            '-' => line.push_str("\\-"),
            '\'' => line.push_str("\\(aq"),
            '`' => line.push_str("\\(ga"),
            '^' => line.push_str("\\(ha"),
            '~' => line.push_str("\\(ti"),
            '"' => line.push_str("\\(dq"),
            other => line.push(other),
        }
    }
    no_request(line)
}

/// Words to read; what stands in backticks is bold, and a word that is a flag is typed.
pub fn prose(text: &str) -> String {
    let mut line = String::new();
    for (at, part) in text.split('`').enumerate() {
        if at % 2 == 1 {
            line.push_str(&format!("\\fB{}\\fR", typed(part)));
        } else {
            line.push_str(&words(part));
        }
    }
    no_request(line)
}

fn words(text: &str) -> String {
    let piece = |word: &str| {
        let begins = |c: char| word.trim_start_matches(['(', '[']).starts_with(c);
        let is_typed = (begins('-') && word.len() > 1) || word.contains(['\\', '\'', '"', '^', '~', '=', '/']);
        if is_typed { typed(word) } else { word.to_owned() }
    };
    text.split(' ').map(piece).collect::<Vec<_>>().join(" ")
}

/// A line that begins with a dot or a quote is a request.
fn no_request(line: String) -> String {
    if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line }
}

/// A macro's argument.
pub fn argument(text: &str) -> String {
    format!("\"{}\"", typed(text))
}

/// Text of a help page: paragraphs, and set off by two blanks what is to be typed.
pub fn paragraphs(text: &str) -> String {
    let mut out = String::new();
    let mut is_typed = false;
    for line in text.lines() {
        let indented = line.starts_with("  ");
        if indented != is_typed {
            out.push_str(if indented { ".PP\n.RS 4\n.EX\n" } else { ".EE\n.RE\n" });
            is_typed = indented;
        }
        out.push_str(&if indented { typed(line.trim_start_matches("  ")) } else { prose(line) });
        out.push('\n');
    }
    if is_typed {
        out.push_str(".EE\n.RE\n");
    }
    out
}

/// An example of a help page: its title, if it has one, and lines to type.
pub fn example(text: &str) -> String {
    // Written for format!, as argh takes it.
    let text = &text.replace("{{", "{").replace("}}", "}");
    match text.split_once(":\n  ") {
        Some((title, typed)) if !title.contains('\n') => {
            format!("{}:\n{}", prose(title), to_type(&typed.replace("\n  ", "\n")))
        }
        _ => to_type(text),
    }
}

fn to_type(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(typed).collect();
    format!(".PP\n.RS 4\n.EX\n{}\n.EE\n.RE\n", lines.join("\n"))
}
