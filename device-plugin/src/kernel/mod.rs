//! What only the kernel does.
