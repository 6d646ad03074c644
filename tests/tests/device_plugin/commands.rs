//! The commands for people, as they run them.

use std::cell::RefCell;

use harness::call::{Answer, tool};
use harness::device_node::DeviceNode;
use harness::suite::device;
use libtest_mimic::Trial;
use serde_json::Value;

use crate::kubelet_itself::plugin::Plugin;
use crate::{OTHER, SERIAL, TWO, serial, until, with_other};

pub fn trials() -> Vec<Trial> {
    vec![
        device("validate_tells_what_is_offered_or_what_is_wrong", &[], validate),
        device("discover_and_explain_tell_what_is_there", &[], discover),
        device("doctor_tells_a_problem_from_none", &[], doctor),
        device("doctor_tells_of_what_nobody_serves_and_who_else_does", &[], unserved),
        device("doctor_of_devices_changes_nothing", &[], doctor_changes_nothing),
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

/// The findings about something, in order: state, why, remedy.
fn findings(node: &DeviceNode, what: &str) -> Vec<(String, String, String)> {
    let answer = node.command(&["doctor", "-o", "json"]);
    let all = json(&answer)["findings"].as_array().expect("findings").clone();
    let text = |f: &Value, key: &str| f[key].as_str().unwrap_or_default().to_owned();
    let of = all.iter().filter(|f| f["what"] == what);
    of.map(|f| (text(f, "state"), text(f, "why"), text(f, "remedy"))).collect()
}

#[track_caller]
fn says(node: &DeviceNode, what: &str, state: &str, why: &str) -> String {
    let all = findings(node, what);
    let found = all.iter().find(|(s, w, _)| s == state && w.contains(why));
    found.unwrap_or_else(|| panic!("{what} is {state} with `{why}`: {all:#?}")).2.clone()
}

fn unserved(node: &DeviceNode) {
    const CHECKPOINT: &str = "kubelet's checkpoint";
    const SOCKETS: &str = "plugins' sockets";
    let kubelet = node.kubelet();
    serial(node);
    let daemon = node.offer(TWO);
    kubelet.wait_for_healthy(SERIAL, 2);
    let (pod, _) = kubelet.allocate(SERIAL, 2);
    says(node, CHECKPOINT, "fine", "none without an offer");
    says(node, SOCKETS, "fine", "somebody listens");
    // A device that a pod has is pulled out.
    node.unplug("ttyUSB0");
    kubelet.wait_for_healthy(SERIAL, 1);
    let remedy = says(node, CHECKPOINT, "warning", "a pod holds");
    assert!(remedy.contains(&format!("explain {SERIAL}")), "{remedy}");
    // The daemon is killed: its socket stays, and the pod has what nobody serves.
    daemon.kill();
    daemon.wait();
    kubelet.wait_for_healthy(SERIAL, 0);
    let remedy = says(node, CHECKPOINT, "problem", &format!("nobody serves `{SERIAL}`"));
    assert!(remedy.starts_with("start the daemon"), "{remedy}");
    let remedy = says(node, SOCKETS, "warning", "was left by a plugin that has ended");
    let command = remedy.rsplit('`').nth(1).expect("a command");
    tool(&["sh", "-ec", command]);
    says(node, SOCKETS, "fine", "there are none");
    let daemon = node.offer(TWO);
    kubelet.wait_for_healthy(SERIAL, 1);
    says(node, CHECKPOINT, "warning", "a pod holds");
    kubelet.end(&pod);
    assert!(daemon.stop().success());
    // The same name by another plugin, whose devices have other IDs.
    let folder = kubelet.folders().device_plugins.clone();
    let other = Plugin::serve(&folder, "other.sock");
    other.list(&["GPU-1"], &[]);
    other.register(&kubelet, SERIAL).unwrap();
    kubelet.wait_for_healthy(SERIAL, 1);
    let remedy = says(node, CHECKPOINT, "problem", "another plugin registered");
    assert!(remedy.contains("end the other plugin"), "{remedy}");
}

fn doctor_changes_nothing(node: &DeviceNode) {
    let kubelet = node.kubelet();
    serial(node);
    let _daemon = node.offer(TWO);
    kubelet.wait_for_healthy(SERIAL, 2);
    let look =
        "find /var/lib /run -xdev -printf '%p %m %s %T@ %C@\\n' | sort; nft list ruleset 2>&1; ip -d link";
    let snapshot = || tool(&["sh", "-c", look]);
    // The kubelet writes its checkpoint for each list: none is to come any more.
    let last = RefCell::new(String::new());
    until(|| {
        let now = snapshot();
        if last.replace(now.clone()) == now { Ok(()) } else { Err("files change".to_owned()) }
    });
    let before = last.into_inner();
    kubelet.forget_events();
    for words in [&["doctor"][..], &["doctor", "-o", "json"]] {
        assert!(node.command(words).exit.is_some());
    }
    assert_eq!(snapshot(), before);
    assert_eq!(kubelet.events().len(), 0, "{:?}", kubelet.events());
    for wrong in [&["doctor", "x"][..], &["doctor", "--rot"]] {
        assert_eq!(node.command(wrong).exit, Some(2), "{wrong:?}");
    }
    let nowhere = node.command(&["doctor", "--root", "/run/nowhere"]);
    assert!(nowhere.exit == Some(1) && nowhere.stderr.contains("look at the node below"), "{nowhere:?}");
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
