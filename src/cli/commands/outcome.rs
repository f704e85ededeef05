//! `vm run --result FILE`: how it went, for programs (`JSON.md`).

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;

use super::super::report::Failure;
use super::session::Ended;
use crate::model::image::ImageRecord;
use crate::model::{VmSpec, Workspace};
use crate::os::files::write_atomic;
use crate::protocol::{Fault, FaultKind};

/// What a run goes through, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The VM answers.
    Ready,
    /// The repository is there.
    Workspace,
    /// Its tools are there.
    Tools,
    /// The command has ended.
    Command,
    /// The patch is written.
    Export,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Reached {
    phase: Phase,
    seconds: f64,
}

#[derive(Debug, Default, Serialize)]
struct View {
    version: u32,
    exit_code: u8,
    signal: Option<String>,
    timed_out: bool,
    error: Option<String>,
    phases: Vec<Reached>,
    vm: Option<VmView>,
    workspace: Option<WorkspaceView>,
}

#[derive(Debug, Serialize)]
struct VmView {
    name: String,
    image: String,
    image_digest: Option<String>,
    kernel: String,
    vcpus: u8,
    memory_mib: u32,
    disk_mib: u32,
}

#[derive(Debug, Serialize)]
struct WorkspaceView {
    source: String,
    folder: String,
    head: Option<String>,
    base: Option<String>,
}

/// What is written down while it goes on; each phase with the seconds that it took.
#[derive(Debug)]
pub struct Protocol {
    file: Option<PathBuf>,
    last: Instant,
    view: View,
}

impl Protocol {
    /// For `file`, which has to be writable before anything is made; without one nothing is written.
    pub fn begin(file: Option<&Path>) -> Result<Self, Failure> {
        if let Some(file) = file {
            let folder = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            if !folder.is_dir() {
                let message = format!("cannot write {}: there is no folder {}", file.display(), folder.display());
                return Err(Failure::new(FaultKind::BadRequest, message));
            }
        }
        let file = file.map(std::path::absolute).transpose();
        let file = file.map_err(|e| Fault::failed("cannot tell where the result is to be written", &e))?;
        let view = View { version: 1, ..View::default() };
        Ok(Self { file, last: Instant::now(), view })
    }

    /// A phase is done.
    pub fn reached(&mut self, phase: Phase) {
        let seconds = (self.last.elapsed().as_secs_f64() * 1000.0).round() / 1000.0;
        self.last = Instant::now();
        self.view.phases.push(Reached { phase, seconds });
    }

    /// The VM that will be.
    pub fn of_spec(&mut self, spec: &VmSpec, image: &ImageRecord) {
        if self.file.is_none() {
            return;
        }
        self.view.vm = Some(VmView {
            name: spec.name.to_string(),
            image: spec.image.to_string(),
            image_digest: Some(image.digest.clone()),
            kernel: spec.kernel.to_string(),
            vcpus: spec.vcpus,
            memory_mib: spec.memory.0,
            disk_mib: spec.disk.0,
        });
    }

    /// What was brought in.
    pub fn of_workspace(&mut self, workspace: &Workspace) {
        self.view.workspace = Some(WorkspaceView {
            source: String::from_utf8_lossy(&workspace.source).into_owned(),
            folder: workspace.folder.to_string(),
            head: workspace.head.as_ref().map(ToString::to_string),
            base: workspace.base.as_ref().map(ToString::to_string),
        });
    }

    /// Writes it down; the exit code, or the failure. That it cannot be written is a failure of its own.
    pub fn finish(mut self, ended: Result<Ended, Failure>) -> Result<u8, Failure> {
        let Some(file) = self.file.take() else { return ended.map(|ended| ended.code) };
        match &ended {
            Ok(ended) => {
                self.view.exit_code = ended.code;
                self.view.signal.clone_from(&ended.signal);
                self.view.timed_out = ended.is_late;
            }
            Err(failure) => {
                self.view.exit_code = failure.exit_code(true);
                self.view.error = Some(failure.line());
            }
        }
        let written = serde_json::to_vec_pretty(&self.view)
            .map_err(std::io::Error::other)
            .and_then(|text| write_atomic(&file, &[text.as_slice(), b"\n"].concat(), 0o644));
        match (written, ended) {
            (Ok(()), ended) => ended.map(|ended| ended.code),
            (Err(e), Ok(ended)) if ended.code == 0 => Err(Fault::failed("cannot write how it went", &e).into()),
            (Err(e), ended) => {
                Failure::from(Fault::failed("cannot write how it went", &e)).say();
                ended.map(|ended| ended.code)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_it_went_is_written_whatever_came_of_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("result.json");
        let read = || serde_json::from_slice::<serde_json::Value>(&std::fs::read(&file).expect("there")).expect("JSON");
        let mut protocol = Protocol::begin(Some(&file)).expect("begins");
        protocol.reached(Phase::Ready);
        let ended = Ended { code: 137, signal: Some("KILL".into()), is_late: false };
        assert_eq!(protocol.finish(Ok(ended)), Ok(137));
        let json = read();
        assert_eq!(
            (&json["exit_code"], &json["signal"], &json["error"]),
            (&137.into(), &"KILL".into(), &serde_json::Value::Null)
        );
        assert_eq!(json["phases"][0]["phase"], "ready");
        let protocol = Protocol::begin(Some(&file)).expect("begins");
        assert!(protocol.finish(Err(Failure::new(FaultKind::NotFound, "no image"))).is_err());
        assert_eq!((&read()["exit_code"], &read()["error"]), (&125.into(), &"no image".into()));
        assert!(Protocol::begin(Some(&folder.path().join("no/result.json"))).is_err());
    }
}
