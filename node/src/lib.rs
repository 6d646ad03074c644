//! What nodeplug's programs share and nothing else: one error, steps with their undo, a small state
//! store, the boot's identity, network namespaces, the log, and the form of what a `doctor` found.
//!
//! Every program runs the same flow: request → observe → plan → apply → render. This crate knows none
//! of their protocols and depends on none of them.

pub mod boot;
pub mod error;
pub mod finding;
pub mod install;
mod kernel;
pub mod log;
pub mod mountinfo;
pub mod namespace;
pub mod root;
pub mod stay;
pub mod step;
pub mod store;

pub use error::{Context, Error, Kind, Result};
pub use kernel::adopt;
