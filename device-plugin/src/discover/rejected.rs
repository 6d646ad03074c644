//! What was looked at and not taken: the first thing that does not match, and how near it came.

use crate::config::{Glob, Hex};
use crate::inventory::Rejected;

use super::tree::{Device, Reading};

/// As many as a person reads; the nearest ones are kept.
const MOST: usize = 200;

/// One candidate's way through the conditions, until the first that does not hold.
#[derive(Debug, Default)]
pub struct Match {
    /// Two for each condition that holds, one for a value that is another one: nearer than none at all.
    near: u32,
    why: Option<String>,
}

impl Match {
    /// A condition in a person's words.
    pub fn check(&mut self, holds: impl FnOnce() -> Result<(), String>) -> &mut Self {
        if self.why.is_none() {
            match holds() {
                Ok(()) => self.near += 2,
                Err(why) => self.why = Some(why),
            }
        }
        self
    }

    /// What was read has to match a pattern, where there is one.
    pub fn glob(
        &mut self,
        what: &str,
        wanted: Option<&Glob>,
        reading: impl FnOnce() -> Reading,
    ) -> &mut Self {
        let Some(wanted) = wanted.filter(|_| self.holds()) else { return self };
        let reading = reading();
        let there = u32::from(reading.is_ok());
        self.check(|| matches_glob(what, wanted, reading));
        if !self.holds() {
            self.near += there;
        }
        self
    }

    /// What was read has to be these hexadecimal digits, where there are some.
    pub fn hex<const N: usize>(
        &mut self,
        what: &str,
        wanted: Option<&Hex<N>>,
        reading: impl FnOnce() -> Reading,
    ) -> &mut Self {
        let Some(wanted) = wanted else { return self };
        self.check(|| {
            let value = reading().map_err(|why| format!("{what} {why}"))?;
            let digits = value.strip_prefix("0x").unwrap_or(&value);
            if digits.eq_ignore_ascii_case(wanted.as_str()) {
                return Ok(());
            }
            Err(format!("{what} is {}, not {}", super::clean(digits), wanted.as_str()))
        })
    }

    /// Whether all hold so far.
    pub fn holds(&self) -> bool {
        self.why.is_none()
    }

    /// How near it came, and the first condition that did not hold.
    pub fn verdict(self) -> Result<(), (u32, String)> {
        match self.why {
            None => Ok(()),
            Some(why) => Err((self.near, why)),
        }
    }

    /// Whether all hold; what does not is noted.
    pub fn decide(self, what: impl FnOnce() -> String, rejections: &mut Rejections) -> bool {
        match self.why {
            None => true,
            Some(why) => {
                rejections.add(self.near, || Rejected { what: what(), why });
                false
            }
        }
    }
}

/// `vendor is 1d6b, not 0403`.
pub fn matches_glob(what: &str, wanted: &Glob, reading: Reading) -> Result<(), String> {
    let value = reading.map_err(|why| format!("{what} {why}"))?;
    if wanted.matches(&value) {
        return Ok(());
    }
    let value = if value.is_empty() { "empty".to_owned() } else { super::clean(&value) };
    Err(format!("{what} is {value}, not {wanted}"))
}

/// The candidates that were not taken.
#[derive(Debug, Default)]
pub struct Rejections {
    all: Vec<(u32, Rejected)>,
}

impl Rejections {
    /// One more, that came so near.
    pub fn add(&mut self, near: u32, rejected: impl FnOnce() -> Rejected) {
        self.all.push((near, rejected()));
        if self.all.len() >= 4 * MOST {
            self.keep_nearest();
        }
    }

    /// One that nobody has to be compared with.
    pub fn note(&mut self, what: impl Into<String>, why: impl Into<String>) {
        let (what, why) = (what.into(), why.into());
        self.add(u32::MAX, || Rejected { what, why });
    }

    /// The devices of a subsystem; that the node has none of the kind is said.
    pub fn or_note(&mut self, subsystem: &str, devices: Option<Vec<Device>>) -> Vec<Device> {
        devices.unwrap_or_else(|| {
            self.note(super::clean(subsystem), "is neither in /sys/class nor in /sys/bus");
            Vec::new()
        })
    }

    fn keep_nearest(&mut self) {
        // Stable, so that those that came equally near stay in the order of their names.
        self.all.sort_by_key(|(near, _)| std::cmp::Reverse(*near));
        self.all.truncate(MOST);
    }

    /// The nearest first.
    pub fn finish(mut self) -> Vec<Rejected> {
        self.keep_nearest();
        self.all.into_iter().map(|(_, rejected)| rejected).collect()
    }
}
