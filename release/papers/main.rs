//! Writes what accompanies the binary: man pages, completions, bill of materials, list of releases.
//!
//! `release/package` and `release/publish` call it. It is no part of what is shipped: it knows the
//! commands by the library's own definitions, so that no page can say what the binary does not do.

#![forbid(unsafe_code)]
// Saying why it fails to the script that called it is all that this prints.
#![allow(clippy::print_stderr)]

/// CycloneDX.
mod bill;
/// For three shells.
mod completions;
/// man(7).
mod manual;
/// Notices and licenses.
mod notices;
/// A session, as a picture.
mod recording;
/// What is published, newest first.
mod releases;
/// Text for troff.
mod roff;
/// A terminal.
mod screen;

use std::path::Path;
use std::process::ExitCode;

/// Why nothing was written: what was tried, and the cause.
type Outcome = Result<(), Box<dyn std::error::Error>>;

const USAGE: &str = "usage: papers man FOLDER | completions FOLDER
       papers bill SOURCES ARCH TIME FILE | notices SOURCES FILE
       papers record PRINTED TIMES PICTURE
       papers release OLD FILE VERSION DATE SUMS FROM NOTES ARCH URL SIZE...";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["man", folder] => manual::write(Path::new(folder)),
        ["completions", folder] => completions::write(Path::new(folder)),
        ["bill", sources, arch, time, file] => bill::write(Path::new(sources), arch, time, Path::new(file)),
        ["notices", sources, file] => notices::write(Path::new(sources), Path::new(file)),
        ["record", printed, times, picture] => {
            recording::write(Path::new(printed), Path::new(times), Path::new(picture))
        }
        ["release", old, file, version, date, sums, from, notes, tarballs @ ..] => {
            let release = releases::Release { version, date, sums, from, notes: Path::new(notes), tarballs };
            releases::write(Path::new(old), &release, Path::new(file))
        }
        _ => Err(USAGE.into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("papers: {reason}");
            ExitCode::FAILURE
        }
    }
}

/// Writes `text` as `path`, whose folder is made where it is missing.
fn write_file(path: &Path, text: &str) -> Outcome {
    let named = |error: std::io::Error| format!("cannot write {}: {error}", path.display());
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(named)?;
    }
    Ok(std::fs::write(path, text).map_err(named)?)
}

/// Reads a text that another step has written.
fn read_file(path: &Path) -> Result<String, Box<dyn std::error::Error>> {
    Ok(std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?)
}
