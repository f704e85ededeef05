use super::*;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

const TEXT: &str = "Host *.vm\n    User root\n";

struct Home {
    folder: tempfile::TempDir,
    files: Files,
}

impl Home {
    fn empty() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |path: &str| folder.path().join(path);
        let files = Files {
            own: at(".config/banger/ssh_config"),
            users: at(".ssh/config"),
            identities: at(".cache/banger/ssh"),
        };
        Self { folder, files }
    }

    fn with(content: &[u8]) -> Self {
        let home = Self::empty();
        fs::create_dir(home.at(".ssh")).expect("made");
        fs::write(&home.files.users, content).expect("written");
        home
    }

    fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// Names, kinds, modes and contents of all that is there.
    fn tree(&self) -> Vec<(PathBuf, u32, Vec<u8>)> {
        let (mut found, mut left) = (Vec::new(), vec![self.folder.path().to_owned()]);
        while let Some(folder) = left.pop() {
            for entry in fs::read_dir(folder).expect("listed") {
                let path = entry.expect("an entry").path();
                let about = path.symlink_metadata().expect("there");
                let content = match about.file_type() {
                    kind if kind.is_symlink() => {
                        path.read_link().expect("a link").into_os_string().into_encoded_bytes()
                    }
                    kind if kind.is_file() => fs::read(&path).expect("read"),
                    _ => Vec::new(),
                };
                if about.is_dir() {
                    left.push(path.clone());
                }
                found.push((path, about.mode(), content));
            }
        }
        found.sort();
        found
    }

    fn standing(&self) -> Standing {
        self.files.standing(TEXT).expect("seen")
    }

    fn install(&self) -> Deed {
        self.files.install(TEXT).expect("installed")
    }

    fn uninstall(&self) -> Deed {
        self.files.uninstall().expect("uninstalled")
    }
}

fn mode(path: &Path) -> u32 {
    path.metadata().expect("there").mode() & 0o7777
}

#[test]
fn all_is_as_before_to_the_byte() {
    let homes = [
        Home::empty(),
        Home::with(b""),
        Home::with(b"Host a\n  User b"),
        Home::with(b"Host a\r\n  User b\r\n"),
        Home::with(b"# \xff\n"),
    ];
    for home in homes {
        let before = home.tree();
        assert_eq!(home.standing(), Standing::Absent);
        assert_eq!((home.install(), home.standing()), (Deed::Changed, Standing::Installed));
        let installed = home.tree();
        assert_eq!((home.install(), home.tree()), (Deed::Unchanged, installed));
        assert_eq!((mode(&home.files.own), home.uninstall()), (0o600, Deed::Changed));
        assert_eq!((home.tree(), home.uninstall()), (before, Deed::Unchanged));
    }
}

#[test]
fn what_is_made_is_the_users_alone() {
    let home = Home::empty();
    home.install();
    assert_eq!((mode(&home.at(".ssh")), mode(&home.files.users)), (0o700, 0o600));
}

#[test]
fn mode_and_link_stay_as_they_are() {
    let home = Home::empty();
    for folder in [".ssh", "dotfiles"] {
        fs::create_dir(home.at(folder)).expect("made");
    }
    fs::write(home.at("dotfiles/ssh"), "Host a\n").expect("written");
    fs::set_permissions(home.at("dotfiles/ssh"), fs::Permissions::from_mode(0o644)).expect("set");
    symlink("../dotfiles/ssh", &home.files.users).expect("laid");
    let before = home.tree();
    home.install();
    assert!(home.files.users.is_symlink() && mode(&home.at("dotfiles/ssh")) == 0o644);
    assert!(fs::read_to_string(home.at("dotfiles/ssh")).expect("read").contains("Include"));
    home.uninstall();
    assert_eq!(home.tree(), before);
    fs::remove_file(home.at("dotfiles/ssh")).expect("removed");
    let before = home.tree();
    assert_eq!((home.install(), home.standing()), (Deed::Changed, Standing::Installed));
    home.uninstall();
    assert_eq!(home.tree(), before, "a link that led to nothing leads to nothing again");
}

#[test]
fn what_others_have_added_stays() {
    let home = Home::empty();
    home.install();
    let file = fs::read(&home.files.users).expect("read");
    fs::write(&home.files.users, [b"# mine\n", file.as_slice(), b"Host x"].concat()).expect("written");
    fs::write(home.at(".config/banger/config.toml"), "vmm = \"qemu\"\n").expect("written");
    home.uninstall();
    assert_eq!(fs::read(&home.files.users).expect("read"), b"# mine\nHost x");
    assert!(home.at(".config/banger/config.toml").exists());
    let home = Home::empty();
    home.install();
    fs::write(home.at(".ssh/known_hosts"), "").expect("written");
    home.uninstall();
    assert!(home.at(".ssh/known_hosts").exists() && !home.files.users.exists());
}

#[test]
fn what_is_stale_is_told_and_mended() {
    let stale = |home: &Home| matches!(home.standing(), Standing::Stale(_));
    let home = Home::with(b"Host a\n");
    let before = home.tree();
    home.install();
    fs::write(&home.files.own, "Host *.vm\n").expect("written");
    assert!(stale(&home));
    assert_eq!((home.install(), home.standing()), (Deed::Changed, Standing::Installed));
    fs::remove_file(&home.files.own).expect("removed");
    assert!(stale(&home));
    home.install();
    let file = fs::read(&home.files.users).expect("read");
    fs::write(&home.files.users, [b"Host a\n", file.as_slice()].concat()).expect("written");
    assert!(stale(&home), "below a Host");
    home.install();
    assert_eq!(home.standing(), Standing::Installed);
    let moved = Files { own: home.at("other/ssh_config"), ..home.files.clone() };
    assert!(matches!(moved.standing(TEXT), Ok(Standing::Stale(_))), "another file");
    home.uninstall();
    assert_ne!(home.tree(), before, "the doubled line is the user's");
}

#[test]
fn what_cannot_be_done_changes_nothing() {
    let home = Home::with(b"Host a\n");
    fs::hard_link(&home.files.users, home.at(".ssh/other")).expect("linked");
    let before = home.tree();
    assert!(matches!(home.files.install(TEXT), Err(SshConfigError::Names(_))));
    assert_eq!(home.tree(), before);
    let home = Home::with(b"");
    home.install();
    let file = fs::read_to_string(&home.files.users).expect("read");
    let open = file.lines().next().expect("a line").to_owned();
    fs::write(&home.files.users, open).expect("written");
    assert!(matches!(home.files.uninstall(), Err(SshConfigError::Unclosed { line: 1, .. })));
    assert!(home.files.own.exists());
    let home = Home::empty();
    symlink("config", home.at("config")).expect("laid");
    let files = Files { users: home.at("config"), ..home.files.clone() };
    assert!(matches!(files.install(TEXT), Err(SshConfigError::File(_))), "a link to itself");
}

#[test]
fn links_to_keys_go_and_nothing_else() {
    let home = Home::empty();
    home.install();
    fs::create_dir_all(&home.files.identities).expect("made");
    symlink("/nowhere", home.files.identities.join("box.vm")).expect("laid");
    home.uninstall();
    assert!(!home.files.identities.exists());
    fs::create_dir_all(&home.files.identities).expect("made");
    fs::write(home.files.identities.join("note"), "").expect("written");
    home.uninstall();
    assert!(home.files.identities.join("note").exists());
}
