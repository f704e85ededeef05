//! Updates of a system install on a host that systemd runs, with a VM that runs through all of them.
//!
//! A newer release is the binary under test with another version in it, and a broken one is that with another path in
//! it, so that its daemon, its helper or its doctor fails for real.

use std::path::{Path, PathBuf};

use crate::command::{Output, Run};
use crate::container::{Host, can_be_booted};
use crate::speaks::are_as_the_schema_says;
use crate::world::World;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Where a new release's daemon, helper, doctor or store go wrong: what is replaced by what, of the same length.
const BROKEN: [(&str, &str, &str); 4] = [
    ("its daemon exits at start", "bangerd.lock", "/dev/null/xx"),
    ("its helper exits at start", "bangerd-root.lock", "no-folder/no.lock"),
    ("its doctor fails", "/dev/net/tun", "/dev/net/tux"),
    ("it cannot use the store", STORE.0, STORE.1),
];

/// The first migration's name, and one that no store has.
const STORE: (&str, &str) = ("0001-initial", "9001-initial");

/// All sides of all steps.
const STEPS: [&str; 7] = ["lay", "keep", "swap", "units", "restart", "doctor", "settle"];

/// Everything that an update may meet.
pub fn with_a_vm_through_all_of_them(world: &World) {
    can_be_booted();
    let host = Host::boot_without_banger(world);
    host.sh("useradd --create-home --shell /bin/bash alice").output().ok();
    host.give_base("alice");
    host.banger(&["system", "install", "--owner", "alice"]).limit(60).output().ok();
    let releases = Releases::of(world, &host);
    let vm = host.by_installed(&["vm", "run", "--name", "box", "--", "cat", BOOT_ID]).limit(120).output().ok().text();
    let scene = Scene { world, host: &host, releases: &releases, old: releases.own.clone(), vm };
    scene.before_anything_changes();
    scene.broken_releases();
    scene.killed_at_each_step();
    scene.for_real();
}

struct Scene<'s> {
    world: &'s World,
    host: &'s Host<'s>,
    releases: &'s Releases,
    /// The version of the binary under test.
    old: String,
    /// The VM's boot.
    vm: String,
}

impl Scene<'_> {
    fn update(&self, words: &[&str]) -> Run {
        self.update_from(&self.releases.manifest(), words)
    }

    fn update_from(&self, manifest: &Path, words: &[&str]) -> Run {
        self.host.sh(&self.command(manifest, words)).limit(240)
    }

    fn command(&self, manifest: &Path, words: &[&str]) -> String {
        let (key, manifest) = (self.releases.folder.join("key.pub"), manifest.display());
        format!(
            "exec /usr/local/bin/banger update --manifest-url file://{manifest} --pubkey-file {} {}",
            key.display(),
            words.join(" ")
        )
    }

    /// The installed banger answers as `version`, its daemon too, and the VM has not noticed.
    #[track_caller]
    fn is_whole_at(&self, version: &str) {
        let said = self.host.by_installed(&["version"]).output().ok().text();
        assert!(said.starts_with(&format!("banger v{version} ")), "{said} instead of {version}");
        let status = self.host.by_installed(&["system", "status", "--json"]).output().ok().json();
        for process in ["daemon", "helper"] {
            let build = status[process].as_str().unwrap_or_default();
            assert!(build.starts_with(version), "{process} is {build} instead of {version}");
        }
        assert_eq!(status["version"], version, "the record is another version's");
        self.vm_is_the_same();
    }

    #[track_caller]
    fn vm_is_the_same(&self) {
        let id = self.host.by_installed(&["vm", "exec", "box", "--", "cat", BOOT_ID]).limit(60).output().ok().text();
        assert_eq!(id, self.vm, "the VM was restarted");
    }

    #[track_caller]
    fn nothing_is_left(&self) {
        let left = "ls -A /usr/local/bin | grep -v -x -e banger -e bangerd -e bangerd-root; ls -A /etc/banger | grep -v install.toml";
        let left = self.host.sh(&format!("({left}) || true")).output().ok().text();
        assert!(left.lines().all(|name| name.ends_with(".lock")), "left behind: {left}");
    }

    /// What is refused, and what only looks.
    fn before_anything_changes(&self) {
        let Self { host, releases, old, .. } = self;
        releases.publish(&[("0.2.0", releases.binary("0.2.0", None))]);
        let check = self.update(&["--check"]).output().ok();
        assert!(check.text().contains("0.2.0") && check.text().lines().count() == 1, "{}", check.text());
        println!("| updated | `--check` | {} |", check.text());
        let manifest = releases.manifest();
        let as_alice = self.command(&manifest, &[]).replace("exec ", "");
        let words = ["--reuid", "alice", "--regid", "alice", "--init-groups", "sh", "-ec", &as_alice];
        host.run("setpriv", &words).output().ends(5).refuses(&["root"]);
        self.update(&["--to", "v9.9.9"]).output().refuses(&["9.9.9"]);
        let dry = self.update(&["--dry-run"]).output().ok();
        assert!(dry.text().contains("would be replaced"), "{}", dry.text());
        println!("| updated | `--dry-run` | {} |", dry.text());
        let status = host.by_installed(&["system", "status", "--json"]).output().ok().json();
        let [check, dry] = ["--check", "--dry-run"].map(|flag| self.update(&[flag, "--json"]).output().ok().json());
        let seen = [("system status", status), ("update --check", check), ("update --dry-run", dry)];
        are_as_the_schema_says(self.world, seen);
        self.refused("unsigned", "the manifest is not signed by the key", |r| r.spoil("manifest.json.sig"));
        self.refused("swapped sums", "the sums are another key's", |r| r.spoil("v0.2.0/SHA256SUMS.sig"));
        self.refused("tampered", "the tarball has one byte more", |r| {
            r.append(&format!("v0.2.0/{}", tarball("0.2.0")));
        });
        self.refused("cut", "the tarball ends early", |r| r.cut(&format!("v0.2.0/{}", tarball("0.2.0"))));
        self.full_disk("the cache is full", "/var/cache/banger-root");
        self.full_disk("the folder of programs is full", "/usr/local/bin");
        self.while_something_runs();
        self.is_whole_at(old);
    }

    /// `spoil` does something to a good release.
    fn refused(&self, what: &str, text: &str, spoil: impl Fn(&Releases)) {
        self.releases.publish(&[("0.2.0", self.releases.binary("0.2.0", None))]);
        spoil(self.releases);
        let refused = self.update(&[]).output();
        assert!(refused.code != 0, "{what}: it was installed");
        self.is_whole_at(&self.old);
        self.nothing_is_left();
        println!("| updated | {text} | {} |", first_line(&refused));
        self.releases.publish(&[("0.2.0", self.releases.binary("0.2.0", None))]);
    }

    fn full_disk(&self, what: &str, folder: &str) {
        let command = self.command(&self.releases.manifest(), &[]);
        // In a mount namespace of its own; what is in the folder is there, on a filesystem that has no room for more.
        let script = format!(
            "mkdir -p {folder} && cp -a {folder}/. /run/kept 2>/dev/null || mkdir -p /run/kept && cp -a {folder}/. /run/kept
             mount -t tmpfs -o size=$(($(du -sk /run/kept | cut -f 1) + 200))k,mode=755 full {folder}
             cp -a /run/kept/. {folder}; rm -rf /run/kept
             {command}"
        );
        let full = self.host.run("unshare", &["--mount", "--propagation", "private", "sh", "-c", &script]).limit(120);
        let full = full.output();
        assert!(full.code != 0, "{what}: it was installed");
        self.is_whole_at(&self.old);
        println!("| updated | {what} | {} |", first_line(&full));
    }

    /// A VM that is being made is an operation that somebody waits for.
    fn while_something_runs(&self) {
        let making = self.host.by_installed(&["vm", "create", "--name", "other"]).limit(120).spawn();
        // Its disk, its start.
        making.wait_for_lines(2);
        let refused = self.update(&[]).output().ends(4).refuses(&["--force"]);
        making.wait().ok();
        self.host.by_installed(&["vm", "delete", "other"]).limit(60).output().ok();
        println!("| updated | while a VM is made | {} |", first_line(&refused));
        self.is_whole_at(&self.old);
    }

    /// Each is rolled back, or never begun; the old version answers.
    fn broken_releases(&self) {
        for (what, good, bad) in BROKEN {
            self.releases.publish(&[("0.2.0", self.releases.binary("0.2.0", Some((good, bad))))]);
            let began = std::time::Instant::now();
            let broken = self.update(&[]).output();
            assert!(broken.code != 0, "{what}: it is installed");
            let took = began.elapsed().as_secs_f32();
            self.is_whole_at(&self.old);
            self.nothing_is_left();
            println!("| updated | a release: {what} | {}; back in {took:.1} s |", first_line(&broken));
        }
    }

    /// kill -9 before and after each step: what is there is old or new, and the next update brings it to an end.
    fn killed_at_each_step(&self) {
        self.releases.publish(&[("0.2.0", self.releases.binary("0.2.0", None))]);
        let mut seen = Vec::new();
        for step in STEPS {
            for side in ["before", "after"] {
                seen.push(self.killed_at(step, side));
                println!("| updated | kill -9 | {} |", seen[seen.len() - 1]);
            }
        }
        println!("| updated | kill -9 of the updater | {} points, each time one whole banger |", seen.len());
    }

    fn killed_at(&self, step: &str, side: &str) -> String {
        let command = self.command(&self.releases.manifest(), &[]);
        // It waits at the step until the other end is opened and closed; it is killed instead.
        let script = format!(
            "rm -f /run/point; mkfifo /run/point
             BANGER_FAULT={step}:{side}:/run/point sh -c '{command}' & pid=$!
             timeout 200 sh -c ': >/run/point.opened; exec 3>/run/point; kill -9 '$pid
             wait $pid || true; rm -f /run/point /run/point.opened"
        );
        self.host.sh(&script).limit(240).output();
        let version = self.host.by_installed(&["version"]).output().ok().text();
        let is_new = version.starts_with("banger v0.2.0 ");
        assert!(is_new || version.starts_with(&format!("banger v{} ", self.old)), "{step} {side}: {version}");
        self.vm_is_the_same();
        // Whatever it was: the next one brings it to its end first, and this one then finds no such version.
        self.update(&["--to", "v9.9.9"]).output().refuses(&["9.9.9"]);
        let settled = self.host.by_installed(&["version"]).output().ok().text();
        let is_settled_new = settled.starts_with("banger v0.2.0 ");
        self.is_whole_at(if is_settled_new { "0.2.0" } else { &self.old });
        self.nothing_is_left();
        if is_settled_new {
            self.host.banger(&["system", "install"]).limit(120).output().ok();
            self.is_whole_at(&self.old);
        }
        let name = |is_new: bool| if is_new { "new" } else { "old" };
        format!("{step} {side}: {}, then {}", name(is_new), name(is_settled_new))
    }

    /// A command in a guest goes on through it.
    fn for_real(&self) {
        self.releases.publish(&[("0.2.0", self.releases.binary("0.2.0", None))]);
        let long = "echo begun; sleep 20; echo done; exit 42";
        let running =
            self.host.by_installed(&["vm", "run", "--rm", "--name", "long", "--", "sh", "-c", long]).limit(180);
        let running = running.spawn();
        running.wait_for_output("begun");
        let began = std::time::Instant::now();
        let updated = self.update(&[]).output().ok();
        println!("| updated | for real | {}, {:.1} s |", last_line(&updated), began.elapsed().as_secs_f32());
        self.is_whole_at("0.2.0");
        self.nothing_is_left();
        let ended = running.wait();
        assert_eq!((ended.code, ended.text().as_str()), (42, "begun\ndone"), "{}", ended.stderr);
        println!("| updated | `vm run --rm -- …` through it | its output, exit code 42 |");
        let again = self.update(&[]).output().ok();
        assert!(again.stderr.contains("installed already"), "{}", again.stderr);
        self.releases.publish(&[
            ("0.2.0", self.releases.binary("0.2.0", None)),
            (&self.old, self.releases.binary(&self.old, None)),
        ]);
        let older = self.update(&["--to", &format!("v{}", self.old)]).output();
        assert!(older.code != 0 && older.stderr.contains("--force"), "{}", older.stderr);
        self.is_whole_at("0.2.0");
        self.update(&["--to", &format!("v{}", self.old), "--force"]).output().ok();
        self.is_whole_at(&self.old);
        println!("| updated | back with `--to` and `--force` alone | same boot id after all of it |");
    }
}

fn first_line(output: &Output) -> String {
    let line = output.stderr.lines().find(|line| line.starts_with("banger: ")).unwrap_or_default();
    line.trim_start_matches("banger: ").chars().take(120).collect()
}

fn last_line(output: &Output) -> String {
    output.stderr.lines().last().unwrap_or_default().to_owned()
}

fn tarball(version: &str) -> String {
    format!("banger-v{version}-x86_64.tar.gz")
}

/// A folder of releases that a throw-away key has signed.
struct Releases {
    folder: PathBuf,
    bytes: Vec<u8>,
    own: String,
}

impl Releases {
    fn of(world: &World, host: &Host<'_>) -> Self {
        let folder = world.folder().join("releases");
        std::fs::create_dir(&folder).expect("the folder can be created");
        let said = host.banger(&["version", "--json"]).output().ok().json();
        let own = said["version"].as_str().expect("a version").to_owned();
        let releases = Self { folder, bytes: std::fs::read(world.binary()).expect("the binary can be read"), own };
        releases
            .sh("openssl ecparam -name prime256v1 -genkey -noout -out key && openssl ec -in key -pubout -out key.pub");
        releases
    }

    fn sh(&self, script: &str) {
        let mut command = std::process::Command::new("sh");
        command.args(["-ec", script]).current_dir(&self.folder);
        Run::new(command).limit(60).output().ok();
    }

    fn manifest(&self) -> PathBuf {
        self.folder.join("manifest.json")
    }

    /// The binary under test as `version`, with `broken` replaced.
    fn binary(&self, version: &str, broken: Option<(&str, &str)>) -> Vec<u8> {
        let renamed = replaced(&self.bytes, self.own.as_bytes(), version.as_bytes());
        match broken {
            Some((good, bad)) => replaced(&renamed, good.as_bytes(), bad.as_bytes()),
            None => renamed,
        }
    }

    fn publish(&self, releases: &[(&str, Vec<u8>)]) {
        let mut entries = Vec::new();
        for (version, binary) in releases {
            let (folder, name) = (self.folder.join(format!("v{version}")), tarball(version));
            std::fs::create_dir_all(folder.join("content")).expect("the folder can be created");
            std::fs::write(folder.join("content/banger"), binary).expect("the binary can be written");
            self.sh(&format!(
                "cd v{version}; chmod 755 content/banger; tar -C content -czf {name} banger; sha256sum {name} >SHA256SUMS
                 openssl dgst -sha256 -sign ../key SHA256SUMS | openssl base64 -A >SHA256SUMS.sig"
            ));
            let size = std::fs::metadata(folder.join(&name)).expect("a tarball").len();
            entries.push(serde_json::json!({
                "version": version, "date": "2026-01-01", "sums": format!("v{version}/SHA256SUMS"),
                "tarballs": { "x86_64": { "url": format!("v{version}/{name}"), "size": size } },
            }));
        }
        let manifest = serde_json::json!({ "schema": 1, "releases": entries }).to_string();
        std::fs::write(self.manifest(), manifest).expect("the manifest can be written");
        self.sh("openssl dgst -sha256 -sign key manifest.json | openssl base64 -A >manifest.json.sig");
    }

    /// A signature by another key.
    fn spoil(&self, signature: &str) {
        let signed = signature.trim_end_matches(".sig");
        self.sh(&format!(
            "openssl ecparam -name prime256v1 -genkey -noout -out other
             openssl dgst -sha256 -sign other {signed} | openssl base64 -A >{signature}"
        ));
    }

    fn append(&self, name: &str) {
        self.sh(&format!("printf x >>{name}"));
    }

    fn cut(&self, name: &str) {
        self.sh(&format!("truncate -s -1000 {name}"));
    }
}

/// `bytes` with each `from` as `to`, which is as long; there must be one.
fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = bytes.to_vec();
    if from == to {
        return bytes;
    }
    let mut found = 0;
    let mut at = 0;
    while let Some(next) = bytes[at..].windows(from.len()).position(|window| window == from) {
        bytes[at + next..at + next + from.len()].copy_from_slice(to);
        (at, found) = (at + next + from.len(), found + 1);
    }
    assert!(found > 0, "{} is not in the binary", String::from_utf8_lossy(from));
    bytes
}
