//! Unprivileged Linux, wrapped so that the other rooms speak in their own terms.
//!
//! Nothing here needs a capability and nothing is asynchronous: what can wait offers a descriptor
//! to wait on. An `io::Error` that leaves this room carries the path and the verb.

/// The account database, read without NSS.
pub mod accounts;
/// A folder as a tar stream and back.
pub mod archive;
/// Opening what is in a folder and nothing else.
pub mod beneath;
/// Control groups: hierarchies, and what a member uses.
pub mod cgroup;
/// A short sum of bytes.
pub mod checksum;
/// Programs run to their end within bounds, as somebody else where asked.
pub mod child;
/// Clocks.
pub mod clock;
/// One file's content into another.
pub mod content;
/// Failing on purpose, for the tests of crashes.
pub mod fault_point;
/// Files that are whole or not there.
pub mod files;
/// What is counted on network links.
pub mod link_counters;
/// Where log lines go.
pub mod logger;
/// Memory that is a file.
pub mod memfd;
/// What tests need.
#[cfg(test)]
pub(crate) mod need;
/// Links, addresses and routes over rtnetlink.
pub mod netlink;
/// A folder that nobody else can change.
pub mod own_folder;
/// Processes that cannot be mistaken: pid and start time, pidfd.
pub mod process;
/// Random numbers from the kernel.
pub mod random;
/// Telling whoever started a daemon that it answers.
pub mod readiness;
/// Removing a tree and nothing else.
pub mod remove;
/// What systemd gives a service and wants to hear.
pub mod service;
/// SHA-256 of what comes in pieces.
pub mod sha256;
/// Unix sockets: descriptors beside bytes, peers' credentials, listening.
pub mod socket;
/// Terminals.
pub mod tty;
