//! What only the kernel does: programs of the node's, ended in time.

pub(crate) mod child;
