//! Spans of time as people write them in options and in the policy.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Whole seconds, at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seconds(u32);

impl Seconds {
    /// `count` seconds; 0 becomes 1.
    pub const fn new(count: u32) -> Self {
        Self(if count == 0 { 1 } else { count })
    }

    /// The count.
    pub const fn count(self) -> u32 {
        self.0
    }

    /// The same as std has it.
    pub const fn duration(self) -> Duration {
        Duration::from_secs(self.0 as u64)
    }
}

impl FromStr for Seconds {
    type Err = String;

    /// Reads `30s`, `2m`, `1m30s`, `1h` or plain seconds. The error says what to write instead.
    fn from_str(text: &str) -> Result<Self, String> {
        let shape = || "is not a time; write whole seconds or minutes, such as 30s or 2m".to_owned();
        let too_much = || "is longer than a century".to_owned();
        let mut total = 0_u32;
        let mut rest = text;
        while !rest.is_empty() {
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let (digits, tail) = rest.split_at_checked(end).ok_or_else(shape)?;
            let (factor, tail) =
                match (tail.strip_prefix('h'), tail.strip_prefix('m'), tail.strip_prefix('s')) {
                    (Some(tail), _, _) => (3600, tail),
                    (_, Some(tail), _) if !tail.starts_with('s') => (60, tail),
                    (_, _, Some(tail)) => (1, tail),
                    _ if tail.is_empty() && rest == text => (1, ""),
                    _ => return Err(shape()),
                };
            if digits.is_empty() {
                return Err(shape());
            }
            let part = digits.parse::<u32>().map_err(|_| too_much())?;
            total = part.checked_mul(factor).and_then(|p| total.checked_add(p)).ok_or_else(too_much)?;
            rest = tail;
        }
        if text.is_empty() {
            return Err(shape());
        }
        if total == 0 { Err("is no time at all; write at least 1s".to_owned()) } else { Ok(Self(total)) }
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}s", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_are_read() {
        for (text, count) in [("30s", 30), ("30", 30), ("2m", 120), ("1m30s", 90), ("1h", 3600), ("007s", 7)]
        {
            assert_eq!(text.parse(), Ok(Seconds(count)), "{text}");
        }
        let junk = [
            "",
            "s",
            "0",
            "0s",
            "-1s",
            "1.5s",
            "500ms",
            "30 s",
            "1m30",
            "s30",
            "5000000000",
            "1193047h",
            "ß",
        ];
        for text in junk {
            assert!(text.parse::<Seconds>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(count in 1..=u32::MAX) {
            prop_assert_eq!(Seconds(count).to_string().parse(), Ok(Seconds(count)));
        }

        #[test]
        fn junk_is_never_more_than_an_error(text in "[0-9hms]{0,20}|\\PC{0,8}") {
            let _ = text.parse::<Seconds>();
        }
    }
}
