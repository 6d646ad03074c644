//! A volume's options: the flat map of strings that the kubelet hands over.
