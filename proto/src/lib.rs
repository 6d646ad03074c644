//! The kubelet's gRPC interfaces and their generated code; empty until the device plugin is written.
