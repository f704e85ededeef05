//! What is particular to a VM: the one message that turns a copy of an image into *this* VM.
//!
//! `init` reads it from the cpio appended to the initramfs; later the agent takes it again when
//! a restored snapshot has to become another VM. Append-only: old agents read new daemons' words.

use std::net::Ipv4Addr;

use super::environment::Variable;
use super::secret::{Placeholder, VariableName};
use super::{InitMode, MacAddr, VmId, VmName};

/// Path of the encoded identity inside the initramfs.
pub const IDENTITY_PATH: &str = "banger/identity";

/// Path, inside the initramfs, of the list of module files to load, one path per line, in order.
pub const MODULE_LIST_PATH: &str = "banger/modules.list";

/// Path, inside the initramfs, of the kernel release whose modules drive is attached; absent without.
pub const RELEASE_PATH: &str = "banger/release";

/// The message, by version.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum Identity {
    /// Protocol 1.
    V1(IdentityV1),
    /// With secrets.
    V2(IdentityV2),
    /// With variables.
    V3(IdentityV3),
    /// With what the image wants for its programs.
    V4(IdentityV4),
    /// None: what an earlier identity has left on the disk is removed, and the machine ends.
    Seal(Seal),
}

/// Has a disk become an image again.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Seal {
    /// The VM whose disk it was.
    pub name: VmName,
    /// Its line of OpenSSH public key that could log in as root.
    pub authorized_key: String,
}

/// What `init` prints, behind its mark, once a disk is sealed.
pub const SEALED: &str = "sealed";

/// An identity with what the image says of the programs that run in it.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct IdentityV4 {
    /// All the rest.
    pub third: IdentityV3,
    /// The image's own variables, `NAME=VALUE`; all others come before them.
    pub environment: Vec<String>,
    /// The folder that its commands start in, made where it is missing; empty: none.
    pub folder: String,
}

/// An identity with variables of the owner's.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct IdentityV3 {
    /// All the rest.
    pub second: IdentityV2,
    /// More variables that everything run in the guest gets.
    pub variables: Vec<Variable>,
}

/// An identity with what stands for secrets.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct IdentityV2 {
    /// All the rest.
    pub first: IdentityV1,
    /// Variables that everything run in the guest gets.
    pub environment: Vec<(VariableName, Placeholder)>,
    /// The authority that the guest shall trust as well, PEM; for the hosts of its secrets alone.
    pub authority: String,
}

/// First version of the identity.
#[derive(Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct IdentityV1 {
    /// The VM's id; the machine id is derived from it.
    pub id: VmId,
    /// Host name.
    pub name: VmName,
    /// The network card to configure.
    pub mac: MacAddr,
    /// The VM's address.
    pub address: Ipv4Addr,
    /// Length of the network's prefix, bits.
    pub prefix: u8,
    /// Default route and DNS server.
    pub gateway: Ipv4Addr,
    /// One line of OpenSSH public key that may log in as root.
    pub authorized_key: String,
    /// The guest's ed25519 host key, OpenSSH private key format. Secret.
    pub host_key: String,
    /// Who is pid 1 once the root is mounted.
    pub init: InitMode,
    /// The host's clock, nanoseconds since the epoch, when this was written.
    pub now_ns: u64,
}

impl std::fmt::Debug for IdentityV1 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IdentityV1")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("address", &self.address)
            .field("host_key", &"(secret)")
            .finish_non_exhaustive()
    }
}
