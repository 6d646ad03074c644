//! The steps of a mount, in order.
