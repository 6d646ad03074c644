//! As many devices as a sensor of the node has to give: memory, space on a disk.

use super::synthetic::{failed, numbered};
use crate::config::{Host, Measure, SensorSelector};
use crate::health::{available_memory, disk, total_memory};
use crate::inventory::Looked;

/// What there is now. A sensor that can't be read says nothing of how many there are: see `Looked::failed`.
pub fn look(selector: &SensorSelector, host: &Host) -> Looked {
    match measured(&selector.of, host) {
        Ok(value) => {
            numbered("sensor", fitting(value, selector.reserve.bytes(), selector.unit.bytes()), selector.max)
        }
        Err(why) => failed(name(&selector.of), why),
    }
}

/// How many units are in what is not left alone.
fn fitting(value: u64, reserve: u64, unit: u64) -> u64 {
    value.saturating_sub(reserve).checked_div(unit).unwrap_or(0)
}

/// In bytes.
fn measured(of: &Measure, host: &Host) -> Result<u64, String> {
    match of {
        Measure::MemoryTotal => total_memory(),
        Measure::MemoryAvailable => available_memory(),
        Measure::DiskTotal(path) => disk(host, path).map(|(total, _)| total),
        Measure::DiskFree(path) => disk(host, path).map(|(_, free)| free),
    }
}

fn name(of: &Measure) -> String {
    match of {
        Measure::MemoryTotal | Measure::MemoryAvailable => "memory".to_owned(),
        Measure::DiskTotal(path) | Measure::DiskFree(path) => path.display().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Span;

    #[test]
    fn whole_units_fit_into_what_is_not_left_alone() {
        for (value, reserve, unit, expect) in [
            (10, 0, 3, 3),
            (10, 1, 3, 3),
            (10, 2, 3, 2),
            (10, 11, 3, 0),
            (10, 0, 0, 0),
            (u64::MAX, 0, 1, u64::MAX),
        ] {
            assert_eq!(fitting(value, reserve, unit), expect, "{value} {reserve} {unit}");
        }
    }

    #[test]
    fn this_machine_is_measured() {
        let host = Host::default();
        let selector = |of, unit: &str| SensorSelector {
            of,
            unit: unit.parse().unwrap(),
            reserve: "0".parse().unwrap(),
            max: 5,
            every: Span::seconds(60),
        };
        for of in [Measure::MemoryTotal, Measure::MemoryAvailable, Measure::DiskTotal("/".into())] {
            let looked = look(&selector(of, "1Ki"), &host);
            assert_eq!(looked.found.len(), 5);
            assert_eq!(looked.found[4].identity, "sensor:4");
            assert!(looked.rejected[0].why.ends_with("and `max` is 5"));
        }
        assert_eq!(look(&selector(Measure::MemoryTotal, "1000Ti"), &host), Looked::default());
        let looked = look(&selector(Measure::DiskFree("/nonexistent".into()), "1Ki"), &host);
        assert!(looked.failed.unwrap().contains("can't be asked"));
    }
}
