//! When the disk refuses or the memory is lost, nothing is forgotten for good.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use harness::call::{Answer, try_tool};
use harness::look;
use harness::node::{LEASES, Namespace, Node, RECORDS};
use harness::runtime::Runtime;
use harness::suite::ours;
use libtest_mimic::Trial;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};

use crate::networks::{MODES, NAME, full, host_end, id, ips, plain};

pub fn trials() -> Vec<Trial> {
    vec![
        ours("gc_of_hundreds_of_attachments_answers", gc_of_hundreds),
        ours("a_del_or_gc_that_cannot_release_keeps_its_record", a_del_that_cannot_release),
        ours("del_finds_the_leftovers_of_a_lost_memory", lost_memory),
        ours("gc_takes_links_and_elements_without_a_record", gc_takes_strays),
        ours("an_answer_that_cannot_be_given_leaves_nothing", an_answer_that_cannot_be_given),
        ours("a_record_counts_more_than_a_namespace_that_is_gone", a_record_counts_more),
    ]
}

/// More than a netlink socket's buffer holds acknowledgements for.
const HUNDREDS: usize = 300;
/// The pods whose ADDs run at the same time.
const TOGETHER: usize = 10;

fn gc_of_hundreds(node: &Node) {
    let mut config = full("routed");
    config["ipam"]["ranges"] = json!([[{"subnet": "10.66.0.0/16"}], [{"subnet": "fd66::/64"}]]);
    let runtime = Runtime::new(config);
    let pods: Vec<(String, Namespace)> = (0..HUNDREDS).map(|n| (id(&format!("h{n}")), node.pod())).collect();
    for some in pods.chunks(TOGETHER) {
        let answers: Vec<Answer> = thread::scope(|scope| {
            let calls: Vec<_> = some.iter().map(|(id, pod)| scope.spawn(|| runtime.add(id, pod))).collect();
            calls.into_iter().map(|c| c.join().unwrap()).collect()
        });
        for answer in answers {
            answer.success();
        }
    }
    assert_eq!(look::host_ends().len(), HUNDREDS);
    let start = Instant::now();
    let answer = runtime.gc(&[], &["cni.dev/valid-attachments"]);
    assert!(answer.ok(), "{answer:?}");
    assert!(start.elapsed() < Duration::from_secs(30), "GC took {:?}", start.elapsed());
    look::assert_nothing_left("after GC of hundreds");
}

fn read_only(folder: &Path) {
    let none = None::<&str>;
    mount(Some(folder), folder, none, MsFlags::MS_BIND, none).expect("bind the folder to itself");
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    mount(none, folder, none, flags, none).expect("remount it read-only");
}

fn a_del_that_cannot_release(node: &Node) {
    for mode in MODES {
        for way in ["DEL", "DEL without namespace", "GC"] {
            let when = format!("{mode}, {way}");
            let runtime = Runtime::new(full(mode));
            let (pod, id) = (node.pod(), id("stuck"));
            let result = runtime.added(&id, &pod);
            let folder = Path::new(LEASES).join(NAME);
            let del = || match way {
                "DEL" => runtime.del(&id, &pod, &result),
                "GC" => runtime.gc(&[], &["cni.dev/valid-attachments"]),
                _ => runtime.del_blind(&id),
            };
            read_only(&folder);
            for turn in ["first", "second"] {
                let answer = del();
                answer.refused(5);
                assert_eq!(look::records().len(), 1, "{when}: the record stays after the {turn} {way}");
                assert_eq!(look::leases(NAME).len(), 2, "{when}: so do the leases");
                assert!(look::host_ends().is_empty(), "{when}: the link goes all the same");
            }
            umount2(&folder, MntFlags::MNT_DETACH).expect("make it writable");
            let answer = del();
            assert!(answer.ok(), "{when}: {answer:?}");
            look::assert_nothing_left(&when);
        }
    }
}

/// Somebody empties the state folder on a living node, and the next ADD begins a new memory.
fn lost_memory(node: &Node) {
    for mode in MODES {
        for masquerade in [true, false] {
            for (way, names_it) in [("with its namespace", true), ("without namespace", false)] {
                let when = format!("{mode}, ipMasq {masquerade}, {way}");
                // An earlier turn's table would tell by itself that something was lost.
                try_tool(&["nft", "delete", "table", "inet", "nodeplug"]);
                let mut config = full(mode);
                config["ipMasq"] = json!(masquerade);
                let runtime = Runtime::new(config);
                let (old, new) = (node.pod(), node.pod());
                let (before, after) = (id("before"), id("after"));
                let first = runtime.added(&before, &old);
                for entry in fs::read_dir("/var/lib/nodeplug/cni").unwrap().flatten() {
                    let path = entry.path();
                    if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
                }
                let second = runtime.added(&after, &new);
                let answer =
                    if names_it { runtime.del(&before, &old, &first) } else { runtime.del_blind(&before) };
                assert!(answer.ok(), "{when}: {answer:?}");
                assert_eq!(look::host_ends(), [host_end(&second)], "{when}: the old link is gone");
                let held = look::leases(NAME);
                assert!(held.iter().all(|(_, o)| o.starts_with(&after)), "{when}: old leases: {held:?}");
                for address in ips(&first) {
                    let own = format!("\"{address}\"");
                    let stay: Vec<_> = look::elements().into_iter().filter(|e| e.contains(&own)).collect();
                    assert!(stay.is_empty(), "{when}: {stay:?}");
                }
                runtime.check(&after, &new, &second).success();
                assert!(runtime.del(&after, &new, &second).ok());
                look::assert_nothing_left(&when);
            }
        }
    }
}

fn gc_takes_strays(node: &Node) {
    for mode in MODES {
        let runtime = Runtime::new(full(mode));
        let (lost, kept) = (node.pod(), node.pod());
        let (stray, living) = (id("stray"), id("living"));
        let first = runtime.added(&stray, &lost);
        let second = runtime.added(&living, &kept);
        fs::remove_file(Path::new(RECORDS).join(format!("{stray}:eth0"))).expect("the record's file");
        assert!(look::elements().iter().any(|e| e.contains(&stray)), "{:?}", look::elements());
        let answer = runtime.gc(&[(&living, "eth0")], &["cni.dev/valid-attachments"]);
        assert!(answer.ok(), "{mode}: {answer:?}");
        let left: Vec<String> = look::leftovers().into_iter().filter(|f| f.contains(&stray)).collect();
        assert!(left.is_empty(), "{mode}: {left:?}");
        assert_eq!(look::host_ends(), [host_end(&second)], "{mode}: {} stays", host_end(&first));
        runtime.check(&living, &kept, &second).success();
        assert!(runtime.del(&living, &kept, &second).ok());
        look::assert_nothing_left(mode);
    }
}

/// The first result form has room for one address of a family.
fn an_answer_that_cannot_be_given(node: &Node) {
    for mode in MODES {
        let mut config = plain(mode);
        config["cniVersion"] = json!("0.2.0");
        config["ipMasq"] = json!(true);
        config["ipam"]["ranges"] = json!([[{"subnet": "10.66.0.0/24"}], [{"subnet": "10.67.0.0/24"}]]);
        let runtime = Runtime::new(config);
        let (pod, id) = (node.pod(), id("old"));
        let answer = runtime.add(&id, &pod);
        assert!(!answer.ok() && answer.code() > 0, "{mode}: {answer:?}");
        look::assert_nothing_left(mode);
        assert!(look::ip_in(&pod, &["link", "show", "dev", "eth0"]).is_empty(), "{mode}: eth0 stays");
        assert!(runtime.del_blind(&id).ok());
    }
}

/// Code 3 says that there is nothing to delete, and a runtime believes it.
fn a_record_counts_more(node: &Node) {
    for mode in MODES {
        let runtime = Runtime::new(full(mode));
        let (pod, id) = (node.pod(), id("dead"));
        let result: Value = runtime.added(&id, &pod);
        let path = pod.name().to_owned();
        pod.remove();
        let check = runtime.call("CHECK", &id, &path, Some(&result)).run();
        check.refused(102);
        assert!(check.message().contains(&path), "{mode}: the namespace is named: {check:?}");
        runtime.call("ADD", &id, &path, None).run().refused(101);
        assert_eq!(look::records().len(), 1, "{mode}: the record stays");
        assert_eq!(look::leases(NAME).len(), 2, "{mode}: so do the leases");
        assert!(runtime.del_blind(&id).ok());
        look::assert_nothing_left(mode);
        runtime.call("ADD", &id, &path, None).run().refused(3);
        look::assert_nothing_left(mode);
    }
}
