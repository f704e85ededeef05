//! `release/publish` from its first release to its third, into a folder, with a throw-away key.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::command::Output;
use crate::packages::{built, check_out, commit, git, papers, text};
use crate::world::World;

/// A place to publish to, a checkout to publish from, a pair of keys.
#[derive(Clone)]
struct Press {
    world: World,
    checkout: PathBuf,
    site: PathBuf,
    key: PathBuf,
    built: PathBuf,
}

/// Publishes what is right, and nothing else.
pub fn publishes_what_is_right(world: &World) {
    let press = Press::set(world);
    refuses_before_anything_is_made(&press);
    press.publish(&["--first", "--dry-run"]).ok();
    press.has_published(&[]);
    press.publish(&["--first"]).ok();
    let tag = format!("v{}", env!("CARGO_PKG_VERSION"));
    press.has_published(&[&tag]);
    press.verify().ok();
    let again = press.publish(&[]).ok();
    assert!(again.stderr.contains("published already, and is what was built here"), "{}", again.stderr);
    press.publish(&["--first"]).refuses(&["there is a manifest already"]);

    // What follows needs no real binary.
    press.pretend("9.9.9-rc.1");
    press.publish(&[]).ok();
    press.pretend("9.9.9");
    press.publish(&[]).ok();
    press.has_published(&["v9.9.9", "v9.9.9-rc.1", &tag]);
    std::fs::write(press.checkout.join("README.md"), "something else\n").expect("README.md");
    commit(world, &press.checkout, "v9.9.9");
    press.publish(&[]).refuses(&["v9.9.9 is published already, with other bytes"]);
    let stranger = Press { key: key_pair(world, "stranger"), ..press.clone() };
    stranger.publish(&[]).refuses(&["is not signed by"]);
    press.has_published(&["v9.9.9", "v9.9.9-rc.1", &tag]);
    tampering_is_seen(&press);
}

fn refuses_before_anything_is_made(press: &Press) {
    let (world, checkout) = (&press.world, &press.checkout);
    let placeholder = world.folder().join("placeholder.pub");
    std::fs::write(&placeholder, "a PLACEHOLDER, and no key\n").expect("a file");
    let rehearse = |key: &Path| press.call(&["--first", "--rehearse", &text(key)]);
    rehearse(&placeholder).refuses(&["is a placeholder", "release/RELEASES.md"]);
    rehearse(&world.folder().join("none.pub")).refuses(&["there is no public key"]);
    let web = world.with("BANGER_MANIFEST_URL", "https://a.example/manifest.json");
    Press { world: web, ..press.clone() }.publish(&["--first"]).refuses(&["a rehearsal publishes to a folder"]);
    mode(&press.key, 0o644);
    press.publish(&["--first"]).refuses(&["others may read the key", "chmod 600"]);
    mode(&press.key, 0o600);
    let stranger = key_pair(world, "other");
    let mixed = press.world.with("BANGER_SIGN_KEY", &text(&stranger));
    Press { world: mixed, ..press.clone() }.call_with_key(&["--first"]).refuses(&["no pair"]);

    std::fs::write(checkout.join("stray"), "").expect("a file");
    press.publish(&["--first"]).refuses(&["the work tree has changes"]);
    std::fs::remove_file(checkout.join("stray")).expect("it can be removed");
    let tag = format!("v{}", env!("CARGO_PKG_VERSION"));
    git(world, checkout, &["tag", "--delete", &tag]);
    press.publish(&["--first"]).refuses(&["is not the one tagged"]);
    git(world, checkout, &["tag", &tag]);
    press.publish(&[]).refuses(&["cannot be read", "--first"]);
    press.has_published(&[]);
}

fn tampering_is_seen(press: &Press) {
    let release = press.site.join("v9.9.9");
    let tarball = release.join("banger-v9.9.9-x86_64.tar.gz");
    for (file, says) in [
        (tarball, "is not what was signed"),
        (release.join("SHA256SUMS"), "is not signed by"),
        (release.join("SHA256SUMS.sig"), "is not signed by"),
        (press.site.join("manifest.json"), "is not signed by"),
    ] {
        let right = std::fs::read(&file).expect("a file of the release");
        let mut wrong = right.clone();
        wrong[right.len() / 2] ^= 1;
        std::fs::write(&file, wrong).expect("it can be written");
        press.verify().refuses(&[says]);
        std::fs::write(&file, right).expect("it can be written");
    }
    let stray = release.join("stray");
    std::fs::write(&stray, "").expect("a file");
    press.verify().refuses(&["is not among what was signed"]);
    std::fs::remove_file(stray).expect("it can be removed");
    press.verify().ok();
}

impl Press {
    fn set(world: &World) -> Self {
        let papers = papers();
        let [checkout, site] = ["checkout", "site"].map(|name| world.folder().join(name));
        std::fs::create_dir(&site).expect("a folder");
        check_out(world, &checkout);
        let upload = world.folder().join("upload");
        let lines = format!("#!/bin/sh\nmkdir -p {0}/$2 && cp -R $1/. {0}/$2/\n", text(&site));
        std::fs::write(&upload, lines).expect("a script");
        mode(&upload, 0o755);
        let world = world
            .with("BANGER_PAPERS", &text(&papers))
            .with("BANGER_UPLOAD_COMMAND", &text(&upload))
            .with("BANGER_MANIFEST_URL", &format!("file://{}/manifest.json", text(&site)));
        let (key, built) = (key_pair(&world, "key"), built(&world));
        Self { world, checkout, site, key, built }
    }

    /// A checkout and a binary of another version.
    fn pretend(&self, version: &str) {
        let change = |name: &str, change: &dyn Fn(String) -> String| {
            let file = self.checkout.join(name);
            std::fs::write(&file, change(std::fs::read_to_string(&file).expect(name))).expect(name);
        };
        change("Cargo.toml", &|told| {
            let (before, rest) = told.split_once("version = \"").expect("a version");
            let (_, after) = rest.split_once('"').expect("its end");
            format!("{before}version = \"{version}\"{after}")
        });
        change("CHANGELOG.md", &|told| format!("## {version} (2026-01-03)\n\n- New.\n\n{told}"));
        let binary = self.built.join("x86_64/banger");
        std::fs::write(&binary, format!("#!/bin/sh\necho 'banger v{version} (pretended)'\n")).expect("a script");
        commit(&self.world, &self.checkout, &format!("v{version}"));
    }

    fn publish(&self, flags: &[&str]) -> Output {
        let world = self.world.with("BANGER_SIGN_KEY", &text(&self.key));
        Self { world, ..self.clone() }.call_with_key(flags)
    }

    fn call_with_key(&self, flags: &[&str]) -> Output {
        let public = text(&self.key.with_extension("pub"));
        self.call(&[flags, &["--rehearse", &public]].concat())
    }

    fn call(&self, flags: &[&str]) -> Output {
        let (built, out) = (text(&self.built), text(&self.world.folder().join("out")));
        let arguments = [flags, &["--built", &built, "--out", &out, "x86_64"]].concat();
        self.world.tool(self.checkout.join("release/publish"), &arguments).limit(180).output()
    }

    fn verify(&self) -> Output {
        let public = text(&self.key.with_extension("pub"));
        self.world.tool(self.checkout.join("release/verify"), &[&text(&self.site), &public]).output()
    }

    /// These releases are published, in this order, and no other file is there.
    fn has_published(&self, tags: &[&str]) {
        let mut there: Vec<String> = std::fs::read_dir(&self.site)
            .expect("the site")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        there.sort();
        if tags.is_empty() {
            assert!(there.is_empty(), "{there:?}");
            return;
        }
        let mut expected: Vec<&str> = [tags, &["manifest.json", "manifest.json.sig"]].concat();
        expected.sort_unstable();
        assert_eq!(there, expected);
        let manifest = std::fs::read(self.site.join("manifest.json")).expect("the manifest");
        let manifest: serde_json::Value = serde_json::from_slice(&manifest).expect("JSON");
        let releases = manifest["releases"].as_array().expect("releases");
        let versions: Vec<&str> = releases.iter().filter_map(|r| r["version"].as_str()).collect();
        assert_eq!(versions, tags);
        for release in releases {
            let tarball = &release["tarballs"]["x86_64"];
            let file = self.site.join(tarball["url"].as_str().expect("an address"));
            assert_eq!(tarball["size"].as_u64(), Some(std::fs::metadata(&file).expect("the tarball").len()));
        }
    }
}

/// Makes `name.key`, private, and `name.pub`; the former's path.
fn key_pair(world: &World, name: &str) -> PathBuf {
    let key = world.folder().join(format!("{name}.key"));
    let public = text(&key.with_extension("pub"));
    let make = ["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", &text(&key)];
    world.tool("openssl", &make).output().ok();
    mode(&key, 0o600);
    world.tool("openssl", &["ec", "-in", &text(&key), "-pubout", "-out", &public]).output().ok();
    key
}

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("the mode can be set");
}
