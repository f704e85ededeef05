//! `banger update`.

use std::path::PathBuf;

use argh::{ArgsInfo, FromArgs};

use crate::update::Version;

/// `banger update`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "update",
    description = "replace the installed banger by a newer release",
    usage = "[--check] [--to VERSION] [--dry-run] [--force]",
    help_triggers("-h", "--help"),
    example = "banger update --check\nsudo banger update --dry-run\nsudo banger update\nsudo banger update --to v0.1.0 --force",
    note = "Only releases that are signed by the key in this build are used. The new\nbinary is tried as nobody before it is installed; then units and services\nfollow it. If anything fails, the old one is put back and started again. VMs\nand the commands in them go on running.\n\nAn update that was interrupted, even by a power failure, is brought to its end\nby the next one."
)]
pub struct Update {
    /// only say, on one line, whether there is a newer release (needs no root)
    #[argh(switch)]
    pub check: bool,
    /// this release instead of the newest, v1.2.3
    #[argh(option, arg_name = "version")]
    pub to: Option<Version>,
    /// download, verify and try it, install nothing
    #[argh(switch)]
    pub dry_run: bool,
    /// also while operations are under way; with --to: also an older release, or the same again
    #[argh(switch)]
    pub force: bool,
    /// for tests: another manifest, also file:// or http:// on this machine
    #[argh(option, arg_name = "url", hidden_help)]
    pub manifest_url: Option<String>,
    /// for tests: another key
    #[argh(option, arg_name = "file", hidden_help)]
    pub pubkey_file: Option<PathBuf>,
}
