//! The log: each call leaves a line, whatever the log is made of; nothing about it changes a call; `trace` finds a
//! pod in it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use harness::call::{self, Answer, tool};
use harness::kernel::trace::{self, End};
use harness::look;
use harness::node::{Node, PLUGINS};
use harness::runtime::{Call, Runtime};
use harness::suite::{ours, ours_with};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::networks::{full, id, ips, plain};

const FOLDER: &str = "/var/log/nodeplug";
const LOG: &str = "/var/log/nodeplug/cni.log";
const OLD: &str = "/var/log/nodeplug/cni.log.1";
const JOURNAL: &str = "/run/systemd/journal/socket";

/// The least that `logMaxSize` may be.
const LEAST: usize = 64 << 10;

pub fn trials() -> Vec<Trial> {
    vec![
        ours("without_a_word_each_call_leaves_its_line", each_call_leaves_its_line),
        ours("a_refused_call_leaves_its_line_too", refused_calls),
        ours("calls_at_once_lose_no_line_over_a_rotation", calls_at_once),
        ours("a_kill_at_any_step_of_a_rotation_loses_no_other_line", killed_rotations),
        ours("a_log_that_cannot_be_written_changes_no_call", unwritable),
        ours("a_log_on_a_full_disk_changes_no_call", full_disk),
        ours("the_journal_gets_fields_and_the_line", journal),
        ours_with(
            "trace_finds_a_pod_in_systemds_own_journal",
            &["/lib/systemd/systemd-journald", "journalctl"],
            systemds_journal,
        ),
        ours("a_trace_of_the_runtimes_is_taken_over", trace_context),
        ours("trace_finds_a_pod_over_a_rotation_with_both_its_dels", traced),
        ours("trace_says_why_there_is_nothing", nothing),
        ours("no_secret_is_in_the_log", secrets),
    ]
}

fn lines_of(path: &str) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    assert!(text.is_empty() || text.ends_with('\n'), "whole lines: {text:?}");
    text.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}"))).collect()
}

fn lines() -> Vec<Value> {
    let mut all = lines_of(OLD);
    all.extend(lines_of(LOG));
    all
}

#[track_caller]
fn command(words: &[&str]) -> Answer {
    call::run(Command::new(format!("{PLUGINS}/nodeplug-cni")).args(words), b"")
}

fn each_call_leaves_its_line(node: &Node) {
    let runtime = Runtime::new(full("routed"));
    let (pod, id) = (node.pod(), id("logged"));
    runtime.status().success();
    assert!(!Path::new(FOLDER).exists(), "a good STATUS is no news");
    let result = runtime.added(&id, &pod);
    assert!(runtime.check(&id, &pod, &result).ok());
    assert!(runtime.del(&id, &pod, &result).ok());
    let all = lines();
    let verbs: Vec<&str> = all.iter().map(|l| l["verb"].as_str().unwrap()).collect();
    assert_eq!(verbs, ["ADD", "CHECK", "DEL"], "{all:#?}");
    for line in &all {
        assert_eq!(line["pod"], "default/web", "{line}");
        assert_eq!(line["podUID"], "8cf8600f603c06e96fd9560dd45281db", "{line}");
        assert_eq!(line["containerID"], id, "{line}");
        assert_eq!(
            (line["network"].as_str(), line["ifname"].as_str()),
            (Some("pods"), Some("eth0")),
            "{line}"
        );
        let whole = line["microseconds"].as_u64().expect("how long it took");
        let parts = line["steps"].as_array().expect("where the time went");
        let sum: u64 = parts.iter().map(|s| s["us"].as_u64().expect("microseconds")).sum();
        assert!(parts.len() >= 3 && sum <= whole && sum * 2 > whole, "the steps are the call: {line}");
    }
    let told: Vec<&str> = all[0]["ips"].as_array().unwrap().iter().map(|ip| ip.as_str().unwrap()).collect();
    assert_eq!(told.len(), ips(&result).len(), "{}", all[0]);
    assert!(told[0].starts_with(&ips(&result)[0].to_string()), "{}", all[0]);
    assert!(all[0]["steps"].to_string().contains("node: veth"), "{}", all[0]);
    let mode = |path: &str| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(FOLDER), mode(LOG)), (0o750, 0o640));
    // One that is named gets everything but a good STATUS; one that is `none`, nothing.
    let loopback =
        |config: Value| Runtime::new(config).call("ADD", &id, pod.name(), None).env("CNI_IFNAME", "lo");
    let lo = json!({"cniVersion": "1.0.0", "name": "cni-loopback", "type": "loopback"});
    assert!(loopback(lo.clone()).run().ok());
    assert_eq!(lines().len(), 3, "a loopback that came up is no news");
    let mut named = lo;
    named["logFile"] = json!("/run/lo.log");
    assert!(loopback(named).run().ok());
    assert_eq!(lines_of("/run/lo.log")[0]["plugin"], "loopback");
    let mut silent = full("routed");
    silent["logFile"] = json!("none");
    assert!(Runtime::new(silent).del_blind(&id).ok());
    assert_eq!(lines().len(), 3);
    look::assert_nothing_left("after DEL");
}

fn refused_calls(node: &Node) {
    let pod = node.pod();
    let mut config = plain("routed");
    config["ipMask"] = json!(true);
    let runtime = Runtime::new(config.clone());
    runtime.add(&id("refused"), &pod).refused(2);
    let line = lines().pop().expect("a line");
    assert_eq!(
        (line["verb"].as_str(), line["errorKind"].as_str()),
        (Some("ADD"), Some("unsupported-field")),
        "{line}"
    );
    assert_eq!(
        (line["pod"].as_str(), line["containerID"].as_str()),
        (Some("default/web"), Some(&*id("refused")))
    );
    assert!(line["hint"].as_str().is_some_and(|h| h.contains("ipMasq")), "{line}");
    // Where the configuration says, as far as it can be read.
    config["logFile"] = json!("/run/other.log");
    Runtime::new(config).add(&id("refused"), &pod).refused(2);
    assert_eq!((lines().len(), lines_of("/run/other.log").len()), (1, 1));
    // Bytes that are no JSON, names that are none: told at the usual place.
    let call = runtime.call("ADD", "../x\n", pod.name(), None).stdin(b"{");
    assert!(!call.run().ok());
    let line = lines().pop().expect("a line");
    assert_eq!(
        (line["errorKind"].as_str(), line["containerID"].as_str()),
        (Some("usage"), Some("../x ")),
        "{line}"
    );
    // An error of the kernel, and one of a conflict.
    let (runtime, held) = (Runtime::new(plain("routed")), node.pod());
    held.tool(&["ip", "link", "add", "eth0", "type", "bridge"]);
    assert!(!runtime.add(&id("held"), &held).ok());
    runtime.added(&id("twice"), &pod);
    runtime.add(&id("twice"), &pod).refused(101);
    let kinds: Vec<Value> = lines().iter().rev().take(3).map(|l| l["errorKind"].clone()).collect();
    assert_eq!(kinds, [json!("conflict"), Value::Null, json!("conflict")], "{:#?}", lines());
    runtime.call("ADD", &id("gone"), "/run/netns/gone", None).run().refused(3);
    assert_eq!(lines().pop().unwrap()["errorKind"], "unknown-container");
    let whole =
        call::run(Command::new(format!("{PLUGINS}/nodeplug-cni")).env("CNI_COMMAND", "VERSION"), b"{}");
    assert!(whole.ok() && lines().len() == 6, "VERSION is no news");
    assert!(runtime.del_blind(&id("twice")).ok());
}

fn small() -> Runtime {
    let mut config = plain("routed");
    config["logMaxSize"] = json!("64Ki");
    Runtime::new(config)
}

fn calls_at_once(_: &Node) {
    let runtime = small();
    let (callers, each) = (32, 6);
    // What is there already leaves room for half of their lines.
    fs::create_dir(FOLDER).unwrap();
    let first = format!("{{\"time\":1,\"verb\":\"{}\"}}\n", "x".repeat(LEAST - 40_000));
    fs::write(LOG, &first).unwrap();
    thread::scope(|scope| {
        for caller in 0..callers {
            let runtime = &runtime;
            scope.spawn(move || {
                for n in 0..each {
                    assert!(runtime.del_blind(&id(&format!("{caller}-{n}"))).ok());
                }
            });
        }
    });
    assert!(Path::new(OLD).exists(), "it was rotated");
    let all = lines();
    assert_eq!(all.len(), 1 + callers * each, "lines");
    let mut ids: Vec<&str> = all.iter().skip(1).map(|l| l["containerID"].as_str().unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), callers * each, "each call has its line");
    // Who had it open already may write one line more.
    let largest = fs::metadata(OLD).unwrap().len();
    assert!(largest <= LEAST as u64 + callers as u64 * 1024, "{largest}");
}

/// DELs that find the log full, each killed one system call later. Before each, the log has one line; afterwards,
/// another call's line and that one are there, and all is whole.
fn killed_rotations(_: &Node) {
    let runtime = small();
    fs::create_dir(FOLDER).unwrap();
    let first = format!("{{\"time\":1,\"verb\":\"{}\"}}\n", "x".repeat(LEAST - 60));
    let mut rotated = 0;
    for n in 0.. {
        fs::write(LOG, &first).unwrap();
        drop(fs::remove_file(OLD));
        let end = trace::kill_after(&runtime.call("DEL", &id("killed"), "", None), n);
        let missing = !Path::new(LOG).exists();
        rotated += usize::from(missing);
        assert!(runtime.del_blind(&id("next")).ok());
        let all = lines();
        let when = format!("killed after {n}: {}", all.len());
        assert_eq!(all[0]["time"], 1, "{when}");
        assert_eq!(all.last().unwrap()["containerID"], id("next"), "{when}");
        if let End::Finished(answer) = end {
            assert!(answer.ok() && all.len() == 3, "{when}: {answer:?}");
            break;
        }
    }
    assert!(rotated >= 1, "a kill between the rename and the new file was among them");
}

fn unwritable(node: &Node) {
    fs::create_dir("/run/folder").unwrap();
    symlink("/run/victim", "/run/symlink").unwrap();
    fs::write("/run/victim", "v").unwrap();
    tool(&["mkfifo", "/run/fifo"]);
    let logs = [
        "/run/folder",
        "/run/symlink",
        "/run/fifo",
        "/run/none/log",
        "/dev/full",
        "/proc/version",
        "journal",
    ];
    for log in logs {
        let mut config = plain("routed");
        config["logFile"] = json!(log);
        works(node, config, log);
    }
    assert_eq!(fs::read_to_string("/run/victim").unwrap(), "v");
    // The folder of the usual log is a symlink of somebody else's, a file, or cannot be written.
    fs::create_dir("/run/elsewhere").unwrap();
    symlink("/run/elsewhere", FOLDER).unwrap();
    works(node, plain("routed"), "a symlink for a folder");
    assert_eq!(fs::read_dir("/run/elsewhere").unwrap().count(), 0);
    fs::remove_file(FOLDER).unwrap();
    fs::write(FOLDER, "f").unwrap();
    works(node, plain("routed"), "a file for a folder");
    assert_eq!(fs::read_to_string(FOLDER).unwrap(), "f");
    fs::remove_file(FOLDER).unwrap();
    tool(&["mount", "-o", "remount,ro", "/var/log"]);
    works(node, plain("routed"), "read-only");
    tool(&["mount", "-o", "remount,rw", "/var/log"]);
    // A limit of the file size does not end the call either.
    fs::create_dir(FOLDER).unwrap();
    fs::write(LOG, "x".repeat(2 << 20)).unwrap();
    let call = Runtime::new(plain("routed")).call("DEL", &id("limit"), "", None);
    let script = format!("ulimit -f 1024; exec {PLUGINS}/nodeplug-cni");
    let answer = call::run(Command::new("sh").args(["-c", &script]).env_clear().envs(call.env), &call.stdin);
    assert!(answer.ok(), "{answer:?}");
}

/// ADD and DEL answer as ever.
#[track_caller]
fn works(node: &Node, config: Value, when: &str) {
    let (runtime, pod, id) = (Runtime::new(config), node.pod(), id("works"));
    let answer = runtime.add(&id, &pod);
    assert!(answer.ok() && answer.stderr.is_empty(), "{when}: {answer:?}");
    let result = answer.success();
    assert!(!ips(&result).is_empty(), "{when}");
    assert!(runtime.del(&id, &pod, &result).ok(), "{when}");
    look::assert_nothing_left(when);
}

fn full_disk(node: &Node) {
    tool(&["mount", "-t", "tmpfs", "-o", "size=64k,mode=755", "small", "/var/log"]);
    works(node, plain("routed"), "with room");
    let before = lines().len();
    call::try_tool(&["dd", "if=/dev/zero", "of=/var/log/full", "bs=4k"]);
    // The last page of the log still has room for some.
    for _ in 0..20 {
        works(node, plain("routed"), "full");
    }
    let text = fs::read_to_string(LOG).unwrap();
    fs::remove_file("/var/log/full").unwrap();
    works(node, plain("routed"), "with room again");
    let now = fs::read_to_string(LOG).unwrap();
    assert!(now.starts_with(&text) && now.len() > text.len(), "nothing that was there is gone");
    // A line that the full disk cut off hides none.
    let found = command(&["trace", "default/web", "-o", "json"]).success();
    let found = found["lines"].as_array().unwrap().len();
    assert!(found >= before + 2, "{found} of more than {before}");
    assert_eq!(now.matches("\"time\":").count() - found, now.matches("}{\"time\":").count() + cut_off(&now));
}

/// How many lines of the log are only the start of one.
fn cut_off(text: &str) -> usize {
    let starts = text.split("{\"time\":").skip(1);
    starts
        .filter(|rest| serde_json::from_str::<Value>(&format!("{{\"time\":{}", rest.trim_end())).is_err())
        .count()
}

/// The fields of a datagram (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>).
fn fields(mut bytes: &[u8]) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    while !bytes.is_empty() {
        let end = bytes.iter().position(|b| *b == b'\n').expect("a line's end");
        let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
        let text = |b: &[u8]| String::from_utf8(b.to_vec()).expect("UTF-8");
        let (key, value, rest) = if let Some(at) = line.iter().position(|b| *b == b'=') {
            (text(&line[..at]), text(&line[at + 1..]), rest)
        } else {
            let length = usize::try_from(u64::from_le_bytes(rest[..8].try_into().unwrap())).unwrap();
            assert_eq!(rest[8 + length], b'\n');
            (text(line), text(&rest[8..8 + length]), &rest[9 + length..])
        };
        assert!(key.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_'), "{key}");
        assert!(fields.insert(key.clone(), value).is_none(), "{key} twice");
        bytes = rest;
    }
    fields
}

fn journal(node: &Node) {
    fs::create_dir_all(Path::new(JOURNAL).parent().unwrap()).unwrap();
    let socket = UnixDatagram::bind(JOURNAL).unwrap();
    let receive = || {
        let mut bytes = vec![0; 256 << 10];
        let length = socket.recv(&mut bytes).expect("a datagram");
        fields(&bytes[..length])
    };
    let mut config = plain("routed");
    config["logFile"] = json!("journal");
    let (runtime, pod, id) = (Runtime::new(config), node.pod(), id("journal"));
    let result = runtime.added(&id, &pod);
    let add = receive();
    assert_eq!((add["PRIORITY"].as_str(), add["SYSLOG_IDENTIFIER"].as_str()), ("6", "nodeplug-cni"));
    assert_eq!((add["NODEPLUG_VERB"].as_str(), add["NODEPLUG_POD"].as_str()), ("ADD", "default/web"));
    assert_eq!(add["NODEPLUG_CONTAINER_ID"], id);
    assert!(add["MESSAGE"].starts_with("ADD default/web: 10.66.0."), "{}", add["MESSAGE"]);
    let line: Value = serde_json::from_str(&add["NODEPLUG_LINE"]).unwrap();
    assert!(line["steps"].is_array() && line["containerID"] == id, "{line}");
    // What a pod's author could write is a value, and no field.
    let args = "K8S_POD_NAMESPACE=a;K8S_POD_NAME=b\nPRIORITY=0\nX=1";
    runtime.call("ADD", &id, pod.name(), None).env("CNI_ARGS", args).run().refused(101);
    let failed = receive();
    assert_eq!((failed["PRIORITY"].as_str(), failed["NODEPLUG_ERROR_KIND"].as_str()), ("3", "conflict"));
    assert!(!failed.contains_key("X") && failed["NODEPLUG_POD"] == "a/b PRIORITY=0 X=1", "{failed:?}");
    assert!(runtime.del(&id, &pod, &result).ok());
    assert_eq!(receive()["NODEPLUG_VERB"], "DEL");
    assert!(!Path::new(FOLDER).exists());
    // A journal that reads nothing fills up: calls go on all the same.
    for _ in 0..40 {
        assert!(runtime.del_blind(&id).ok());
    }
}

/// systemd's journal, of this node alone.
struct Journald(Child);

impl Journald {
    fn start() -> Self {
        let conf = Path::new("/etc/systemd/journald.conf");
        fs::write("/run/journald.conf", "[Journal]\nStorage=volatile\nReadKMsg=no\nAudit=\n").unwrap();
        // It does not start without.
        tool(&["mount", "-t", "cgroup2", "cgroup2", "/sys/fs/cgroup"]);
        if conf.exists() {
            tool(&["mount", "--bind", "/run/journald.conf", "/etc/systemd/journald.conf"]);
        }
        fs::create_dir_all("/run/log/journal").unwrap();
        let mut command = Command::new("/lib/systemd/systemd-journald");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).env_clear();
        let journald = Self(command.spawn().expect("start systemd-journald"));
        // The socket is there a moment before the journal asks who sends.
        let kept = || {
            fs::read_dir("/run/log/journal")
                .unwrap()
                .flatten()
                .any(|d| d.path().join("system.journal").exists())
        };
        wait_until("the journal", || Path::new(JOURNAL).exists() && kept());
        journald
    }
}

impl Drop for Journald {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[track_caller]
fn wait_until(what: &str, mut is: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < call::LIMIT, "{what} does not come");
        thread::sleep(Duration::from_millis(20));
    }
}

fn systemds_journal(node: &Node) {
    let _journald = Journald::start();
    let mut config = plain("routed");
    config["logFile"] = json!("journal");
    fs::create_dir_all("/run/net.d").unwrap();
    fs::write("/run/net.d/10-pods.conflist", json!({"name": "pods", "plugins": [config]}).to_string())
        .unwrap();
    let (runtime, pod, id) = (Runtime::new(config), node.pod(), id("journald"));
    let result = runtime.added(&id, &pod);
    assert!(runtime.del(&id, &pod, &result).ok());
    let trace =
        || command(&["trace", "default/web", "--conf-dir", "/run/net.d", "--since", "1h", "-o", "json"]);
    let there =
        |answer: &Answer| answer.json.as_ref().is_some_and(|j| j["lines"].as_array().unwrap().len() == 2);
    let (start, mut last) = (Instant::now(), trace());
    while !there(&last) {
        assert!(start.elapsed() < Duration::from_secs(20), "not in the journal: {last:?}");
        thread::sleep(Duration::from_millis(20));
        last = trace();
    }
    let found = trace().success();
    assert_eq!((&found["lines"][0]["verb"], &found["lines"][1]["verb"]), (&json!("ADD"), &json!("DEL")));
    assert_eq!(found["sources"][0]["log"], "journal");
}

fn trace_context(_: &Node) {
    let runtime = Runtime::new(plain("routed"));
    let call = |parent: &str| -> Call {
        runtime.call("DEL", &id("traced"), "", None).env("TRACEPARENT", parent).env("TRACESTATE", "vendor=1")
    };
    assert!(call("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").run().ok());
    let line = lines().pop().expect("a line");
    assert_eq!(line["traceID"], "4bf92f3577b34da6a3ce929d0e0e4736", "{line}");
    assert_eq!((&line["parentSpan"], &line["tracestate"]), (&json!("00f067aa0ba902b7"), &json!("vendor=1")));
    for bad in ["", "nonsense", "00-00000000000000000000000000000000-00f067aa0ba902b7-01"] {
        assert!(call(bad).run().ok());
        let line = lines().pop().expect("a line");
        assert!(line.get("traceID").is_none() && line.get("tracestate").is_none(), "{bad}: {line}");
    }
}

fn traced(node: &Node) {
    let runtime = small();
    let (pod, other, mine) = (node.pod(), node.pod(), id("mine"));
    let result = runtime.added(&mine, &pod);
    let beside = |call: Call| call.env("CNI_ARGS", "K8S_POD_NAMESPACE=team;K8S_POD_NAME=web");
    assert!(beside(runtime.call("ADD", &id("beside"), other.name(), None)).run().ok());
    let found = command(&["trace", "default/web"]);
    assert!(found.ok() && found.stdout.contains("now: ") && found.stdout.contains("is there"), "{found:?}");
    assert!(found.stdout.contains("slowest: "), "{found:?}");
    // Between the pod's start and its end the log is rotated.
    let fill = format!("{{\"time\":1,\"verb\":\"{}\"}}\n", "x".repeat(LEAST - 4096));
    fs::write(LOG, fs::read_to_string(LOG).unwrap() + &fill).unwrap();
    for n in 0..12 {
        assert!(beside(runtime.call("DEL", &id(&format!("fill{n}")), "", None)).run().ok());
    }
    assert!(Path::new(OLD).exists());
    assert!(runtime.del(&mine, &pod, &result).ok());
    assert!(runtime.del_blind(&mine).ok());
    let address = ips(&result)[0].to_string();
    let link = lines()[0]["link"].as_str().unwrap().to_owned();
    for word in ["default/web", &mine, &mine[..12], &address, &link] {
        let found = command(&["trace", word, "-o", "json"]).success();
        let verbs: Vec<&str> =
            found["lines"].as_array().unwrap().iter().map(|l| l["verb"].as_str().unwrap()).collect();
        assert_eq!(verbs, ["ADD", "DEL", "DEL"], "{word}: {found:#}");
        let now = &found["now"][0];
        assert_eq!((&now["link"], &now["records"]), (&json!(false), &json!([])), "{word}: {found:#}");
    }
    assert!(beside(runtime.call("DEL", &id("beside"), other.name(), None)).run().ok());
    let both = command(&["trace", "web", "-o", "json"]).success();
    assert!(both["lines"].as_array().unwrap().len() > 3, "a name alone is of every namespace");
}

fn nothing(_: &Node) {
    let missing = command(&["trace", "default/none"]);
    assert_eq!(missing.exit, Some(1));
    assert!(
        missing.stdout.contains(LOG) && missing.stdout.contains("it is not there: no call has left a line"),
        "{missing:?}"
    );
    let runtime = Runtime::new(plain("routed"));
    assert!(runtime.del_blind(&id("other")).ok());
    let other = command(&["trace", "default/none"]);
    assert!(other.exit == Some(1) && other.stdout.contains("1 line, which is not of it"), "{other:?}");
    fs::create_dir_all("/run/net.d").unwrap();
    fs::write("/run/net.d/a.conflist", r#"{"plugins": [{"logFile": "none"}]}"#).unwrap();
    // The usual file counts wherever it is: calls without a configuration are told of there.
    fs::copy(LOG, "/run/kept.log").unwrap();
    fs::remove_file(LOG).unwrap();
    let none = command(&["trace", "default/none", "--conf-dir", "/run/net.d"]);
    assert!(none.exit == Some(1) && none.stdout.contains("`logFile` is `none`"), "{none:?}");
    symlink("/run/kept.log", "/run/link.log").unwrap();
    let link = command(&["trace", "default/none", "--file", "/run/link.log"]);
    assert!(link.exit == Some(1) && link.stdout.contains("cannot be read"), "{link:?}");
}

fn secrets(node: &Node) {
    const SECRET: &str = "hunter2-4711";
    let mut config = plain("routed");
    config["ipam"] = json!({"type": "no-such-ipam", "password": SECRET, "nested": [{"token": SECRET}]});
    let runtime = Runtime::new(config);
    let (pod, id) = (node.pod(), id("secret"));
    let environment = |call: Call| call.env("SOME_TOKEN", SECRET);
    assert!(!environment(runtime.call("ADD", &id, pod.name(), None)).run().ok());
    drop(environment(runtime.call("DEL", &id, pod.name(), None)).run());
    let text = fs::read_to_string(LOG).unwrap();
    assert!(text.lines().count() == 2 && !text.contains(SECRET), "{text}");
}
