//! `ipam list | check | free`: who holds which address, which lease or record nobody answers for, and
//! giving one back by hand.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Subcommand;
use node::finding::counted;
use node::namespace::Namespace;
use node::{Error, Kind, Result, store};
use serde_json::{Value, json};

use super::table;
use crate::apply::Hands;
use crate::attachment::Attachment;
use crate::ipam::lease::{self, Lease};
use crate::ipam::{COOLDOWN, DATA_DIR};
use crate::kernel::link;
use crate::owner::Owner;
use crate::plan::step::Place;
use crate::state::{LESSOR, State};
use crate::verb::{del, repair};

/// A record without its link that is younger may be that of an ADD at work.
const STILL_BEING_MADE: Duration = Duration::from_mins(1);

const YOUNG: &str = "its link is not there; the ADD may still be at work";
const MAYBE_OTHERS: &str = "no attachment of ours; maybe another plugin's";
/// How it ends what nobody but the runtime can mend.
const DELEGATED: [&str; 2] = ["until the runtime calls DEL or GC", "is gone: restart the pod"];

/// What to do with leases.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Who holds which address since when.
    List(Where),
    /// Leases without an attachment, and attachments without a link.
    Check {
        /// Which leases.
        #[command(flatten)]
        place: Where,
        /// Give the leases back and remove what is left of the attachments.
        #[arg(long)]
        fix: bool,
    },
    /// Give one address back by hand.
    Free {
        /// Which leases.
        #[command(flatten)]
        place: Where,
        /// The address.
        address: IpAddr,
        /// Even though the attachment that holds it lives.
        #[arg(long)]
        force: bool,
    },
}

/// Which leases.
#[derive(Debug, clap::Args)]
pub struct Where {
    /// `ipam.dataDir`: the folder above the networks' folders.
    #[arg(long, default_value = DATA_DIR)]
    data_dir: PathBuf,
    /// Only this network.
    #[arg(long)]
    network: Option<String>,
}

/// What a command found.
#[derive(Debug)]
pub struct Report {
    heading: &'static [&'static str],
    rows: Vec<Vec<String>>,
    summary: String,
    fine: bool,
}

impl Report {
    /// Whether nothing is wrong (any more).
    pub fn is_fine(&self) -> bool {
        self.fine
    }

    /// A list of objects, one a row, keyed by the headings.
    pub fn to_json(&self) -> Value {
        let object = |row: &Vec<String>| -> Value {
            self.heading
                .iter()
                .zip(row)
                .map(|(h, cell)| (h.to_lowercase(), Value::from(cell.as_str())))
                .collect()
        };
        json!({ "rows": self.rows.iter().map(object).collect::<Vec<_>>(), "summary": self.summary })
    }

    /// The rows and a last line that sums them up.
    pub fn to_table(&self) -> String {
        let rows = if self.rows.is_empty() { String::new() } else { table(self.heading, &self.rows) };
        format!("{rows}{}\n", self.summary)
    }
}

impl Command {
    /// Runs it.
    pub fn run(&self) -> Result<Report> {
        let state = State::open()?;
        match self {
            Self::List(place) => list(&state, place),
            Self::Check { place, fix } => check(&state, place, *fix),
            Self::Free { place, address, force } => free(&state, place, *address, *force),
        }
    }
}

impl Where {
    /// The folders of leases: those below `data_dir`, and those that records name.
    fn folders(&self, records: &[Attachment]) -> Result<BTreeMap<PathBuf, String>> {
        let below = store::names(&self.data_dir)?.into_iter().map(|name| (self.data_dir.join(&name), name));
        let named = records.iter().filter_map(|r| Some((r.leases.clone()?, r.network.clone())));
        let wanted = |name: &String| self.network.as_ref().is_none_or(|n| n == name);
        Ok(below.chain(named).filter(|(folder, name)| wanted(name) && folder.is_dir()).collect())
    }

    fn leases(&self, records: &[Attachment]) -> Result<Vec<Held>> {
        let mut all = Vec::new();
        for (folder, network) in self.folders(records)? {
            let found = lease::list(&folder)?;
            all.extend(found.into_iter().map(|lease| Held {
                network: network.clone(),
                folder: folder.clone(),
                lease,
            }));
        }
        Ok(all)
    }
}

/// A lease and where it is.
#[derive(Debug)]
struct Held {
    network: String,
    folder: PathBuf,
    lease: Lease,
}

fn list(state: &State, place: &Where) -> Result<Report> {
    let mut records = state.lessees.own.all()?;
    records.extend(state.lessees.others.all()?);
    let mut rows = Vec::new();
    for held in place.leases(&records)? {
        let record = records.iter().find(|r| held.lease.owner.as_ref() == Some(&r.owner));
        let pod = record.and_then(|r| r.pod.clone()).unwrap_or_else(|| "-".to_owned());
        let since = record.map_or(held.lease.since, |r| UNIX_EPOCH + Duration::from_secs(r.since));
        rows.push(vec![held.network, held.lease.address.to_string(), pod, holder(&held.lease), ago(since)]);
    }
    let summary = counted(rows.len(), "lease");
    Ok(Report { heading: &["NETWORK", "ADDRESS", "POD", "HOLDER", "SINCE"], rows, summary, fine: true })
}

/// Something that `check` finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ailment {
    pub network: String,
    pub address: String,
    pub holder: String,
    pub what: String,
    /// `check --fix` mends it.
    pub mendable: bool,
    /// An ADD may still be at work.
    pub young: bool,
    /// A lease that nobody answers for.
    pub leaked: bool,
}

/// What `check` finds on the whole node, for a program. Changes nothing.
pub(crate) fn ailments(state: &State) -> Result<Vec<Ailment>> {
    let place = Where { data_dir: DATA_DIR.into(), network: None };
    let report = check(state, &place, false)?;
    Ok(report.rows.into_iter().filter_map(ailment).collect())
}

fn ailment(row: Vec<String>) -> Option<Ailment> {
    let [network, address, holder, what] = <[String; 4]>::try_from(row).ok()?;
    let (young, leaked) = (what == YOUNG, what == MAYBE_OTHERS);
    let mendable = !young && !leaked && !DELEGATED.iter().any(|end| what.ends_with(end));
    Some(Ailment { network, address, holder, what, mendable, young, leaked })
}

fn check(state: &State, place: &Where, fix: bool) -> Result<Report> {
    // Records first: an ADD makes its link after its record, and its lease in between.
    let records = state.attachments.all()?;
    let mut hands = Hands::new(state, Namespace::current()?, None);
    let (mut rows, mut left) = (Vec::new(), 0);
    for record in records.iter().filter(|r| place.network.as_ref().is_none_or(|n| *n == r.network)) {
        let Some((what, mendable)) = ailing(state, record, &mut hands)? else { continue };
        rows.push(row(&record.network, &addresses(record), &record.owner.to_string(), &what));
        left += usize::from(!mendable);
        // Read again: a DEL may have taken it meanwhile, and an ADD may have made it anew.
        if fix && mendable && state.attachments.find(&record.owner)?.as_ref() == Some(record) {
            del::remembered(record, &mut hands)?;
        }
    }
    for (record, gone) in chained(state, place, &mut hands)? {
        rows.push(row(&record.network, &addresses(&record), &record.owner.to_string(), &gone));
        if fix && let Some(plugin) = &record.chained {
            let theirs = State::chained(plugin)?;
            del::remembered(&record, &mut Hands::new(&theirs, Namespace::current()?, None))?;
        }
    }
    // Whose network an unreadable record was of, nobody can tell.
    for owner in state.attachments.unreadable()?.into_iter().filter(|_| place.network.is_none()) {
        rows.push(row("-", "-", &owner.to_string(), "its record cannot be read"));
        if fix {
            del::unreadable(&owner, &mut hands)?;
        }
    }
    let alone = link::veths(hands.socket(Place::Host)?)?.is_empty();
    for held in place.leases(&records)? {
        let Some(owner) = &held.lease.owner else { continue };
        if state.lessees.has(owner) {
            continue;
        }
        let what = if alone { "no pod is left on this node" } else { MAYBE_OTHERS };
        rows.push(row(&held.network, &held.lease.address.to_string(), &owner.to_string(), what));
        left += usize::from(!alone);
        if fix
            && alone
            && let Some(mut leases) = hands.open_existing_leases(&held.folder, COOLDOWN)?
        {
            leases.release(held.lease.address, owner)?;
        }
        hands.leases = None;
    }
    let found = rows.len();
    let summary = match (found, fix) {
        (0, _) => "every attachment has its link and lease, every lease its attachment".to_owned(),
        (_, true) => {
            format!("{} mended, {left} left: `ipam free ADDRESS` gives one back by hand", found - left)
        }
        (_, false) => format!("{found} to look at: `ipam check --fix` mends {}", found - left),
    };
    Ok(Report {
        heading: &["NETWORK", "ADDRESS", "HOLDER", "WHAT"],
        fine: found == 0 || (fix && left == 0),
        rows,
        summary,
    })
}

/// What chained plugins added to interfaces that are gone. Who asked for addresses alone is another plugin,
/// whose links are not known here.
fn chained(state: &State, place: &Where, hands: &mut Hands) -> Result<Vec<(Attachment, String)>> {
    let mut all = Vec::new();
    for folder in state.everywhere()? {
        for record in folder.all()? {
            let Some(plugin) = record.chained.clone().filter(|p| p != LESSOR) else { continue };
            let wanted = place.network.as_ref().is_none_or(|n| *n == record.network);
            let since = UNIX_EPOCH + Duration::from_secs(record.since);
            let old = since.elapsed().unwrap_or_default() >= STILL_BEING_MADE;
            let dead = record.boot != state.boot || old && !repair::lives(&record, hands)?;
            if wanted && dead {
                all.push((record, format!("its link is gone; `{plugin}` left something")));
            }
        }
    }
    Ok(all)
}

/// What is wrong with an attachment, and whether taking it back is the mend.
fn ailing(state: &State, record: &Attachment, hands: &mut Hands) -> Result<Option<(String, bool)>> {
    let there = link::find(hands.socket(Place::Host)?, &record.owner.host_ifname())?.is_some();
    let age =
        SystemTime::now().duration_since(UNIX_EPOCH + Duration::from_secs(record.since)).unwrap_or_default();
    if record.boot == state.boot && !there && age < STILL_BEING_MADE {
        return Ok(Some((YOUNG.to_owned(), false)));
    }
    if record.boot != state.boot || !there {
        return Ok(Some(match &record.delegate {
            None => ("its link is gone".to_owned(), true),
            Some(plugin) => (
                format!("its link is gone; `{plugin}` holds the address until the runtime calls DEL or GC"),
                false,
            ),
        }));
    }
    let Some(folder) = &record.leases else { return Ok(None) };
    let leases = lease::list(folder)?;
    let held =
        |address| leases.iter().any(|l| l.address == address && l.owner.as_ref() == Some(&record.owner));
    let lost = record.addresses.iter().find(|address| !held(**address));
    Ok(lost.map(|address| (format!("its lease of `{address}` is gone: restart the pod"), false)))
}

fn free(state: &State, place: &Where, address: IpAddr, force: bool) -> Result<Report> {
    let mut hands = Hands::new(state, Namespace::current()?, None);
    let mut found =
        place.leases(&state.attachments.all()?)?.into_iter().filter(|held| held.lease.address == address);
    let Some(held) = found.next() else {
        return Err(Error::new(Kind::Config, format!("free `{address}`, which nobody holds"))
            .hint("see `nodeplug-cni ipam list`"));
    };
    if let Some(other) = found.next() {
        let what =
            format!("free `{address}`, which is leased in `{}` and in `{}`", held.network, other.network);
        return Err(Error::new(Kind::Usage, what).hint("name one with `--network`"));
    }
    let owner =
        held.lease.owner.clone().unwrap_or(Owner { container_id: String::new(), ifname: String::new() });
    if state.lessees.has(&owner) && !force {
        return Err(Error::new(
            Kind::Conflict,
            format!("free `{address}`, which the attachment `{owner}` holds"),
        )
        .hint("delete the pod, or give `--force` when you know that it is gone"));
    }
    if let Some(mut leases) = hands.open_existing_leases(&held.folder, COOLDOWN)? {
        leases.release(address, &owner)?;
    }
    let rows = vec![vec![held.network, address.to_string(), holder(&held.lease)]];
    Ok(Report {
        heading: &["NETWORK", "ADDRESS", "HOLDER"],
        rows,
        summary: "given back".to_owned(),
        fine: true,
    })
}

fn row(network: &str, address: &str, holder: &str, what: &str) -> Vec<String> {
    vec![network.to_owned(), address.to_owned(), holder.to_owned(), what.to_owned()]
}

fn addresses(record: &Attachment) -> String {
    let each: Vec<String> = record.addresses.iter().map(ToString::to_string).collect();
    if each.is_empty() { "-".to_owned() } else { each.join(",") }
}

fn holder(lease: &Lease) -> String {
    lease.owner.as_ref().map_or_else(|| "nobody".to_owned(), ToString::to_string)
}

/// A time that has passed, in its largest unit.
pub(super) fn ago(then: SystemTime) -> String {
    let seconds = SystemTime::now().duration_since(then).map_or(0, |d| d.as_secs());
    match seconds {
        0..60 => format!("{seconds}s ago"),
        60..3600 => format!("{}m ago", seconds / 60),
        3600..86400 => format!("{}h ago", seconds / 3600),
        _ => format!("{}d ago", seconds / 86400),
    }
}
