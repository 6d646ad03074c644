//! What the harness asks of the kernel beyond namespaces and mounts: traced calls, resource usage, raw
//! netlink. The only folder of the tests with `unsafe`.

pub mod bare_volume;
pub mod cgroup;
pub mod netlink;
pub mod trace;
pub mod tree;
pub mod usage;
