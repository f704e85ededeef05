//! Room vmm.
