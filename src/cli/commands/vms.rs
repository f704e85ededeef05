//! `vm create|start|stop|restart|kill|delete|set`.

use std::time::Instant;

use super::super::args::{ImageWish, Usage, VmFlags, VmSet};
use super::super::autostart;
use super::super::client::{Client, unexpected};
use super::super::progress::Progress;
use super::super::report::Failure;
use super::super::views::VmView;
use super::super::{file_sync, manner, remote, render, resolve, secrets};
use super::{for_each, images, pull, workspace};
use crate::host::paths::Paths;
use crate::model::image::ImageRecord;
use crate::model::{VmChange, VmName, VmSpec, VmState};
use crate::os::process;
use crate::protocol::owner::{OwnerReply, OwnerRequest};
use crate::protocol::{Fault, FaultKind};

/// `vm create`: prints the name.
pub fn create(flags: &VmFlags, start: bool) -> Result<(), Failure> {
    let paths = Paths::current();
    resolve::check_alone(flags, &paths)?;
    let values = secrets::values(&flags.secrets)?;
    let mut client = autostart::connect(&paths)?;
    let mut progress = Progress::new();
    let (spec, _) = prepare(&mut client, &paths, flags, &mut progress)?;
    progress.be_brief();
    let begun = Instant::now();
    let name = spec.name.clone();
    let (ttl, fail) = (flags.ttl, flags.fail);
    let request = OwnerRequest::CreateVm { spec, start, ephemeral: false, ttl, values, fail };
    client.call(request, Vec::new(), &mut |event| progress.show(event)).map_err(|f| kept(f, &name))?;
    progress.clear();
    if start {
        ready("vm create", begun);
        file_sync::copy(&mut client, &name, &resolve::config(&paths)?)?;
    }
    match manner::current().json {
        true => render::json(&VmView::from(&workspace::show(&mut client, &name)?)),
        false => render::line(name.as_str()),
    }
}

fn ready(command: &str, begun: Instant) {
    render::note(&format!("[{command}] ready in {:.1}s", begun.elapsed().as_secs_f64()));
}

/// Completes `flags`, makes a missing image or kernel, and says what will be; with the image that it will be of.
pub fn prepare(
    client: &mut Client,
    paths: &Paths,
    flags: &VmFlags,
    progress: &mut Progress,
) -> Result<(VmSpec, ImageRecord), Failure> {
    let overview = match client.ask(OwnerRequest::Overview)? {
        OwnerReply::Overview(overview) => overview,
        other => return Err(unexpected(&other)),
    };
    let config = resolve::config(paths)?;
    let mut spec = resolve::spec(flags, &overview.defaults, &config)?;
    let wish = flags.image.clone().unwrap_or_else(|| ImageWish::Name(spec.image.clone()));
    let image = images::ensure(client, paths, &config, &wish, progress)?;
    spec.image = image.name.clone();
    if flags.disk_size.is_none() {
        // What nobody asked for must not be too small.
        spec.disk = spec.disk.max(image.size);
    }
    if let (None, Some(kernel)) = (&flags.kernel, &image.kernel) {
        spec.kernel = kernel.clone();
    }
    pull::ensure_kernel(client, paths, &config, &spec.kernel, progress)?;
    progress.note(&resolve::spec_line(&spec, &overview.vmm));
    Ok((spec, image))
}

/// Whether there is a VM called `name` that the daemon deletes with this process: nobody else has made it.
pub fn is_kept_by_this_process(client: &mut Client, name: &VmName) -> Result<bool, Failure> {
    let vm = match client.ask(OwnerRequest::ShowVm { name: name.clone() }) {
        Ok(OwnerReply::Vm(vm)) => vm,
        Ok(other) => return Err(unexpected(&other)),
        Err(failure) if failure.kind() == Some(FaultKind::NotFound) => return Ok(false),
        Err(failure) => return Err(failure),
    };
    let here = || process::reference(i32::try_from(std::process::id()).unwrap_or_default());
    let own = remote::process().map_or_else(here, Ok);
    let own = own.map_err(|e| Fault::failed("cannot look at this process", &e))?;
    Ok(vm.keeper == Some(own))
}

/// Says of a VM that never answered that it is kept, and where to look.
pub fn kept(failure: Failure, name: &VmName) -> Failure {
    use crate::protocol::FaultKind::NeverReady;
    match failure {
        Failure::Fault { mut fault, op } if fault.kind == NeverReady => {
            fault.causes.push(format!("vm '{name}' is kept; perhaps its image's sshd fails"));
            for hint in [format!("banger vm logs {name}"), format!("banger vm delete {name}")] {
                if !fault.hints.contains(&hint) {
                    fault.hints.push(hint);
                }
            }
            Failure::Fault { fault, op }
        }
        other => other,
    }
}

/// `vm start`.
pub fn start(names: Vec<VmName>) -> Result<(), Failure> {
    let paths = Paths::current();
    let mut client = autostart::connect(&paths)?;
    // One that was only created has not got its files yet.
    let known = match client.ask(OwnerRequest::ListVms)? {
        OwnerReply::Vms(vms) => vms,
        other => return Err(unexpected(&other)),
    };
    let is_first = |name: &VmName| known.iter().any(|vm| vm.spec.name == *name && vm.started_at.is_none());
    let first: Vec<VmName> = names.iter().filter(|name| is_first(name)).cloned().collect();
    let runs = |name: &VmName| known.iter().any(|vm| vm.spec.name == *name && vm.state == VmState::Running);
    names.iter().filter(|name| runs(name)).for_each(|name| render::note(&format!("{name} runs already")));
    let config = resolve::config(&paths)?;
    let started = each_vm(names, "vm start", |name| !runs(name), |name| OwnerRequest::StartVm { name });
    for name in &first {
        // One that did not start has been told of.
        if workspace::show(&mut client, name).is_ok_and(|vm| vm.state == VmState::Running) {
            file_sync::copy(&mut client, name, &config)?;
        }
    }
    started
}

/// `vm restart`.
pub fn restart(names: Vec<VmName>) -> Result<(), Failure> {
    each_vm(names, "vm restart", |_| true, |name| OwnerRequest::RestartVm { name })
}

/// `vm stop` and `vm kill`.
pub fn stop(names: Vec<VmName>, kill: bool) -> Result<(), Failure> {
    each_vm(names, if kill { "vm kill" } else { "vm stop" }, |_| false, |name| OwnerRequest::StopVm { name, kill })
}

/// `vm delete`.
pub fn delete(names: Vec<VmName>) -> Result<(), Failure> {
    each_vm(names, "vm delete", |_| false, |name| OwnerRequest::DeleteVm { name })
}

/// `vm set`: prints the name.
pub fn set(asked: &VmSet) -> Result<(), Failure> {
    let (name, paths) = (&asked.name, Paths::current());
    let config = resolve::config(&paths)?;
    let change = VmChange {
        allow: resolve::grants(&asked.allow, &config)?,
        disallow: resolve::grants(&asked.disallow, &config)?,
        ..asked.change()
    };
    if change.is_empty() {
        return Err(Usage::new("nothing to change was given", &["vm", "set"]).into());
    }
    let mut client = autostart::connect(&paths)?;
    client.ask(OwnerRequest::SetVm { name: name.clone(), change })?;
    render::name(name.as_str())
}

/// `boots`: when it went well the VM runs.
fn each_vm(
    names: Vec<VmName>,
    what: &str,
    boots: impl Fn(&VmName) -> bool,
    request: impl Fn(VmName) -> OwnerRequest,
) -> Result<(), Failure> {
    if names.is_empty() {
        return for_each(names, what, |_| Ok(()));
    }
    let mut client = autostart::connect(&Paths::current())?;
    for_each(names, what, |name| {
        let (mut progress, begun) = (Progress::new(), Instant::now());
        progress.be_brief();
        let done = client.call(request(name.clone()), Vec::new(), &mut |event| progress.show(event));
        progress.clear();
        done.map_err(|f| kept(f, name))?;
        if boots(name) {
            ready(what, begun);
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::FaultKind;

    #[test]
    fn a_vm_that_never_answered_is_named_with_what_to_type() {
        let name: VmName = "box".parse().expect("a name");
        let failure = kept(Failure::new(FaultKind::NeverReady, "vm 'box' did not answer in 90 s"), &name);
        let Failure::Fault { fault, .. } = failure else { panic!("a fault") };
        assert_eq!(fault.hints, ["banger vm logs box", "banger vm delete box"]);
        assert!(fault.causes[0].contains("sshd"));
        let other = Failure::new(FaultKind::NotFound, "no");
        assert_eq!(kept(other.clone(), &name), other);
    }
}
