//! `banger ssh-config`.

use std::path::PathBuf;

use argh::{ArgsInfo, FromArgs};

use super::Usage;

/// `ssh-config`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "ssh-config",
    description = "have `ssh NAME.vm`, scp and rsync work",
    usage = "[--install | --uninstall]",
    help_triggers("-h", "--help"),
    example = "banger ssh-config --install\nssh box.vm\nscp -r ./here box.vm:/srv/there\nbanger ssh-config --uninstall",
    note = "Without a flag: prints what ssh would be told, and changes nothing.",
    note = "--install writes a file of banger's own beside its settings and adds a marked\n`Include` of it to the top of ~/.ssh/config; VMs made later need nothing else.\n--uninstall takes both away: the file is as before, to the byte. Host keys are\npinned in banger's own known_hosts; NAME.vm need not be in DNS.",
    note = "A VM must run: nothing is started by ssh. A shell without any of this:\nbanger vm ssh NAME."
)]
pub struct SshConfig {
    /// write the file, and include it in ~/.ssh/config
    #[argh(switch)]
    pub install: bool,
    /// take both away
    #[argh(switch)]
    pub uninstall: bool,
    /// another file than ~/.ssh/config
    #[argh(option, hidden_help)]
    pub file: Option<PathBuf>,
}

impl SshConfig {
    /// Refuses what makes no sense together.
    pub fn check(&self) -> Result<(), Usage> {
        match self.install && self.uninstall {
            true => Err(Usage::new("--install and --uninstall are opposites", &["ssh-config"])),
            false => Ok(()),
        }
    }
}
