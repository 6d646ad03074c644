//! The node's sensors: what they say, and whether that is within limits. One that is not there or can't be
//! read is without its limits, but for the battery: a node without one is on mains.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use sysinfo::{Components, CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};

use crate::allocate::behind;
use crate::config::{Glob, Host, Sensor};

/// A word of sysfs.
const WORD: u64 = 64;

/// A sensor with its label.
#[derive(Debug, Clone, PartialEq)]
pub struct Labelled {
    /// As the kernel has it: `coretemp Core 0`.
    pub label: String,
    /// In °C; none where it says nothing now.
    pub celsius: Option<f32>,
}

/// Whether a sensor is within its limits; the error says what it shows.
pub(super) fn holds(sensor: &Sensor, host: &Host) -> Result<(), String> {
    match sensor {
        Sensor::Temperature { label, below } => cool(&temperatures(), label.as_ref(), *below),
        Sensor::Load { below } => {
            let load = load().ok_or("the load can't be read from /proc")?;
            within(load < *below, || format!("the load of a CPU is {load:.2}, and has to be below {below}"))
        }
        Sensor::Memory { above } => {
            let (total, available) = memory();
            let part = percent(available, total).ok_or("memory can't be read from /proc")?;
            within(part > *above, || {
                format!("{part:.1} % of memory is available, and has to be more than {above} %")
            })
        }
        Sensor::Disk { path, above } => {
            let (total, free) = disk(host, path)?;
            let part = percent(free, total).ok_or_else(|| format!("`{}` is on no disk", path.display()))?;
            let shown = path.display();
            within(part > *above, || {
                format!("{part:.1} % of `{shown}` is free, and has to be more than {above} %")
            })
        }
        Sensor::Battery { above } => match battery(host) {
            None => Ok(()),
            Some(charge) => within(charge > *above, || {
                format!("the battery has {charge:.0} %, and has to have more than {above} %")
            }),
        },
    }
}

fn within(holds: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(why()) }
}

/// All sensors of temperature, in the order of their labels.
pub fn temperatures() -> Vec<Labelled> {
    let components = Components::new_with_refreshed_list();
    let labelled = components.list().iter().map(|component| Labelled {
        label: component.label().to_owned(),
        celsius: component.temperature().filter(|celsius| celsius.is_finite()),
    });
    let mut all: Vec<_> = labelled.collect();
    all.sort_by(|a, b| a.label.cmp(&b.label));
    all
}

/// Whether the hottest of those with such a label is below the limit.
fn cool(all: &[Labelled], label: Option<&Glob>, below: f64) -> Result<(), String> {
    let meant = all.iter().filter(|sensor| label.is_none_or(|glob| glob.matches(&sensor.label)));
    let hottest = meant
        .filter_map(|sensor| sensor.celsius.map(|celsius| (f64::from(celsius), &sensor.label)))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let Some((celsius, name)) = hottest else {
        let which = label.map_or_else(String::new, |glob| format!(" with the label `{glob}`"));
        return Err(format!("no sensor of temperature{which} says anything; `doctor` lists them"));
    };
    within(celsius < below, || format!("`{name}` has {celsius:.1} °C, and has to be below {below} °C"))
}

/// The load of the last minute for each CPU of the node.
fn load() -> Option<f64> {
    let system = System::new_with_specifics(RefreshKind::nothing().with_cpu(CpuRefreshKind::nothing()));
    let count = u32::try_from(system.cpus().len()).ok().filter(|count| *count > 0)?;
    Some(System::load_average().one / f64::from(count))
}

/// All memory and what is available of it, in bytes; 0 where it can't be read.
fn memory() -> (u64, u64) {
    let kind = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    let system = System::new_with_specifics(kind);
    (system.total_memory(), system.available_memory())
}

/// The node's memory in bytes.
pub(crate) fn total_memory() -> Result<u64, String> {
    Some(memory().0).filter(|total| *total > 0).ok_or_else(|| "memory can't be read from /proc".to_owned())
}

/// What is available of it.
pub(crate) fn available_memory() -> Result<u64, String> {
    total_memory().map(|_| memory().1)
}

/// The size of the filesystem of a path, and what is free for everybody, in bytes. One call for one
/// filesystem: a list of all of them would ask dead servers, too.
pub(crate) fn disk(host: &Host, path: &Path) -> Result<(u64, u64), String> {
    let wrong = |e: io::Error| format!("the disk of `{}` can't be asked: {e}", path.display());
    let (real, _) = behind(host, path).map_err(wrong)?;
    let about = rustix::fs::statvfs(crate::allocate::seen(host, &real)).map_err(|e| wrong(e.into()))?;
    Ok((about.f_blocks.saturating_mul(about.f_frsize), about.f_bavail.saturating_mul(about.f_frsize)))
}

/// A part in percent.
#[expect(clippy::cast_precision_loss, reason = "a percentage needs no more than 52 bits")]
fn percent(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 * 100.0 / whole as f64)
}

/// The mean charge of the node's batteries in percent; none without a battery or on mains. Batteries of mice
/// and headsets are not the node's (`scope`).
fn battery(host: &Host) -> Option<f64> {
    let supplies = fs::read_dir(host.sys.join("class/power_supply")).ok()?;
    let mut charges = Vec::new();
    for supply in supplies.flatten().map(|entry| entry.path()) {
        let word = |name: &str| read(&supply.join(name), WORD).unwrap_or_default();
        match word("type").as_str() {
            "Battery" if word("scope") != "Device" && word("present") != "0" => {
                charges.extend(word("capacity").parse::<f64>().ok());
            }
            "Mains" | "USB" | "Wireless" if word("online") == "1" && word("scope") != "Device" => {
                return None;
            }
            _ => {}
        }
    }
    let count = u32::try_from(charges.len()).ok().filter(|count| *count > 0)?;
    Some(charges.iter().sum::<f64>() / f64::from(count))
}

/// A small file of sysfs or of the configuration's, without the white space around.
pub(crate) fn read(path: &Path, most: u64) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(most).read_to_string(&mut text)?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labelled(label: &str, celsius: Option<f32>) -> Labelled {
        Labelled { label: label.to_owned(), celsius }
    }

    #[test]
    fn the_hottest_of_the_meant_counts() {
        let all = [
            labelled("Core 0", Some(60.0)),
            labelled("Core 1", Some(70.5)),
            labelled("disk", Some(90.0)),
            labelled("x", None),
        ];
        let core: Glob = "Core*".parse().unwrap();
        assert_eq!(cool(&all, Some(&core), 80.0), Ok(()));
        assert_eq!(
            cool(&all, Some(&core), 70.0).unwrap_err(),
            "`Core 1` has 70.5 °C, and has to be below 70 °C"
        );
        assert!(cool(&all, None, 80.0).unwrap_err().starts_with("`disk` has 90.0 °C"));
    }

    #[test]
    fn a_sensor_that_is_not_there_is_without_its_limits() {
        let why = cool(&[labelled("x", None)], Some(&"x".parse().unwrap()), 80.0).unwrap_err();
        assert_eq!(why, "no sensor of temperature with the label `x` says anything; `doctor` lists them");
        assert!(cool(&[], None, 80.0).is_err());
        let disk = Sensor::Disk { path: "/nonexistent".into(), above: 0.0 };
        assert!(
            holds(&disk, &Host::default())
                .unwrap_err()
                .starts_with("the disk of `/nonexistent` can't be asked")
        );
    }

    #[test]
    fn this_machine_has_memory_a_load_and_a_disk() {
        let host = Host::default();
        assert!(available_memory().unwrap() <= total_memory().unwrap());
        assert_eq!(holds(&Sensor::Memory { above: 0.0 }, &host), Ok(()));
        assert!(
            holds(&Sensor::Memory { above: 100.0 }, &host).unwrap_err().contains("has to be more than 100 %")
        );
        assert_eq!(holds(&Sensor::Load { below: 1_000_000.0 }, &host), Ok(()));
        assert!(holds(&Sensor::Load { below: 0.0 }, &host).unwrap_err().contains("has to be below 0"));
        assert!(holds(&Sensor::Disk { path: "/".into(), above: 100.0 }, &host).is_err());
        let (total, free) = disk(&host, Path::new("/proc/../")).unwrap();
        assert!(free <= total && total > 0);
    }
}
