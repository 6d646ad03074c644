use std::fs;
use std::path::PathBuf;

use super::*;
use crate::config::{Config, NodeOptions};
use crate::inventory::Node;

/// A folder of this test's own, gone when it ends, as the node's /dev and /sys.
struct Room(PathBuf);

impl Room {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("nodeplug-health-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(path.join("dev")).unwrap();
        fs::create_dir_all(path.join("sys/devices/tty")).unwrap();
        Self(path)
    }

    fn host(&self) -> Host {
        Host { dev: self.0.join("dev"), sys: self.0.join("sys"), ..Host::default() }
    }

    fn supply(&self, name: &str, attributes: &[(&str, &str)]) {
        let folder = self.0.join("sys/class/power_supply").join(name);
        fs::create_dir_all(&folder).unwrap();
        for (attribute, value) in attributes {
            fs::write(folder.join(attribute), format!("{value}\n")).unwrap();
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn checked(room: &Room, checks: &str) -> Result<(), String> {
    let text = format!(
        "resources: [{{name: a.b/c, devices: [{{path: {{glob: [/dev/x]}}}}], health: {{checks: {checks}}}}}]"
    );
    let resource = Config::parse(&text).unwrap().resources.remove(0);
    let path = PathBuf::from("/dev/x");
    let found = Found {
        identity: "path:/dev/x".to_owned(),
        name: "x".to_owned(),
        nodes: vec![Node { path: path.clone(), real: path, device: None, options: NodeOptions::default() }],
        sysfs: Some(room.0.join("sys/devices/tty")),
        attributes: [("serial".to_owned(), "S1".to_owned()), ("odd".to_owned(), "a\0b".to_owned())].into(),
        ..Found::default()
    };
    check(&resource, &room.host(), &found)
}

#[test]
fn without_checks_a_device_is_healthy() {
    assert_eq!(checked(&Room::new("none"), "[]"), Ok(()));
}

#[test]
fn each_check_has_to_hold() {
    let room = Room::new("each");
    fs::write(room.0.join("dev/x.lock"), "").unwrap();
    fs::write(room.0.join("sys/devices/tty/state"), "up\n").unwrap();
    for (checks, expect) in [
        ("[{exists: '${path}.lock'}]", ""),
        ("[{exists: '/dev/${attribute.serial}'}]", "`/dev/S1` is not there: No such file"),
        ("[{exists: '/dev/${attribute.other}'}]", "`x` has no attribute `other`; it has `odd`, `serial`"),
        ("[{attribute: {name: state, matches: 'u*'}}]", ""),
        ("[{attribute: {name: state, matches: down}}]", "`state` is `up` and not `down`"),
        ("[{attribute: {name: none, matches: '*'}}]", "`none` can't be read: No such file"),
        ("[{command: {run: [/bin/sh, -c, 'test \"$0\" = x', '${name}']}}]", ""),
        (
            "[{command: {run: [sh, -c, 'echo \"$NODEPLUG_DEVICE_NAME $NODEPLUG_DEVICE_PATH\" >&2; exit 2']}}]",
            "`sh` ended with 2: x /dev/x",
        ),
        (
            "[{command: {run: [sh, -c, 'case $NODEPLUG_DEVICE_ID in dev-x-????????????????) ;; *) exit 1;; esac']}}]",
            "",
        ),
        ("[{command: {run: [sleep, '60'], timeout: 100ms}}]", "`sleep` took longer than 100ms"),
        ("[{command: {run: [echo, '${attribute.odd}']}}]", "`echo` can't be run: "),
        (
            "[{exists: '${path}.lock'}, {attribute: {name: state, matches: down}}, {exists: /dev/none}]",
            "`state` is `up`",
        ),
    ] {
        match checked(&room, checks) {
            Ok(()) => assert_eq!(expect, "", "{checks}"),
            Err(why) => assert!(!expect.is_empty() && why.starts_with(expect), "{checks}: {why}"),
        }
    }
}

#[test]
fn a_battery_counts_without_mains() {
    let room = Room::new("battery");
    let charged = || checked(&room, "[{sensor: {battery: {above: 20}}}]");
    assert_eq!(charged(), Ok(()), "no battery");
    room.supply("mouse", &[("type", "Battery"), ("scope", "Device"), ("capacity", "1")]);
    assert_eq!(charged(), Ok(()), "a mouse's");
    room.supply("BAT0", &[("type", "Battery"), ("capacity", "10")]);
    assert_eq!(charged().unwrap_err(), "the battery has 10 %, and has to have more than 20 %");
    room.supply("BAT1", &[("type", "Battery"), ("capacity", "90")]);
    assert_eq!(charged(), Ok(()), "the mean of both");
    room.supply("BAT1", &[("capacity", "20")]);
    assert!(charged().is_err());
    room.supply("AC", &[("type", "Mains"), ("online", "0")]);
    assert!(charged().is_err());
    room.supply("AC", &[("online", "1")]);
    assert_eq!(charged(), Ok(()), "on mains");
}

#[test]
fn a_round_measures_once() {
    let room = Room::new("round");
    let host = room.host();
    let text = "resources: [{name: a.b/c, devices: [{count: 2}], health: {checks: [{sensor: {battery: {above: 20}}}]}}]";
    let resource = Config::parse(text).unwrap().resources.remove(0);
    let mut round = Round::new(&host);
    assert_eq!(round.check(&resource, &Found::default()), Ok(()));
    room.supply("BAT0", &[("type", "Battery"), ("capacity", "10")]);
    assert_eq!(round.check(&resource, &Found::default()), Ok(()));
    assert!(Round::new(&host).check(&resource, &Found::default()).is_err());
}
