//! The kubelet's call, read once.
