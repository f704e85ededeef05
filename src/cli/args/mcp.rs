//! `banger mcp`.

use std::path::PathBuf;

use argh::{ArgsInfo, FromArgs};

use crate::model::{Mib, TimeSpan};

/// `mcp`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "mcp",
    description = "let a language model use VMs of its own (MCP, over stdin and stdout)",
    usage = "[--workspace DIR]... [flags]",
    help_triggers("-h", "--help"),
    example = "In the configuration of a client, Claude and others:\n  {{\"mcpServers\": {{\"banger\": {{\"command\": \"banger\",\n    \"args\": [\"mcp\", \"--workspace\", \"/home/me/src\"]}}}}}}",
    example = "By hand, one request a line:\n  echo '{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/list\"}}' | banger mcp",
    note = "Tools: vm_create, vm_run_command, vm_read_file, vm_write_file,\nvm_export_patch, vm_list, vm_delete.",
    note = "They see and touch only VMs that this server has made, `mcp-...`. These are\ndeleted when the client leaves, when the server is killed, and in any case\nafter --max-lifetime; --keep leaves them until then.",
    note = "No file of this host is read or written, but for git repositories below the\nfolders of --workspace, which vm_create brings into a VM. What became of one\ncomes back as a patch in the answer; nobody applies it but you.",
    note = "A VM reaches no network unless the model asks for nat or allow, and then the\ninternet only, never this host or what is near it; --no-network refuses both."
)]
pub struct Mcp {
    /// most VMs at once (default: 4)
    #[argh(option, arg_name = "n", default = "4", from_str_fn(count))]
    pub max_vms: u16,
    /// most memory of all of them together (default: 8G)
    #[argh(option, arg_name = "size", default = "Mib(8 << 10)")]
    pub max_memory: Mib,
    /// longest life of a VM (default: 2h)
    #[argh(option, arg_name = "time", default = "TimeSpan::TWO_HOURS")]
    pub max_lifetime: TimeSpan,
    /// a folder below which repositories may be brought in; repeatable
    #[argh(option, arg_name = "dir")]
    pub workspace: Vec<PathBuf>,
    /// refuse VMs with a network
    #[argh(switch)]
    pub no_network: bool,
    /// leave the VMs when the client leaves
    #[argh(switch)]
    pub keep: bool,
}

fn count(text: &str) -> Result<u16, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| format!("{text:?}: between 1 and 65535 are possible"))
}
