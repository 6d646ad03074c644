//! `install` and `uninstall`: the program in the runtime's folder of plugins, there under the reference's names, too,
//! and a network for the runtime.
//!
//! A runtime may exec any name at any time and read the network at any time, so each is whole at every moment: the
//! new one is made hidden beside it, asked for VERSION or checked there, and renamed. The program comes first and the
//! network last, and they go the other way round. What had a name before is kept in a hidden folder first. A kill
//! leaves some names with the one program and some with the other; the next install or uninstall goes on from there.

mod args;
mod conflist;
mod kube_api;
mod living;
mod names;
mod network;
mod originals;
mod overlap;
mod place;
pub(crate) mod probe;
mod record;
mod report;
mod source;
mod staying;
mod subnets;
mod uninstall;

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use node::install::Folder;
use node::stay::Signals;
use node::{Context, Error, Kind, Result};

use crate::runtime::{below, lists};
use crate::version::Version;
pub(crate) use args::OURSELVES;
pub use args::{Install, Mode, Uninstall};
use conflist::Network;
pub(crate) use names::is_ours;
use network::Wanted;
pub(crate) use originals::NAME as ORIGINALS;
use originals::Originals;
use place::{Place, Told};
use record::Record;
pub use report::{Conflist, Outcome, Report, Row};
use source::{Given, Source};
pub use staying::run as stay;
pub use uninstall::uninstall;

/// How long one that does not stay waits for the API server.
const PATIENCE: Duration = Duration::from_mins(5);
/// What the host calls itself, where nobody names the node.
const HOSTNAME: &str = "/proc/sys/kernel/hostname";

/// How an install goes about it.
#[derive(Clone, Copy)]
struct Manner<'a> {
    /// How long it waits for the API server; `None` for as long as it takes.
    patience: Option<Duration>,
    /// What ends the waiting.
    signals: Option<&'a Signals>,
    /// Whether somebody uninstalled meanwhile.
    called_off: &'a dyn Fn() -> bool,
    /// It is done already, and only what others changed is put back.
    again: bool,
}

/// What an install has done.
#[derive(Debug)]
struct Done {
    report: Report,
    /// What the network was made of.
    given: Option<Given>,
}

/// Installs under all names or, where something is wrong, under none; then the network.
///
/// Errors: [`Kind::Config`] where others may write a folder or the runtime does not use it, [`Kind::Conflict`] where a
/// name is somebody else's or the subnets are in use, [`Kind::Mismatch`] where the program answers wrongly.
pub fn install(wish: &Install) -> Result<Report> {
    let source = Source::of(wish, &environment)?;
    let manner = Manner { patience: Some(PATIENCE), signals: None, called_off: &|| false, again: false };
    let done = work(wish, source.as_ref(), manner)?;
    done.map(|done| done.report).ok_or_else(|| Error::new(Kind::Internal, "install without an end"))
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// One install. `None` where a signal or an uninstall came first.
fn work(wish: &Install, source: Option<&Source>, manner: Manner<'_>) -> Result<Option<Done>> {
    let root = wish.root.as_deref().unwrap_or(Path::new("/"));
    let told = Told::of(wish, manner.again);
    let place = place::choose(root, told)?;
    let mut record = Record::load(root)?.unwrap_or_default();
    let mut report = Report {
        folder: place.bin_here(),
        why: place.why.clone(),
        dry_run: wish.dry_run,
        notes: place.notes.clone(),
        ..Report::default()
    };
    // What can be known is known before anything is done. The API server may be asked by way of pods that need
    // the program first.
    let plan = |given: Given, report: &mut Report, record: &Record| -> Result<_> {
        let (network, outcome) = planned(wish, &place, record, &given, manner.again, report)?;
        Ok((network, outcome, given))
    };
    let early = match source {
        None | Some(Source::Api(_)) => Ok(None),
        Some(source) => given(wish, source).and_then(|given| plan(given, &mut report, &record)).map(Some),
    };
    // A network that cannot be put back is no reason to go without the program.
    let early = if manner.again { early } else { Ok(early?) };
    if !programs(wish, &place, &mut record, &mut report, manner.called_off)? {
        return Ok(None);
    }
    let due = match (early?, source) {
        (None, Some(Source::Api(socket))) => {
            let Some(given) = asked(wish, socket, manner)? else { return Ok(None) };
            Some(plan(given, &mut report, &record)?)
        }
        (early, _) => early,
    };
    let Some((network, outcome, given)) = due else { return Ok(Some(Done { report, given: None })) };
    let wanted = Wanted { text: network.text()?, network: &network, path: place.conf.join(&wish.conflist) };
    report.notes.extend(network::remarks(&place, &wanted, outcome)?);
    report.conflist = Some(network::row(&place, &wanted, outcome));
    if !wish.dry_run {
        let _alone = Folder::lock(&place.bin_here())?;
        if (manner.called_off)() {
            return Ok(None);
        }
        report.notes.extend(network::perform(&place, &wanted, outcome, &mut record)?);
    }
    Ok(Some(Done { report, given: Some(given) }))
}

/// The program under its names. `false` where it was called off meanwhile.
fn programs(
    wish: &Install,
    place: &Place,
    record: &mut Record,
    report: &mut Report,
    called_off: &dyn Fn() -> bool,
) -> Result<bool> {
    let here = place.bin_here();
    let mut names = names::meant(&wish.only, wish.as_reference);
    let lacks = place.lacks_loopback().then_some("loopback");
    let also: Vec<&str> = if here.is_dir() { names::taken(&here)? } else { Vec::new() };
    for name in also.into_iter().chain(lacks) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    if wish.dry_run {
        let rows = names::plan(&wish.from, &here, &names)?;
        report.names = rows.into_iter().map(|(name, outcome)| Row::new(name, outcome, None)).collect();
        return Ok(true);
    }
    if place.may_make && !here.exists() {
        record.made.extend(place::make(&place.root, &place.bin, "the folder of plugins")?);
        report.notes.push(format!("made `{}`, which was not there", here.display()));
    }
    place::writable(&here, "the folder of plugins")?;
    let folder = Folder::lock(&here)?;
    if called_off() {
        return Ok(false);
    }
    names::sweep(&folder)?;
    let rows = names::plan(&wish.from, &here, &names)?;
    let changed =
        record.folder != place.bin || rows.iter().any(|(_, outcome)| *outcome != Outcome::Unchanged);
    if changed {
        env!("CARGO_PKG_VERSION").clone_into(&mut record.version);
        record.folder.clone_from(&place.bin);
        record.save(&place.root)?;
    }
    let result = names::perform(&wish.from, &folder, &rows);
    if result.is_err() {
        // What stays is hidden, and the next install removes it.
        let _ = names::sweep(&folder);
    }
    let kept = Originals::of(&folder)?;
    result?;
    report.names =
        rows.into_iter().map(|(name, outcome)| Row::new(name, outcome, kept.path_of(name))).collect();
    Ok(true)
}

/// The network, and what is to be done to its file; refuses what would harm pods or the node.
fn planned(
    wish: &Install,
    place: &Place,
    record: &Record,
    given: &Given,
    again: bool,
    report: &mut Report,
) -> Result<(Network, Outcome)> {
    if !lists::is_loaded(&wish.conflist)
        || wish.conflist.contains('/')
        || !wish.conflist.ends_with(".conflist")
    {
        return Err(Error::new(Kind::Usage, format!("call the network's file `{}`", wish.conflist))
            .hint("a name that ends in `.conflist`, such as 10-nodeplug.conflist"));
    }
    let subnets = subnets::read(&given.subnets)?;
    let words = if wish.cluster_cidr.is_empty() { &given.cluster } else { &wish.cluster_cidr };
    let cluster = words.iter().map(|word| subnets::network(word)).collect::<Result<Vec<_>>>()?;
    let network = Network {
        name: wish.network.clone(),
        version: version(wish, place, report)?,
        mode: wish.mode,
        mtu: wish.mtu.or(given.mtu),
        subnets,
        cluster,
    };
    let text = network.text()?;
    if !wish.force {
        overlap::none(&place.root, &network)?;
        living::unharmed(&place.root, &network)?;
    }
    let wanted = Wanted { network: &network, text, path: place.conf.join(&wish.conflist) };
    let outcome = network::plan(place, &wanted, record, wish.force && !again)?;
    let forwards = |ipv6: bool| {
        let setting = if ipv6 { "ipv6/conf/all/forwarding" } else { "ipv4/ip_forward" };
        let path = below(&place.root, Path::new("/proc/sys/net")).join(setting);
        // A root that is not booted says nothing.
        std::fs::read_to_string(path).map_or(true, |text| text.trim() != "0")
    };
    report.notes.extend(subnets::remarks(&network.subnets, &network.cluster, &forwards));
    Ok((network, outcome))
}

fn version(wish: &Install, place: &Place, report: &mut Report) -> Result<Version> {
    let newest = place.runtime.as_ref().map_or("1.0.0", |runtime| runtime.cni_version());
    let read = |text: &str| {
        text.parse::<Version>().doing(Kind::Usage, || "choose the network's cniVersion".to_owned())
    };
    let (newest, asked) = (read(newest)?, wish.cni_version.as_deref().map(read).transpose()?);
    if let Some(asked) = asked.filter(|asked| *asked > newest) {
        report.notes.push(format!(
            "the runtime may not understand cniVersion {}; what it surely does is {}",
            asked.as_str(),
            newest.as_str()
        ));
    }
    Ok(asked.unwrap_or(newest))
}

fn given(wish: &Install, source: &Source) -> Result<Given> {
    match source {
        Source::Known(given) => Ok(given.clone()),
        Source::Words(words) => Ok(Given { subnets: words.clone(), ..Given::default() }),
        Source::File(file) => {
            let node = wish.node_name.clone().or_else(|| environment("NODE_NAME"));
            source::parse(&source::text_of(file)?, node.as_deref(), &host())
        }
        Source::Api(_) => Err(Error::new(Kind::Internal, "read a socket as a file")),
    }
}

/// Waits for the API server; `None` where a signal came first.
fn asked(wish: &Install, socket: &Path, manner: Manner<'_>) -> Result<Option<Given>> {
    let node = wish.node_name.clone().or_else(|| environment("NODE_NAME")).unwrap_or_else(host);
    if wish.dry_run || manner.patience == Some(Duration::ZERO) {
        let doing = || format!("learn the subnets of the node `{node}`");
        let given = kube_api::ask(socket, &node)?;
        return given.map(Some).ok_or_else(|| Error::caused(Kind::TryAgain, doing(), "it has none yet"));
    }
    let end = manner.patience.map(|patience| Instant::now() + patience);
    let wait = |time: Duration| match manner.signals {
        Some(signals) => signals.came_within(time),
        None if end.is_some_and(|end| Instant::now() >= end) => Err(Error::caused(
            Kind::TryAgain,
            format!("learn the subnets of the node `{node}`"),
            "they did not come",
        )
        .hint("the program is installed: run the same command again when the node has spec.podCIDRs")),
        None => {
            thread::sleep(time);
            Ok(false)
        }
    };
    kube_api::wait(socket, &node, &wait, &staying::tell)
}

fn host() -> String {
    std::fs::read_to_string(HOSTNAME).unwrap_or_default().trim().to_ascii_lowercase()
}

#[cfg(test)]
mod tests;
