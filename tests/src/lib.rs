//! A throw-away node for tests: namespaces, pods, and calls as a runtime makes them.
//!
//! A test gets a [`node::Node`]: its thread moves into a network and a mount namespace of its own, so
//! that the host is never touched and everything vanishes with the thread. [`runtime::Runtime`] calls a
//! plugin as containerd does, [`look`] reads the kernel through `ip` and `nft`, [`traffic`] sends packets,
//! and [`kernel::trace`] kills a call after its n-th system call.
//!
//! For volumes there is a [`volume_node::VolumeNode`] with mounts and folders of its own, a
//! [`kubelet::Kubelet`] that calls FlexVolume drivers, and [`volume_look`] for what they leave.
//!
//! For real runtimes there is a [`container_node::ContainerNode`] with cgroups and an /etc of its own, on which Debian's
//! [`containerd::Containerd`] runs pods for a kubelet's calls ([`containerd::Cri`]).
//!
//! For devices there is a [`device_node::DeviceNode`] with a /dev and a sysfs of its own and the daemon on it, and a
//! [`device_manager::DeviceManager`], the part of a kubelet that device plugins meet.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "a harness stops the test at the first surprise, and the panic is its report"
)]

pub mod call;
pub mod chain;
pub mod container_node;
pub mod containerd;
pub mod device_manager;
pub mod device_node;
pub mod flow;
pub mod kernel;
pub mod kubelet;
pub mod look;
pub mod measure;
pub mod node;
pub mod runtime;
pub mod suite;
pub mod traffic;
pub mod volume_look;
pub mod volume_node;
