//! What was found in kubelets and in other drivers, by its number. Those of paths that are exchanged are
//! among the tests of bind mounts.

use std::fs;
use std::path::Path;

use harness::kernel::trace;
use harness::kubelet::{Outcome, Volume};
use harness::suite::volume;
use harness::volume_look::{files, mounts_at};
use harness::volume_node::VolumeNode;
use libtest_mimic::Trial;

use crate::ours::{Call, SECRET, SECRET_BASE64, STATE, folder, memory};

pub fn trials() -> Vec<Trial> {
    vec![
        volume("cve_2018_1002100_and_2019_11249_a_secrets_name_leads_nowhere", &[], names_of_secrets),
        volume("cve_2019_11251_a_file_of_a_secret_is_never_a_symlinks_target", &[], names_of_secrets),
        volume("cve_2020_8557_no_pod_gets_a_folder_of_the_nodes_disk", &[], no_bare_folder),
        volume("cve_2020_8564_and_8566_and_2023_2878_no_secret_is_told", &[], no_secret_is_told),
        volume("cve_2022_0185_no_long_text_reaches_the_kernel", &[], short_texts),
        volume("atr_k8s_003_a_failed_mount_tells_no_secret", &[], no_secret_is_told),
        volume("no_option_names_a_program_and_no_shell_is_run", &[], no_program),
    ]
}

/// `kubectl cp` wrote wherever an archive's names led; here names are a Secret's keys.
fn names_of_secrets(node: &VolumeNode) {
    let kubelet = node.kubelet();
    for name in [
        "../x",
        "..",
        ".",
        "a/../../x",
        "/etc/x",
        "..data",
        "a\\b",
        "a b",
        "x\u{0}y",
        "ä",
        "a".repeat(254).as_str(),
    ] {
        let volume = kubelet.pod("default", "web").inline("nodeplug/tmpfs", "data").secret(name, b"v");
        let why = kubelet.set_up(&volume).refused().to_owned();
        assert!(why.contains("not one that a Secret's key can have"), "{name:?}: {why}");
        kubelet.end(volume.pod());
    }
    for name in [".x", "x..", "...", "-rf", "a".repeat(253).as_str()] {
        let volume = kubelet.pod("default", "web").inline("nodeplug/tmpfs", "data").secret(name, b"v");
        match kubelet.set_up(&volume) {
            Outcome::Mounted => {
                let about = fs::symlink_metadata(volume.path().join(name)).unwrap();
                assert!(about.is_file() && fs::read_dir(volume.path()).unwrap().count() == 1, "{name}");
            }
            other => assert_eq!(name, "...", "{other:?}"),
        }
        kubelet.end(volume.pod());
    }
    assert!(!Path::new("/var/lib/x").exists() && !Path::new("/etc/x").exists());
    node.assert_nothing_left("after names");
}

/// A success without a mount, or a folder that stays after a failure, would be the node's own disk.
fn no_bare_folder(node: &VolumeNode) {
    node.policy("backends: {tmpfs: {maxSize: 1Mi, defaultSize: 1Mi}, bind: {roots: [{path: /srv/shared, create: true}]}}\n");
    fs::create_dir_all("/srv/shared").unwrap();
    let kubelet = node.kubelet();
    let pod = kubelet.pod("default", "web");
    let volumes = [
        pod.inline("nodeplug/tmpfs", "a").option("size", "2Mi"),
        pod.inline("nodeplug/tmpfs", "b").option("bogus", "x"),
        pod.inline("nodeplug/tmpfs", "c").secret("large", &vec![b'x'; 40_000]).option("size", "4Ki"),
        pod.inline("nodeplug/bind", "d").option("source", "/srv/none"),
        pod.inline("nodeplug/bind", "e").option("source", "/srv/shared").option("subPath", ".."),
        pod.inline("nodeplug/nfs", "f").option("server", "").option("share", "/x"),
        pod.inline("nodeplug/image", "g").option("path", "/srv/none.img"),
        pod.inline("nodeplug/volume", "h"),
    ];
    for volume in &volumes {
        kubelet.set_up(volume).refused();
        assert!(!volume.path().exists(), "{}", volume.name());
    }
    // A volume in memory ends where it was said to, whatever is written.
    let capped = pod.inline("nodeplug/tmpfs", "i");
    kubelet.set_up(&capped).mounted();
    let container = kubelet.container(&[&capped]);
    let full = container.run("head -c 8m /dev/zero > /mnt/i/file; wc -c < /mnt/i/file");
    assert_eq!(full.stdout.trim(), (1 << 20).to_string(), "{full:?}");
    drop(container);
    kubelet.end(&pod);
    node.assert_nothing_left("after failures");
}

/// A secret in every volume that fails, each for another reason: not in the log, an event, an answer, a file.
fn no_secret_is_told(node: &VolumeNode) {
    node.policy("backends: {tmpfs: {}, bind: {roots: [{path: /srv/shared}]}, nfs: {}, cifs: {}}\n");
    fs::create_dir_all("/srv/shared").unwrap();
    let kubelet = node.kubelet();
    let pod = kubelet.pod("default", "web");
    let with = |volume: Volume| {
        volume.secret("password", SECRET.as_bytes()).secret("username", b"administrator-4711")
    };
    let tmpfs = |name: &str| with(pod.inline("nodeplug/tmpfs", name));
    let wrong = [
        tmpfs("a").option("size", SECRET),
        tmpfs("b").option("populate", "missing"),
        tmpfs("c").option("password", SECRET),
        tmpfs("d").option("passwrod", SECRET),
        tmpfs("e").option("mountOptions", &format!("pass={SECRET}")),
        tmpfs("f").option("mountOptions", &format!("x,{SECRET}")),
        tmpfs("g").option("size", "4Ki").secret("large", &vec![b'x'; 9000]),
        tmpfs("h").option("inodes", "1"),
        tmpfs("i").option("kubernetes.io/secret/broken", &format!("{SECRET}!")),
        with(pod.inline("nodeplug/bind", "j")).option("source", "/srv/shared"),
        with(pod.inline("nodeplug/bind", "k")).option("source", "/srv/none"),
        with(pod.inline("nodeplug/volume", "l")).option("backend", SECRET),
        with(pod.inline("nodeplug/volume", "m")),
        with(pod.inline("nodeplug/cifs", "n")).option("source", "//127.0.0.1/none").option("timeout", "2s"),
        with(pod.inline("nodeplug/nfs", "o"))
            .option("server", "127.0.0.1")
            .option("share", "/none")
            .option("timeout", "2s"),
    ];
    // Where the author wrote the secret into an option of another name, that one value is the author's own.
    let told_by_the_author = ["a", "f", "l"];
    for volume in &wrong {
        let outcome = kubelet.set_up(volume);
        if let Outcome::Refused(why) = &outcome {
            let told =
                why.contains(SECRET) || why.contains(SECRET_BASE64) || why.contains("administrator-4711");
            assert!(!told || told_by_the_author.contains(&volume.name()), "{}: {why}", volume.name());
        }
        for file in files("/run".as_ref()) {
            let text = String::from_utf8_lossy(&fs::read(&file).unwrap_or_default()).into_owned();
            assert!(!text.contains(SECRET) && !text.contains(SECRET_BASE64), "{}", file.display());
        }
    }
    for line in kubelet.log().iter().chain(&kubelet.events()) {
        assert!(!line.contains(SECRET_BASE64) && !line.contains("administrator-4711"), "{line}");
    }
    // And one that is mounted: records name its options, and nothing of the Secret.
    let good = tmpfs("z");
    kubelet.set_up(&good).mounted();
    let records = files(Path::new(STATE).join("volumes").as_path());
    let text = fs::read_to_string(&records[0]).unwrap();
    assert!(
        !text.contains(SECRET) && !text.contains(SECRET_BASE64) && !text.contains("administrator"),
        "{text}"
    );
    for output in ["table", "json"] {
        let list = Call::of("volume", &["list", "--output", output]).run();
        assert!(!format!("{list:?}").contains(SECRET), "{list:?}");
    }
    kubelet.end(&pod);
    node.assert_nothing_left("after failures");
}

/// The kernel once counted the length of a mount's text wrongly; no text of a pod reaches it at length.
fn short_texts(node: &VolumeNode) {
    let long = "x".repeat(5000);
    for (key, value) in [
        ("mountOptions", format!("noatime,{long}")),
        ("mountOptions", format!("inode64={long}")),
        ("size", "9".repeat(5000)),
        ("size", format!("{}1Mi", "0".repeat(3000))),
        ("mode", "0".repeat(5000)),
        ("huge", long.clone()),
        ("uid", format!("{}1", "0".repeat(5000))),
        ("fsType", long.clone()),
        ("kubernetes.io/fsType", long.clone()),
    ] {
        let volume = memory("web").option(key, &value);
        folder(&volume);
        let answer = trace::watch(&Call::mount(&volume), |entry| {
            if entry.number == libc::SYS_fsconfig {
                let (name, text) = (entry.text(2), entry.text(3));
                assert!(name.len() < 32 && text.len() < 64, "{key}: {name}={text}");
            }
            assert_ne!(entry.number, libc::SYS_mount, "{key}: a line of text for the kernel");
        });
        crate::ours::object("mount", &answer);
        Call::unmount(&volume).succeeds();
        assert!(mounts_at(&volume.path()).is_empty());
        fs::remove_dir_all(volume.pod().folder()).unwrap();
    }
    node.assert_nothing_left("after long texts");
}

/// One driver ran whatever `driverpath` named, another gave its options to `eval`.
fn no_program(node: &VolumeNode) {
    node.policy("backends: {tmpfs: {}, bind: {roots: [{path: /srv/shared, create: true}]}}\n");
    fs::create_dir_all("/srv/shared").unwrap();
    let kubelet = node.kubelet();
    let shell = "$(touch /run/pwned)`touch /run/pwned`;touch /run/pwned;|&\n";
    for key in ["driverpath", "program", "helper", "mkfs", "command", "exec", "LD_PRELOAD", "PATH"] {
        let volume = kubelet.pod("default", "web").inline("nodeplug/tmpfs", "data").option(key, "/bin/sh");
        let why = kubelet.set_up(&volume).refused().to_owned();
        assert!(why.contains(&format!("`{key}` is not an option")), "{why}");
        kubelet.end(volume.pod());
    }
    let tmpfs = memory("web").secret("k", shell.as_bytes());
    let bind = kubelet.pod("default", "web").inline("nodeplug/bind", "data").option("source", "/srv/shared");
    let words = "$(touch /run/pwned);`touch pwned`|&";
    let bind = bind.option("subPath", &words.replace('/', "_")).option("create", "dir").fs_group(5);
    for volume in [tmpfs, bind] {
        folder(&volume);
        assert_eq!(trace::execs(&Call::mount(&volume)), 0, "{}", volume.driver());
        assert_eq!(mounts_at(&volume.path()).len(), 1, "{}", volume.driver());
        assert_eq!(trace::execs(&Call::unmount(&volume)), 0, "{}", volume.driver());
        fs::remove_dir_all(volume.pod().folder()).unwrap();
    }
    assert!(!Path::new("/run/pwned").exists());
    node.assert_nothing_left("after words for a shell");
}
