//! A device plugin for Kubernetes nodes
//! (<https://kubernetes.io/docs/concepts/extend-kubernetes/compute-storage-net/device-plugins/>).

pub mod allocate;
pub mod board;
pub mod cdi;
pub mod command;
pub mod config;
pub mod daemon;
pub mod dial;
pub mod discover;
pub mod doctor;
pub mod features;
pub mod health;
pub mod holders;
pub mod http;
pub mod inventory;
pub mod kernel;
pub mod log;
pub mod metrics;
pub mod service;
pub mod session;
pub mod watch;
