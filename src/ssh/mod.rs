//! Room ssh.
