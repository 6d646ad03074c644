//! The kubelet's gRPC interfaces for device plugins, as Rust types, clients and servers
//! (<https://kubernetes.io/docs/concepts/extend-kubernetes/compute-storage-net/device-plugins/>).
//! The definitions are in `protos/`; prost's names are kept, odd as some are (`device_i_ds`).

mod encoded_list;

pub use encoded_list::EncodedList;

/// Registration, lists and allocation: version v1beta1 of the device manager's interface.
pub mod deviceplugin {
    #![allow(missing_docs, unused_qualifications, clippy::pedantic, reason = "generated")]
    tonic::include_proto!("v1beta1");
}

/// The same, for a plugin whose lists are encoded once and sent as often as they are asked for.
pub mod encoded {
    #![allow(missing_docs, unused_qualifications, clippy::pedantic, reason = "generated")]
    include!(concat!(env!("OUT_DIR"), "/encoded/v1beta1.rs"));
}

/// The kubelet's plugin watcher.
pub mod pluginregistration {
    #![allow(missing_docs, unused_qualifications, clippy::pedantic, reason = "generated")]
    tonic::include_proto!("pluginregistration");
}

/// Who holds which devices.
pub mod podresources {
    #![allow(missing_docs, unused_qualifications, clippy::pedantic, reason = "generated")]
    tonic::include_proto!("v1");
}

/// The version of the device manager's interface that is spoken here.
pub const VERSION: &str = "v1beta1";

/// The one word for a device that can be had; the kubelet compares it exactly.
pub const HEALTHY: &str = "Healthy";

/// The word for one that can't.
pub const UNHEALTHY: &str = "Unhealthy";

/// The largest message that the kubelet takes, in bytes: it dials with gRPC's own limit.
pub const MESSAGE_LIMIT: usize = 4 << 20;
