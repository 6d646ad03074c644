//! A pod's interface as it was before: kept where the reference's tuning plugin keeps it, too, and put
//! back. What is gone, the interface or its whole namespace, needs no putting back.

use std::net::IpAddr;
use std::path::Path;

use node::{Context, Kind, Result, store};

use super::Hands;
use super::message::message;
use crate::config::tuning::Tuning;
use crate::kernel::{address, neighbour, rule, socket, sysctl};
use crate::plan::step::{Place, Verb};
use crate::plan::tune;

/// Writes the file that the reference's plugin restores from.
pub fn keep(before: &Tuning, file: Option<&Path>) -> Result<()> {
    let Some((file, folder)) = file.and_then(|f| Some((f, f.parent()?))) else { return Ok(()) };
    let bytes = serde_json::to_vec(&tune::to_reference(before))
        .doing(Kind::Internal, || format!("encode `{}`", file.display()))?;
    store::make_folder(folder)?;
    store::write_whole(file, &bytes)
}

impl Hands<'_> {
    pub(super) fn restore(&mut self, link: &str, before: &Tuning, file: Option<&Path>) -> Result<()> {
        let there = if self.pod.is_some() { self.index(Place::Pod, link)? } else { None };
        if let Some(index) = there {
            let mut verbs = tune::verbs(link, before);
            if before.mac.is_some() {
                let neighbours = neighbour::permanents(self.socket(Place::Pod)?, index)?;
                verbs.extend(tune::remembered(link, &neighbours));
            }
            // The pod has to go, whatever the kernel thinks of its former self.
            let mut result = self.as_far_as_it_goes(&verbs, index);
            self.go(Place::Pod)?;
            for (name, value) in &before.sysctl {
                result = result.and(sysctl::restore(name, value));
            }
            self.go(Place::Host)?;
            result?;
        }
        match file {
            Some(file) => {
                store::remove(file)?;
                // What a kill in the middle of the write leaves.
                store::remove(&store::beside(file))
            }
            None => Ok(()),
        }
    }

    /// Does the verbs in the pod; what the kernel refuses would be refused the next time, too.
    fn as_far_as_it_goes(&mut self, verbs: &[Verb], index: u32) -> Result<()> {
        let requests = verbs.iter().map(|verb| message(verb, index, 0, -1)).collect();
        self.socket(Place::Pod)?.batch(requests).map(drop)
    }

    pub(super) fn remove_rules(&mut self, link: &str, addresses: &[IpAddr]) -> Result<()> {
        if self.pod.is_none() {
            return Ok(());
        }
        let mut all = addresses.to_vec();
        if let Some(index) = self.index(Place::Pod, link)? {
            all.extend(address::list(self.socket(Place::Pod)?, index)?.iter().map(|a| a.net.addr()));
        }
        let rules = rule::list(self.socket(Place::Pod)?)?;
        let ours =
            rules.into_iter().filter_map(|r| Some((r.from.filter(|from| all.contains(from))?, r.table)));
        let result =
            self.unless_gone(ours.map(|(from, table)| Verb::RemoveRule { from, table }).collect(), 0);
        self.go(Place::Host)?;
        result
    }

    /// Does the verbs in the pod; what is about something that is gone is done.
    fn unless_gone(&mut self, verbs: Vec<Verb>, index: u32) -> Result<()> {
        let requests = verbs.iter().map(|verb| message(verb, index, 0, -1)).collect();
        let refusals = self.socket(Place::Pod)?.batch(requests)?;
        let mut refused = verbs.into_iter().zip(refusals).filter_map(|(verb, r)| Some((verb, r?)));
        match refused.find(|(_, r)| !matches!(r.errno(), libc::ENODEV | libc::ENOENT)) {
            Some((verb, refusal)) => Err(socket::refused(format!("{}{verb}", Place::Pod), refusal)),
            None => Ok(()),
        }
    }
}
