//! `ipam check`: what it tells, what it mends, and what it keeps its hands off.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::call::{self, Answer, tool};
use harness::look;
use harness::node::{LEASES, Namespace, Node, PLUGINS, RECORDS, REFERENCE};
use harness::runtime::Runtime;
use harness::suite::ours;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::networks::{MODES, NAME, full, host_end, id, ips, plain};

pub fn trials() -> Vec<Trial> {
    vec![
        ours("ipam_check_is_silent_about_pods_that_are_well", silent),
        ours("ipam_check_mends_a_pod_whose_link_is_gone", mends_a_lost_link),
        ours("ipam_check_spares_an_add_at_work", spares_an_add_at_work),
        ours("ipam_check_tells_of_a_lost_lease", tells_of_a_lost_lease),
        ours("ipam_check_leaves_a_delegates_address_to_the_runtime", leaves_a_delegates_address),
        ours("ipam_check_mends_a_record_that_cannot_be_read", mends_an_unreadable_record),
    ]
}

fn check(fix: bool) -> Answer {
    let mut command = Command::new(Path::new(PLUGINS).join("nodeplug-cni"));
    command.env_clear().current_dir("/").args(["ipam", "check", "--output", "json"]);
    if fix {
        command.arg("--fix");
    }
    call::run(&mut command, b"")
}

/// The rows that name this container.
fn told(answer: &Answer, id: &str) -> Vec<String> {
    let json = answer.json.as_ref().unwrap_or_else(|| panic!("a report: {answer:?}"));
    let rows = json["rows"].as_array().cloned().unwrap_or_default();
    let of_this = rows.iter().filter(|r| r["holder"].as_str().is_some_and(|h| h.starts_with(id)));
    of_this.map(|r| r["what"].as_str().unwrap_or_default().to_owned()).collect()
}

fn record_of(id: &str) -> PathBuf {
    Path::new(RECORDS).join(format!("{id}:eth0"))
}

/// Makes the record two minutes older than it is.
fn age(id: &str) {
    let path = record_of(id);
    let mut record: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    record["since"] = json!(record["since"].as_u64().expect("seconds") - 120);
    fs::write(&path, record.to_string()).unwrap();
}

struct Pod {
    id: String,
    space: Namespace,
    result: Value,
}

fn pod(node: &Node, runtime: &Runtime, word: &str) -> Pod {
    let (space, id) = (node.pod(), id(word));
    let result = runtime.added(&id, &space);
    Pod { id, space, result }
}

fn gone(runtime: &Runtime, pod: &Pod, when: &str) {
    assert!(runtime.del(&pod.id, &pod.space, &pod.result).ok(), "{when}");
    look::assert_nothing_left(when);
}

fn silent(node: &Node) {
    for mode in MODES {
        let runtime = Runtime::new(full(mode));
        let well = pod(node, &runtime, "well");
        age(&well.id);
        for fix in [false, true] {
            let answer = check(fix);
            assert!(answer.ok() && told(&answer, &well.id).is_empty(), "{mode}, fix {fix}: {answer:?}");
        }
        runtime.check(&well.id, &well.space, &well.result).success();
        gone(&runtime, &well, mode);
    }
}

fn mends_a_lost_link(node: &Node) {
    for mode in MODES {
        let runtime = Runtime::new(full(mode));
        let (lost, living) = (pod(node, &runtime, "lost"), pod(node, &runtime, "living"));
        tool(&["ip", "link", "del", &host_end(&lost.result)]);
        age(&lost.id);
        let report = check(false);
        assert_eq!(report.exit, Some(1), "{mode}: {report:?}");
        assert_eq!(told(&report, &lost.id).len(), 1, "{mode}: {report:?}");
        assert_eq!(look::leases(NAME).len(), 4, "{mode}: a report changes nothing");
        let mended = check(true);
        assert!(mended.ok(), "{mode}: {mended:?}");
        let left: Vec<String> = look::leftovers().into_iter().filter(|f| f.contains(&lost.id)).collect();
        assert!(left.is_empty(), "{mode}: {left:?}");
        let report = check(false);
        assert!(report.ok(), "{mode}: {report:?}");
        runtime.check(&living.id, &living.space, &living.result).success();
        gone(&runtime, &living, mode);
    }
}

fn spares_an_add_at_work(node: &Node) {
    for mode in MODES {
        let runtime = Runtime::new(full(mode));
        let young = pod(node, &runtime, "young");
        // A living pod's link keeps the report from taking the node for empty.
        let living = pod(node, &runtime, "living");
        tool(&["ip", "link", "del", &host_end(&young.result)]);
        for fix in [false, true] {
            let answer = check(fix);
            assert_eq!(answer.exit, Some(1), "{mode}, fix {fix}: {answer:?}");
            let what = told(&answer, &young.id);
            assert!(what.len() == 1 && what[0].contains("at work"), "{mode}, fix {fix}: {what:?}");
            assert!(record_of(&young.id).exists(), "{mode}, fix {fix}: the record stays");
            assert_eq!(look::leases(NAME).len(), 4, "{mode}, fix {fix}: the leases stay");
            assert_eq!(look::elements().len(), 4, "{mode}, fix {fix}: the elements stay");
        }
        assert!(runtime.del(&living.id, &living.space, &living.result).ok());
        gone(&runtime, &young, mode);
    }
}

fn tells_of_a_lost_lease(node: &Node) {
    for mode in MODES {
        let runtime = Runtime::new(full(mode));
        let living = pod(node, &runtime, "living");
        age(&living.id);
        let address = ips(&living.result)[0].to_string();
        fs::remove_file(Path::new(LEASES).join(NAME).join(&address)).unwrap();
        for fix in [false, true] {
            let answer = check(fix);
            assert_eq!(answer.exit, Some(1), "{mode}, fix {fix}: {answer:?}");
            let what = told(&answer, &living.id);
            assert!(what.len() == 1 && what[0].contains(&address), "{mode}, fix {fix}: {answer:?}");
            assert_eq!(look::host_ends(), [host_end(&living.result)], "{mode}, fix {fix}: it lives on");
            assert!(record_of(&living.id).exists(), "{mode}, fix {fix}: the record stays");
        }
        gone(&runtime, &living, mode);
    }
}

fn leaves_a_delegates_address(node: &Node) {
    node.install(&Path::new(REFERENCE).join("host-local"), "other-local");
    for mode in MODES {
        let mut config = plain(mode);
        config["cniVersion"] = json!("1.0.0");
        config["ipam"]["type"] = json!("other-local");
        let runtime = Runtime::new(config);
        let lost = pod(node, &runtime, "delegated");
        tool(&["ip", "link", "del", &host_end(&lost.result)]);
        age(&lost.id);
        for fix in [false, true] {
            let answer = check(fix);
            let what = told(&answer, &lost.id);
            assert_eq!(answer.exit, Some(1), "{mode}, fix {fix}: {answer:?}");
            assert!(what.iter().any(|w| w.contains("other-local")), "{mode}, fix {fix}: {answer:?}");
            assert!(record_of(&lost.id).exists(), "{mode}, fix {fix}: not forgotten");
            assert_eq!(look::leases(NAME).len(), 1, "{mode}, fix {fix}: the delegate's lease stays");
        }
        gone(&runtime, &lost, mode);
    }
}

fn mends_an_unreadable_record(node: &Node) {
    for mode in MODES {
        let runtime = Runtime::new(full(mode));
        let odd = pod(node, &runtime, "odd");
        fs::write(record_of(&odd.id), "{").unwrap();
        let report = check(false);
        assert_eq!(report.exit, Some(1), "{mode}: {report:?}");
        assert!(told(&report, &odd.id).iter().any(|w| w.contains("record")), "{mode}: {report:?}");
        assert_eq!(look::host_ends().len(), 1, "{mode}: a report changes nothing");
        let mended = check(true);
        assert!(!told(&mended, &odd.id).is_empty(), "{mode}: {mended:?}");
        let left: Vec<String> = look::leftovers().into_iter().filter(|f| !f.starts_with("lease ")).collect();
        assert!(left.is_empty(), "{mode}: {left:?}");
        // Whoever holds a lease without a record is known to be gone once no pod is left.
        check(true);
        look::assert_nothing_left(mode);
        let report = check(false);
        assert!(report.ok(), "{mode}: {report:?}");
    }
}
