//! A CNI plugin for Kubernetes nodes (<https://www.cni.dev/docs/spec/>, version 1.1.0).

pub mod attachment;
pub mod config;
pub mod kernel;
pub mod mac;
pub mod owner;
pub mod result;
