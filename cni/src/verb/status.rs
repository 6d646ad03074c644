//! STATUS: could an ADD work now? (CNI spec 1.1.0, section 2, "STATUS").

use node::namespace::Namespace;
use node::{Error, Kind, Result};

use crate::apply::Hands;
use crate::config::Attach;
use crate::ipam::Ipam;
use crate::kernel::link;
use crate::kernel::nft::{Filter, Masquerade, Nft};
use crate::owner::Owner;
use crate::plan::step::Place;
use crate::plan::target::Target;
use crate::plan::{firewall, ports};
use crate::request::Status;
use crate::state::State;
use crate::verb::repair;

/// Nothing, or why not: every cause is [`Kind::Unavailable`], CNI code 50.
pub fn status(call: &Status) -> Result<()> {
    let state = State::open().map_err(unavailable)?;
    let mut hands = Hands::new(&state, Namespace::current().map_err(unavailable)?, None);
    if let Attach::Bridge(bridge) = &call.config.attach {
        let found =
            link::find(hands.socket(Place::Host).map_err(unavailable)?, &bridge.name).map_err(unavailable)?;
        if let Some(other) = found.filter(|l| l.kind.as_deref() != Some("bridge")) {
            let kind = other.kind.unwrap_or_else(|| "physical".to_owned());
            return Err(Error::new(
                Kind::Unavailable,
                format!("use `{}` as the bridge, which is a {kind} link", bridge.name),
            )
            .hint("choose another name in `bridge`, or rename the link"));
        }
    }
    if call.config.masquerade {
        let probe = Masquerade { network: call.config.name.clone(), keep: Vec::new() };
        let probe = Filter::Masquerade(probe, Vec::new());
        hands.nft().and_then(|nft| nft.usable(&[probe])).map_err(unavailable)?;
    }
    mended(call, &mut hands).map_err(unavailable)?;
    if matches!(&call.config.attach, Attach::Bridge(bridge) if bridge.mac_spoof_check) {
        hands.nft().and_then(Nft::spoof_usable).map_err(unavailable)?;
    }
    match &call.config.ipam {
        Some(Ipam::HostLocal(config)) => {
            let folder = config.folder(&call.config.name);
            let Some(leases) = hands.open_existing_leases(&folder, config.cooldown).map_err(unavailable)?
            else {
                return Ok(());
            };
            if !leases.has_room(config).map_err(unavailable)? {
                let what = format!("give out an address of `{}`: every one is leased", call.config.name);
                return Err(Error::new(Kind::Unavailable, what)
                    .hint("see `nodeplug-cni ipam check`, or enlarge the range"));
            }
            Ok(())
        }
        Some(Ipam::Delegate { plugin }) => {
            let told = hands.delegates(&call.path, &call.stdin).status(plugin);
            // Codes beside these two mean nothing to a runtime that asked for STATUS.
            told.map_err(|e| if matches!(e.kind(), Kind::Delegate(50 | 51)) { e } else { unavailable(e) })
        }
        Some(Ipam::Static(_)) | None => Ok(()),
    }
}

/// A runtime asks for STATUS every few seconds: so long, and no longer, pods are without what a flush of
/// nf_tables or a restart of the host's firewall took from them.
fn mended(call: &Status, hands: &mut Hands) -> Result<()> {
    let features = &call.config.features;
    if !call.config.masquerade && features.is_empty() && !call.config.maps_ports() {
        return Ok(());
    }
    let ports = call.config.maps_ports().then(|| ports::probe(features.ports.as_ref()));
    hands.nft()?.usable(&Vec::from_iter(ports))?;
    if hands.state().was_flushed() || !hands.nft()?.has_table()? {
        return repair::after_flush(hands, None).map_err(repair::failed);
    }
    let Some(firewall) = &features.firewall else { return Ok(()) };
    if hands.nft()?.firewall_missing(&firewall.admin_chain)?.is_empty() {
        return Ok(());
    }
    // The rules that all pods share, and no pod's.
    let shared = firewall::filter(firewall, &Target::default());
    hands.nft()?.put(&[shared], &Owner::default(), &|_| true)
}

fn unavailable(error: Box<Error>) -> Box<Error> {
    Error::caused(Kind::Unavailable, "serve an ADD", error)
}
