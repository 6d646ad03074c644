//! Folders, options and pods that want more than they may have.

mod cves;
mod noise;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use harness::call::tool;
use harness::kubelet::{Pod, Volume};
use harness::suite::{volume, volume_shared};
use harness::volume_look::mounts_at;
use harness::volume_node::VolumeNode;
use libtest_mimic::Trial;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::ours::{Call, SECRET, folder, memory};

pub fn trials() -> Vec<Trial> {
    let mut all = own();
    all.extend(cves::trials());
    all.extend(noise::trials());
    all
}

fn own() -> Vec<Trial> {
    vec![
        volume("a_volumes_folder_is_reached_through_no_symlink", &[], symlinks),
        volume("a_volumes_folder_exchanged_meanwhile_is_not_followed", &[], exchanged),
        volume("a_kubelet_whose_root_is_a_symlink_is_served", &[], linked_root),
        volume("a_folder_of_another_shape_is_refused", &[], shapes),
        volume("a_folder_of_another_pod_is_refused", &[], other_pod),
        volume("a_folder_that_is_a_file_or_missing_is_refused", &[], no_folder),
        volume("what_a_stranger_mounted_is_not_taken_for_the_volume", &[], stranger),
        volume_shared("mounts_over_one_another_all_go", &[], stacked),
        volume("what_lies_in_the_folder_is_named_and_stays", &[], litter),
        volume("options_under_the_kubelets_names_win_nothing", &[], kubelets_names),
        volume("what_only_the_api_server_keeps_apart", &[], namespaces),
        volume("no_mount_option_is_smuggled_in", &[], smuggled),
        volume("a_message_is_one_line_whatever_was_asked", &[], one_line),
    ]
}

/// What must stay as it is: a folder with a file, and a mount with a file.
fn victims() -> [PathBuf; 2] {
    let victims = ["/srv/victim", "/srv/mounted"].map(PathBuf::from);
    for victim in &victims {
        fs::create_dir_all(victim).unwrap();
    }
    tool(&["mount", "-t", "tmpfs", "victim", "/srv/mounted"]);
    for victim in &victims {
        fs::write(victim.join("file"), "theirs").unwrap();
    }
    victims
}

#[track_caller]
fn untouched(victims: &[PathBuf; 2], when: &str) {
    let count = victims.each_ref().map(|v| mounts_at(v).len());
    assert_eq!(count, [0, 1], "{when}");
    for victim in victims {
        assert_eq!(fs::read_to_string(victim.join("file")).unwrap(), "theirs", "{when}");
        assert_eq!(fs::read_dir(victim).unwrap().count(), 1, "{when}");
    }
}

fn symlinks(node: &VolumeNode) {
    let victims = victims();
    node.keep();
    let volume = memory("web");
    let path = volume.path();
    let below: Vec<&Path> = path.ancestors().take(5).collect();
    for (depth, link) in below.iter().enumerate() {
        for victim in &victims {
            // The victim has all that lies behind the link.
            let rest = path.strip_prefix(link).unwrap();
            fs::create_dir_all(victim.join(rest)).unwrap();
            fs::create_dir_all(link.parent().unwrap()).unwrap();
            let aside = fs::rename(link, "/var/lib/kubelet/aside");
            symlink(victim, link).unwrap();
            let message = Call::mount(&volume).fails();
            assert!(message.contains("symlink"), "{depth}: {message}");
            let answer = Call::unmount(&volume).object();
            assert_eq!(mounts_at(Path::new("/srv/mounted")).len(), 1, "{depth}: {answer}");
            fs::remove_file(link).unwrap();
            if aside.is_ok() {
                fs::rename("/var/lib/kubelet/aside", link).unwrap();
            }
            if let Some(first) = rest.components().next() {
                fs::remove_dir_all(victim.join(first)).unwrap();
            }
            untouched(&victims, &format!("{depth} {}", victim.display()));
        }
    }
    drop(fs::remove_dir_all(volume.pod().folder()));
    node.assert_nothing_left("after symlinks");
}

fn exchanged(node: &VolumeNode) {
    let victims = victims();
    node.keep();
    let (over, mut mounted) = (AtomicBool::new(false), 0);
    let volume = memory("web");
    let path = folder(&volume);
    for victim in &victims {
        let link = path.with_file_name("link");
        symlink(victim, &link).unwrap();
        over.store(false, Ordering::Relaxed);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    // A name that is a mount point cannot be exchanged.
                    let _ = renameat_with(CWD, &path, CWD, &link, RenameFlags::EXCHANGE);
                }
            });
            for _ in 0..40 {
                let answer = Call::mount(&volume).object();
                mounted += usize::from(answer["status"] == "Success");
                Call::unmount(&volume).object();
            }
            over.store(true, Ordering::Relaxed);
        });
        let is_link = |p: &Path| p.symlink_metadata().unwrap().is_symlink();
        let (theirs, ours) = if is_link(&path) { (&path, &link) } else { (&link, &path) };
        // A mount goes onto the folder that was looked at, whatever its name is by then.
        for _ in mounts_at(ours) {
            tool(&["umount", ours.to_str().unwrap()]);
        }
        fs::remove_file(theirs).unwrap();
        if *ours != path {
            fs::rename(ours, &path).unwrap();
        }
        Call::unmount(&volume).succeeds();
        untouched(&victims, "exchanged");
    }
    assert!(mounted > 0, "nothing was ever mounted");
    fs::remove_dir_all(volume.pod().folder()).unwrap();
    node.assert_nothing_left("after exchanges");
}

/// Nodes whose small root disk has the kubelet's folder on another.
fn linked_root(node: &VolumeNode) {
    fs::rename("/var/lib/kubelet", "/var/lib/data").unwrap();
    symlink("data", "/var/lib/kubelet").unwrap();
    let kubelet = node.kubelet();
    let volume = kubelet.pod("default", "web").inline("nodeplug/tmpfs", "data").secret("k", b"v");
    kubelet.set_up(&volume).mounted();
    let real = Path::new("/var/lib/data").join(volume.path().strip_prefix("/var/lib/kubelet").unwrap());
    assert_eq!(mounts_at(&real).len(), 1);
    let list = Call::of("volume", &["list", "-o", "json"]).run();
    assert_eq!(list.json.as_ref().unwrap()["rows"][0]["health"], "fine", "{list:?}");
    let gc = Call::of("volume", &["gc"]).run();
    assert!(gc.ok() && gc.stdout == "0 found\n", "what is mounted is not taken for lost: {gc:?}");
    kubelet.end(volume.pod());
    node.assert_nothing_left("with a root that is a symlink");
}

fn shapes(node: &VolumeNode) {
    let victims = victims();
    node.keep();
    let json = memory("web").mount_json().unwrap();
    for path in [
        "/srv/mounted",
        "/srv/victim",
        "/",
        "/var/lib/kubelet",
        "/var/lib/kubelet/pods",
        "/var/lib/kubelet/pods/u/volumes/nodeplug~tmpfs",
        "/var/lib/kubelet/pods/u/volumes/nodeplug~tmpfs/data/below",
        "/var/lib/kubelet/pods/u/volumes/nodeplug~tmpfs/..",
        "/var/lib/kubelet/pods/../../../../srv/mounted",
        "/var/lib/kubelet/pods/u/volumes/../../../../../../srv/mounted",
        "/var/lib/kubelet/pods//volumes/nodeplug~tmpfs/data",
        "/var/lib/kubelet/pods/u/volumes/nodeplug~tmpfs/data/",
        "/var/lib/kubelet/plugins/kubernetes.io/flexvolume/x/mounts/data",
        "/var/lib/kubeletx/pods/u/volumes/nodeplug~tmpfs/data",
        "var/lib/kubelet/pods/u/volumes/nodeplug~tmpfs/data",
        "/var/lib/kubelet/pods/u/volumes/nodeplug~tmpfs/da\nta",
    ] {
        for call in [Call::of("tmpfs", &["mount", path, &json]), Call::of("tmpfs", &["unmount", path])] {
            let message = call.fails();
            assert!(message.contains("pods/<uid>/volumes/<vendor~driver>/<name>"), "{path}: {message}");
            untouched(&victims, path);
        }
    }
    // Outside the root that the policy names, and in the kubelet's shape all the same.
    let path = "/srv/kubelet/pods/u/volumes/nodeplug~tmpfs/data";
    fs::create_dir_all(path).unwrap();
    tool(&["mount", "-t", "tmpfs", "theirs", path]);
    Call::of("tmpfs", &["unmount", path]).fails();
    assert_eq!(mounts_at(Path::new(path)).len(), 1);
    node.policy("kubeletRoot: /srv/kubelet\n");
    Call::of("tmpfs", &["unmount", path]).succeeds();
    assert!(mounts_at(Path::new(path)).is_empty());
    Call::of("tmpfs", &["mount", "/var/lib/kubelet/pods/u/volumes/nodeplug~tmpfs/data", &json]).fails();
    node.assert_nothing_left("after shapes");
}

fn other_pod(node: &VolumeNode) {
    let (mine, theirs) = (memory("mine"), memory("theirs"));
    folder(&mine);
    let path = folder(&theirs);
    let json = mine.mount_json().unwrap();
    let message = Call::of("tmpfs", &["mount", path.to_str().unwrap(), &json]).fails();
    assert!(message.contains(&mine.pod().uid) && message.contains("kubernetes.io/pod.uid"), "{message}");
    for lie in [theirs.pod().uid.as_str(), "", "../x", "*"] {
        let message = Call::mount(&mine.clone().option("kubernetes.io/pod.uid", lie)).fails();
        assert!(message.contains("is of the pod"), "{message}");
    }
    assert!(mounts_at(&path).is_empty() && mounts_at(&mine.path()).is_empty());
    for volume in [&mine, &theirs] {
        fs::remove_dir_all(volume.pod().folder()).unwrap();
    }
    node.assert_nothing_left("after another pod's folder");
}

fn no_folder(node: &VolumeNode) {
    let volume = memory("web");
    let message = Call::mount(&volume).fails();
    assert!(message.contains("No such file or directory"), "{message}");
    let path = folder(&volume);
    fs::remove_dir(&path).unwrap();
    fs::write(&path, "a file").unwrap();
    let message = Call::mount(&volume).fails();
    assert!(message.contains("Not a directory"), "{message}");
    let answer = Call::unmount(&volume).object();
    assert_eq!(fs::read_to_string(&path).unwrap(), "a file", "{answer}");
    fs::remove_file(&path).unwrap();
    tool(&["mkfifo", path.to_str().unwrap()]);
    Call::mount(&volume).fails();
    Call::unmount(&volume).object();
    fs::remove_dir_all(volume.pod().folder()).unwrap();
    node.assert_nothing_left("after what is no folder");
}

fn stranger(node: &VolumeNode) {
    let volume = memory("web");
    let path = folder(&volume);
    tool(&["mount", "-t", "tmpfs", "stranger", path.to_str().unwrap()]);
    fs::write(path.join("file"), "theirs").unwrap();
    let message = Call::mount(&volume).fails();
    assert!(message.contains("knows nothing of") && message.contains("findmnt"), "{message}");
    assert_eq!(fs::read_to_string(path.join("file")).unwrap(), "theirs");
    Call::unmount(&volume).succeeds();
    assert!(mounts_at(&path).is_empty(), "the pod has to end all the same");
    // One of ours, asked for as another backend's.
    Call::mount(&volume).succeeds();
    node.policy("backends: {tmpfs: {}, bind: {roots: [{path: /srv/shared}]}}\n");
    fs::create_dir_all("/srv/shared").unwrap();
    let other = volume.clone().without("size").option("backend", "bind").option("source", "/srv/shared");
    let json = other.mount_json().unwrap();
    let message = Call::of("volume", &["mount", path.to_str().unwrap(), &json]).fails();
    assert!(message.contains("a volume of the backend `tmpfs` is mounted there"), "{message}");
    Call::unmount(&volume).succeeds();
    fs::remove_dir_all(volume.pod().folder()).unwrap();
    node.assert_nothing_left("after a stranger");
}

fn stacked(node: &VolumeNode) {
    let kubelet = node.kubelet();
    let volume = kubelet.pod("default", "web").inline("nodeplug/tmpfs", "data");
    kubelet.set_up(&volume).mounted();
    let path = volume.path();
    for _ in 0..3 {
        tool(&["mount", "-t", "tmpfs", "over", path.to_str().unwrap()]);
    }
    fs::create_dir(path.join("below")).unwrap();
    tool(&["mount", "-t", "tmpfs", "below", path.join("below").to_str().unwrap()]);
    kubelet.tear_down(&volume).unmounted();
    kubelet.end(volume.pod());
    node.assert_nothing_left("after mounts over one another");
}

fn litter(node: &VolumeNode) {
    let kubelet = node.kubelet();
    let volume = kubelet.pod("default", "web").inline("nodeplug/tmpfs", "data");
    let path = folder(&volume);
    for name in ["a\nb", "precious", "x\u{1b}[31m"] {
        fs::write(path.join(name), "data").unwrap();
    }
    kubelet.set_up(&volume).mounted();
    assert!(!path.join("precious").exists(), "it is below the volume");
    let why = kubelet.tear_down(&volume).refused().to_owned();
    assert!(why.contains("and 2 more") && why.contains("move it away"), "{why}");
    assert!(!why.contains('\n') && !why.contains('\u{1b}'), "{why:?}");
    assert!(mounts_at(&path).is_empty());
    assert_eq!(fs::read_to_string(path.join("precious")).unwrap(), "data");
    fs::remove_dir_all(&path).unwrap();
    kubelet.end(volume.pod());
    node.assert_nothing_left("after litter");
}

/// The API server forbids them; static pods and other servers may not.
fn kubelets_names(node: &VolumeNode) {
    let kubelet = node.kubelet();
    let data = || kubelet.pod("default", "web").inline("nodeplug/tmpfs", "data").option("size", "1Mi");
    for (key, value) in [
        ("kubernetes.io/pod.uid", "another"),
        ("kubernetes.io/secret/../../etc/passwd", "eA=="),
        ("kubernetes.io/secret/..", "eA=="),
        ("kubernetes.io/secret/a/b", "eA=="),
        ("kubernetes.io/secret/", "eA=="),
        ("kubernetes.io/secret/k", "not base64!"),
        ("kubernetes.io/mounterArgs.FsGroup", "-1"),
        ("kubernetes.io/fsGroup", "root"),
    ] {
        let volume = data().option(key, value);
        kubelet.set_up(&volume).refused();
        assert!(mounts_at(&volume.path()).is_empty(), "{key}");
        kubelet.end(volume.pod());
    }
    // What the kubelet may say one day changes nothing; what the pod says of the volume's name goes nowhere.
    for (key, value) in [
        ("kubernetes.io/some.new.word", "x"),
        ("kubernetes.io/pvOrVolumeName", "../../../../../srv"),
        ("kubernetes.io/readwrite", "everything"),
        ("kubernetes.io/fsType", "proc"),
        ("kubernetes.io/mountsDir", "/srv"),
    ] {
        let volume = data().option(key, value);
        kubelet.set_up(&volume).mounted();
        assert_eq!(mounts_at(&volume.path())[0].kind, "tmpfs", "{key}");
        kubelet.end(volume.pod());
    }
    node.assert_nothing_left("after the kubelet's names");
}

/// The namespace is the kubelet's word in one map with the pod author's. Who can write options of that name
/// (no API server since 1.9 lets a user) is believed.
fn namespaces(node: &VolumeNode) {
    node.policy("backends: {tmpfs: {namespaces: [trusted]}}\n");
    let kubelet = node.kubelet();
    let data = || kubelet.pod("default", "web").inline("nodeplug/tmpfs", "data");
    let why = kubelet.set_up(&data()).refused().to_owned();
    assert!(why.contains("`default`"), "{why}");
    let volume = data().option("kubernetes.io/pod.namespace", "trusted");
    kubelet.set_up(&volume).mounted();
    kubelet.end(volume.pod());
    for lie in ["", "*", "trusted,default", "TRUSTED", "trusted\n", "trusted\0"] {
        let volume = data().option("kubernetes.io/pod.namespace", lie);
        kubelet.set_up(&volume).refused();
    }
    node.assert_nothing_left("after namespaces");
}

/// What must not pass beside what may.
const SMUGGLED: &[&str] = &[
    ",suid",
    "noatime,suid",
    "noatime,dev",
    "noatime, suid",
    "noatime,\tsuid",
    "noatime\nsuid",
    "noatime\0suid",
    "noatime\u{2c}suid",
    "noatime\\,suid",
    "\"noatime,suid\"",
    "'noatime'",
    "-osuid",
    "--bind",
    "noatime,-o,suid",
    "noatime=,suid",
    "suid=1",
    "SUID",
    "nosuid=0",
    "atime",
    "user",
    "users",
    "loop",
    "loop=/dev/loop0",
    "offset=1",
    "helper=sh",
    "uhelper=sh",
    "context=x",
    "fscontext=x",
    "credentials=/etc/shadow",
    "password=hunter2-4711",
    "pass=a,hunter2-4711",
    "x-systemd.requires=x",
    "_netdev",
    "size=100%",
    "nr_inodes=0",
    "huge=always",
    "mpol=bind:0",
    "usrquota",
    "noatime;suid",
    "noatime suid",
    "noatime%2csuid",
    "noatime；suid",
    "noatime，suid",
    "ro,rw",
    "defaults",
    "move",
    "remount,suid",
    "shared",
    "private",
];

fn smuggled(node: &VolumeNode) {
    let kubelet = node.kubelet();
    let data = |options: &str| {
        kubelet.pod("default", "web").inline("nodeplug/tmpfs", "data").option("mountOptions", options)
    };
    for bad in SMUGGLED {
        let volume = data(bad);
        let why = kubelet.set_up(&volume).refused().to_owned();
        assert!(why.contains("mountOptions") && !why.contains("hunter2"), "{bad:?}: {why}");
        kubelet.end(volume.pod());
    }
    let long = vec!["noatime"; 600].join(",");
    kubelet.set_up(&data(&long)).refused();
    // The fullwidth comma and the like separate nothing, and what is allowed keeps what is always set.
    let volume = data(" noatime , nodiratime ");
    kubelet.set_up(&volume).mounted();
    let options = &mounts_at(&volume.path())[0].options;
    assert!(["nosuid", "nodev"].iter().all(|o| options.iter().any(|x| x == o)), "{options:?}");
    kubelet.end(volume.pod());
    node.assert_nothing_left("after smugglers");
}

fn one_line(node: &VolumeNode) {
    let pod = Pod::new("default", "web");
    let strange = "\u{1b}]0;pwned\u{7}\r\n\"}{\u{202e}\u{0}💥";
    let volumes: Vec<Volume> = [
        "size",
        "source",
        "backend",
        "mode",
        "populate",
        strange,
        "readOnly",
        "timeout",
        "fsType",
        "selinuxContext",
    ]
    .iter()
    .map(|key| pod.inline("nodeplug/tmpfs", "data").option(key, strange).secret("k", SECRET.as_bytes()))
    .collect();
    for volume in volumes {
        folder(&volume);
        let answer = Call::mount(&volume).object();
        let message = answer["message"].as_str().unwrap_or_default();
        assert!(message.chars().all(|c| !c.is_control()), "{message:?}");
        assert!(message.len() <= 1024 && !message.contains(SECRET), "{message}");
        Call::unmount(&volume).succeeds();
        fs::remove_dir_all(pod.folder()).unwrap();
    }
    node.assert_nothing_left("after strange words");
}
