//! `doctor`: each finding is provoked for real, and goes when its remedy is followed; and nothing is changed by it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use harness::call::{self, Answer, tool, try_tool};
use harness::node::{LEASES, Namespace, Node, PLUGINS, RECORDS, cover, our_binary};
use harness::runtime::Runtime;
use harness::suite::ours;
use libtest_mimic::Trial;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};

use crate::networks::{NAME, full, host_end, id, plain};

pub fn trials() -> Vec<Trial> {
    vec![
        ours("doctor_finds_nothing_on_a_node_that_is_well", well),
        ours("doctor_finds_what_is_wrong_with_the_program", program),
        ours("doctor_finds_what_is_wrong_with_the_plugin_folder", folder),
        ours("doctor_finds_what_is_wrong_with_other_names", names),
        ours("doctor_finds_which_configuration_is_taken", configurations),
        ours("doctor_finds_what_is_wrong_with_the_configuration", mistakes),
        ours("doctor_finds_forwarding_that_is_off", forwarding),
        ours("doctor_finds_settings_that_lose_packets", settings),
        ours("doctor_finds_firewalls_that_drop", firewalls),
        ours("doctor_finds_a_flushed_ruleset", flushed),
        ours("doctor_finds_attachments_without_their_parts", attachments),
        ours("doctor_finds_ranges_that_are_full_or_clash", ranges),
        ours("doctor_finds_where_nothing_can_be_written", unwritable),
        ours("doctor_looks_below_another_root", rooted),
        ours("doctor_is_content_with_a_root_that_was_only_installed", staged),
        ours("doctor_changes_nothing", changes_nothing),
        ours("scripts_doctor_asks_each_program", script),
    ]
}

const CONF: &str = "/etc/cni/net.d";
const TAKEN: &str = "/etc/cni/net.d/10-pods.conflist";
/// The program as an operator brings it, whatever is installed.
const BROUGHT: &str = "/var/lib/brought";

/// A node of which nothing is the host's, with our programs as files and a runtime that runs.
struct Well {
    runtime: Child,
}

impl Drop for Well {
    fn drop(&mut self) {
        drop(self.runtime.kill());
        drop(self.runtime.wait());
    }
}

fn lay_out(node: &Node, entry: &Value) -> Well {
    node.own("/etc");
    cover("/usr/local/bin");
    for folder in [CONF, "/etc/containerd", BROUGHT] {
        drop(fs::remove_dir_all(folder));
        fs::create_dir_all(folder).unwrap();
    }
    let program = Path::new(BROUGHT).join("nodeplug-cni");
    call::copy(&our_binary(), &program);
    for name in ["nodeplug-cni", "loopback"] {
        let path = Path::new(PLUGINS).join(name);
        umount2(&path, MntFlags::MNT_DETACH).unwrap();
        fs::remove_file(&path).unwrap();
    }
    let config = "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.cni]\nbin_dirs = ['/opt/cni/bin']\n";
    fs::write("/etc/containerd/config.toml", config).unwrap();
    install(&["--as-reference", "--only", "loopback"]);
    // A runtime is known by its process's name; this one waits until its input ends.
    executable("/usr/local/bin/containerd", "#!/bin/sh\necho 'containerd x v1.7.24 y'\nread forever\n");
    write(TAKEN, &list(entry));
    let mut runtime = Command::new("/usr/local/bin/containerd");
    let runtime = runtime.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    Well { runtime }
}

/// A file that is not written through a descriptor which another test's child may inherit.
fn executable(path: &str, text: &str) {
    call::write_program(Path::new(path), text.as_bytes());
}

fn write(path: &str, text: &str) {
    fs::write(path, text).unwrap();
}

fn list(entry: &Value) -> String {
    let mut entry = entry.clone();
    let version = entry.as_object_mut().unwrap().remove("cniVersion").unwrap();
    entry.as_object_mut().unwrap().remove("name");
    json!({"cniVersion": version, "name": NAME, "plugins": [entry]}).to_string()
}

fn person(words: &[&str]) -> Answer {
    let mut command = Command::new(Path::new(BROUGHT).join("nodeplug-cni"));
    command.args(words).env_remove("CNI_COMMAND");
    call::run(&mut command, b"")
}

fn install(flags: &[&str]) {
    let words = [&["install"][..], flags, &[PLUGINS]].concat();
    let answer = person(&words);
    assert!(answer.ok(), "{answer:?}");
}

/// What the doctor says, and that its exit code and its counts say the same.
#[track_caller]
fn doctor() -> Value {
    let answer = person(&["doctor", "-o", "json"]);
    let report = answer.json.clone().unwrap_or_else(|| panic!("no JSON: {answer:?}"));
    let count =
        |state: &str| report["findings"].as_array().unwrap().iter().filter(|f| f["state"] == state).count();
    assert_eq!(
        (&report["problems"], &report["warnings"]),
        (&count("problem").into(), &count("warning").into())
    );
    assert_eq!(report["fine"], count("problem") == 0);
    assert_eq!(answer.exit, Some(i32::from(count("problem") > 0)), "{report:#}");
    for finding in report["findings"].as_array().unwrap() {
        assert_eq!(finding["remedy"].is_string(), finding["state"] != "fine", "{finding}");
    }
    report
}

/// All that is not as it should be.
fn ill(report: &Value) -> Vec<Value> {
    let all = report["findings"].as_array().unwrap().iter();
    all.filter(|f| f["state"] != "fine").cloned().collect()
}

#[track_caller]
fn is_well() {
    let report = doctor();
    assert_eq!(ill(&report), Vec::<Value>::new(), "{report:#}");
}

/// The one finding of `state` about `what` that says `why`.
#[track_caller]
fn finding(what: &str, state: &str, why: &str) -> String {
    let report = doctor();
    let all = report["findings"].as_array().unwrap().iter();
    let found: Vec<&Value> = all
        .filter(|f| f["what"] == what && f["state"] == state && f["why"].as_str().unwrap().contains(why))
        .collect();
    let [one] = found.as_slice() else { panic!("{what} is {state} with `{why}`: {report:#}") };
    one["remedy"].as_str().unwrap_or_default().to_owned()
}

/// A finding that is there, and goes when its remedy is typed.
#[track_caller]
fn mended(what: &str, state: &str, why: &str) {
    let remedy = finding(what, state, why);
    follow(&remedy);
    let report = doctor();
    let stays =
        ill(&report).into_iter().any(|f| f["what"] == what && f["why"].as_str().unwrap().contains(why));
    assert!(!stays, "`{remedy}` mends it: {report:#}");
}

/// Types what a remedy says: what comes after a comma or before a colon is for later, or says when.
#[track_caller]
fn follow(remedy: &str) {
    let command = remedy.rsplit_once(": ").map_or(remedy, |(_, command)| command);
    let command = command.split("; then").next().unwrap();
    let path = format!("{BROUGHT}:/usr/sbin:/usr/bin:/sbin:/bin");
    let mut shell = Command::new("sh");
    shell.args(["-ec", command]).env("PATH", path).env_remove("CNI_COMMAND");
    let answer = call::run(&mut shell, b"");
    assert!(answer.ok(), "`{command}` of `{remedy}`: {answer:?}");
}

fn masqueraded() -> Value {
    let mut entry = full("routed");
    entry["cniVersion"] = json!("1.0.0");
    entry
}

fn simple() -> Value {
    let mut entry = plain("routed");
    entry["cniVersion"] = json!("1.0.0");
    entry
}

struct Attached {
    runtime: Runtime,
    pod: Namespace,
    id: String,
    result: Value,
}

fn attach(node: &Node, entry: Value, word: &str) -> Attached {
    let runtime = Runtime::new(entry);
    let (pod, id) = (node.pod(), id(word));
    let result = runtime.added(&id, &pod);
    Attached { runtime, pod, id, result }
}

impl Attached {
    fn detach(self) {
        assert!(self.runtime.del(&self.id, &self.pod, &self.result).ok());
    }

    fn record(&self) -> String {
        format!("{RECORDS}/{}:eth0", self.id)
    }

    /// Makes the record older than any ADD at work.
    fn age(&self) {
        let mut record: Value = serde_json::from_slice(&fs::read(self.record()).unwrap()).unwrap();
        record["since"] = json!(1);
        fs::write(self.record(), record.to_string()).unwrap();
    }
}

fn well(node: &Node) {
    let runtime = lay_out(node, &masqueraded());
    is_well();
    let pod = attach(node, masqueraded(), "well");
    is_well();
    let table = person(&["doctor"]);
    assert!(table.ok() && table.stderr.is_empty(), "{table:?}");
    let last = table.stdout.lines().last().unwrap();
    assert!(last.ends_with("things looked at: 0 problems, 0 warnings"), "{last}");
    assert!(table.stdout.lines().all(|line| line == last || line.starts_with("fine ")), "{}", table.stdout);
    pod.detach();
    is_well();
    let help = person(&["doctor", "--help"]);
    assert!(help.ok() && help.stdout.contains("nodeplug-cni doctor --root /host"), "{help:?}");
    for wrong in [&["doctor", "--rot"][..], &["doctor", "-o", "xml"], &["doctor", "x"]] {
        assert_eq!(person(wrong).exit, Some(2), "{wrong:?}");
    }
    // A runtime that has ended is told of, and its configuration is looked at all the same.
    drop(runtime);
    finding("runtime", "warning", "does not run; it has plugins in `/opt/cni/bin`");
}

fn program(node: &Node) {
    let _well = lay_out(node, &simple());
    let own = format!("{PLUGINS}/nodeplug-cni");
    fs::set_permissions(&own, fs::Permissions::from_mode(0o644)).unwrap();
    mended("program", "problem", "not executable");
    fs::set_permissions(&own, fs::Permissions::from_mode(0o757)).unwrap();
    mended("plugin folder", "problem", "may be written by others");
    is_well();
    fs::remove_file(&own).unwrap();
    mended("program", "problem", "is not there");
    executable(&own, "#!/bin/sh\necho another\n");
    mended("program", "problem", "is another program");
    // One that has the mark and answers as a plugin, of another version.
    let mark = "# nodeplug-cni: this file is the plugin";
    let older = format!(
        "#!/bin/sh\n{mark}\n[ \"$1\" = --version ] && exec echo nodeplug-cni 0.0.9\necho '{{\"supportedVersions\": [\"1.0.0\"]}}'\n"
    );
    fs::remove_file(&own).unwrap();
    executable(&own, &older);
    mended("program", "warning", "is version 0.0.9");
    // And one that does not answer as a plugin.
    fs::remove_file(&own).unwrap();
    executable(&own, &format!("#!/bin/sh\n{mark}\nexit 3\n"));
    mended("program", "problem", "ask `/opt/cni/bin/nodeplug-cni` for its versions");
    write(&format!("{PLUGINS}/.bridge.new"), "half");
    mended("program", "warning", "an install that was killed left `.bridge.new`");
    is_well();
}

fn folder(node: &Node) {
    let _well = lay_out(node, &simple());
    fs::set_permissions(PLUGINS, fs::Permissions::from_mode(0o777)).unwrap();
    mended("plugin folder", "problem", "may be written by others");
    tool(&["chown", "7:7", PLUGINS]);
    mended("plugin folder", "problem", "belongs to uid 7");
    is_well();
    tool(&["mount", "-o", "remount,noexec", "/opt"]);
    mended("plugin folder", "problem", "noexec");
    is_well();
    tool(&["mv", PLUGINS, "/opt/cni/off"]);
    mended("plugin folder", "problem", "No such file");
    is_well();
}

fn names(node: &Node) {
    let _well = lay_out(node, &simple());
    let path = |name: &str| format!("{PLUGINS}/{name}");
    fs::remove_file(path("loopback")).unwrap();
    mended("loopback", "problem", "is not there");
    executable(&path("bridge"), "#!/bin/sh\necho '{\"supportedVersions\": [\"1.0.0\"]}'\n");
    install(&["--as-reference", "--only", "loopback,bridge"]);
    is_well();
    let report = doctor();
    assert!(report.to_string().contains("`bridge` as well; 1 original kept"), "{report:#}");
    // The package came again.
    fs::remove_file(path("bridge")).unwrap();
    executable(&path("bridge"), "#!/bin/sh\necho '{\"supportedVersions\": [\"1.0.0\"]}'\n");
    mended("other names", "warning", "a package came");
    fs::remove_file(path("bridge")).unwrap();
    let remedy = finding("other names", "problem", "is gone");
    follow(&remedy[remedy.find("nodeplug-cni uninstall").unwrap()..]);
    assert_eq!(ill(&doctor()), Vec::<Value>::new());
    let older =
        "#!/bin/sh\n# nodeplug-cni: this file is the plugin\necho '{\"supportedVersions\": [\"1.0.0\"]}'\n";
    fs::remove_file(path("bridge")).unwrap();
    executable(&path("bridge"), older);
    mended("other names", "warning", "another version of this program");
    is_well();
}

fn configurations(node: &Node) {
    let _well = lay_out(node, &simple());
    let other = json!({"cniVersion": "1.0.0", "name": "other", "plugins": [{"type": "ptp"}]}).to_string();
    write(&format!("{CONF}/05-other.conflist"), &other);
    executable(&format!("{PLUGINS}/ptp"), "#!/bin/sh\n");
    mended("configuration", "problem", "`05-other.conflist` (ptp), which sorts before `10-pods.conflist`");
    is_well();
    write(&format!("{CONF}/00-broken.conflist"), "{");
    mended("configuration", "problem", "stops at `/etc/cni/net.d/00-broken.conflist`, which is no JSON");
    is_well();
    write(&format!("{CONF}/.10-pods.conflist"), &other);
    mended("half-written files", "problem", "is hidden, and the runtime takes it");
    write(&format!("{CONF}/.10-pods.new"), "{");
    mended("half-written files", "warning", "was begun and not renamed");
    write(&format!("{CONF}/20-other.conflist"), &other);
    mended("other configurations", "warning", "`20-other.conflist` (ptp)");
    let kept = format!("{CONF}/20-other.conflist.off");
    assert!(Path::new(&kept).is_file(), "moved, since podman may use it");
    fs::remove_file(kept).unwrap();
    // What podman and CRI-O bring for the loopback is no network.
    write(
        &format!("{CONF}/99-loopback.conf"),
        r#"{"cniVersion": "1.0.0", "name": "lo", "type": "loopback"}"#,
    );
    is_well();
    fs::remove_file(format!("{CONF}/99-loopback.conf")).unwrap();
    is_well();
    fs::remove_file(TAKEN).unwrap();
    let remedy = finding("configuration folder", "problem", "has no network configuration");
    assert!(remedy.contains("nodeplug-cni install --pod-cidr"), "{remedy}");
    write(&format!("{CONF}/05-other.conflist"), &other);
    finding("configuration", "warning", "no file names nodeplug-cni");
}

fn mistakes(node: &Node) {
    let well = lay_out(node, &simple());
    let mut entry = simple();
    entry["ipMask"] = json!(true);
    write(TAKEN, &list(&entry));
    let remedy = finding("configuration", "problem", "`plugins[0].ipMask`");
    assert!(
        remedy.contains("`ipMasq`") && remedy.ends_with(&format!("nodeplug-cni validate {TAKEN}")),
        "{remedy}"
    );
    // A plugin that is called and is not there.
    let mut whole: Value = serde_json::from_str(&list(&simple())).unwrap();
    whole["plugins"].as_array_mut().unwrap().push(json!({"type": "tuning"}));
    write(TAKEN, &whole.to_string());
    mended("plugins it names", "problem", "names `tuning`, which is not in `/opt/cni/bin`");
    entry = simple();
    entry["logFile"] = json!("/var/log/nodeplug/none/cni.log");
    write(TAKEN, &list(&entry));
    node.own("/var/log");
    mended("log file", "warning", "its folder is not there");
    is_well();
    fs::remove_dir_all("/var/log/nodeplug/none").unwrap();
    entry["logFile"] = json!("/var/log/nodeplug/other.log");
    write(TAKEN, &list(&entry));
    std::os::unix::fs::symlink("/etc/hostname", "/var/log/nodeplug/other.log").unwrap();
    mended("log file", "warning", "it is a symlink");
    is_well();
    // A runtime of before 2.0 does not know 1.1.0.
    drop(well);
    fs::write("/etc/containerd/config.toml", "version = 2\n").unwrap();
    entry["cniVersion"] = json!("1.1.0");
    write(TAKEN, &list(&entry));
    let remedy = finding("configuration", "problem", "containerd 1.7 knows 1.0.0 at most");
    assert!(remedy.contains("\"cniVersion\": \"1.0.0\""), "{remedy}");
}

fn forwarding(node: &Node) {
    let _well = lay_out(node, &masqueraded());
    let outside = node.outside();
    let pod = attach(node, masqueraded(), "forward");
    is_well();
    tool(&["sysctl", "-qw", "net.ipv4.ip_forward=0"]);
    mended("forwarding", "problem", "`net.ipv4.ip_forward` is 0: 1 pod reaches");
    tool(&["sysctl", "-qw", "net.ipv6.conf.all.forwarding=0"]);
    mended("forwarding", "problem", "`net.ipv6.conf.all.forwarding` is 0");
    tool(&["sysctl", "-qw", "net.ipv4.conf.up0.forwarding=0"]);
    mended("forwarding", "problem", "what comes in by `up0` reaches no pod");
    let kept = fs::read_to_string("/etc/sysctl.d/99-pods.conf").unwrap();
    let kept: Vec<&str> = kept.lines().collect();
    assert_eq!(
        kept,
        ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1", "net.ipv4.conf.up0.forwarding=1"]
    );
    is_well();
    // With a dot in the link's name.
    tool(&["ip", "link", "add", "up.5", "type", "bridge"]);
    tool(&["ip", "link", "set", "up.5", "up"]);
    tool(&["ip", "route", "add", "default", "dev", "up.5", "metric", "900"]);
    for link in ["all", "up0", "up.5"] {
        fs::write(format!("/proc/sys/net/ipv4/conf/{link}/rp_filter"), "0").unwrap();
    }
    fs::write("/proc/sys/net/ipv4/conf/up.5/forwarding", "0").unwrap();
    mended("forwarding", "problem", "what comes in by `up.5` reaches no pod");
    tool(&["ip", "link", "del", "up.5"]);
    is_well();
    // Forwarding makes the node deaf to the router that it learnt its default route from.
    tool(&["ip", "-6", "route", "del", "default"]);
    tool(&["ip", "-6", "route", "add", "default", "via", "2001:db8:ff::2", "dev", "up0", "proto", "ra"]);
    tool(&["sysctl", "-qw", "net.ipv6.conf.up0.accept_ra=1"]);
    mended("router advertisements", "problem", "ends with its lifetime");
    is_well();
    pod.detach();
    drop(outside);
}

fn settings(node: &Node) {
    let mut entry = plain("bridge");
    entry["cniVersion"] = json!("1.0.0");
    let _well = lay_out(node, &entry);
    let _outside = node.outside();
    tool(&["ip", "link", "add", "up1", "type", "bridge"]);
    tool(&["ip", "addr", "add", "198.51.100.1/24", "dev", "up1"]);
    tool(&["ip", "link", "set", "up1", "up"]);
    tool(&["sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0"]);
    for link in ["up0", "up1"] {
        tool(&["sysctl", "-qw", &format!("net.ipv4.conf.{link}.rp_filter=0")]);
    }
    tool(&["ip", "route", "add", "default", "via", "198.51.100.2", "metric", "7"]);
    is_well();
    tool(&["sysctl", "-qw", "net.ipv4.conf.up1.rp_filter=1"]);
    mended("reverse path filter", "warning", "default routes by up0 and up1");
    is_well();
    tool(&["nft", "add", "table", "ip", "nat"]);
    tool(&["nft", "add", "chain", "ip", "nat", "KUBE-SERVICES"]);
    let report = doctor();
    let bridged = fs::read_to_string("/proc/sys/net/bridge/bridge-nf-call-iptables").unwrap_or_default();
    let told = ill(&report).iter().any(|f| f["what"] == "bridge-nf-call");
    assert_eq!(told, bridged.trim() != "1", "{report:#}");
    // Too much for the way out.
    let pod = attach(node, entry, "large");
    tool(&["ip", "link", "set", "up0", "mtu", "1400"]);
    let remedy = finding("MTU", "warning", "1 pod were made with a larger MTU than the 1400");
    assert!(remedy.contains("restart"), "{remedy}");
    pod.detach();
}

fn firewalls(node: &Node) {
    let _well = lay_out(node, &simple());
    let rules = "table inet filter { chain forward { type filter hook forward priority 0; policy drop; \
                 ct state established,related accept; }; }";
    let nft = |text: &str| {
        assert!(call::run(Command::new("nft").args(["-f", "-"]), text.as_bytes()).ok(), "{text}");
    };
    nft(rules);
    let remedy =
        finding("other firewalls", "problem", "the chain `forward` of `inet filter` drops by its policy");
    assert!(remedy.contains("\"firewall\": true"), "{remedy}");
    nft("add rule inet filter forward ip saddr 10.66.0.0/24 accept");
    finding("other firewalls", "warning", "what its rules do not accept");
    // As the remedy says; and again after somebody loaded the host's rules anew.
    let mut entry = simple();
    entry["firewall"] = json!(true);
    write(TAKEN, &list(&entry));
    let pod = attach(node, entry, "fire");
    is_well();
    nft(&format!("flush table inet filter\ndelete table inet filter\n{rules}"));
    mended("other firewalls", "problem", "the rule that lets the pods' packets by is not there");
    is_well();
    tool(&["iptables", "-P", "FORWARD", "DROP"]);
    mended("other firewalls", "problem", "the chain `FORWARD` of `ip filter` drops by its policy");
    is_well();
    nft(
        "add table inet last; add chain inet last f { type filter hook forward priority 10; }; add rule inet last f drop",
    );
    mended("other firewalls", "problem", "`inet last` drops by its last rule");
    is_well();
    pod.detach();
}

fn flushed(node: &Node) {
    let mut entry = masqueraded();
    entry["capabilities"] = json!({"portMappings": true});
    let _well = lay_out(node, &entry);
    let pod = attach(node, masqueraded(), "flush");
    is_well();
    tool(&["nft", "flush", "ruleset"]);
    mended("pods in nf_tables", "problem", "lack something, such as:");
    is_well();
    pod.detach();
}

fn attachments(node: &Node) {
    let _well = lay_out(node, &simple());
    let (one, two) = (attach(node, simple(), "one"), attach(node, simple(), "two"));
    is_well();
    // Its link goes: an ADD may be at work, until the record is old.
    tool(&["ip", "link", "del", &host_end(&one.result)]);
    is_well();
    one.age();
    mended("attachments", "warning", "its link is gone");
    // A lease of nobody, while pods are there.
    write(&format!("{LEASES}/{NAME}/10.66.0.77"), &format!("{}\neth0", id("nobody")));
    mended("attachments", "warning", "no attachment of ours; maybe another plugin's");
    is_well();
    // The link's record is lost, and its lease with it.
    let record = fs::read(two.record()).unwrap();
    fs::remove_file(two.record()).unwrap();
    let remedy = finding("left behind", "warning", "has no record");
    assert!(remedy.contains(&format!("ip link delete {}", host_end(&two.result))), "{remedy}");
    fs::write(two.record(), &record).unwrap();
    is_well();
    // A record of another boot that was overlooked when this one began.
    let mut old: Value = serde_json::from_slice(&record).unwrap();
    old["boot"] = json!("another");
    old["containerID"] = json!(id("old"));
    fs::write(format!("{RECORDS}/{}:eth0", id("old")), old.to_string()).unwrap();
    mended("earlier boots", "warning", "1 record of an earlier boot");
    is_well();
    two.detach();
    one.detach();
    node.reboot();
    is_well();
}

fn ranges(node: &Node) {
    let mut entry = simple();
    entry["ipam"] = json!({"type": "host-local", "ranges": [[{"subnet": "10.66.0.0/30"}]]});
    let _well = lay_out(node, &entry);
    is_well();
    let pod = attach(node, entry, "only");
    let remedy = finding("addresses left", "problem", "`pods`: 0 of 1 of");
    assert!(remedy.starts_with("nodeplug-cni ipam check"), "{remedy}");
    pod.detach();
    write(TAKEN, &list(&simple()));
    for n in 0..250 {
        write(&format!("{LEASES}/{NAME}/10.66.0.{}", n + 2), &format!("{}\neth0", id("many")));
    }
    finding("addresses left", "warning", "3 of 253");
    drop(fs::remove_dir_all(format!("{LEASES}/{NAME}")));
    // What another network left on the node.
    tool(&["ip", "link", "add", "cni7", "type", "bridge"]);
    tool(&["ip", "addr", "add", "10.66.0.1/25", "dev", "cni7"]);
    tool(&["ip", "link", "set", "cni7", "up"]);
    mended("pods' subnets", "warning", "the node routes 10.66.0.0/25 by `cni7`");
    is_well();
}

fn unwritable(node: &Node) {
    let _well = lay_out(node, &simple());
    tool(&["mount", "-o", "remount,ro", "/var/lib"]);
    mended("state", "problem", "read-only file system: no pod gets a network");
    is_well();
    fs::remove_dir_all("/var/lib/nodeplug").ok();
    write("/var/lib/nodeplug", "in the way");
    mended("state", "problem", "`/var/lib/nodeplug` is no folder");
    is_well();
    drop(fs::create_dir_all("/var/lib/nodeplug/cni"));
    mount(Some("tmpfs"), "/var/lib/nodeplug/cni", Some("tmpfs"), MsFlags::empty(), Some("size=512k"))
        .unwrap();
    let remedy = finding("state", "problem", "hardly any space left");
    assert!(remedy.contains("df -h"), "{remedy}");
}

/// A root that is mounted elsewhere, and one that is not booted.
fn rooted(node: &Node) {
    let _well = lay_out(node, &simple());
    fs::create_dir_all("/run/harness/host").unwrap();
    let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some("/"), "/run/harness/host", None::<&str>, bind, None::<&str>).unwrap();
    let rooted = |root: &str| person(&["doctor", "-o", "json", "--root", root]);
    // The node of this test has a network of its own, which is not that of the first process.
    let report = rooted("/run/harness/host").success();
    let found = ill(&report);
    assert_eq!(found.len(), 1, "{report:#}");
    assert!(found[0]["why"].as_str().unwrap().contains("not the node's network"), "{report:#}");
    assert!(!report.to_string().contains("masquerade"), "the kernel is not asked: {report:#}");
    // Where the first process is in this network, it is.
    let mut first = Command::new("unshare");
    first.args([
        "--pid",
        "--fork",
        "--mount-proc=/run/harness/host/proc",
        &format!("{PLUGINS}/nodeplug-cni"),
    ]);
    first.args(["doctor", "-o", "json", "--root", "/run/harness/host"]).env_remove("CNI_COMMAND");
    let report = call::run(&mut first, b"").json.unwrap();
    assert!(!report.to_string().contains("not the node's network"), "{report:#}");
    assert!(report["findings"].as_array().unwrap().iter().any(|f| f["what"] == "kernel"), "{report:#}");
    umount2("/run/harness/host", MntFlags::MNT_DETACH).unwrap();
    let bare = rooted("/run/harness/host");
    assert_eq!(bare.exit, Some(1), "{bare:?}");
    let report = bare.json.unwrap();
    assert!(
        !ill(&report).is_empty() && report.to_string().contains("only files were looked at"),
        "{report:#}"
    );
    let missing = rooted("/run/harness/nowhere");
    assert_eq!(missing.exit, Some(1), "{missing:?}");
    assert!(missing.stderr.contains("look at the node below"), "{missing:?}");
}

/// A root with neither /dev nor /proc, as an image is made, or as a container has the node's.
fn staged(node: &Node) {
    let _well = lay_out(node, &simple());
    let root = "/run/harness/staged";
    fs::create_dir_all(format!("{root}/var/log")).unwrap();
    let installed = person(&["install", "--root", root, "--pod-cidr", "10.66.0.0/24"]);
    assert!(installed.ok(), "{installed:?}");
    let report = person(&["doctor", "-o", "json", "--root", root]).success();
    let states: Vec<String> = ill(&report).iter().map(|f| format!("{} {}", f["state"], f["what"])).collect();
    assert_eq!(states, ["\"warning\" \"kernel\""], "{report:#}");
    let why = |f: &Value| f["why"].as_str().is_some_and(|why| why.ends_with("as this program"));
    assert!(report["findings"].as_array().unwrap().iter().any(why), "it knows itself: {report:#}");
    // And it sees there what is wrong.
    let program = format!("{root}/opt/cni/bin/nodeplug-cni");
    executable(&program, "#!/bin/sh\n# nodeplug-cni: this file is the plugin\nexit 1\n");
    let broken = person(&["doctor", "-o", "json", "--root", root]);
    assert_eq!(broken.exit, Some(1), "{broken:?}");
}

/// Files with their content and times, links, rules and settings.
fn snapshot() -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for root in ["/etc/cni", "/etc/containerd", "/opt", "/var/lib", "/run"] {
        files(Path::new(root), &mut all);
    }
    for words in [
        &["nft", "list", "ruleset"][..],
        &["ip", "-d", "link"],
        &["ip", "-d", "addr"],
        &["ip", "route", "show", "table", "all"],
        &["ip", "-6", "route", "show", "table", "all"],
        &["ip", "rule"],
        &["tc", "qdisc"],
        &[
            "sh",
            "-c",
            "sysctl -a 2>/dev/null | grep -E '^net\\.' | grep -v -e conntrack_count -e ipv4.tcp_mem",
        ],
        &["sh", "-c", "ls /sys/module | sort"],
    ] {
        let said = try_tool(words).stdout;
        // What the kernel counts down is no change.
        let lines = said.lines().map(|l| l.split(" expires").next().unwrap_or_default());
        all.insert(words.join(" "), lines.collect::<Vec<_>>().join("\n"));
    }
    all
}

fn files(folder: &Path, all: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, about) = (entry.path(), entry.path().symlink_metadata().unwrap());
        if path.starts_with("/run/netns") {
            continue;
        }
        let shown = format!(
            "{:o} {} {} {}.{}",
            about.mode(),
            about.uid(),
            about.len(),
            about.mtime(),
            about.mtime_nsec()
        );
        all.insert(path.display().to_string(), shown);
        if about.is_dir() {
            files(&path, all);
        }
    }
}

fn changes_nothing(node: &Node) {
    let mut entry = masqueraded();
    entry["firewall"] = json!(true);
    entry["capabilities"] = json!({"bandwidth": true, "portMappings": true});
    let _well = lay_out(node, &entry);
    let _outside = node.outside();
    let unused = snapshot();
    is_well();
    assert_eq!(snapshot(), unused, "a node without pods");
    let pod = attach(node, masqueraded(), "quiet");
    // And where there is something to find.
    write(&format!("{CONF}/.10-pods.new"), "{");
    write(&format!("{LEASES}/{NAME}/10.66.0.77"), &format!("{}\neth0", id("nobody")));
    tool(&["nft", "delete", "table", "inet", "nodeplug"]);
    let before = snapshot();
    for _ in 0..2 {
        assert!(!ill(&doctor()).is_empty());
    }
    assert_eq!(snapshot(), before);
    // Nor does it need to: the same where nothing can be written.
    let whats =
        |report: &Value| -> Vec<String> { ill(report).iter().map(|f| f["what"].to_string()).collect() };
    let found = whats(&doctor());
    for folder in ["/opt", "/var/lib", "/run"] {
        tool(&["mount", "-o", "remount,ro", folder]);
    }
    let report = doctor();
    for what in &found {
        assert!(whats(&report).contains(what), "{what} of {found:?}: {report:#}");
    }
    for folder in ["/opt", "/var/lib", "/run"] {
        tool(&["mount", "-o", "remount,rw", folder]);
    }
    assert!(person(&["repair"]).ok());
    pod.detach();
}

fn script(node: &Node) {
    let _well = lay_out(node, &simple());
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    fs::create_dir_all("/run/harness/suite/scripts").unwrap();
    // Beside nothing that was built.
    fs::copy(repository.join("scripts/doctor"), "/run/harness/suite/scripts/doctor").unwrap();
    let run = |words: &[&str]| {
        let mut command = Command::new("bash");
        command.arg("/run/harness/suite/scripts/doctor").args(words).env("PATH", "/usr/bin:/bin");
        call::run(&mut command, b"")
    };
    let fine = run(&[]);
    assert!(fine.ok(), "{fine:?}");
    assert!(fine.stdout.contains("nodeplug-cni (/opt/cni/bin/nodeplug-cni)"), "{}", fine.stdout);
    assert!(fine.stdout.contains("nodeplug-flexvolume is not installed"), "{}", fine.stdout);
    assert_eq!(fine.stdout.lines().last(), Some("no problem"));
    let fine = run(&["-o", "json"]);
    let report = fine.success();
    assert_eq!((&report["fine"], &report["problems"]), (&json!(true), &json!(0)), "{report:#}");
    assert_eq!(report["notInstalled"], json!(["nodeplug-flexvolume", "nodeplug-device-plugin"]));
    assert!(report["programs"]["nodeplug-cni"]["findings"].is_array(), "{report:#}");
    // A root is named from where the caller is.
    fs::create_dir_all("/run/harness/roots/old/opt/cni/bin").unwrap();
    executable("/run/harness/roots/old/opt/cni/bin/nodeplug-cni", "#!/bin/sh\nexit 2\n");
    let mut relative = Command::new("bash");
    relative
        .arg("/run/harness/suite/scripts/doctor")
        .args(["--root", "old", "cni"])
        .env("PATH", "/usr/bin:/bin");
    let old = call::run(relative.current_dir("/run/harness/roots"), b"");
    assert!(old.stdout.contains("/run/harness/roots/old/opt/cni/bin/nodeplug-cni"), "{old:?}");
    assert_eq!(old.exit, Some(1), "one that has no doctor is no wrong argument: {old:?}");
    fs::remove_file(TAKEN).unwrap();
    assert_eq!(run(&["cni"]).exit, Some(1));
    let bad = run(&["cni", "-o", "json"]);
    assert_eq!(bad.exit, Some(1), "{bad:?}");
    let report = bad.json.unwrap();
    assert_eq!(
        (&report["fine"], &report["problems"], &report["notInstalled"]),
        (&json!(false), &json!(1), &json!([]))
    );
    assert_eq!(run(&["flexvolume"]).exit, Some(1), "none of those that were asked for is there");
    for wrong in [&["-o", "xml"][..], &["nfs"], &["--root"]] {
        assert_eq!(run(wrong).exit, Some(2), "{wrong:?}");
    }
    assert!(run(&["--help"]).stdout.contains("scripts/doctor [-o json]"));
}
