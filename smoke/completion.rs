//! What bash, zsh and fish insert and show when Tab is pressed, on a real terminal.
//!
//! In each shell `banger` is a function that tells its arguments: so the line that Tab has made is read from what runs.

use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use crate::fake::on_the_fake_monitor;
use crate::packages::text;
use crate::shells::Shell;
use crate::world::World;

/// What is typed before Tab, and what it becomes, where no daemon runs.
const WITHOUT_NAMES: &[(&str, &str)] = &[
    ("banger vm cre", "vm create"),
    ("banger vm run --ini", "vm run --init"),
    ("banger vm run --init mi", "vm run --init minimal"),
    ("banger vm run --init=mi", "vm run --init=minimal"),
    ("banger vm set box --nat of", "vm set box --nat off"),
    ("banger image cache pr", "image cache prune"),
    ("banger completion z", "completion zsh"),
    ("banger help kernel imp", "help kernel import"),
    ("banger daemon start --owner nobo", "daemon start --owner nobody"),
    // What is typed already is not offered again, unless it repeats.
    ("banger vm run --observe --obs", "vm run --observe --obs"),
    ("banger vm run --env-file x --env-f", "vm run --env-file x --env-file"),
    // Paths.
    ("banger vm run --env-file /etc/hostn", "vm run --env-file /etc/hostname"),
    ("banger vm run --env-file=/etc/hostn", "vm run --env-file=/etc/hostname"),
    ("banger vm run ./a-fol", "vm run ./a-folder/"),
    ("banger vm run a-f", "vm run a-folder/"),
    ("banger image pull oci-archive:/etc/hostn", "image pull oci-archive:/etc/hostname"),
    // The guest's command.
    ("banger vm exec box -- unam", "vm exec box -- uname"),
    ("banger vm exec box -- cat /etc/hostn", "vm exec box -- cat /etc/hostname"),
    // Names of one's own.
    ("banger t --obs", "t --observe"),
    ("banger hello --obs", "hello --obs"),
    ("t --obs", "t --observe"),
    ("banger-vm-run --obs", "banger-vm-run --observe"),
    ("banger-image ca", "banger-image cache"),
    // What only the daemon knows is not known.
    ("banger vm stop b", "vm stop b"),
];

/// The same where VMs `box` and `web` run, `later` does not.
const WITH_NAMES: &[(&str, &str)] = &[
    ("banger vm stop b", "vm stop box"),
    ("banger vm ssh w", "vm ssh web"),
    ("banger vm start l", "vm start later"),
    ("banger vm start b", "vm start b"),
    ("banger vm stop l", "vm stop l"),
    ("banger vm delete l", "vm delete later"),
    ("banger vm delete later l", "vm delete later l"),
    ("banger vm cp b", "vm cp box:"),
    ("banger vm cp a-f", "vm cp a-folder/"),
    ("banger vm cp ./a-folder w", "vm cp ./a-folder web:"),
    ("banger vm cp box:/etc a-f", "vm cp box:/etc a-folder/"),
    ("banger vm run --image deb", "vm run --image debian-bookworm"),
    ("banger vm run --image=deb", "vm run --image=debian-bookworm"),
    ("banger kernel delete deb", "kernel delete debian-bookworm"),
    ("banger --host ssh://far vm stop b", "--host ssh://far vm stop b"),
];

/// Names that are functions in each shell, and tell how they were called.
pub const NAMES: [&str; 4] = ["banger", "t", "banger-vm-run", "banger-image"];

/// What bash asks with Tab behind `banger vm stop `.
const ASKED: [&str; 7] = ["--as", "banger-complete", "bash", "banger vm stop ", "", "9", "80"];

/// Most time that an answer may take: what people notice; much more than it takes on a machine that is not busy.
const MOST: Duration = Duration::from_millis(60);

/// All shells, without a daemon and with one.
pub fn in_real_shells(world: &World) {
    let world = &on_the_fake_monitor(world);
    let folder = lay_out(world);
    let world = &world.with("PATH", &format!("{folder}:{}", std::env::var("PATH").expect("a PATH")));
    let shells = Shell::all(world);
    for shell in &shells {
        shell.complete(world, WITHOUT_NAMES);
    }
    assert!(!world.home().join("run/bangerd.sock").exists(), "a daemon was started");
    let shown = world.banger(&["--help"]).output().ok().text();
    assert!(shown.contains("  t                 vm run --rm") && shown.contains("not used"), "{shown}");
    world.start();
    for (name, how) in [("box", None), ("web", None), ("later", Some("--no-start"))] {
        world.banger(&[&["vm", "create", "--name", name][..], how.as_slice()].concat()).limit(60).output().ok();
    }
    for shell in &shells {
        shell.complete(world, WITH_NAMES);
        shell.shows(world, "banger vm workspace ", &["prepare", "export", shell.described]);
        shell.shows(world, "banger vm delete ", &["box", "later", "web"]);
    }
    println!("| completion | {} | {} lines each |", names(&shells), WITHOUT_NAMES.len() + WITH_NAMES.len() + 2);
    takes_no_time(world);
    world.banger(&["vm", "delete", "box", "web", "later"]).limit(60).output().ok();
    world.banger(&["daemon", "stop"]).output().ok();
    shells[0].complete(world, &WITHOUT_NAMES[WITHOUT_NAMES.len() - 1..]);
    world.banger(&["daemon", "status"]).output().ends(6);
    a_silent_daemon_is_left(world);
}

fn names(shells: &[Shell]) -> String {
    shells.iter().map(|shell| shell.name).collect::<Vec<_>>().join(", ")
}

/// Links, an alias, a folder; the folder in which the links are.
fn lay_out(world: &World) -> String {
    let folder = world.folder().join("bin");
    std::fs::create_dir(&folder).expect("a folder");
    for name in NAMES {
        symlink(world.binary(), folder.join(name)).expect("a link");
    }
    let config = "[aliases]\nt = \"vm run --rm\"\nhello = \"vm run --rm -- echo\"\nps = \"vm delete\"\n";
    std::fs::write(world.home().join("config.toml"), config).expect("written");
    std::fs::create_dir(world.person().join("a-folder")).expect("a folder");
    text(&folder)
}

/// Who listens and says nothing costs a moment, and nothing is said of it.
fn a_silent_daemon_is_left(world: &World) {
    let socket = world.home().join("run/bangerd.sock");
    // The daemon that was there may have left its own.
    let _ = std::fs::remove_file(&socket);
    let _silent = UnixListener::bind(socket).expect("bound");
    let began = Instant::now();
    let answer = world.banger(&ASKED).output().ok();
    assert_eq!((answer.text().as_str(), answer.stderr.as_str()), ("", ""));
    assert!(began.elapsed() < 10 * MOST, "{:?}", began.elapsed());
    println!("| completion | a daemon that says nothing | no names, {} ms |", began.elapsed().as_millis());
}

/// The time of one answer, the process and the daemon's part in it.
fn takes_no_time(world: &World) {
    let mut times: Vec<Duration> = (0..21)
        .map(|_| {
            let began = Instant::now();
            assert_eq!(world.banger(&ASKED).output().ok().text(), "\nbox\nweb");
            began.elapsed()
        })
        .collect();
    times.sort();
    println!("| completion | names of two VMs | {:.1} ms |", times[10].as_secs_f64() * 1000.0);
    assert!(times[10] < MOST, "{times:?}");
}
