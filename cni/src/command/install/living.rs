//! The pods that have a network of this program now, and what a change would mean to them.

use std::path::Path;

use node::{Error, Kind, Result, boot};

use super::Mode;
use super::conflist::Network;
use super::subnets::hold;
use crate::attachment::{Attachment, Attachments, STATE};
use crate::runtime::below;

/// This boot's attachments of the node below `root`, of all kinds; and those whose interface this program made.
fn attached(root: &Path) -> Result<(Vec<Attachment>, Vec<Attachment>)> {
    let state = below(root, Path::new(STATE));
    let boot = boot::id()?;
    let now = |records: &Attachments| -> Result<Vec<Attachment>> {
        Ok(records.all()?.into_iter().filter(|a| a.boot == boot).collect())
    };
    let mut all = Vec::new();
    for records in Attachments::everywhere(&state)? {
        all.extend(now(&records)?);
    }
    Ok((all, now(&Attachments::at(&state))?))
}

/// Refuses to take the program away from pods that need it to be deleted.
pub(super) fn none_left(root: &Path) -> Result<()> {
    let (all, _) = attached(root)?;
    if all.is_empty() {
        return Ok(());
    }
    let why = format!(
        "{} still {} it to be deleted",
        named(&all),
        if pods(&all).len() == 1 { "needs" } else { "need" }
    );
    Err(Error::caused(Kind::Conflict, "take `nodeplug-cni` away", why).hint(
        "drain the node first, or delete these pods; those that a drain leaves are DaemonSets', which make them anew: \
         keep these off the node by their nodeSelector or affinity; `--force` takes the program all the same, and a \
         pod that hangs then ends when it is installed again",
    ))
}

/// Refuses a network that would give an address away twice or cut off pods that run.
pub(super) fn unharmed(root: &Path, network: &Network) -> Result<()> {
    let (_, made) = attached(root)?;
    let doing = || format!("make the network `{}`", network.name);
    let (own, others): (Vec<_>, Vec<_>) = made.into_iter().partition(|a| a.network == network.name);
    let twice: Vec<Attachment> =
        others.into_iter().filter(|a| a.addresses.iter().any(|ip| hold(&network.subnets, *ip))).collect();
    if let Some(first) = twice.first() {
        let why = format!(
            "{} of the network `{}` {} addresses of these subnets, which would be given away again",
            named(&twice),
            first.network,
            if pods(&twice).len() == 1 { "has" } else { "have" }
        );
        return Err(Error::caused(Kind::Conflict, doing(), why).hint(format!(
            "keep its name (`--network {}`), or drain the node first; `--force` does it",
            first.network
        )));
    }
    let outside: Vec<Attachment> = (own.iter())
        .filter(|a| a.leases.is_some() && a.addresses.iter().any(|ip| !hold(&network.subnets, *ip)))
        .cloned()
        .collect();
    if let Some(first) = outside.first() {
        let from: Vec<String> = first.networks.iter().map(|net| format!("`{net}`")).collect();
        let have = if pods(&outside).len() == 1 { "has" } else { "have" };
        let why = format!("{} {have} addresses of {}", named(&outside), from.join(" and "));
        return Err(Error::caused(Kind::Conflict, doing(), why).hint(
            "they live on and are deleted as they should be, but nobody routes to them any more once the cluster uses \
             the new subnets: drain the node first, or `--force`",
        ));
    }
    let on_bridge = network.mode == Mode::Bridge;
    let moved: Vec<Attachment> = own.into_iter().filter(|a| a.port_of.is_some() != on_bridge).collect();
    if moved.is_empty() {
        return Ok(());
    }
    let are = if pods(&moved).len() == 1 { "is" } else { "are" };
    let why =
        format!("{} {are} of the other mode, and pods of the two do not reach each other", named(&moved));
    Err(Error::caused(Kind::Conflict, doing(), why).hint("drain the node first, or `--force`"))
}

/// Each pod once, whatever interfaces it has.
fn pods(all: &[Attachment]) -> Vec<String> {
    let mut names: Vec<String> = all
        .iter()
        .map(|a| a.pod.clone().unwrap_or_else(|| a.owner.to_string()))
        .map(|name| format!("`{name}`"))
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// `3 pods (`a/b`, `c/d` …)`.
fn named(all: &[Attachment]) -> String {
    let mut names = pods(all);
    let count = names.len();
    let more = if count > 3 { " …" } else { "" };
    names.truncate(3);
    format!("{count} {} ({}{more})", if count == 1 { "pod" } else { "pods" }, names.join(", "))
}
