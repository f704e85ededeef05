//! `banger vm run` and `banger vm create`: how a new VM shall be.

use std::path::PathBuf;

use argh::{ArgsInfo, FromArgs};

use super::egress::{Allow, EgressFlags};
use super::secret::AskedSecret;
use super::usage::Usage;
use super::wish::ImageWish;
use crate::cli::environment::{AskedEnvironment, AskedVariable};
use crate::model::launch::FakeFailure;
use crate::model::{IdleStop, InitMode, KernelName, Mib, PublishedPort, TimeSpan, VmName, VmSpec};
use crate::workspace::Wishes;

/// How the VM of `run` and `create` shall be.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct VmFlags {
    pub name: Option<VmName>,
    pub image: Option<ImageWish>,
    pub kernel: Option<KernelName>,
    pub vcpu: Option<u8>,
    pub memory: Option<Mib>,
    pub disk_size: Option<Mib>,
    pub init: Option<InitMode>,
    pub ttl: Option<TimeSpan>,
    pub idle_stop: Option<IdleStop>,
    pub egress: EgressFlags,
    pub ports: Vec<PublishedPort>,
    pub secrets: Vec<AskedSecret>,
    pub environment: AskedEnvironment,
    pub fail: Option<FakeFailure>,
}

pub(super) fn vcpus(text: &str) -> Result<u8, String> {
    let max = VmSpec::MAX_VCPUS;
    let possible = |n: &u8| (1..=max).contains(n);
    text.parse().ok().filter(possible).ok_or_else(|| format!("{text:?}: between 1 and {max} are possible"))
}

/// `vm run`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "run",
    description = "create a VM, bring a repository in, run a shell or a command",
    usage = "[PATH] [--rm] [flags] [-- CMD...]",
    help_triggers("-h", "--help"),
    example = "banger vm run --rm -- cat /etc/os-release\nbanger vm run --rm ./repo -- make test\nbanger vm run --rm ./repo --export changes.patch -- ./fix-everything\nbanger vm run --rm -- sh -c 'exit 42'; echo $?\nbanger vm run --name box --vcpu 2 --memory 4G --disk-size 20G\nbanger vm run --rm --allow deb.debian.org -- apt-get update\nbanger vm run --rm ./repo --secret T=env:T@api.example.org -- ./publish\nsome-program | banger vm run --rm -- sort",
    note = "Without CMD: a shell. The exit code is that of CMD or of the shell; 128+N when\nsignal N ended it. When banger itself failed: with CMD 125; with a shell the\ncodes of `banger --help`, or 255 when your own ssh failed.",
    note = "PATH is a git repository, or a folder in one: its tracked files go in as they\nare here, edits included, with the commit they are based on, to /root/REPO,\nand CMD runs there. Untracked files stay here; .bangerinclude (patterns as in\n.gitignore) and --include name what goes in all the same. --dry-run lists it.",
    note = "With .mise.toml, mise.toml or .tool-versions in it, `mise install` runs in the\nguest before CMD, and CMD by `mise exec`; so does the postCreateCommand of a\ndevcontainer.json. In the background for a shell. It needs --nat or --allow.",
    note = "Without --rm the VM runs on. Next:\n  banger vm ssh NAME      another shell\n  banger vm stop NAME     shut it down, keep its disk\n  banger vm delete NAME   remove it with its disk",
    note = "Without --nat or --allow its guest reaches nothing but banger's DNS. --allow\nopens what a name leads to, for as long as DNS says so; @SET is one of\n[egress.sets] in config.toml. Host, private networks and cloud metadata stay\nclosed even under --nat, unless --allow names their addresses.",
    note = "--secret gives the guest a placeholder in $NAME. In the headers of its HTTPS\nrequests to HOST[:PORT][,HOST...] the daemon puts the value in its place, so\nthe guest never has it.",
    note = "Sizes: 512M, 4G, 4GiB; a bare number is MiB."
)]
pub struct VmRun {
    /// a git repository, or a folder in one, to bring in
    #[argh(positional, arg_name = "path")]
    pub path: Option<PathBuf>,
    /// delete the VM when the shell or CMD ends
    #[argh(switch)]
    pub rm: bool,
    /// its name: a-z, 0-9, '-' (default: made up)
    #[argh(option, arg_name = "name")]
    pub name: Option<VmName>,
    /// the image its disk starts from: a name, or a reference as in python:3.12
    #[argh(option, arg_name = "image")]
    pub image: Option<ImageWish>,
    /// the kernel it boots
    #[argh(option, arg_name = "kernel")]
    pub kernel: Option<KernelName>,
    /// virtual CPUs
    #[argh(option, arg_name = "n", from_str_fn(vcpus))]
    pub vcpu: Option<u8>,
    /// memory
    #[argh(option, arg_name = "size")]
    pub memory: Option<Mib>,
    /// size of its disk
    #[argh(option, arg_name = "size")]
    pub disk_size: Option<Mib>,
    /// pid 1: the image's own (image) or banger's small one (minimal)
    #[argh(option, arg_name = "which")]
    pub init: Option<InitMode>,
    /// run the image's own entrypoint; CMD are its arguments, or the image's own without
    #[argh(switch)]
    pub entrypoint: bool,
    /// let it reach the internet
    #[argh(switch)]
    pub nat: bool,
    /// let it reach nothing, whatever the configuration says
    #[argh(switch)]
    pub no_nat: bool,
    /// let it reach HOST[:PORT], *.DOMAIN, CIDR or @SET, and nothing else; repeatable
    #[argh(option, arg_name = "host")]
    pub allow: Vec<Allow>,
    /// lead [ADDR:]HOST:GUEST[/udp] into it; ADDR is 127.0.0.1 where not given; repeatable
    #[argh(option, short = 'p', arg_name = "port")]
    pub publish: Vec<PublishedPort>,
    /// like --nat, and list at the end what --allow would need
    #[argh(switch)]
    pub observe: bool,
    /// keep a secret out of it: NAME=env:VAR@HOST or NAME=file:PATH@HOST; repeatable
    #[argh(option, arg_name = "secret")]
    pub secret: Vec<AskedSecret>,
    /// a variable of all that runs in it: NAME=VALUE, or NAME for the one here; repeatable
    #[argh(option, short = 'e', arg_name = "variable")]
    pub env: Vec<AskedVariable>,
    /// a file with such lines; repeatable
    #[argh(option, arg_name = "file")]
    pub env_file: Vec<PathBuf>,
    /// delete it after this time, running or not: 90s, 10m, 2h, 1d, 1h30m
    #[argh(option, arg_name = "time")]
    pub ttl: Option<TimeSpan>,
    /// stop it once nobody has used it for this time; off: do not
    #[argh(option, arg_name = "time")]
    pub idle_stop: Option<IdleStop>,
    /// end CMD after this time, with exit code 124
    #[argh(option, arg_name = "time")]
    pub timeout: Option<TimeSpan>,
    /// leave it running, without a shell; afterwards: vm ssh, vm exec
    #[argh(switch, short = 'd')]
    pub detach: bool,
    /// a new branch in the guest
    #[argh(option, arg_name = "name")]
    pub branch: Option<String>,
    /// the commit that --branch begins from, without edits (default: HEAD, with them)
    #[argh(option, arg_name = "ref")]
    pub from: Option<String>,
    /// untracked files too
    #[argh(switch)]
    pub include_untracked: bool,
    /// a file or folder that goes in whatever git thinks of it; repeatable
    #[argh(option, arg_name = "path")]
    pub include: Vec<PathBuf>,
    /// leave the folders of submodules empty
    #[argh(switch)]
    pub no_submodules: bool,
    /// do not install the tools that the repository names (mise, devcontainer.json)
    #[argh(switch)]
    pub no_bootstrap: bool,
    /// list what would go in, and boot nothing
    #[argh(switch)]
    pub dry_run: bool,
    /// write what became of the repository as a patch, whatever CMD's exit code
    #[argh(option, arg_name = "file")]
    pub export: Option<PathBuf>,
    /// write how it went as JSON
    #[argh(option, arg_name = "file")]
    pub result: Option<PathBuf>,
    /// how the fake monitor shall fail
    #[argh(option, hidden_help)]
    pub fail: Option<FakeFailure>,
}

impl VmRun {
    /// Refuses what makes no sense together; `has_command`: something stands behind `--`.
    pub fn check(&self, has_command: bool) -> Result<(), Usage> {
        let refused = |message: &str| Err(Usage::new(message, &["vm", "run"]));
        let wishes = self.branch.is_some() || self.from.is_some() || self.include_untracked || self.no_submodules;
        let needs_path = wishes || !self.include.is_empty() || self.dry_run || self.export.is_some();
        if self.path.is_none() && self.no_bootstrap {
            return refused("--no-bootstrap needs a PATH");
        }
        if self.path.is_none() && needs_path {
            return refused("--branch, --from, --include, --dry-run, --export and the like need a PATH");
        }
        if self.from.is_some() && self.branch.is_none() {
            return refused("--from needs --branch");
        }
        if self.detach && self.rm {
            return refused("-d leaves the VM, --rm removes it");
        }
        if self.detach && self.entrypoint {
            return refused("-d runs no command, and --entrypoint is one");
        }
        if self.detach && has_command {
            let usage = Usage::new("-d runs no command: leave one behind with `vm exec -d`", &["vm", "run"]);
            return Err(usage.hint("banger vm run -d --name box ... && banger vm exec -d box -- CMD"));
        }
        if self.detach && self.timeout.is_some() {
            return refused("--timeout is for a command that is waited for");
        }
        if self.detach && self.export.is_some() {
            return refused("-d waits for nothing that --export could write: banger vm workspace export NAME");
        }
        Ok(())
    }

    /// What of the repository goes in.
    pub fn wishes(&self) -> Wishes {
        Wishes {
            branch: self.branch.clone(),
            from: self.from.clone(),
            untracked: self.include_untracked,
            include: self.include.clone(),
            no_submodules: self.no_submodules,
        }
    }

    /// The VM's flags apart from the command's.
    pub fn flags(&self) -> VmFlags {
        VmFlags {
            name: self.name.clone(),
            image: self.image.clone(),
            kernel: self.kernel.clone(),
            vcpu: self.vcpu,
            memory: self.memory,
            disk_size: self.disk_size,
            init: self.init,
            ttl: self.ttl,
            idle_stop: self.idle_stop,
            ports: self.publish.clone(),
            secrets: self.secret.clone(),
            environment: AskedEnvironment { files: self.env_file.clone(), variables: self.env.clone() },
            egress: EgressFlags::of(self.nat, self.no_nat, self.observe, &self.allow),
            fail: self.fail,
        }
    }
}

/// `vm create`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "create",
    description = "create a VM and start it, without a shell",
    usage = "[--no-start] [flags]",
    help_triggers("-h", "--help"),
    example = "banger vm create --name box\nbanger vm ssh box\nbanger vm create --name later --no-start && banger vm start later",
    note = "`banger vm run` does the same and opens a shell. The VM's name is printed.",
    note = "Without --nat or --allow its guest reaches nothing but banger's DNS. --allow\nopens what a name leads to, for as long as DNS says so; @SET is one of\n[egress.sets] in config.toml. Host, private networks and cloud metadata stay\nclosed even under --nat, unless --allow names their addresses.",
    note = "--secret gives the guest a placeholder in $NAME. In the headers of its HTTPS\nrequests to HOST[:PORT][,HOST...] the daemon puts the value in its place, so\nthe guest never has it.",
    note = "Sizes: 512M, 4G, 4GiB; a bare number is MiB."
)]
pub struct VmCreate {
    /// only create it; `banger vm start` boots it later
    #[argh(switch)]
    pub no_start: bool,
    /// its name: a-z, 0-9, '-' (default: made up)
    #[argh(option, arg_name = "name")]
    pub name: Option<VmName>,
    /// the image its disk starts from: a name, or a reference as in python:3.12
    #[argh(option, arg_name = "image")]
    pub image: Option<ImageWish>,
    /// the kernel it boots
    #[argh(option, arg_name = "kernel")]
    pub kernel: Option<KernelName>,
    /// virtual CPUs
    #[argh(option, arg_name = "n", from_str_fn(vcpus))]
    pub vcpu: Option<u8>,
    /// memory
    #[argh(option, arg_name = "size")]
    pub memory: Option<Mib>,
    /// size of its disk
    #[argh(option, arg_name = "size")]
    pub disk_size: Option<Mib>,
    /// pid 1: the image's own (image) or banger's small one (minimal)
    #[argh(option, arg_name = "which")]
    pub init: Option<InitMode>,
    /// let it reach the internet
    #[argh(switch)]
    pub nat: bool,
    /// let it reach nothing, whatever the configuration says
    #[argh(switch)]
    pub no_nat: bool,
    /// let it reach HOST[:PORT], *.DOMAIN, CIDR or @SET, and nothing else; repeatable
    #[argh(option, arg_name = "host")]
    pub allow: Vec<Allow>,
    /// lead [ADDR:]HOST:GUEST[/udp] into it; ADDR is 127.0.0.1 where not given; repeatable
    #[argh(option, short = 'p', arg_name = "port")]
    pub publish: Vec<PublishedPort>,
    /// like --nat, and list at the end what --allow would need
    #[argh(switch)]
    pub observe: bool,
    /// keep a secret out of it: NAME=env:VAR@HOST or NAME=file:PATH@HOST; repeatable
    #[argh(option, arg_name = "secret")]
    pub secret: Vec<AskedSecret>,
    /// a variable of all that runs in it: NAME=VALUE, or NAME for the one here; repeatable
    #[argh(option, short = 'e', arg_name = "variable")]
    pub env: Vec<AskedVariable>,
    /// a file with such lines; repeatable
    #[argh(option, arg_name = "file")]
    pub env_file: Vec<PathBuf>,
    /// delete it after this time, running or not: 90s, 10m, 2h, 1d, 1h30m
    #[argh(option, arg_name = "time")]
    pub ttl: Option<TimeSpan>,
    /// stop it once nobody has used it for this time; off: do not
    #[argh(option, arg_name = "time")]
    pub idle_stop: Option<IdleStop>,
    /// how the fake monitor shall fail
    #[argh(option, hidden_help)]
    pub fail: Option<FakeFailure>,
}

impl VmCreate {
    /// The VM's flags apart from the command's.
    pub fn flags(&self) -> VmFlags {
        VmFlags {
            name: self.name.clone(),
            image: self.image.clone(),
            kernel: self.kernel.clone(),
            vcpu: self.vcpu,
            memory: self.memory,
            disk_size: self.disk_size,
            init: self.init,
            ttl: self.ttl,
            idle_stop: self.idle_stop,
            ports: self.publish.clone(),
            secrets: self.secret.clone(),
            environment: AskedEnvironment { files: self.env_file.clone(), variables: self.env.clone() },
            egress: EgressFlags::of(self.nat, self.no_nat, self.observe, &self.allow),
            fail: self.fail,
        }
    }
}
