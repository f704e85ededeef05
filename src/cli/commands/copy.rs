//! `vm cp`: files and folders into a VM and out of it, as a tar stream between two ends that both are
//! this binary (or the image's `tar`, over ssh). What comes out of a guest is hostile: it is unpacked
//! so that nothing in it leads out of where it was to go.

use std::ffi::{OsStr, OsString};
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::super::args::Usage;
use super::super::report::Failure;
use super::super::{autostart, render};
use super::session;
use crate::host::paths::Paths;
use crate::model::VmName;
use crate::os::archive::{self, ArchiveError, Moved};
use crate::protocol::shell::Tool;
use crate::protocol::{Fault, FaultKind};
use crate::shell::{Command, Control, GuestShell, HostSignals, Io, Outcome, capture_heeding};

/// Most bytes of a guest's answer to a question.
const ANSWER: u64 = 4096;

/// One of the two ends.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// Standard input or output, a tar stream.
    Stream,
    /// A path here.
    Here(PathBuf),
    /// A path in a VM.
    There(VmName, String),
}

impl Place {
    /// `NAME:PATH`, unless a `/` stands before the colon.
    fn parse(text: &str) -> Result<Self, Failure> {
        if text == "-" {
            return Ok(Self::Stream);
        }
        match text.split_once(':') {
            Some((name, path)) if !name.contains('/') => {
                let name = name.parse::<VmName>().map_err(|e| Fault::of(FaultKind::BadRequest, &e))?;
                Ok(Self::There(name, if path.is_empty() { "." } else { path }.to_owned()))
            }
            Some(_) | None => Ok(Self::Here(text.into())),
        }
    }
}

/// Copies `src` to `dst`.
pub fn copy(src: &str, dst: &str) -> Result<(), Failure> {
    match (Place::parse(src)?, Place::parse(dst)?) {
        (Place::There(name, path), dst @ (Place::Here(_) | Place::Stream)) => Copy::open(&name)?.out(&path, dst),
        (src @ (Place::Here(_) | Place::Stream), Place::There(name, path)) => Copy::open(&name)?.in_(src, &path),
        (Place::There(..), Place::There(..)) => {
            Err(Usage::new("one of both has to be here: copy by way of a folder", &["vm", "cp"]).into())
        }
        (Place::Here(_) | Place::Stream, Place::Here(_) | Place::Stream) => {
            Err(Usage::new("neither is in a VM: write NAME:PATH", &["vm", "cp"]).into())
        }
    }
}

/// What is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Folder,
    File,
    /// A device, a socket, a pipe, or a link that leads nowhere.
    Other,
    Nothing,
}

/// How a source is named: with a name of its own, or as the content of a folder (`FOLDER/.`).
#[derive(Debug, PartialEq, Eq)]
struct Source {
    folder: PathBuf,
    name: Option<OsString>,
}

impl Source {
    fn of(path: &Path) -> Self {
        let text = path.as_os_str().as_bytes();
        let is_content = text == b"." || text.ends_with(b"/.");
        match (path.file_name(), path.parent()) {
            (Some(name), Some(parent)) if !is_content => {
                let folder = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
                Self { folder: folder.to_owned(), name: Some(name.to_owned()) }
            }
            _ => Self { folder: path.to_owned(), name: None },
        }
    }
}

/// Where it goes: into which folder, and under which name; `None` keeps the names of the stream.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    folder: PathBuf,
    name: Option<OsString>,
}

/// As cp(1) decides: into a folder that is there, under its own name; else as `dst` itself.
fn target(source: &Source, is_folder: bool, dst: &Path, there: Found) -> Result<Target, Failure> {
    let refused = |why: &str| Failure::new(FaultKind::BadRequest, format!("{}: {why}", dst.display()));
    let ends_in_slash = dst.as_os_str().as_bytes().ends_with(b"/");
    match there {
        Found::Folder => Ok(Target { folder: dst.to_owned(), name: source.name.clone() }),
        Found::Other => Err(refused("it is there and neither file nor folder")),
        Found::File if is_folder || ends_in_slash => Err(refused("it is there and no folder")),
        Found::Nothing if ends_in_slash && !is_folder => Err(refused("no such folder")),
        Found::File | Found::Nothing => match (dst.parent(), dst.file_name()) {
            (Some(parent), Some(name)) => {
                let folder = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
                Ok(Target { folder: folder.to_owned(), name: Some(name.to_owned()) })
            }
            _ => Err(refused("not a name for a file")),
        },
    }
}

/// A copy under way.
struct Copy {
    name: VmName,
    shell: Box<dyn GuestShell>,
    signals: HostSignals,
}

impl Copy {
    fn open(name: &VmName) -> Result<Self, Failure> {
        let paths = Paths::current();
        let carriers = session::carriers(&paths, Some(&[]))?;
        let way = session::open(&mut autostart::connect(&paths)?, name, carriers)?;
        let mut signals = session::signals()?;
        let shell = session::connect(way, &mut signals)?;
        Ok(Self { name: name.clone(), shell, signals })
    }

    fn in_(mut self, src: Place, path: &str) -> Result<(), Failure> {
        let there = self.probe(path)?;
        let Place::Here(src) = src else {
            let outcome = self.run(Tool::Unpack { folder: path.as_bytes().to_vec() }, &io::stdin(), &io::stderr())?;
            return self.judge(outcome);
        };
        let source = Source::of(&src);
        let about = std::fs::metadata(&src).map_err(|e| not_here(&src, &e))?;
        let target = target(&source, about.is_dir(), Path::new(path), there)?;
        let folder = target.folder.as_os_str().as_bytes().to_vec();
        let (reader, writer) = pipe()?;
        let packing = std::thread::spawn(move || pack(&source, target.name.as_deref(), writer));
        let outcome = self.run(Tool::Unpack { folder }, &reader, &io::stderr());
        // Or the other end would wait for a reader that never comes.
        drop(reader);
        let packed = packing.join().map_err(|_| Failure::new(FaultKind::OperationFailed, "the packing broke off"))?;
        self.judge(outcome?)?;
        say_skipped(&packed.map_err(|e| self.failed(&e))?);
        Ok(())
    }

    fn out(mut self, path: &str, dst: Place) -> Result<(), Failure> {
        let is_folder = match self.probe(path)? {
            Found::Nothing => {
                return Err(Failure::new(FaultKind::NotFound, format!("VM '{}' has no {path}", self.name)));
            }
            found => found == Found::Folder,
        };
        let source = Source::of(Path::new(path));
        let name = source.name.clone().unwrap_or_else(|| ".".into());
        let tool = Tool::Pack { folder: source.folder.as_os_str().as_bytes().to_vec(), name: name.as_bytes().to_vec() };
        let Place::Here(dst) = dst else {
            let outcome = self.run(tool, &nothing()?, &io::stdout())?;
            return self.judge(outcome);
        };
        let target = target(&source, is_folder, &dst, look(&dst)?)?;
        if source.name.is_none() && look(&dst)? == Found::Nothing {
            std::fs::create_dir(&dst).map_err(|e| not_here(&dst, &e))?;
        }
        let target = if source.name.is_none() { Target { folder: dst, name: None } } else { target };
        let (reader, writer) = pipe()?;
        let unpacking = std::thread::spawn(move || archive::unpack(&target.folder, target.name.as_deref(), reader));
        let outcome = self.run(tool, &nothing()?, &writer);
        drop(writer);
        let unpacked = unpacking.join();
        let unpacked = unpacked.map_err(|_| Failure::new(FaultKind::OperationFailed, "the unpacking broke off"))?;
        match (outcome?, unpacked) {
            (Outcome::Exited(0), unpacked) => {
                say_skipped(&unpacked.map_err(|e| self.failed(&e))?);
                Ok(())
            }
            // The guest was cut short because nobody read on: here is why.
            (Outcome::Signaled { number: signal_hook::consts::SIGPIPE, .. }, Err(e)) => Err(self.failed(&e)),
            (outcome, _) => self.judge(outcome),
        }
    }

    fn probe(&mut self, path: &str) -> Result<Found, Failure> {
        let command = Command::tool(Tool::Probe { path: path.as_bytes().to_vec() });
        let control: Option<&mut dyn Control> = Some(&mut self.signals);
        let captured = capture_heeding(&mut *self.shell, &command, b"", ANSWER, control);
        let captured = captured.map_err(|e| session::of_shell(&e))?;
        if let Outcome::Signaled { number, .. } = captured.outcome {
            return Err(Failure::Signalled(number));
        }
        match captured.stdout.as_slice() {
            b"folder\n" => Ok(Found::Folder),
            b"file\n" => Ok(Found::File),
            b"other\n" => Ok(Found::Other),
            b"nothing\n" => Ok(Found::Nothing),
            _ => {
                let said: String = String::from_utf8_lossy(&captured.stderr).trim().chars().take(200).collect();
                let fault =
                    Fault::new(FaultKind::OperationFailed, format!("VM '{}' cannot say what {path} is", self.name));
                Err(fault.cause(said).into())
            }
        }
    }

    fn run(&mut self, tool: Tool, stdin: &impl AsFd, stdout: &impl AsFd) -> Result<Outcome, Failure> {
        let stderr = io::stderr();
        let control: Option<&mut dyn Control> = Some(&mut self.signals);
        let io = Io { stdin: stdin.as_fd(), stdout: stdout.as_fd(), stderr: stderr.as_fd(), control };
        self.shell.run(&Command::tool(tool), io).map_err(|e| session::of_shell(&e))
    }

    /// What the guest's end says of how it went; its words are on standard error already.
    fn judge(&self, outcome: Outcome) -> Result<(), Failure> {
        match outcome {
            Outcome::Exited(0) => Ok(()),
            Outcome::Signaled { number, .. } if number > 0 => Err(Failure::Signalled(number)),
            Outcome::Exited(_) | Outcome::Signaled { .. } => {
                Err(Failure::new(FaultKind::OperationFailed, format!("not all was copied: VM '{}' failed", self.name)))
            }
        }
    }

    fn failed(&self, error: &ArchiveError) -> Failure {
        Fault::failed(format!("not all was copied from or to VM '{}'", self.name), error).into()
    }
}

fn pack(source: &Source, as_name: Option<&OsStr>, out: PipeWriter) -> Result<Moved, ArchiveError> {
    let name = source.name.as_deref().unwrap_or(OsStr::new("."));
    archive::pack(&source.folder, name, as_name.unwrap_or_default(), io::BufWriter::with_capacity(64 << 10, out))
}

fn pipe() -> Result<(PipeReader, PipeWriter), Failure> {
    io::pipe().map_err(|e| Fault::failed("cannot make a pipe", &e).into())
}

fn nothing() -> Result<std::fs::File, Failure> {
    std::fs::File::open("/dev/null").map_err(|e| Fault::failed("cannot open /dev/null", &e).into())
}

fn look(path: &Path) -> Result<Found, Failure> {
    match std::fs::metadata(path) {
        Ok(about) if about.is_dir() => Ok(Found::Folder),
        Ok(about) if about.is_file() => Ok(Found::File),
        Ok(_) => Ok(Found::Other),
        Err(e) if e.kind() == io::ErrorKind::NotFound && path.is_symlink() => Ok(Found::Other),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Found::Nothing),
        Err(e) => Err(not_here(path, &e)),
    }
}

fn not_here(path: &Path, error: &io::Error) -> Failure {
    let kind = if error.kind() == io::ErrorKind::NotFound { FaultKind::NotFound } else { FaultKind::OperationFailed };
    Fault::new(kind, format!("cannot use {}", path.display())).cause(error.to_string()).into()
}

fn say_skipped(moved: &Moved) {
    if moved.skipped > 0 {
        render::note(&format!("left out: {} devices, sockets or pipes", moved.skipped));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_in_a_vm_when_a_name_stands_before_a_colon() {
        let there = |name: &str, path: &str| Place::There(name.parse().expect("a name"), path.into());
        for (text, place) in [
            ("-", Place::Stream),
            ("box:/etc", there("box", "/etc")),
            ("box:", there("box", ".")),
            ("box:a:b", there("box", "a:b")),
            ("./a:b", Place::Here("./a:b".into())),
            ("/x/y", Place::Here("/x/y".into())),
        ] {
            assert_eq!(Place::parse(text).expect("a place"), place);
        }
        assert!(Place::parse("B_X:/etc").is_err());
    }

    #[test]
    fn a_target_is_chosen_as_cp_does() {
        let chosen = |src: &str, is_folder, dst: &str, there| {
            let target = target(&Source::of(Path::new(src)), is_folder, Path::new(dst), there).ok()?;
            Some((target.folder.display().to_string(), target.name.map(|n| n.to_string_lossy().into_owned())))
        };
        let named = |folder: &str, name: &str| Some((folder.to_owned(), Some(name.to_owned())));
        assert_eq!(chosen("a/f", false, "/opt", Found::Folder), named("/opt", "f"));
        assert_eq!(chosen("a/f", false, "/opt/g", Found::Nothing), named("/opt", "g"));
        assert_eq!(chosen("a/f", false, "/opt/g", Found::File), named("/opt", "g"));
        assert_eq!(chosen("a/f", false, "g", Found::Nothing), named(".", "g"));
        assert_eq!(chosen("a/f", false, "/opt/", Found::Nothing), None);
        assert_eq!(chosen("a/d", true, "/opt/", Found::Nothing), named("/", "opt"));
        assert_eq!(chosen("a/d", true, "/opt", Found::File), None);
        assert_eq!(chosen("a/f", false, "/dev/null", Found::Other), None);
        assert_eq!(chosen("a/d/.", true, "/opt", Found::Folder), Some(("/opt".into(), None)));
        assert_eq!(chosen(".", true, "/opt", Found::Folder), Some(("/opt".into(), None)));
        assert_eq!(chosen("a/d/.", true, "/opt", Found::Nothing), named("/", "opt"));
    }
}
