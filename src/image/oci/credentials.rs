//! Credentials that this person has given docker or podman already.
//!
//! Looked for only when a registry asks. What is wrong with a file or a program does not end a pull that needs
//! no credentials, but is told with the refusal of one that does. See containers-auth.json(5) and
//! docker's "config.json" page.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use base64ct::{Base64, Encoding};
use serde::Deserialize;

use crate::os::files::read_limited;

use super::credential_program::{self, Answered};
use super::hidden::Hidden;
use super::reference::Reference;

/// Most bytes of a file with credentials.
const MOST_FILE: u64 = 1 << 20;
/// What docker calls its own registry there.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// What a registry, or who gives tokens for it, is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Credential {
    /// Name and password.
    Password(String, Hidden),
    /// A token that only gets others (OAuth 2).
    Refresh(Hidden),
}

/// What was found, and what went wrong on the way.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) credential: Option<Credential>,
    pub(super) troubles: Vec<String>,
}

/// Where credentials are looked for, first to last.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// Files of docker's form.
    pub files: Vec<PathBuf>,
    /// Where helper programs are looked for instead of in `PATH`.
    pub programs: Option<PathBuf>,
}

impl Credentials {
    /// podman's places, then docker's, as this process's environment has them.
    pub fn of_this_person() -> Self {
        Self::from_variables(|name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from))
    }

    fn from_variables(variable: impl Fn(&str) -> Option<PathBuf>) -> Self {
        let home = variable("HOME");
        let below_home = |rest: &str| home.as_ref().map(|home| home.join(rest));
        let podman = match variable("REGISTRY_AUTH_FILE") {
            Some(file) => vec![Some(file)],
            None => vec![
                variable("XDG_RUNTIME_DIR").map(|folder| folder.join("containers/auth.json")),
                variable("XDG_CONFIG_HOME")
                    .map(|folder| folder.join("containers/auth.json"))
                    .or_else(|| below_home(".config/containers/auth.json")),
            ],
        };
        let docker = variable("DOCKER_CONFIG").or_else(|| below_home(".docker")).map(|f| f.join("config.json"));
        Self { files: podman.into_iter().chain([docker]).flatten().collect(), programs: None }
    }

    /// The first that is for `reference`.
    pub(super) fn find(&self, reference: &Reference) -> Found {
        let mut found = Found::default();
        for path in &self.files {
            match self.find_in(path, reference) {
                Ok(None) => {}
                Ok(credential) => {
                    found.credential = credential;
                    return found;
                }
                Err(trouble) => found.troubles.push(trouble),
            }
        }
        found
    }

    fn find_in(&self, path: &Path, reference: &Reference) -> Result<Option<Credential>, String> {
        let bytes = match read_limited(path, MOST_FILE) {
            Ok(bytes) => bytes,
            Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(e) => return Err(e.to_string()),
        };
        // The parser's own words may quote what is in the file.
        let file = parse(&bytes).ok_or_else(|| format!("{} is no file of credentials", path.display()))?;
        match look_up(&file, reference) {
            Place::Nowhere => Ok(None),
            Place::Broken => Err(format!("the entry for {} in {} is damaged", reference.registry(), path.display())),
            Place::There(credential) => Ok(Some(credential)),
            Place::Program { name, server } => {
                match credential_program::get(&name, &server, self.programs.as_deref()) {
                    Answered::Credential(credential) => Ok(Some(credential)),
                    Answered::None => Ok(None),
                    Answered::Trouble(trouble) => Err(trouble),
                }
            }
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct AuthFile {
    auths: Option<HashMap<String, Entry>>,
    cred_helpers: Option<HashMap<String, String>>,
    creds_store: Option<String>,
}

#[derive(Deserialize)]
struct Entry {
    auth: Option<String>,
    identitytoken: Option<String>,
    username: Option<String>,
    password: Option<String>,
}

fn parse(bytes: &[u8]) -> Option<AuthFile> {
    if bytes.trim_ascii().is_empty() { Some(AuthFile::default()) } else { serde_json::from_slice(bytes).ok() }
}

/// Where the credential for a reference is.
enum Place {
    Nowhere,
    Broken,
    There(Credential),
    Program { name: String, server: String },
}

fn look_up(file: &AuthFile, reference: &Reference) -> Place {
    let names = names_of(reference);
    let server = || match reference.registry() {
        "docker.io" => DOCKER_HUB.to_owned(),
        registry => registry.to_owned(),
    };
    let entry = |map: &HashMap<String, String>| {
        names.iter().find_map(|name| map.iter().find(|(key, _)| plain_name(key) == *name).map(|(_, v)| v.clone()))
    };
    if let Some(name) = file.cred_helpers.as_ref().and_then(entry) {
        return Place::Program { name, server: server() };
    }
    let auths = file.auths.iter().flatten();
    let auths: Vec<(&str, &Entry)> = auths.map(|(key, entry)| (plain_name(key), entry)).collect();
    let filled = |e: &&Entry| e.auth.is_some() || e.identitytoken.is_some() || e.username.is_some();
    let found = names.iter().find_map(|name| auths.iter().find(|(key, e)| key == name && filled(e)).map(|(_, e)| *e));
    match (found, &file.creds_store) {
        (Some(entry), _) => credential(entry).map_or(Place::Broken, Place::There),
        (None, Some(name)) if !name.is_empty() => Place::Program { name: name.clone(), server: server() },
        (None, _) => Place::Nowhere,
    }
}

/// Keys that a reference's credential may have, the most particular first: podman has them down to the repository.
fn names_of(reference: &Reference) -> Vec<String> {
    let registry = reference.registry();
    let full = format!("{registry}/{}", reference.repository());
    let mut names: Vec<String> = full.match_indices('/').map(|(at, _)| full[..at].to_owned()).collect();
    names.push(full);
    names.reverse();
    if registry == "docker.io" {
        names.extend(["index.docker.io".to_owned(), "registry-1.docker.io".to_owned()]);
    }
    names
}

/// A key without scheme, version and slash: `https://index.docker.io/v1/` is `index.docker.io`.
fn plain_name(key: &str) -> &str {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let key = key.trim_end_matches('/');
    key.strip_suffix("/v1").or_else(|| key.strip_suffix("/v2")).unwrap_or(key)
}

fn credential(entry: &Entry) -> Option<Credential> {
    if let Some(token) = entry.identitytoken.as_deref().filter(|t| !t.is_empty()) {
        return Some(Credential::Refresh(Hidden::new(token)));
    }
    let Some(auth) = entry.auth.as_deref().filter(|a| !a.is_empty()) else {
        return Some(Credential::Password(entry.username.clone()?, Hidden::new(entry.password.clone()?)));
    };
    let decoded = Base64::decode_vec(auth.trim()).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    // docker itself strips zero bytes at the end.
    let (user, password) = text.trim_end_matches('\0').split_once(':')?;
    Some(Credential::Password(user.to_owned(), Hidden::new(password)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(json: &str, reference: &str) -> Place {
        look_up(&parse(json.as_bytes()).expect("json"), &reference.parse().expect("a reference"))
    }

    fn user(json: &str, reference: &str) -> String {
        match found(json, reference) {
            Place::There(Credential::Password(user, _)) => user,
            Place::There(Credential::Refresh(token)) => format!("token {}", token.expose()),
            Place::Program { name, server } => format!("{name} {server}"),
            Place::Broken => "broken".to_owned(),
            Place::Nowhere => String::new(),
        }
    }

    fn auth(user: &str) -> String {
        format!(r#"{{"auth":"{}"}}"#, Base64::encode_string(format!("{user}:p:w").as_bytes()))
    }

    #[test]
    fn entries_of_docker_and_podman_are_found() {
        let hub = format!(r#"{{"auths":{{"https://index.docker.io/v1/":{}}}}}"#, auth("hub"));
        assert_eq!(user(&hub, "python"), "hub");
        assert_eq!(user(&hub, "ghcr.io/a/b"), "");
        let paths = format!(
            r#"{{"auths":{{"quay.example/a":{},"quay.example":{},"quay.example/a/b":{}}}}}"#,
            auth("a"),
            auth("all"),
            auth("b")
        );
        for (reference, who) in [("quay.example/a/b", "b"), ("quay.example/a/c", "a"), ("quay.example/c", "all")] {
            assert_eq!(user(&paths, reference), who);
        }
        assert_eq!(user(r#"{"auths":{"x.example":{"identitytoken":"t","auth":""}}}"#, "x.example/a"), "token t");
        assert_eq!(user(r#"{"auths":{"x.example":{"auth":"%%"}}}"#, "x.example/a"), "broken");
        match found(&hub, "python") {
            Place::There(credential) => {
                assert_eq!(credential, Credential::Password("hub".into(), Hidden::new("p:w")));
                assert!(!format!("{credential:?}").contains("p:w"));
            }
            _ => panic!("not there"),
        }
    }

    #[test]
    fn helpers_are_for_one_registry_or_for_all() {
        let json = r#"{"auths":{"y.example":{}},"credHelpers":{"x.example":"one"},"credsStore":"all"}"#;
        assert_eq!(user(json, "x.example/a"), "one x.example");
        assert_eq!(user(json, "y.example/a"), "all y.example");
        assert_eq!(user(json, "python"), format!("all {DOCKER_HUB}"));
        assert_eq!(user("{}", "python"), "");
    }

    #[test]
    fn places_are_those_of_podman_and_docker() {
        let files = |set: &[(&str, &str)]| {
            let set: HashMap<_, _> = set.iter().copied().collect();
            let files = Credentials::from_variables(|name| set.get(name).map(PathBuf::from)).files;
            files.iter().map(|f| f.display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(
            files(&[("HOME", "/h"), ("XDG_RUNTIME_DIR", "/r")]),
            ["/r/containers/auth.json", "/h/.config/containers/auth.json", "/h/.docker/config.json"]
        );
        assert_eq!(files(&[("REGISTRY_AUTH_FILE", "/a"), ("DOCKER_CONFIG", "/d")]), ["/a", "/d/config.json"]);
    }

    #[test]
    fn a_broken_file_is_told_and_passed_over() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = ["one", "two"].map(|name| folder.path().join(name));
        std::fs::write(&files[0], "{secret").expect("written");
        std::fs::write(&files[1], format!(r#"{{"auths":{{"docker.io":{}}}}}"#, auth("me"))).expect("written");
        let credentials = Credentials { files: files.into(), programs: None };
        let found = credentials.find(&"python".parse().expect("a reference"));
        assert!(found.credential.is_some());
        assert!(found.troubles[0].ends_with("one is no file of credentials"), "{:?}", found.troubles);
    }
}
