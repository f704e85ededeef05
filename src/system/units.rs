//! The units of a system install as text: those in `units/`, with whose they are and where the binary is put in.

use std::path::{Path, PathBuf};

use crate::os::accounts::Account;

/// Where an administrator's units belong (systemd.unit(5)); a package's own would be below `/usr`.
pub const FOLDER: &str = "/etc/systemd/system";

/// The helper, then the daemon: the order in which they are started.
pub const SERVICES: [&str; 2] = ["bangerd-root.service", "bangerd.service"];

/// What listens for them.
pub const SOCKETS: [&str; 2] = ["bangerd-root.socket", "bangerd.socket"];

/// With this begins each of them.
pub const HEADER: &str = "# Written by `banger system install`, and anew by each update";

const TEMPLATES: [(&str, &str); 4] = [
    (SOCKETS[0], include_str!("../../units/bangerd-root.socket")),
    (SERVICES[0], include_str!("../../units/bangerd-root.service")),
    (SOCKETS[1], include_str!("../../units/bangerd.socket")),
    (SERVICES[1], include_str!("../../units/bangerd.service")),
];

/// A unit's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Where it lies.
    pub path: PathBuf,
    /// What it says.
    pub text: String,
}

/// All units for `owner`, whose daemon runs `binary`.
pub fn rendered(binary: &Path, owner: &Account) -> Vec<Unit> {
    let text = |template: &str| {
        template
            .replace("{binary}", &quoted(&binary.display().to_string()))
            .replace("{user}", &user_of(owner))
            .replace("{owner}", &quoted(&owner.name))
            .replace("{uid}", &owner.uid.to_string())
    };
    let unit = |(name, template): &(&str, &str)| Unit { path: Path::new(FOLDER).join(name), text: text(template) };
    TEMPLATES.iter().map(unit).collect()
}

/// Where they lie.
pub fn names() -> impl Iterator<Item = PathBuf> {
    TEMPLATES.iter().map(|(name, _)| Path::new(FOLDER).join(name))
}

/// systemd takes a name only where it looks like one (systemd.exec(5), "User/Group Name Syntax"); a number always.
fn user_of(owner: &Account) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let begins_well = owner.name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    match begins_well && owner.name.len() <= 31 && owner.name.chars().all(is_plain) {
        true => owner.name.clone(),
        false => owner.uid.to_string(),
    }
}

/// `%` begins a specifier (systemd.unit(5)); a line ends a directive.
fn quoted(text: &str) -> String {
    text.replace('%', "%%").replace(char::is_control, "?")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(name: &str) -> Account {
        Account { name: name.into(), uid: 1000, gid: 1000, home: "/home/a".into(), shell: "/bin/sh".into() }
    }

    fn texts(name: &str) -> Vec<String> {
        rendered(Path::new("/usr/local/bin/banger"), &owner(name)).into_iter().map(|unit| unit.text).collect()
    }

    #[test]
    fn nothing_is_left_open_in_them() {
        for text in texts("alice") {
            assert!(!text.contains(['{', '}']), "{text}");
        }
        let all = texts("alice").concat();
        assert!(all.contains("User=alice\n") && all.contains("ExecStart=/usr/local/bin/banger --as bangerd\n"));
        assert!(all.contains("bangerd-root --owner 1000\n"));
    }

    #[test]
    fn a_name_that_systemd_would_not_take_is_a_number_there() {
        for name in ["a.b@corp", "1st", "x y", "%u", "a\nUser=root", &"a".repeat(32)] {
            let all = texts(name).concat();
            assert!(all.contains("User=1000\n"), "{name:?}");
            assert!(!all.lines().any(|line| line == "User=root"), "{name:?}");
        }
    }

    #[test]
    fn each_says_who_has_written_it() {
        assert!(texts("alice").iter().all(|text| text.starts_with(HEADER)));
    }

    #[test]
    fn the_sockets_are_where_everybody_looks_for_them() {
        use crate::host::paths::{Environment, Paths};
        let paths = Paths::new(&Environment { installed: true, ..Environment::default() });
        let all = texts("alice").concat();
        for socket in [paths.socket(), paths.root_socket()] {
            assert!(all.contains(&format!("ListenStream={}\n", socket.display())));
        }
        for (folder, directive) in [(&paths.state, "StateDirectory"), (&paths.root_state, "StateDirectory")] {
            let name = folder.file_name().expect("a name").to_string_lossy();
            assert!(all.contains(&format!("{directive}={name}\n")), "{name}");
        }
        assert!(all.contains("CacheDirectory=banger\n") && paths.cache == Path::new("/var/cache/banger"));
    }

    #[test]
    fn nothing_but_the_service_itself_is_ever_signalled() {
        for text in texts("alice").iter().filter(|text| text.contains("[Service]")) {
            assert!(text.contains("\nKillMode=process\n") && text.contains("\nRuntimeDirectoryPreserve=yes\n"));
        }
    }
}
