//! Which devices are best together. Advice only: an error here would cost the pod its start, so that doubt is
//! an empty answer.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};

use crate::config::Preference;
use crate::inventory::Chosen;
use crate::inventory::Found;

/// Which `size` of the available devices suit best, those of `must` among them; empty where it can't be said.
/// `busy` says how many replicas of an identity are taken already. The same question has the same answer, in
/// whatever order the devices come.
pub fn prefer(
    preference: Preference,
    available: &[Chosen<'_>],
    must: &[&str],
    size: usize,
    busy: &dyn Fn(&str) -> u32,
) -> Vec<String> {
    let must: BTreeSet<&str> = must.iter().copied().collect();
    let known: HashMap<&str, &Found> = available.iter().map(|chosen| (chosen.id, chosen.found)).collect();
    let mut free: Vec<&Chosen<'_>> = available.iter().filter(|chosen| !must.contains(chosen.id)).collect();
    free.sort_by(|a, b| (a.replica, &a.found.identity, a.id).cmp(&(b.replica, &b.found.identity, b.id)));
    let mut seen = BTreeSet::new();
    free.retain(|chosen| seen.insert(chosen.id));
    let Some(wanted) = size.checked_sub(must.len()).filter(|wanted| *wanted <= free.len()) else {
        return Vec::new();
    };
    let held: Vec<&Found> = must.iter().filter_map(|id| known.get(id).copied()).collect();
    let more = match preference {
        Preference::Packed => gathered(by_device(&free, &held, busy), wanted),
        Preference::Spread => spread(by_device(&free, &held, busy), wanted),
        Preference::Numa => {
            gathered(by_place(&free, &held, |found| found.numa.map(|n| n.to_string())), wanted)
        }
        Preference::SameParent => gathered(by_place(&free, &held, |found| found.parent.clone()), wanted),
    };
    must.into_iter().chain(more).map(str::to_owned).collect()
}

/// Devices that belong together.
struct Group<'a> {
    /// 0 for those that are best in any case.
    rank: u8,
    /// How many of it are taken.
    taken: u32,
    /// What is free of it.
    free: Vec<&'a str>,
}

/// A group for each device, with its free replicas. Best is one that the container has already, then one that
/// is in use.
fn by_device<'a>(free: &[&Chosen<'a>], held: &[&Found], busy: &dyn Fn(&str) -> u32) -> Vec<Group<'a>> {
    let mut own: HashMap<&str, u32> = HashMap::new();
    for found in held {
        *own.entry(&found.identity).or_default() += 1;
    }
    let mut groups: BTreeMap<&str, Group<'a>> = BTreeMap::new();
    for chosen in free {
        let identity = chosen.found.identity.as_str();
        let group = groups.entry(identity).or_insert_with(|| {
            let (own, others) = (own.get(identity).copied().unwrap_or(0), busy(identity));
            let rank = if own > 0 { 0 } else { 1 + u8::from(others == 0) };
            Group { rank, taken: own.saturating_add(others), free: Vec::new() }
        });
        group.free.push(chosen.id);
    }
    groups.into_values().collect()
}

/// A group for each place. Best is one where the container has devices already; those that are nowhere come
/// last.
fn by_place<'a>(
    free: &[&Chosen<'a>],
    held: &[&Found],
    place: impl Fn(&Found) -> Option<String>,
) -> Vec<Group<'a>> {
    let own: BTreeSet<String> = held.iter().filter_map(|found| place(found)).collect();
    let mut groups: BTreeMap<Option<String>, Group<'a>> = BTreeMap::new();
    for chosen in free {
        let place = place(chosen.found);
        let rank = match &place {
            Some(name) if own.contains(name) => 0,
            Some(_) => 1,
            None => 2,
        };
        let group = groups.entry(place).or_insert(Group { rank, taken: 0, free: Vec::new() });
        group.free.push(chosen.id);
    }
    groups.into_values().collect()
}

/// `wanted` out of as few groups as possible, and of none that is worse than need be: the ranks that are
/// needed at all are alike; the largest groups go first, and what is left comes from the smallest that has
/// enough.
fn gathered(mut groups: Vec<Group<'_>>, wanted: usize) -> Vec<&str> {
    let have = |rank: u8| groups.iter().filter(|g| g.rank <= rank).map(|g| g.free.len()).sum::<usize>();
    let needed = (0..2).find(|rank| have(*rank) >= wanted).unwrap_or(2);
    groups.retain(|group| group.rank <= needed);
    groups.sort_by_key(|group| (Reverse(group.free.len()), group.rank));
    let mut picked = Vec::with_capacity(wanted);
    let mut rest = groups.into_iter().peekable();
    while let Some(group) = rest.next_if(|group| picked.len() + group.free.len() < wanted) {
        picked.extend(group.free);
    }
    let left = wanted - picked.len();
    let enough = rest.filter(|group| group.free.len() >= left);
    let last = enough.min_by_key(|group| (group.free.len(), group.rank)).map(|group| group.free);
    picked.extend(last.unwrap_or_default().into_iter().take(left));
    picked
}

/// `wanted` one by one, each of the group of which the fewest are taken.
fn spread(mut groups: Vec<Group<'_>>, wanted: usize) -> Vec<&str> {
    for group in &mut groups {
        // Taken from the end.
        group.free.reverse();
    }
    let mut turns: BinaryHeap<_> =
        groups.iter().enumerate().map(|(n, group)| Reverse((group.taken, n))).collect();
    let mut picked = Vec::with_capacity(wanted);
    while picked.len() < wanted {
        let Some(Reverse((taken, n))) = turns.pop() else { break };
        let Some(id) = groups.get_mut(n).and_then(|group| group.free.pop()) else { continue };
        picked.push(id);
        turns.push(Reverse((taken.saturating_add(1), n)));
    }
    picked
}
