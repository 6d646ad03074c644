//! A CNI plugin for Kubernetes nodes (<https://www.cni.dev/docs/spec/>, version 1.1.0).

pub mod attachment;
pub mod command;
pub mod config;
pub mod kernel;
pub mod owner;
pub mod render;
pub mod request;
pub mod result;
pub mod version;
