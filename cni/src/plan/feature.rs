//! What a pod gets beside its interface, planned the same for an interface that this call made and for one
//! that another plugin made.

use node::Result;

use crate::attachment::Attachment;
use crate::config::feature::Features;
use crate::kernel::nft::Filter;
use crate::plan::step::Step;
use crate::plan::target::{Target, Unmade};
use crate::plan::{firewall, ports, shape, source_routing, tune};
use crate::result::Interface;

/// Refuses what this interface cannot have, before anything is made.
pub fn judge(features: &Features, target: &Target) -> Result<()> {
    features.bandwidth.iter().try_for_each(|bandwidth| shape::judge(bandwidth, target))?;
    features.tuning.iter().try_for_each(|tuning| tune::judge(tuning, target))?;
    features.firewall.iter().try_for_each(|wanted| firewall::judge(wanted, target))?;
    ports::judge(features, target)
}

/// The steps that come before anything is made for the pod: what another pod may have already.
pub fn first(features: &Features, target: &Target) -> Vec<Step> {
    ports::first(features, target)
}

/// The steps that are cheapest while the host end is down: the caller puts them before its start. Where
/// another plugin started it, they come first.
pub fn steps_before_up(features: &Features, target: &Target) -> Vec<Step> {
    features.bandwidth.as_ref().map_or_else(Vec::new, |bandwidth| shape::steps(bandwidth, target))
}

/// The links of the features' own, as the result names them.
pub fn links(features: &Features, target: &Target) -> Vec<Interface> {
    let ifb = features.bandwidth.and_then(|b| b.egress).map(|_| Interface {
        name: shape::ifb(&target.network, &target.owner),
        mac: Some(shape::ifb_mac(&target.network, &target.owner).to_string()),
        ..Interface::default()
    });
    ifb.into_iter().collect()
}

/// The steps that give the pod what is asked for. Those that need nf_tables are given as filters, for the
/// caller to put in together with its own.
pub fn steps(features: &Features, target: &Target) -> (Vec<Step>, Vec<Filter>) {
    let mut steps = Vec::new();
    steps.extend(features.tuning.iter().flat_map(|tuning| tune::steps(tuning, target)));
    let mut filters: Vec<Filter> = ports::filter(features, target).into_iter().collect();
    filters.extend(features.firewall.as_ref().map(|wanted| firewall::filter(wanted, target)));
    (steps, filters)
}

/// The steps that come when the filters stand. `live` where the pod may serve already.
pub fn after(features: &Features, target: &Target, live: bool) -> Vec<Step> {
    ports::after(features, target, live)
}

/// Writes into the record what [`unmake`] needs.
pub fn note(features: &Features, record: &mut Attachment) {
    record.ports.clone_from(&features.ports);
    record.bandwidth = features.bandwidth;
    record.firewall.clone_from(&features.firewall);
    record.source_routing = features.source_routing;
}

/// What takes the features of a record back.
pub fn unmake(record: &Attachment) -> Unmade {
    let mut unmade = Unmade::default();
    ports::unmake(record, &mut unmade);
    let (steps, ifb) = shape::unmake(record);
    unmade.steps.extend(steps);
    unmade.links.extend(ifb);
    unmade.steps.extend(source_routing::unmake(record));
    unmade.steps.extend(tune::unmake(record));
    unmade.traces.extend(firewall::unmake(record));
    unmade
}
