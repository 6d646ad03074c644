//! A CNI plugin for Kubernetes nodes (<https://www.cni.dev/docs/spec/>, version 1.1.0).

pub mod apply;
pub mod attachment;
pub mod claims;
pub mod command;
pub mod config;
pub mod doctor;
pub mod ipam;
pub mod kernel;
pub mod log;
pub mod mac;
pub mod name;
pub mod observe;
pub mod owner;
pub mod plan;
pub mod port;
pub mod render;
pub mod request;
pub mod result;
pub mod role;
pub mod runtime;
pub mod state;
pub mod verb;
pub mod version;
