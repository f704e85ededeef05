//! Repositories in and patches out, with this machine's own `sh` and `git` in the place of a guest's.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Seek};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};

use super::git::Git;
use super::*;
use crate::model::GuestFolder;
use crate::os::archive;
use crate::protocol::shell::Tool;
use crate::shell::{Command, Control, ControlEvent, GuestShell, Io, Outcome, Program, ShellError};

/// What comes out.
mod coming_out;
/// What goes in.
mod going_in;

/// Runs commands here.
struct Here;

impl GuestShell for Here {
    fn run(&mut self, command: &Command, io: Io<'_>) -> Result<Outcome, ShellError> {
        let words = match &command.program {
            Program::Argv(words) => words,
            Program::Tool(Tool::Unpack { folder }) => {
                let input = fs::File::from(io.stdin.try_clone_to_owned().expect("a copy"));
                let unpacked = archive::unpack(Path::new(OsStr::from_bytes(folder)), None, input);
                return Ok(Outcome::Exited(unpacked.map_or_else(|e| panic!("{e}"), |_| 0)));
            }
            Program::Login | Program::Tool(_) => panic!("not needed here"),
        };
        let copy = |fd: BorrowedFd<'_>| Stdio::from(fd.try_clone_to_owned().expect("a copy"));
        let mut process = Process::new(&words[0]);
        process.args(&words[1..]).stdin(copy(io.stdin)).stdout(copy(io.stdout)).stderr(copy(io.stderr));
        process.env("HOME", "/nonexistent");
        let status = process.status().expect("runs");
        Ok(status.code().map_or_else(|| Outcome::signaled(status.signal().unwrap_or(0)), |c| Outcome::Exited(c as u8)))
    }
}

/// No signals.
struct Quiet(fs::File);

impl Control for Quiet {
    fn descriptor(&self) -> BorrowedFd<'_> {
        use std::os::fd::AsFd;
        self.0.as_fd()
    }
    fn next(&mut self) -> Option<ControlEvent> {
        None
    }
    fn end_asked_for(&mut self) -> Option<i32> {
        None
    }
}

/// A repository of this host's, and where it goes.
struct Case {
    folder: tempfile::TempDir,
    git: Git,
}

impl Case {
    fn new(name: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let top = folder.path().join(name);
        fs::create_dir(&top).expect("made");
        let git = Git::at(&top);
        git.answer(&["init", "-q", "-b", "trunk"]).expect("made");
        for (key, value) in
            [("user.name", "A \"B\" C"), ("user.email", "a@example.org"), ("core.excludesFile", "/dev/null")]
        {
            git.answer(&["config", key, value]).expect("set");
        }
        Self { folder, git }
    }

    fn top(&self) -> &Path {
        self.git.folder()
    }

    fn write(&self, name: impl AsRef<OsStr>, content: impl AsRef<[u8]>) {
        write(self.top(), name, content);
    }

    fn commit(&self, message: &str) {
        self.git.answer(&["add", "-A"]).expect("added");
        self.git.answer(&["commit", "-q", "--allow-empty", "-m", message]).expect("committed");
    }

    fn guest(&self) -> Git {
        Git::at(&self.folder.path().join("guest"))
    }

    fn guest_folder(&self) -> GuestFolder {
        self.guest().folder().to_str().expect("text").parse().expect("a folder")
    }

    fn prepare_with(&self, wishes: &Wishes, force: bool) -> Result<Prepared, WorkspaceError> {
        let intake = Intake::of(self.top(), wishes)?;
        let mut control = Quiet(fs::File::open("/dev/null").expect("opens"));
        let guest = Guest { shell: &mut Here, control: &mut control };
        prepare(guest, &intake, self.guest_folder(), force, 1, &mut |_| {})
    }

    fn prepare(&self) -> Prepared {
        self.prepare_with(&Wishes::default(), false).expect("brought in")
    }

    fn export(&self, from: &From) -> Vec<u8> {
        let mut control = Quiet(fs::File::open("/dev/null").expect("opens"));
        let guest = Guest { shell: &mut Here, control: &mut control };
        let mut file = tempfile::tempfile().expect("a file");
        let out = file.try_clone().expect("a copy");
        export(guest, &self.guest_folder(), from, out, MAX_PATCH, |from| format!("# base: {from}\n\n"))
            .expect("exported");
        file.rewind().expect("rewound");
        let mut patch = Vec::new();
        io::Read::read_to_end(&mut file, &mut patch).expect("read");
        patch
    }

    /// git says the same there as here, and the files are the same.
    fn assert_same(&self) {
        for words in [
            &["status", "--porcelain=v1", "-z", "--no-renames"][..],
            &["diff", "--binary"],
            &["diff", "--cached", "--binary"],
            &["ls-files", "-z", "-v", "--stage"],
        ] {
            let (here, there) = (self.git.answer(words), self.guest().answer(words));
            let text = |answer: Result<Vec<u8>, GitError>| {
                String::from_utf8_lossy(&answer.unwrap_or_else(|e| e.to_string().into_bytes())).into_owned()
            };
            assert_eq!(text(there), text(here), "git {words:?}");
        }
        assert_eq!(tree(self.guest().folder()), tree(self.top()));
    }
}

fn write(top: &Path, name: impl AsRef<OsStr>, content: impl AsRef<[u8]>) {
    let path = top.join(name.as_ref());
    fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    fs::write(path, content).expect("written");
}

/// Every file below `top` but git's own: kind, whether it can be run, content.
fn tree(top: &Path) -> BTreeMap<PathBuf, (char, bool, Vec<u8>)> {
    fn walk(top: &Path, folder: &Path, found: &mut BTreeMap<PathBuf, (char, bool, Vec<u8>)>) {
        for entry in fs::read_dir(folder).expect("read") {
            let path = entry.expect("an entry").path();
            let about = path.symlink_metadata().expect("looked at");
            let name = path.strip_prefix(top).expect("below").to_owned();
            if name == Path::new(".git") {
                continue;
            }
            if about.is_dir() {
                walk(top, &path, found);
            } else if about.is_symlink() {
                let target = fs::read_link(&path).expect("a link").into_os_string().into_vec();
                found.insert(name, ('l', false, target));
            } else {
                found.insert(name, ('f', about.mode() & 0o100 != 0, fs::read(&path).expect("read")));
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(top, top, &mut found);
    found
}

fn make_executable(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("set");
}

/// A repository with everything that a working tree can be.
fn odd() -> Case {
    let case = Case::new("odd repo");
    for name in [
        "same",
        "edited",
        "staged",
        "both",
        "gone",
        "removed",
        "mode",
        "kind",
        "dir/sub/gone",
        "dir/same",
        "a b",
        "intended-not",
    ] {
        case.write(name, format!("{name}\nline\n"));
    }
    case.write("bin", (0..=255u8).cycle().take(100_000).collect::<Vec<_>>());
    case.write("crlf", "one\r\ntwo\r\n");
    case.write(OsStr::from_bytes(b"n\xff\xfe\nx\ty\"\\"), "odd name");
    case.write("eol/.gitattributes", "*.txt eol=crlf\n");
    case.write("eol/x.txt", "one\r\ntwo\r\n");
    symlink("same", case.top().join("link")).expect("made");
    symlink("/etc/passwd", case.top().join("link-out")).expect("made");
    make_executable(&case.top().join("mode"));
    case.write(".gitignore", "ignored\n*.o\n");
    case.commit("first");
    case.write("edited", "edited\nchanged\n");
    case.write("staged", "staged\nchanged\n");
    case.git.answer(&["add", "staged"]).expect("added");
    case.write("both", "staged\n");
    case.git.answer(&["add", "both"]).expect("added");
    case.write("both", "edited\n");
    case.write("new", "new\n");
    case.git.answer(&["add", "new"]).expect("added");
    case.write("intended", "intended\n");
    case.git.answer(&["add", "-N", "intended"]).expect("added");
    case.git.answer(&["rm", "-q", "removed"]).expect("removed");
    fs::remove_file(case.top().join("gone")).expect("removed");
    fs::remove_dir_all(case.top().join("dir/sub")).expect("removed");
    fs::set_permissions(case.top().join("mode"), fs::Permissions::from_mode(0o644)).expect("set");
    fs::remove_file(case.top().join("kind")).expect("removed");
    symlink("same", case.top().join("kind")).expect("made");
    case
}
