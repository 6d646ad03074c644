//! The network configuration: what the operator wrote, checked and typed.

pub mod reader;
