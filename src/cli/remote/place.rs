//! Which command runs where. What speaks to the daemon only, or needs files, git or the terminal of this machine, runs
//! here, over a relay; what is about the other machine itself runs there.

use super::super::args::{Command, ImageCommand, KernelCommand, PullSource, VmCommand};

/// Where a command runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Here; its daemon is the other machine's.
    Here,
    /// On the other machine.
    There,
    /// On the other machine where `--host` says so; `BANGER_HOST` alone leaves it here.
    Asked,
    /// Here, and of this machine: why. `BANGER_HOST` does not change that, and with `--host` it makes no sense.
    Own(&'static str),
}

/// Where `command` runs. No wildcard: a new command does not compile until somebody decides.
pub fn place(command: &Command) -> Place {
    match command {
        Command::Vm(group) => vm(&group.command),
        Command::Ps(_) | Command::Mcp(_) => Place::Here,
        Command::Image(group) => image(&group.command),
        Command::Kernel(group) => kernel(&group.command),
        Command::Daemon(_) | Command::System(_) | Command::Update(_) | Command::Doctor(_) => Place::There,
        Command::Version(_) => Place::Asked,
        Command::Schema(_) => Place::Own("it is what this build prints"),
        Command::SshConfig(_) => Place::Own("it is about the ssh of this machine"),
        Command::Completion(_) => Place::Own("it is about the shell of this machine"),
    }
}

fn vm(command: &VmCommand) -> Place {
    match command {
        // The file that it follows is there.
        VmCommand::Logs(_) => Place::There,
        VmCommand::Run(_)
        | VmCommand::Create(_)
        | VmCommand::List(_)
        | VmCommand::Show(_)
        | VmCommand::Ssh(_)
        | VmCommand::Exec(_)
        | VmCommand::Attach(_)
        | VmCommand::Cp(_)
        | VmCommand::Workspace(_)
        | VmCommand::Start(_)
        | VmCommand::Stop(_)
        | VmCommand::Restart(_)
        | VmCommand::Kill(_)
        | VmCommand::Wait(_)
        | VmCommand::Delete(_)
        | VmCommand::Set(_)
        | VmCommand::Prune(_)
        | VmCommand::Ping(_)
        | VmCommand::Health(_)
        | VmCommand::Ports(_)
        | VmCommand::Egress(_)
        | VmCommand::Hosts(_)
        | VmCommand::Stats(_) => Place::Here,
    }
}

fn image(command: &ImageCommand) -> Place {
    match command {
        // Its catalogue, its cache, its files, and what fits its processor.
        ImageCommand::List(_) | ImageCommand::Cache(_) | ImageCommand::Register(_) => Place::There,
        ImageCommand::Pull(pull) => match pull.source {
            PullSource::Image(_) => Place::There,
            PullSource::OciArchive(_) | PullSource::DockerArchive(_) => Place::Here,
        },
        ImageCommand::Show(_) | ImageCommand::Promote(_) | ImageCommand::Commit(_) | ImageCommand::Delete(_) => {
            Place::Here
        }
    }
}

fn kernel(command: &KernelCommand) -> Place {
    match command {
        KernelCommand::List(_) | KernelCommand::Pull(_) => Place::There,
        KernelCommand::Import(import) if import.host => Place::There,
        KernelCommand::Import(_) | KernelCommand::Show(_) | KernelCommand::Delete(_) => Place::Here,
    }
}
