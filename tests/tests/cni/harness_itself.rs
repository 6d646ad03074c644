//! The harness's own instruments, shown on a shell: a test that cannot fail proves nothing.

use std::path::Path;

use harness::kernel::trace::{self, End};
use harness::node::Node;
use harness::runtime::Call;
use harness::suite::any;
use libtest_mimic::Trial;

pub fn trials() -> Vec<Trial> {
    vec![
        any("a_call_is_killed_after_each_of_its_system_calls", a_call_is_killed),
        any("a_system_call_is_made_to_fail", a_system_call_is_made_to_fail),
        any("a_reboot_empties_the_kernel_and_keeps_the_disk", a_reboot),
        any("programs_of_children_are_counted", programs_of_children_are_counted),
    ]
}

fn shell(node: &Node, script: &str) -> Call {
    node.install(Path::new("/bin/dash"), "sh");
    Call { plugin: "sh".to_owned(), env: Vec::new(), stdin: script.as_bytes().to_vec() }
}

fn a_call_is_killed(node: &Node) {
    let call = shell(node, ": > /run/one\n: > /run/two\n");
    let (all, answer) = trace::count(&call);
    assert!(answer.ok(), "{answer:?}");
    let (one, two) = (Path::new("/run/one"), Path::new("/run/two"));
    let mut states = Vec::new();
    for n in 0..=all {
        drop(std::fs::remove_file(one));
        drop(std::fs::remove_file(two));
        let end = trace::kill_after(&call, n);
        let finished = matches!(end, End::Finished(_));
        assert_eq!(finished, n == all, "{n} of {all}: {end:?}");
        states.push((one.exists(), two.exists()));
    }
    assert!(states.is_sorted(), "a later kill sees no less: {states:?}");
    states.dedup();
    assert_eq!(states, [(false, false), (true, false), (true, true)]);
}

#[cfg(target_arch = "x86_64")]
fn a_system_call_is_made_to_fail(node: &Node) {
    let call = shell(node, ": > /run/one\n");
    let mut refused = 0;
    for n in 0.. {
        drop(std::fs::remove_file("/run/one"));
        let (answer, failed) = trace::fail_nth(&call, &[libc::SYS_openat], n, libc::EIO);
        if failed.is_none() {
            assert!(answer.ok() && Path::new("/run/one").exists(), "{answer:?}");
            break;
        }
        if answer.stderr.contains("/run/one") {
            refused += 1;
            assert!(!answer.ok() && !Path::new("/run/one").exists(), "{answer:?}");
        }
    }
    assert_eq!(refused, 1);
}

#[cfg(not(target_arch = "x86_64"))]
fn a_system_call_is_made_to_fail(_node: &Node) {
    eprintln!("system calls are made to fail on x86_64 only");
}

fn a_reboot(node: &Node) {
    let boot = || std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let before = boot();
    std::fs::write("/var/lib/kept", "").unwrap();
    harness::call::tool(&["ip", "link", "add", "br0", "type", "bridge"]);
    node.reboot();
    assert_ne!(boot(), before);
    assert_eq!(harness::look::links(), ["lo"]);
    assert!(Path::new("/sys/class/net/lo").exists() && !Path::new("/sys/class/net/br0").exists());
    assert!(Path::new("/var/lib/kept").exists());
}

fn programs_of_children_are_counted(node: &Node) {
    assert_eq!(trace::execs(&shell(node, ": > /run/one\n")), 0);
    assert_eq!(trace::execs(&shell(node, "/bin/true; (/bin/true; /bin/true) & wait\n")), 3);
}
