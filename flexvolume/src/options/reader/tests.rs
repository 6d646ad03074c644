use super::*;
use proptest::prelude::*;

fn options(pairs: &[(&str, &str)]) -> Options {
    let map: serde_json::Map<_, _> =
        pairs.iter().map(|(k, v)| ((*k).to_owned(), serde_json::json!(v))).collect();
    Options::parse(&serde_json::Value::Object(map).to_string()).unwrap()
}

/// What `read` makes of one value, and what `finish` says.
fn one<T>(value: &str, read: impl Fn(&mut Reader<'_>) -> Option<T>) -> (Option<T>, String) {
    let options = options(&[("k", value)]);
    let mut reader = Reader::new(&options);
    let found = read(&mut reader);
    (found, reader.finish().map_or_else(|e| e.causes(), |()| String::new()))
}

#[test]
#[allow(clippy::too_many_lines, reason = "one table of all shapes")]
fn each_shape_says_what_to_write_instead() {
    type Read = fn(&mut Reader<'_>) -> Option<String>;
    let flag: Read = |r| r.flag("k").map(|v| v.to_string());
    let number: Read = |r| r.number("k", 1..=9).map(|v| v.to_string());
    let id: Read = |r| r.id("k").map(|v| v.to_string());
    let size: Read = |r| r.quantity("k").map(|v| v.to_string());
    let time: Read = |r| r.seconds("k").map(|v| v.to_string());
    let mode: Read = |r| r.mode("k").map(|v| format!("{v:o}"));
    let list: Read = |r| r.list("k").map(|v| v.join("|"));
    let word: Read = |r| r.choice("k", &[("a", "1"), ("b", "2")]).map(str::to_owned);
    let path: Read = |r| r.relative_path("k", &Pod::default(), "v").map(|v| v.to_string());
    let table: [(Read, &str, Option<&str>, &str); 30] = [
        (flag, "true", Some("true"), ""),
        (flag, "", None, ""),
        (flag, "yes", None, "`k` (yes) is not one of its words; write `true` or `false`"),
        (number, "9", Some("9"), ""),
        (number, "10", None, "`k` (10) is not a whole number from 1 to 9"),
        (number, "+3", None, "`k` (+3) is not a whole number from 1 to 9"),
        (id, "0", Some("0"), ""),
        (id, "4294967295", None, "`k` (4294967295) is not a whole number from 0 to 4294967294"),
        (id, "-1", None, "`k` (-1) is not a whole number from 0 to 4294967294"),
        (size, "1Ki", Some("1024"), ""),
        (size, "64m", None, "`k` (64m) counts thousandths of a byte; write 64Mi"),
        (time, "2m", Some("120s"), ""),
        (time, "soon", None, "`k` (soon) is not a time; write whole seconds or minutes, such as 30s or 2m"),
        (mode, "0770", Some("770"), ""),
        (mode, "770", Some("770"), ""),
        (mode, "07777", Some("7777"), ""),
        (mode, "0", Some("0"), ""),
        (mode, "17777", None, "`k` (17777) is not a mode; write octal digits such as 0770"),
        (mode, "rwx", None, "`k` (rwx) is not a mode; write octal digits such as 0770"),
        (mode, "0o770", None, "`k` (0o770) is not a mode; write octal digits such as 0770"),
        (mode, "888", None, "`k` (888) is not a mode; write octal digits such as 0770"),
        (list, "a, b", Some("a|b"), ""),
        (list, "a,,b", None, "`k` (a,,b) has an empty element; write a,b"),
        (word, "b", Some("2"), ""),
        (word, "c", None, "`k` (c) is not one of its words; write `a` or `b`"),
        (path, "x/${volume}", Some("x/v"), ""),
        (
            path,
            "../x",
            None,
            "`k` (../x) has the component `..`; write a path such as team/data, without `..`",
        ),
        (
            path,
            "${pod.name}",
            None,
            "`k` (${pod.name}) needs ${pod.name}, and the kubelet gave no usable one",
        ),
        (flag, "tr\nue", None, "`k` has a newline or another control character; write it on one line"),
        (list, "a\0b", None, "`k` has a newline or another control character; write it on one line"),
    ];
    for (read, value, expect, problem) in table {
        assert_eq!(one(value, read), (expect.map(str::to_owned), problem.to_owned()), "{value}");
    }
}

#[test]
fn a_list_may_be_written_one_element_a_line() {
    let empty = "`k` has an empty element or a control character; write a,b or one element a line";
    let table = [
        ("a,\n b \r\n\nc, d,\n", Some("a|b|c|d"), ""),
        (" \n", None, ""),
        ("a,,b", None, empty),
        ("a\u{1b}", None, empty),
    ];
    for (value, expect, problem) in table {
        let found = one(value, |r| r.lines("k").map(|v| v.join("|")));
        assert_eq!(found, (expect.map(str::to_owned), problem.to_owned()), "{value}");
    }
}

#[test]
fn all_mistakes_come_out_together_without_the_values_of_unknown_keys() {
    let options = options(&[
        ("backend", "tmpfs"),
        ("sise", "hunter2"),
        ("mode", "rwx"),
        ("passwort", "hunter2"),
        ("frobnicate", "hunter2"),
        ("kubernetes.io/new", "x"),
    ]);
    let mut reader = Reader::new(&options);
    reader.allow(&["backend"]);
    let (size, source) = (reader.text("size"), reader.text("source"));
    reader.mode("mode");
    reader.required("source", source, "the folder on the node");
    assert_eq!(size, None);
    let error = reader.finish().unwrap_err();
    assert_eq!(error.kind(), Kind::Config);
    assert_eq!(
        error.chain(),
        "read the volume's options: `mode` (rwx) is not a mode; write octal digits such as 0770; \
         `source` is missing; write the folder on the node; \
         `frobnicate` is not an option here; known are backend, mode, size, source; \
         `passwort` is not an option; put it in the Secret named by secretRef, and change it if it was \
         real: options can be read by everybody who can read the pod; \
         `sise` is not an option here; did you mean `size`?"
    );
}

#[test]
fn a_key_that_carries_a_secret_is_sent_to_the_secret() {
    for key in ["password", "Password", "username", "passwd", "cred", "accountSecret", "apitoken", "pasword"]
    {
        let options = options(&[(key, "hunter2")]);
        let mut reader = Reader::new(&options);
        reader.allow(&["size"]);
        let chain = reader.finish().unwrap_err().chain();
        assert!(chain.contains("secretRef") && !chain.contains("hunter2"), "{key}: {chain}");
    }
}

#[test]
fn refusals_come_out_with_the_mistakes() {
    let refusal = |why: &str| -> Result<()> {
        Err(Error::caused(Kind::Config, "use it", why.to_owned()).hint("ask the administrator"))
    };
    let options = options(&[("mode", "rwx"), ("sise", "1")]);
    let read = || {
        let mut reader = Reader::new(&options);
        reader.mode("mode");
        reader
    };
    let mut reader = read();
    assert_eq!(reader.allowed(refusal("it is off")), None);
    reader.allow(&["size"]);
    let error = reader.finish().unwrap_err();
    let mode = "read the volume's options: `mode` (rwx) is not a mode; write octal digits such as 0770";
    let expect = format!("{mode}; `sise` is not an option here; did you mean `size`?; use it: it is off");
    assert_eq!(error.chain(), expect);
    // A backend that gives up has not asked for all keys: no word about unknown ones.
    let error = read().finish_with(refusal("it is off")).unwrap_err();
    assert_eq!(error.chain(), format!("{mode}; use it: it is off"));
    assert_eq!(error.advice(), Some("ask the administrator"));
    // What is missing is told once, and a lone refusal as it is.
    let mut reader = read();
    reader.required("source", None::<()>, "a folder");
    let error = reader.finish_with(refusal("`source` is missing")).unwrap_err();
    assert_eq!(error.chain(), format!("{mode}; `source` is missing; write a folder"));
    let none = Options::default();
    assert_eq!(Reader::new(&none).finish_with(refusal("no")).unwrap_err().chain(), "use it: no");
}

#[test]
fn a_missing_key_is_reported_once() {
    let (_, problem) = one("x", |r| {
        let value = r.number("k", 0..=1);
        r.required("k", value, "a number")
    });
    assert_eq!(problem, "`k` (x) is not a whole number from 0 to 1");
}

proptest! {
    #[test]
    fn no_value_makes_a_reader_panic(key in "\\PC{0,8}", value in ".{0,24}") {
        let options = options(&[(&key, &value)]);
        let mut reader = Reader::new(&options);
        let _ = (reader.text(&key), reader.flag(&key), reader.number(&key, 0..=u64::MAX), reader.id(&key));
        let _ = (reader.quantity(&key), reader.seconds(&key), reader.mode(&key), reader.list(&key));
        let _ = reader.relative_path(&key, &Pod::default(), "");
        let _ = reader.finish();
    }

    #[test]
    fn an_unknown_key_s_value_is_never_shown(key in "[a-z]{1,12}", value in "[0-9]{6,12}") {
        let options = options(&[(&key, &value)]);
        let mut reader = Reader::new(&options);
        reader.allow(&["size", "mode"]);
        if let Err(error) = reader.finish() {
            prop_assert!(!error.chain().contains(&value));
        }
    }

    #[test]
    fn every_mode_is_read_back(mode in 0..=0o7777_u32) {
        prop_assert_eq!(one(&format!("{mode:o}"), |r| r.mode("k")).0, Some(mode));
        prop_assert_eq!(one(&format!("{mode:#05o}").replace("0o", "0"), |r| r.mode("k")).0, Some(mode));
    }
}
