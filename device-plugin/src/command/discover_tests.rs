use super::*;
use crate::discover::made::Made;

const RESOURCES: &str = r#"
resources:
- {name: example.com/serial, devices: [{usb: {vendor: "0403", nodes: [tty]}}, {path: {glob: ['/dev/ttyUSB9'], expected: true}}]}
- {name: example.com/gpu, devices: [{pci: {vendor: "10de"}}]}
"#;

fn config(made: &Made) -> Config {
    Config { host: made.host(), ..Config::parse(RESOURCES).unwrap() }
}

#[test]
fn a_table_has_the_devices_and_the_nearest_of_the_others() {
    let made = Made::new();
    made.controller().adapter("1-1", "A5", 0);
    let config = config(&made);
    let report = discover(&config, None).unwrap();
    assert_eq!(
        report.to_table(),
        "\
RESOURCE            DEVICE             NODES         NUMA  STATE
example.com/serial  usb:0403:6001:A5   /dev/ttyUSB0  1     healthy
example.com/serial  path:/dev/ttyUSB9  -             -     unhealthy: `/dev/ttyUSB9` is not there

RESOURCE            NOT TAKEN         WHY
example.com/serial  usb1 (1d6b:0002)  vendor is 1d6b, not 0403
example.com/serial  /dev/ttyUSB0      doesn't match `/dev/ttyUSB9`
example.com/gpu     0000:00:14.0      vendor is 8086, not 10de

2 devices of 2 resources, 1 of them not healthy; none for `example.com/gpu`
"
    );
    assert!(!report.is_fine());
    let json = report.to_json();
    assert_eq!(json["resources"][0]["devices"][0]["nodes"][0]["device"], "c 188:0");
    assert_eq!(json["resources"][1]["rejected"][0]["why"], "vendor is 8086, not 10de");
}

#[test]
fn one_resource_is_asked_for_by_its_name() {
    let made = Made::new();
    let config = config(&made);
    assert_eq!(discover(&config, Some("example.com/gpu")).unwrap().seen.len(), 1);
    let error = discover(&config, Some("gpus")).unwrap_err();
    assert_eq!(error.advice(), Some("did you mean `example.com/gpu`?"));
}
