//! `ipam list | check | free`: who holds which address, which lease or record nobody answers for, and
//! giving one back by hand.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Subcommand;
use netlink_packet_route::link::InfoKind;
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
use crate::state::State;
use crate::verb::del;

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
    fn networks(&self) -> Result<Vec<String>> {
        let mut names = match &self.network {
            Some(name) => vec![name.clone()],
            None => store::names(&self.data_dir)?,
        };
        names.retain(|name| self.data_dir.join(name).is_dir());
        names.sort();
        Ok(names)
    }

    fn leases(&self) -> Result<Vec<(String, Lease)>> {
        let mut all = Vec::new();
        for network in self.networks()? {
            let found = lease::list(&self.data_dir.join(&network))?;
            all.extend(found.into_iter().map(|lease| (network.clone(), lease)));
        }
        Ok(all)
    }
}

fn list(state: &State, place: &Where) -> Result<Report> {
    let mut rows = Vec::new();
    for (network, lease) in place.leases()? {
        let record = lease.owner.as_ref().map(|o| state.attachments.find(o)).transpose()?.flatten();
        let pod = record.as_ref().and_then(|r| r.pod.clone()).unwrap_or_else(|| "-".to_owned());
        let since = record.map_or(lease.since, |r| UNIX_EPOCH + Duration::from_secs(r.since));
        rows.push(vec![network, lease.address.to_string(), pod, holder(&lease), ago(since)]);
    }
    let summary = format!("{} leases", rows.len());
    Ok(Report { heading: &["NETWORK", "ADDRESS", "POD", "HOLDER", "SINCE"], rows, summary, fine: true })
}

fn check(state: &State, place: &Where, fix: bool) -> Result<Report> {
    let mut hands = Hands::new(state, Namespace::current()?, None);
    let links: BTreeSet<String> =
        link::list(hands.socket(Place::Host)?, InfoKind::Veth)?.into_iter().map(|l| l.name).collect();
    let records = state.attachments.all()?;
    let dead = records.iter().filter(|r| r.boot != state.boot || !links.contains(&r.owner.host_ifname()));
    let dead: Vec<&Attachment> =
        dead.filter(|r| place.network.as_ref().is_none_or(|n| *n == r.network)).collect();
    let mut rows: Vec<Vec<String>> = dead
        .iter()
        .map(|r| row(&r.network, &addresses(r), &r.owner.to_string(), "its link is gone"))
        .collect();
    if fix {
        for record in &dead {
            del::remembered(record, &mut hands)?;
        }
    }
    let known: BTreeSet<&Owner> = records.iter().map(|r| &r.owner).collect();
    let strays =
        place.leases()?.into_iter().filter(|(_, l)| l.owner.as_ref().is_none_or(|o| !known.contains(o)));
    let mut kept = 0;
    for (network, lease) in strays {
        let gone = lease.owner.is_none() || links.is_empty();
        let what =
            if gone { "no attachment is known" } else { "no attachment of ours; maybe another plugin's" };
        rows.push(row(&network, &lease.address.to_string(), &holder(&lease), what));
        kept += usize::from(fix && !gone);
        if let (true, true, Some(owner)) = (fix, gone, &lease.owner)
            && let Some(mut leases) = hands.open_existing_leases(&place.data_dir.join(&network), COOLDOWN)?
        {
            leases.release(lease.address, owner)?;
        }
    }
    let summary = match (rows.len(), fix) {
        (0, _) => "every lease has its attachment".to_owned(),
        (n, true) => format!("{} mended, {kept} left: `ipam free ADDRESS` gives one back by hand", n - kept),
        (n, false) => format!("{n} to look at: `ipam check --fix` mends them"),
    };
    Ok(Report {
        heading: &["NETWORK", "ADDRESS", "HOLDER", "WHAT"],
        fine: rows.is_empty() || (fix && kept == 0),
        rows,
        summary,
    })
}

fn free(state: &State, place: &Where, address: IpAddr, force: bool) -> Result<Report> {
    let mut hands = Hands::new(state, Namespace::current()?, None);
    let found = place.leases()?.into_iter().find(|(_, l)| l.address == address);
    let Some((network, lease)) = found else {
        return Err(Error::new(Kind::Config, format!("free `{address}`, which nobody holds"))
            .hint("see `nodeplug-cni ipam list`"));
    };
    let owner = lease.owner.clone().unwrap_or(Owner { container_id: String::new(), ifname: String::new() });
    if state.attachments.has(&owner) && !force {
        return Err(Error::new(
            Kind::Conflict,
            format!("free `{address}`, which the attachment `{owner}` holds"),
        )
        .hint("delete the pod, or give `--force` when you know that it is gone"));
    }
    if let Some(mut leases) = hands.open_existing_leases(&place.data_dir.join(&network), COOLDOWN)? {
        leases.release(address, &owner)?;
    }
    let rows = vec![vec![network, address.to_string(), holder(&lease)]];
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
fn ago(then: SystemTime) -> String {
    let seconds = SystemTime::now().duration_since(then).map_or(0, |d| d.as_secs());
    match seconds {
        0..60 => format!("{seconds}s ago"),
        60..3600 => format!("{}m ago", seconds / 60),
        3600..86400 => format!("{}h ago", seconds / 3600),
        _ => format!("{}d ago", seconds / 86400),
    }
}
