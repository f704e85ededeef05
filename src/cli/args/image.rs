//! `banger image …`.

use std::path::PathBuf;

use argh::{ArgsInfo, FromArgs};

use super::super::format::Format;
use super::super::listing::Form;
use super::wish::PullSource;
use crate::image::oci::Platform;
use crate::model::{ImageName, KernelName, Mib, VmName};

/// Commands of `banger image`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(subcommand)]
pub enum ImageCommand {
    List(ImageList),
    Show(ImageShow),
    Pull(ImagePull),
    Register(ImageRegister),
    Promote(ImagePromote),
    Commit(ImageCommit),
    Cache(ImageCache),
    Delete(ImageDelete),
}

/// `image list`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "list",
    description = "list images, and what can be pulled (also: ls)",
    usage = "[-q] [--json] [--format T] [--no-trunc] [--available]",
    help_triggers("-h", "--help"),
    example = "banger image list\nbanger image list --json\nbanger image list --available"
)]
pub struct ImageList {
    /// names only, one per line
    #[argh(switch, short = 'q')]
    pub quiet: bool,
    /// print JSON
    #[argh(switch)]
    pub json: bool,
    /// only what the catalogue has and is not here
    #[argh(switch)]
    pub available: bool,
    /// print cells in full, however narrow the terminal is
    #[argh(switch)]
    pub no_trunc: bool,
    /// a line by this template: {{.name}}, any field of --json; or json
    #[argh(option, arg_name = "template")]
    pub format: Option<Format>,
}

impl ImageList {
    /// How it is to be printed.
    pub fn form(&self) -> Form {
        Form { quiet: self.quiet, json: self.json, no_trunc: self.no_trunc, format: self.format.clone() }
    }
}

/// `image show`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "show",
    description = "everything that is known of an image",
    usage = "NAME [--json]",
    help_triggers("-h", "--help"),
    example = "banger image show debian-bookworm"
)]
pub struct ImageShow {
    /// the image
    #[argh(positional, arg_name = "name")]
    pub name: ImageName,
    /// print JSON
    #[argh(switch)]
    pub json: bool,
}

/// `image pull`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "pull",
    description = "make an image available: of the catalogue, of a registry, of an archive",
    usage = "SOURCE [--name LOCAL] [--size SIZE] [--platform P]",
    help_triggers("-h", "--help"),
    example = "banger image pull debian-bookworm\nbanger image pull python:3.12\nbanger vm run --rm --image python:3.12 -- python -V\ndocker save my/image | banger image pull - --name mine\nbanger image pull oci-archive:image.tar --name mine",
    note = "SOURCE is a name of the catalogue (`banger image list` shows them), a\nreference of a registry, which has a tag, a path or a digest in it\n(python:3.12, ghcr.io/a/b, name@sha256:...), oci-archive:FILE,\ndocker-archive:FILE, or - for what `docker save` writes to standard input.",
    note = "Credentials are those of docker and podman. Plain HTTP is spoken to this\nmachine alone and to [registries] insecure = [\"host:port\"] in config.toml.",
    note = "A tag that means something else now is pulled beside what is here;\n`--image` then takes the newer one. An image of the catalogue that is\nthere already is left as it is: banger image delete NAME && banger image\npull NAME",
    note = "What is pulled for another platform is used by its local name only:\n`--image REF` means this machine's."
)]
pub struct ImagePull {
    /// what to pull
    #[argh(positional, arg_name = "source")]
    pub source: PullSource,
    /// local name (default: made of SOURCE)
    #[argh(option, arg_name = "local")]
    pub name: Option<ImageName>,
    /// size of its filesystem (default: its content and room to work)
    #[argh(option, arg_name = "size")]
    pub size: Option<Mib>,
    /// the platform to choose, as in linux/arm64 (default: this machine's)
    #[argh(option, arg_name = "platform")]
    pub platform: Option<Platform>,
}

/// `image register`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "register",
    description = "make an image of a file, used where it is",
    usage = "--rootfs FILE [--name NAME] [--kernel-ref KERNEL]",
    help_triggers("-h", "--help"),
    example = "banger image register --rootfs /srv/golden.ext4\nbanger vm run --image golden",
    note = "FILE is a raw ext4 filesystem. It must not change while it is an image:\nVMs are refused when it has. `banger image promote` copies it into\nbanger's own store; `banger image delete` leaves it."
)]
pub struct ImageRegister {
    /// the file
    #[argh(option, arg_name = "file")]
    pub rootfs: PathBuf,
    /// the image's name (default: the file's, without its ending)
    #[argh(option, arg_name = "name")]
    pub name: Option<ImageName>,
    /// the kernel that its VMs boot unless asked otherwise
    #[argh(option, arg_name = "kernel")]
    pub kernel_ref: Option<KernelName>,
}

/// `image promote`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "promote",
    description = "copy an image that is a file of yours into banger's own store",
    usage = "NAME",
    help_triggers("-h", "--help"),
    example = "banger image promote golden"
)]
pub struct ImagePromote {
    /// the image
    #[argh(positional, arg_name = "name")]
    pub name: ImageName,
}

/// `image commit`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "commit",
    description = "make an image of a VM's disk",
    usage = "VM NAME",
    help_triggers("-h", "--help"),
    example = "banger vm create --name box\nbanger vm cp ./app box:/opt\nbanger image commit box with-app\nbanger vm run --rm --image with-app -- make -C /opt/app test",
    note = "A VM that runs is paused while its disk is copied: the image is what a\npower failure at that moment would leave, all written out before. Host\nkeys, the key that may log in, machine id and host name do not come\nalong; everything else on its disk does, files that you brought in too.",
    note = "VMs of the image need a disk at least as large as this VM's."
)]
pub struct ImageCommit {
    /// the VM
    #[argh(positional, arg_name = "vm")]
    pub vm: VmName,
    /// the image's name
    #[argh(positional, arg_name = "name")]
    pub name: ImageName,
}

/// `image cache`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "cache",
    description = "the cache of what was downloaded",
    help_triggers("-h", "--help"),
    example = "banger image cache prune"
)]
pub struct ImageCache {
    #[argh(subcommand)]
    pub command: CacheCommand,
}

/// Commands of `banger image cache`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(subcommand)]
pub enum CacheCommand {
    Prune(CachePrune),
}

/// `image cache prune`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "prune",
    description = "remove layers that were downloaded; images stay",
    usage = "[--dry-run]",
    help_triggers("-h", "--help"),
    example = "banger image cache prune --dry-run\nbanger image cache prune",
    note = "What a pull that is under way uses is left alone."
)]
pub struct CachePrune {
    /// only say what would be freed
    #[argh(switch)]
    pub dry_run: bool,
}

/// `image delete`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "delete",
    description = "delete images that no VM uses (also: rm)",
    usage = "NAME...",
    help_triggers("-h", "--help"),
    example = "banger image delete debian-bookworm"
)]
pub struct ImageDelete {
    /// the images
    #[argh(positional, arg_name = "name")]
    pub names: Vec<ImageName>,
}
