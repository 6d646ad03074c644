use super::*;
use crate::ipam::testing::Scratch;

/// A plugin that is a shell script.
fn plugin(scratch: &Scratch, name: &str, script: &str) {
    let path = scratch.root.join(name);
    // Made by another process: a descriptor that a concurrent test's fork inherited while this file was
    // being written would make its exec fail with ETXTBSY.
    let made = Command::new("/bin/sh")
        .args(["-c", "printf '#!/bin/sh\\n%s\\n' \"$2\" >\"$1\" && chmod 755 \"$1\"", "sh"])
        .args([path.as_os_str(), OsStr::new(script)])
        .status();
    assert!(made.unwrap().success());
}

fn ask<'a>(scratch: &'a Scratch, name: &'a str, stdin: &'a [u8]) -> Delegate<'a> {
    Delegate {
        plugin: name,
        path: scratch.root.as_os_str(),
        environment: &[("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", "eth0")],
        stdin,
    }
}

#[test]
fn the_plugin_gets_the_configuration_the_environment_and_the_verb() {
    let scratch = Scratch::new();
    plugin(&scratch, "echo", "echo \"$CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME $(cat)\"");
    assert_eq!(ask(&scratch, "echo", b"{\"a\":1}").call("CHECK").unwrap(), b"CHECK c1 eth0 {\"a\":1}\n");
    // More than a pipe holds, in both directions, and a plugin that writes before it reads.
    plugin(&scratch, "big", "head -c 300000 /dev/zero; head -c 300000 /dev/zero >&2; cat");
    let stdin = vec![b'x'; 300_000];
    assert_eq!(ask(&scratch, "big", &stdin).call("ADD").unwrap().len(), 600_000);
    // One that does not read at all.
    plugin(&scratch, "deaf", "echo '{}'");
    assert_eq!(ask(&scratch, "deaf", &stdin).call("ADD").unwrap(), b"{}\n");
}

#[test]
fn every_way_to_go_wrong_names_the_plugin() {
    let scratch = Scratch::new();
    plugin(
        &scratch,
        "full",
        "echo '{\"code\":11,\"msg\":\"try again later\",\"details\":\"pool empty\"}'; exit 1",
    );
    plugin(&scratch, "codeless", "echo '{\"msg\":\"no\"}'; exit 1");
    plugin(&scratch, "garbage", "echo hello; echo panic: boom >&2; exit 2");
    plugin(&scratch, "killed", "kill -9 $$");
    plugin(&scratch, "endless", "exec cat /dev/zero");
    plugin(&scratch, "array", "echo '[]'");
    std::fs::write(scratch.root.join("plain"), "x").unwrap();
    let table = [
        ("full", Kind::Delegate(11), "try again later; pool empty"),
        ("codeless", Kind::Delegate(999), ": no"),
        (
            "garbage",
            Kind::Decode,
            "exit status: 2 and no error in CNI's format: stdout `hello`, stderr `panic: boom`",
        ),
        ("killed", Kind::Decode, "signal: 9"),
        ("endless", Kind::Decode, "more than 1048576 bytes"),
        ("array", Kind::Decode, "read the result of the IPAM plugin `array` (`[]`)"),
        ("plain", Kind::Config, "find the IPAM plugin `plain`: searched"),
        ("absent", Kind::Config, "find the IPAM plugin `absent`: searched"),
    ];
    for (name, kind, text) in table {
        let error = ask(&scratch, name, b"{}").add().unwrap_err();
        assert_eq!(error.kind(), kind, "{name}: {}", error.chain());
        assert!(error.chain().contains(text), "{name}: {}", error.chain());
        assert!(error.chain().contains(name), "{name}: {}", error.chain());
    }
}

#[test]
fn folders_that_depend_on_the_working_directory_are_not_searched() {
    let scratch = Scratch::new();
    let delegate = Delegate { path: OsStr::new(":.:bin"), ..ask(&scratch, "sh", b"") };
    assert!(delegate.call("ADD").unwrap_err().chain().contains("searched no folder"));
}

#[test]
fn a_failed_add_is_followed_by_a_del() {
    let scratch = Scratch::new();
    let script = format!(
        "cat >/dev/null; echo $CNI_COMMAND >>{}/verbs; test $CNI_COMMAND = DEL",
        scratch.root.display()
    );
    plugin(&scratch, "failing", &script);
    assert!(ask(&scratch, "failing", b"{}").add_or_undo().is_err());
    assert_eq!(std::fs::read_to_string(scratch.root.join("verbs")).unwrap(), "ADD\nDEL\n");
    plugin(&scratch, "stuck", "echo '{\"code\":7,\"msg\":\"no\"}'; exit 1");
    let error = ask(&scratch, "stuck", b"{}").add_or_undo().unwrap_err();
    assert_eq!(error.kind(), Kind::Delegate(7));
    assert!(error.advice().unwrap().contains("DEL will try again"));
}
