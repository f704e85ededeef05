//! Secrets that stay out of the guest: what is sent with them arrives with them, and the guest never has them.

use std::path::Path;
use std::process::{Command, Stdio};

use base64ct::{Base64, Encoding};

use crate::command::Run;
use crate::daemons::lose_both;
use crate::exec::BOOT;
use crate::flows;
use crate::internet::{Entry, Internet, SITES};
use crate::site::{Authority, Site};
use crate::world::World;

/// The secret. Its like is looked for; in this program's own memory it may be.
const VALUE: &str = "ghx_T0kQ9vZrW3sLm8NbXcYpAe5UdHf2JgKi";

/// What looks for it.
const SCAN: &str = include_str!("scan.pl");

/// The site trusts nobody without the secret; the guest has a placeholder; in between it is swapped.
pub fn stay_out_of_the_guest(world: &World) {
    let (trusted, unknown) = (Authority::new("trusted"), Authority::new("unknown"));
    let bundle = world.folder().join("trusted.pem");
    trusted.write(&bundle);
    let world = &world.with("SSL_CERT_FILE", bundle.to_str().expect("a plain path"));
    let names = [
        ("api.example", Entry::Addresses(&["203.0.113.91"], 60)),
        ("other.example", Entry::Addresses(&["203.0.113.91"], 60)),
        ("forged.example", Entry::Addresses(&["203.0.113.92"], 60)),
        ("nowhere.example", Entry::Addresses(&["203.0.113.92"], 60)),
    ];
    let internet = Internet::connect(world, &names);
    let repositories = world.folder().join("repositories");
    make_repository(&repositories);
    let api = Site::new(&trusted, "api.example").with_git(&repositories, VALUE);
    let forged = Site::new(&unknown, "forged.example");
    for (site, address) in [(api.clone(), SITES[0]), (forged.clone(), SITES[1])] {
        internet.start_inside(move || site.serve(address));
    }
    flows::configure(world);
    let before = world.tool("nft", &["list", "ruleset"]).output().ok().text();
    world.start();
    refusals(world);
    create(world);
    requests(world, &api);
    git(world);
    refused_requests(world, &api, &forged);
    // Both daemons end; the guest's secrets do not.
    lose_both(world);
    assert_eq!(status(world, "https://api.example/again"), "200");
    world.banger(&["vm", "restart", "box"]).limit(BOOT).output().ok();
    assert_eq!(status(world, "https://api.example/once-more"), "200");
    let said = world.banger(&["vm", "egress", "box"]).output().ok().text();
    println!("{said}");
    for part in ["SECRETS GO TO", "api.example", "GH_TOKEN"] {
        assert!(said.contains(part), "{part} is not in\n{said}");
    }
    nothing_is_found(world);
    nothing_lies_about(world);
    // Documented: a server that says back what it was told tells the guest.
    let echoed = curl(world, "-H \"Authorization: Bearer $GH_TOKEN\" https://api.example/echo");
    assert_eq!(echoed, format!("Bearer {VALUE}"), "the server did not get the secret");
    world.banger(&["vm", "delete", "box"]).limit(BOOT).output().ok();
    assert_eq!(world.tool("nft", &["list", "ruleset"]).output().ok().text(), before);
}

/// A bare repository with one commit, `app.git`, that can be pushed to.
fn make_repository(folder: &Path) {
    let work = folder.join("work");
    std::fs::create_dir_all(&work).expect("made");
    let git = |place: &Path, arguments: &[&str]| {
        let who = ["-c", "user.name=a", "-c", "user.email=a@example", "-c", "init.defaultBranch=main"];
        let mut command = Command::new("git");
        command.args(who).args(arguments).current_dir(place).stdout(Stdio::null()).stderr(Stdio::null());
        assert!(command.status().expect("git runs").success(), "git {arguments:?}");
    };
    git(&work, &["init"]);
    std::fs::write(work.join("file"), "content\n").expect("written");
    git(&work, &["add", "file"]);
    git(&work, &["commit", "-m", "first"]);
    git(folder, &["clone", "--bare", "work", "app.git"]);
    git(&folder.join("app.git"), &["config", "http.receivepack", "true"]);
}

/// What cannot be is refused before there is a VM.
fn refusals(world: &World) {
    for (secret, code, words) in [
        ("GH_TOKEN=hunter2@api.example", 2, "env:"),
        ("GH_TOKEN=env:NOT_SET_ANYWHERE@api.example", 2, "NOT_SET_ANYWHERE"),
        ("GH_TOKEN=file:/nonexistent@api.example", 2, "/nonexistent"),
        ("GH_TOKEN=env:PATH@*.example", 2, "not one host"),
        ("PATH=env:PATH@api.example", 2, "every program needs it"),
    ] {
        world.banger(&["vm", "create", "--secret", secret]).output().ends(code).refuses(&[words]);
    }
    let both = ["vm", "create", "--allow", "api.example:22", "--secret", "T=env:PATH@api.example"];
    world.banger(&both).output().ends(2).refuses(&["api.example:22"]);
    assert!(world.owner().vms().is_empty(), "a refused VM has left a row");
}

fn create(world: &World) {
    let file = world.folder().join("second");
    std::fs::write(&file, format!("{VALUE}-2\n")).expect("written");
    let second = format!("SECOND=file:{}@api.example,forged.example,nowhere.example:8443", file.display());
    let create =
        ["vm", "create", "--name", "box", "--memory", "512M", "--disk-size", "1G", "--allow", "other.example:443"];
    let secrets = ["--secret", "GH_TOKEN=env:MY_TOKEN@api.example", "--secret", &second];
    let asking = world.with("MY_TOKEN", VALUE);
    asking.banger(&[&create[..], &secrets[..]].concat()).limit(BOOT).output().ok();
}

/// A command in the guest, by the agent: over ssh each would take seconds.
fn inside(world: &World, command: &[&str]) -> Run {
    world.banger(&[&["vm", "exec", "box", "--"], command].concat()).limit(BOOT)
}

/// What curl says in the guest, whose shell fills in its variables.
fn curl(world: &World, arguments: &str) -> String {
    let script = format!("curl -sS --max-time 30 {arguments} 2>&1");
    inside(world, &["sh", "-c", &script]).limit(60).output().text()
}

fn status(world: &World, url: &str) -> String {
    curl(world, &format!("-o /dev/null -w '%{{http_code}}' -H \"Authorization: token $GH_TOKEN\" {url}"))
}

/// In every way in which a secret can stand in a head.
fn requests(world: &World, api: &Site) {
    let placeholder = inside(world, &["printenv", "GH_TOKEN"]).output().ok().text();
    assert!(placeholder.starts_with("banger_secret_") && placeholder.len() == 46, "{placeholder}");
    let over_ssh = world.banger(&["vm", "ssh", "box", "--", "printenv", "GH_TOKEN"]).limit(60).output().ok().text();
    assert_eq!(over_ssh, placeholder, "over ssh the environment is another");
    let basic = Base64::encode_string(format!("git:{VALUE}").as_bytes());
    let big =
        "head -c 3000000 /dev/zero | curl -sS --max-time 60 -T - -H \"X-Key: $SECOND\" https://api.example/big 2>&1";
    assert_eq!(inside(world, &["sh", "-c", big]).limit(90).output().ok().text(), "received 3000000 bytes");
    for (what, arguments, field, expected) in [
        ("a field", "-H \"Authorization: Bearer $GH_TOKEN\"", "authorization", format!("Bearer {VALUE}")),
        ("two in one", "-H \"X-Both: $GH_TOKEN,$SECOND\"", "x-both", format!("{VALUE},{VALUE}-2")),
        ("Basic", "-u \"git:$GH_TOKEN\"", "authorization", format!("Basic {basic}")),
        ("the target stays", "-H 'X-None: 1' \"https://api.example/?k=$GH_TOKEN\"", "x-none", "1".to_owned()),
    ] {
        let said = curl(world, &format!("{arguments} https://api.example/"));
        assert!(said.contains("received 0 bytes"), "{what}: {said}");
        let asked = api.asked();
        let arrived = asked.iter().filter_map(|asked| asked.fields.get(field)).any(|value| *value == expected);
        println!("| secret | {what} | arrives | {} |", if arrived { "arrived" } else { "NOT" });
        assert!(arrived, "{what}: {asked:?}");
        assert!(asked.iter().all(|asked| !asked.line.contains(VALUE)), "the secret stands in a target");
    }
    let others = curl(world, "-k -H \"Authorization: Bearer $GH_TOKEN\" https://other.example/");
    assert!(others.contains("received"), "{others}");
    let last = api.asked().pop().expect("a request");
    println!("| secret | to another host | the placeholder | {} |", last.fields["host"]);
    assert_eq!(last.fields["authorization"], format!("Bearer {placeholder}"), "another host got the secret");
}

/// Cloned and pushed to, with the placeholder as password.
fn git(world: &World) {
    let script = "set -e; cd /tmp; git clone -q https://git:$GH_TOKEN@api.example/git/app.git; cd app; cat file; \
                  head -c 2000000 /dev/urandom > big; git add big; \
                  git -c user.name=b -c user.email=b@example commit -qm second; git push -q; git fetch -q; \
                  git rev-parse origin/main HEAD | uniq | wc -l";
    let said = inside(world, &["sh", "-c", script]).limit(120).output().ok().text();
    println!("| secret | git clone, push and fetch over HTTPS | works | {} |", said.replace('\n', ", "));
    assert_eq!(said, "content\n1");
}

fn refused_requests(world: &World, api: &Site, forged: &Site) {
    let before = api.asked().len();
    for (what, arguments, expected) in [
        ("another Host", "-H 'Host: other.example' https://api.example/", "the request is for \"other.example\""),
        ("TRACE", "-X TRACE https://api.example/", "TRACE does not pass"),
        ("a certificate that nobody trusts", "https://forged.example/", "does not trust whoever signed"),
        ("nobody there", "https://nowhere.example:8443/", "cannot be reached"),
        ("another SNI", "-k --connect-to other.example:443:api.example:443 https://other.example/", "curl: (35)"),
        ("without TLS", "http://api.example/", "curl: (7)"),
        ("its other ports", "https://api.example:8080/", "curl: (7)"),
        ("an authority that is not trusted", "--cacert /etc/hostname https://api.example/", "curl: (77)"),
    ] {
        let said = curl(world, &format!("-H \"Authorization: Bearer $GH_TOKEN $SECOND\" {arguments}"));
        println!("| secret | {what} | refused | {said} |");
        assert!(said.contains(expected), "{what}: {said}");
    }
    assert_eq!(api.asked().len(), before, "a refused request has arrived");
    assert!(forged.asked().is_empty(), "a site without a good certificate was told something");
}

/// All of the guest's memory, environments and disk, by somebody who is root there; what is there is found.
fn nothing_is_found(world: &World) {
    let placeholder = inside(world, &["printenv", "GH_TOKEN"]).output().ok().text();
    let disk = inside(world, &["findmnt", "-no", "SOURCE", "/"]).output().ok().text();
    world
        .guest("box", &["sh", "-c", "echo \"$GH_TOKEN\" > /root/written; sync; cat > /root/scan.pl"])
        .input(SCAN)
        .output()
        .ok();
    // A process that has it in its memory all the while.
    world.banger(&["vm", "exec", "-d", "box", "--", "sleep", "600"]).limit(BOOT).output().ok();
    let scan = |needle: &str| {
        let hex: String = needle.bytes().map(|b| format!("{:02x}", b ^ 0x5a)).collect();
        let command = ["perl", "/root/scan.pl", &hex, &disk];
        inside(world, &command).limit(200).output().ok().text()
    };
    let control = scan(&placeholder);
    println!("| scan of the guest | the placeholder | found | {control} |");
    let counts = |said: &str| -> Vec<u64> {
        let words = said.split([' ', ',']).filter_map(|word| word.parse().ok());
        words.collect()
    };
    let found = counts(&control);
    assert!([0, 2, 4, 5].iter().all(|at| found[*at] > 0), "the scan does not find what is there: {control}");
    assert!(found[1] > 64, "the scan does not see the guest's memory: {control}");
    let base64 = Base64::encode_string(format!("git:{VALUE}").as_bytes());
    for (what, needle) in [("the secret", VALUE), ("the secret in Base64", &base64)] {
        let said = scan(needle);
        println!("| scan of the guest | {what} | not found | {said} |");
        let found = counts(&said);
        assert!([0, 2, 4, 5].iter().all(|at| found[*at] == 0), "{what} is in the guest: {said}");
    }
}

/// On the host: no file but the one, no process' words.
fn nothing_lies_about(world: &World) {
    let home = world.home();
    let holding = world.tool("grep", &["-rlaF", VALUE, home.to_str().expect("a plain path")]).output().text();
    let files: Vec<&str> = holding.lines().collect();
    println!("| files below BANGER_HOME with the secret | one, for its owner alone | {files:?} |");
    assert!(matches!(files.as_slice(), [one] if one.ends_with("/secrets")), "{files:?}");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(files[0]).expect("there").permissions());
    assert_eq!(mode & 0o777, 0o600);
    for what in ["cmdline", "environ"] {
        for entry in std::fs::read_dir("/proc").expect("proc").flatten() {
            let read = std::fs::read(entry.path().join(what)).unwrap_or_default();
            let found = read.windows(VALUE.len()).any(|window| window == VALUE.as_bytes());
            assert!(!found, "the secret is in {}/{what}", entry.path().display());
        }
    }
}
