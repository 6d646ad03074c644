use std::path::Path;

use clap::Parser;

use super::names::{is_ours, meant};
use super::*;
use crate::role::{OWN, REFERENCE};

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    install: Install,
}

#[test]
fn names_that_are_not_the_references_are_refused_with_a_suggestion() {
    let read = |words: &[&str]| Line::try_parse_from([&["x"], words].concat()).map(|l| l.install);
    assert_eq!(read(&["--as-reference", "--only", "bridge,sbr", "/p"]).unwrap().only, ["bridge", "sbr"]);
    let wrong = read(&["--as-reference", "--only", "brigde", "/p"]).unwrap_err().to_string();
    assert!(wrong.contains("bridge"), "{wrong}");
    assert!(read(&["--only", "bridge", "/p"]).is_err(), "only what --as-reference gives can be cut");
}

#[test]
fn the_programs_own_name_comes_first() {
    assert_eq!(meant(&[], false), [OWN]);
    assert_eq!(meant(&[], true).len(), 1 + REFERENCE.len());
    assert_eq!(meant(&["sbr".to_owned(), "ptp".to_owned()], true), [OWN, "ptp", "sbr"]);
}

#[test]
fn people_get_a_table_and_programs_the_same_as_json() {
    let report = Report {
        folder: "/p".into(),
        names: vec![
            Row::new("bridge", Outcome::Replaced, Some("/p/.nodeplug-originals/bridge".into())),
            Row::new("sbr", Outcome::Installed, None),
        ],
        notes: vec!["one".to_owned()],
        ..Report::default()
    };
    assert_eq!(
        report.to_table(),
        "NAME    OUTCOME    ORIGINAL\n\
         bridge  replaced   /p/.nodeplug-originals/bridge\n\
         sbr     installed  -\n\
         note: one\n\
         in `/p`\n"
    );
    assert_eq!(
        report.to_json().to_string(),
        concat!(
            r#"{"folder":"/p","why":"","dryRun":false,"names":[{"name":"bridge","outcome":"replaced","original":"/p/.nodeplug-originals/bridge"},"#,
            r#"{"name":"sbr","outcome":"installed","original":null}],"conflist":null,"notes":["one"]}"#
        )
    );
}

#[test]
fn how_to_call_it_is_said_where_no_shell_finds_it() {
    let said = |off_path| Report { folder: "/usr/lib/cni".into(), off_path, ..Report::default() }.to_table();
    assert!(said(true).ends_with("\nto call it by its name: export PATH=$PATH:/usr/lib/cni\n"));
    assert!(!said(false).contains("PATH"));
}

#[test]
fn the_program_knows_itself_by_its_mark_and_no_other() {
    assert!(is_ours(Path::new("/proc/self/exe")).unwrap());
    assert!(!is_ours(Path::new("/bin/sh")).unwrap());
    assert!(!is_ours(Path::new("/nonexistent")).unwrap());
}
