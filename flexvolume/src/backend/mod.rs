//! One file a backend: its options, what it looks at, the steps of its mount.

pub mod bind;
pub mod block;
pub mod cifs;
pub mod fuse;
pub mod image;
pub mod nfs;
pub mod overlay;
pub mod tmpfs;
