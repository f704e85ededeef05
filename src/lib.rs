//! banger: throw-away virtual machines on one Linux host.
//!
//! The map of the rooms; who may import whom is held by a test in `personality`.

/// The table of names this binary answers to.
pub mod personality;

/// What things are: names, sizes, specs, records, states, plans. Pure.
pub mod model;
/// Frames, hello, and the three languages (owner, root, guest). Bytes, no sockets.
pub mod protocol;

/// This installation: paths, configuration, facts.
pub mod host;
/// Unprivileged Linux: sockets with descriptors, pidfd, atomic files, tty, logs.
pub mod os;

/// Image building blocks: catalogue, tar to ext4, kernels, initramfs.
pub mod image;
/// The server's side of the Model Context Protocol.
pub mod mcp;
/// What needs no privilege of the network: address plan and rules as text.
pub mod net;
/// Another machine's daemon: its connections and their descriptors over one stream.
pub mod relay;
/// What a user runs in a guest: the seam, and the agent's carrier.
pub mod shell;
/// ssh sessions, quoting, keys, known hosts.
pub mod ssh;
/// The store: tables, codec, migrations.
pub mod store;
/// Banger on this system: whether all that it needs is there.
pub mod system;
/// A newer banger in the place of this one.
pub mod update;
/// How a virtual machine monitor is asked, driven and told to stop.
pub mod vmm;
/// A repository goes into a guest, a patch comes out.
pub mod workspace;

/// The owner's daemon, `bangerd`.
pub mod daemon;
/// The guest side: `init` and the agent.
pub mod guest;
/// The root helper, `bangerd-root`: the only privileged code.
pub mod helper;

/// The command line.
pub mod cli;

/// The same tests over each carrier of the guest shell.
#[cfg(test)]
mod carriers;
