//! CHECK of what an operator asked to be set: each setting is named with what it is and what it should be.

use node::Result;

use crate::apply::Hands;
use crate::kernel::link::{self, Link};
use crate::kernel::sysctl;
use crate::plan::step::{Place, Verb};

/// What of a link is not as a verb set it. A link that is gone is told by others.
pub(super) fn different(place: Place, verb: &Verb, hands: &mut Hands) -> Result<Vec<String>> {
    let (Verb::Mac { link, .. }
    | Verb::Mtu { link, .. }
    | Verb::Promiscuous { link, .. }
    | Verb::AllMulticast { link, .. }
    | Verb::QueueLength { link, .. }) = verb
    else {
        return Ok(Vec::new());
    };
    let found = link::find(hands.socket(place)?, link)?;
    Ok(found
        .and_then(|found| compared(&found, verb))
        .map(|what| format!("{place}{what}"))
        .into_iter()
        .collect())
}

fn compared(link: &Link, verb: &Verb) -> Option<String> {
    let name = &link.name;
    let switch = |what: &str, now: bool, wanted: bool| {
        (now != wanted).then(|| format!("`{name}` {} {what}", if now { "is" } else { "is not" }))
    };
    match verb {
        Verb::Mac { mac, .. } => (link.mac != Some(*mac)).then(|| {
            let now = link.mac.map_or_else(|| "none".to_owned(), |mac| mac.to_string());
            format!("`{name}` has the MAC {now}, not {mac}")
        }),
        Verb::Mtu { mtu, .. } => {
            (link.mtu != *mtu).then(|| format!("`{name}` has the MTU {}, not {mtu}", link.mtu))
        }
        Verb::Promiscuous { on, .. } => switch("promiscuous", link.promiscuous, *on),
        Verb::AllMulticast { on, .. } => switch("taking all multicast", link.all_multicast, *on),
        Verb::QueueLength { packets, .. } => (link.queue_length != *packets)
            .then(|| format!("`{name}` has a queue of {} packets, not {packets}", link.queue_length)),
        _ => None,
    }
}

/// A setting of the pod. The kernel writes several numbers with tabs between them, whoever wrote blanks.
pub(super) fn setting(name: &str, value: &str, hands: &mut Hands) -> Result<Option<String>> {
    hands.go(Place::Pod)?;
    let now = match sysctl::get(name) {
        Ok(Some(now)) => now,
        Ok(None) => return Ok(Some(format!("{}`{name}` is gone", Place::Pod))),
        // One that can only be written had its effect at ADD.
        Err(e) if matches!(e.errno(), Some(libc::EACCES | libc::EPERM)) => return Ok(None),
        Err(e) => return Err(e),
    };
    let same = now.split_whitespace().eq(value.split_whitespace());
    Ok((!same).then(|| format!("{}`{name}` is `{now}`, not `{value}`", Place::Pod)))
}
