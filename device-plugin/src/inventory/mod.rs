//! What a resource has: devices as sources find them, and what becomes of them over time.

mod found;

pub use found::{DeviceNumber, Found, Looked, Node, Rejected};
