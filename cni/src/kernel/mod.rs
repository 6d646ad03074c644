//! The only folder that names netlink, nftables and sysctl. Its verbs read like the tool a person
//! would type; each returns a [`socket::Request`] that a batch carries, or asks the kernel one thing.

pub mod address;
pub mod conntrack;
pub mod link;
pub mod loopback;
pub mod neighbour;
pub mod nft;
pub mod probe;
pub mod reaper;
pub mod route;
pub mod rule;
pub mod socket;
pub mod sysctl;
pub mod tc;
