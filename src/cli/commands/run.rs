//! `vm run`: create, start, bring a repository in, a shell or a command, and with `--rm` nothing left behind.

use std::ffi::OsString;
use std::path::Path;
use std::rc::Rc;
use std::time::Instant;

use super::super::args::{VmFlags, VmRun};
use super::super::client::Client;
use super::super::interrupt::Interrupts;
use super::super::progress::Progress;
use super::super::report::Failure;
use super::super::{autostart, file_sync, render, resolve, secrets};
use super::egress::summarize;
use super::outcome::{Phase, Protocol};
use super::session::Ended;
use super::way::Way;
use super::{patch, program, session, toolbox, vms, workspace};
use crate::host::config::Config;
use crate::host::paths::Paths;
use crate::model::image::ImageConfig;
use crate::model::{SecretValue, VmName, VmSpec, Workspace};
use crate::protocol::owner::{Carrier, OwnerRequest};
use crate::protocol::{Fault, FaultKind};
use crate::workspace::{From, Intake, Tools};

/// Runs `command`, or a shell, in a new VM; returns its exit code.
pub fn run(asked: &VmRun, command: Option<Vec<OsString>>) -> Result<u8, Failure> {
    asked.check(command.is_some())?;
    let intake = asked.path.as_deref().map(|path| workspace::intake(path, &asked.wishes())).transpose()?;
    if let (true, Some(intake)) = (asked.dry_run, &intake) {
        return workspace::list(intake).map(|()| 0);
    }
    let mut protocol = Protocol::begin(asked.result.as_deref())?;
    let ended = in_new_vm(asked, command, intake.as_ref(), &mut protocol);
    protocol.finish(ended)
}

fn in_new_vm(
    asked: &VmRun,
    command: Option<Vec<OsString>>,
    intake: Option<&Intake>,
    protocol: &mut Protocol,
) -> Result<Ended, Failure> {
    let (flags, remove) = (&asked.flags(), asked.rm);
    let paths = Paths::current();
    let egress = resolve::check_alone(flags, &paths)?.egress;
    let tools = match intake {
        Some(intake) if !asked.no_bootstrap => toolbox::tools(intake, &egress)?,
        Some(_) | None => Tools::default(),
    };
    let config = resolve::config(&paths)?;
    let values = secrets::values(&flags.secrets)?;
    // An entrypoint is a command as well.
    let words = command.as_deref().or(asked.entrypoint.then_some(&[][..]));
    let carriers = session::carriers(&paths, words)?;
    let mut client = autostart::connect(&paths)?;
    let mut progress = Progress::new();
    let (spec, image) = vms::prepare(&mut client, &paths, flags, &mut progress)?;
    let name = spec.name.clone();
    protocol.of_spec(&spec, &image);
    let image = image.config;
    let command = match asked.entrypoint {
        true => Some(program::behind_entrypoint(&spec.image, &image, command)?),
        false => command,
    };
    // Until here a signal just ends the process: nothing was made that would stay.
    let interrupts = Interrupts::take_over().map_err(|e| Fault::failed("cannot listen for signals", &e))?;
    let interrupts = Rc::new(interrupts);
    client.heed(Rc::clone(&interrupts));
    let cleaner = Cleaner { paths, interrupts };
    if let Err(failure) = create(&mut client, spec, values, flags, remove, &mut progress) {
        drop((client, progress));
        return Err(cleaner.after_failed_start(&name, remove, failure));
    }
    protocol.reached(Phase::Ready);
    drop(progress);
    let visit = Visit { asked, name: &name, intake, tools: &tools, config: &config, image: &image, cleaner: &cleaner };
    drop(client);
    let ended = visit.pay(command, carriers, protocol);
    if ended.is_ok()
        && let Err(failure) = cleaner.connect_anew().and_then(|mut client| summarize(&mut client, &name))
    {
        failure.say();
    }
    let ended = ended.map_err(|failure| vms::kept(failure, &name));
    if asked.detach && ended.is_ok() {
        render::note(&format!("vm '{name}' runs; a shell in it: banger vm ssh {name}"));
        return ended;
    }
    cleaner.finish(&name, remove, ended)
}

fn create(
    client: &mut Client,
    spec: VmSpec,
    values: Vec<SecretValue>,
    flags: &VmFlags,
    remove: bool,
    progress: &mut Progress,
) -> Result<(), Failure> {
    progress.be_brief();
    let begun = Instant::now();
    let name = spec.name.clone();
    let (ttl, fail) = (flags.ttl, flags.fail);
    let request = OwnerRequest::CreateVm { spec, start: true, ephemeral: remove, ttl, values, fail };
    client.call(request, Vec::new(), &mut |event| progress.show(event)).map_err(|f| vms::kept(f, &name))?;
    progress.clear();
    render::note(&format!("[vm run] ready in {:.1}s", begun.elapsed().as_secs_f64()));
    Ok(())
}

/// What happens in a VM that runs.
struct Visit<'v> {
    asked: &'v VmRun,
    name: &'v VmName,
    intake: Option<&'v Intake>,
    tools: &'v Tools,
    config: &'v Config,
    image: &'v ImageConfig,
    cleaner: &'v Cleaner,
}

impl Visit<'_> {
    fn pay(
        &self,
        command: Option<Vec<OsString>>,
        carriers: Vec<Carrier>,
        protocol: &mut Protocol,
    ) -> Result<Ended, Failure> {
        let mut client = self.cleaner.connect()?;
        file_sync::copy(&mut client, self.name, self.config)?;
        let brought = self.intake.map(|intake| self.bring_in(&mut client, intake)).transpose()?;
        if let Some(workspace) = &brought {
            protocol.of_workspace(workspace);
            protocol.reached(Phase::Workspace);
            if !self.tools.is_empty() {
                self.install(workspace, command.is_some())?;
                protocol.reached(Phase::Tools);
            }
        }
        if self.asked.detach {
            return Ok(Ended::default());
        }
        drop(client);
        let opened = self.cleaner.connect().and_then(|mut client| session::open(&mut client, self.name, carriers));
        let opened = opened.map_err(no_way_in);
        let folder = brought.as_ref().map(|workspace| &workspace.runs_in);
        let command = command.map(|words| match &brought {
            Some(workspace) => toolbox::command_in(workspace, words),
            None => program::command(self.image, words),
        });
        let ended = opened.and_then(|way| session::run(way, command, folder, self.asked.timeout));
        protocol.reached(Phase::Command);
        let Some(workspace) = brought else { return ended };
        if let Ok(ended) = &ended {
            self.note_exit(ended.code);
        }
        match &self.asked.export {
            Some(file) => {
                let exported = self.export(&workspace, file, ended.as_ref().ok());
                protocol.reached(Phase::Export);
                of_both(ended, exported)
            }
            None => ended,
        }
    }

    fn bring_in(&self, client: &mut Client, intake: &Intake) -> Result<Workspace, Failure> {
        let mut progress = Progress::new();
        let mut way = Way::open(client, self.name)?;
        let brought = workspace::bring_in(&mut way, self.name, intake, workspace::How::default(), &mut progress);
        // Also one between two steps, or one that has ended the host's git.
        self.cleaner.interrupts.next_end().map_or(brought, |signal| Err(Failure::Signalled(signal)))
    }

    /// A person at a shell does not wait for it; a command does.
    fn install(&self, workspace: &Workspace, has_command: bool) -> Result<(), Failure> {
        let mut client = self.cleaner.connect()?;
        if has_command || self.asked.detach {
            let mut way = Way::open(&mut client, self.name)?;
            drop(client);
            toolbox::install(&mut way, self.name, workspace, self.tools)
        } else {
            toolbox::install_behind(&mut client, self.name, workspace, self.tools)
        }
    }

    /// What is noted is for later exports; the command's end is what counts.
    fn note_exit(&self, code: u8) {
        let request = OwnerRequest::NoteExit { name: self.name.clone(), code };
        if let Err(failure) = self.cleaner.connect_anew().and_then(|mut client| client.ask(request)) {
            failure.say();
        }
    }

    fn export(&self, brought: &Workspace, file: &Path, ended: Option<&Ended>) -> Result<(), Failure> {
        let mut client = self.cleaner.connect_anew()?;
        let vm = workspace::show(&mut client, self.name)?;
        let header = patch::Header::of(&mut client, &vm, ended.map(|ended| ended.code));
        let mut way = Way::open(&mut client, self.name)?;
        drop(client);
        let bounds = patch::Bounds::default();
        let wanted = patch::Wanted { name: self.name, workspace: brought, from: From::Base, bounds };
        let exported = wanted.to_file(&mut way, file, header)?;
        render::note(&format!("[vm run] patch of {} bytes in {}", exported.bytes, file.display()));
        Ok(())
    }
}

/// The command's own failure comes first; a patch that is missing is a failure too.
fn of_both(ended: Result<Ended, Failure>, exported: Result<(), Failure>) -> Result<Ended, Failure> {
    match (ended, exported) {
        (ended, Ok(())) => ended,
        (Ok(ended), Err(failure)) if ended.code != 0 => {
            failure.say();
            Ok(ended)
        }
        (Ok(_), Err(failure)) => Err(failure),
        (Err(first), Err(failure)) => {
            failure.say();
            Err(first)
        }
    }
}

/// Right after it was ready, a VM to which the daemon finds no way has an ssh server that fails.
fn no_way_in(failure: Failure) -> Failure {
    match failure {
        Failure::Fault { mut fault, op } if fault.kind == FaultKind::OperationFailed => {
            fault.kind = FaultKind::NeverReady;
            Failure::Fault { fault, op }
        }
        other => other,
    }
}

/// Whether nobody came into the VM; else it goes, whatever the session's end was.
fn is_to_stay(ended: &Result<Ended, Failure>) -> bool {
    ended.as_ref().is_err_and(|failure| failure.kind() == Some(FaultKind::NeverReady))
}

/// What comes after: with `--rm` nothing stays. The daemon may have been restarted meanwhile, so it
/// is connected to afresh. One more signal ends the wait: the daemon deletes the VM anyway, once
/// this process is gone.
struct Cleaner {
    paths: Paths,
    interrupts: Rc<Interrupts>,
}

impl Cleaner {
    /// A VM that never answered is kept, so that one can look why. Of any other failure nothing
    /// stays that was to be removed. A name in use is somebody else's VM: only one that this process
    /// keeps is deleted.
    fn after_failed_start(&self, name: &VmName, remove: bool, failure: Failure) -> Failure {
        match failure.kind() {
            Some(FaultKind::NeverReady) => {}
            _ if remove => {
                if let Err(e) = self.delete_own(name) {
                    e.say();
                }
            }
            None => {
                render::note(&format!("interrupted; if vm '{name}' was made, `banger vm delete {name}` removes it"));
            }
            Some(_) => {}
        }
        failure
    }

    fn finish(&self, name: &VmName, remove: bool, ended: Result<Ended, Failure>) -> Result<Ended, Failure> {
        if !remove {
            render::note(&format!("vm '{name}' runs on; to stop it: banger vm stop {name}"));
            return ended;
        }
        if is_to_stay(&ended) {
            self.spare(name);
            return ended;
        }
        match (self.connect_anew().and_then(|mut client| delete(&mut client, name)), ended) {
            (Ok(()), ended) => ended,
            // The command's own exit code is what the caller waits for; the rest is said.
            (Err(failure), Ok(ended)) => {
                failure.hint(format!("banger vm delete {name}")).say();
                Ok(ended)
            }
            (Err(failure), Err(first)) => {
                failure.say();
                Err(first)
            }
        }
    }

    /// Keeps a VM into which nobody came, so that one can look why.
    fn spare(&self, name: &VmName) {
        if let Err(failure) = self.connect_anew().and_then(|mut client| keep(&mut client, name)) {
            failure.say();
        }
    }

    fn delete_own(&self, name: &VmName) -> Result<(), Failure> {
        let mut client = self.connect_anew()?;
        if vms::is_kept_by_this_process(&mut client, name)? { delete(&mut client, name) } else { Ok(()) }
    }

    /// What has come so far has been heeded: by the call that it ended, or by the guest.
    fn connect_anew(&self) -> Result<Client, Failure> {
        while self.interrupts.next().is_some() {}
        self.connect()
    }

    /// A signal that has come ends what is asked next.
    fn connect(&self) -> Result<Client, Failure> {
        let mut client = autostart::connect(&self.paths)?;
        client.heed(Rc::clone(&self.interrupts));
        Ok(client)
    }
}

/// Takes the VM away from this process, with which the daemon would delete it.
fn keep(client: &mut Client, name: &VmName) -> Result<(), Failure> {
    client.ask(OwnerRequest::KeepVm { name: name.clone() }).map(|_| ())
}

fn delete(client: &mut Client, name: &VmName) -> Result<(), Failure> {
    match client.ask(OwnerRequest::DeleteVm { name: name.clone() }) {
        Err(failure) if failure.kind() == Some(FaultKind::NotFound) => Ok(()),
        other => other.map(|_| ()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_code(code: u8) -> Result<Ended, Failure> {
        Ok(Ended { code, ..Ended::default() })
    }

    #[test]
    fn a_vm_without_a_way_in_is_told_from_one_that_is_gone() {
        let none = Failure::new(FaultKind::OperationFailed, "no ssh server could start in VM 'box'");
        assert_eq!(no_way_in(none).kind(), Some(FaultKind::NeverReady));
        for other in [Failure::new(FaultKind::NotFound, "vm 'box' not found"), Failure::Signalled(2)] {
            assert_eq!(no_way_in(other.clone()), other);
        }
    }

    #[test]
    fn only_a_vm_into_which_nobody_came_is_to_stay() {
        assert!(is_to_stay(&Err(Failure::new(FaultKind::NeverReady, "vm 'box' refused banger's key"))));
        let lost = Failure::new(FaultKind::OperationFailed, "the connection to vm 'box' was lost");
        for ended in [with_code(0), with_code(42), Err(lost), Err(Failure::Signalled(2)), Err(Failure::ReaderGone)] {
            assert!(!is_to_stay(&ended), "{ended:?}");
        }
    }

    #[test]
    fn a_missing_patch_is_a_failure_unless_the_command_failed_already() {
        let missing = || Err(Failure::new(FaultKind::OperationFailed, "no patch"));
        assert_eq!(of_both(with_code(3), missing()), with_code(3));
        assert!(of_both(with_code(0), missing()).is_err());
        assert_eq!(of_both(with_code(0), Ok(())), with_code(0));
        assert_eq!(of_both(Err(Failure::Signalled(2)), missing()), Err(Failure::Signalled(2)));
    }
}
