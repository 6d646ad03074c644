//! How a driver is exec'd, and what is made of its output.

use std::fs;
use std::path::Path;

use harness::kubelet::{Kubelet, Outcome, Volume};
use harness::suite::scripted;
use harness::volume_node::VolumeNode;
use libtest_mimic::Trial;

use super::held_by;
use crate::scripts::{FAIL, INIT, OK, mounting, script};

pub fn trials() -> Vec<Trial> {
    vec![
        scripted("a_child_that_keeps_the_pipe_holds_up_the_mount", &[], a_child_keeps_the_pipe),
        scripted("a_child_with_streams_of_its_own_holds_up_nobody", &[], a_child_lets_the_pipe_go),
        scripted("a_driver_is_born_as_a_service_of_systemd", &[], born_as_a_service),
        scripted("anything_beside_the_one_object_fails_the_call", &[], beside_the_object),
        scripted("white_space_and_unknown_keys_are_fine", &[], fine_answers),
        scripted("an_exit_code_contradicts_a_success", &[], exit_code_and_success),
        scripted("a_failure_with_an_exit_code_tells_the_secrets", &[], exit_code_and_failure),
        scripted("a_failure_without_an_exit_code_tells_its_message_alone", &[], failure_alone),
        scripted("an_option_that_is_too_long_fails_before_the_driver", &[], too_long),
        scripted("a_driver_may_be_called_by_hand", &[], by_hand),
        scripted("a_driver_killed_by_a_signal_has_no_answer", &[], killed),
    ]
}

fn set_up(node: &VolumeNode, driver: &str, line: &str) -> (Kubelet, Volume, Outcome) {
    node.install_script(driver, &mounting(line));
    let kubelet = node.kubelet();
    let volume = kubelet.pod("default", "web").inline(driver, "data").secret("password", b"hunter2,x=y");
    let outcome = kubelet.set_up(&volume);
    (kubelet, volume, outcome)
}

fn a_child_keeps_the_pipe(node: &VolumeNode) {
    harness::call::tool(&["mkfifo", "/run/gate"]);
    let child = "(: > /run/begun; read line < /run/gate) &";
    let outcome =
        held_by("/run/begun", "/run/gate", || set_up(node, "test/disk", &format!("{child}\n{OK}")).2);
    outcome.mounted();
}

fn a_child_lets_the_pipe_go(node: &VolumeNode) {
    let child = "sleep 1000 >/dev/null 2>&1 &";
    set_up(node, "test/disk", &format!("{child}\n{OK}")).2.mounted();
    assert_eq!(node.processes().len(), 1, "it lives on");
}

fn born_as_a_service(node: &VolumeNode) {
    let dump = "env > /run/env; pwd > /run/pwd; cp /proc/self/cgroup /run/cgroup; umask > /run/umask\n\
                fds=$(readlink /proc/$$/fd/0 /proc/$$/fd/1 /proc/$$/fd/2); echo \"$fds\" > /run/fds\n\
                printf '%s\\n' \"$0\" \"$#\" > /run/argv";
    let (_, _, outcome) = set_up(node, "test/disk", &format!("{dump}\n{OK}"));
    outcome.mounted();
    let read = |name: &str| fs::read_to_string(Path::new("/run").join(name)).unwrap();
    assert_eq!(read("pwd"), "/\n");
    assert!(read("argv").ends_with("/exec/test~disk/disk\n3\n"), "{}", read("argv"));
    let fds = read("fds");
    let fds: Vec<_> = fds.lines().collect();
    assert_eq!(fds[0], "/dev/null");
    assert!(fds[1].starts_with("pipe:") && fds[1] == fds[2], "one pipe for both: {fds:?}");
    let env = read("env");
    assert!(
        env.contains("PATH=/usr/local/sbin:") && !env.contains("HOME=") && !env.contains("CARGO"),
        "{env}"
    );
    assert_eq!(read("umask"), "0022\n");
    assert!(read("cgroup").contains("/kubelet.service"), "{}", read("cgroup"));
}

fn beside_the_object(node: &VolumeNode) {
    let cases = [
        (format!("echo warning: slow >&2; {OK}"), "invalid character 'w' looking for beginning of value"),
        (format!("{OK}; {OK}"), "invalid character '{' after top-level value"),
        (format!("{OK}; echo done >&2"), "invalid character 'd' after top-level value"),
        ("true".to_owned(), "unexpected end of JSON input"),
        ("echo '{\"status\":\"success\"}'".to_owned(), "mount command failed, status: success, reason: "),
        (
            "echo '{\"status\":\"Success\",\"attached\":\"true\"}'".to_owned(),
            "json: cannot unmarshal string into Go struct field DriverStatus.attached of type bool",
        ),
    ];
    for (n, (line, expect)) in cases.iter().enumerate() {
        let (kubelet, _, outcome) = set_up(node, &format!("test/disk{n}"), line);
        assert_eq!(outcome.refused(), *expect, "{line}");
        let event = format!("MountVolume.SetUp failed for volume \"data\" : {expect}");
        assert_eq!(kubelet.events(), [event]);
    }
}

fn fine_answers(node: &VolumeNode) {
    let cases = [
        "printf '\\n\\t {\"Status\":\"Success\"}\\n\\n'",
        "echo '{\"status\":\"Success\",\"more\":[1,{}],\"message\":null}'",
        "echo '{\"status\":\"Success\"}' >&2",
    ];
    for (n, line) in cases.iter().enumerate() {
        set_up(node, &format!("test/disk{n}"), line).2.mounted();
    }
}

fn exit_code_and_success(node: &VolumeNode) {
    let (kubelet, _, outcome) = set_up(node, "test/disk", &format!("{OK}; exit 3"));
    assert_eq!(outcome.refused(), "exit status 3");
    assert!(kubelet.log().iter().any(|l| l.contains("driver bug")), "{:?}", kubelet.log());
    kubelet.assert_not_told(b"hunter2,x=y");
    // Not so with a call that is not supported: its default is done.
    let line = "echo '{\"status\":\"Not supported\"}'; exit 1";
    node.install_script("test/default", &script(&[("init", INIT), ("unmount", line)]));
    let volume = kubelet.pod("default", "web").inline("test/default", "data");
    fs::create_dir_all(volume.path()).unwrap();
    kubelet.tear_down(&volume).unmounted();
}

fn exit_code_and_failure(node: &VolumeNode) {
    for (n, line) in [format!("{FAIL}; exit 1"), "echo oops; exit 1".to_owned()].iter().enumerate() {
        let (kubelet, volume, outcome) = set_up(node, &format!("test/disk{n}"), line);
        outcome.refused();
        let log = kubelet.log().join("\n");
        let args = format!("args: [mount {} {{", volume.path().display());
        assert!(log.contains("\nW ") && log.contains(&args), "{log}");
        assert!(log.contains("\"kubernetes.io/secret/password\":\"aHVudGVyMix4PXk=\""), "{log}");
    }
}

fn failure_alone(node: &VolumeNode) {
    let (kubelet, volume, outcome) = set_up(node, "test/disk", FAIL);
    assert_eq!(outcome.refused(), "mount command failed, status: Failure, reason: no disk");
    let event = "MountVolume.SetUp failed for volume \"data\" : mount command failed, status: Failure, \
                 reason: no disk";
    assert_eq!(kubelet.events(), [event]);
    kubelet.assert_not_told(b"hunter2,x=y");
    assert!(!volume.path().exists(), "the folder is removed again");
}

fn too_long(node: &VolumeNode) {
    node.install_script("test/disk", &mounting(&format!(": > /run/called; {OK}")));
    let kubelet = node.kubelet();
    let volume = kubelet.pod("default", "web").inline("test/disk", "data");
    let outcome = kubelet.set_up(&volume.clone().secret("big", &vec![b'x'; 100 * 1024]));
    assert_eq!(outcome.refused(), "unexpected end of JSON input");
    assert!(kubelet.log().join("\n").contains("argument list too long"));
    assert!(!Path::new("/run/called").exists());
    kubelet.set_up(&volume.secret("big", &vec![b'x'; 90 * 1024])).mounted();
}

fn killed(node: &VolumeNode) {
    let (kubelet, _, outcome) = set_up(node, "test/disk", "kill -9 $$");
    assert_eq!(outcome.refused(), "unexpected end of JSON input");
    assert!(kubelet.log().join("\n").contains("signal: killed"));
}

fn by_hand(node: &VolumeNode) {
    node.install_script("test/disk", &mounting(OK));
    let kubelet = node.kubelet();
    let answer = kubelet.call("test/disk", &["mount", "", "not json"]).one_object();
    assert_eq!(answer["status"], "Success");
    assert!(kubelet.calls().is_empty());
    let (count, answer) = harness::kernel::trace::count(&kubelet.driver_call("test/disk", &["mount"]));
    assert!(count > 10 && answer.ok(), "{answer:?}");
}
