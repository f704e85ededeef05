//! What can go wrong between a repository and a guest.

use std::io;
use std::path::PathBuf;

use super::git::GitError;
use crate::os::archive::ArchiveError;
use crate::shell::ShellError;

/// Why a repository did not go in, or did not come out.
#[derive(Debug, thiserror::Error)]
pub enum WorkspaceError {
    /// The path cannot be looked at.
    #[error("cannot use {}", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file.
    #[error("{} is no folder", .0.display())]
    NoFolder(PathBuf),
    /// No repository.
    #[error("{} is no git repository", .0.display())]
    NoRepository(PathBuf),
    /// One without files.
    #[error("{} is a bare repository, or the inside of one: it has no files to bring in", .0.display())]
    Bare(PathBuf),
    /// One that claims another folder.
    #[error("{} does not hold the repository whose working tree it is said to be (core.worktree)", .0.display())]
    Elsewhere(PathBuf),
    /// With repositories in it that are tracked by their commit.
    #[error("{} has submodules ({})", top.display(), names.join(", "))]
    Submodules {
        /// The repository.
        top: PathBuf,
        /// Some of their paths.
        names: Vec<String>,
    },
    /// Nothing is called so.
    #[error("{0:?} names no commit of this repository")]
    NoCommit(String),
    /// No name for a branch.
    #[error("{0:?} cannot be the name of a branch")]
    BranchName(String),
    /// What `--from` is good for.
    #[error("there is no commit yet that a branch could begin from")]
    NoCommits,
    /// It lies elsewhere.
    #[error("{} is not inside of {}", path.display(), top.display())]
    Outside {
        /// What was to be included.
        path: PathBuf,
        /// The repository.
        top: PathBuf,
    },
    /// It is not there.
    #[error("nothing to include at {}", .0.display())]
    NothingThere(PathBuf),
    /// The folder has no name that a guest could use.
    #[error(transparent)]
    Folder(#[from] crate::model::workspace::WorkspaceError),
    /// The host's git.
    #[error(transparent)]
    Git(#[from] GitError),
    /// The host's files.
    #[error("cannot read the workspace")]
    Archive(#[from] ArchiveError),
    /// The way into the guest.
    #[error(transparent)]
    Shell(#[from] ShellError),
    /// A step in the guest.
    #[error("cannot {doing} in the guest: {said}")]
    Guest {
        /// What was being done.
        doing: &'static str,
        /// What the guest said.
        said: String,
    },
    /// A signal ended a step in the guest.
    #[error("ended by a signal")]
    Signalled(i32),
    /// Something of somebody else's stands where it is to go.
    #[error("{0} is there already in the guest and was not brought by banger")]
    Taken(String),
    /// What was done in the guest would be overwritten.
    #[error("the guest has changed what was brought in: {}", .0.join(", "))]
    Changed(Vec<String>),
    /// Without git there is nothing to compare with.
    #[error("the guest has no git, so what came of the workspace cannot be told")]
    NoGit,
    /// The guest never stops talking.
    #[error("the patch is larger than {0} MiB")]
    TooLarge(u64),
    /// A local file or stream.
    #[error("cannot {verb} {}", path.display())]
    File {
        /// `write`, `read`, …
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A pipe or thread of this process.
    #[error("cannot move data between processes")]
    Pipe(#[source] io::Error),
    /// A patch that does what no patch of a workspace needs to do.
    #[error("the patch is refused")]
    Patch(#[from] super::patch::PatchError),
    /// git will not apply it.
    #[error("the patch does not fit: {0}")]
    DoesNotFit(String),
}
