//! One network's folder of leases, in the reference `host-local`'s own format, so that either program
//! can take over from the other on a live node.
//!
//! ```text
//! dataDir/NETWORK/
//!   lock                 flock, taken by both programs around every change
//!   10.1.0.7             `CONTAINERID\r\nIFNAME` (an old host-local wrote the id alone)
//!   last_reserved_ip.N   the address last given from range set N
//!   .nodeplug/           ours; the reference walks in, and what it finds matches no owner
//!     state              which boot, which folder time, how many foreign leases (see `sync`)
//!     lease.new          a lease being written; its name is no address
//!     cooling/10.1.0.9   a freed address that rests (see `cooling`)
//! ```
//!
//! Who owns what is the caller's record of the attachment, on disk before [`Leases::reserve`] and
//! removed after [`Leases::release`]. A kill between any two calls of the kernel is therefore safe:
//!
//! - before the link(2) of a lease nothing is taken, and `lease.new` is removed by the next writer;
//! - with the link the lease is there with its whole content, never empty, and the record names it:
//!   DEL finds it by the record, the reference finds it by its content;
//! - everything after the link (`last_reserved_ip.N`, the mark, the folder's time) is advice: lost, it
//!   costs an unfair choice or one scan;
//! - a release marks the address as resting before it unlinks the lease: cut short, the lease stays and
//!   the next DEL repeats both.
//!
//! The lock dies with its holder, so neither program can lock the other out by dying. A descriptor
//! that a forked child inherits keeps it: drop [`Leases`] before any fork.

use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ipnet::IpNet;
use node::store::{self, Lock};
use node::{Context, Error, Kind, Result};

use super::HostLocal;
use super::cooling::Cooling;
use super::lease::{Lease, holds, lease_path, list, read_owner, there, write_new};
use super::ranges::RangeSet;
pub use super::sync::Facts;
use super::sync::{self, State};
use crate::owner::Owner;
use crate::state::Lessees;

/// Candidates that are looked at one by one before the folder is listed once. Round robin finds a free
/// address at the first look until the range has been gone through.
const PROBES: usize = 64;

/// One network's store, locked while it lives.
#[derive(Debug)]
pub struct Leases {
    folder: PathBuf,
    cooling: Cooling,
    state: State,
    lessees: Lessees,
    changed: bool,
    /// Whether a lease went that may have been counted as foreign: the next call counts again.
    uncounted: bool,
    _lock: Lock,
}

/// An address that can be reserved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The address with its subnet's prefix.
    pub address: IpNet,
    /// The range's gateway.
    pub gateway: Option<IpAddr>,
    /// The index of the range set.
    pub set: usize,
}

/// How full a range set is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Addresses that can be given in all.
    pub usable: u128,
    /// Of those, leased.
    pub leased: u128,
    /// Of the rest, resting. They are given when nothing else is left.
    pub cooling: u128,
}

/// Who is there, by name: the folder listed once.
struct Names {
    leased: HashSet<IpAddr>,
    marked: HashSet<IpAddr>,
}

enum Standing {
    Free,
    Leased,
    Cooling(SystemTime),
}

impl Leases {
    /// Makes the folder where it is missing, takes its lock and brings it up to date.
    pub fn open(folder: &Path, facts: &Facts<'_>) -> Result<Self> {
        let path = folder.join("lock");
        let lock = match Lock::exclusive(&path) {
            Err(e) if e.errno() == Some(libc::ENOENT) => {
                store::make_folder(folder)?;
                Lock::exclusive(&path)?
            }
            other => other?,
        };
        let cooling = Cooling {
            folder: folder.join(sync::OURS).join("cooling"),
            now: facts.now,
            period: facts.cooldown,
        };
        let (state, changed) = match sync::fresh(folder, facts.boot)? {
            Some(state) => (state, false),
            None => (sync::scan(folder, &cooling, facts)?, true),
        };
        Ok(Self {
            folder: folder.to_owned(),
            cooling,
            state,
            lessees: facts.lessees.clone(),
            changed,
            uncounted: false,
            _lock: lock,
        })
    }

    /// Like [`Leases::open`], but a network that never had a lease is `None` and stays without a folder.
    pub fn open_existing(folder: &Path, facts: &Facts<'_>) -> Result<Option<Self>> {
        if folder.is_dir() { Self::open(folder, facts).map(Some) } else { Ok(None) }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// One address from each range set, chosen and not yet taken. Each of `wanted` is given from the set
    /// that it is in; the other sets go on after the address that they gave last.
    pub fn choose(&self, config: &HostLocal, wanted: &[IpAddr], owner: &Owner) -> Result<Vec<Choice>> {
        let asked = config.assign(wanted)?;
        let mut choices = Vec::with_capacity(config.sets.len());
        for ((index, set), asked) in config.sets.iter().enumerate().zip(asked) {
            let address = match asked {
                Some(address) => self.grant(address, set, config, owner)?,
                None => self.next(index, set, config)?.ok_or_else(|| self.exhausted(set, config))?,
            };
            let range = set.range_of(address);
            let net = range.and_then(|r| IpNet::new(address, r.subnet.prefix_len()).ok());
            choices.push(Choice {
                address: net.unwrap_or_else(|| address.into()),
                gateway: range.map(|r| r.gateway),
                set: index,
            });
        }
        Ok(choices)
    }

    /// Takes a choice. An address that somebody took since is [`Kind::Conflict`]; the record of the
    /// attachment must be on disk.
    pub fn reserve(&mut self, choice: &Choice, owner: &Owner) -> Result<()> {
        let address = choice.address.addr();
        let path = lease_path(&self.folder, address);
        let new = self.folder.join(sync::OURS).join("lease.new");
        write_new(&new, format!("{}\r\n{}", owner.container_id, owner.ifname).as_bytes())?;
        self.changed = true;
        let linked = fs::hard_link(&new, &path);
        let tidied = store::remove(&new);
        match linked {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Err(self.taken(address, owner)),
            other => other.doing(Kind::Io, || format!("write the lease `{}`", path.display()))?,
        }
        // Whoever is told that it went wrong undoes nothing of this call's: take the lease back.
        tidied
            .and_then(|()| self.note_last(choice.set, address))
            .and_then(|()| self.cooling.forget(address))
            .inspect_err(|_| drop(store::remove(&path)))
    }

    /// Gives an address back, if `owner` holds it, and lets it rest. `false` where there was nothing to
    /// give back: that is no mistake, DEL may come twice.
    pub fn release(&mut self, address: IpAddr, owner: &Owner) -> Result<bool> {
        let path = lease_path(&self.folder, address);
        match read_owner(&path)? {
            Some(holder) if holds(&holder, owner) => {
                self.uncounted |= self.may_hold_foreign() && !self.lessees.has(owner);
                self.free(address, &path).map(|()| true)
            }
            _ => Ok(false),
        }
    }

    /// Gives back every address that `owner` holds, by reading every lease. Only for an owner without
    /// a record, and only where [`Leases::may_hold_foreign`].
    pub fn release_by_scan(&mut self, owner: &Owner) -> Result<Vec<IpAddr>> {
        let all = list(&self.folder)?;
        let of = |test: &dyn Fn(&Owner) -> bool| -> Vec<IpAddr> {
            all.iter().filter(|l| l.owner.as_ref().is_some_and(test)).map(|l| l.address).collect()
        };
        // As for the reference, leases of the whole container count only where none names the interface.
        let mut found = of(&|holder| holder == owner);
        if found.is_empty() {
            found = of(&|holder| holds(holder, owner));
        }
        for address in &found {
            self.free(*address, &lease_path(&self.folder, *address))?;
        }
        self.uncounted |= !found.is_empty();
        Ok(found)
    }

    /// The addresses that `owner` holds. Reads every lease only where [`Leases::may_hold_foreign`].
    pub fn held_by(&self, owner: &Owner) -> Result<Vec<IpAddr>> {
        let mut held = Vec::new();
        for records in self.lessees.each() {
            let record = records.find(owner)?.filter(|r| r.leases.as_ref() == Some(&self.folder));
            for address in record.map(|r| r.addresses).unwrap_or_default() {
                if !held.contains(&address) && self.holder(address)?.is_some_and(|h| holds(&h, owner)) {
                    held.push(address);
                }
            }
        }
        if held.is_empty() && self.may_hold_foreign() {
            let all = list(&self.folder)?.into_iter();
            held.extend(all.filter(|l| l.owner.as_ref().is_some_and(|h| holds(h, owner))).map(|l| l.address));
        }
        Ok(held)
    }

    /// Whether there are leases without a record of ours: the reference wrote them.
    pub fn may_hold_foreign(&self) -> bool {
        self.state.foreign > 0
    }

    /// Who holds `address`.
    pub fn holder(&self, address: IpAddr) -> Result<Option<Owner>> {
        read_owner(&lease_path(&self.folder, address))
    }

    /// Every lease, by address.
    pub fn all(&self) -> Result<Vec<Lease>> {
        list(&self.folder)
    }

    /// How full each range set is. Lists the folder once.
    pub fn room(&self, config: &HostLocal) -> Result<Vec<Room>> {
        let names = self.names()?;
        let usable_in = |set: &RangeSet, a: IpAddr| {
            let excluded = config.exclude.iter().any(|n| n.contains(&a));
            set.range_of(a).is_some() && !set.is_gateway(a) && !excluded
        };
        let mut rooms = Vec::with_capacity(config.sets.len());
        for set in &config.sets {
            let leased = names.leased.iter().filter(|a| usable_in(set, **a)).count();
            let mut room = Room { usable: set.usable(&config.exclude), leased: leased as u128, cooling: 0 };
            let marked = names.marked.difference(&names.leased);
            for address in marked.filter(|a| usable_in(set, **a)) {
                room.cooling += u128::from(self.cooling.since(*address)?.is_some());
            }
            rooms.push(room);
        }
        Ok(rooms)
    }

    /// Whether every range set has an address to give. As quick as a choice: for STATUS.
    pub fn has_room(&self, config: &HostLocal) -> Result<bool> {
        for (index, set) in config.sets.iter().enumerate() {
            if self.next(index, set, config)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The next free address of a set; the one that rests longest where every free one rests.
    fn next(&self, index: usize, set: &RangeSet, config: &HostLocal) -> Result<Option<IpAddr>> {
        let last = self.last(index)?;
        let mut names = None;
        let mut resting: Option<(SystemTime, IpAddr)> = None;
        // Every step that finds nothing is a lease or a mark, so the walk ends after as many steps as
        // there are files, however wide the range is.
        for (step, address) in set.walk(&config.exclude, last).enumerate() {
            if step == PROBES {
                names = Some(self.names()?);
            }
            match self.standing(address, names.as_ref())? {
                Standing::Free => return Ok(Some(address)),
                Standing::Leased => {}
                Standing::Cooling(since) => {
                    if resting.is_none_or(|(longest, _)| since < longest) {
                        resting = Some((since, address));
                    }
                }
            }
        }
        Ok(resting.map(|(_, address)| address))
    }

    fn standing(&self, address: IpAddr, names: Option<&Names>) -> Result<Standing> {
        let (leased, marked) = match names {
            Some(names) => (names.leased.contains(&address), names.marked.contains(&address)),
            None => (there(&lease_path(&self.folder, address))?, true),
        };
        if leased {
            return Ok(Standing::Leased);
        }
        let since = if marked { self.cooling.since(address)? } else { None };
        Ok(since.map_or(Standing::Free, Standing::Cooling))
    }

    fn names(&self) -> Result<Names> {
        let leased = store::names(&self.folder)?.iter().filter_map(|n| n.parse().ok()).collect();
        Ok(Names { leased, marked: self.cooling.marked()? })
    }

    /// Checks a wanted address of `set`.
    fn grant(&self, address: IpAddr, set: &RangeSet, config: &HostLocal, owner: &Owner) -> Result<IpAddr> {
        let doing = format!("give the wanted address `{address}` from `{set}`");
        if set.is_gateway(address) {
            return Err(Error::new(Kind::Config, format!("{doing}: it is the gateway"))
                .hint("ask for another address"));
        }
        if config.exclude.iter().any(|n| n.contains(&address)) {
            return Err(Error::new(Kind::Config, format!("{doing}: it is excluded"))
                .hint("ask for another address or correct `ipam.exclude`"));
        }
        if there(&lease_path(&self.folder, address))? {
            return Err(self.taken(address, owner));
        }
        Ok(address)
    }

    fn taken(&self, address: IpAddr, owner: &Owner) -> Box<Error> {
        let holder = match self.holder(address) {
            Ok(Some(holder)) if holds(&holder, owner) => "this very attachment".to_owned(),
            Ok(Some(holder)) => format!("container `{}`, interface `{}`", holder.container_id, holder.ifname),
            _ => format!("the file `{}`", lease_path(&self.folder, address).display()),
        };
        let doing = format!("take the address `{address}`: it is held by {holder}");
        Error::new(Kind::Conflict, doing)
            .hint("ask for another address, or end the pod that holds it (`nodeplug-cni ipam list`)")
    }

    fn exhausted(&self, set: &RangeSet, config: &HostLocal) -> Box<Error> {
        let one = HostLocal { sets: vec![set.clone()], ..config.clone() };
        let rooms = self.room(&one).unwrap_or_default();
        let counts = rooms.first().map_or_else(String::new, |r| {
            format!(": {} of {} are leased, {} are cooling", r.leased, r.usable, r.cooling)
        });
        Error::new(Kind::TryAgain, format!("take a free address from `{set}`{counts}"))
            .hint("`nodeplug-cni ipam check` shows leases without a pod; a wider range holds more pods")
    }

    fn free(&mut self, address: IpAddr, path: &Path) -> Result<()> {
        // A full disk must not keep a pod from ending: the rest is a courtesy, the release is not.
        let _ = self.cooling.mark(address);
        self.changed = true;
        store::remove(path)
    }

    /// The address last given from a set; one that cannot be read only costs the order.
    fn last(&self, set: usize) -> Result<Option<IpAddr>> {
        let text = store::read(&self.folder.join(format!("last_reserved_ip.{set}")))?;
        Ok(text.and_then(|t| String::from_utf8_lossy(&t).trim().parse().ok()))
    }

    /// Notes the address last given from a set. Written over the old one and not renamed onto it: ext4
    /// flushes a file that replaces another (auto_da_alloc), for more time than all the rest takes.
    /// One write of a few bytes is whole for a `kill -9`; a tail of a longer old address, from a kill
    /// before the cut, is at worst another starting point.
    fn note_last(&self, set: usize, address: IpAddr) -> Result<()> {
        let path = self.folder.join(format!("last_reserved_ip.{set}"));
        // The reference parses the whole content as an address: no line end.
        let text = address.to_string();
        let put = || {
            let mut options = OpenOptions::new();
            let mut file = options.write(true).create(true).truncate(false).mode(0o644).open(&path)?;
            file.write_all(text.as_bytes())?;
            file.set_len(text.len() as u64)
        };
        put().doing(Kind::Io, || format!("write `{}`", path.display()))
    }
}

impl Drop for Leases {
    /// Seals what this call changed, still under the lock. A seal that cannot be set costs a scan.
    fn drop(&mut self) {
        if self.changed && !self.uncounted {
            let _ = sync::seal(&self.folder, self.state);
        }
    }
}

#[cfg(test)]
#[path = "leases_tests.rs"]
mod tests;
