//! `vm_create`: a VM within the server's bounds, with a repository where one is asked for.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Instant;

use serde_json::{Value, json};

use super::super::args::{Allow, EgressFlags, ImageWish, VmFlags};
use super::super::client::{Client, unexpected};
use super::super::commands::{images, vms, workspace};
use super::super::progress::Progress;
use super::super::report::Failure;
use super::super::{names, resolve};
use super::carry::Carry;
use super::fleet::Berth;
use super::tools::{Bench, HOME, about};
use super::trouble::{of_workspace, wrong};
use crate::mcp::{Arguments, Call};
use crate::model::egress::Grant;
use crate::model::idle::IdleStop;
use crate::model::{TimeSpan, VmName, VmRecord, VmSpec, Workspace};
use crate::os::clock::unix_seconds;
use crate::os::random;
use crate::protocol::owner::{Carrier, OwnerReply, OwnerRequest};
use crate::protocol::{Event, FaultKind};
use crate::workspace::{Intake, Wishes};

/// What the names of all of them begin with.
const PREFIX: &str = "mcp-";

/// Does it; about the VM.
pub fn create(bench: &Bench, arguments: &Arguments, call: &Call) -> Result<Value, Failure> {
    let begun = Instant::now();
    let lifetime = lifetime(bench, arguments)?;
    let mut flags = flags(bench, arguments, lifetime)?;
    resolve::check_alone(&flags, &bench.paths)?;
    let intake = arguments.text("repository").map(|path| intake(bench, path)).transpose()?;
    let mut client = bench.client(call)?;
    // What is gone takes no place.
    bench.fleet.present(&mut client)?;
    if flags.memory.is_none() {
        flags.memory = Some(bench.bounds.usual_memory(usual_memory(&mut client)?));
    }
    let name = flags.name.clone().ok_or_else(|| wrong("no name could be made up"))?;
    let memory = flags.memory.unwrap_or(VmSpec::MIN_MEMORY);
    // Before an image is fetched for nothing.
    let berth = bench.fleet.admit(&name, memory)?;
    let spec = prepare(bench, &mut client, &flags, call)?;
    let made = boot(&mut client, spec, lifetime, call)
        .and_then(|vm| settle(bench, &mut client, berth, vm, intake.as_ref(), call));
    let vm = made.inspect_err(|_| discard(bench, &name))?;
    let mut told = about(&vm);
    told["seconds"] = ((begun.elapsed().as_secs_f64() * 10.0).round() / 10.0).into();
    told["commands_run_in"] = vm.workspace.as_ref().map_or(HOME, |workspace| workspace.runs_in.as_str()).into();
    if let Some(intake) = intake {
        told["untracked_files_left_out"] = intake.left_out.into();
    }
    if vm.workspace.as_ref().is_some_and(|workspace| !workspace.has_history) {
        told["note"] =
            json!("the image has no git: the files are there without history, and vm_export_patch cannot work");
    }
    Ok(told)
}

fn parsed<T: FromStr<Err: std::fmt::Display>>(arguments: &Arguments, name: &str) -> Result<Option<T>, Failure> {
    arguments.text(name).map(|text| text.parse().map_err(|e| wrong(format!("{name}: {e}")))).transpose()
}

fn lifetime(bench: &Bench, arguments: &Arguments) -> Result<TimeSpan, Failure> {
    let most = bench.bounds.lifetime;
    match parsed::<TimeSpan>(arguments, "lifetime")? {
        Some(asked) if asked > most => {
            Err(Failure::new(FaultKind::Refused, format!("lifetime of {asked}: this server allows at most {most}")))
        }
        asked => Ok(asked.unwrap_or(most)),
    }
}

fn flags(bench: &Bench, arguments: &Arguments, lifetime: TimeSpan) -> Result<VmFlags, Failure> {
    let grants = arguments.words("allow").map(|text| text.parse::<Grant>().map_err(|e| wrong(format!("allow: {e}"))));
    let grants = grants.collect::<Result<Vec<_>, _>>()?;
    grants.iter().try_for_each(|grant| bench.bounds.check_grant(grant))?;
    let nat = arguments.is_set("nat");
    if nat && !bench.bounds.network {
        return Err(Failure::new(FaultKind::Refused, "this server gives VMs no network (--no-network)"));
    }
    let vcpu = arguments.integer("vcpu").map(u8::try_from).transpose().map_err(|e| wrong(e.to_string()))?;
    Ok(VmFlags {
        name: Some(name()?),
        image: parsed::<ImageWish>(arguments, "image")?,
        vcpu,
        memory: parsed(arguments, "memory")?,
        disk_size: parsed(arguments, "disk_size")?,
        ttl: Some(lifetime),
        // A model cannot start one again; its life ends by itself.
        idle_stop: Some(IdleStop::Off),
        // Whatever the person's own VMs get by default: a model says what it needs.
        egress: EgressFlags::of(nat, !nat, false, &grants.into_iter().map(Allow::Grant).collect::<Vec<_>>()),
        ..VmFlags::default()
    })
}

fn name() -> Result<VmName, Failure> {
    let made_up = names::generate(random::number()).ok_or_else(|| wrong("no name could be made up"))?;
    format!("{PREFIX}{made_up}").parse().map_err(|_| wrong("no name could be made up"))
}

fn intake(bench: &Bench, path: &str) -> Result<Intake, Failure> {
    let folder: PathBuf = bench.bounds.folder(path)?;
    // Before anything of it is read: what git finds may lie elsewhere.
    let name = name()?;
    let repository = crate::workspace::Repository::open(&folder).map_err(|e| of_workspace(&e, &name))?;
    bench.bounds.check(&repository)?;
    workspace::intake(&folder, &Wishes::default())
}

fn usual_memory(client: &mut Client) -> Result<crate::model::Mib, Failure> {
    match client.ask(OwnerRequest::Overview)? {
        OwnerReply::Overview(overview) => Ok(overview.defaults.memory),
        other => Err(unexpected(&other)),
    }
}

/// The specification, with a missing image of the catalogue made. What is not in the catalogue is a person's to fetch:
/// a model would choose where this host goes, with the person's passwords for registries.
fn prepare(bench: &Bench, client: &mut Client, flags: &VmFlags, call: &Call) -> Result<VmSpec, Failure> {
    if let Some(wish @ (ImageWish::Reference(_) | ImageWish::Pinned(..))) = &flags.image
        && !images::is_here(&images::all(client)?, wish)
    {
        let failure = Failure::new(FaultKind::NotFound, format!("image {wish} is not on this host"));
        return Err(failure.hint(format!("ask the person to run: banger image pull {wish}")));
    }
    call.progress("looking for the image");
    let (mut spec, _) = vms::prepare(client, &bench.paths, flags, &mut Progress::new())?;
    spec.egress = bench.bounds.of_egress(spec.egress);
    Ok(spec)
}

fn boot(client: &mut Client, spec: VmSpec, lifetime: TimeSpan, call: &Call) -> Result<VmRecord, Failure> {
    let name = spec.name.clone();
    // This process's until all is done, whether it is to be kept or not.
    let (ephemeral, ttl) = (true, Some(lifetime));
    let request = OwnerRequest::CreateVm { spec, start: true, ephemeral, ttl, values: Vec::new(), fail: None };
    let mut told = |event: &Event| {
        if let Event::Stage { name } = event {
            call.progress(name);
        }
    };
    client.call(request, Vec::new(), &mut told)?;
    workspace::show(client, &name)
}

/// The VM is there: it takes its place, and the repository goes in.
fn settle(
    bench: &Bench,
    client: &mut Client,
    berth: Berth,
    vm: VmRecord,
    intake: Option<&Intake>,
    call: &Call,
) -> Result<VmRecord, Failure> {
    berth.take(vm.id.clone())?;
    let name = vm.spec.name.clone();
    let mut workspace = None;
    if let Some(intake) = intake {
        call.progress("bringing in the repository");
        let brought = bring_in(client, &name, intake, call)?;
        // It may have taken long enough for another daemon to be there.
        bench.client(call)?.ask(OwnerRequest::SetWorkspace { name: name.clone(), workspace: brought.clone() })?;
        workspace = Some(brought);
    }
    if bench.bounds.keep {
        bench.client(call)?.ask(OwnerRequest::KeepVm { name })?;
    }
    // Nobody is told of it any more.
    match call.cancellation.is_asked() {
        true => Err(Failure::new(FaultKind::Cancelled, "cancelled")),
        false => Ok(VmRecord { workspace, ..vm }),
    }
}

fn bring_in(client: &mut Client, name: &VmName, intake: &Intake, call: &Call) -> Result<Workspace, Failure> {
    let carriers = vec![Carrier::Agent, Carrier::Ssh];
    let mut carry = Carry::open(client, name, carriers, call, super::super::commands::way::TIME_LIMIT)?.for_all();
    let folder = intake.repository.guest_folder().map_err(|e| of_workspace(&e, name))?;
    let mut on_stage = |stage: &str| call.progress(stage);
    let prepared = crate::workspace::prepare(carry.guest(), intake, folder, false, unix_seconds(), &mut on_stage);
    Ok(prepared.map_err(|e| of_workspace(&e, name))?.workspace)
}

/// What is half made goes, one that never answered included: whoever asked cannot look at it. One of the same name that
/// this process has not made stays.
fn discard(bench: &Bench, name: &VmName) {
    let gone = super::super::autostart::connect(&bench.paths).and_then(|mut client| {
        let is_own = bench.fleet.has_made(name) || vms::is_kept_by_this_process(&mut client, name)?;
        if is_own { bench.delete(&mut client, name) } else { Ok(()) }
    });
    if let Err(failure) = gone {
        failure.say();
    }
}
