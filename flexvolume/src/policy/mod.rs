//! The node's policy: what pods may ask of this node.
