//! The calls of the protocol, each from what was asked to what was done.
