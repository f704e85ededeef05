//! What the makers of all that is linked into the binary want to be said with it: their notices and licenses.
//!
//! A text that many crates share stands there once, under the names of them all.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::bill::{Linked, array, text};
use crate::{Outcome, write_file};

/// What files of notices are called, in small letters.
const BEGINNINGS: [&str; 6] = ["license", "licence", "unlicense", "copying", "copyright", "notice"];

/// Of libraries in C: which crate has their sources, and where in it their license is.
const CARRIED: [(&str, &str, &str); 2] =
    [("libssh2", "libssh2-sys", "libssh2/COPYING"), ("openssl", "openssl-src", "openssl/LICENSE.txt")];

/// Whose notice comes with the compiler and with no crate.
const RUNTIME: &str = "musl: Copyright (c) 2005-2020 Rich Felker and others, MIT license, as below\n\
    rust-std: Copyright (c) The Rust Project Contributors, MIT or Apache-2.0 license, as below\n";

/// Writes the notices of all that `release/papers/bill.rs` finds in `sources`, as `file`.
pub fn write(sources: &Path, file: &Path) -> Outcome {
    let linked = Linked::read(sources)?;
    let mut texts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut without = Vec::new();
    for package in linked.packages() {
        let found = files(&folder(package))?;
        let name = format!("{} {}", text(&package["name"]), text(&package["version"]));
        if found.is_empty() {
            without.push(format!("{name}: {}", text(&package["license"])));
        }
        for path in found {
            texts.entry(read(&path)?).or_default().insert(name.clone());
        }
    }
    for (library, crate_, path) in CARRIED {
        let package = array(&linked.metadata["packages"]).iter().find(|p| p["name"] == crate_);
        let path = folder(package.ok_or_else(|| format!("no crate {crate_}"))?).join(path);
        texts.entry(read(&path)?).or_default().insert(library.to_owned());
    }
    let mut written = String::from("The binary of banger contains the work of many. These are their notices.\n\n");
    written +=
        &format!("{RUNTIME}{}\n", without.iter().map(|line| format!("{line}, without a text\n")).collect::<String>());
    let mut texts: Vec<_> = texts.into_iter().map(|(text, names)| (names, text)).collect();
    texts.sort();
    for (names, text) in texts {
        let names: Vec<String> = names.into_iter().collect();
        written += &format!("{}\n{}\n\n{}\n\n", "=".repeat(72), names.join("\n"), text.trim());
    }
    write_file(file, &written)
}

fn folder(package: &Value) -> PathBuf {
    Path::new(text(&package["manifest_path"])).parent().map(Path::to_owned).unwrap_or_default()
}

fn files(folder: &Path) -> Result<Vec<PathBuf>, Box<dyn std::error::Error>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|error| format!("cannot list {}: {error}", folder.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().to_lowercase();
        if BEGINNINGS.iter().any(|beginning| name.starts_with(beginning)) && entry.path().is_file() {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// Its lines; what differs in their ends alone is the same text.
fn read(path: &Path) -> Result<String, Box<dyn std::error::Error>> {
    let bytes = std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let told = String::from_utf8_lossy(&bytes);
    Ok(told.lines().map(str::trim_end).collect::<Vec<_>>().join("\n"))
}
