//! `kernel list|show|pull|import|delete`.

use super::super::args::{KernelImport, KernelList};
use super::super::client::{Client, unexpected};
use super::super::progress::Progress;
use super::super::report::Failure;
use super::super::table::Table;
use super::super::views::KernelView;
use super::super::{autostart, render, resolve};
use super::{catalogue, for_each, pull};
use crate::host::paths::Paths;
use crate::image::catalogue::Catalogue;
use crate::model::KernelName;
use crate::model::image::KernelRecord;
use crate::model::size::human;
use crate::os::clock::unix_seconds;
use crate::os::logger::timestamp;
use crate::protocol::owner::{OwnerReply, OwnerRequest};
use crate::protocol::{Fault, FaultKind};

/// All kernels, by name.
pub fn all(client: &mut Client) -> Result<Vec<KernelRecord>, Failure> {
    match client.ask(OwnerRequest::ListKernels)? {
        OwnerReply::Kernels(mut kernels) => {
            kernels.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(kernels)
        }
        other => Err(unexpected(&other)),
    }
}

/// `kernel list`.
pub fn list(asked: &KernelList) -> Result<(), Failure> {
    let paths = Paths::current();
    let kernels = all(&mut autostart::connect(&paths)?)?;
    let is_here = |name: &KernelName| kernels.iter().any(|kernel| kernel.name == *name);
    if asked.available {
        return catalogue::list(catalogue::load(&paths)?.kernels(), is_here, &asked.form());
    }
    let now = unix_seconds();
    let row = |k: &KernelRecord| {
        let used = human(k.used_bytes);
        vec![k.name.to_string(), release(k), used, render::age(now, k.created_at), source(k)]
    };
    asked.form().print(
        &kernels,
        KernelView::from,
        |one| one.name.to_string(),
        |whole| {
            let table = Table::new(&["NAME", "RELEASE", "USED", "AGE", "SOURCE"], kernels.iter().map(row)).text(whole);
            table + &catalogue::below(&paths, Catalogue::kernels, is_here, whole)
        },
    )
}

/// Where it comes from, and whether it is the one that boots fastest.
fn source(kernel: &KernelRecord) -> String {
    match kernel.is_own() {
        true => format!("{} (banger's own: without modules, boots fast)", kernel.source),
        false => kernel.source.clone(),
    }
}

fn release(kernel: &KernelRecord) -> String {
    if kernel.release.is_empty() { "-".to_owned() } else { kernel.release.clone() }
}

/// `kernel show`.
pub fn show(name: &KernelName, json: bool) -> Result<(), Failure> {
    let kernels = all(&mut autostart::connect(&Paths::current())?)?;
    let Some(kernel) = kernels.iter().find(|k| k.name == *name) else {
        let fault = Fault::new(FaultKind::NotFound, format!("kernel '{name}' not found"));
        return Err(fault.hint("banger kernel list").into());
    };
    if json {
        return render::json(&KernelView::from(kernel));
    }
    render::text(&render::facts(&[
        ("name", kernel.name.to_string()),
        ("release", release(kernel)),
        ("arguments", kernel.boot_args.to_string()),
        ("modules", if kernel.has_modules_drive { "on a drive of their own" } else { "none" }.to_owned()),
        ("used", human(kernel.used_bytes)),
        ("source", source(kernel)),
        ("created", timestamp(kernel.created_at)),
    ]))
}

/// `kernel pull`: prints the name.
pub fn pull(name: &KernelName) -> Result<(), Failure> {
    let paths = Paths::current();
    let mut client = autostart::connect(&paths)?;
    let mut progress = Progress::new();
    let done = pull::kernel(&mut client, &paths, &resolve::config(&paths)?, name, &mut progress)?;
    progress.clear();
    done.say("kernel", name.as_str())
}

/// `kernel import`: prints the name.
pub fn import(asked: KernelImport) -> Result<(), Failure> {
    let (build, name) = pull::files_of(&asked)?;
    let mut client = autostart::connect(&Paths::current())?;
    let mut progress = Progress::new();
    pull::import_kernel(&mut client, &name, asked.boot_args.unwrap_or_default(), build, &mut progress)?;
    progress.clear();
    render::name(name.as_str())
}

/// `kernel delete`.
pub fn delete(names: Vec<KernelName>) -> Result<(), Failure> {
    if names.is_empty() {
        return for_each(names, "kernel delete", |_| Ok(()));
    }
    let mut client = autostart::connect(&Paths::current())?;
    for_each(names, "kernel delete", |name| client.ask(OwnerRequest::DeleteKernel { name: name.clone() }).map(|_| ()))
}
