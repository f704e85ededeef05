//! `banger vm workspace`: a repository goes in, a patch comes out.

use std::path::PathBuf;

use argh::{ArgsInfo, FromArgs};

use super::usage::Usage;
use crate::model::{Mib, TimeSpan, VmName};
use crate::workspace::Wishes;

/// `vm workspace`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "workspace",
    description = "bring a repository into a running VM, and a patch out",
    usage = "<command> [...]",
    help_triggers("-h", "--help"),
    example = "banger vm workspace prepare box ./repo\nbanger vm exec box -- make test\nbanger vm workspace export box -o changes.patch",
    note = "`banger vm run PATH` brings one in by itself."
)]
pub struct VmWorkspace {
    /// which
    #[argh(subcommand)]
    pub command: WorkspaceCommand,
}

/// Commands of `banger vm workspace`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(subcommand)]
pub enum WorkspaceCommand {
    Prepare(WorkspacePrepare),
    Export(WorkspaceExport),
}

/// `vm workspace prepare`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "prepare",
    description = "bring a repository into a running VM, or what has changed",
    usage = "NAME PATH [flags]",
    help_triggers("-h", "--help"),
    example = "banger vm workspace prepare box ./repo\nbanger vm workspace prepare box ./repo --dry-run\nbanger vm workspace prepare box ./repo --include repo/.env",
    note = "Tracked files go in as they are here, with the commit they are based on, to\n/root/REPO. A second time only what has changed travels. What the guest has\nchanged is not overwritten without --force: export it first.",
    note = ".bangerinclude at the top, patterns as in .gitignore, names untracked and\nignored files that go in all the same."
)]
pub struct WorkspacePrepare {
    /// the VM
    #[argh(positional, arg_name = "name")]
    pub name: VmName,
    /// the repository, or a folder in it
    #[argh(positional, arg_name = "path")]
    pub path: PathBuf,
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
    /// list what would go in, and send nothing
    #[argh(switch)]
    pub dry_run: bool,
    /// overwrite what the guest has changed
    #[argh(switch)]
    pub force: bool,
    /// give up after this time (default: 30m)
    #[argh(option, arg_name = "time")]
    pub timeout: Option<TimeSpan>,
}

impl WorkspacePrepare {
    /// Refuses what makes no sense together.
    pub fn check(&self) -> Result<(), Usage> {
        if self.from.is_some() && self.branch.is_none() {
            return Err(Usage::new("--from needs --branch", &["vm", "workspace", "prepare"]));
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
}

/// `vm workspace export`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "export",
    description = "what became of a repository in a VM, as a patch",
    usage = "NAME [-o FILE] [--base REF] [--stat] [--apply]",
    help_triggers("-h", "--help"),
    example = "banger vm workspace export box -o changes.patch\nbanger vm workspace export box --stat\nbanger vm workspace export box | git apply\nbanger vm workspace export box --apply",
    note = "Commits of the guest, uncommitted and untracked files, but not ignored ones,\nin one patch since the commit that was brought in (--base: since another).\nThe guest's index, files and branches stay as they are.",
    note = "A patch comes from the guest: read it before you apply it. --apply saves it,\nrefuses what leaves the tree, touches .git, goes through a link or has git run\nprograms, and applies what the guest itself has changed, edits of yours that\nwere brought in not among it."
)]
pub struct WorkspaceExport {
    /// the VM
    #[argh(positional, arg_name = "name")]
    pub name: VmName,
    /// where to (default: standard output)
    #[argh(option, short = 'o', arg_name = "file")]
    pub output: Option<PathBuf>,
    /// a commit that the guest has, instead of the one that was brought in
    #[argh(option, arg_name = "ref")]
    pub base: Option<String>,
    /// print which files, and how many lines
    #[argh(switch)]
    pub stat: bool,
    /// print JSON: with --stat and --apply
    #[argh(switch)]
    pub json: bool,
    /// apply it to the repository that was brought in
    #[argh(switch)]
    pub apply: bool,
    /// refuse a larger patch (default: 1G)
    #[argh(option, arg_name = "size")]
    pub max_size: Option<Mib>,
    /// give up after this time (default: 30m)
    #[argh(option, arg_name = "time")]
    pub timeout: Option<TimeSpan>,
    /// with --apply: permit changes of hooks, submodules and attributes that name programs
    #[argh(switch)]
    pub allow_git_config: bool,
}

impl WorkspaceExport {
    /// Refuses what makes no sense together.
    pub fn check(&self) -> Result<(), Usage> {
        let refused = |message: &str| Err(Usage::new(message, &["vm", "workspace", "export"]));
        if self.stat && (self.apply || self.output.is_some()) {
            return refused("--stat prints what a patch would change, and makes none");
        }
        if self.apply && self.base.is_some() {
            return refused("--apply is for what was brought in: it has no other --base");
        }
        if self.allow_git_config && !self.apply {
            return refused("--allow-git-config is for --apply");
        }
        Ok(())
    }
}
