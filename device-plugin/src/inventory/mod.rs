//! What a resource has: devices as sources find them, and what becomes of them over time.

mod found;
mod id;

pub use found::{DeviceNumber, Found, Looked, Node, Rejected};
pub use id::{counted_weight, id, weight};
