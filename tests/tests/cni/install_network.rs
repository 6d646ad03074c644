//! `install` makes the network of a node, and takes it away again; and an upgrade disturbs nobody.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use harness::call::{self, Answer, Launch, tool};
use harness::kernel::trace::{self, End};
use harness::look;
use harness::node::{Namespace, Node, PLUGINS, our_binary};
use harness::runtime::Runtime;
use harness::suite::{ours, plain};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::install::{CHANGES, person, plainly, script};
use crate::networks::{id, ips};

pub fn trials() -> Vec<Trial> {
    vec![
        ours("an_installed_network_serves_pods_of_each_family", serves),
        ours("an_install_goes_where_the_runtime_looks", where_it_looks),
        ours("an_install_reads_the_subnets_from_each_source", sources),
        ours("an_install_waits_for_the_api_server", api_server),
        ours("an_install_refuses_what_would_harm", refuses),
        ours("an_install_spares_pods_that_run", spares),
        ours("an_install_takes_flannels_subnet_beside_its_tunnel", flannel),
        ours("an_install_in_a_container_looks_at_its_node", in_a_container),
        ours("an_install_stays_below_its_root", below_its_root),
        ours("an_install_without_capabilities_says_whose_the_folder_is", without_capabilities),
        ours("an_install_says_which_network_is_taken", which_is_taken),
        ours("an_install_of_a_network_killed_anywhere_is_gone_on_with", killed),
        ours("an_install_under_load_fails_no_call", under_load),
        plain("the_install_script_fills_a_root_and_empties_it", script_on_a_root),
    ]
}

/// Where the installs of this file go; the harness's own plugins are mounts, which nothing replaces.
const BIN: &str = "/opt/bin";
pub(crate) const CONF: &str = "/run/net.d";
pub(crate) const LIST: &str = "/run/net.d/10-nodeplug.conflist";
const RECORD: &str = "/var/lib/nodeplug/cni/installed.json";

/// A process that is called containerd and was given a configuration: that is all that an install sees of one.
#[derive(Debug)]
pub(crate) struct Containerd(Child);

impl Containerd {
    /// One that looks for plugins in `bin` and for networks in [`CONF`].
    pub(crate) fn looking_in(bin: &str) -> Self {
        let config = format!(
            "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = '{bin}'\nconf_dir = '{CONF}'\n"
        );
        fs::write("/run/containerd.toml", config).unwrap();
        call::write_program(Path::new("/run/containerd"), b"#!/bin/sh\nread line\n");
        let mut command = Command::new("/run/containerd");
        command.args(["--config", "/run/containerd.toml"]).stdin(Stdio::piped());
        let child = command.spawn().unwrap();
        // The child may be in the middle of execve(2) yet, and has neither its name nor its arguments.
        let line = format!("/proc/{}/cmdline", child.id());
        let start = Instant::now();
        while !fs::read_to_string(&line).unwrap().contains("--config\0/run/containerd.toml") {
            assert!(start.elapsed() < call::LIMIT, "the runtime does not start");
            thread::yield_now();
        }
        Self(child)
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[track_caller]
fn install(words: &[&str]) -> Value {
    let answer = plainly(&[&["install", "-o", "json"], words].concat());
    answer.success()
}

#[track_caller]
pub(crate) fn refused(words: &[&str], part: &str) -> Answer {
    let answer = plainly(words);
    assert_eq!(answer.exit, Some(1), "{words:?}: {answer:?}");
    assert!(answer.stderr.contains(part), "`{part}` in {answer:?}");
    answer
}

/// The one entry of the conflist, as a runtime hands it over.
pub(crate) fn entry() -> Value {
    let list: Value = serde_json::from_slice(&fs::read(LIST).unwrap()).unwrap();
    let mut entry = list["plugins"][0].clone();
    entry["name"] = list["name"].clone();
    entry["cniVersion"] = list["cniVersion"].clone();
    entry
}

/// A call of the program that was installed.
pub(crate) fn call(
    runtime: &Runtime,
    verb: &str,
    id: &str,
    pod: &Namespace,
    previous: Option<&Value>,
) -> Answer {
    let mut call = runtime.call(verb, id, pod.name(), previous).env("CNI_PATH", BIN);
    call.plugin = format!("{BIN}/nodeplug-cni");
    call.run()
}

fn serves(node: &Node) {
    let _containerd = Containerd::looking_in(BIN);
    let table: [(&str, &[&str]); 3] = [
        ("10.66.0.0/24", &["10.66.0."]),
        ("fd00:66::/64", &["fd00:66::"]),
        ("10.66.0.0/24,fd00:66::/64", &["10.66.0.", "fd00:66::"]),
    ];
    for (cidr, starts) in table {
        for mode in ["routed", "bridge"] {
            let when = format!("{cidr} {mode}");
            install(&["--pod-cidr", cidr, "--mode", mode, "--cluster-cidr", "10.0.0.0/8"]);
            assert!(plainly(&["validate", LIST]).ok(), "{when}");
            let runtime = Runtime::new(entry());
            let (pod, id) = (node.pod(), id("made"));
            let result = call(&runtime, "ADD", &id, &pod, None).success();
            let found = ips(&result);
            assert_eq!(found.len(), starts.len(), "{when}: {result}");
            for start in starts {
                assert!(found.iter().any(|ip| ip.to_string().starts_with(start)), "{when}: {result}");
            }
            refused(&["uninstall"], "1 pod");
            assert!(Path::new(LIST).exists() && Path::new(RECORD).exists(), "nothing was done");
            let gone = call(&runtime, "DEL", &id, &pod, Some(&result));
            assert!(gone.ok(), "{when}: {gone:?}");
            let answer = plainly(&["uninstall"]);
            assert!(answer.ok(), "{answer:?}");
            for path in [LIST, CONF, RECORD, BIN] {
                assert!(!Path::new(path).exists(), "{when}: {path}");
            }
            drop(call::try_tool(&["ip", "link", "del", "cni0"]));
        }
    }
}

fn where_it_looks(_node: &Node) {
    let containerd = Containerd::looking_in("/opt/theirs");
    refused(&["install", PLUGINS], "/opt/theirs");
    refused(&["install", "--pod-cidr", "10.66.0.0/24", "--conf-dir", "/etc/cni/net.d"], CONF);
    let report = install(&["--pod-cidr", "10.66.0.0/24", "--cni-version", "0.4.0"]);
    assert_eq!(report["folder"], "/opt/theirs", "{report}");
    assert_eq!(report["conflist"]["path"], LIST, "{report}");
    assert_eq!(entry()["cniVersion"], "0.4.0");
    let names: Vec<&str> =
        report["names"].as_array().unwrap().iter().filter_map(|n| n["name"].as_str()).collect();
    assert_eq!(names, ["nodeplug-cni", "loopback"], "the folder had no loopback");
    assert_eq!(fs::metadata(LIST).unwrap().permissions().mode() & 0o7777, 0o644);
    // Again: nothing is written.
    let before =
        (fs::metadata(RECORD).unwrap().modified().unwrap(), fs::metadata(LIST).unwrap().modified().unwrap());
    let again = install(&["--pod-cidr", "10.66.0.0/24", "--cni-version", "0.4.0"]);
    assert_eq!(again["conflist"]["outcome"], "unchanged", "{again}");
    let after =
        (fs::metadata(RECORD).unwrap().modified().unwrap(), fs::metadata(LIST).unwrap().modified().unwrap());
    assert_eq!(after, before);
    // Under another name the earlier one goes.
    install(&["--pod-cidr", "10.66.0.0/24", "--conflist", "05-ours.conflist"]);
    assert!(!Path::new(LIST).exists() && Path::new("/run/net.d/05-ours.conflist").exists());
    // Of the program alone the network stays.
    assert!(install(&[])["conflist"].is_null());
    assert!(Path::new("/run/net.d/05-ours.conflist").exists());
    // The runtime may be gone by then.
    drop(containerd);
    assert!(plainly(&["uninstall"]).ok());
    assert!(
        !Path::new("/opt/theirs").exists() && !Path::new(CONF).exists(),
        "folders that were made go as well"
    );
}

pub(crate) const NODE: &str = r#"{"kind":"Node","metadata":{"name":"n1"},"spec":{"podCIDR":"10.66.1.0/24","podCIDRs":["10.66.1.0/24","fd00:66:1::/64"]}}"#;

fn sources(_node: &Node) {
    let _containerd = Containerd::looking_in(PLUGINS);
    let yaml = "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\nspec:\n  podCIDRs: [10.66.1.0/24, 'fd00:66:1::/64']\n";
    let list =
        format!(r#"{{"kind":"NodeList","items":[{{"kind":"Node","metadata":{{"name":"n0"}}}},{NODE}]}}"#);
    let flannel = "FLANNEL_NETWORK=10.66.0.0/16\nFLANNEL_SUBNET=10.66.1.1/24\nFLANNEL_IPV6_SUBNET=fd00:66:1::1/64\nFLANNEL_MTU=1450\n";
    let wanted = json!(["10.66.1.0/24", "fd00:66:1::/64"]);
    for text in [NODE, yaml, &list, flannel, "10.66.1.0/24\nfd00:66:1::/64\n"] {
        fs::write("/run/source", text).unwrap();
        let words = ["--dry-run", "--node-name", "n1", "--pod-cidr-file", "/run/source"];
        assert_eq!(install(&words)["conflist"]["subnets"], wanted, "{text}");
        let piped =
            person(&["install", "-o", "json", "--dry-run", "--node-name", "n1", "--pod-cidr-file", "-"]);
        let answer = call::run(&mut piped.command(), text.as_bytes()).success();
        assert_eq!(answer["conflist"]["subnets"], wanted, "{text}");
    }
    let mut command = person(&["install", "-o", "json", "--dry-run"]).command();
    command.env("NODEPLUG_POD_CIDRS", "10.66.1.0/24,fd00:66:1::/64");
    assert_eq!(call::run(&mut command, b"").success()["conflist"]["subnets"], wanted);
    let mut command = person(&["install", "-o", "json", "--dry-run", "--pod-cidr", "10.9.0.0/24"]).command();
    command.env("NODEPLUG_POD_CIDRS", "10.66.1.0/24");
    let answer = call::run(&mut command, b"").success();
    assert_eq!(
        answer["conflist"]["subnets"],
        json!(["10.9.0.0/24"]),
        "an argument goes before the environment"
    );
    fs::write("/run/source", flannel).unwrap();
    install(&["--pod-cidr-file", "/run/source"]);
    assert_eq!((&entry()["mtu"], &entry()["nonMasqueradeCIDRs"]), (&json!(1450), &json!(["10.66.0.0/16"])));
    fs::write("/run/source", &list).unwrap();
    refused(&["install", "--node-name", "n7", "--pod-cidr-file", "/run/source"], "n7");
    assert!(!Path::new("/run/net.d/.10-nodeplug.conflist.new").exists());
}

/// Answers one question after the other, and hands out what was asked.
pub(crate) fn serve(answers: Vec<(&'static str, String)>) -> thread::JoinHandle<Vec<String>> {
    let listener = UnixListener::bind("/run/api.sock").unwrap();
    thread::spawn(move || {
        let answer = |(status, body): (&str, String)| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            write!(
                stream,
                "HTTP/1.0 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )
            .unwrap();
            String::from_utf8(head).unwrap()
        };
        answers.into_iter().map(answer).collect()
    })
}

fn api_server(_node: &Node) {
    let _containerd = Containerd::looking_in(PLUGINS);
    let missing = r#"{"kind":"Status","message":"nodes \"n1\" not found"}"#.to_owned();
    let bare = r#"{"kind":"Node","metadata":{"name":"n1"},"spec":{}}"#.to_owned();
    let server = serve(vec![("404 Not Found", missing), ("200 OK", bare), ("200 OK", NODE.to_owned())]);
    let answer = plainly(&["install", "-o", "json", "--kube-api", "/run/api.sock", "--node-name", "n1"]);
    assert!(answer.ok(), "{answer:?}");
    assert!(
        answer.stderr.contains("n1\" not found") && answer.stderr.contains("no spec.podCIDRs yet"),
        "{answer:?}"
    );
    let asked = server.join().unwrap();
    assert!(
        asked
            .iter()
            .all(|head| head.starts_with("GET /api/v1/nodes/n1 ") && head.contains("Host: localhost"))
    );
    let ranges = json!([[{"subnet": "10.66.1.0/24"}], [{"subnet": "fd00:66:1::/64"}]]);
    assert_eq!(entry()["ipam"]["ranges"], ranges);
}

fn refuses(node: &Node) {
    let _containerd = Containerd::looking_in("/opt/bin");
    let _outside = node.outside();
    fs::create_dir_all("/opt/bin").unwrap();
    let nothing = || {
        let names: Vec<_> = fs::read_dir("/opt/bin").unwrap().collect();
        assert!(names.is_empty() && !Path::new(CONF).exists() && !Path::new(RECORD).exists(), "{names:?}");
    };
    let no = |cidr: &str, part: &str| {
        refused(&["install", "--pod-cidr", cidr], part);
        nothing();
    };
    no("192.0.2.0/25", "`up0` has the address `192.0.2.1/24`");
    no("2001:db8:ff::/64", "up0");
    no("10.66.0.0/30", "1 addresses");
    no("10.66.0.1/24", "write `10.66.0.0/24`");
    no("10.66.0.0/24,10.67.0.0/24", "same family");
    tool(&["ip", "route", "add", "10.66.0.128/25", "via", "192.0.2.2"]);
    no("10.66.0.0/24", "the route `10.66.0.128/25`");
    tool(&["ip", "route", "del", "10.66.0.128/25"]);
    tool(&["ip", "route", "add", "10.0.0.0/8", "via", "192.0.2.2"]);
    refused(&["install", "--pod-cidr", "10.66.0.0/24", "--conflist", "x.txt"], ".conflist");
    refused(&["install", "--pod-cidr", "fd00::/64", "--mtu", "1000"], "1280");
    refused(&["install", "--pod-cidr", "10.66.0.0/24", "--network", "a/b"], "name");
    nothing();
    fs::set_permissions("/opt/bin", fs::Permissions::from_mode(0o777)).unwrap();
    no("10.66.0.0/24", "chmod go-w");
    fs::set_permissions("/opt/bin", fs::Permissions::from_mode(0o755)).unwrap();
    tool(&["mount", "-t", "tmpfs", "-o", "ro", "none", "/opt/bin"]);
    no("10.66.0.0/24", "read-only");
    tool(&["umount", "/opt/bin"]);
    // A route that is wider than the pods' subnet is everybody's.
    install(&["--pod-cidr", "10.66.0.0/24"]);
    // What somebody changed is his.
    let changed = fs::read_to_string(LIST).unwrap().replace("\"pods\"", "\"mine\"");
    fs::write(LIST, &changed).unwrap();
    refused(&["install", "--pod-cidr", "10.66.0.0/24"], "changed since");
    let answer = plainly(&["uninstall"]);
    assert!(answer.ok() && answer.stdout.contains("stays"), "{answer:?}");
    assert_eq!(fs::read_to_string(LIST).unwrap(), changed);
    refused(&["install", "--pod-cidr", "10.66.0.0/24"], "not this program's");
    install(&["--pod-cidr", "10.66.0.0/24", "--force"]);
    assert_eq!(fs::read_to_string(format!("{LIST}.before")).unwrap(), changed, "it is kept");
    fs::set_permissions(CONF, fs::Permissions::from_mode(0o777)).unwrap();
    refused(&["install", "--pod-cidr", "10.67.0.0/24"], "chmod go-w /run/net.d");
}

fn spares(node: &Node) {
    let _containerd = Containerd::looking_in(PLUGINS);
    install(&["--pod-cidr", "10.66.0.0/24"]);
    let runtime = Runtime::new(entry());
    let (pod, id) = (node.pod(), id("lives"));
    let result = runtime.added(&id, &pod);
    let before = fs::read(LIST).unwrap();
    refused(&["install", "--pod-cidr", "10.67.0.0/24"], "has addresses of `10.66.0.0/24`");
    refused(&["install", "--pod-cidr", "10.66.0.0/24", "--network", "other"], "given away again");
    refused(&["install", "--pod-cidr", "10.66.0.0/24", "--mode", "bridge"], "the other mode");
    assert_eq!(fs::read(LIST).unwrap(), before);
    // The same again, with more room, with another family beside it: nobody is harmed.
    for cidr in ["10.66.0.0/24", "10.66.0.0/16", "10.66.0.0/16,fd00:66::/64"] {
        install(&["--pod-cidr", cidr]);
    }
    install(&["--pod-cidr", "10.67.0.0/24", "--force"]);
    assert!(runtime.check(&id, &pod, &result).ok());
    let newer = Runtime::new(entry());
    let (other, second) = (node.pod(), crate::networks::id("new"));
    let made = newer.added(&second, &other);
    assert!(newer.del(&id, &pod, &result).ok(), "by the configuration of the other subnet");
    assert!(newer.del(&second, &other, &made).ok());
    look::assert_nothing_left("all are gone");
}

fn flannel(node: &Node) {
    let _containerd = Containerd::looking_in(BIN);
    let _outside = node.outside();
    // What flannel gives to flannel.1 and flannel-v6.1.
    tool(&["ip", "addr", "add", "10.66.1.0/32", "dev", "up0"]);
    tool(&["ip", "addr", "add", "fd00:66:1::/128", "dev", "up0", "nodad"]);
    let env =
        "FLANNEL_NETWORK=10.66.0.0/16\nFLANNEL_SUBNET=10.66.1.1/24\nFLANNEL_IPV6_SUBNET=fd00:66:1::1/64\n";
    fs::write("/run/source", env).unwrap();
    install(&["--pod-cidr-file", "/run/source"]);
    tool(&["ip", "addr", "add", "10.66.1.1/32", "dev", "up0"]);
    refused(&["install", "--pod-cidr-file", "/run/source"], "`up0` has the address `10.66.1.1/32`");
}

/// A root as a container has it mounted: the runtime's configuration, and no /proc.
const ROOT: &str = "/run/root";

fn lay_out_root() {
    fs::create_dir_all("/run/root/etc/containerd").unwrap();
    fs::write("/run/root/etc/containerd/config.toml", "version = 2\n").unwrap();
}

fn in_a_container(node: &Node) {
    let _outside = node.outside();
    lay_out_root();
    for words in [&["--stay"][..], &["--kube-api", "/run/api.sock"]] {
        let cidrs = [&["install", "--root", ROOT][..], words].concat();
        if words == ["--stay"] {
            refused(&[&cidrs[..], &["--pod-cidr", "192.0.2.0/25"]].concat(), "`up0` has the address");
        } else {
            let taken = r#"{"kind":"Node","metadata":{"name":"n1"},"spec":{"podCIDRs":["192.0.2.0/25"]}}"#;
            let server = serve(vec![("200 OK", taken.to_owned())]);
            refused(&[&cidrs[..], &["--node-name", "n1"]].concat(), "`up0` has the address");
            server.join().unwrap();
        }
        assert!(!Path::new("/run/root/etc/cni").exists());
    }
    // A root that nothing runs of says nothing of this one.
    install(&["--root", ROOT, "--pod-cidr", "192.0.2.0/25"]);
    assert!(Path::new("/run/root/etc/cni/net.d/10-nodeplug.conflist").exists());
}

fn below_its_root(_node: &Node) {
    lay_out_root();
    fs::create_dir_all("/run/elsewhere").unwrap();
    for (folder, link) in [("opt", "/run/root/opt"), ("etc/cni", "/run/root/etc/cni")] {
        std::os::unix::fs::symlink("/run/elsewhere", link).unwrap();
        let words = ["install", "--root", ROOT, "--pod-cidr", "10.66.0.0/24"];
        refused(&words, &format!("/{folder}"));
        assert_eq!(fs::read_dir("/run/elsewhere").unwrap().count(), 0, "{link}");
        fs::remove_file(link).unwrap();
    }
    install(&["--root", ROOT, "--pod-cidr", "10.66.0.0/24"]);
}

fn without_capabilities(_node: &Node) {
    let _containerd = Containerd::looking_in(BIN);
    fs::create_dir_all(BIN).unwrap();
    std::os::unix::fs::chown(BIN, Some(1000), Some(1000)).unwrap();
    let inner = person(&["install", BIN]).command();
    // Named, since without capabilities it cannot tell the machine's own runtime from this one.
    let mut command = Command::new("setpriv");
    command.args(["--inh-caps=-all", "--bounding-set=-all"]).arg(inner.get_program()).args(inner.get_args());
    let answer = call::run(command.env_remove("CNI_COMMAND"), b"");
    assert_eq!(answer.exit, Some(1), "{answer:?}");
    assert!(answer.stderr.contains("the user 1000: `chown root:root /opt/bin`"), "{answer:?}");
}

fn which_is_taken(_node: &Node) {
    let _containerd = Containerd::looking_in(PLUGINS);
    fs::create_dir_all(CONF).unwrap();
    let list = r#"{"cniVersion": "1.0.0", "name": "theirs", "plugins": [{"type": "bridge"}]}"#;
    let notes =
        |words: &[&str]| install(&[&["--pod-cidr", "10.66.0.0/24"], words].concat())["notes"].to_string();
    fs::write("/run/net.d/05-theirs.conflist", list).unwrap();
    let said = notes(&[]);
    assert!(said.contains("mv /run/net.d/05-theirs.conflist /run/net.d/05-theirs.conflist.off"), "{said}");
    fs::rename("/run/net.d/05-theirs.conflist", "/run/net.d/20-theirs.conflist").unwrap();
    fs::remove_file(LIST).unwrap();
    let said = notes(&[]);
    assert!(said.contains("until now containerd took the network `theirs`"), "{said}");
    fs::write("/run/net.d/01-broken.conf", "{").unwrap();
    let said = notes(&[]);
    assert!(said.contains("stops at `01-broken.conf`"), "{said}");
}

/// Whole or not there, at any moment; and where it is there, its program answers.
fn look_at_it(when: &str) {
    match fs::read(LIST) {
        Ok(bytes) => {
            let list: Result<Value, _> = serde_json::from_slice(&bytes);
            assert_eq!(list.expect(when)["name"], "pods", "{when}");
            let mut command = Command::new("/opt/bin/nodeplug-cni");
            command.env_clear().env("CNI_COMMAND", "VERSION").env("PATH", "/usr/bin:/bin");
            assert!(call::run(&mut command, b"{}").ok(), "{when}");
        }
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{when}"),
    }
}

/// A command's arguments.
type Words<'a> = &'a [&'a str];

fn killed(_node: &Node) {
    let _containerd = Containerd::looking_in("/opt/bin");
    let source = "/opt/source";
    script(Path::new(source), "# nodeplug-cni: this file is the plugin", "1.1.0");
    let first = ["install", "--from", source, "--pod-cidr", "10.66.0.0/24"];
    let other = ["install", "--from", source, "--pod-cidr", "10.66.0.0/24,fd00:66::/64"];
    let uninstall = ["uninstall"];
    // What is there before, what is killed, what comes next.
    let table: [(Option<Words<'_>>, Words<'_>, Words<'_>); 5] = [
        (None, &first, &first),
        (None, &first, &uninstall),
        (Some(&first), &other, &other),
        (Some(&first), &other, &uninstall),
        (Some(&first), &uninstall, &uninstall),
    ];
    for (before, dies, next) in table {
        for n in 0..500 {
            for folder in ["/opt/bin", CONF, "/var/lib/nodeplug"] {
                drop(fs::remove_dir_all(folder));
            }
            if let Some(words) = before {
                assert!(plainly(words).ok());
            }
            let end = trace::kill_after_nth(&person(dies), &CHANGES, n);
            let when = format!("{} killed after change {n}, then {}: {end:?}", dies[0], next[0]);
            look_at_it(&when);
            let answer = plainly(next);
            assert!(answer.ok(), "{when}: {answer:?}");
            if next[0] == "install" {
                look_at_it(&when);
                assert!(Path::new(LIST).exists(), "{when}");
                let answer = plainly(&uninstall);
                assert!(answer.ok() && !answer.stdout.contains("stays"), "{when}: {answer:?}");
            }
            let left = call::try_tool(&["find", "/opt/bin", CONF, "/var/lib/nodeplug", "-type", "f"]).stdout;
            assert_eq!(left, "", "{when}");
            if let End::Finished(answer) = end {
                assert!(answer.ok() && n > 6, "{n} changes: {answer:?}");
                break;
            }
        }
    }
}

fn under_load(node: &Node) {
    const AT_ONCE: usize = 8;
    let _containerd = Containerd::looking_in(BIN);
    let mut other = fs::read(our_binary()).unwrap();
    other.extend_from_slice(b"another build");
    call::write_program(Path::new("/opt/other"), &other);
    let builds = [our_binary().display().to_string(), "/opt/other".to_owned()];
    install(&["--pod-cidr", "10.66.0.0/16"]);
    let runtime = Runtime::new(entry());
    let (over, calls, reads) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let pods: Vec<_> = (0..AT_ONCE).map(|_| node.pod()).collect();
    let kept = (node.pod(), id("kept"));
    let result = call(&runtime, "ADD", &kept.1, &kept.0, None).success();
    thread::scope(|scope| {
        for (number, pod) in pods.iter().enumerate() {
            let (runtime, over, calls) = (&runtime, &over, &calls);
            scope.spawn(move || {
                let mut round = 0;
                while !over.load(Ordering::Relaxed) {
                    let id = id(&format!("load-{number}-{round}"));
                    let answer = call(runtime, "ADD", &id, pod, None);
                    assert!(answer.ok(), "{answer:?}");
                    let answer = call(runtime, "DEL", &id, pod, Some(&answer.success()));
                    assert!(answer.ok(), "{answer:?}");
                    calls.fetch_add(2, Ordering::Relaxed);
                    round += 1;
                }
            });
        }
        let (over, reads) = (&over, &reads);
        scope.spawn(move || {
            while !over.load(Ordering::Relaxed) {
                // As a runtime that reads the folder at this moment.
                let list: Value = serde_json::from_slice(&fs::read(LIST).unwrap()).unwrap();
                assert_eq!(list["plugins"][0]["type"], "nodeplug-cni");
                reads.fetch_add(1, Ordering::Relaxed);
            }
        });
        let done = std::panic::catch_unwind(|| {
            for round in 0..12 {
                let from = &builds[(round + 1) % 2];
                let mtu = if round % 2 == 0 { "1400" } else { "1300" };
                let report = install(&["--from", from, "--pod-cidr", "10.66.0.0/16", "--mtu", mtu]);
                assert_eq!(report["names"][0]["outcome"], "upgraded", "{report}");
                assert_eq!(report["conflist"]["outcome"], "upgraded", "{report}");
            }
        });
        over.store(true, Ordering::Relaxed);
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    assert!(calls.load(Ordering::Relaxed) >= AT_ONCE && reads.load(Ordering::Relaxed) > 0);
    assert!(call(&runtime, "CHECK", &kept.1, &kept.0, Some(&result)).ok(), "a pod that runs notices nothing");
    assert!(call(&runtime, "DEL", &kept.1, &kept.0, Some(&result)).ok());
    look::assert_nothing_left("after upgrades and downgrades");
}

/// Programs that the distribution has there are none of uninstall's affair, unless they are named.
fn strangers(root: &Path, cni: &dyn Fn(&[&str]) -> Answer) {
    let bin = root.join("opt/cni/bin");
    for name in ["bridge", "portmap"] {
        fs::write(bin.join(name), "#!/bin/sh\n").unwrap();
    }
    let files = || tool(&["find", root.to_str().unwrap(), "-printf", "%P %y %m %s\n"]);
    let before = files();
    let would = cni(&["uninstall", "--dry-run"]);
    assert!(would.ok() && would.stdout.contains("dry run: nothing was changed"), "{would:?}");
    assert!(would.stdout.contains("removed `") && !would.stdout.contains("still calls"), "{would:?}");
    assert_eq!(files(), before);
    let named = cni(&["uninstall", "--only", "bridge"]);
    assert!(named.ok() && named.stdout.contains("another program by now and stays"), "{named:?}");
    assert_eq!(files(), before);
    let done = cni(&["uninstall"]);
    assert!(done.ok() && done.stdout.contains("nodeplug-cni  removed"), "{done:?}");
    for word in ["bridge", "portmap", "by now", "kept"] {
        assert!(!done.stdout.contains(word), "{done:?}");
    }
    assert!(bin.join("bridge").exists() && bin.join("portmap").exists());
    for name in ["bridge", "portmap"] {
        fs::remove_file(bin.join(name)).unwrap();
    }
    let again = cni(&["install", "--pod-cidr", "10.66.0.0/24"]);
    assert!(again.ok(), "{again:?}");
    let alone = cni(&["uninstall"]);
    assert!(alone.ok(), "{alone:?}");
    let without = cni(&["install"]);
    assert!(without.ok(), "{without:?}");
}

/// Where the programs lie beside the script, as in an archive of a release.
fn script_on_a_root() {
    let base = std::env::temp_dir().join(format!("install-script-{}", std::process::id()));
    drop(fs::remove_dir_all(&base));
    let (kit, root) = (base.join("kit"), base.join("root"));
    lay_kit(&kit, &root);
    let run = |words: &[&str]| {
        let mut command = Command::new(kit.join("scripts/install"));
        command.arg("--root").arg(&root).args(words).env("NODEPLUG_POD_CIDRS", "");
        call::run(&mut command, b"")
    };
    let files = || tool(&["find", root.to_str().unwrap(), "-printf", "%P %y %m %s\n"]);
    let first = run(&["--", "--pod-cidr", "10.66.0.0/24"]);
    assert!(first.ok(), "{first:?}");
    let before = files();
    for part in [
        "opt/cni/bin/nodeplug-cni f 755",
        "opt/cni/bin/loopback f 755",
        "etc/cni/net.d/10-nodeplug.conflist f 644",
        "exec/nodeplug~tmpfs/tmpfs f 755",
        "usr/local/sbin/nodeplug-cni l 777",
        "usr/local/sbin/nodeplug-flexvolume f 755",
        "usr/local/bin/nodeplug-device-plugin f 755",
        "etc/systemd/system/nodeplug-device-plugin.service f 644",
        "etc/nodeplug/device-plugin.yaml f 644",
    ] {
        assert!(before.contains(part), "`{part}` in {before}");
    }
    let mut command = Command::new(kit.join("nodeplug-device-plugin"));
    command.args(["validate", "--config"]).arg(root.join("etc/nodeplug/device-plugin.yaml"));
    let valid = call::run(&mut command, b"");
    assert!(valid.ok(), "{valid:?}");
    let again = run(&["--", "--pod-cidr", "10.66.0.0/24"]);
    assert!(again.ok() && again.stdout.contains("unchanged"), "{again:?}");
    assert_eq!(files(), before, "twice is once");
    assert!(!again.stdout.contains("PATH="), "a root that is elsewhere is in nobody's PATH: {again:?}");
    let upgrade = run(&["cni"]);
    assert!(upgrade.ok() && !upgrade.stdout.contains("next:"), "it has a network: {upgrade:?}");
    let cni = |words: &[&str]| {
        let mut command = Command::new(kit.join("nodeplug-cni"));
        command.args(words).arg("--root").arg(&root).env("NODEPLUG_POD_CIDRS", "");
        call::run(&mut command, b"")
    };
    strangers(&root, &cni);
    assert!(run(&["--uninstall", "flexvolume"]).ok());
    assert!(!files().contains("flexvolume") && files().contains("nodeplug-cni"));
    let gone = run(&["--uninstall"]);
    assert!(gone.ok(), "{gone:?}");
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0, "{}", files());
    assert_eq!(run(&["nonsense"]).exit, Some(2));
    fs::remove_dir_all(&base).unwrap();
}

/// The script and the programs beside it, and a root that is empty.
fn lay_kit(kit: &Path, root: &Path) {
    for folder in [kit.join("scripts"), kit.join("device-plugin/deploy"), root.to_owned()] {
        fs::create_dir_all(folder).unwrap();
    }
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for file in ["scripts/install", "scripts/needs", "device-plugin/deploy/nodeplug-device-plugin.service"] {
        call::copy(&repository.join(file), &kit.join(file));
    }
    for (variable, name) in [
        ("NODEPLUG_CNI", "nodeplug-cni"),
        ("NODEPLUG_FLEXVOLUME", "nodeplug-flexvolume"),
        ("NODEPLUG_DEVICE_PLUGIN", "nodeplug-device-plugin"),
    ] {
        call::copy(&harness::node::built(variable, name), &kit.join(name));
    }
}
