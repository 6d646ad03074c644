//! What a person runs: tables, JSON, exit codes.

use std::fs;
use std::path::Path;

use harness::call::{Answer, tool};
use harness::kernel::trace;
use harness::suite::volume;
use harness::volume_look::{files, mounts_at};
use harness::volume_node::VolumeNode;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::ours::{Call, SECRET, STATE, folder, memory};

pub fn trials() -> Vec<Trial> {
    vec![
        volume("help_and_version_are_for_people", &[], help),
        volume("wrong_arguments_are_told_with_code_2", &[], wrong),
        volume("list_shows_each_volume_once_and_its_health", &[], list),
        volume("repair_leaves_alone_what_is_well", &[], repair),
        volume("gc_removes_what_no_volume_needs_and_nothing_else", &[], gc),
        volume("gc_leaves_alone_a_call_at_work", &[], gc_at_work),
        volume("records_that_make_no_sense_stop_nobody", &[], nonsense),
        volume("validate_tells_what_is_allowed", &[], validate),
        volume("the_schema_knows_every_key_of_the_policy", &[], schema),
        volume("completions_are_made_for_every_shell", &[], completions),
        volume("a_person_without_rights_is_told_to_be_root", &[], unprivileged),
    ]
}

fn run(words: &[&str]) -> Answer {
    Call::of("volume", words).run()
}

#[track_caller]
fn json(words: &[&str]) -> (Value, Option<i32>) {
    let mut all = words.to_vec();
    all.extend(["--output", "json"]);
    let answer = run(&all);
    assert!(answer.stderr.is_empty(), "{answer:?}");
    (answer.json.clone().unwrap_or_else(|| panic!("{words:?}: {answer:?}")), answer.exit)
}

fn help(_node: &VolumeNode) {
    for words in [&["--help"][..], &["-h"], &["help"]] {
        let answer = run(words);
        assert!(answer.ok() && answer.stderr.is_empty(), "{words:?}: {answer:?}");
        for word in ["install", "validate", "repair --remount", "Exit codes", "flexVolume"] {
            assert!(
                answer.stdout.contains(word) || words == ["-h"] && word != "install",
                "{words:?}: {word}: {}",
                answer.stdout
            );
        }
    }
    for command in [
        "install",
        "uninstall",
        "doctor",
        "validate",
        "schema",
        "list",
        "repair",
        "gc",
        "trace",
        "completions",
    ] {
        let answer = run(&[command, "--help"]);
        assert!(answer.ok() && answer.stdout.contains("Usage:"), "{command}: {answer:?}");
        assert!(run(&["--help"]).stdout.contains(command), "{command}");
    }
    let version = run(&["--version"]);
    assert!(version.ok() && version.stdout.starts_with("nodeplug-flexvolume "), "{version:?}");
}

fn wrong(_node: &VolumeNode) {
    for words in [
        &["list", "--bogus"][..],
        &["gc", "extra"],
        &["completions"],
        &["completions", "csh"],
        &["list", "--output", "xml"],
        &["install", "--dir"],
    ] {
        let answer = run(words);
        assert!(
            answer.exit == Some(2) && answer.stdout.is_empty() && !answer.stderr.is_empty(),
            "{words:?}: {answer:?}"
        );
    }
    // The option may stand in front, in each of its spellings.
    for words in [
        &["-o", "json", "list"][..],
        &["--output", "json", "list"],
        &["--output=json", "list"],
        &["-ojson", "list"],
        &["list", "-o", "json"],
    ] {
        let answer = run(words);
        assert!(
            answer.ok() && answer.json.as_ref().is_some_and(|j| j["rows"].is_array()),
            "{words:?}: {answer:?}"
        );
    }
    // A reader that has seen enough.
    let cut = Call::of("volume", &["--help"]).with("| true").run();
    assert!(cut.stderr.is_empty(), "{cut:?}");
}

fn list(node: &VolumeNode) {
    let empty = run(&["list"]);
    assert!(empty.ok() && empty.stdout == "0 volumes, 0 fine\n", "{empty:?}");
    assert_eq!(json(&["list"]), (json!({"rows": [], "fine": true, "summary": "0 volumes, 0 fine"}), Some(0)));
    node.policy("backends: {tmpfs: {}, bind: {roots: [{path: /srv/shared}]}}\n");
    fs::create_dir_all("/srv/shared").unwrap();
    let kubelet = node.kubelet();
    let memory =
        kubelet.pod("shop", "web-0").inline("nodeplug/tmpfs", "tokens").option("size", "1Mi").read_only();
    let memory = memory.secret("password", SECRET.as_bytes());
    let bind = kubelet.pod("default", "db").inline("nodeplug/bind", "data").option("source", "/srv/shared");
    for volume in [&memory, &bind] {
        kubelet.set_up(volume).mounted();
    }
    let (found, code) = json(&["list"]);
    assert_eq!(code, Some(0));
    let row = |pod: &str| found["rows"].as_array().unwrap().iter().find(|r| r["pod"] == pod).unwrap().clone();
    let web = row("shop/web-0");
    assert_eq!(
        (&web["volume"], &web["backend"], &web["access"], &web["health"]),
        (&json!("tokens"), &json!("tmpfs"), &json!("ro"), &json!("fine"))
    );
    assert_eq!((&web["size"], &web["source"]), (&json!("1Mi"), &json!("1Mi of memory")));
    assert_eq!(
        (&row("default/db")["source"], &row("default/db")["access"]),
        (&json!("/srv/shared"), &json!("rw"))
    );
    let table = run(&["list"]);
    assert!(
        table.ok() && table.stdout.lines().count() == 4 && table.stdout.starts_with("POD"),
        "{}",
        table.stdout
    );
    assert!(
        table.stdout.ends_with("2 volumes, 2 fine\n") && !table.stdout.contains(SECRET),
        "{}",
        table.stdout
    );
    // One that somebody unmounted.
    tool(&["umount", memory.path().to_str().unwrap()]);
    let (found, code) = json(&["list"]);
    assert_eq!((code, &found["fine"]), (Some(1), &json!(false)));
    assert!(found["summary"].as_str().unwrap().starts_with("2 volumes, 1 fine; see"), "{found}");
    for volume in [&memory, &bind] {
        kubelet.end(volume.pod());
    }
    node.assert_nothing_left("after a list");
}

fn repair(node: &VolumeNode) {
    let kubelet = node.kubelet();
    let volume = kubelet.pod("default", "web").inline("nodeplug/tmpfs", "data");
    kubelet.set_up(&volume).mounted();
    fs::write(volume.path().join("mine"), "mine").unwrap();
    for words in [&["repair"][..], &["repair", "--remount"]] {
        let (found, code) = json(words);
        assert_eq!((code, &found["rows"]), (Some(0), &json!([])), "{found}");
    }
    assert_eq!(fs::read_to_string(volume.path().join("mine")).unwrap(), "mine");
    kubelet.end(volume.pod());
    node.assert_nothing_left("after a repair");
}

fn gc(node: &VolumeNode) {
    let nothing = run(&["gc"]);
    assert!(nothing.ok() && nothing.stdout == "0 found\n", "{nothing:?}");
    assert!(files(STATE.as_ref()).is_empty());
    let (living, dead) = (memory("living"), memory("dead"));
    for volume in [&living, &dead] {
        folder(volume);
        Call::mount(volume).succeeds();
    }
    tool(&["umount", dead.path().to_str().unwrap()]);
    let volumes = Path::new(STATE).join("volumes");
    let text = fs::read_to_string(&files(&volumes)[0]).unwrap();
    let mut old: Value = serde_json::from_str(&text).unwrap();
    old["boot"] = json!("of another boot");
    let made = [
        ("0".repeat(32), old.to_string()),
        ("1".repeat(32), "no JSON".to_owned()),
        ("2".repeat(32), String::new()),
    ];
    for (id, text) in &made {
        fs::write(volumes.join(format!("{id}.json")), text).unwrap();
    }
    fs::write(volumes.join(format!(".{}.json.new", "3".repeat(32))), "half").unwrap();
    fs::write(Path::new(STATE).join("locks").join("s-stale"), "").unwrap();
    let before = files(STATE.as_ref());
    let (dry, code) = json(&["gc", "--dry-run"]);
    assert_eq!((code, dry["rows"].as_array().unwrap().len()), (Some(0), 5), "{dry}");
    assert_eq!(files(STATE.as_ref()), before, "a dry run leaves everything, and nothing of its own");
    let (done, code) = json(&["gc"]);
    assert_eq!((code, done["rows"].as_array().unwrap().len()), (Some(0), 5), "{done}");
    let left = files(STATE.as_ref());
    assert_eq!(left.len(), 1, "only the living one's record: {left:?}");
    assert_eq!(fs::read_to_string(living.path().join("password")).unwrap(), SECRET);
    assert_eq!(json(&["gc"]).0["summary"], "0 found");
    for volume in [&living, &dead] {
        Call::unmount(volume).succeeds();
        fs::remove_dir_all(volume.pod().folder()).unwrap();
    }
    node.assert_nothing_left("after gc");
}

/// At every step of a mount and an unmount, which then come to their end.
fn gc_at_work(node: &VolumeNode) {
    let volume = memory("web");
    for call in [Call::mount(&volume), Call::unmount(&volume)] {
        let calls = |at: Option<usize>| {
            let mut seen = 0;
            let answer = trace::watch(&call, |_| {
                if Some(seen) == at {
                    let answer = run(&["gc"]);
                    assert!(answer.ok(), "{answer:?}");
                }
                seen += 1;
            });
            crate::ours::object(&call.verb(), &answer);
            seen
        };
        let mut at = 0;
        loop {
            folder(&volume);
            if call.verb() == "unmount" {
                Call::mount(&volume).succeeds();
            }
            let count = calls(Some(at));
            if call.verb() == "mount" {
                assert_eq!(mounts_at(&volume.path()).len(), 1, "{at}");
                let records = files(Path::new(STATE).join("volumes").as_path());
                assert_eq!(records.len(), 1, "gc at step {at} took the record away");
            }
            Call::unmount(&volume).succeeds();
            fs::remove_dir_all(volume.pod().folder()).unwrap();
            node.assert_nothing_left(&format!("{} with gc at step {at}", call.verb()));
            // A call that finds its lock busy waits, and takes as long; every other step is enough.
            at += 2;
            if at >= count {
                break;
            }
        }
    }
}

fn nonsense(node: &VolumeNode) {
    let volume = memory("web");
    folder(&volume);
    Call::mount(&volume).succeeds();
    let record = files(Path::new(STATE).join("volumes").as_path()).remove(0);
    let good: Value = serde_json::from_str(&fs::read_to_string(&record).unwrap()).unwrap();
    let with = |key: &str, value: Value| {
        let mut changed = good.clone();
        changed[key] = value;
        changed.to_string()
    };
    for (n, text) in [
        with("target", json!("/etc")),
        with("target", json!("")),
        with("target", json!("/var/lib/kubelet/pods/u/volumes/d/../../../../../../etc")),
        with("root", json!("relative")),
        with("target", json!(7)),
        with("backend", json!("floppy")),
        with("options", json!("none")),
        format!("{{\"boot\":{}}}", good["boot"]),
        "{}".to_owned(),
        "[]".to_owned(),
    ]
    .iter()
    .enumerate()
    {
        fs::write(record.with_file_name(format!("{n:032x}.json")), text).unwrap();
    }
    for command in ["list", "repair"] {
        let (found, code) = json(&[command]);
        assert_eq!((code, &found["fine"]), (Some(0), &json!(true)), "{command}: {found}");
    }
    assert_eq!(json(&["list"]).0["rows"].as_array().unwrap().len(), 1);
    assert_eq!(json(&["gc"]).1, Some(0));
    assert_eq!(files(STATE.as_ref()), std::slice::from_ref(&record));
    // The volume's own record is nonsense: its unmount goes by the kernel.
    for text in ["", "{}", "\0", &with("target", json!("/srv/other")), &with("boot", json!("x"))] {
        fs::write(&record, text).unwrap();
        Call::unmount(&volume).succeeds();
        assert!(mounts_at(&volume.path()).is_empty() && files(STATE.as_ref()).is_empty(), "{text}");
        Call::mount(&volume).succeeds();
    }
    Call::unmount(&volume).succeeds();
    fs::remove_dir_all(volume.pod().folder()).unwrap();
    node.assert_nothing_left("after nonsense");
}

fn validate(node: &VolumeNode) {
    let answer = run(&["validate"]);
    assert!(
        answer.ok() && answer.stdout.contains("tmpfs") && answer.stdout.contains("cannot be told apart"),
        "{answer:?}"
    );
    node.policy("timeout: 30s\nbackends: {tmpfs: {maxSize: 1Gi}, bind: {roots: [{path: /srv/shared, namespaces: [team-a], readOnly: true}]}}\n");
    let answer = run(&["validate"]);
    for words in ["at most 30s", "at most 1Gi", "/srv/shared read-only; for team-a", "off"] {
        assert!(answer.ok() && answer.stdout.contains(words), "{words}: {answer:?}");
    }
    let (found, code) = json(&["validate"]);
    assert!(code == Some(0) && found["fine"] == true && found["allows"].is_array(), "{found}");
    fs::write("/srv/mine.yaml", "timout: 1s\n").unwrap();
    let answer = run(&["validate", "/srv/mine.yaml"]);
    assert!(answer.exit == Some(1) && answer.stderr.contains("did you mean `timeout`?"), "{answer:?}");
    let answer = run(&["validate", "/srv/none.yaml"]);
    assert!(answer.exit == Some(1) && answer.stderr.contains("/srv/none.yaml"), "{answer:?}");
    tool(&["chmod", "666", "/etc/nodeplug/flexvolume.yaml"]);
    let answer = run(&["validate"]);
    assert!(answer.exit == Some(1) && answer.stderr.contains("chmod go-w"), "{answer:?}");
}

fn schema(_node: &VolumeNode) {
    let answer = run(&["schema"]);
    let schema = answer.json.clone().unwrap_or_else(|| panic!("{answer:?}"));
    assert_eq!(schema["additionalProperties"], false);
    let keys: Vec<&String> = schema["properties"].as_object().unwrap().keys().collect();
    for key in [
        "kubeletRoot",
        "timeout",
        "namespaces",
        "logFile",
        "logMaxSize",
        "allowSuid",
        "allowDev",
        "allowSelinuxContext",
        "busy",
        "busyWait",
        "backends",
    ] {
        assert!(keys.iter().any(|k| *k == key), "{key}: {keys:?}");
        assert!(schema["properties"][key]["description"].is_string(), "{key}");
    }
}

fn completions(_node: &VolumeNode) {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let answer = run(&["completions", shell]);
        assert!(answer.ok() && answer.stdout.contains("uninstall"), "{shell}: {answer:?}");
    }
    let script = run(&["completions", "bash"]).stdout;
    fs::write("/srv/completions", script).unwrap();
    tool(&["bash", "-n", "/srv/completions"]);
}

fn unprivileged(_node: &VolumeNode) {
    let volume = memory("web");
    folder(&volume);
    Call::mount(&volume).succeeds();
    let program = crate::ours::program("volume").display().to_string();
    let nobody = |words: &[&str]| {
        let mut all = vec!["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", &program];
        all.extend(words);
        harness::call::try_tool(&all)
    };
    for command in ["list", "gc", "repair"] {
        let answer = nobody(&[command]);
        assert!(answer.exit == Some(1) && answer.stderr.contains("run as root"), "{command}: {answer:?}");
    }
    for command in ["schema", "--help"] {
        assert!(nobody(&[command]).ok(), "{command}");
    }
    // Nobody can have a volume mounted by hand.
    let json = volume.mount_json().unwrap();
    let answer = nobody(&["mount", volume.path().to_str().unwrap(), &json]);
    let object = crate::ours::object("mount", &answer);
    assert_eq!(object["status"], "Failure", "{object}");
    let answer = nobody(&["unmount", volume.path().to_str().unwrap()]);
    assert_eq!(crate::ours::object("unmount", &answer)["status"], "Failure");
    assert_eq!(mounts_at(&volume.path()).len(), 1);
    Call::unmount(&volume).succeeds();
}
