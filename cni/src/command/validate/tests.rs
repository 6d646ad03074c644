use std::path::PathBuf;

use super::*;

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// Compares with the golden file; `UPDATE_GOLDEN=1` writes it anew for a person to review.
fn hold(name: &str, text: &str) {
    let path = golden(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "{}", path.display());
}

fn lines(found: &[Problem]) -> Vec<String> {
    found.iter().map(|p| format!("{}: {}", place(p), p.what)).collect()
}

#[test]
fn a_file_of_many_mistakes_is_told_as_reviewed() {
    let text = std::fs::read_to_string(golden("validate-mistakes.conflist")).unwrap();
    let report = validate(&text);
    assert!(!report.is_fine());
    hold("validate-mistakes.txt", &report.to_table());
    hold("validate-mistakes.json", &crate::render::text(&report.to_json()));
}

#[test]
fn a_good_list_and_a_good_single_configuration_are_fine() {
    let list = r#"{"cniVersion": "1.1.0", "name": "pods", "plugins": [
        {"type": "nodeplug-cni", "ipMasq": true, "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/16"}]]}},
        {"type": "portmap", "capabilities": {"portMappings": true}, "snat": true}]}
    "#;
    let report = validate(list);
    assert_eq!(report.to_table(), "network `pods`, 2 plugins: 0 problems, 0 warnings\n");
    let single =
        r#"{"cniVersion": "1.0.0", "name": "pods", "type": "nodeplug-cni", "ipam": {"type": "static"}}"#;
    assert_eq!(validate(single).to_table(), "network `pods`, 1 plugin: 0 problems, 0 warnings\n");
}

#[test]
fn each_mistake_of_the_file_itself_is_told() {
    let table = [
        ("", "(file): is empty"),
        ("  \n", "(file): is empty"),
        ("[]", "(file): is a list, not an object"),
        ("{}", "name: is missing; plugins: is not a list of plugins"),
        (r#"{"name": "a", "plugins": []}"#, "plugins: is empty"),
        (
            r#"{"name": "a", "cniVersion": "9", "plugins": [{"type": "x"}]}"#,
            "cniVersion: `9`: it is not one of 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0",
        ),
        (
            "{\"name\": \"a\", \"plugins\": [{\"type\": \"x\"}]}\n  }x",
            "(file): goes on at 2:3 after its end with `}x`",
        ),
    ];
    for (text, expect) in table {
        assert_eq!(lines(&validate(text).problems).join("; "), expect, "{text}");
    }
}

#[test]
fn a_syntax_mistake_shows_its_line_and_a_mark_below_the_place() {
    let report = validate("{\n  \"näme\": \"a\" \"b\"\n}");
    let [problem] = report.problems.as_slice() else { panic!("{report:?}") };
    assert_eq!(
        problem.what,
        "is not JSON at 2:16: expected `,` or `}`\n  \"näme\": \"a\" \"b\"\n              ^"
    );
    // A compact file is one long line: only the part around the place is shown.
    let long = format!("{{\"a\": \"{}\" 1}}", "x".repeat(5000));
    assert!(validate(&long).problems[0].what.len() < 250);
    for broken in ["{", "{\"", "\u{0}", "{\"a\":\n", "é"] {
        assert_eq!(validate(broken).problems.len(), 1, "{broken}");
    }
}

#[test]
fn what_is_likely_not_meant_is_a_warning() {
    let list = r#"{"name": "a", "plugins": [{"type": "ptp"}, {"type": "nodeplug-cni", "capabilities": {"portMappings": true},
        "mode": "routed", "ipam": {"type": "static"}, "runtimeConfig": {}}]}"#;
    let report = validate(list);
    assert!(report.is_fine(), "{report:?}");
    assert_eq!(
        lines(&report.warnings),
        [
            "cniVersion: is missing and counts as 0.1.0",
            "plugins[1]: makes an interface, and the runtime calls it after another plugin made one",
            "plugins[1].runtimeConfig: is the runtime's to make, and a runtime overwrites what stands there",
        ]
    );
}

#[test]
fn a_list_of_the_reference_is_told_what_would_be_refused() {
    let list = |bridge: &str| {
        format!(
            r#"{{"cniVersion": "1.0.0", "name": "a", "plugins": [{{"type": "bridge", {bridge} "ipam": {{"type":
            "host-local", "subnet": "10.1.0.0/24"}}}}, {{"type": "loopback"}}, {{"type": "cilium-cni", "x": 1}}]}}"#
        )
    };
    let fine = validate(&list(""));
    assert!(fine.is_fine() && fine.warnings.is_empty(), "{fine:?}");
    let [vlan] = &validate(&list("\"vlan\": 7,")).problems[..] else { panic!() };
    assert_eq!(vlan.at, "plugins[0].vlan");
    // Beside our own name the reference's are its own plugins: nothing is refused.
    let both = list("\"vlan\": 7,").replace("loopback", "nodeplug-cni");
    assert!(validate(&both).is_fine(), "{:?}", validate(&both));
}

#[test]
fn a_chained_entry_without_mode_and_ipam_is_fine() {
    let list =
        r#"{"cniVersion": "1.0.0", "name": "a", "plugins": [{"type": "ptp"}, {"type": "nodeplug-cni"}]}"#;
    let report = validate(list);
    assert!(report.is_fine() && report.warnings.is_empty(), "{report:?}");
}

proptest::proptest! {
    #[test]
    fn any_text_gets_a_report(text in ".{0,80}", cut in 0_usize..900) {
        validate(&text).to_table();
        let list = include_str!("../../../tests/golden/validate-mistakes.conflist");
        let torn: String = list.chars().take(cut).chain(text.chars()).collect();
        let report = validate(&torn);
        proptest::prop_assert!(!report.is_fine());
        report.to_table();
        report.to_json();
    }
}

/// The objects of a page whose braces stand alone on their lines.
fn objects(page: &str) -> Vec<String> {
    let starts = page.split("\n{\n").skip(1);
    starts.map(|rest| format!("{{\n{}\n}}", rest.split("\n}\n").next().unwrap())).collect()
}

#[test]
fn every_network_of_the_pages_is_fine() {
    for (page, count) in [("README.md", 5), ("../README.md", 1)] {
        let text = std::fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(page)).unwrap();
        let networks: Vec<_> =
            objects(&text).into_iter().filter(|text| text.contains("\"plugins\"")).collect();
        assert_eq!(networks.len(), count, "{page}");
        for network in networks {
            let table = validate(&network).to_table();
            assert!(table.ends_with(": 0 problems, 0 warnings\n"), "{page}\n{network}\n{table}");
        }
    }
}
