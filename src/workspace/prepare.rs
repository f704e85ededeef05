//! Bringing a repository into a guest: history, index and files, in a handful of commands over one channel
//! whatever the number of files.

use std::collections::BTreeSet;
use std::io::{BufWriter, PipeWriter};
use std::path::{Path, PathBuf};

use super::error::WorkspaceError;
use super::git::path;
use super::guest::{self, Guest};
use super::history::History;
use super::ignored;
use super::intake::{Head, Intake};
use super::tools::Tools;
use crate::model::{GuestFolder, ObjectId, Workspace};
use crate::os::archive::{Moved, Text, pack_listed};

/// Bytes that are written into a pipe at once.
const PORTION: usize = 64 << 10;

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// What the VM's record keeps.
    pub workspace: Workspace,
    /// Files whose content was sent as it is here.
    pub carried: u64,
    /// Whether only differences were sent.
    pub is_update: bool,
}

/// What the guest has at the workspace's place.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    New,
    Known(Option<ObjectId>),
    /// What a preparation left that did not end.
    Partial,
    Files,
    /// The same once more: nothing tells what the guest has changed.
    FilesAgain,
}

/// Brings `intake` in, to `folder`. What the guest has changed since the last time is not overwritten unless `force`;
/// `on_stage` hears what is being done.
pub fn prepare(
    mut guest: Guest<'_>,
    intake: &Intake,
    folder: GuestFolder,
    force: bool,
    now: u64,
    on_stage: &mut dyn FnMut(&str),
) -> Result<Prepared, WorkspaceError> {
    on_stage("looking at the guest's folder");
    let found = open(&mut guest, intake, &folder)?;
    if !force {
        match found {
            Found::Known(_) => refuse_changed(&mut guest, &folder, head_of(intake))?,
            Found::FilesAgain => {
                return Err(WorkspaceError::Changed(vec!["perhaps: without git nobody can tell".into()]));
            }
            Found::New | Found::Partial | Found::Files => {}
        }
    }
    let carried = match &found {
        Found::Files | Found::FilesAgain => send_all(&mut guest, intake, &folder, on_stage)?,
        Found::New | Found::Partial => send(&mut guest, intake, &folder, None, on_stage)?,
        Found::Known(old) => send(&mut guest, intake, &folder, old.as_ref(), on_stage)?,
    };
    let workspace = Workspace {
        runs_in: intake.repository.guest_prefix(&folder)?,
        folder,
        source: intake.repository.source(),
        head: intake.repository.head.clone(),
        base: intake.base.clone(),
        wanted: intake.wanted.clone(),
        has_history: !matches!(found, Found::Files | Found::FilesAgain),
        has_tools: Tools::has_mise(intake),
        prepared_at: now,
        last_exit: None,
    };
    Ok(Prepared { workspace, carried: carried.entries, is_update: matches!(found, Found::Known(_)) })
}

fn open(guest: &mut Guest<'_>, intake: &Intake, folder: &GuestFolder) -> Result<Found, WorkspaceError> {
    let doing = "make the workspace's folder";
    let config = config_text(&intake.repository.guest_config());
    let words = [folder.as_str(), intake.repository.object_format.as_str()];
    let answer = guest.ask(doing, guest::OPEN, &words, config.as_bytes())?;
    let answer = String::from_utf8_lossy(&answer);
    match answer.trim().split_once(' ').unwrap_or((answer.trim(), "")) {
        ("new", _) => Ok(Found::New),
        ("partial", _) => Ok(Found::Partial),
        ("files", _) => Ok(Found::Files),
        ("files-again", _) => Ok(Found::FilesAgain),
        ("known", "-") => Ok(Found::Known(None)),
        ("known", commit) => Ok(Found::Known(commit.parse().ok())),
        ("taken", _) => Err(WorkspaceError::Taken(folder.to_string())),
        _ => Err(WorkspaceError::Guest { doing, said: answer.chars().take(80).collect() }),
    }
}

/// The branch that the guest is to be on; empty for none.
fn head_of(intake: &Intake) -> &str {
    match &intake.head {
        Head::Branch(name) => name,
        Head::Detached => "",
    }
}

fn refuse_changed(guest: &mut Guest<'_>, folder: &GuestFolder, head: &str) -> Result<(), WorkspaceError> {
    let answer = guest.ask("see what the guest has changed", guest::CHANGED, &[folder.as_str(), head], b"")?;
    let names = super::git::pieces(&answer).take(5).map(super::intake::quoted).collect::<Vec<_>>();
    if names.is_empty() { Ok(()) } else { Err(WorkspaceError::Changed(names)) }
}

fn send(
    guest: &mut Guest<'_>,
    intake: &Intake,
    folder: &GuestFolder,
    old: Option<&ObjectId>,
    on_stage: &mut dyn FnMut(&str),
) -> Result<Moved, WorkspaceError> {
    let history = History::of(intake, old)?;
    let is_shallow = history.is_shallow;
    let mut lists = lists(intake);
    if !history.objects.is_empty() {
        on_stage("sending its history");
        let git = intake.repository.git.clone();
        let name = history.name();
        let receive = guest::command(guest::RECEIVE, &[folder.as_str(), &name]);
        let index = guest.feed("take in the history", &receive, move |out| history.send(git, out))?;
        lists.push((format!("objects/pack/{name}.idx"), index));
    }
    on_stage("checking its files out");
    let inside = format!("{folder}/.git");
    guest.feed("take in the lists", &guest::unpack(&inside), move |out| pack(Path::new("/"), &[], &lists, out))?;
    let base = intake.base.as_ref().map_or("", ObjectId::as_str);
    let head = head_of(intake);
    let words = [folder.as_str(), base, if is_shallow { "yes" } else { "no" }];
    guest.ask("check the files out", guest::CHECKOUT, &words, b"")?;
    let carried: Vec<Vec<u8>> = intake.carried().into_iter().map(<[u8]>::to_vec).collect();
    let moved = send_files(guest, intake, folder, carried, on_stage)?;
    on_stage("settling the index");
    guest.ask("settle the index", guest::SETTLE, &[folder.as_str(), base, head], b"")?;
    Ok(moved)
}

/// For a guest without git: all files, and no history.
fn send_all(
    guest: &mut Guest<'_>,
    intake: &Intake,
    folder: &GuestFolder,
    on_stage: &mut dyn FnMut(&str),
) -> Result<Moved, WorkspaceError> {
    if intake.base != intake.repository.head {
        return Err(WorkspaceError::NoGit);
    }
    let paths = intake.listing().into_iter().map(|listed| listed.path).collect();
    send_files(guest, intake, folder, paths, on_stage)
}

fn send_files(
    guest: &mut Guest<'_>,
    intake: &Intake,
    folder: &GuestFolder,
    paths: Vec<Vec<u8>>,
    on_stage: &mut dyn FnMut(&str),
) -> Result<Moved, WorkspaceError> {
    if paths.is_empty() {
        return Ok(Moved::default());
    }
    on_stage(&format!("sending {} files", paths.len()));
    let top = intake.repository.top().to_owned();
    guest.feed("take in the files", &guest::unpack(folder.as_str()), move |out| pack(&top, &paths, &Vec::new(), out))
}

/// Files that are made here, with their paths.
type Texts = Vec<(String, Vec<u8>)>;

fn pack(top: &Path, paths: &[Vec<u8>], texts: &Texts, out: PipeWriter) -> Result<Moved, WorkspaceError> {
    let texts: Vec<Text<'_>> = texts.iter().map(|(name, content)| Text { name, content, mode: 0o644 }).collect();
    let paths = paths.iter().map(|bytes| path(bytes));
    Ok(pack_listed(top, paths, &texts, BufWriter::with_capacity(PORTION, out))?)
}

/// What the guest's scripts read in `.git`.
fn lists(intake: &Intake) -> Texts {
    let gone: Vec<&[u8]> = intake.deleted.iter().chain(&intake.skipped).map(Vec::as_slice).collect();
    let lists = [
        ("banger/staged", staged(intake)),
        ("banger/unmerged", unmerged(intake)),
        ("banger/intended", ended(&intake.intended)),
        ("banger/deleted", ended(&intake.deleted)),
        ("banger/emptied", ended(&emptied(intake.repository.top(), &gone))),
        ("banger/skipped", ended(&intake.skipped)),
        ("banger/submodules", ended(&intake.submodules)),
        ("banger/assumed", ended(intake.assumed.iter().chain(&intake.filtered))),
        ("banger/touched", ended(intake.edited.iter().chain(&intake.deleted).chain(&intake.untracked))),
        ("banger/others", ended(&intake.untracked)),
        ("info/exclude", ignored::rules(&intake.repository)),
    ];
    lists.into_iter().map(|(name, text)| (name.to_owned(), text)).collect()
}

fn ended<'p>(paths: impl IntoIterator<Item = &'p Vec<u8>>) -> Vec<u8> {
    paths.into_iter().flat_map(|path| path.iter().copied().chain([0])).collect()
}

/// Lines of `git update-index -z --index-info`: `MODE OBJECT⇥PATH`; mode 0 takes a path out.
fn staged(intake: &Intake) -> Vec<u8> {
    let entry = |s: &super::status::Staged| [&s.mode, b" ".as_slice(), &s.object, b"\t", &s.path, b"\0"].concat();
    intake.staged.iter().flat_map(entry).collect()
}

/// The same with stages: `MODE OBJECT STAGE⇥PATH`, once the path has been taken out.
fn unmerged(intake: &Intake) -> Vec<u8> {
    let mut text = Vec::new();
    for unmerged in &intake.unmerged {
        let none = "0".repeat(intake.base.as_ref().map_or(40, |base| base.as_str().len()));
        text.extend([b"0 ", none.as_bytes(), b"\t", &unmerged.path, b"\0"].concat());
        for (stage, mode, object) in &unmerged.stages {
            let stage = stage.to_string();
            text.extend([mode.as_slice(), b" ", object, b" ", stage.as_bytes(), b"\t", &unmerged.path, b"\0"].concat());
        }
    }
    text
}

/// Folders that were lost with their last file, the innermost first.
fn emptied(top: &Path, gone: &[&[u8]]) -> Vec<Vec<u8>> {
    use std::os::unix::ffi::OsStrExt;
    let mut folders: BTreeSet<PathBuf> = BTreeSet::new();
    for file in gone {
        for folder in path(file).ancestors().skip(1).filter(|f| !f.as_os_str().is_empty()) {
            if folders.contains(folder) || top.join(folder).symlink_metadata().is_ok_and(|about| about.is_dir()) {
                break;
            }
            folders.insert(folder.to_owned());
        }
    }
    folders.iter().rev().map(|folder| folder.as_os_str().as_bytes().to_vec()).collect()
}

/// A piece of a git configuration file (git-config(1), "Syntax").
fn config_text(settings: &[(String, String)]) -> String {
    let mut text = String::new();
    for (key, value) in settings {
        let Some((section, name)) = key.rsplit_once('.') else { continue };
        match section.split_once('.') {
            Some((section, sub)) => text.push_str(&format!("[{section} \"{sub}\"]\n")),
            None => text.push_str(&format!("[{section}]\n")),
        }
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").replace('\t', "\\t");
        text.push_str(&format!("\t{name} = \"{value}\"\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_written_so_that_git_reads_them_back() {
        let value = "a \"b\" \\ c\n# d; e\t";
        let settings = [("user.name", value), ("remote.origin.url", "https://e.org/x")];
        let settings = settings.map(|(k, v)| (k.to_owned(), v.to_owned()));
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("config");
        std::fs::write(&file, config_text(&settings)).expect("written");
        let git = super::super::git::Git::at(folder.path());
        let words = ["config", "--file", file.to_str().expect("text"), "-z", "--get", "user.name"];
        assert_eq!(git.answer(&words).expect("reads"), format!("{value}\0").into_bytes());
        let words = ["config", "--file", file.to_str().expect("text"), "--get", "remote.origin.url"];
        assert_eq!(git.line(&words).expect("reads"), Some(b"https://e.org/x".to_vec()));
    }

    #[test]
    fn folders_go_with_their_last_file_innermost_first() {
        let top = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(top.path().join("a")).expect("made");
        let gone = emptied(top.path(), &[b"a/b/c/x", b"a/b/y", b"z", b"d/e"]);
        assert_eq!(gone, [b"d".to_vec(), b"a/b/c".to_vec(), b"a/b".to_vec()]);
    }
}
