//! Whatever ends the process, the caller reads one line, and the exit code is 0.

use libtest_mimic::Trial;

use super::{act, alive, trial, until};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("options_are_gone_from_the_list_of_processes", options_are_gone),
        trial("nothing_but_the_answer_reaches_the_caller", nothing_but_the_answer),
        trial("every_signal_has_its_one_line", every_signal),
        trial("what_is_done_is_no_failure_when_a_signal_comes", what_is_done),
        trial("a_request_to_stop_does_not_spoil_an_answer", an_answer_is_whole),
        trial("an_overflowing_stack_is_answered", overflow),
        trial("a_panic_is_answered_without_its_words", a_panic),
        trial("the_alarm_answers_in_time", the_alarm),
        trial("a_child_never_answers", a_child),
        trial("no_core_no_debugger_no_file_for_others", hardened),
        trial("closed_descriptors_are_replaced", closed),
        trial("a_killed_process_takes_its_children_along", killed),
    ]
}

/// What the act wrote to the one pipe; its exit code is 0.
fn told(words: &[&str]) -> String {
    let output = act(words).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{words:?}: {output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{words:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn message(words: &[&str]) -> String {
    let line = told(words);
    assert!(line.ends_with('\n') && line.matches('\n').count() == 1, "{line}");
    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(value["status"], "Failure");
    value["message"].as_str().unwrap().to_owned()
}

fn options_are_gone() {
    let text = told(&["scrub", "/target", r#"{"kubernetes.io/secret/p":"aHVudGVyMg=="}"#, "node"]);
    let (taken, shown) = text.split_once('\n').unwrap();
    assert!(taken.ends_with(r#"scrub /target {"kubernetes.io/secret/p":"aHVudGVyMg=="} node"#), "{taken}");
    assert!(!shown.contains("aHVudGVyMg==") && !shown.contains("node"), "{shown:?}");
    assert!(shown.contains("\0/target\0"), "{shown:?}");
}

fn nothing_but_the_answer() {
    assert_eq!(told(&["noise"]), "the answer\n");
}

fn every_signal() {
    for name in [
        "SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGXCPU", "SIGXFSZ", "SIGSEGV", "SIGBUS", "SIGILL",
        "SIGFPE", "SIGABRT",
    ] {
        assert!(message(&["signal", name]).contains(name));
    }
}

fn what_is_done() {
    for name in ["SIGTERM", "SIGINT", "SIGHUP", "SIGALRM"] {
        for when in ["meanwhile", "after"] {
            assert_eq!(told(&["finished", name, when]), "{\"status\":\"Success\"}\n", "{name} {when}");
        }
        assert!(told(&["finished", name, "failed"]).contains("Failure"), "{name}");
    }
    assert_eq!(told(&["finished", "SIGSEGV", "after"]), "{\"status\":\"Success\"}\n");
    assert_eq!(told(&["panic-late"]), "{\"status\":\"Success\"}\n");
}

fn an_answer_is_whole() {
    for name in ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGALRM", "SIGPIPE"] {
        assert_eq!(told(&["answering", name]), "the answer", "{name}");
    }
    assert_eq!(told(&["answering", "SIGSEGV"]), "the ");
}

fn overflow() {
    assert!(message(&["overflow"]).contains("SIGSEGV"));
}

fn a_panic() {
    let message = message(&["panic"]);
    assert!(message.contains("act.rs:") && !message.contains("hunter2"), "{message}");
}

fn the_alarm() {
    assert!(message(&["alarm"]).contains("longer than 100 s"));
}

fn a_child() {
    assert_eq!(told(&["child-signal"]), "wait for a child's answer: it ended with SIGTERM");
    assert_eq!(told(&["child-panic"]), "wait for a child's answer: it exited with code 101");
}

fn hardened() {
    assert_eq!(told(&["limits"]), "core 0 0, dumpable false, mode 100600");
}

fn closed() {
    // By its number: the tests' own mounts may cover the program's path.
    let script = format!("exec /proc/{}/exe --act noise 0<&- 2>&-", std::process::id());
    let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "the answer\n");
}

fn killed() {
    let _ = std::fs::remove_file("/tmp/helper");
    let mut process = act(&["work-forever"]).stdout(std::process::Stdio::null()).spawn().unwrap();
    let helper = || std::fs::read_to_string("/tmp/helper").ok()?.trim().parse::<i32>().ok();
    until("the helper", || helper().is_some());
    let helper = helper().unwrap();
    assert!(alive(helper));
    process.kill().unwrap();
    process.wait().unwrap();
    until("the helper's end", || !alive(helper));
}
