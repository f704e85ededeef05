//! `vm workspace prepare`, and what `vm run PATH` and `vm exec` need of it: a repository goes in. The daemon only
//! remembers; the stream to the guest is this process's own.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use super::super::args::WorkspacePrepare;
use super::super::client::{Client, unexpected};
use super::super::progress::Progress;
use super::super::report::Failure;
use super::super::views::WorkspaceView;
use super::super::{autostart, manner, render};
use super::way::{TIME_LIMIT, Way, failure, for_vm, too_slow};
use crate::host::paths::Paths;
use crate::model::{TimeSpan, VmName, VmRecord, Workspace, workspace::Wanted};
use crate::os::clock::unix_seconds;
use crate::protocol::owner::{OwnerReply, OwnerRequest};
use crate::protocol::{Event, FaultKind};
use crate::workspace::{self, Guest, Intake, Listed, Prepared, Why, Wishes, WorkspaceError, quoted};

/// `vm workspace prepare`: prints the folder in the guest.
pub fn prepare(asked: &WorkspacePrepare) -> Result<(), Failure> {
    asked.check()?;
    let intake = intake(&asked.path, &asked.wishes())?;
    if asked.dry_run {
        return list(&intake);
    }
    let mut client = autostart::connect(&Paths::current())?;
    // Before anything is sent: a VM that does not run is told apart from one that is not there.
    let mut way = Way::open(&mut client, &asked.name)?;
    let mut progress = Progress::new();
    let how = How { force: asked.force, limit: asked.timeout.map_or(TIME_LIMIT, TimeSpan::duration) };
    let workspace = bring_in(&mut way, &asked.name, &intake, how, &mut progress)?;
    drop(progress);
    render::either(&WorkspaceView::from(&workspace), || workspace.folder.to_string())
}

/// What of the repository at `path` would go in.
pub fn intake(path: &Path, wishes: &Wishes) -> Result<Intake, Failure> {
    let intake = Intake::of(path, wishes).map_err(|e| failure(&e))?;
    // Refused here, while nothing has been made.
    intake.repository.guest_folder().map_err(|e| failure(&e))?;
    Ok(intake)
}

/// How a repository is brought in.
#[derive(Debug, Clone, Copy)]
pub struct How {
    /// Overwrite what the guest has changed.
    pub force: bool,
    /// How long the guest may take.
    pub limit: Duration,
}

impl Default for How {
    fn default() -> Self {
        Self { force: false, limit: TIME_LIMIT }
    }
}

/// Brings `intake` in, says what stayed here, and has the daemon remember.
pub fn bring_in(
    way: &mut Way,
    name: &VmName,
    intake: &Intake,
    how: How,
    progress: &mut Progress,
) -> Result<Workspace, Failure> {
    say_what_is_included(intake);
    progress.stage(&format!("bringing in {}", intake.repository.top().display()));
    let mut on_stage = |stage: &str| progress.show(&Event::Line { text: stage.to_owned() });
    let folder = intake.repository.guest_folder().map_err(|e| failure(&e))?;
    let prepare =
        |guest: Guest<'_>| workspace::prepare(guest, intake, folder, how.force, unix_seconds(), &mut on_stage);
    let (prepared, is_over) = way.within(how.limit, prepare)?;
    // Ctrl-C has ended the host's git as well, and that is not what is wrong.
    way.heed()?;
    if is_over && prepared.is_err() {
        return Err(too_slow(name, "taken the repository in", how.limit));
    }
    let prepared = prepared.map_err(|e| for_vm(failure(&e), &e, name))?;
    progress.clear();
    // It may have taken long enough for another daemon to be there.
    let request = OwnerRequest::SetWorkspace { name: name.clone(), workspace: prepared.workspace.clone() };
    autostart::connect(&Paths::current())?.ask(request)?;
    say_what_stayed(intake, &prepared);
    Ok(prepared.workspace)
}

/// A repository may be anybody's, and its `.bangerinclude` names files of whoever uses it.
fn say_what_is_included(intake: &Intake) {
    let names: Vec<String> = intake.included.iter().take(3).map(|path| quoted(path)).collect();
    match intake.included.len() {
        0 => {}
        count if count <= 3 => render::note(&format!("ignored files that go in: {}", names.join(", "))),
        count => {
            render::note(&format!("ignored files that go in: {}, … ({count}; --dry-run lists them)", names.join(", ")))
        }
    }
}

fn say_what_stayed(intake: &Intake, prepared: &Prepared) {
    match intake.left_out {
        0 => {}
        1 => render::note("1 untracked file stays here (--include-untracked takes it along)"),
        count => render::note(&format!("{count} untracked files stay here (--include-untracked takes them along)")),
    }
    if intake.leaves_edits {
        render::note("uncommitted edits stay here: --from takes a commit as it is");
    }
    if !intake.submodules.is_empty() {
        render::note(&format!("{} submodules stay here, their folders are empty", intake.submodules.len()));
    }
    if !intake.filtered.is_empty() {
        let count = intake.filtered.len();
        render::note(&format!("{count} files of a content filter (git-lfs?) go in; changes to them do not come out"));
    }
    if !prepared.workspace.has_history {
        render::note("the image has no git: the files are there, without history; nothing can be exported");
    }
}

/// The workspace, once it is said, or mended, that the repository here has moved on.
pub fn up_to_date(
    client: &mut Client,
    name: &VmName,
    known: &Workspace,
    auto_prepare: bool,
) -> Result<Workspace, Failure> {
    let source = Path::new(OsStr::from_bytes(&known.source));
    if auto_prepare {
        let below = Path::new(known.runs_in.as_str()).strip_prefix(known.folder.as_str()).unwrap_or(Path::new(""));
        let wishes = again(source, &known.wanted);
        let intake = intake(&source.join(below), &wishes).or_else(|_| intake(source, &wishes))?;
        if !intake.repository.is_at(source) {
            return Err(failure(&WorkspaceError::NoRepository(source.to_owned())));
        }
        let mut way = Way::open(client, name)?;
        let mut progress = Progress::new();
        return bring_in(&mut way, name, &intake, How::default(), &mut progress);
    }
    // What cannot be looked at has not moved as far as anybody can say.
    if workspace::head_at(source).is_ok_and(|head| head != known.head) {
        render::note(&format!(
            "banger: {} has moved on since it was brought in (--auto-prepare brings in what has changed)",
            source.display()
        ));
    }
    Ok(known.clone())
}

/// What was asked for the last time. What was to be included and is not there any more is nothing to refuse.
fn again(source: &Path, wanted: &Wanted) -> Wishes {
    let include = wanted.include.iter().map(|path| source.join(OsStr::from_bytes(path)));
    Wishes {
        branch: wanted.branch.clone(),
        from: wanted.from.clone(),
        untracked: wanted.untracked,
        include: include.filter(|path| path.symlink_metadata().is_ok()).collect(),
        no_submodules: wanted.no_submodules,
    }
}

/// A VM without a repository.
pub fn none_in(name: &VmName) -> Failure {
    let failure = Failure::new(FaultKind::NotFound, format!("VM '{name}' has no workspace"));
    failure.hint(format!("banger vm workspace prepare {name} PATH"))
}

/// `--dry-run`: mode and path of every file, one per line; what is no file is said beside it.
pub fn list(intake: &Intake) -> Result<(), Failure> {
    let base = intake.base.as_ref().map_or("no commit yet".to_owned(), |base| format!("commit {}", base.short()));
    let listing = intake.listing();
    let what = match listing.iter().any(|listed| listed.why == Why::Untracked) {
        true => "tracked and untracked files",
        false => "tracked files",
    };
    render::note(&format!("{}: {what}, {base}", intake.repository.top().display()));
    if intake.left_out > 0 {
        render::note(&format!("{} untracked files would stay here (--include-untracked)", intake.left_out));
    }
    if manner::current().json {
        return render::json(&listing.iter().map(FileView::from).collect::<Vec<_>>());
    }
    let mut text = String::new();
    for listed in &listing {
        let why = match listed.why {
            Why::Tracked => "",
            Why::Untracked => "  (untracked)",
            Why::Included => "  (included)",
        };
        text.push_str(&format!("{} {}{why}\n", listed.mode, quoted(&listed.path)));
    }
    render::text(&text)
}

/// A file that goes in, for programs.
#[derive(serde::Serialize)]
struct FileView {
    mode: String,
    path: String,
    why: &'static str,
}

impl From<&Listed> for FileView {
    fn from(listed: &Listed) -> Self {
        let why = match listed.why {
            Why::Tracked => "tracked",
            Why::Untracked => "untracked",
            Why::Included => "included",
        };
        Self { mode: listed.mode.clone(), path: quoted(&listed.path), why }
    }
}

/// The record of a VM.
pub fn show(client: &mut Client, name: &VmName) -> Result<VmRecord, Failure> {
    match client.ask(OwnerRequest::ShowVm { name: name.clone() })? {
        OwnerReply::Vm(vm) => Ok(*vm),
        other => Err(unexpected(&other)),
    }
}
