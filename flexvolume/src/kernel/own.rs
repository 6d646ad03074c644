//! Gives a volume to the pod's group, as the kubelet's fsGroup does.
