//! The way of a release from where it lies to the staging folder, and all that is refused on it.

use super::releases::{Releases, elf};
use super::server::{Server, ok, redirect, stated, status};
use crate::update::choose::{Choice, choose};
use crate::update::stage::{Staged, Staging};
use crate::update::{DownloadError, Fetcher, Key, KeyError, Origin, Place, Told, UpdateError, Wish};

const ARCH: &str = "x86_64";

/// Looks for `0.1.0`'s update and stages it.
fn staged(origin: &Origin) -> Result<(Staged, Staging, tempfile::TempDir), UpdateError> {
    let cache = tempfile::tempdir().expect("a folder");
    let manifest = origin.manifest()?;
    let running = "0.1.0".parse().expect("a version");
    let Choice::Go { release, .. } = choose(&manifest, running, Wish::default(), ARCH)? else { panic!("up to date") };
    let staging = Staging::begin(cache.path())?;
    let staged = origin.stage(release, ARCH, &staging, &mut |_| {})?;
    Ok((staged, staging, cache))
}

fn refused(releases: &Releases) -> String {
    staged(&releases.origin()).expect_err("refused").to_string()
}

fn releases() -> Releases {
    let mut releases = Releases::new();
    releases.add("0.1.0", &elf(b"one")).add("0.2.0", &elf(b"two"));
    releases
}

#[test]
fn a_signed_release_is_staged_for_root_alone_and_tells_how_far_it_is() {
    use std::os::unix::fs::PermissionsExt;
    let releases = releases();
    let origin = releases.origin();
    let (staged, staging, cache) = staged(&origin).expect("staged");
    assert_eq!(std::fs::read(&staged.path).expect("there"), elf(b"two"));
    assert_eq!(staged.version.to_string(), "0.2.0");
    let mode = |path: &std::path::Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!((mode(&cache.path().join("update")), mode(&staged.path)), (0o700, 0o755));
    staging.end().expect("removed");
    assert!(!cache.path().exists(), "an empty cache goes, too");
    let (manifest, staging) = (origin.manifest().expect("read"), Staging::begin(cache.path()).expect("anew"));
    let mut last = None;
    let mut tell = |told: Told| {
        if let Told::Bytes { done, total } = told {
            last = Some((done, total));
        }
    };
    origin.stage(&manifest.releases[1], ARCH, &staging, &mut tell).expect("staged");
    let size = manifest.releases[1].tarballs[ARCH].size;
    assert_eq!(last, Some((size, size)));
}

#[test]
fn a_staging_folder_is_made_anew_and_a_link_in_its_place_is_not_followed() {
    let (cache, elsewhere) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    std::fs::write(elsewhere.path().join("kept"), "x").expect("written");
    std::os::unix::fs::symlink(elsewhere.path(), cache.path().join("update")).expect("linked");
    let staging = Staging::begin(cache.path()).expect("begun");
    assert!(
        elsewhere.path().join("kept").exists()
            && cache.path().join("update").symlink_metadata().expect("there").is_dir()
    );
    std::fs::write(cache.path().join("update/banger"), "old").expect("written");
    drop(staging);
    Staging::begin(cache.path()).expect("begun");
    assert!(!cache.path().join("update/banger").exists());
}

#[test]
fn what_is_not_signed_by_the_key_is_not_used() {
    for name in ["manifest.json", "v0.2.0/SHA256SUMS"] {
        let releases = releases();
        let content = std::fs::read(releases.path(name)).expect("read");
        releases.write(name, &[&content[..], b" "].concat());
        assert!(refused(&releases).contains("is not signed by the key"), "{name}");
        releases.write(name, &content);
        releases.write(&format!("{name}.sig"), Releases::new().signer.sign(&content).as_bytes());
        assert!(refused(&releases).contains("is not signed by the key"), "{name}: another's");
        releases.write(&format!("{name}.sig"), &[b'A'; 1025]);
        assert!(refused(&releases).contains("more than 1024 bytes"), "{name}");
        releases.write(&format!("{name}.sig"), b"not base64");
        assert!(refused(&releases).contains("base64"), "{name}");
        std::fs::remove_file(releases.path(&format!("{name}.sig"))).expect("removed");
        assert!(refused(&releases).contains("cannot open"), "{name}");
    }
}

#[test]
fn the_sums_of_an_old_release_are_none_of_a_new_one() {
    let releases = releases();
    for suffix in ["", ".sig"] {
        let old = std::fs::read(releases.path(&format!("v0.1.0/SHA256SUMS{suffix}"))).expect("read");
        releases.write(&format!("v0.2.0/SHA256SUMS{suffix}"), &old);
    }
    assert!(refused(&releases).contains("does not name banger-v0.2.0-x86_64.tar.gz"));
}

#[test]
fn another_tarball_is_not_used() {
    let name = "v0.2.0/banger-v0.2.0-x86_64.tar.gz";
    let releases = releases();
    let archive = std::fs::read(releases.path(name)).expect("read");
    for at in [0, archive.len() / 2, archive.len() - 1] {
        let mut changed = archive.clone();
        changed[at] ^= 1;
        releases.write(name, &changed);
        assert!(refused(&releases).contains("as its release says"), "byte {at}");
    }
    releases.write(name, &archive[..archive.len() - 1]);
    assert!(refused(&releases).contains("was cut off"));
    releases.write(name, &[&archive[..], b"x"].concat());
    assert!(refused(&releases).contains("more than"));
}

#[test]
fn what_is_signed_and_no_release_all_the_same_is_not_used() {
    let mut releases = Releases::new();
    releases.add("0.2.0", b"#!/bin/sh\n");
    assert!(refused(&releases).contains("not for this machine"));
    let releases = self::releases();
    releases.sign("manifest.json", b"{\"schema\": 7}");
    assert!(refused(&releases).contains("schema 7"));
    releases.sign("manifest.json", &vec![b' '; (1 << 20) + 1]);
    assert!(refused(&releases).contains("more than 1048576 bytes"));
}

#[test]
fn the_placeholder_refuses_and_says_so() {
    if let Err(error) = Key::of_this_build() {
        assert_eq!(error, KeyError::Placeholder);
        assert!(error.to_string().contains("placeholder"));
    }
}

/// A server with the files of `releases`.
fn served(releases: &Releases, before: impl Fn(&str, usize) -> Option<Vec<u8>> + Send + Sync + 'static) -> Server {
    let folder = releases.folder.path().to_owned();
    Server::start(move |path, count| {
        let file = || std::fs::read(folder.join(path.trim_start_matches('/')));
        before(path, count).unwrap_or_else(|| file().map_or_else(|_| status(404), |content| ok(&content)))
    })
}

fn from(server: &Server, releases: &Releases) -> Result<Staged, UpdateError> {
    let manifest = Place::parse(&format!("http://{}/manifest.json", server.address), true).expect("an address");
    staged(&Origin { fetcher: Fetcher::impatient(), manifest, key: releases.signer.key() }).map(|(staged, ..)| staged)
}

#[test]
fn a_server_that_has_no_time_or_hangs_up_is_asked_again() {
    let releases = releases();
    let whole = ok(&std::fs::read(releases.path("v0.2.0/banger-v0.2.0-x86_64.tar.gz")).expect("read"));
    let server = served(&releases, move |path, count| match count {
        0 => Some(status(503)),
        3 => Some(stated(200, b"ab")),
        6 => Some(whole[..whole.len() - 5].to_vec()),
        _ if path.ends_with("/none") => Some(status(404)),
        _ => None,
    });
    from(&server, &releases).expect("staged in the end");
    assert_eq!(server.asked.load(std::sync::atomic::Ordering::Acquire), 8);
    let busy = served(&releases, |_, _| Some(status(503)));
    assert!(from(&busy, &releases).expect_err("busy").to_string().contains("answered 503"));
    let gone = served(&releases, |path, _| path.ends_with(".sig").then(|| status(404)));
    assert!(
        from(&gone, &releases).expect_err("gone").to_string().contains("answered 404 when asked for the signature")
    );
    assert_eq!(gone.asked.load(std::sync::atomic::Ordering::Acquire), 2, "what is not there is asked for once");
}

#[test]
fn a_document_without_end_is_refused_whatever_its_length_is_said_to_be() {
    let releases = releases();
    let endless = [b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec(), vec![b' '; 2 << 20]].concat();
    for answer in [stated(2 << 20, b""), endless] {
        let server = served(&releases, move |_, _| Some(answer.clone()));
        assert!(from(&server, &releases).expect_err("large").to_string().contains("more than 1048576 bytes"));
    }
}

#[test]
fn redirects_stay_with_tls_or_on_this_machine() {
    let releases = releases();
    let target = served(&releases, |_, _| None);
    let there = target.address.clone();
    let server = served(&releases, move |path, _| Some(redirect(&format!("http://{there}{path}"))));
    from(&server, &releases).expect("on this machine");
    for (to, word) in [
        ("http://releases.example/x", "without TLS"),
        ("ftp://127.0.0.1/x", "neither https nor http"),
        ("file:///etc/passwd", "neither https nor http"),
        ("/again", "again and again"),
    ] {
        let server = served(&releases, move |_, _| Some(redirect(to)));
        let error = from(&server, &releases).expect_err(to).to_string();
        assert!(error.contains(word), "{to}: {error}");
    }
}

#[test]
fn only_tls_unless_somebody_tries_on_this_machine() {
    for (address, local, fine) in [
        ("https://releases.example/manifest.json", false, true),
        ("http://releases.example/manifest.json", false, false),
        ("http://releases.example/manifest.json", true, false),
        ("http://127.0.0.1:1/manifest.json", false, false),
        ("http://127.0.0.1:1/manifest.json", true, true),
        ("file:///srv/manifest.json", false, false),
        ("file:///srv/manifest.json", true, true),
        ("file://srv/manifest.json", true, false),
        ("ftp://releases.example/", true, false),
        ("/srv/manifest.json", true, false),
    ] {
        assert_eq!(Place::parse(address, local).is_ok(), fine, "{address} {local}");
    }
    let web = Place::parse("https://releases.example/a/manifest.json", false).expect("an address");
    assert_eq!(
        web.join("v1/SHA256SUMS", false).expect("below"),
        Place::parse("https://releases.example/a/v1/SHA256SUMS", false).expect("an address")
    );
    for away in ["http://releases.example/x", "file:///etc/passwd", "http://127.0.0.1/x"] {
        web.join(away, false).expect_err(away);
    }
    let file = Place::File("/srv/manifest.json".into());
    assert_eq!(file.join("v1/x", true).expect("below"), Place::File("/srv/v1/x".into()));
    for away in ["../x", "/etc/passwd", "v1/../../x", "./x/../.."] {
        assert!(matches!(file.join(away, true), Err(DownloadError::Address { .. })), "{away}");
    }
}
