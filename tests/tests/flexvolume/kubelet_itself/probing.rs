//! How drivers are found, loaded again, and lost.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Instant;

use harness::call::{LIMIT, tool};
use harness::kubelet::{Capabilities, Kubelet, Outcome, PLUGINS};
use harness::suite::scripted;
use harness::volume_node::VolumeNode;
use libtest_mimic::Trial;

use super::held_by;
use crate::scripts::{INIT, OK, script, tmpfs};

pub fn trials() -> Vec<Trial> {
    vec![
        scripted("a_driver_is_asked_once_what_it_can_do", &[], asked_once),
        scripted("a_driver_without_a_vendor_is_found", &[], without_a_vendor),
        scripted("a_linked_folder_is_no_driver_and_a_linked_program_is", &[], links),
        scripted("an_init_that_fails_is_not_tried_again_before_an_event", &[], failing_init),
        scripted("a_driver_that_writes_beside_itself_is_asked_each_time", &[], writes_beside_itself),
        scripted("a_driver_that_is_removed_is_lost", &[], removed),
        scripted("a_folder_renamed_into_place_makes_no_errors", &[], installed_whole),
        scripted("a_folder_filled_step_by_step_makes_errors", &[], installed_in_steps),
        scripted("a_program_renamed_into_place_is_asked_once_more", &[], upgraded),
        scripted("a_slow_init_holds_up_every_volume", &[], slow_init),
        scripted("a_capability_that_is_not_told_has_a_default", &[], defaults),
        scripted("capabilities_of_null_crash_the_kubelet", &[], null_capabilities),
        scripted("the_folder_of_drivers_is_made_again", &[], made_again),
    ]
}

fn inits(kubelet: &Kubelet) -> usize {
    kubelet.calls().iter().filter(|c| c.arguments == ["init"] && c.driver.starts_with("test")).count()
}

fn look_up(kubelet: &Kubelet, driver: &str, times: usize) -> usize {
    let before = inits(kubelet);
    for _ in 0..times {
        kubelet.look_up(driver);
    }
    inits(kubelet) - before
}

fn asked_once(node: &VolumeNode) {
    node.install_script("test/disk", &tmpfs());
    let kubelet = node.kubelet();
    assert_eq!(inits(&kubelet), 0, "nothing is loaded before the first lookup");
    assert_eq!(look_up(&kubelet, "test/disk", 10), 1);
    assert_eq!(kubelet.look_up("test/other"), None);
}

fn without_a_vendor(node: &VolumeNode) {
    node.install_script("test", &tmpfs());
    assert!(node.kubelet().look_up("test").is_some());
}

fn links(node: &VolumeNode) {
    node.install_script("elsewhere/disk", &tmpfs());
    let elsewhere = "/opt/elsewhere";
    tool(&["mv", &format!("{PLUGINS}/elsewhere~disk"), elsewhere]);
    symlink(elsewhere, format!("{PLUGINS}/test~folder")).unwrap();
    symlink(format!("{elsewhere}/disk"), format!("{elsewhere}/folder")).unwrap();
    fs::create_dir(format!("{PLUGINS}/test~program")).unwrap();
    symlink(format!("{elsewhere}/disk"), format!("{PLUGINS}/test~program/program")).unwrap();
    let kubelet = node.kubelet();
    assert_eq!(kubelet.look_up("test/folder"), None);
    assert!(kubelet.look_up("test/program").is_some());
}

fn failing_init(node: &VolumeNode) {
    node.install_script("test/disk", "#!/bin/sh\n");
    let kubelet = node.kubelet();
    assert_eq!(look_up(&kubelet, "test/disk", 10), 1, "at the start");
    tool(&["touch", &format!("{PLUGINS}/test~disk/disk")]);
    assert_eq!(look_up(&kubelet, "test/disk", 10), 10, "after an event");
    let spam = kubelet.log().iter().filter(|l| l.ends_with("Error: unexpected end of JSON input")).count();
    assert_eq!(spam, 11);
}

fn writes_beside_itself(node: &VolumeNode) {
    let cases = [("test/loud", "log", 6), ("test/quiet", ".log", 1)];
    for (driver, file, expect) in cases {
        let init = format!("echo >> \"${{0%/*}}/{file}\"; {INIT}");
        node.install_script(driver, &script(&[("init", &init)]));
        let kubelet = node.kubelet();
        assert_eq!(look_up(&kubelet, driver, 6), expect, "{file}");
        fs::remove_dir_all(Path::new(PLUGINS).join(driver.replace('/', "~"))).unwrap();
    }
}

fn removed(node: &VolumeNode) {
    for what in ["test~disk/disk", "test~disk"] {
        node.install_script("test/disk", &tmpfs());
        let kubelet = node.kubelet();
        let volume = kubelet.pod("default", "web").inline("test/disk", "data");
        kubelet.set_up(&volume).mounted();
        tool(&["rm", "-r", &format!("{PLUGINS}/{what}")]);
        assert_eq!(kubelet.tear_down(&volume).refused(), "no volume plugin matched");
        assert_eq!(kubelet.events(), Vec::<String>::new(), "nobody tells the pod");
        drop(fs::remove_dir(format!("{PLUGINS}/test~disk")));
        node.install_script("test/disk", &tmpfs());
        kubelet.tear_down(&volume).unmounted();
        tool(&["rm", "-r", &format!("{PLUGINS}/test~disk")]);
    }
}

fn errors(kubelet: &Kubelet) -> Vec<String> {
    kubelet.log().into_iter().filter(|l| l.starts_with("E ")).collect()
}

fn installed_whole(node: &VolumeNode) {
    let kubelet = node.kubelet();
    assert_eq!(kubelet.look_up("test/disk"), None);
    let hidden = format!("{PLUGINS}/.test~disk.tmp");
    fs::create_dir(&hidden).unwrap();
    kubelet.look_up("test/disk");
    node.write_program(&Path::new(&hidden).join("disk"), &tmpfs());
    kubelet.look_up("test/disk");
    fs::rename(&hidden, format!("{PLUGINS}/test~disk")).unwrap();
    assert!(kubelet.look_up("test/disk").is_some());
    assert_eq!(inits(&kubelet), 1);
    let errors: Vec<_> = errors(&kubelet).into_iter().filter(|l| l.contains("test~disk")).collect();
    assert_eq!(errors, Vec::<String>::new());
}

fn installed_in_steps(node: &VolumeNode) {
    let kubelet = node.kubelet();
    kubelet.look_up("test/disk");
    fs::create_dir(format!("{PLUGINS}/test~disk")).unwrap();
    kubelet.look_up("test/disk");
    node.write_program(Path::new(&format!("{PLUGINS}/test~disk/disk")), &tmpfs());
    assert!(kubelet.look_up("test/disk").is_some());
    let log = kubelet.log();
    assert!(log.iter().any(|l| l.contains("test~disk, skipping")), "{log:?}");
    assert!(log.iter().any(|l| l.contains("no such file or directory")), "{log:?}");
}

fn upgraded(node: &VolumeNode) {
    node.install_script("test/disk", &tmpfs());
    let kubelet = node.kubelet();
    kubelet.look_up("test/disk");
    let new = format!("{PLUGINS}/test~disk/.disk.4711");
    node.write_program(Path::new(&new), &script(&[("init", OK)]));
    assert_eq!(look_up(&kubelet, "test/disk", 3), 0, "a hidden file is nobody's business");
    fs::rename(&new, format!("{PLUGINS}/test~disk/disk")).unwrap();
    assert_eq!(look_up(&kubelet, "test/disk", 3), 1);
    assert_eq!(kubelet.look_up("test/disk"), Some(Capabilities::default()), "it is the new one");
}

fn slow_init(node: &VolumeNode) {
    node.install_script("test/quick", &tmpfs());
    let kubelet = node.kubelet();
    let volume = kubelet.pod("default", "web").inline("test/quick", "data");
    kubelet.look_up("test/quick");
    tool(&["mkfifo", "/run/gate"]);
    let init = format!(": > /run/begun; read line < /run/gate; {INIT}");
    node.install_script("test/slow", &script(&[("init", &init)]));
    let outcome = held_by("/run/begun", "/run/gate", || kubelet.set_up(&volume));
    assert_eq!(outcome, Outcome::Mounted);
}

fn defaults(node: &VolumeNode) {
    node.install_script("test/silent", &script(&[("init", OK)]));
    let told = r#"echo '{"status":"Success","CAPABILITIES":{"ATTACH":false,"supportsmetrics":true}}'"#;
    node.install_script("test/loud", &script(&[("init", told)]));
    let kubelet = node.kubelet();
    let all = Capabilities {
        attach: true,
        selinux_relabel: true,
        supports_metrics: false,
        fs_group: true,
        requires_fs_resize: true,
    };
    assert_eq!(kubelet.look_up("test/silent"), Some(all));
    let expect = Capabilities { attach: false, supports_metrics: true, ..all };
    assert_eq!(kubelet.look_up("test/loud"), Some(expect));
}

fn null_capabilities(node: &VolumeNode) {
    let null = r#"echo '{"status":"Success","capabilities":null}'"#;
    node.install_script("test/null", &script(&[("init", null)]));
    node.install_script("test/disk", &tmpfs());
    let kubelet = node.kubelet();
    let volume = kubelet.pod("default", "web").inline("test/disk", "data");
    let outcome = kubelet.set_up(&volume);
    assert!(matches!(outcome, Outcome::Crashed(_)), "of a driver that nobody uses: {outcome:?}");
    fs::remove_dir_all(format!("{PLUGINS}/test~null")).unwrap();
    kubelet.restart();
    kubelet.set_up(&volume);
    kubelet.tear_down(&volume).unmounted();
    // Elsewhere than in the answer to init nobody looks at them.
    let mount = r#"echo '{"status":"Success","capabilities":null}'"#;
    node.install_script("test/later", &script(&[("init", INIT), ("mount", mount)]));
    let volume = kubelet.pod("default", "web").inline("test/later", "data");
    kubelet.set_up(&volume).mounted();
}

fn made_again(node: &VolumeNode) {
    let folder = Path::new("/opt/flexvolume");
    let kubelet = node.kubelet_with(folder);
    assert!(folder.is_dir() && kubelet.log()[0].contains("does not exist. Recreating"));
    kubelet.look_up("test/disk");
    fs::remove_dir(folder).unwrap();
    // The kernel tells of it when nobody has it open any more, and a child of another test may, until it execs.
    let end = Instant::now() + LIMIT;
    while !folder.is_dir() {
        assert!(Instant::now() < end, "it is not made again");
        kubelet.look_up("test/disk");
    }
    fs::create_dir(folder.join("test~disk")).unwrap();
    node.write_program(&folder.join("test~disk/disk"), &tmpfs());
    assert!(kubelet.look_up("test/disk").is_some());
}
