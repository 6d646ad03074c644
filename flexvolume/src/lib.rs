//! A FlexVolume driver for Kubernetes nodes
//! (<https://github.com/kubernetes/design-proposals-archive/blob/main/storage/flexvolume-deployment.md>).

pub mod apply;
pub mod backend;
pub mod command;
pub mod doctor;
pub mod kernel;
pub mod name;
pub mod observe;
pub mod options;
pub mod plan;
pub mod policy;
pub mod record;
pub mod render;
pub mod request;
pub mod target;
pub mod verb;
