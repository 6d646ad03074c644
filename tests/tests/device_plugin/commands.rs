//! The commands for people, as they run them.

use harness::call::{Answer, tool};
use harness::device_node::DeviceNode;
use harness::suite::device;
use libtest_mimic::Trial;
use serde_json::Value;

use crate::{OTHER, SERIAL, TWO, serial, until, with_other};

pub fn trials() -> Vec<Trial> {
    vec![
        device("validate_tells_what_is_offered_or_what_is_wrong", &[], validate),
        device("discover_and_explain_tell_what_is_there", &[], discover),
        device("doctor_tells_a_problem_from_none", &[], doctor),
        device("schema_and_completions_are_what_programs_read", &["bash"], for_programs),
        device("what_is_typed_wrong_is_told", &[], typed_wrong),
    ]
}

#[track_caller]
fn json(answer: &Answer) -> &Value {
    answer.json.as_ref().unwrap_or_else(|| panic!("no JSON: {answer:?}"))
}

fn validate(node: &DeviceNode) {
    node.configure(&with_other(3));
    let fine = node.command(&["validate"]);
    assert!(fine.ok() && fine.stdout.contains(SERIAL) && fine.stdout.contains("/dev/ttyUSB*"), "{fine:?}");
    let fine = node.command(&["-o", "json", "validate"]);
    assert!(fine.ok(), "{fine:?}");
    assert_eq!(
        (&json(&fine)["resources"][1]["name"], &json(&fine)["mistakes"][0]),
        (&OTHER.into(), &Value::Null)
    );
    node.configure(&TWO.replace("glob", "globs"));
    let wrong = node.command(&["validate"]);
    assert_eq!(wrong.exit, Some(1), "{wrong:?}");
    assert!(wrong.stdout.contains("`globs`") && wrong.stdout.contains("did you mean `glob`?"), "{wrong:?}");
    let wrong = node.command(&["validate", "-o", "json"]);
    assert_eq!(wrong.exit, Some(1), "{wrong:?}");
    assert!(json(&wrong)["mistakes"][0].as_str().is_some_and(|why| why.contains("`glob`")), "{wrong:?}");
}

fn discover(node: &DeviceNode) {
    let kubelet = node.kubelet();
    node.configure(&with_other(3));
    let empty = node.command(&["discover"]);
    assert_eq!(empty.exit, Some(1), "a resource has no device: {empty:?}");
    assert_eq!(node.command(&["discover", OTHER]).exit, Some(0));
    serial(node);
    let found = node.command(&["discover"]);
    assert!(found.ok() && found.stdout.contains("/dev/ttyUSB1"), "{found:?}");
    let found = node.command(&["discover", SERIAL, "-o", "json"]);
    assert!(found.ok(), "{found:?}");
    assert_eq!(json(&found)["resources"][0]["devices"].as_array().map(Vec::len), Some(2), "{found:?}");
    let explained = node.command(&["explain", SERIAL]);
    assert!(explained.ok() && explained.stdout.contains("/dev/ttyUSB0 (c 188:0)"), "{explained:?}");
    let explained = node.command(&["explain", SERIAL, "-o", "json"]);
    assert_eq!(json(&explained)["resource"], SERIAL);
    std::fs::write(node.dev("ttyUSB9"), "").unwrap();
    let explained = node.command(&["explain", SERIAL]);
    assert!(explained.stdout.contains("/dev/ttyUSB9"), "it is told why it is not taken: {explained:?}");
    for command in ["discover", "explain"] {
        let unknown = node.command(&[command, "example.com/seriel"]);
        assert_eq!(unknown.exit, Some(1), "{unknown:?}");
        assert!(unknown.stderr.contains(&format!("did you mean `{SERIAL}`?")), "{unknown:?}");
    }
    assert!(node.sockets().is_empty() && kubelet.offer(SERIAL).is_none(), "nothing is registered");
}

/// The state of one finding.
fn state<'a>(report: &'a Value, what: &str) -> &'a str {
    let all = report["findings"].as_array().expect("findings");
    let finding = all.iter().find(|finding| finding["what"] == what);
    finding.and_then(|finding| finding["state"].as_str()).unwrap_or_else(|| panic!("no `{what}`: {report:#}"))
}

fn doctor(node: &DeviceNode) {
    let kubelet = node.kubelet();
    serial(node);
    // As many as a node has, and no container.
    for n in 0..8 {
        node.plug(&format!("ttyS{n}"), 4, 64 + n);
    }
    let daemon = node.offer(TWO);
    kubelet.wait_for_healthy(SERIAL, 2);
    assert_eq!(node.command(&["wait-registered"]).exit, Some(0));
    let fine = node.command(&["doctor", "-o", "json"]);
    assert_eq!((fine.exit, &json(&fine)["fine"]), (Some(0), &true.into()), "{:#}", json(&fine));
    for what in ["kubelet.sock", "daemon", "registrations"] {
        assert_eq!(state(json(&fine), what), "fine");
    }
    assert!(node.command(&["doctor"]).stdout.contains("0 problems"));
    kubelet.stop();
    // A program that another test is about to start holds this one's descriptors for a moment.
    until(|| match node.command(&["doctor"]) {
        answer if answer.ok() => Err(answer.stdout),
        _ => Ok(()),
    });
    let broken = node.command(&["doctor", "-o", "json"]);
    assert_eq!((broken.exit, &json(&broken)["fine"]), (Some(1), &false.into()), "{:#}", json(&broken));
    assert_eq!(state(json(&broken), "kubelet.sock"), "problem");
    let told = node.command(&["doctor"]);
    assert_eq!(told.exit, Some(1));
    assert!(told.stdout.contains("→"), "it says what to do: {told:?}");
    kubelet.start();
    kubelet.wait_for_healthy(SERIAL, 2);
    assert!(daemon.stop().success());
    let without = node.command(&["doctor", "-o", "json"]);
    assert_ne!(state(json(&without), "daemon"), "fine", "{:#}", json(&without));
    // One that can't be read is told of, and the rest is looked at all the same.
    node.configure("resources: [");
    let unread = node.command(&["doctor", "-o", "json"]);
    assert_eq!(unread.exit, Some(1));
    assert_eq!(state(json(&unread), "kubelet.sock"), "fine");
}

fn for_programs(node: &DeviceNode) {
    let schema = node.command(&["schema"]);
    assert!(schema.ok());
    assert!(json(&schema)["properties"]["resources"].is_object(), "{schema:?}");
    let script = node.command(&["completions", "bash"]);
    assert!(script.ok());
    std::fs::write("/run/node/completions", &script.stdout).unwrap();
    let asked = ". /run/node/completions; complete -p nodeplug-device-plugin; \
                 COMP_WORDS=(nodeplug-device-plugin wait); COMP_CWORD=1; \
                 $(complete -p nodeplug-device-plugin | sed 's/.*-F \\([^ ]*\\).*/\\1/') nodeplug-device-plugin wait nodeplug-device-plugin; \
                 echo \"${COMPREPLY[@]}\"";
    let completed = tool(&["bash", "-c", asked]);
    assert!(completed.contains("wait-registered"), "{completed}");
}

fn typed_wrong(node: &DeviceNode) {
    let missing = node.command(&["validate"]);
    assert_eq!(missing.exit, Some(1), "there is no configuration: {missing:?}");
    assert!(missing.stderr.contains("device-plugin.yaml"), "{missing:?}");
    for words in [&["discovr"][..], &["explain"], &["completions", "cmd"], &["run", "--log", "xml"]] {
        let wrong = node.command(words);
        assert_eq!(wrong.exit, Some(2), "{wrong:?}");
        assert!(wrong.stdout.is_empty() && !wrong.stderr.is_empty(), "{wrong:?}");
    }
    let help = node.command(&["--help"]);
    assert!(help.ok() && help.stdout.contains("wait-registered"), "{help:?}");
}
