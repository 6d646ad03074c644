//! How this kernel mounts: tried with a tmpfs that is nowhere.

use std::os::fd::AsFd;

use node::finding::Finding;

use crate::kernel::mount::{self, Attributes, Parameter, classic};

const WHAT: &str = "mounting";
const OLD: &str = "use Linux 5.12 or later: until then volumes are visible before they are whole, and some options are \
                   refused";

/// fsopen, fsmount, open_tree and mount_setattr; and whether files can be shown as another owner's.
pub(super) fn mounts() -> Vec<Finding> {
    let size = [Parameter::Text("size".into(), "64k".into())];
    let tree = match mount::make("tmpfs", None, &size, false) {
        Ok(tree) => tree,
        Err(error) if classic::is_missing(&error) => {
            return vec![Finding::warning(WHAT, "this kernel has no fsopen(2)", OLD)];
        }
        Err(error) => {
            let remedy = error.advice().unwrap_or("run as root, in the node's own user namespace");
            return vec![Finding::problem(WHAT, error.chain(), remedy)];
        }
    };
    if let Err(error) = mount::clone_tree(tree.as_fd(), false) {
        return vec![Finding::warning(WHAT, format!("no copies of mounts: {}", error.chain()), OLD)];
    }
    let strict = Attributes { nosuid: true, nodev: true, noexec: true, ..Attributes::default() };
    if let Err(error) = mount::set_attributes(&tree, &strict, true) {
        return vec![Finding::warning(WHAT, format!("no mount_setattr(2): {}", error.chain()), OLD)];
    }
    let mapped = mount::user_namespace("0 100000 1\n", "0 100000 1\n").and_then(|namespace| {
        let map = Attributes { idmap: Some(namespace.as_fd()), ..Attributes::default() };
        mount::set_attributes(&tree, &map, false)
    });
    let owners = if mapped.is_ok() { "" } else { "; tmpfs can't show other owners (needs Linux 6.3)" };
    vec![Finding::fine(WHAT, format!("fsopen, open_tree and mount_setattr work{owners}"))]
}
