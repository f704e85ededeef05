//! `vm workspace export`, and the patch of `vm run --export`: what became of a repository in a guest.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::args::{Usage, WorkspaceExport};
use super::super::client::Client;
use super::super::report::Failure;
use super::super::table::Table;
use super::super::{autostart, render};
use super::images;
use super::way::{TIME_LIMIT, Way, failure, for_vm, too_slow};
use super::workspace::{none_in, show};
use crate::host::paths::Paths;
use crate::model::{Mib, TimeSpan, VmName, VmRecord, Workspace};
use crate::os::clock::unix_seconds;
use crate::os::logger::timestamp;
use crate::os::random;
use crate::protocol::Fault;
use crate::workspace::{self, Exported, From, Guest, Summary, WorkspaceError, quoted};

/// Bytes between two looks at whether somebody wants an end.
const PORTION: u64 = 1 << 20;

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
        let time = Bounds::of(asked).time;
        let (summary, is_over) = way.within(time, |guest| workspace::summary(guest, &workspace.folder, &from))?;
        if is_over && summary.is_err() {
            return Err(too_slow(&asked.name, "told what has changed", time));
        }
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
        loop {
            way.heed()?;
            let mut out = io::stdout().lock();
            match io::copy(&mut (&mut file).take(PORTION), &mut out).and_then(|count| out.flush().map(|()| count)) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Err(Failure::ReaderGone),
                Err(e) => return Err(not_written(Path::new("standard output"), &e)),
            }
        }
    }

    fn make(&self, way: &mut Way, out: File, header: Header) -> Result<Exported, Failure> {
        let (folder, bytes) = (&self.workspace.folder, self.bounds.bytes);
        let make =
            |guest: Guest<'_>| workspace::export(guest, folder, &self.from, out, bytes, move |from| header.text(from));
        let (exported, is_over) = way.within(self.bounds.time, make)?;
        if is_over && exported.is_err() {
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
    way.heed()?;
    let applied = workspace::apply(top, &file, allow_git_config);
    render::note(&format!("the patch is saved in {}", file.display()));
    match applied {
        Ok(count) => {
            let shown = |path: &Path| path.display().to_string();
            let view = AppliedView { repository: shown(top), patch: shown(&file), files_changed: count as u64 };
            render::either(&view, || match count {
                0 => format!("{}: nothing has changed", top.display()),
                1 => format!("{}: 1 file changed", top.display()),
                _ => format!("{}: {count} files changed", top.display()),
            })
        }
        Err(e) => Err(failure(&e).hint(format!("git apply --stat {}      (then by hand)", file.display()))),
    }
}

#[derive(serde::Serialize)]
struct AppliedView {
    repository: String,
    patch: String,
    files_changed: u64,
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
    render::text(&Table::new(&["FILE", "ADDED", "REMOVED"], summary.iter().map(row)).text(false))
}
