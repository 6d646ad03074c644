//! Amounts of bytes as Kubernetes writes them, with what options and the policy need of them beside.

use std::fmt;
use std::str::FromStr;

/// A number of bytes, at least one (see [`node::quantity::Quantity`]), of this crate: it has a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quantity(node::quantity::Quantity);

impl Quantity {
    /// `count` times 2^20 bytes.
    pub const fn mebibytes(count: u32) -> Self {
        Self(node::quantity::Quantity::mebibytes(count))
    }

    /// `count` times 2^30 bytes.
    pub const fn gibibytes(count: u32) -> Self {
        Self(node::quantity::Quantity::gibibytes(count))
    }

    /// So many bytes; 0 becomes 1.
    pub const fn of(bytes: u64) -> Self {
        Self(node::quantity::Quantity::of(bytes))
    }

    /// The bytes.
    pub const fn bytes(self) -> u64 {
        self.0.bytes()
    }
}

impl FromStr for Quantity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
