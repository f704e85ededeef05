//! One file per group of commands: each turns arguments into requests and replies into text.

mod agent;
mod catalogue;
mod completion;
mod copy;
mod daemon;
mod doctor;
mod egress;
mod exec;
mod fix;
pub mod images;
mod kernels;
mod leave;
mod list;
mod logs;
mod oci;
mod outcome;
mod outcomes;
mod patch;
pub mod program;
mod prune;
mod pull;
mod run;
pub mod session;
mod sources;
pub mod ssh_config;
mod stats;
mod system;
pub mod toolbox;
mod update;
mod update_faults;
mod update_host;
mod version;
pub mod vms;
mod wait;
pub mod way;
pub mod workspace;

#[cfg(test)]
pub use session::OUT_OF_TIME;

use outcomes::Outcomes;

use super::args::{CacheCommand, Command, DaemonCommand, ImageCommand, Invocation, KernelCommand, VmCommand};
use super::args::{ListFlags, SystemCommand, Usage, VmQuestion, WorkspaceCommand};
use super::report::Failure;
use crate::protocol::owner::AgentQuestion;

/// Does what was asked; returns the exit code.
pub fn run(invocation: Invocation) -> Result<u8, Failure> {
    let guest_command = invocation.guest_command;
    match invocation.command {
        Command::Vm(group) => return vm(group.command, guest_command),
        Command::Ps(ps) => list::list(&ListFlags { all: ps.all, form: ps.form() })?,
        Command::Image(group) => image(group.command)?,
        Command::Kernel(group) => kernel(group.command)?,
        Command::Daemon(group) => return daemon(group.command),
        Command::System(group) => return system(group.command),
        Command::Update(asked) => update::update(&asked)?,
        Command::Doctor(doctor) => return doctor::doctor(&doctor),
        Command::Mcp(asked) => return super::mcp::serve(&asked),
        Command::SshConfig(asked) => ssh_config::ssh_config(&asked)?,
        Command::Completion(asked) => completion::completion(asked.shell)?,
        Command::Schema(asked) => super::render::json(&super::schema::schema(&asked.command)?)?,
        Command::Version(version) => version::version(version.json)?,
    }
    Ok(0)
}

fn vm(command: VmCommand, guest_command: Option<Vec<std::ffi::OsString>>) -> Result<u8, Failure> {
    match command {
        VmCommand::Run(run) => return run::run(&run, guest_command),
        VmCommand::Ssh(ssh) => return session::ssh(&ssh.name, guest_command),
        VmCommand::Exec(exec) => return exec::exec(&exec, guest_command),
        VmCommand::Attach(attach) => return exec::attach(&attach),
        VmCommand::Cp(cp) => copy::copy(&cp.src, &cp.dst)?,
        VmCommand::Workspace(group) => match group.command {
            WorkspaceCommand::Prepare(asked) => workspace::prepare(&asked)?,
            WorkspaceCommand::Export(asked) => patch::export(&asked)?,
        },
        VmCommand::Create(create) => vms::create(&create.flags(), !create.no_start)?,
        VmCommand::List(list) => list::list(&ListFlags { all: true, form: list.form() })?,
        VmCommand::Show(show) => list::show(&VmQuestion { name: show.name, json: show.json })?,
        VmCommand::Logs(logs) => logs::logs(&logs)?,
        VmCommand::Start(start) => vms::start(start.names)?,
        VmCommand::Stop(stop) => vms::stop(stop.names, false)?,
        VmCommand::Restart(restart) => vms::restart(restart.names)?,
        VmCommand::Set(set) => vms::set(&set)?,
        VmCommand::Hosts(_) => list::hosts()?,
        VmCommand::Egress(asked) => egress::egress(&asked.name, asked.json)?,
        VmCommand::Kill(kill) => vms::stop(kill.names, true)?,
        VmCommand::Wait(wait) => wait::wait(wait)?,
        VmCommand::Prune(prune) => prune::prune(prune.force)?,
        VmCommand::Delete(delete) => vms::delete(delete.names)?,
        VmCommand::Ping(q) => agent::ask(&VmQuestion { name: q.name, json: q.json }, AgentQuestion::Ping)?,
        VmCommand::Health(q) => agent::ask(&VmQuestion { name: q.name, json: q.json }, AgentQuestion::Health)?,
        VmCommand::Ports(q) => agent::ask(&VmQuestion { name: q.name, json: q.json }, AgentQuestion::Ports)?,
        VmCommand::Stats(stats) => stats::stats(stats.names, stats.json)?,
    }
    Ok(0)
}

fn image(command: ImageCommand) -> Result<(), Failure> {
    match command {
        ImageCommand::List(list) => images::list(&list),
        ImageCommand::Show(show) => images::show(&show.name, show.json),
        ImageCommand::Pull(pull) => images::pull(pull),
        ImageCommand::Register(register) => images::register(register),
        ImageCommand::Promote(promote) => images::promote(promote.name),
        ImageCommand::Commit(commit) => images::commit(commit.vm, commit.name),
        ImageCommand::Cache(cache) => match cache.command {
            CacheCommand::Prune(prune) => images::prune_cache(prune.dry_run),
        },
        ImageCommand::Delete(delete) => images::delete(delete.names),
    }
}

fn kernel(command: KernelCommand) -> Result<(), Failure> {
    match command {
        KernelCommand::List(list) => kernels::list(&list),
        KernelCommand::Show(show) => kernels::show(&show.name, show.json),
        KernelCommand::Pull(pull) => kernels::pull(&pull.name),
        KernelCommand::Import(import) => kernels::import(import),
        KernelCommand::Delete(delete) => kernels::delete(delete.names),
    }
}

fn daemon(command: DaemonCommand) -> Result<u8, Failure> {
    match command {
        DaemonCommand::Start(start) => return daemon::start(start.owner.as_deref()),
        DaemonCommand::Stop(_) => daemon::stop()?,
        DaemonCommand::Status(status) => return daemon::status(status.json),
        DaemonCommand::Socket(_) => daemon::socket()?,
    }
    Ok(0)
}

fn system(command: SystemCommand) -> Result<u8, Failure> {
    match command {
        SystemCommand::Install(install) => system::install(install.owner.as_deref())?,
        SystemCommand::Status(status) => return system::status(status.json),
        SystemCommand::Restart(_) => system::restart()?,
        SystemCommand::Refresh(_) => system::refresh()?,
        SystemCommand::Uninstall(uninstall) => system::uninstall(uninstall.purge, uninstall.force)?,
    }
    Ok(0)
}

/// Does `each` to all of `names`, goes on after a failure, and prints the names that went well. The
/// exit code is that of the failures when they agree, else 1.
fn for_each<T: std::fmt::Display>(
    names: Vec<T>,
    what: &str,
    mut each: impl FnMut(&T) -> Result<(), Failure>,
) -> Result<(), Failure> {
    if names.is_empty() {
        return Err(no_names(what).into());
    }
    let mut done = Outcomes::default();
    for name in &names {
        done.add(&name.to_string(), each(name))?;
    }
    done.end()
}

/// `banger vm stop $(banger ps -q)` where nothing runs looks like a forgotten name.
fn no_names(what: &str) -> Usage {
    let usage = Usage::new("NAME is missing", what.split(' ').collect::<Vec<_>>().as_slice());
    match what {
        "vm stop" | "vm kill" | "vm restart" => {
            usage.hint("banger ps      (shows what runs; where it is empty, nothing does)")
        }
        "vm start" | "vm delete" => usage.hint("banger ps -a      (shows all VMs)"),
        _ => usage,
    }
}
