//! The policy file.

use node::Kind;
use node::finding::Finding;
use node::log;

use crate::policy::{PATH, Policy};

const WHAT: &str = "policy";
const LOG: &str = "log file";
const VALIDATE: &str = "nodeplug-flexvolume validate";

/// The policy that is in force, or the default one where the file can't be used: then no volume is mounted.
pub(super) fn read() -> (Policy, Vec<Finding>) {
    match Policy::load() {
        Ok(policy) => {
            let why = if std::path::Path::new(PATH).exists() {
                format!("`{PATH}` is valid and root's alone: {}", allowed(&policy))
            } else {
                format!("there is no `{PATH}`, so the default holds: {}", allowed(&policy))
            };
            (policy, vec![Finding::fine(WHAT, why)])
        }
        Err(error) => {
            let why = format!("{}: no pod gets a volume", error.chain());
            let remedy = match error.advice() {
                None => VALIDATE.to_owned(),
                Some(hint) if error.kind() == Kind::Config && !hint.contains(VALIDATE) => {
                    format!("{hint}; {VALIDATE}")
                }
                Some(hint) => hint.to_owned(),
            };
            (Policy::default(), vec![Finding::problem(WHAT, why, remedy)])
        }
    }
}

/// Where lines go. A log that can't be written fails no volume, and no line is written.
pub(super) fn logs(policy: &Policy) -> Option<Finding> {
    let log = policy.log();
    log.is_on().then(|| match log::check(&log) {
        Ok(()) => Finding::fine(LOG, format!("`{}` may be written", log.place)),
        Err(error) => Finding::warning(LOG, error.chain(), error.advice().unwrap_or_default()),
    })
}

/// The backends that are on.
fn allowed(policy: &Policy) -> String {
    let on = &policy.backends;
    let all = [
        ("tmpfs", on.tmpfs.is_some()),
        ("bind", on.bind.is_some()),
        ("image", on.image.is_some()),
        ("overlay", on.overlay.is_some()),
        ("block", on.block.is_some()),
        ("nfs", on.nfs.is_some()),
        ("cifs", on.cifs.is_some()),
        ("fuse", on.fuse.is_some()),
    ];
    let names: Vec<&str> = all.into_iter().filter(|(_, on)| *on).map(|(name, _)| name).collect();
    if names.is_empty() { "no backend is on".to_owned() } else { format!("{} on", names.join(", ")) }
}
