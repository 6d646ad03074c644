//! The only place that names mounts, loop devices and system calls. It reads like the tools a person would type.

pub mod block_device;
pub mod crash;
pub mod daemon;
mod errand;
pub mod fuse;
pub mod grow;
pub mod helper;
pub mod holders;
pub mod loop_device;
pub mod mount;
pub mod overlay;
pub mod own;
pub mod path;
pub mod process;
pub mod superblock;
pub mod workshop;
