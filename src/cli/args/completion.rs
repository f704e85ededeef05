//! `banger completion`.

use argh::{ArgsInfo, FromArgs};

use crate::system::completions::Shell;

/// `completion`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "completion",
    description = "have a shell complete commands, flags, values and names",
    usage = "bash|zsh|fish",
    help_triggers("-h", "--help"),
    example = "banger completion bash\nbanger completion zsh\nbanger completion fish",
    note = "Prints a script for the shell. `sudo banger system install` and the packages\nhave put it where the shell looks already; elsewhere, once per\naccount (for zsh behind its compinit):\n  bash   echo 'source <(banger completion bash)' >>~/.bashrc\n  zsh    echo 'source <(banger completion zsh)' >>~/.zshrc\n  fish   banger completion fish >~/.config/fish/completions/banger.fish",
    note = "VMs, images and kernels are asked of the daemon while you type, when it runs:\nnothing is started by it. With --host or BANGER_HOST they are not completed.",
    note = "Also under names of your own, links to banger: banger-ps, or one of [aliases]\nin config.toml; a shell knows those that were there when it loaded the script."
)]
pub struct Completion {
    /// the shell: bash, zsh or fish
    #[argh(positional, arg_name = "bash|zsh|fish")]
    pub shell: Shell,
}
