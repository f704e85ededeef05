//! `banger mcp`, driven by the protocol's official SDK for Python (`mcp_client.py`).

use std::path::PathBuf;
use std::time::Duration;

use crate::base::{cache, outside};
use crate::census::wait_for_equality;
use crate::runner::skip;
use crate::world::World;

/// What the SDK does with it.
const DRIVER: &str = include_str!("mcp_client.py");

/// The SDK.
const SDK: &str = "mcp>=2.3,<3";

/// A repository with an edit and an untracked file, and ways out of the folder that may be read.
const SOURCES: &str = r#"set -e
mkdir src src-not && cd src
git init -q -b trunk repo && cd repo
git config user.name P && git config user.email p@example.org
printf 'one\ntwo\n' >file && git add . && git commit -q -m one
echo edited >>file && echo secret >untracked
cd .. && cp -r repo ../src-not/repo && ln -s ../src-not/repo way-out
mkdir linked && echo 'gitdir: ../../src-not/repo/.git' >linked/.git"#;

/// Seconds for all of it: half a dozen VMs in software.
const LONG: u64 = 400;

/// The SDK does everything with it, and neither a farewell nor a SIGKILL leaves anything behind.
pub fn serves_models(world: &World) {
    let python = python(world);
    world.tool("sh", &["-c", SOURCES]).output().ok();
    let driver = world.person().join("mcp_client.py");
    std::fs::write(&driver, DRIVER).expect("the driver can be written");
    world.start();
    world.banger(&["vm", "create", "--name", "mine", "--no-start"]).output().ok();
    let before = world.census();
    let (home, sources) = (world.home(), world.person().join("src"));
    let words = [driver.as_path(), world.binary(), home.as_path(), sources.as_path()];
    let words: Vec<&str> = words.iter().map(|path| path.to_str().expect("a plain path")).collect();
    let driven = world.tool(&python, &words).limit(LONG).output().ok();
    println!("{}", driven.text());
    wait_for_equality(world, &before, Duration::from_secs(30));
    assert_eq!(world.banger(&["vm", "list", "-q"]).output().ok().text(), "mine");
}

/// A Python with the SDK, made once; from the index that this host is configured for.
fn python(world: &World) -> PathBuf {
    let folder = cache().join("mcp-sdk");
    let python = folder.join("bin/python");
    if folder.join("made").exists() {
        return python;
    }
    let script = r#"rm -rf "$1" && /usr/bin/python3 -m venv "$1" && "$1/bin/pip" install --quiet --disable-pip-version-check "$2" && touch "$1/made""#;
    let mut person = world.clone();
    let is_about_pip =
        |name: &str| name == "HOME" || name.starts_with("PIP_") || name.ends_with("_proxy") || name == "SSL_CERT_FILE";
    for (name, value) in std::env::vars().filter(|(name, _)| is_about_pip(name)) {
        person = person.with(&name, &value);
    }
    std::fs::create_dir_all(cache()).expect("the cache's folder can be created");
    let path = folder.to_str().expect("a plain path");
    let made = outside(&person, &["sh", "-c", script, "sh", path, SDK]).limit(300).output();
    if made.code != 0 {
        skip(&format!(
            "the SDK for Python cannot be installed (apt-get install python3-venv): {}",
            made.stderr.trim().replace('\n', "; ")
        ));
    }
    python
}
