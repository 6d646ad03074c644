//! What a container gets: all of it decided without a look at the node, then the look whether it is all there.

mod answer;
mod given;
mod look;
mod prefer;
pub mod template;
mod values;

pub use answer::{ENV_ATTRIBUTE, answer};
pub use given::{Answer, Given, Hand, Was};
pub use look::{behind, kind, number, seen};
pub use prefer::prefer;
pub(crate) use values::Device;

#[cfg(test)]
mod tests;
