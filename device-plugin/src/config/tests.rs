use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::inventory::{DeviceNumber, Found, Looked, Node};

/// Compares with the golden file; `UPDATE_GOLDEN=1` writes it anew for a person to review.
fn hold(name: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, text).unwrap();
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), text, "{}", path.display());
}

fn said(text: &str) -> String {
    let error = Config::parse(text).unwrap_err();
    assert_eq!(error.kind(), node::Kind::Config);
    assert_eq!(error.advice(), Some("`nodeplug-device-plugin validate` checks the file"));
    error.causes()
}

/// Whether the schema takes the value, as far as our schema goes: references, types, keys, alternatives,
/// words, patterns and limits.
fn takes(whole: &Value, schema: &Value, value: &Value) -> bool {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.strip_prefix("#/$defs/")) {
        return takes(whole, &whole["$defs"][name], value);
    }
    let all = |key: &str| schema[key].as_array().cloned().unwrap_or_default();
    let either = all("oneOf").into_iter().chain(all("anyOf")).collect::<Vec<_>>();
    let types: Vec<_> =
        all("type").into_iter().chain([schema["type"].clone()]).filter(Value::is_string).collect();
    let is = |name: &Value| match name.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        other => panic!("{other}"),
    };
    let words = all("enum");
    let pattern = schema["pattern"].as_str().map(|p| regex_lite::Regex::new(p).unwrap());
    let limit = |key: &str, at_least: bool| match (schema[key].as_f64(), value.as_f64()) {
        (Some(limit), Some(value)) => {
            if at_least {
                value >= limit
            } else {
                value <= limit
            }
        }
        _ => true,
    };
    (either.is_empty() || either.iter().any(|one| takes(whole, one, value)))
        && (types.is_empty() || types.iter().any(is))
        && (words.is_empty() || words.contains(value))
        && schema.get("const").is_none_or(|only| only == value)
        && pattern.is_none_or(|pattern| value.as_str().is_none_or(|text| pattern.is_match(text)))
        && schema.get("not").is_none_or(|not| !takes(whole, not, value))
        && limit("minimum", true)
        && limit("maximum", false)
        && parts(whole, schema, value)
}

/// The same for what is in an object or a list.
fn parts(whole: &Value, schema: &Value, value: &Value) -> bool {
    if let Some(list) = value.as_array() {
        let enough = schema["minItems"].as_u64().is_none_or(|least| list.len() as u64 >= least);
        return enough
            && (schema["items"].is_null() || list.iter().all(|item| takes(whole, &schema["items"], item)));
    }
    let Some(object) = value.as_object() else { return true };
    let none = Vec::new();
    let needed = schema["required"].as_array().unwrap_or(&none);
    needed.iter().all(|key| object.contains_key(key.as_str().unwrap()))
        && object.iter().all(|(key, value)| {
            match (&schema["properties"][key], &schema["additionalProperties"]) {
                (Value::Null, Value::Bool(false)) => false,
                (Value::Null, Value::Null) => true,
                (Value::Null, others) => takes(whole, others, value),
                (known, _) => takes(whole, known, value),
            }
        })
}

#[test]
fn the_schema_takes_what_is_read_and_nothing_else() {
    let schema = schemars::schema_for!(Config).to_value();
    let example = include_str!("../../tests/golden/validate.yaml");
    let value = |text: &str| serde_saphyr::from_str::<Value>(text).unwrap();
    assert!(takes(&schema, &schema, &value(example)));
    let read = Config::parse(example).unwrap();
    let written = serde_json::to_value(&read).unwrap();
    assert!(takes(&schema, &schema, &written), "{written:#}");
    assert_eq!(Config::parse(&written.to_string()).unwrap(), read);
    for (from, to) in [
        ("count: 5", "cuont: 5"),
        ("count: 5", "count: -1"),
        ("count: 5", "count: five"),
        ("expected: true", "expected: maybe"),
        ("replicas: 1000", "replicas: 0"),
        ("replicas: 1000", "replicas: 10001"),
        ("prefer: numa", "prefer: near"),
        ("timeout: 2s", "timeout: 2"),
        ("mode: \"0660\"", "mode: \"0990\""),
        ("permissions: r", "permissions: rr"),
        ("example.com/licence", "licence"),
        ("example.com/licence", "requests.example.com/licence"),
        ("example.com/licence", "kubernetes.io/licence"),
        ("vendor: \"0403\"", "vendor: \"403\""),
        ("every: 10s", "evry: 10s"),
        ("unit: 10Gi", "unit: 10GB"),
        ("{subsystem: video4linux}", "{subsystem: [video4linux]}"),
    ] {
        let text = example.replacen(from, to, 1);
        assert_ne!(text, example, "{from}");
        assert!(Config::parse(&text).is_err(), "{to}");
        assert!(!takes(&schema, &schema, &value(&text)), "{to}");
    }
}

/// A configuration with one resource of these devices and whatever else is said of it.
fn with(devices: &str, more: &str) -> String {
    format!("resources: [{{name: a.b/c, devices: {devices}{more}}}]")
}

#[test]
fn the_schema_is_as_reviewed() {
    hold(
        "config-schema.json",
        &(serde_json::to_string_pretty(&schemars::schema_for!(Config).to_value()).unwrap() + "\n"),
    );
}

#[test]
fn a_pattern_that_may_begin_with_a_slash_is_not_refused() {
    for text in [
        "/dev/x",
        "^/dev/x",
        ".*x",
        "d?/dev/x",
        "d*/x",
        "d{0,1}/x",
        "[/]dev/x",
        "(/dev/x|/x)",
        r"\/dev/x",
        "/a|/b",
    ] {
        assert_eq!(text.parse::<Pattern>().unwrap().relative(), None, "{text}");
    }
}

#[test]
fn an_empty_file_offers_nothing() {
    for text in ["", "\n", "# nothing\n", "{}", "---\n", "resources: []"] {
        assert_eq!(Config::parse(text).unwrap(), Config::default(), "{text:?}");
    }
    assert_eq!(Config::default().mistakes(), Vec::<String>::new());
    assert_eq!(Config::default().warnings(), ["`resources` is empty: nothing is offered"]);
}

#[test]
fn a_mistyped_word_is_refused_with_its_place_and_what_was_meant() {
    for (text, expect) in [
        (with("[{cuont: 3}]", ""), "line 1, column 38: `cuont` is not known here; did you mean `count`?"),
        (
            with("[{count: 3}]", ", replcas: 3"),
            "column 50: `replcas` is not known here; did you mean `replicas`?",
        ),
        (with("[{count: 3}]", ", prefer: paked"), "`paked` is not known here; did you mean `packed`?"),
        (with("[{count: 3}]", ", allocate: {cdi: {write: {mod: 1}}}"), "did you mean `mode`?"),
        (with("[{count: 3}]", ", health: {checks: [{command: {rum: []}}]}"), "did you mean `run`?"),
        (
            with("[{usb: {vid: 0403}}]", ""),
            "`vid` is not known here; known are vendor, product, serial, port",
        ),
        (with("[{count: 3, path: {}}]", ""), "column 48: one key is enough here"),
        (with("{count: 3}", ""), "column 36: a list is expected"),
        (with("[{usb: {nodes: tty}}]", ""), "a list is expected"),
        (with("[{usb: {vendor: 403}}]", ""), "column 52: `403` is not 4 hexadecimal digits, in quotes"),
        (with("[{pci: {class: '030'}}]", ""), "`030` is not how a PCI class begins"),
        (with("[{count: 3}]", ", health: {every: 30}"), "`30` is no length of time: write `500ms`, `30s`"),
        (
            "resources: [{name: serial, devices: []}]".to_owned(),
            "line 1, column 20: `serial` is no resource name",
        ),
        ("resources: [{devices: []}]".to_owned(), "missing field `name`"),
        ("resources: [{name: a/b, name: c/d}]".to_owned(), "column 25: duplicate mapping key `name`"),
        ("http: {listen: ':9090'}".to_owned(), "line 1, column 16: invalid socket address"),
        ("kubelet: {registration: polling}".to_owned(), "known are direct, watcher"),
        ("a: b: c".to_owned(), "line 1"),
    ] {
        let why = said(&text);
        assert!(why.contains(expect), "{text}\n{why}");
    }
}

#[test]
fn numbers_of_usb_need_no_quotes_where_they_are_whole() {
    let text = with("[{usb: {vendor: 0403, product: '6001'}}]", ", allocate: {cdi: {write: {mode: 0660}}}");
    let config = Config::parse(&text).unwrap();
    let Selector::Usb(usb) = &config.resources[0].devices[0] else { panic!("{config:?}") };
    assert_eq!(usb.vendor.as_ref().unwrap().as_str(), "0403");
    assert!(
        matches!(&config.resources[0].allocate.cdi, Some(Cdi::Write { mode: Some(mode), .. }) if mode.bits() == 0o660)
    );
}

const COUNT: &str = "[{count: 3}]";

/// The devices of a resource, the rest of it, and what is said of it.
const CONTRADICTIONS: &[(&str, &str, &str)] = &[
    ("[]", "", "`a.b/c`: `devices` is empty; say where the devices come from"),
    (COUNT, ", replicas: 0", "`replicas` is 0; write 1 to 10000"),
    (COUNT, ", replicas: 10001", "`replicas` is 10001"),
    ("[{path: {}}]", "", "`devices[0].path` says nothing, so that everything would match; write `glob"),
    ("[{path: {glob: [dev/x]}}]", "", "`devices[0].path.glob[0]` matches no path: `dev/x` is not absolute"),
    ("[{path: {glob: [/dev/x], below: /srv}}]", "", "`devices[0].path.below` is where `regex` looks"),
    ("[{path: {regex: '/x.*', below: srv}}]", "", "`srv` is not absolute"),
    (
        "[{path: {regex: 'tty.*'}}]",
        "",
        "`devices[0].path.regex` matches no path: `tty.*` has to match the whole; write `/dev/tty.*`",
    ),
    ("[{path: {regex: '^x+', below: /srv}}]", "", "write `/srv/x+`"),
    ("[{path: {regex: '/dev/a|dev/b'}}]", "", "`dev/b` has to match the whole"),
    (
        "[{path: {glob: ['/dev/x*'], expected: true}}]",
        "",
        "`devices[0].path.expected` is for paths without `*`",
    ),
    ("[{usb: {}}]", "", "`devices[0].usb` says nothing"),
    ("[{usb: {nodes: [tty]}}]", "", "`devices[0].usb` says nothing"),
    ("[{usb: {product: '6001'}}]", "", "`devices[0].usb.product` means nothing without `vendor`"),
    ("[{usb: {vendor: '0403', nodes: [a/b]}}]", "", "`devices[0].usb.nodes[0]` (`a/b`) is no name below"),
    ("[{pci: {}}]", "", "`devices[0].pci` says nothing"),
    ("[{sysfs: {subsystem: ''}}]", "", "`devices[0].sysfs.subsystem` (``) is no name"),
    ("[{sysfs: {subsystem: tty, parents: [{}]}}]", "", "`devices[0].sysfs.parents[0]` says nothing"),
    (
        "[{sysfs: {subsystem: tty, attributes: {../x: '1'}}}]",
        "",
        "(`../x`) is no path below the device's folder",
    ),
    ("[{net: {}}]", "", "`devices[0].net` says nothing"),
    (
        "[{block: {}}]",
        "",
        "`devices[0].block` says nothing, so that everything would match; the node's own disks",
    ),
    ("[{block: {minSize: 2Gi, maxSize: 1Gi}}]", "", "(2Gi) is more than `maxSize` (1Gi)"),
    ("[{char: {major: 5000}}]", "", "`devices[0].char.major` is 5000; it is at most 4095"),
    ("[{char: {major: 1, lastMinor: 3}}]", "", "`devices[0].char.lastMinor` needs `minor`"),
    ("[{char: {major: 1, minor: 5, lastMinor: 3}}]", "", "(3) is less than `minor` (5)"),
    ("[{group: {}}]", "", "`devices[0].group.members` is empty"),
    ("[{group: {members: [{glob: /dev/x, optional: true}]}}]", "", "are all optional"),
    (
        "[{group: {members: [{subsystem: tty}]}}]",
        "",
        "`devices[0].group.members[0].subsystem` needs the group's `parent`",
    ),
    ("[{group: {members: [{}]}}]", "", "`devices[0].group.members[0]` says nothing"),
    ("[{group: {members: [{glob: /dev/x, subsystem: tty}]}}]", "", "has both `subsystem` and `glob`"),
    ("[{group: {members: [{glob: /dev/x, limit: 0}]}}]", "", "`devices[0].group.members[0].limit` is 0"),
    (
        "[{group: {members: [{glob: /dev/x, node: {containerPath: '/dev/${nme}'}}]}}]",
        "",
        "did you mean `${name}`?",
    ),
    ("[{count: 1}, {count: 2}]", "", "`devices` has `count` 2 times"),
    ("[{file: {path: x}}]", "", "`devices[0].file.path` is not a path"),
    ("[{file: {path: /x, max: 0}}]", "", "`devices[0].file.max` is 0"),
    ("[{command: {run: []}}]", "", "`devices[0].command.run` is empty"),
    ("[{command: {run: [./x]}}]", "", "has `./x`, which is no absolute path and no name in PATH"),
    ("[{command: {run: [x], timeout: 31s}}]", "", "`devices[0].command.timeout` (31s) is longer than 30s"),
    ("[{command: {run: [x], timeout: 0s}}]", "", "`devices[0].command.timeout` is 0s"),
    ("[{command: {run: [x], every: 999ms}}]", "", "`devices[0].command.every` (999ms) is shorter than 1s"),
    ("[{sensor: {of: memoryTotal, unit: '0'}}]", "", "`devices[0].sensor.unit` is 0"),
    ("[{sensor: {of: {diskFree: x}, unit: 1Gi}}]", "", "`devices[0].sensor.of` is not a path"),
    (
        COUNT,
        ", health: {failures: 0, successes: 0, every: 0s}",
        "`health.failures` is 0; write at least 1; `a.b/c`: `health.successes`",
    ),
    (COUNT, ", health: {checks: [{exists: x}]}", "`health.checks[0].exists` is not a path"),
    (COUNT, ", health: {checks: [{exists: '/x${index}'}]}", "`${index}` is no variable here"),
    (
        COUNT,
        ", health: {checks: [{attribute: {name: /x, matches: a}}]}",
        "`health.checks[0].attribute.name` (`/x`)",
    ),
    (
        COUNT,
        ", health: {checks: [{command: {run: [x, '${pth}']}}]}",
        "`health.checks[0].command.run[1]` is off: `${pth}`",
    ),
    (
        COUNT,
        ", health: {beforeStart: true, checks: [{command: {run: [x], timeout: 15s}}, {command: {run: [y], timeout: 15s}}]}",
        "`health.beforeStart` lets the kubelet wait 30s",
    ),
    (
        COUNT,
        ", health: {checks: [{sensor: {memory: {above: 101}}}]}",
        "`health.checks[0].sensor` has the limit 101; write 0 to 100",
    ),
    (COUNT, ", health: {checks: [{sensor: {load: {below: .nan}}}]}", "has the limit NaN"),
    (COUNT, ", allocate: {node: {containerPath: dev}}", "`allocate.node.containerPath` is not a path"),
    (COUNT, ", allocate: {node: {containerPath: '/dev/${path}'}}", "`${path}` is no variable here"),
    (
        COUNT,
        ", allocate: {devices: [{hostPath: /}]}",
        "`allocate.devices[0].hostPath` is not a path: `/` is the root folder",
    ),
    (COUNT, ", allocate: {mounts: [{hostPath: /a, containerPath: '/b/../c'}]}", "`/b/../c` has `..`"),
    (
        COUNT,
        ", allocate: {mounts: [{hostPath: /a, containerPath: /x}], devices: [{hostPath: /dev/y, containerPath: /x}]}",
        "`allocate` has `/x` twice in the container",
    ),
    (COUNT, ", allocate: {env: {'A=': x}}", "`allocate.env.A=` is no name of a variable"),
    (COUNT, ", allocate: {env: {A: '${serial}'}}", "`${serial}` is no variable here; known are"),
    (COUNT, ", allocate: {annotations: {'a b': x}}", "is no name of an annotation"),
    (COUNT, ", allocate: {cdi: {use: {name: gpu}}}", "(`gpu`) is not `vendor/class=name`"),
    (COUNT, ", allocate: {cdi: {write: {}}}", "`allocate.cdi.write` has no files to write of"),
    (
        "[{path: {glob: [/dev/x]}}]",
        ", allocate: {cdi: {write: {}}, node: {containerPath: '/dev/x${index}'}}",
        "`${index}` is not known",
    ),
    (
        "[{path: {glob: [/dev/x]}}, {path: {glob: ['/dev/*']}}]",
        "",
        "`devices[1]` finds what `devices[0]` finds (`/dev/x`)",
    ),
];

#[test]
fn each_contradiction_has_its_words() {
    for (devices, more, expect) in CONTRADICTIONS {
        let why = said(&with(devices, more));
        assert!(why.contains(expect), "{devices}{more}\n{why}");
        assert!(why.starts_with("`a.b/c`: "), "{why}");
    }
}

#[test]
fn what_concerns_the_node_is_checked_too() {
    let long = format!("/{}", "x".repeat(80));
    for (text, expect) in [
        (
            "kubelet: {devicePlugins: x, pluginsRegistry: y, podResources: z}".to_owned(),
            "`x` is not absolute; begin it with `/`; `kubelet.pluginsRegistry` is",
        ),
        (format!("kubelet: {{devicePlugins: {long}}}"), "`kubelet.devicePlugins` has 81 bytes"),
        (
            "host: {dev: /, sys: x, cdi: x, root: x}".to_owned(),
            "`host.dev` is not a path: `/` is the root folder",
        ),
        (
            "discovery: {debounce: 1001ms, rescan: 0s}".to_owned(),
            "`discovery.debounce` (1001ms) is longer than 1s; `discovery.rescan` (0s) is shorter",
        ),
        ("http: {socket: x}".to_owned(), "`http.socket`"),
        ("featureFile: x".to_owned(), "`featureFile`"),
    ] {
        let why = said(&text);
        assert!(why.contains(expect), "{text}\n{why}");
    }
}

#[test]
fn a_list_that_the_kubelet_would_not_take_is_refused_with_its_size() {
    // `0-…` to `99999-…`: 16 digits of hash and a dash, 15 bytes of tags, and the number.
    let fits = with("[{count: 100000}]", "");
    assert!(Config::parse(&fits).is_ok());
    let why = said(&with("[{count: 120000}]", ""));
    assert_eq!(
        why,
        "`a.b/c`: `devices` may be 120000, replicas included: a list of 4448890 bytes, and the kubelet takes at most \
         4194304; lower `count`, `max` or `replicas`"
    );
    assert!(said(&with("[{count: 4000000000}]", ", replicas: 10000")).contains("may be 40000000000000"));
    assert!(said(&with("[{file: {path: /x}}]", ", replicas: 100")).contains("may be 1000000"));
    let warnings = Config::parse(&with("[{count: 1001}]", "")).unwrap().warnings();
    assert!(warnings[0].starts_with("`a.b/c`: it has 1001 devices; the kubelet"), "{warnings:?}");
}

#[test]
fn two_resources_cannot_be_one() {
    let two = |one: &str, other: &str| {
        format!("resources: [{{name: a.b/one, devices: [{one}]}}, {{name: a.b/two, devices: [{other}]}}]")
    };
    let why = said("resources: [{name: a.b/c, devices: [{count: 1}]}, {name: a.b/c, devices: [{count: 1}]}]");
    assert_eq!(why, "`resources[1]` has the name `a.b/c` of `resources[0]`; put them together");
    for (one, other, expect) in [
        ("path: {glob: ['/dev/tty*']}", "path: {glob: ['/dev/tty*']}", Some("(`/dev/tty*`)")),
        ("path: {glob: ['/dev/tty*']}", "path: {glob: [/dev/ttyUSB0]}", Some("(`/dev/ttyUSB0`)")),
        ("path: {glob: ['/dev/tty*'], exclude: [/dev/ttyUSB0]}", "path: {glob: [/dev/ttyUSB0]}", None),
        ("path: {glob: ['/dev/tty*']}", "path: {glob: ['/dev/ttyUSB*']}", None),
        ("path: {glob: ['/dev/x']}", "path: {glob: ['/dev/x'], kinds: [file]}", None),
        ("path: {regex: '/dev/x.'}", "path: {regex: '/dev/x.'}", Some("regular expression")),
        ("usb: {vendor: '0403'}", "usb: {vendor: '0403'}", Some("the same selector")),
        ("usb: {vendor: '0403'}", "usb: {vendor: '0404'}", None),
        ("count: 3", "count: 3", None),
        ("group: {members: [{glob: /dev/x}]}", "group: {members: [{glob: /dev/x}]}", Some("the same group")),
    ] {
        let text = two(&format!("{{{one}}}"), &format!("{{{other}}}"));
        match expect {
            Some(expect) => assert!(said(&text).contains(expect), "{text}\n{}", said(&text)),
            None => assert!(Config::parse(&text).is_ok(), "{text}"),
        }
    }
    let kinds = "resources: [{name: a.b/one, devices: [{path: {glob: [/dev/x]}}], allocate: {cdi: {write: {kind: v/c}}}},
        {name: a.b/two, devices: [{path: {glob: [/dev/y]}}], allocate: {cdi: {write: {kind: v/c}}}}]";
    assert!(
        said(kinds).contains("`a.b/two`: `allocate.cdi.write.kind` (v/c) is that of `a.b/one`"),
        "{}",
        said(kinds)
    );
}

#[test]
fn what_two_resources_set_in_a_container_is_warned_of() {
    let two = |one: &str, other: &str| {
        let text = format!(
            "resources: [{{name: a.b/one, devices: [{{count: 1}}], allocate: {one}}}, \
             {{name: a.b/two, devices: [{{count: 2}}], allocate: {other}}}]"
        );
        Config::parse(&text).unwrap().warnings()
    };
    let mount = "{mounts: [{hostPath: /a, containerPath: /x}]}";
    let env = "{env: {IDS: '${id}'}}";
    for (one, other, expect) in [
        (
            env,
            env,
            Some("`a.b/one` and `a.b/two` both set the variable `IDS`: a container with devices of both"),
        ),
        ("{env: {A: x}}", "{env: {A: x}}", None),
        ("{env: {A: x}}", "{env: {A: y}}", Some("the variable `A`")),
        (mount, mount, None),
        (mount, "{devices: [{hostPath: /dev/x, containerPath: /x}]}", Some("the path `/x`")),
        ("{annotations: {a: x}}", "{annotations: {a: y}}", Some("the annotation `a`")),
    ] {
        let warnings = two(one, other);
        match expect {
            Some(expect) => {
                assert!(warnings.iter().any(|w| w.contains(expect)), "{one} {other} {warnings:?}");
            }
            None => assert!(warnings.is_empty(), "{warnings:?}"),
        }
    }
}

fn looked(devices: &[(&str, &str, Option<u32>)]) -> Looked {
    let found = devices.iter().map(|(identity, path, minor)| Found {
        identity: (*identity).to_owned(),
        nodes: vec![Node {
            path: PathBuf::from(path),
            real: PathBuf::from(path),
            device: minor.map(|minor| DeviceNumber { block: false, major: 188, minor }),
            options: NodeOptions::default(),
        }],
        ..Found::default()
    });
    Looked { found: found.collect(), ..Looked::default() }
}

#[test]
fn a_device_that_two_resources_found_is_told() {
    let one = looked(&[("usb:a", "/dev/ttyUSB0", Some(0)), ("usb:b", "/dev/ttyUSB1", Some(1))]);
    let two = looked(&[("path:x", "/dev/serial/x", Some(1)), ("path:v", "/dev/vfio/vfio", Some(9))]);
    let three = looked(&[
        ("path:f", "/run/x", None),
        ("path:v", "/dev/vfio/vfio", Some(9)),
        ("path:g", "/run/x", None),
    ]);
    let told: Vec<_> = overlaps(&[("a/one", &one.found), ("a/two", &two.found), ("a/three", &three.found)])
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        told,
        [
            "`a/one` (`usb:b`) and `a/two` (`path:x`) both offer `/dev/serial/x`",
            "`a/three` has `/run/x` twice, as `path:f` and as `path:g`"
        ]
    );
    let interface = |identity: &str| Looked {
        found: vec![Found {
            identity: identity.to_owned(),
            sysfs: Some(PathBuf::from("/sys/devices/x/net/eth0")),
            ..Found::default()
        }],
        ..Looked::default()
    };
    assert_eq!(
        overlaps(&[("a/one", &interface("net:eth0").found), ("a/two", &interface("net:eth0").found)]).len(),
        1
    );
}

#[test]
fn a_configmap_is_read_through_its_links() {
    let room = std::env::temp_dir().join(format!("nodeplug-device-config-{}", std::process::id()));
    let _ = fs::remove_dir_all(&room);
    fs::create_dir_all(room.join("..1")).unwrap();
    symlink("..1", room.join("..data")).unwrap();
    symlink("..data/config.yaml", room.join("config.yaml")).unwrap();
    fs::write(room.join("..1/config.yaml"), with("[{count: 3}]", "")).unwrap();
    assert_eq!(Config::load(&room.join("config.yaml")).unwrap().resources.len(), 1);
    for (content, expect) in [
        ("#".repeat((1 << 20) + 1).into_bytes(), "it is larger than 1 MiB"),
        (b"\xff".to_vec(), "it is not UTF-8"),
    ] {
        fs::write(room.join("..1/config.yaml"), content).unwrap();
        let why = Config::load(&room.join("config.yaml")).unwrap_err().chain();
        assert!(why.ends_with(expect), "{why}");
    }
    assert!(Config::load(&room).unwrap_err().chain().ends_with("it is not a plain file"));
    assert!(Config::load(&room.join("none")).unwrap_err().chain().contains("No such file"));
    fs::remove_dir_all(&room).unwrap();
}

proptest! {
    #[test]
    fn no_file_is_too_much(bytes in proptest::collection::vec(any::<u8>(), 0..500)) {
        let _ = Config::parse(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn no_text_is_too_much(text in ".*") {
        let _ = Config::parse(&text);
    }

    #[test]
    fn no_configuration_is_too_much(
        parts in proptest::collection::vec(
            prop_oneof![
                "resources:|name: a/b|devices:|count: 3|path:|glob: |allocate:|env:|health:|checks:|usb:|\\[|\\]|\\{|\\}|,|- ",
                "[ \n]{1,4}",
                "[$&*!|>'\"{}0-9a-z]{0,6}",
            ],
            0..40,
        )
    ) {
        if let Ok(config) = Config::parse(&parts.concat()) {
            let _ = config.warnings();
        }
    }
}
