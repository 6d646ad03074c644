//! What a container gets: all of it decided without a look at the node, then the look whether it is all there.

mod answer;
mod given;
mod look;
mod prefer;
pub mod template;
mod values;

use crate::inventory::Found;

pub use answer::{ENV_ATTRIBUTE, answer};
pub use given::{Answer, Given, Hand};
pub use look::{behind, seen};
pub use prefer::prefer;
pub(crate) use values::Device;

/// A device that the kubelet chose, or may choose.
#[derive(Debug, Clone, Copy)]
pub struct Chosen<'a> {
    /// Its ID, as the kubelet knows it.
    pub id: &'a str,
    /// The device behind it.
    pub found: &'a Found,
    /// Which of the device's replicas it is, from 0.
    pub replica: u32,
}

#[cfg(test)]
mod tests;
