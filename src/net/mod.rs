//! What needs no privilege of the network: which addresses, and which rules as text.
//!
//! Pure: the helper applies what is decided here, the daemon says and hears what is written here.

/// DNS messages.
pub mod dns;
/// Requests of HTTP that carry secrets.
pub mod http;
/// What nft says of its tables.
pub mod listing;
/// Which /24 the bridge gets.
pub mod plan;
/// The servers in a resolv.conf.
pub mod resolvers;
/// The rules between guests, host and the rest, as text for `nft -f -`.
pub mod rules;
