//! What happens around `mount`.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use harness::kubelet::{Kubelet, Outcome, PLUGINS};
use harness::suite::scripted;
use harness::volume_look::mounts_at;
use harness::volume_node::VolumeNode;
use libtest_mimic::Trial;

use crate::scripts::{FAIL, INIT, OK, UNMOUNT, mounting, script, tmpfs};

pub fn trials() -> Vec<Trial> {
    vec![
        scripted("a_mounted_folder_is_a_success_without_a_call", &[], mounted_twice),
        scripted("a_failure_that_leaves_a_mount_is_mounted_at_the_next_try", &[], half_done),
        scripted("a_success_without_a_mount_is_accepted", &[], without_a_mount),
        scripted("a_failure_leaves_no_folder_unless_something_is_in_it", &[], folder_after_a_failure),
        scripted("the_group_is_given_every_file_where_the_driver_lets_it", &[], given_to_the_group),
        scripted("a_call_that_is_not_supported_is_never_made_again", &[], not_supported),
        scripted("the_default_mount_binds_the_mounted_device", &[], default_mount),
        scripted("a_secret_must_be_of_the_drivers_type", &[], type_of_a_secret),
        scripted("mount_options_of_a_volume_are_refused", &[], mount_options),
        scripted("mount_gets_what_a_whole_kubelet_sends", &[], as_a_whole_kubelet),
        scripted("sizes_are_asked_for_where_the_driver_says_so", &[], metrics),
    ]
}

fn mounted_twice(node: &VolumeNode) {
    // A bind mount of a folder of the same filesystem is one, too.
    let bind = format!("mkdir -p /var/lib/source; mount --bind /var/lib/source \"$2\"; {OK}");
    for (driver, line) in [("test/tmpfs", tmpfs()), ("test/bind", mounting(&bind))] {
        node.install_script(driver, &line);
        let kubelet = node.kubelet();
        let volume = kubelet.pod("default", "web").inline(driver, "data");
        kubelet.set_up(&volume).mounted();
        assert_eq!(kubelet.set_up(&volume), Outcome::AlreadyMounted);
        assert_eq!(kubelet.verbs(driver), ["init", "mount"]);
        assert_eq!(fs::metadata(volume.path().parent().unwrap()).unwrap().mode() & 0o7777, 0o750);
        kubelet.end(volume.pod());
    }
}

fn half_done(node: &VolumeNode) {
    let line = format!("mount -t tmpfs scripted \"$2\"; {FAIL}");
    node.install_script("test/disk", &mounting(&line));
    let kubelet = node.kubelet();
    let volume = kubelet.pod("default", "web").inline("test/disk", "data");
    kubelet.set_up(&volume).refused();
    assert_eq!(mounts_at(&volume.path()).len(), 1);
    assert_eq!(kubelet.set_up(&volume), Outcome::AlreadyMounted);
    assert_eq!(kubelet.verbs("test/disk"), ["init", "mount"]);
}

fn without_a_mount(node: &VolumeNode) {
    node.install_script("test/disk", &mounting(OK));
    let kubelet = node.kubelet();
    let volume = kubelet.pod("default", "web").inline("test/disk", "data");
    kubelet.set_up(&volume).mounted();
    let container = kubelet.container(&[&volume]);
    container.says("echo lost > /mnt/data/file");
    assert!(volume.path().join("file").exists(), "it writes to the host's disk");
    assert_eq!(kubelet.restart().set_up, [(volume.path(), Outcome::Mounted)]);
    assert_eq!(kubelet.verbs("test/disk"), ["init", "mount", "init", "mount"]);
}

fn folder_after_a_failure(node: &VolumeNode) {
    node.install_script("test/disk", &mounting(FAIL));
    node.install_script("test/litter", &mounting(&format!(": > \"$2/file\"; {FAIL}")));
    let kubelet = node.kubelet();
    let pod = kubelet.pod("default", "web");
    let (clean, litter) = (pod.inline("test/disk", "data"), pod.inline("test/litter", "data"));
    kubelet.set_up(&clean).refused();
    kubelet.set_up(&litter).refused();
    assert!(!clean.path().exists() && litter.path().join("file").exists());
    let verbs = kubelet.verbs("test/disk");
    assert!(!verbs.contains(&"unmount".to_owned()), "a failed mount gets no unmount: {verbs:?}");
}

fn given_to_the_group(node: &VolumeNode) {
    let bind = format!("mount --bind /srv/source \"$2\"; {OK}");
    let lets = r#"echo '{"status":"Success","capabilities":{"attach":false}}'"#;
    node.install_script("test/lets", &script(&[("init", lets), ("mount", &bind), ("unmount", UNMOUNT)]));
    node.install_script("test/keeps", &mounting(&bind));
    let kubelet = node.kubelet();
    let source = Path::new("/srv/source");
    let file = source.join("folder/file");
    let owner = |path: &Path| {
        let found = fs::symlink_metadata(path).unwrap();
        (found.gid(), found.mode() & 0o7777)
    };
    let cases = [("test/keeps", false, false), ("test/lets", true, false), ("test/lets", false, true)];
    for (driver, read_only, given) in cases {
        fs::create_dir_all(source.join("folder")).unwrap();
        fs::write(&file, "").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let volume = kubelet.pod("default", "web").inline(driver, "data").fs_group(1234);
        let volume = if read_only { volume.read_only() } else { volume };
        kubelet.set_up(&volume).mounted();
        let expect = if given { ((1234, 0o660), (1234, 0o2775)) } else { ((0, 0o600), (0, 0o755)) };
        assert_eq!((owner(&file), owner(source)), expect, "{driver} {read_only}");
        let json = kubelet.calls().last().unwrap().arguments[2].clone();
        assert!(json.contains("\"kubernetes.io/mounterArgs.FsGroup\":\"1234\""), "{json}");
        kubelet.end(volume.pod());
    }
}

fn verbs_since(kubelet: &Kubelet, seen: &mut usize) -> Vec<String> {
    let verbs = kubelet.verbs("test/disk").split_off(*seen);
    *seen += verbs.len();
    verbs
}

fn not_supported(node: &VolumeNode) {
    node.install_script("test/disk", &script(&[("init", INIT)]));
    let kubelet = node.kubelet();
    let volume = kubelet.pod("default", "web").inline("test/disk", "data");
    let mut seen = 0;
    let why = kubelet.set_up(&volume).refused().to_owned();
    assert!(why.contains("special device") && why.contains("does not exist"), "{why}");
    assert_eq!(verbs_since(&kubelet, &mut seen), ["init", "mount", "getvolumename"]);
    kubelet.set_up(&volume).refused();
    kubelet.set_up(&volume).refused();
    assert_eq!(verbs_since(&kubelet, &mut seen), Vec::<String>::new());
    harness::call::tool(&["touch", &format!("{PLUGINS}/test~disk/disk")]);
    kubelet.set_up(&volume).refused();
    assert_eq!(verbs_since(&kubelet, &mut seen), ["init", "mount", "getvolumename"]);
}

fn default_mount(node: &VolumeNode) {
    node.install_script("test/disk", &script(&[("init", INIT)]));
    let kubelet = node.kubelet();
    let volume = kubelet.pod("default", "web").inline("test/disk", "data");
    fs::create_dir_all(volume.device_path()).unwrap();
    fs::write(volume.device_path().join("file"), "").unwrap();
    kubelet.set_up(&volume).mounted();
    assert!(volume.path().join("file").exists());
    kubelet.tear_down(&volume).unmounted();
    assert_eq!(kubelet.verbs("test/disk"), ["init", "mount", "getvolumename", "unmount"]);
    assert!(volume.device_path().join("file").exists());
}

fn type_of_a_secret(node: &VolumeNode) {
    node.install_script("test/disk", &tmpfs());
    let kubelet = node.kubelet();
    let volume = kubelet.pod("default", "web").inline("test/disk", "data").secret("k", b"v");
    let outcome = kubelet.set_up(&volume.clone().secret_type("Opaque"));
    assert!(outcome.refused().ends_with("cannot get secret of type test/disk"), "{outcome:?}");
    assert!(!volume.path().exists());
    assert_eq!(kubelet.verbs("test/disk"), ["init"]);
    kubelet.set_up(&volume).mounted();
}

fn mount_options(node: &VolumeNode) {
    node.install_script("test/disk", &tmpfs());
    let kubelet = node.kubelet();
    let volume = kubelet.pod("default", "web").persistent("test/disk", "pv-1").mount_options();
    let why = kubelet.set_up(&volume).refused().to_owned();
    assert_eq!(why, "Mount options are not supported for this volume type");
    assert_eq!(kubelet.verbs("test/disk"), ["init"]);
}

fn as_a_whole_kubelet(node: &VolumeNode) {
    node.install_script("vendor/logger", &script(&[("init", INIT), ("mount", OK), ("unmount", OK)]));
    let kubelet = node.kubelet();
    let mut pod = kubelet.pod("default", "flexstatic-localhost");
    pod.uid = "d18e1b533c695e07976161b355b863fc".to_owned();
    pod.service_account = String::new();
    let volume = pod.inline("vendor/logger", "v").option("opt1", "one");
    kubelet.set_up(&volume).mounted();
    kubelet.tear_down(&volume).unmounted();
    let path = "/var/lib/kubelet/pods/d18e1b533c695e07976161b355b863fc/volumes/vendor~logger/v";
    let json = "{\"kubernetes.io/fsType\":\"\",\"kubernetes.io/pod.name\":\"flexstatic-localhost\",\
                \"kubernetes.io/pod.namespace\":\"default\",\
                \"kubernetes.io/pod.uid\":\"d18e1b533c695e07976161b355b863fc\",\
                \"kubernetes.io/pvOrVolumeName\":\"v\",\"kubernetes.io/readwrite\":\"rw\",\
                \"kubernetes.io/serviceAccount.name\":\"\",\"opt1\":\"one\"}";
    let calls: Vec<_> = kubelet.calls().into_iter().filter(|c| c.driver == "vendor/logger").collect();
    let arguments: Vec<Vec<String>> = calls.into_iter().map(|c| c.arguments).collect();
    assert_eq!(arguments, [vec!["init"], vec!["mount", path, json], vec!["unmount", path]]);
}

fn metrics(node: &VolumeNode) {
    let init = r#"echo '{"status":"Success","capabilities":{"attach":false,"supportsMetrics":true}}'"#;
    let mount = format!("mount -t tmpfs -o size=1M scripted \"$2\"; {OK}");
    node.install_script("test/tells", &script(&[("init", init), ("mount", &mount)]));
    node.install_script("test/silent", &tmpfs());
    let kubelet = node.kubelet();
    let pod = kubelet.pod("default", "web");
    let (tells, silent) = (pod.inline("test/tells", "a"), pod.inline("test/silent", "b"));
    assert_eq!(kubelet.set_up_all(&[tells.clone(), silent.clone()]), [Outcome::Mounted, Outcome::Mounted]);
    assert_eq!(kubelet.metrics(&tells), Some((1 << 20, 1 << 20)));
    assert_eq!(kubelet.metrics(&silent), None);
}
