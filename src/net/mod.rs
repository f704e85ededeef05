//! What needs no privilege of the network: which addresses, and which rules as text.
//!
//! Pure: the helper applies what is decided here.

/// Which /24 the bridge gets.
pub mod plan;
/// The rules between guests, host and the rest, as text for `nft -f -`.
pub mod rules;
