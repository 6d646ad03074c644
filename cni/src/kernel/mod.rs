//! The verbs that a person would type as `ip`, `nft` or `tc`, spoken to the kernel over netlink. Only
//! this folder names netlink, and only here does unsafe code stand.

pub mod nft;
