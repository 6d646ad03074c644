//! The log: each mount and unmount leaves a line without a secret, whatever the log is made of; nothing about it
//! changes a call; `trace` finds a pod in it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use harness::call::tool;
use harness::kubelet::Volume;
use harness::suite::volume;
use harness::volume_node::VolumeNode;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::ours::{Call, SECRET, SECRET_BASE64, folder, memory};

const FOLDER: &str = "/var/log/nodeplug";
const LOG: &str = "/var/log/nodeplug/flexvolume.log";
const JOURNAL: &str = "/run/systemd/journal/socket";

pub fn trials() -> Vec<Trial> {
    vec![
        volume("each_mount_and_unmount_leaves_its_line_without_a_secret", &[], lines_of_a_life),
        volume("a_log_that_cannot_be_written_changes_no_mount", &[], unwritable),
        volume("the_policy_says_where_the_log_goes", &[], elsewhere),
        volume("trace_finds_a_pods_volumes", &[], traced),
    ]
}

fn lines() -> Vec<Value> {
    let text = fs::read_to_string(LOG).unwrap_or_default();
    assert!(text.is_empty() || text.ends_with('\n'), "whole lines: {text:?}");
    text.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}"))).collect()
}

/// The volume's folder goes, as the kubelet does it, and nothing else is there.
fn end(node: &VolumeNode, volumes: &[&Volume]) {
    for volume in volumes {
        fs::remove_dir(volume.path()).expect("an empty folder");
    }
    node.assert_nothing_left("unmounted");
}

fn lines_of_a_life(node: &VolumeNode) {
    let volume = memory("web");
    folder(&volume);
    Call::of("tmpfs", &["init"]).succeeds();
    assert!(!Path::new(FOLDER).exists(), "init is no news and reads no file");
    Call::mount(&volume).succeeds();
    Call::unmount(&volume).succeeds();
    Call::unmount(&volume).succeeds();
    let wrong = memory("other").option("sise", SECRET);
    folder(&wrong);
    Call::mount(&wrong).fails();
    node.policy("backend: 1\n");
    let broken = Call::mount(&volume).fails();
    Call::of("tmpfs", &["mount", "/x"]).fails();
    let all = lines();
    let told: Vec<String> = all
        .iter()
        .map(|l| {
            let text = |key: &str| l[key].as_str().unwrap_or("-").to_owned();
            format!("{} {} {} {}", text("verb"), text("pod"), text("volume"), text("errorKind"))
        })
        .collect();
    assert_eq!(
        told,
        [
            "mount default/web data -",
            "unmount default/web data -",
            "unmount - data -",
            "mount default/other data config",
            "mount default/web data config",
            "mount - - usage"
        ]
    );
    for line in &all[..3] {
        assert_eq!(
            (line["driver"].as_str(), line["podUID"].as_str()),
            (Some("nodeplug/tmpfs"), Some(volume.pod().uid.as_str()))
        );
        assert_eq!(line["target"], volume.path().to_str().unwrap(), "{line}");
        let whole = line["microseconds"].as_u64().unwrap();
        let sum: u64 = line["steps"].as_array().unwrap().iter().map(|s| s["us"].as_u64().unwrap()).sum();
        assert!(sum <= whole && sum * 2 > whole, "the steps are the call: {line}");
    }
    assert!(all[0]["steps"].to_string().contains("\"attach\""), "{}", all[0]);
    let error = all[4]["error"].as_str().unwrap();
    assert!(broken.starts_with(&error[..30]), "{broken}: {error}");
    let text = fs::read_to_string(LOG).unwrap();
    assert!(!text.contains(SECRET) && !text.contains(SECRET_BASE64), "{text}");
    let mode = |path: &str| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(FOLDER), mode(LOG)), (0o750, 0o640), "whatever the umask");
    end(node, &[&volume, &wrong]);
}

fn unwritable(node: &VolumeNode) {
    fs::create_dir("/run/folder").unwrap();
    fs::write("/run/victim", "v").unwrap();
    symlink("/run/victim", "/run/symlink").unwrap();
    tool(&["mkfifo", "/run/fifo"]);
    for log in ["/run/folder", "/run/symlink", "/run/fifo", "/run/none/log", "/dev/full", "journal"] {
        node.policy(&format!("logFile: {log}\n"));
        let volume = memory("web");
        folder(&volume);
        Call::mount(&volume).succeeds();
        Call::unmount(&volume).succeeds();
        end(node, &[&volume]);
        assert!(!Path::new(FOLDER).exists(), "{log} is no reason for another file");
    }
    assert!(!Path::new("/run/none").exists() && fs::read_dir("/run/folder").unwrap().next().is_none());
    assert_eq!(fs::read_to_string("/run/victim").unwrap(), "v");
    node.policy("{}");
    tool(&["mount", "-o", "remount,ro", "/var/log"]);
    let volume = memory("web");
    folder(&volume);
    Call::mount(&volume).succeeds();
    Call::unmount(&volume).succeeds();
    assert!(!Path::new(FOLDER).exists());
    end(node, &[&volume]);
}

fn elsewhere(node: &VolumeNode) {
    let volume = memory("web");
    folder(&volume);
    let life = || {
        Call::mount(&volume).succeeds();
        Call::unmount(&volume).succeeds();
    };
    node.policy("logFile: /run/volumes.log\nlogMaxSize: 64Ki\n");
    fs::write("/run/volumes.log", "x".repeat((64 << 10) - 10)).unwrap();
    life();
    assert!(Path::new("/run/volumes.log.1").exists(), "rotated");
    let text = fs::read_to_string("/run/volumes.log").unwrap();
    assert_eq!(text.lines().count(), 2, "the unmount goes by the policy, too: {text}");
    node.policy("logFile: none\n");
    life();
    assert_eq!(fs::read_to_string("/run/volumes.log").unwrap(), text);
    fs::create_dir_all(Path::new(JOURNAL).parent().unwrap()).unwrap();
    let socket = UnixDatagram::bind(JOURNAL).unwrap();
    node.policy("logFile: journal\n");
    life();
    let mut bytes = vec![0; 64 << 10];
    let length = socket.recv(&mut bytes).unwrap();
    let datagram = String::from_utf8_lossy(&bytes[..length]).into_owned();
    assert!(datagram.contains("SYSLOG_IDENTIFIER=nodeplug-flexvolume\n"), "{datagram}");
    assert!(datagram.contains("NODEPLUG_VOLUME=data\n") && !datagram.contains(SECRET), "{datagram}");
    assert!(!Path::new(FOLDER).exists());
    for wrong in ["logFile: log\n", "logFile: 7\n", "logMaxSize: 1Ki\n"] {
        node.policy(wrong);
        let why = Call::mount(&volume).fails();
        assert!(why.contains("journal") || why.contains("logMaxSize"), "{wrong}: {why}");
    }
    end(node, &[&volume]);
}

fn traced(node: &VolumeNode) {
    let (volume, other) = (memory("web"), memory("db"));
    for volume in [&volume, &other] {
        folder(volume);
        Call::mount(volume).succeeds();
    }
    let trace = |word: &str| Call::of("volume", &["trace", word, "-o", "json"]).run();
    let found = trace("default/web").success();
    assert_eq!((found["lines"].as_array().unwrap().len(), &found["now"][0]["mounted"]), (1, &json!(true)));
    Call::unmount(&volume).succeeds();
    Call::unmount(&volume).succeeds();
    for word in ["default/web", "web", volume.pod().uid.as_str(), volume.path().to_str().unwrap()] {
        let found = trace(word).success();
        let verbs: Vec<&str> =
            found["lines"].as_array().unwrap().iter().map(|l| l["verb"].as_str().unwrap()).collect();
        assert_eq!(verbs, ["mount", "unmount", "unmount"], "{word}: {found:#}");
        assert_eq!(found["now"], json!([]), "{word}");
    }
    let shown = Call::of("volume", &["trace", "default/db"]).run();
    assert!(
        shown.ok() && shown.stdout.contains("slowest: ") && shown.stdout.contains(": mounted"),
        "{shown:?}"
    );
    let missing = Call::of("volume", &["trace", "default/none"]).run();
    assert!(missing.exit == Some(1) && missing.stdout.contains(LOG), "{missing:?}");
    Call::unmount(&other).succeeds();
    end(node, &[&volume, &other]);
}
