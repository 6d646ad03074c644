//! What keeps a node's pods from their volumes: looks at everything that the driver needs and meets, says what to do
//! about it, and changes nothing. No lock is taken, no file written, no module loaded; what is mounted to try the
//! kernel is nowhere, and goes with its descriptor.

mod backends;
mod drivers;
mod kernel;
mod kubelet;
mod locks;
mod policy;
mod volumes;

use std::path::Path;

use node::Result;
use node::finding::{Finding, Report};

/// Looks at this node; `root` is where its `/` is mounted, where that is not here.
pub fn examine(root: Option<&Path>) -> Result<Report> {
    // Before the root is entered: a kubelet is found by its process, which may be beside it.
    let chosen = drivers::chosen(root.unwrap_or(Path::new("/")));
    if let Some(root) = root {
        node::root::enter(root)?;
    }
    let mut report = Report::default();
    report.add(drivers::all(chosen));
    let (policy, found) = policy::read();
    report.add(found);
    report.add(policy::logs(&policy));
    let is_booted = Path::new("/proc/self/mountinfo").exists();
    report.add(kubelet::state());
    if !is_booted {
        report.add([Finding::warning(
            "kernel",
            "there is no /proc below this root: only files were looked at",
            "boot the node, or mount its /proc there, and ask again",
        )]);
        return Ok(report);
    }
    report.add(kubelet::pods(&policy.kubelet_root));
    report.add(kernel::mounts());
    report.add(backends::all(&policy));
    report.add(volumes::all());
    Ok(report)
}
