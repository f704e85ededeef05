//! `vm workspace`, and what `vm run PATH` and `vm exec` need of it: a repository goes in, a patch comes out. The
//! daemon only remembers; the stream to the guest is this process's own.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, PipeWriter, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::args::{Usage, WorkspaceExport, WorkspacePrepare};
use super::super::client::{Client, unexpected};
use super::super::progress::Progress;
use super::super::report::Failure;
use super::super::{autostart, render};
use super::{exec, images, session};
use crate::host::paths::Paths;
use crate::model::{Egress, Mib, Reach, TimeSpan, VmName, VmRecord, Workspace, workspace::Wanted as Wishlist};
use crate::os::clock::unix_seconds;
use crate::os::logger::timestamp;
use crate::os::random;
use crate::protocol::owner::{Carrier, OwnerReply, OwnerRequest};
use crate::protocol::shell::Tool;
use crate::protocol::{Event, Fault, FaultKind};
use crate::shell::{Command, GuestShell, HostSignals, Io, Outcome, TimeLimit};
use crate::workspace::{
    self, Exported, From, Guest, Intake, Prepared, Summary, TOOLS_LOG, Tools, Why, Wishes, WorkspaceError, quoted,
};

/// How long a guest may take to take a repository in, or to make a patch, where nothing else is asked for.
pub const TIME_LIMIT: Duration = Duration::from_secs(30 * 60);

/// What a patch may cost.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    bytes: u64,
    time: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { bytes: workspace::MAX_PATCH, time: TIME_LIMIT }
    }
}

impl Bounds {
    fn of(asked: &WorkspaceExport) -> Self {
        let usual = Self::default();
        Self {
            bytes: asked.max_size.map_or(usual.bytes, Mib::bytes),
            time: asked.timeout.map_or(usual.time, TimeSpan::duration),
        }
    }
}

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
    render::line(workspace.folder.as_str())
}

/// A way into a guest that takes several commands, one after the other.
pub struct Way {
    shell: Box<dyn GuestShell>,
    signals: HostSignals,
}

impl Way {
    /// Over the agent, which every guest has.
    pub fn open(client: &mut Client, name: &VmName) -> Result<Self, Failure> {
        let way = session::open(client, name, vec![Carrier::Agent, Carrier::Ssh])?;
        let mut signals = session::signals()?;
        let shell = session::connect(way, &mut signals)?;
        Ok(Self { shell, signals })
    }

    /// Unpacks what `source` writes in `folder`; `doing` says in errors what it was for.
    pub fn unpack(
        &mut self,
        doing: &'static str,
        folder: &str,
        source: impl FnOnce(PipeWriter) -> Result<(), WorkspaceError> + Send + 'static,
    ) -> Result<(), WorkspaceError> {
        self.guest().feed(doing, &Command::tool(Tool::Unpack { folder: folder.as_bytes().to_vec() }), source)
    }

    fn guest(&mut self) -> Guest<'_> {
        Guest { shell: &mut *self.shell, control: &mut self.signals }
    }
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
    let limited = TimeLimit::new(&mut way.signals, Some(how.limit));
    let mut control = limited.map_err(|e| Fault::failed("cannot measure the time", &e))?;
    let guest = Guest { shell: &mut *way.shell, control: &mut control };
    let prepared = workspace::prepare(guest, intake, folder, how.force, unix_seconds(), &mut on_stage);
    if control.is_over() && prepared.is_err() {
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

fn too_slow(name: &VmName, what: &str, limit: Duration) -> Failure {
    let message = format!("VM '{name}' has not {what} within {limit:?}");
    Failure::new(FaultKind::OperationFailed, message).hint("--timeout gives it more time")
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
fn again(source: &Path, wanted: &Wishlist) -> Wishes {
    let include = wanted.include.iter().map(|path| source.join(OsStr::from_bytes(path)));
    Wishes {
        branch: wanted.branch.clone(),
        from: wanted.from.clone(),
        untracked: wanted.untracked,
        include: include.filter(|path| path.symlink_metadata().is_ok()).collect(),
        no_submodules: wanted.no_submodules,
    }
}

/// What the repository wants to be installed; refused, while there is no VM, where it cannot be.
pub fn tools(intake: &Intake, egress: &Egress) -> Result<Tools, Failure> {
    let tools = Tools::of(intake);
    if let Some(trouble) = &tools.trouble {
        render::note(&format!("banger: warning: {trouble}: left out"));
    }
    let reaches_nothing = egress.reach == Reach::Granted && egress.grants.is_empty();
    if !tools.mise.is_empty() && reaches_nothing {
        let message = format!("{} names tools, which the guest cannot fetch without a network", tools.mise.join(", "));
        let failure = Failure::new(FaultKind::BadRequest, message);
        return Err(failure.hint("--nat lets it reach the internet").hint("--no-bootstrap does without them"));
    }
    Ok(tools)
}

/// Installs `tools` while somebody waits, and shows what they say.
pub fn install(way: &mut Way, name: &VmName, workspace: &Workspace, tools: &Tools) -> Result<(), Failure> {
    render::note(&format!("tools: {}", tools.in_words()));
    let stderr = io::stderr();
    let null = File::options().read(true).write(true).open("/dev/null");
    let null = null.map_err(|e| Fault::failed("cannot open /dev/null", &e))?;
    let io = Io { stdin: null.as_fd(), stdout: null.as_fd(), stderr: stderr.as_fd(), control: Some(&mut way.signals) };
    match way.shell.run(&tools.command(&workspace.folder), io).map_err(|e| session::of_shell(&e))? {
        Outcome::Exited(0) => Ok(()),
        Outcome::Signaled { number, .. } if number > 0 => Err(Failure::Signalled(number)),
        Outcome::Exited(_) | Outcome::Signaled { .. } => {
            let message = format!("the tools of {} could not be installed in VM '{name}'", workspace.folder);
            let failure = Failure::new(FaultKind::OperationFailed, message);
            Err(failure
                .hint(format!("banger vm exec {name} -- cat {TOOLS_LOG}"))
                .hint("--no-bootstrap does without them"))
        }
    }
}

/// Installs `tools` while nobody waits.
pub fn install_behind(client: &mut Client, name: &VmName, workspace: &Workspace, tools: &Tools) -> Result<(), Failure> {
    let way = session::open(client, name, vec![Carrier::Agent])?;
    let job = exec::left_behind(way, &tools.command(&workspace.folder))?;
    render::note(&format!("tools: {}, in the background: banger vm attach {name} {job}", tools.in_words()));
    Ok(())
}

/// `words` as they are run in the workspace.
pub fn command_in(workspace: &Workspace, words: Vec<OsString>) -> Command {
    let command = match workspace.has_tools {
        true => Tools::wrapped(words, &workspace.folder),
        false => Command::new(words),
    };
    command.in_folder(workspace.runs_in.as_str())
}

/// A VM without a repository.
pub fn none_in(name: &VmName) -> Failure {
    let failure = Failure::new(FaultKind::NotFound, format!("VM '{name}' has no workspace"));
    failure.hint(format!("banger vm workspace prepare {name} PATH"))
}

/// `--dry-run`: mode and path of every file, one per line; what is no file is said beside it.
pub fn list(intake: &Intake) -> Result<(), Failure> {
    let base = intake.base.as_ref().map_or("no commit yet".to_owned(), |base| format!("commit {}", base.short()));
    let what = match intake.listing().iter().any(|listed| listed.why == Why::Untracked) {
        true => "tracked and untracked files",
        false => "tracked files",
    };
    render::note(&format!("{}: {what}, {base}", intake.repository.top().display()));
    let mut text = String::new();
    for listed in intake.listing() {
        let why = match listed.why {
            Why::Tracked => "",
            Why::Untracked => "  (untracked)",
            Why::Included => "  (included)",
        };
        text.push_str(&format!("{} {}{why}\n", listed.mode, quoted(&listed.path)));
    }
    if intake.left_out > 0 {
        render::note(&format!("{} untracked files would stay here (--include-untracked)", intake.left_out));
    }
    render::text(&text)
}

/// `vm workspace export`.
pub fn export(asked: &WorkspaceExport) -> Result<(), Failure> {
    asked.check()?;
    let mut client = autostart::connect(&Paths::current())?;
    let vm = show(&mut client, &asked.name)?;
    let workspace = of(&vm)?.clone();
    let from = match &asked.base {
        Some(base) => From::Commit(checked_ref(base)?),
        None if asked.apply => From::Prepared,
        None => From::Base,
    };
    let mut way = Way::open(&mut client, &asked.name)?;
    if asked.stat {
        let summary = workspace::summary(way.guest(), &workspace.folder, &from);
        return show_summary(&summary.map_err(|e| for_vm(failure(&e), &e, &asked.name))?, asked.json);
    }
    let header = Header::of(&mut client, &vm, workspace.last_exit);
    drop(client);
    let wanted = Wanted { name: &asked.name, workspace: &workspace, from, bounds: Bounds::of(asked) };
    match (asked.apply, &asked.output) {
        (true, output) => apply(&mut way, &wanted, asked.allow_git_config, output.as_deref(), header),
        (false, Some(file)) => wanted.to_file(&mut way, file, header).map(|_| ()),
        (false, None) => wanted.to_stdout(&mut way, header),
    }
}

fn checked_ref(text: &str) -> Result<String, Failure> {
    let is_fine = !text.is_empty() && !text.starts_with(['-', '@']) && !text.chars().any(char::is_control);
    if is_fine {
        Ok(text.to_owned())
    } else {
        Err(Usage::new(format!("{text:?} names no commit"), &["vm", "workspace", "export"]).into())
    }
}

/// The record of a VM.
pub fn show(client: &mut Client, name: &VmName) -> Result<VmRecord, Failure> {
    match client.ask(OwnerRequest::ShowVm { name: name.clone() })? {
        OwnerReply::Vm(vm) => Ok(*vm),
        other => Err(unexpected(&other)),
    }
}

fn of(vm: &VmRecord) -> Result<&Workspace, Failure> {
    let workspace = vm.workspace.as_ref().ok_or_else(|| none_in(&vm.spec.name))?;
    if !workspace.has_history {
        return Err(failure(&WorkspaceError::NoGit));
    }
    Ok(workspace)
}

/// What stands above a patch: what this host knows.
pub struct Header {
    lines: Vec<String>,
}

impl Header {
    /// For a patch of `vm`, whose last command ended with `exit`.
    pub fn of(client: &mut Client, vm: &VmRecord, exit: Option<u8>) -> Self {
        let mut lines = vec![
            format!("banger: what became of {} in VM '{}'", source_of(vm), vm.spec.name),
            format!("time: {}", timestamp(unix_seconds())),
            format!(
                "image: {}{}",
                vm.spec.image,
                images::digest(client, &vm.spec.image).map_or_else(String::new, |d| format!("@{d}"))
            ),
        ];
        lines.extend(exit.map(|code| format!("exit code of the last command: {code}")));
        Self { lines }
    }

    fn text(&self, from: &str) -> String {
        let base = if from.is_empty() { "base: unknown".to_owned() } else { format!("base: {from}") };
        let lines = self.lines.iter().chain([&base]);
        let lines: String =
            lines.map(|line| format!("{}{}\n", workspace::patch::HEADER, render::plain(line))).collect();
        format!("{lines}\n")
    }
}

fn source_of(vm: &VmRecord) -> String {
    vm.workspace.as_ref().map_or_else(String::new, |w| quoted(&w.source))
}

/// A patch that is wanted.
pub struct Wanted<'w> {
    /// The VM.
    pub name: &'w VmName,
    /// What was brought in.
    pub workspace: &'w Workspace,
    /// What it begins from.
    pub from: From,
    /// What it may cost.
    pub bounds: Bounds,
}

impl Wanted<'_> {
    /// Writes the patch to `file`, which is whole or as it was.
    pub fn to_file(&self, way: &mut Way, file: &Path, header: Header) -> Result<Exported, Failure> {
        let temporary = beside(file);
        let create = File::options().write(true).create_new(true).open(&temporary);
        let out = create.map_err(|e| not_written(file, &e))?;
        let finished = self.make(way, out, header).and_then(|exported| {
            std::fs::rename(&temporary, file).map_err(|e| not_written(file, &e))?;
            Ok(exported)
        });
        if finished.is_err() {
            // The failure that matters is the first.
            let _ = std::fs::remove_file(&temporary);
        }
        finished
    }

    /// Once it is complete: nobody applies half a patch.
    fn to_stdout(&self, way: &mut Way, header: Header) -> Result<(), Failure> {
        let scratch = std::env::temp_dir().join(format!("banger-patch-{:x}", random::number()));
        let create = File::options().read(true).write(true).create_new(true).open(&scratch);
        let mut file = create.map_err(|e| not_written(&scratch, &e))?;
        std::fs::remove_file(&scratch).map_err(|e| not_written(&scratch, &e))?;
        let out = file.try_clone().map_err(|e| not_written(&scratch, &e))?;
        self.make(way, out, header)?;
        file.rewind().map_err(|e| not_written(&scratch, &e))?;
        match io::copy(&mut file, &mut io::stdout().lock()).and_then(|_| io::stdout().flush()) {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Err(Failure::ReaderGone),
            other => other.map_err(|e| not_written(Path::new("standard output"), &e)),
        }
    }

    fn make(&self, way: &mut Way, out: File, header: Header) -> Result<Exported, Failure> {
        let limited = TimeLimit::new(&mut way.signals, Some(self.bounds.time));
        let mut control = limited.map_err(|e| Fault::failed("cannot measure the time", &e))?;
        let guest = Guest { shell: &mut *way.shell, control: &mut control };
        let folder = &self.workspace.folder;
        let exported =
            workspace::export(guest, folder, &self.from, out, self.bounds.bytes, move |from| header.text(from));
        if control.is_over() && exported.is_err() {
            return Err(too_slow(self.name, "made the patch", self.bounds.time));
        }
        exported.map_err(|e| for_vm(failure(&e), &e, self.name))
    }
}

fn beside(file: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(file.file_name().unwrap_or(OsStr::new("patch")));
    name.push(format!(".{:x}", random::number()));
    file.with_file_name(name)
}

fn not_written(file: &Path, error: &io::Error) -> Failure {
    Fault::failed(format!("cannot write {}", file.display()), error).into()
}

fn apply(
    way: &mut Way,
    wanted: &Wanted<'_>,
    allow_git_config: bool,
    output: Option<&Path>,
    header: Header,
) -> Result<(), Failure> {
    let top = Path::new(OsStr::from_bytes(&wanted.workspace.source));
    let file = match output {
        Some(file) => std::path::absolute(file).map_err(|e| not_written(file, &e))?,
        None => saved_in(top, wanted.name)?,
    };
    wanted.to_file(way, &file, header)?;
    let applied = workspace::apply(top, &file, allow_git_config);
    render::note(&format!("the patch is saved in {}", file.display()));
    match applied {
        Ok(0) => render::line(&format!("{}: nothing has changed", top.display())),
        Ok(1) => render::line(&format!("{}: 1 file changed", top.display())),
        Ok(count) => render::line(&format!("{}: {count} files changed", top.display())),
        Err(e) => Err(failure(&e).hint(format!("git apply --stat {}      (then by hand)", file.display()))),
    }
}

/// A file in the repository's own folder, where it is in nobody's way.
fn saved_in(top: &Path, name: &VmName) -> Result<PathBuf, Failure> {
    let repository = workspace::Repository::open(top).map_err(|e| failure(&e))?;
    let folder = repository.git_folder().map_err(|e| failure(&e))?.join("banger");
    std::fs::create_dir_all(&folder).map_err(|e| not_written(&folder, &e))?;
    Ok(folder.join(format!("{name}-{}.patch", unix_seconds())))
}

#[derive(serde::Serialize)]
struct SummaryView {
    path: String,
    added: Option<u64>,
    removed: Option<u64>,
}

fn show_summary(summary: &[Summary], json: bool) -> Result<(), Failure> {
    if json {
        let view = |s: &Summary| SummaryView {
            path: quoted(&s.path),
            added: s.lines.map(|(added, _)| added),
            removed: s.lines.map(|(_, removed)| removed),
        };
        return render::json(&summary.iter().map(view).collect::<Vec<_>>());
    }
    let row = |s: &Summary| match s.lines {
        Some((added, removed)) => vec![quoted(&s.path), format!("+{added}"), format!("-{removed}")],
        None => vec![quoted(&s.path), "binary".to_owned(), String::new()],
    };
    render::text(&render::table(&["FILE", "ADDED", "REMOVED"], &summary.iter().map(row).collect::<Vec<_>>()))
}

/// What an error is to whoever asked.
pub fn failure(error: &WorkspaceError) -> Failure {
    let kind = match error {
        WorkspaceError::Signalled(signal) => return Failure::Signalled(*signal),
        WorkspaceError::Path { source, .. } if source.kind() == io::ErrorKind::NotFound => FaultKind::NotFound,
        WorkspaceError::Path { .. }
        | WorkspaceError::NoFolder(_)
        | WorkspaceError::NoRepository(_)
        | WorkspaceError::Bare(_)
        | WorkspaceError::Submodules { .. }
        | WorkspaceError::NoCommit(_)
        | WorkspaceError::BranchName(_)
        | WorkspaceError::NoCommits
        | WorkspaceError::Outside { .. }
        | WorkspaceError::NothingThere(_)
        | WorkspaceError::Folder(_) => FaultKind::BadRequest,
        WorkspaceError::Taken(_) | WorkspaceError::Changed(_) => FaultKind::InUse,
        WorkspaceError::Patch(_) | WorkspaceError::TooLarge(_) => FaultKind::Refused,
        WorkspaceError::Git(_)
        | WorkspaceError::Archive(_)
        | WorkspaceError::Shell(_)
        | WorkspaceError::Guest { .. }
        | WorkspaceError::NoGit
        | WorkspaceError::File { .. }
        | WorkspaceError::Pipe(_)
        | WorkspaceError::DoesNotFit(_) => FaultKind::OperationFailed,
    };
    let failure = Failure::from(Fault::of(kind, error));
    match error {
        WorkspaceError::Path { path, source } if source.kind() == io::ErrorKind::NotFound && is_word(path) => {
            failure.hint(format!("banger vm run -- {}      (for a command)", path.display()))
        }
        WorkspaceError::NoRepository(path) => {
            let path = path.display();
            failure
                .hint(format!("git -C {path} init && git -C {path} add .      (makes it one)"))
                .hint("banger vm cp SRC NAME:DST      (copies any folder)")
        }
        WorkspaceError::TooLarge(_) => {
            failure.hint("--max-size permits more").hint("--stat tells which files they are")
        }
        WorkspaceError::Submodules { .. } => failure.hint("--no-submodules leaves their folders empty"),
        _ => failure,
    }
}

fn is_word(path: &Path) -> bool {
    path.components().count() == 1 && !path.as_os_str().as_bytes().starts_with(b".")
}

/// What to type next, where that depends on the VM.
fn for_vm(failure: Failure, error: &WorkspaceError, name: &VmName) -> Failure {
    match error {
        WorkspaceError::Changed(_) => failure
            .hint(format!("banger vm workspace export {name} -o changes.patch      (keeps it)"))
            .hint(format!("banger vm workspace prepare {name} PATH --force      (overwrites it)")),
        WorkspaceError::Taken(folder) => failure.hint(format!("banger vm exec {name} -- ls -la {folder}")),
        _ => failure,
    }
}
