//! A device plugin for Kubernetes nodes
//! (<https://kubernetes.io/docs/concepts/extend-kubernetes/compute-storage-net/device-plugins/>).

pub mod allocate;
pub mod cdi;
pub mod command;
pub mod config;
pub mod discover;
pub mod health;
pub mod inventory;
mod kernel;
