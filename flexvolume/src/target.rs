//! The folder that the kubelet wants a volume at.
