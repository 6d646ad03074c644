//! Where the time of a call goes: laps, each with what was done since the one before.
//!
//! Laps are noted several calls deep and nothing is ever decided by them, so they are not handed up through every
//! result but kept beside, by thread. Where nobody started the clock, a lap costs a look at it.

use std::borrow::Cow;
use std::cell::RefCell;
use std::time::{Duration, Instant};

/// The most that are told apart: what comes after joins its like, or the last.
const MOST: usize = 32;

/// What was done, and how long it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lap {
    /// In a word or two.
    pub what: Cow<'static, str>,
    /// From the end of the lap before to the end of this one.
    pub took: Duration,
}

struct Clock {
    last: Instant,
    laps: Vec<Lap>,
}

thread_local! {
    static CLOCK: RefCell<Option<Clock>> = const { RefCell::new(None) };
}

/// Starts the clock of this thread.
pub fn start(at: Instant) {
    CLOCK.with_borrow_mut(|clock| *clock = Some(Clock { last: at, laps: Vec::with_capacity(16) }));
}

/// Whether the clock of this thread runs.
pub fn is_running() -> bool {
    CLOCK.with_borrow(Option::is_some)
}

/// Ends a lap.
pub fn lap(what: &'static str) {
    lap_of(|| what.into());
}

/// Ends a lap whose name is only made where the clock runs.
pub fn lap_of(what: impl FnOnce() -> Cow<'static, str>) {
    CLOCK.with_borrow_mut(|clock| {
        if let Some(clock) = clock {
            let now = Instant::now();
            let took = now.saturating_duration_since(clock.last);
            clock.last = now;
            note(&mut clock.laps, what(), took);
        }
    });
}

/// Stops the clock, and tells its laps in the order of their first.
pub fn stop() -> Vec<Lap> {
    CLOCK.with_borrow_mut(Option::take).map(|clock| clock.laps).unwrap_or_default()
}

fn note(laps: &mut Vec<Lap>, what: Cow<'static, str>, took: Duration) {
    let full = laps.len() >= MOST;
    // A plan that does the same for many says it once.
    let like = laps.iter().position(|l| l.what == what).or(full.then(|| laps.len() - 1));
    match like.and_then(|at| laps.get_mut(at)) {
        Some(lap) => lap.took += took,
        None => laps.push(Lap { what, took }),
    }
}

/// Words with the number of each: `veth, 2 address, 4 route`.
pub fn counted<'w>(words: impl IntoIterator<Item = &'w str>) -> String {
    let mut counts: Vec<(&str, u32)> = Vec::new();
    for word in words {
        match counts.iter_mut().find(|(known, _)| *known == word) {
            Some((_, count)) => *count += 1,
            None => counts.push((word, 1)),
        }
    }
    let each =
        counts.into_iter().map(|(word, n)| if n == 1 { word.to_owned() } else { format!("{n} {word}") });
    each.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn laps_add_up_to_the_whole_and_stay_few() {
        lap("before the clock runs");
        assert_eq!(stop(), []);
        let begin = Instant::now();
        start(begin);
        lap("read");
        for n in 0..100 {
            lap_of(|| format!("step {n}").into());
        }
        lap("read");
        let (laps, whole) = (stop(), begin.elapsed());
        assert_eq!(laps.len(), MOST);
        assert_eq!(laps[0].what, "read");
        assert!(laps.iter().map(|l| l.took).sum::<Duration>() <= whole);
        assert_eq!(stop(), []);
    }

    #[test]
    fn words_are_counted() {
        assert_eq!(counted(["veth", "address", "route", "address"]), "veth, 2 address, route");
        assert_eq!(counted([]), "");
    }
}
