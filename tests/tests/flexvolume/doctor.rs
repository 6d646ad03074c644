//! `doctor`: each finding is provoked for real, and goes when its remedy is followed; and nothing is changed by it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use harness::call::{self, Answer, tool, try_tool};
use harness::kubelet::PLUGINS;
use harness::suite::{volume, volume_shared};
use harness::volume_look::mounts_at;
use harness::volume_node::{VolumeNode, our_driver};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::ours::STATE;
use crate::users::{User, until};

pub fn trials() -> Vec<Trial> {
    vec![
        volume_shared("doctor_finds_nothing_where_volumes_are_well", &[], well),
        volume_shared("doctor_finds_what_is_wrong_with_the_drivers", &[], drivers),
        volume_shared("doctor_finds_what_is_wrong_with_the_policy", &[], policy),
        volume_shared("doctor_finds_volumes_that_are_dead_or_not_mounted", &["bindfs"], volumes),
        volume_shared("doctor_finds_what_a_backend_lacks", &[], backends),
        volume("doctor_finds_mounts_that_do_not_spread", &[], spread),
        volume_shared("doctor_of_volumes_is_content_with_a_root_that_was_only_installed", &[], staged),
        volume_shared("doctor_of_volumes_changes_nothing", &[], changes_nothing),
    ]
}

/// The program as an operator brings it, whatever is installed.
const BROUGHT: &str = "/var/lib/harness/brought";
const SOURCE: &str = "/srv/shared";

fn bring() {
    fs::create_dir_all(BROUGHT).unwrap();
    let to = Path::new(BROUGHT).join("nodeplug-flexvolume");
    tool(&["cp", our_driver().to_str().unwrap(), to.to_str().unwrap()]);
}

fn person(words: &[&str]) -> Answer {
    let mut command = Command::new(Path::new(BROUGHT).join("nodeplug-flexvolume"));
    call::run(command.args(words), b"")
}

/// What the doctor says, and that its exit code and its counts say the same.
#[track_caller]
fn doctor() -> Value {
    let answer = person(&["doctor", "-o", "json"]);
    let report = answer.json.clone().unwrap_or_else(|| panic!("no JSON: {answer:?}"));
    let all = report["findings"].as_array().unwrap();
    let count = |state: &str| all.iter().filter(|f| f["state"] == state).count();
    assert_eq!(
        (&report["problems"], &report["warnings"]),
        (&count("problem").into(), &count("warning").into())
    );
    assert_eq!(answer.exit, Some(i32::from(count("problem") > 0)), "{report:#}");
    for finding in all {
        assert_eq!(finding["remedy"].is_string(), finding["state"] != "fine", "{finding}");
    }
    report
}

/// All that is not as it should be, but for the kubelet that no test has as a process.
fn ill(report: &Value) -> Vec<Value> {
    let all = report["findings"].as_array().unwrap().iter();
    let no_kubelet =
        |f: &Value| f["why"].as_str().unwrap().contains("no kubelet here tells which folder it uses");
    all.filter(|f| f["state"] != "fine" && !no_kubelet(f)).cloned().collect()
}

#[track_caller]
fn is_well() {
    let report = doctor();
    assert_eq!(ill(&report), Vec::<Value>::new(), "{report:#}");
}

/// The one finding of `state` about `what` that says `why`; its remedy.
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

/// A finding that is there, and goes when its remedy is typed: up to a comma, behind a colon, without what it does.
#[track_caller]
fn mended(what: &str, state: &str, why: &str) {
    let remedy = finding(what, state, why);
    let command = remedy.split(';').next().and_then(|first| first.split(", ").next()).unwrap();
    let command = command.rsplit_once(": ").map_or(command, |(_, command)| command);
    let command =
        command.split(" takes it away").next().unwrap().trim_start_matches("run ").trim_matches('`');
    let mut shell = Command::new("sh");
    shell.args(["-ec", command]).env("PATH", format!("{BROUGHT}:/usr/sbin:/usr/bin:/sbin:/bin"));
    let answer = call::run(&mut shell, b"");
    assert!(answer.ok(), "`{command}` of `{remedy}`: {answer:?}");
    let report = doctor();
    let stays =
        ill(&report).into_iter().any(|f| f["what"] == what && f["why"].as_str().unwrap().contains(why));
    assert!(!stays, "`{remedy}` mends it: {report:#}");
}

fn well(node: &VolumeNode) {
    bring();
    is_well();
    let kubelet = node.kubelet();
    let volume = kubelet.pod("default", "web").inline("nodeplug/tmpfs", "data").option("size", "1Mi");
    kubelet.set_up(&volume).mounted();
    is_well();
    let table = person(&["doctor"]);
    assert!(table.ok() && table.stderr.is_empty(), "{table:?}");
    assert!(table.stdout.contains("1 volume is mounted and answers"), "{}", table.stdout);
    assert!(table.stdout.lines().last().unwrap().contains("0 problems"), "{}", table.stdout);
    // The driver is the same program.
    let driver = Path::new(PLUGINS).join("nodeplug~tmpfs/tmpfs");
    assert!(call::run(Command::new(driver).args(["doctor", "-o", "json"]), b"").ok());
    kubelet.tear_down(&volume).unmounted();
    kubelet.end(volume.pod());
    assert!(person(&["doctor", "--help"]).stdout.contains("doctor --root /host"));
    for wrong in [&["doctor", "--rot"][..], &["doctor", "-o", "xml"], &["doctor", "x"]] {
        assert_eq!(person(wrong).exit, Some(2), "{wrong:?}");
    }
    node.policy("logFile: /run/nowhere/x.log\n");
    mended("log file", "warning", "its folder is not there");
    node.policy("{}");
    let nowhere = person(&["doctor", "--root", "/srv/nowhere"]);
    assert!(nowhere.exit == Some(1) && nowhere.stderr.contains("look at the node below"), "{nowhere:?}");
}

/// A root with neither /dev nor /proc, as an image is made, or as a container has the node's.
fn staged(_: &VolumeNode) {
    bring();
    let root = "/srv/staged";
    fs::create_dir_all(format!("{root}/var/log")).unwrap();
    let installed = person(&["install", "--root", root]);
    assert!(installed.ok(), "{installed:?}");
    let looked = person(&["doctor", "-o", "json", "--root", root]);
    assert_eq!(looked.exit, Some(0), "{looked:?}");
    let report = looked.json.unwrap();
    let whats: Vec<Value> = ill(&report).iter().map(|f| f["what"].clone()).collect();
    assert_eq!(whats, ["kernel"], "only that the root is not booted: {report:#}");
    assert!(report.to_string().contains("9 drivers of version"), "{report:#}");
    fs::remove_dir_all(root).unwrap();
}

fn drivers(node: &VolumeNode) {
    bring();
    let nfs = format!("{PLUGINS}/nodeplug~nfs/nfs");
    // All names are one file: this one gets its own.
    tool(&["cp", &nfs, "/srv/nfs"]);
    tool(&["mv", "/srv/nfs", &nfs]);
    is_well();
    fs::set_permissions(&nfs, fs::Permissions::from_mode(0o644)).unwrap();
    mended("drivers", "problem", "is not executable: volumes of nodeplug/nfs fail");
    fs::set_permissions(&nfs, fs::Permissions::from_mode(0o757)).unwrap();
    mended("drivers", "problem", "may be written by others than root");
    fs::set_permissions(PLUGINS, fs::Permissions::from_mode(0o777)).unwrap();
    mended("plugin folder", "problem", "may be written by others than root");
    fs::remove_file(&nfs).unwrap();
    mended("drivers", "problem", "is without its driver");
    is_well();
    node.install_script("nodeplug/nfs", "#!/bin/sh\nexit 1\n");
    assert!(finding("drivers", "problem", "is another program").contains("--force"));
    let mark = "# nodeplug-flexvolume: this file is the driver";
    node.install_script("nodeplug/nfs", &format!("#!/bin/sh\n{mark}\nexit 1\n"));
    mended(
        "drivers",
        "problem",
        "ask `/usr/libexec/kubernetes/kubelet-plugins/volume/exec/nodeplug~nfs/nfs` for `init`",
    );
    let older = format!(
        "#!/bin/sh\n{mark}\n[ \"$1\" = --version ] && exec echo nodeplug-flexvolume 0.0.9\nexec {BROUGHT}/nodeplug-flexvolume \"$@\"\n"
    );
    node.install_script("nodeplug/nfs", &older);
    mended("drivers", "warning", "is version 0.0.9");
    fs::create_dir(format!("{PLUGINS}/.nodeplug~nfs.new")).unwrap();
    mended("killed installs", "warning", "`.nodeplug~nfs.new`");
    is_well();
    for entry in fs::read_dir(PLUGINS).unwrap().flatten() {
        drop(fs::remove_dir_all(entry.path()));
    }
    mended("drivers", "problem", "has no driver of this program");
    is_well();
}

fn policy(node: &VolumeNode) {
    bring();
    let path = "/etc/nodeplug/flexvolume.yaml";
    node.policy("backends: {tmpfs: {}}\n");
    is_well();
    fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
    mended("policy", "problem", "lets others than its owner write: no pod gets a volume");
    tool(&["chown", "7", path]);
    mended("policy", "problem", "belongs to the user 7");
    is_well();
    node.policy("backend: {tmpfs: {}}\n");
    let remedy = finding("policy", "problem", "backend");
    assert_eq!(remedy.matches("nodeplug-flexvolume validate").count(), 1, "{remedy}");
}

fn volumes(node: &VolumeNode) {
    bring();
    node.policy(&format!("busyWait: 1s\nbackends: {{tmpfs: {{}}, bind: {{roots: [{{path: {SOURCE}}}]}}}}\n"));
    let serve = || {
        fs::create_dir_all("/srv/behind").unwrap();
        fs::create_dir_all(SOURCE).unwrap();
        let server = User::start(&format!("exec bindfs -f -o allow_other /srv/behind {SOURCE}"));
        until("bindfs", || mounts_at(Path::new(SOURCE)).len() == 1);
        server
    };
    let server = serve();
    let kubelet = node.kubelet();
    let web = kubelet.pod("default", "web").inline("nodeplug/bind", "data").option("source", SOURCE);
    kubelet.set_up(&web).mounted();
    is_well();
    drop(server);
    drop(try_tool(&["umount", "-l", SOURCE]));
    let server = serve();
    mended("volumes", "problem", "`data` (bind) of the pod `default/web` is dead");
    is_well();
    kubelet.tear_down(&web).unmounted();
    kubelet.end(web.pod());
    drop(server);
    tool(&["umount", "-l", SOURCE]);
    // Somebody unmounts a volume by hand; then its pod goes.
    let db = kubelet.pod("default", "db").inline("nodeplug/tmpfs", "memory").option("size", "1Mi");
    kubelet.set_up(&db).mounted();
    tool(&["umount", db.path().to_str().unwrap()]);
    let remedy = finding("volumes", "problem", "is remembered and not mounted");
    assert!(remedy.contains("kubectl -n default delete pod db"), "{remedy}");
    fs::remove_dir(db.path()).unwrap();
    mended("volumes", "warning", "is remembered, and its folder is gone");
    is_well();
    kubelet.end(db.pod());
    // A record that is no record, and a volume without one.
    fs::write(format!("{STATE}/volumes/0123456789abcdef0123456789abcdef.json"), "{").unwrap();
    mended("volumes", "warning", "1 record of another boot, or that can't be read");
    let lost = kubelet.pod("default", "lost").inline("nodeplug/tmpfs", "memory").option("size", "1Mi");
    kubelet.set_up(&lost).mounted();
    let records = fs::read_dir(format!("{STATE}/volumes")).unwrap().flatten();
    records.for_each(|record| fs::remove_file(record.path()).unwrap());
    let remedy = finding("volumes", "warning", lost.path().to_str().unwrap());
    assert!(remedy.contains("end with their pods"), "{remedy}");
    kubelet.tear_down(&lost).unmounted();
    kubelet.end(lost.pod());
    is_well();
    node.assert_nothing_left("looked at");
}

fn backends(node: &VolumeNode) {
    bring();
    node.policy("backends: {cifs: {helper: /usr/none/mount.cifs}}\n");
    let remedy =
        finding("backends", "warning", "`cifs` can't be mounted here: `/usr/none/mount.cifs` is not there");
    assert!(remedy.contains("cifs-utils"), "{remedy}");
    node.policy("backends: {tmpfs: {}, image: {roots: [{path: /srv}], fsTypes: [ext4]}}\n");
    is_well();
    let report = doctor().to_string();
    assert!(report.contains("what these need: tmpfs, ext4") && report.contains("loop devices"), "{report}");
    tool(&["mount", "-o", "remount,ro", "/run"]);
    mended("state", "problem", "read-only file system: no pod gets a volume");
    is_well();
}

fn spread(_node: &VolumeNode) {
    bring();
    mended("mount propagation", "warning", "is on a mount that is not shared");
    is_well();
    fs::remove_dir("/var/lib/kubelet/pods").unwrap();
    let remedy = finding("pods' folder", "warning", "no kubelet has run here");
    assert!(remedy.contains("kubeletRoot"), "{remedy}");
}

/// Files with their times, and mounts.
fn snapshot() -> BTreeMap<String, String> {
    fn files(folder: &Path, all: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let (path, about) = (entry.path(), entry.path().symlink_metadata().unwrap());
            let times =
                format!("{:o} {} {}.{}", about.mode(), about.len(), about.mtime(), about.mtime_nsec());
            all.insert(path.display().to_string(), times);
            if about.is_dir() {
                files(&path, all);
            }
        }
    }
    let mut all = BTreeMap::new();
    for root in ["/etc/nodeplug", "/run", "/var/lib", PLUGINS] {
        files(Path::new(root), &mut all);
    }
    for words in
        [&["cat", "/proc/thread-self/mountinfo"][..], &["sh", "-c", "ls /sys/block /sys/module /dev | sort"]]
    {
        all.insert(words.join(" "), try_tool(words).stdout);
    }
    all
}

fn changes_nothing(node: &VolumeNode) {
    bring();
    let before = snapshot();
    is_well();
    assert_eq!(snapshot(), before, "a node without volumes: not even the folder of records is made");
    let kubelet = node.kubelet();
    let volume = kubelet.pod("default", "web").inline("nodeplug/tmpfs", "data").option("size", "1Mi");
    kubelet.set_up(&volume).mounted();
    fs::write(format!("{STATE}/volumes/0123456789abcdef0123456789abcdef.json"), "{").unwrap();
    let before = snapshot();
    for _ in 0..2 {
        assert_eq!(ill(&doctor()).len(), 1);
    }
    assert_eq!(snapshot(), before);
    // The same where nothing can be written.
    tool(&["mount", "-o", "remount,ro", "/run"]);
    let report = doctor();
    assert!(ill(&report).iter().any(|f| f["what"] == "volumes"), "{report:#}");
    tool(&["mount", "-o", "remount,rw", "/run"]);
    kubelet.tear_down(&volume).unmounted();
    kubelet.end(volume.pod());
}
