//! What goes wrong in the guest.

use std::io;

use crate::protocol::FrameError;

/// A step of the guest's start failed.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// The kernel refused something.
    #[error("cannot {doing}")]
    Io {
        /// What was being done, to what.
        doing: String,
        /// Why not.
        source: io::Error,
    },
    /// The identity does not decode.
    #[error("the identity in the initramfs cannot be read; the daemon and this initramfs may be of different builds")]
    Identity(#[source] FrameError),
    /// A device did not come.
    #[error("no {device} within {seconds} s: does the initramfs hold its modules?")]
    NoDevice {
        /// The device.
        device: String,
        /// How long was waited.
        seconds: u64,
    },
    /// No network card has the identity's address.
    #[error("no network card has the address {0}: does the initramfs hold virtio_net?")]
    NoLink(crate::model::MacAddr),
    /// A path or name in the initramfs is not of its form.
    #[error("{what} in the initramfs is {found:?}, which is not allowed")]
    BadName {
        /// What was read.
        what: &'static str,
        /// What it holds.
        found: String,
    },
    /// The image has no init of its own.
    #[error("the image has no init: none of {0} can be executed")]
    NoImageInit(String),
}

/// Adds what was being done to an error of the kernel.
pub trait Doing<T> {
    /// `doing` completes "cannot …".
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T, GuestError>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T, GuestError> {
        self.map_err(|e| GuestError::Io { doing: doing(), source: e.into() })
    }
}

/// The error and all its sources in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
