//! `banger image …`.

use argh::{ArgsInfo, FromArgs};

use crate::model::{ImageName, Mib};

/// Commands of `banger image`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(subcommand)]
pub enum ImageCommand {
    List(ImageList),
    Show(ImageShow),
    Pull(ImagePull),
    Delete(ImageDelete),
}

/// `image list`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "list",
    description = "list images (also: ls)",
    usage = "[-q] [--json]",
    help_triggers("-h", "--help"),
    example = "banger image list\nbanger image list --json"
)]
pub struct ImageList {
    /// names only, one per line
    #[argh(switch, short = 'q')]
    pub quiet: bool,
    /// print JSON
    #[argh(switch)]
    pub json: bool,
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
    description = "make an image of the catalogue available",
    usage = "NAME [--name LOCAL] [--size SIZE]",
    help_triggers("-h", "--help"),
    example = "banger image pull debian-bookworm\nbanger vm run --image debian-bookworm",
    note = "An image that is there already is left as it is. To make it anew:\n  banger image delete NAME && banger image pull NAME"
)]
pub struct ImagePull {
    /// a name of the catalogue
    #[argh(positional, arg_name = "name")]
    pub source: ImageName,
    /// local name (default: the catalogue's)
    #[argh(option, arg_name = "local")]
    pub name: Option<ImageName>,
    /// size of its filesystem (default: its content and room to work)
    #[argh(option, arg_name = "size")]
    pub size: Option<Mib>,
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
