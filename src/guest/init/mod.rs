//! Pid 1 of the initramfs: turns a copy of an image into *this* VM, then hands pid 1 on.
//!
//! A list of named steps. Before the root disk is mounted a failure is fatal: one line says what
//! happened and the machine powers off, never a kernel panic. After it, a failed step is a
//! trouble: said on the console, handed to the agent (`TROUBLES_PATH`), and the next step goes on,
//! because a VM that one can log into is easier to mend than one that is gone.

/// The root disk: waiting for it, mounting, growing.
mod disk;
/// What every program expects to find.
mod folders;
/// Handing pid 1 to the image's own init.
pub mod handover;
/// Kernel modules of the initramfs.
mod modules;
/// Filesystems of the kernel, and the modules drive.
mod mounts;
/// Link, address, route.
mod network;
/// Writing the identity into the guest's files.
mod personal;
/// The small pid 1 that stays.
mod pid1;
/// Making an image of a disk again.
mod seal;
/// From the initramfs to the root disk.
mod switch;
/// What the image's systemd must leave alone.
mod systemd;
/// What secrets need.
mod trust;

pub use self::handover::PATH;
pub use self::personal::set_clock;
pub use self::pid1::NAME as PID1_NAME;

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use super::agent;
use super::console::say;
use super::error::{Doing, GuestError, chain};
use super::power;
use crate::model::identity::{IDENTITY_PATH, Identity, IdentityV2, IdentityV3, IdentityV4, RELEASE_PATH, Seal};
use crate::model::{InitMode, VmId};
use crate::protocol::frame;

/// Where `init` leaves what went wrong for the agent to announce, one line each.
pub const TROUBLES_PATH: &str = "/run/banger/troubles";

/// Runs the steps. Ends the machine when they cannot go on.
pub fn run() -> ExitCode {
    // Started by mistake on some machine, this would mount over it and switch it off.
    if std::process::id() != 1 {
        return ExitCode::from(70);
    }
    if let Err(error) = boot() {
        say(&format!("cannot start this VM: {}; powering off", chain(&error)));
    }
    power::power_off();
    // Pid 1 must not end: the kernel would panic. Reached only when it refused to power off.
    loop {
        std::thread::park();
    }
}

/// What the initramfs asks for.
#[derive(Debug, PartialEq, Eq)]
enum Task {
    /// A boot as this VM.
    Live(IdentityV4),
    /// A disk that becomes an image.
    Seal(Seal),
}

/// What the initramfs says of this VM.
struct Given {
    identity: IdentityV4,
    release: Option<String>,
}

/// Comes back only with an error, or when the small pid 1 is done.
fn boot() -> Result<(), GuestError> {
    mounts::mount_early()?;
    say("init starts");
    let identity = match read_task()? {
        Some(Task::Live(identity)) => identity,
        Some(Task::Seal(seal)) => return seal::run(&seal),
        None => {
            say("the initramfs holds no identity: this is no VM of banger's; powering off");
            return Ok(());
        }
    };
    let given = Given { identity, release: read_release()? };
    let first = &given.identity.third.second.first;
    say(&format!("this is {} ({})", first.name, first.id));
    let mut troubles = modules::load_all();
    disk::mount_root()?;
    switch::switch_root()?;
    troubles.extend(settle(&given));
    write_troubles(&troubles);
    match first.init {
        InitMode::Image => become_image_init(),
        InitMode::Minimal => stay(),
    }
}

/// The message, or `None` when there is none.
fn read_task() -> Result<Option<Task>, GuestError> {
    let path = Path::new("/").join(IDENTITY_PATH);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).doing(|| format!("read {}", path.display())),
    };
    parse_task(&bytes).map(Some)
}

fn parse_task(bytes: &[u8]) -> Result<Task, GuestError> {
    let second = match frame::decode(bytes).map_err(GuestError::Identity)? {
        Identity::V1(first) => IdentityV2 { first, environment: Vec::new(), authority: String::new() },
        Identity::V2(second) => second,
        Identity::V3(third) => return Ok(Task::Live(of_third(third))),
        Identity::V4(identity) => return Ok(Task::Live(identity)),
        Identity::Seal(seal) => return Ok(Task::Seal(seal)),
    };
    Ok(Task::Live(of_third(IdentityV3 { second, variables: Vec::new() })))
}

fn of_third(third: IdentityV3) -> IdentityV4 {
    IdentityV4 { third, environment: Vec::new(), folder: String::new() }
}

/// The kernel release whose modules drive is attached.
fn read_release() -> Result<Option<String>, GuestError> {
    let path = Path::new("/").join(RELEASE_PATH);
    match std::fs::read_to_string(&path) {
        Ok(text) => parse_release(&text).map(Some),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).doing(|| format!("read {}", path.display())),
    }
}

/// It becomes the last part of a path.
fn parse_release(text: &str) -> Result<String, GuestError> {
    let text = text.trim();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '+' | '~');
    if text.is_empty() || text.len() > 128 || text.starts_with('.') || !text.chars().all(plain) {
        return Err(GuestError::BadName { what: "the kernel release", found: text.to_owned() });
    }
    Ok(text.to_owned())
}

/// Everything that is done inside the mounted root; each failure is a trouble.
fn settle(given: &Given) -> Vec<String> {
    let identity = &given.identity.third.second.first;
    let mut troubles = Vec::new();
    let mut step = |name: &str, result: Result<(), GuestError>| match result {
        Ok(()) => say(name),
        Err(error) => {
            let text = format!("{name}: {}", chain(&error));
            say(&format!("trouble: {text}"));
            troubles.push(text);
        }
    };
    step("filesystems", mounts::mount_late());
    step("folders", folders::make());
    step("disk size", disk::grow());
    step("modules drive", given.release.as_deref().map_or(Ok(()), mounts::mount_modules));
    step("network", network::configure(identity));
    step("the image's folder", make_folder(&given.identity.folder));
    for (name, result) in personal::write_all(identity).into_iter().chain(trust::write_all(&given.identity)) {
        step(name, result);
    }
    if identity.init == InitMode::Image {
        step("systemd's instructions", systemd::instruct());
    }
    troubles
}

/// What commands start in is made where the image only names it, as container runtimes do.
fn make_folder(folder: &str) -> Result<(), GuestError> {
    let path = Path::new("/").join(folder);
    std::fs::create_dir_all(&path).doing(|| format!("make {}", path.display()))
}

fn write_troubles(troubles: &[String]) {
    let path = Path::new(TROUBLES_PATH);
    let lines: String = troubles.iter().map(|t| format!("{}\n", t.replace('\n', " "))).collect();
    let written = crate::os::files::ensure_dir(path.parent().unwrap_or(Path::new("/run")), 0o755)
        .and_then(|()| std::fs::write(path, lines));
    if let Err(error) = written {
        say(&format!("trouble: cannot write {}: {error}", path.display()));
    }
}

/// The same binary under another name; the file itself is gone from the initramfs, the kernel's
/// link to it works for as long as a process runs it.
fn agent_command() -> Command {
    let mut command = Command::new(agent::SELF);
    command.arg0("banger-agent").arg(agent::KEEPER).env_clear().env("PATH", handover::PATH).current_dir("/");
    command
}

/// The agent's pid, when it runs.
fn start_agent() -> Option<u32> {
    match agent_command().spawn() {
        Ok(child) => {
            say("agent started");
            Some(child.id())
        }
        Err(error) => {
            say(&format!("trouble: cannot start the agent: {error}"));
            None
        }
    }
}

/// Comes back only when the image has nothing to become, and this pid 1 was told to end.
fn become_image_init() -> Result<(), GuestError> {
    let agent = start_agent();
    let error = handover::become_image_init();
    say(&format!("{}; staying as a small pid 1", chain(&error)));
    pid1::stay(pid1::prepare()?, agent);
    Ok(())
}

fn stay() -> Result<(), GuestError> {
    let pid1 = pid1::prepare()?;
    let agent = start_agent();
    pid1::stay(pid1, agent);
    Ok(())
}

/// `machine-id` of a VM: 32 hexadecimal digits, never all zero (machine-id(5)).
fn machine_id(id: &VmId) -> String {
    format!("ba6e{:0>28}", id.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::identity::IdentityV1;
    use crate::model::secret::Placeholder;

    fn identity() -> Identity {
        Identity::V1(IdentityV1 {
            id: VmId::from_random(0xabc),
            name: "box".parse().expect("a name"),
            mac: crate::model::MacAddr([2, 0x62, 0x67, 0, 0, 1]),
            address: [10, 0, 0, 2].into(),
            prefix: 24,
            gateway: [10, 0, 0, 1].into(),
            authorized_key: "ssh-ed25519 AAAA".into(),
            host_key: "secret".into(),
            init: InitMode::Image,
            now_ns: 1,
        })
    }

    fn body(identity: &Identity) -> Vec<u8> {
        frame::encode(identity).expect("encodes").split_off(frame::HEADER)
    }

    #[test]
    fn an_identity_is_read_back() {
        let Identity::V1(first) = identity() else { panic!("the first version") };
        let plain = IdentityV2 { first, environment: Vec::new(), authority: String::new() };
        let read = |identity: &Identity| parse_task(&body(identity)).expect("reads");
        let live = |third| Task::Live(of_third(third));
        let without = |second| live(IdentityV3 { second, variables: Vec::new() });
        assert_eq!(read(&identity()), without(plain.clone()));
        let environment = vec![("A".parse().expect("a name"), Placeholder::from_random(1))];
        let more = IdentityV2 { environment, authority: "PEM".into(), ..plain };
        assert_eq!(read(&Identity::V2(more.clone())), without(more.clone()));
        let all = IdentityV3 { second: more, variables: vec!["B=c".parse().expect("a variable")] };
        assert_eq!(read(&Identity::V3(all.clone())), live(all.clone()));
        let image = IdentityV4 { third: all, environment: vec!["C=d".into()], folder: "/work".into() };
        assert_eq!(read(&Identity::V4(image.clone())), Task::Live(image));
        let seal = Seal { name: "box".parse().expect("a name"), authorized_key: "ssh-ed25519 AAAA".into() };
        assert_eq!(read(&Identity::Seal(seal.clone())), Task::Seal(seal));
    }

    #[test]
    fn a_cut_or_longer_identity_is_refused() {
        let whole = body(&identity());
        for cut in 0..whole.len() {
            assert!(parse_task(&whole[..cut]).is_err(), "{cut}");
        }
        assert!(parse_task(&[whole, vec![0]].concat()).is_err());
    }

    #[test]
    fn a_flipped_byte_never_panics() {
        let whole = body(&identity());
        for at in 0..whole.len() {
            for flip in [1, 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] ^= flip;
                let _ = parse_task(&bytes);
            }
        }
    }

    #[test]
    fn a_release_is_one_part_of_a_path() {
        assert_eq!(parse_release("6.1.0-56-cloud-amd64\n").expect("reads"), "6.1.0-56-cloud-amd64");
        for bad in ["", "..", "a/b", "../x", "a b", ".hidden", &"x".repeat(129)] {
            assert!(parse_release(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_machine_id_has_32_digits_and_follows_from_the_vm() {
        let id = machine_id(&VmId::from_random(0xabc));
        assert_eq!(id, "ba6e0000000000000000000000000abc");
        assert_eq!(id.len(), 32);
    }
}
