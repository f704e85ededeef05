//! The privilege as a value: a function that takes `&Root` does what only root may.

use super::error::{HelperError, Result};

/// Proof that this process is root. Made here alone.
#[derive(Debug)]
pub struct Root(());

impl Root {
    /// Checks this process.
    pub fn claim() -> Result<Self> {
        if rustix::process::geteuid().is_root() { Ok(Self(())) } else { Err(HelperError::NotRoot) }
    }
}
