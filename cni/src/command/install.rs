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

use std::path::{Path, PathBuf};
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
use staying::Post;
pub use staying::run as stay;
pub use uninstall::uninstall;

/// How long one that does not stay waits for the API server.
const PATIENCE: Duration = Duration::from_mins(5);
/// What the host calls itself, where nobody names the node.
const HOSTNAME: &str = "/proc/sys/kernel/hostname";

/// How an install goes about it.
#[derive(Clone, Copy, Default)]
struct Manner<'a> {
    /// How long it waits for the API server; `None` for as long as it takes.
    patience: Option<Duration>,
    /// What ends the waiting.
    signals: Option<&'a Signals>,
    /// Where it stays afterwards, and hears of an uninstall.
    post: Option<&'a Post>,
    /// It is done already, and only what others changed is put back.
    again: bool,
    /// What the network was made of.
    settled: Option<&'a Given>,
}

impl Manner<'_> {
    /// Whether somebody uninstalled meanwhile.
    fn called_off(self) -> bool {
        self.post.is_some_and(Post::is_dismissed)
    }
}

/// What an install has done.
#[derive(Debug)]
struct Done {
    report: Report,
    /// The folder of networks, as this process reaches it.
    conf: PathBuf,
    /// What the network is to be made of.
    given: Option<Given>,
    /// Why the network is not as it should be, where the program goes without.
    refused: Option<Box<Error>>,
}

/// Installs under all names or, where something is wrong, under none; then the network.
///
/// Errors: [`Kind::Config`] where others may write a folder or the runtime does not use it, [`Kind::Conflict`] where a
/// name is somebody else's or the subnets are in use, [`Kind::Mismatch`] where the program answers wrongly.
pub fn install(wish: &Install) -> Result<Report> {
    let source = Source::of(wish, &environment)?;
    let manner = Manner { patience: Some(PATIENCE), ..Manner::default() };
    let done = work(wish, source.as_ref(), manner)?;
    done.map(|done| done.report).ok_or_else(|| Error::new(Kind::Internal, "install without an end"))
}

/// Whether a shell finds what lies in the folder.
fn is_on_path(folder: &Path) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|one| one == folder))
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// One install. `None` where a signal or an uninstall came first.
fn work(wish: &Install, source: Option<&Source>, manner: Manner<'_>) -> Result<Option<Done>> {
    let root = wish.root.as_deref().unwrap_or(Path::new("/"));
    let told = Told::of(wish, manner.again);
    let place = place::choose(root, told)?;
    let report = Report {
        folder: place.bin_here(),
        why: place.why.clone(),
        dry_run: wish.dry_run,
        off_path: wish.root.is_none() && !wish.stay && !is_on_path(&place.bin_here()),
        notes: place.notes.clone(),
        ..Report::default()
    };
    let mut done = Done { report, conf: place.here(&place.conf), given: None, refused: None };
    // What can be known is known before anything is done. The API server may be asked by way of pods that need
    // the program first.
    if let Some(source) = source.filter(|source| !matches!(source, Source::Api(_)))
        && let Err(error) = foreseen(wish, &place, source, manner, &mut done.given)
    {
        done.refused = Some(borne(wish, &place, manner, error)?);
    }
    if !programs(wish, &place, &mut done.report, manner)? {
        return Ok(None);
    }
    if let Some(Source::Api(socket)) = source {
        match asked(wish, socket, manner) {
            Ok(None) => return Ok(None),
            Ok(given) => done.given = given,
            Err(error) => done.refused = Some(borne(wish, &place, manner, error)?),
        }
        // Hours may have gone by, and the network is for a program that is there.
        if !wish.dry_run && !once_more(wish, &place, &mut done.report, manner)? {
            return Ok(None);
        }
    }
    if let (Some(given), None) = (&done.given, &done.refused) {
        match made(wish, &place, given, &mut done.report, manner) {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(error) => done.refused = Some(borne(wish, &place, manner, error)?),
        }
    }
    Ok(Some(done))
}

/// An error of the network that the program does without: pods have a network, which stays as it is, and need the
/// program all the more.
fn borne(wish: &Install, place: &Place, manner: Manner<'_>, error: Box<Error>) -> Result<Box<Error>> {
    let has_one = || place.here(&place.conf.join(&wish.conflist)).exists();
    let first = manner.post.is_some() && error.kind() == Kind::Conflict;
    if manner.again || (first && has_one()) { Ok(error) } else { Err(error) }
}

/// What the source says, into `found`, and whether a network can be made of it.
fn foreseen(
    wish: &Install,
    place: &Place,
    source: &Source,
    manner: Manner<'_>,
    found: &mut Option<Given>,
) -> Result<()> {
    let given = found.insert(given(wish, source)?);
    planned(wish, place, given, manner).map(drop)
}

/// The program under its names. `false` where it was called off meanwhile.
fn programs(wish: &Install, place: &Place, report: &mut Report, manner: Manner<'_>) -> Result<bool> {
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
    let mut made = Vec::new();
    if place.may_make && !here.exists() {
        made = place::make(&place.root, &place.bin, "the folder of plugins")?;
        report.notes.push(format!("made `{}`, which was not there", here.display()));
    }
    place::writable(&here, "the folder of plugins")?;
    let folder = Folder::lock(&here)?;
    if manner.called_off() {
        return Ok(false);
    }
    names::sweep(&folder)?;
    let rows = names::plan(&wish.from, &here, &names)?;
    recorded(place, made, &rows)?;
    let result = names::perform(&wish.from, &folder, &rows);
    if result.is_err() {
        // What stays is hidden, and the next install removes it.
        let _ = names::sweep(&folder);
    }
    let kept = Originals::of(&folder)?;
    result?;
    report.names =
        rows.into_iter().map(|(name, outcome)| Row::new(name, outcome, kept.path_of(name))).collect();
    // Before anybody else has the folder: an uninstall that comes next finds who stays.
    manner.post.map_or(Ok(()), |post| post.show(&here))?;
    Ok(true)
}

/// The record knows of the names before they are there. For the holder of the folder's lock.
fn recorded(place: &Place, made: Vec<PathBuf>, rows: &[(&str, Outcome)]) -> Result<()> {
    let mut record = Record::load(&place.root)?.unwrap_or_default();
    let changed =
        record.folder != place.bin || rows.iter().any(|(_, outcome)| *outcome != Outcome::Unchanged);
    if changed || !made.is_empty() {
        env!("CARGO_PKG_VERSION").clone_into(&mut record.version);
        record.folder.clone_from(&place.bin);
        record.made.extend(made);
        record.save(&place.root)?;
    }
    Ok(())
}

/// [`programs`] again; what the first time did stays said.
fn once_more(wish: &Install, place: &Place, report: &mut Report, manner: Manner<'_>) -> Result<bool> {
    let before = std::mem::take(&mut report.names);
    let is_on = programs(wish, place, report, manner)?;
    for row in report.names.iter_mut().filter(|row| row.outcome == Outcome::Unchanged) {
        if let Some(first) = before.iter().find(|first| first.name == row.name) {
            row.outcome = first.outcome;
        }
    }
    Ok(is_on)
}

/// The network's file. `false` where it was called off meanwhile.
fn made(
    wish: &Install,
    place: &Place,
    given: &Given,
    report: &mut Report,
    manner: Manner<'_>,
) -> Result<bool> {
    // What another install wrote meanwhile is in the record that is read under the lock, and in no other.
    let _alone = if wish.dry_run { None } else { Some(Folder::lock(&place.bin_here())?) };
    if manner.called_off() {
        return Ok(false);
    }
    let mut record = Record::load(&place.root)?.unwrap_or_default();
    let Planned { network, outcome, notes } = planned(wish, place, given, manner)?;
    let wanted = Wanted { text: network.text()?, network: &network, path: place.conf.join(&wish.conflist) };
    report.notes.extend(notes);
    report.notes.extend(network::remarks(place, &wanted, outcome)?);
    if !wish.dry_run {
        report.notes.extend(network::perform(place, &wanted, outcome, &mut record)?);
    }
    report.conflist = Some(network::row(place, &wanted, outcome));
    Ok(true)
}

/// The network, what is to be done to its file, and what a person should know of it.
struct Planned {
    network: Network,
    outcome: Outcome,
    notes: Vec<String>,
}

/// Refuses what would harm pods or the node.
fn planned(wish: &Install, place: &Place, given: &Given, manner: Manner<'_>) -> Result<Planned> {
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
    let mut notes = Vec::new();
    let network = Network {
        name: wish.network.clone(),
        version: version(wish, place, &mut notes)?,
        mode: wish.mode,
        mtu: wish.mtu.or(given.mtu),
        subnets,
        cluster,
    };
    let text = network.text()?;
    // What a person forced counts for what the source said then, not for what it says later.
    let forced = wish.force && (!manner.again || manner.settled == Some(given));
    let is_here = overlap::is_this_node(&place.root, wish.stay || wish.kube_api.is_some());
    if !forced {
        if is_here {
            overlap::none(&network)?;
        }
        living::unharmed(&place.root, &network)?;
    }
    let record = Record::load(&place.root)?.unwrap_or_default();
    let wanted = Wanted { network: &network, text, path: place.conf.join(&wish.conflist) };
    let outcome = network::plan(place, &wanted, &record, wish.force && !manner.again)?;
    let forwards = |ipv6: bool| {
        let setting = if ipv6 { "ipv6/conf/all/forwarding" } else { "ipv4/ip_forward" };
        let root = if is_here { Path::new("/") } else { &place.root };
        let path = below(root, Path::new("/proc/sys/net")).join(setting);
        // A root that is not booted says nothing.
        std::fs::read_to_string(path).map_or(true, |text| text.trim() != "0")
    };
    notes.extend(subnets::remarks(&network.subnets, &network.cluster, &forwards));
    Ok(Planned { network, outcome, notes })
}

fn version(wish: &Install, place: &Place, notes: &mut Vec<String>) -> Result<Version> {
    let newest = place.runtime.as_ref().map_or("1.0.0", |runtime| runtime.cni_version());
    let read = |text: &str| {
        text.parse::<Version>().doing(Kind::Usage, || "choose the network's cniVersion".to_owned())
    };
    let (newest, asked) = (read(newest)?, wish.cni_version.as_deref().map(read).transpose()?);
    if let Some(asked) = asked.filter(|asked| *asked > newest) {
        notes.push(format!(
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

/// Waits for the API server; `None` where a signal or an uninstall came first.
fn asked(wish: &Install, socket: &Path, manner: Manner<'_>) -> Result<Option<Given>> {
    let node = wish.node_name.clone().or_else(|| environment("NODE_NAME")).unwrap_or_else(host);
    if wish.dry_run || manner.patience == Some(Duration::ZERO) {
        let doing = || format!("learn the subnets of the node `{node}`");
        let given = kube_api::ask(socket, &node)?;
        return given.map(Some).ok_or_else(|| Error::caused(Kind::TryAgain, doing(), "it has none yet"));
    }
    let end = manner.patience.map(|patience| Instant::now() + patience);
    let wait = |time: Duration| match manner.signals {
        Some(signals) => Ok(signals.came_within(time)? || manner.called_off()),
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
