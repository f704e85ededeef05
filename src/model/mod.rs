//! What things are: names, sizes, specifications, records, states and plans.
//!
//! Pure: no input or output, no clock, nothing asynchronous. A value that exists is valid:
//! every newtype checks itself when parsed *and* when decoded, so that a hostile frame or a
//! damaged store cannot bring a bad name into a path, a command line or a rule.

/// Addresses derived from a slot.
pub mod address;
/// What shall become different about a VM.
pub mod change;
/// Which machine monitor runs a VM and how.
pub mod choice;
/// When what stands in a console's log has come.
pub mod console_marks;
/// Where a guest may go.
pub mod egress;
/// What a guest's environment holds.
pub mod environment;
/// Identifiers that banger chooses.
pub mod id;
/// What is particular to a VM, as read by `init`.
pub mod identity;
/// When a VM counts as idle.
pub mod idle;
/// What is known of images and kernels.
pub mod image;
/// What a monitor in a jail finds there.
pub mod jail;
/// What one boot of one VM needs, as handed to the helper.
pub mod launch;
/// What all VMs may use together.
pub mod limits;
/// Names that people choose.
pub mod name;
/// Decisions as data: wanted × seen → steps, and their undo.
pub mod plan;
/// A process that cannot be mistaken for another.
pub mod process;
/// Ports of the host that lead into a guest.
pub mod publish;
/// Which addresses are the internet's.
pub mod scope;
/// Secrets that stay out of a guest.
pub mod secret;
/// Since when, as people write it.
pub mod since;
/// Sizes with units.
pub mod size;
/// What a user asked for.
pub mod spec;
/// Lengths of time with units.
pub mod time_span;
/// Where a guest went.
pub mod traffic;
/// How much of the host a VM uses.
pub mod usage;
/// What is known of a VM.
pub mod vm;
/// The words of a line.
pub mod words;
/// A repository of the host's in a VM.
pub mod workspace;

pub use address::{MacAddr, Subnet, TapName};
pub use change::{Lifetime, VmChange};
pub use console_marks::ConsoleMarks;
pub use egress::{Egress, Reach};
pub use environment::Variable;
pub use id::{OpId, Slot, VmId};
pub use idle::IdleStop;
pub use limits::{LimitError, Limits};
pub use name::{ImageName, KernelName, NameError, VmName};
pub use process::ProcessRef;
pub use publish::PublishedPort;
pub use secret::{Secret, SecretValue};
pub use since::Since;
pub use size::{Mib, SizeError};
pub use spec::{InitMode, VmSpec};
pub use time_span::TimeSpan;
pub use vm::{VmRecord, VmState};
pub use workspace::{GuestFolder, ObjectId, Workspace};

/// Implements bincode's traits for a string newtype through its checked constructor.
macro_rules! checked_string_codec {
    ($type:ty) => {
        impl bincode::Encode for $type {
            fn encode<E: bincode::enc::Encoder>(&self, encoder: &mut E) -> Result<(), bincode::error::EncodeError> {
                self.as_str().encode(encoder)
            }
        }
        impl<C> bincode::Decode<C> for $type {
            fn decode<D: bincode::de::Decoder<Context = C>>(
                decoder: &mut D,
            ) -> Result<Self, bincode::error::DecodeError> {
                let text = <String as bincode::Decode<C>>::decode(decoder)?;
                text.parse().map_err(|e| bincode::error::DecodeError::OtherString(format!("{e}")))
            }
        }
        impl<'de, C> bincode::BorrowDecode<'de, C> for $type {
            fn borrow_decode<D: bincode::de::BorrowDecoder<'de, Context = C>>(
                decoder: &mut D,
            ) -> Result<Self, bincode::error::DecodeError> {
                <Self as bincode::Decode<C>>::decode(decoder)
            }
        }
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(self.as_str())
            }
        }
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use checked_string_codec;
