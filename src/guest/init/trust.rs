//! The environment of everything that is run in the guest, and what a guest with secrets has more than others:
//! their placeholders in it, and trust in the certificate that the daemon shows in the name of their hosts.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::personal::replace;
use crate::guest::environment;
use crate::guest::error::{Doing, GuestError};
use crate::model::identity::{IdentityV2, IdentityV4};
use crate::os::files::{read_limited, remove_file};

/// Where distributions look for what an administrator adds, before they make their bundle anew
/// (update-ca-certificates(8), update-ca-trust(8)). The first is made where it is not there.
const ANCHORS: [&str; 4] = [
    "usr/local/share/ca-certificates",
    "etc/pki/ca-trust/source/anchors",
    "etc/pki/trust/anchors",
    "etc/ca-certificates/trust-source/anchors",
];

/// The file there.
const ANCHOR: &str = "banger-secrets.crt";

/// The bundles that programs read: of Debian, Alpine and Arch; of Fedora; of SUSE. The first is made where
/// none is there.
const BUNDLES: [&str; 3] =
    ["etc/ssl/certs/ca-certificates.crt", "etc/pki/tls/certs/ca-bundle.crt", "etc/ssl/ca-bundle.pem"];

/// Where OpenSSL looks for one certificate at a time, by links (update-ca-certificates(8), openssl-rehash(1)).
const LINKS: &str = "etc/ssl/certs";

/// Largest bundle that is changed: a customary one has 220 KiB.
const BUNDLE_LIMIT: u64 = 8 << 20;

/// What stands around banger's part of a bundle.
const BEGIN: &str = "# banger: secrets, begin\n";
const END: &str = "# banger: secrets, end\n";

/// Each piece with its name; one that fails does not stop the others.
pub fn write_all(identity: &IdentityV4) -> Vec<(&'static str, Result<(), GuestError>)> {
    let pair = |text: &String| text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    // The image's first: of two with the same name the later one counts.
    let mut variables: Vec<(String, String)> = identity.environment.iter().filter_map(pair).collect();
    let IdentityV4 { third, .. } = identity;
    let mut done = Vec::new();
    if !third.second.environment.is_empty() {
        let trusted = trust_of_secrets(&third.second, &mut variables);
        done.push(("trusted authority", trusted));
    }
    variables.extend(third.variables.iter().map(|v| (v.name().to_string(), v.value().to_owned())));
    if !variables.is_empty() {
        done.push(("environment", environment::write(&variables).doing(|| "write the environment".into())));
    }
    done
}

fn trust_of_secrets(identity: &IdentityV2, variables: &mut Vec<(String, String)>) -> Result<(), GuestError> {
    variables.extend(identity.environment.iter().map(|(name, value)| (name.to_string(), value.to_string())));
    let trusted = trust(Path::new("/"), &identity.authority);
    if let Ok(bundle) = &trusted {
        variables.extend(of_trust(bundle));
    }
    trusted.map(|_| ()).doing(|| "add the authority of secrets to those that are trusted".into())
}

/// For programs that read no bundle of the system by themselves: OpenSSL's own default, Python's requests,
/// Node.js.
fn of_trust(bundle: &Path) -> [(String, String); 3] {
    let (bundle, anchor) = (bundle.display().to_string(), Path::new("/").join(ANCHORS[0]).join(ANCHOR));
    [
        ("SSL_CERT_FILE".to_owned(), bundle.clone()),
        ("REQUESTS_CA_BUNDLE".to_owned(), bundle),
        ("NODE_EXTRA_CA_CERTS".to_owned(), anchor.display().to_string()),
    ]
}

/// Has programs below `root` trust `authority`; the bundle that most of them read.
fn trust(root: &Path, authority: &str) -> io::Result<PathBuf> {
    for (number, folder) in ANCHORS.iter().enumerate() {
        let folder = root.join(folder);
        if number == 0 || folder.is_dir() {
            replace(&folder.join(ANCHOR), authority.as_bytes(), 0o644)?;
        }
    }
    let there: Vec<PathBuf> = BUNDLES.iter().map(|bundle| root.join(bundle)).filter(|path| path.exists()).collect();
    let first = there.first().cloned().unwrap_or_else(|| root.join(BUNDLES[0]));
    for bundle in if there.is_empty() { std::slice::from_ref(&first) } else { there.as_slice() } {
        add(bundle, authority)?;
    }
    Ok(first)
}

/// Has programs below `root` trust no authority of banger's any more: neither what was added, nor what the
/// distribution's own tool has made of it since, which has no marks.
pub(super) fn distrust(root: &Path) -> io::Result<()> {
    let mut authorities = Vec::new();
    for path in ANCHORS.map(|folder| root.join(folder).join(ANCHOR)) {
        match read_limited(&path, BUNDLE_LIMIT) {
            Ok(bytes) => authorities.push(String::from_utf8_lossy(&bytes).trim_end().to_owned()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        remove_file(&path)?;
    }
    let without = |text: &str| {
        let ours = authorities.iter().filter(|authority| !authority.is_empty());
        ours.fold(without_part(text), |text, authority| text.replace(&format!("{authority}\n"), ""))
    };
    for bundle in BUNDLES.map(|bundle| root.join(bundle)).iter().filter(|path| path.exists()) {
        change(bundle, without)?;
    }
    remove_links(&root.join(LINKS))
}

/// Links to the anchor, and those by its digest to them.
fn remove_links(folder: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    let stem = Path::new(ANCHOR).file_stem();
    for entry in entries {
        let path = entry?.path();
        if fs::read_link(&path).is_ok_and(|target| target.file_stem() == stem) {
            remove_file(&path)?;
        }
    }
    Ok(())
}

fn add(bundle: &Path, authority: &str) -> io::Result<()> {
    change(bundle, |text| with_part(text, authority))
}

fn change(bundle: &Path, change: impl Fn(&str) -> String) -> io::Result<()> {
    // Some are links to where a tool writes: what it leads to is changed, and stays what it leads to.
    let target = match bundle.canonicalize() {
        Ok(target) => target,
        Err(e) if e.kind() == io::ErrorKind::NotFound => bundle.to_owned(),
        Err(e) => return Err(e),
    };
    let before = match read_limited(&target, BUNDLE_LIMIT) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(e) => return Err(e),
    };
    let mode = fs::metadata(&target).map_or(0o644, |m| std::os::unix::fs::PermissionsExt::mode(&m.permissions()));
    let before = String::from_utf8_lossy(&before);
    let after = change(&before);
    if after == before { Ok(()) } else { replace(&target, after.as_bytes(), mode & 0o777) }
}

/// `bundle` with `authority` as the one part that is banger's.
fn with_part(bundle: &str, authority: &str) -> String {
    let others = without_part(bundle);
    let separator = if others.is_empty() || others.ends_with('\n') { "" } else { "\n" };
    format!("{others}{separator}{BEGIN}{authority}{END}")
}

fn without_part(bundle: &str) -> String {
    match (bundle.find(BEGIN), bundle.find(END)) {
        (Some(begin), Some(end)) if begin < end => format!("{}{}", &bundle[..begin], &bundle[end + END.len()..]),
        _ => bundle.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_keeps_what_it_has_and_holds_one_part() {
        let first = with_part("theirs", "ours\n");
        assert_eq!(first, format!("theirs\n{BEGIN}ours\n{END}"));
        assert_eq!(with_part(&format!("{first}more\n"), "new\n"), format!("theirs\nmore\n{BEGIN}new\n{END}"));
        // Half a part is somebody else's text.
        assert_eq!(with_part(END, "a\n"), format!("{END}{BEGIN}a\n{END}"));
    }

    #[test]
    fn a_bundle_is_made_where_there_is_none_and_links_stay_links() {
        let root = tempfile::tempdir().expect("a folder");
        let bundle = trust(root.path(), "ours\n").expect("trusted");
        assert_eq!(bundle, root.path().join(BUNDLES[0]));
        assert!(fs::read_to_string(&bundle).expect("read").contains("ours"));
        assert!(root.path().join(ANCHORS[0]).join(ANCHOR).exists());
        distrust(root.path()).expect("distrusted");
        assert_eq!(fs::read_to_string(&bundle).expect("read"), "");
        // As the distribution's tool leaves it.
        trust(root.path(), "ours\n").expect("trusted");
        fs::write(&bundle, "theirs\nours\nmore\n").expect("written");
        let link = |target: &str, name: &str| {
            std::os::unix::fs::symlink(target, root.path().join(LINKS).join(name)).expect("linked");
        };
        link("/usr/local/share/ca-certificates/banger-secrets.crt", "banger-secrets.pem");
        link("banger-secrets.pem", "0a1b2c3d.0");
        link("theirs.pem", "4e5f6071.0");
        distrust(root.path()).expect("distrusted");
        assert_eq!(fs::read_to_string(&bundle).expect("read"), "theirs\nmore\n");
        assert_eq!(fs::read_dir(root.path().join(LINKS)).expect("listed").count(), 2);
        assert!(!root.path().join(ANCHORS[0]).join(ANCHOR).exists());

        let root = tempfile::tempdir().expect("a folder");
        let (target, link) = (root.path().join("extracted.pem"), root.path().join(BUNDLES[1]));
        fs::create_dir_all(link.parent().expect("a folder")).expect("made");
        fs::create_dir_all(root.path().join(ANCHORS[1])).expect("made");
        fs::write(&target, "theirs\n").expect("written");
        std::os::unix::fs::symlink(&target, &link).expect("linked");
        assert_eq!(trust(root.path(), "ours\n").expect("trusted"), link);
        assert!(fs::symlink_metadata(&link).expect("there").is_symlink());
        assert!(fs::read_to_string(&target).expect("read").starts_with("theirs\n"));
        assert!(root.path().join(ANCHORS[1]).join(ANCHOR).exists() && !root.path().join(BUNDLES[0]).exists());
    }
}
