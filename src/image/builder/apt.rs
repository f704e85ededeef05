//! What of the host's apt configuration a foreign build needs: mirrors, proxy, leniency about dates.
//!
//! mmdebstrap reads none of it by itself (mmdebstrap(1), "OPTIONS", `--aptopt`).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::host::facts::find_program;

/// The suites of one Debian release.
const SUITES: [&str; 3] = ["bookworm", "bookworm-updates", "bookworm-security"];

/// One-line sources (sources.list(5)) of this host for Debian bookworm; empty when the release itself
/// is not among them, which means Debian's own mirrors.
pub(super) fn bookworm_sources() -> Vec<String> {
    let mut lines = Vec::new();
    for path in source_files(Path::new("/etc/apt")) {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        if path.extension().is_some_and(|e| e == "sources") {
            lines.extend(text.split("\n\n").flat_map(stanza_lines));
        } else {
            lines.extend(text.lines().map(|line| line.trim().to_owned()).filter(|line| is_bookworm(line)));
        }
    }
    let has_release = lines.iter().any(|line| suite_of(line) == Some(SUITES[0]));
    if has_release { lines } else { Vec::new() }
}

fn source_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = vec![folder.join("sources.list")];
    if let Ok(entries) = fs::read_dir(folder.join("sources.list.d")) {
        let named = |path: &PathBuf| path.extension().is_some_and(|e| e == "list" || e == "sources");
        files.extend(entries.flatten().map(|entry| entry.path()).filter(named));
    }
    files.sort();
    files
}

/// `deb [options] URI SUITE COMPONENT…` without the options.
fn fields(line: &str) -> Option<Vec<&str>> {
    let rest = line.strip_prefix("deb ")?.trim_start();
    let rest = match rest.strip_prefix('[') {
        Some(options) => options.split_once(']')?.1,
        None => rest,
    };
    Some(rest.split_ascii_whitespace().collect())
}

fn suite_of(line: &str) -> Option<&str> {
    fields(line)?.get(1).copied()
}

/// Whether `line` is a source of Debian's own packages: other makers' have suites of the same names, but
/// keys of their own.
fn is_bookworm(line: &str) -> bool {
    let Some(fields) = fields(line) else { return false };
    let signed_by = line.split_once("signed-by=").map(|(_, rest)| rest);
    let debian_key =
        signed_by.is_none_or(|key| key.split([' ', ']']).next().unwrap_or_default().contains("debian-archive"));
    matches!(fields.as_slice(), [_, suite, components @ ..] if SUITES.contains(suite) && components.contains(&"main"))
        && debian_key
}

/// The one-line sources that a deb822 stanza stands for.
fn stanza_lines(stanza: &str) -> Vec<String> {
    let field = |name: &str| stanza_field(stanza, name);
    let types = field("types").unwrap_or_default();
    if field("enabled").is_some_and(|e| e == "no") || !types.split_ascii_whitespace().any(|t| t == "deb") {
        return Vec::new();
    }
    let mut options = String::new();
    for (name, option) in
        [("signed-by", "signed-by"), ("check-valid-until", "check-valid-until"), ("trusted", "trusted")]
    {
        match field(name) {
            Some(value) if !value.contains(char::is_whitespace) => options.push_str(&format!(" {option}={value}")),
            // A key written into the stanza itself has no one-line form.
            Some(_) => return Vec::new(),
            None => {}
        }
    }
    let options = if options.is_empty() { options } else { format!("[{}] ", options.trim_start()) };
    let (uris, suites) = (field("uris").unwrap_or_default(), field("suites").unwrap_or_default());
    let components = field("components").unwrap_or_default();
    let line = |uri: &str, suite: &str| format!("deb {options}{uri} {suite} {components}");
    let all = uris.split(' ').flat_map(|uri| suites.split(' ').map(move |suite| line(uri, suite)));
    all.filter(|line| is_bookworm(line)).collect()
}

/// The value of a field, folded into one line; names are compared without case (deb822(5)).
fn stanza_field(stanza: &str, name: &str) -> Option<String> {
    let mut lines = stanza.lines().filter(|line| !line.starts_with('#'));
    let first = lines.by_ref().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then_some(value)
    })?;
    let more = lines.take_while(|line| line.starts_with([' ', '\t']));
    let words: Vec<&str> = first.split_whitespace().chain(more.flat_map(str::split_whitespace)).collect();
    Some(words.join(" "))
}

/// Settings by which this host reaches its mirrors, as lines of apt.conf(5).
pub(super) fn reach() -> Vec<String> {
    let Some(program) = find_program("apt-config") else { return Vec::new() };
    let Ok(output) = Command::new(program).arg("dump").output() else { return Vec::new() };
    String::from_utf8_lossy(&output.stdout).lines().filter(|line| is_reach(line)).map(str::to_owned).collect()
}

fn is_reach(line: &str) -> bool {
    let name = line.split(' ').next().unwrap_or_default();
    let lower = name.to_ascii_lowercase();
    let exact = ["acquire::check-valid-until", "acquire::check-date", "acquire::retries", "acquire::forceipv4"];
    let parts = ["::proxy", "::cainfo", "::verify-peer", "::sslcert", "::sslkey", "::timeout"];
    let of_transport = lower.starts_with("acquire::http::") || lower.starts_with("acquire::https::");
    exact.contains(&lower.as_str()) || (of_transport && parts.iter().any(|part| lower.contains(part)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debians_own_sources_are_found_among_others() {
        for good in [
            "deb http://mirror.example.org/debian bookworm main",
            "deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://m/debian bookworm-updates main contrib",
            "deb   http://security.example.org/debian-security  bookworm-security  main",
        ] {
            assert!(is_bookworm(good), "{good}");
        }
        for bad in [
            "# deb http://mirror.example.org/debian bookworm main",
            "deb-src http://mirror.example.org/debian bookworm main",
            "deb https://other.example.org/linux/debian bookworm stable",
            "deb [signed-by=/etc/apt/keyrings/other.gpg] https://example.org/debian bookworm main",
            "deb http://mirror.example.org/debian trixie main",
            "deb [broken http://x bookworm main",
            "deb",
        ] {
            assert!(!is_bookworm(bad), "{bad}");
        }
    }

    #[test]
    fn a_stanza_becomes_lines() {
        let stanza = "Types: deb deb-src\n# remark\nURIs: http://a/debian\n http://b/debian\nSuites: bookworm bookworm-updates trixie\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n";
        let lines = stanza_lines(stanza);
        assert_eq!(lines.len(), 4, "{lines:?}");
        assert_eq!(
            lines[0],
            "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://a/debian bookworm main"
        );
        assert!(stanza_lines(&format!("{stanza}Enabled: no\n")).is_empty());
    }

    #[test]
    fn only_what_reaches_mirrors_is_taken_over() {
        assert!(is_reach("Acquire::http::Proxy \"http://proxy:3128\";"));
        assert!(is_reach("Acquire::Check-Valid-Until \"false\";"));
        assert!(!is_reach("DPkg::Post-Invoke:: \"rm -rf /\";"));
        assert!(!is_reach("Acquire::http \"\";"));
    }
}
