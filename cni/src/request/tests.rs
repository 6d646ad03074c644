use std::collections::BTreeMap;
use std::os::unix::ffi::OsStringExt;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::config::Attach;
use crate::render;

type Vars = BTreeMap<&'static str, OsString>;

const RANGE: &str = r#"{"cniVersion":"1.0.0","name":"n","type":"nodeplug-cni","ipam":{"type":"host-local","subnet":"10.1.0.0/16"}}"#;

fn vars(command: &'static str) -> Vars {
    let table = [
        ("CNI_COMMAND", command),
        ("CNI_CONTAINERID", "abc"),
        ("CNI_NETNS", "/run/netns/a"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_ARGS", "K8S_POD_NAME=web;IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_UID=u;X=1"),
        ("CNI_PATH", "/opt/cni/bin:/usr/lib/cni"),
    ];
    table.into_iter().map(|(k, v)| (k, OsString::from(v))).collect()
}

fn with(mut vars: Vars, name: &'static str, value: &str) -> Vars {
    vars.insert(name, value.into());
    vars
}

fn read(vars: &Vars, stdin: &[u8]) -> Result<Request, Refused> {
    Request::read(Role::Main, &|name| vars.get(name).cloned(), stdin)
}

/// The error as the runtime sees it: code, msg and details.
fn refusal(vars: &Vars, stdin: &str) -> (u64, String) {
    let refused = read(vars, stdin.as_bytes()).unwrap_err();
    let answer = render::error(&refused.error, refused.version);
    let text = |k: &str| answer[k].as_str().unwrap_or_default().to_owned();
    (answer["code"].as_u64().unwrap(), format!("{}; {}", text("msg"), text("details")))
}

fn del(vars: &Vars, stdin: &str) -> Del {
    match read(vars, stdin.as_bytes()) {
        Ok(Request::Del(del)) => *del,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_add_is_read_whole() {
    let Ok(Request::Add { call, previous }) = read(&vars("ADD"), RANGE.as_bytes()) else { panic!() };
    assert_eq!(call.owner.key(), "abc:eth0");
    assert_eq!(call.netns, "/run/netns/a");
    assert_eq!(call.args.pod().as_deref(), Some("default/web"));
    assert_eq!(call.path, [PathBuf::from("/opt/cni/bin"), PathBuf::from("/usr/lib/cni")]);
    assert_eq!((call.config.attach, call.config.version), (Attach::Routed, Version::V1_0_0));
    assert!(previous.is_none() && !call.netns_override);
}

#[test]
fn no_command_means_a_person() {
    assert_eq!(read(&Vars::new(), b"").unwrap(), Request::Person);
    assert_eq!(read(&with(Vars::new(), "CNI_COMMAND", ""), b"").unwrap(), Request::Person);
}

#[test]
fn all_that_is_missing_is_named_at_once() {
    let only = |command| with(Vars::new(), "CNI_COMMAND", command);
    let table = [
        ("ADD", "CNI_CONTAINERID, CNI_IFNAME and CNI_NETNS are missing"),
        ("CHECK", "CNI_CONTAINERID, CNI_IFNAME and CNI_NETNS are missing"),
        ("DEL", "CNI_CONTAINERID and CNI_IFNAME are missing"),
        ("GC", "CNI_PATH is missing"),
    ];
    for (command, expect) in table {
        let (code, text) = refusal(&only(command), RANGE);
        assert_eq!(code, 4);
        assert!(text.starts_with(&format!("read the environment; {expect}; ")), "{text}");
    }
}

#[test]
fn each_wrong_variable_is_told() {
    let long = "a".repeat(100_000);
    let table = [
        ("CNI_COMMAND", "add", "CNI_COMMAND `add` is not a verb"),
        ("CNI_CONTAINERID", "-x", "CNI_CONTAINERID `-x` does not start with a letter or digit"),
        ("CNI_CONTAINERID", "a/../b", "CNI_CONTAINERID `a/../b` holds '/'"),
        ("CNI_CONTAINERID", long.as_str(), "aaa…` is 100000 bytes long, and 200 are the most"),
        ("CNI_IFNAME", "sixteen-bytes-xx", "is 16 bytes long, and 15 are the most"),
        ("CNI_IFNAME", "..", "CNI_IFNAME `..` is not a link's name"),
        ("CNI_IFNAME", "a\nb", "CNI_IFNAME `a\\nb` holds '\\n'"),
        ("CNI_ARGS", "FOO=1;BAR=2", "CNI_ARGS holds keys that are not known here: `FOO`, `BAR`"),
        ("CNI_ARGS", "IgnoreUnknown=0;FOO=1", "not known here: `FOO`"),
        ("CNI_ARGS", "IgnoreUnknown=maybe", "IgnoreUnknown=`maybe`, not true or false"),
        ("CNI_ARGS", "K8S_POD_NAME", "CNI_ARGS holds `K8S_POD_NAME`, which is not `KEY=VALUE`"),
        ("CNI_ARGS", "=x;IgnoreUnknown=1", "CNI_ARGS holds `=x`, which is not `KEY=VALUE`"),
        ("CNI_ARGS", "IP=10.1.0.x", "IP=`10.1.0.x`, not an address such as"),
        ("CNI_ARGS", "IP=10.1.0.1/33", "the prefix length is none of that family"),
        ("CNI_ARGS", "MAC=01:00:00:00:00:01", "it is a multicast address"),
    ];
    for (name, value, expect) in table {
        let (code, text) = refusal(&with(vars("ADD"), name, value), RANGE);
        assert_eq!(code, 4, "{text}");
        assert!(text.contains(expect), "{text}");
    }
    let mut raw = vars("ADD");
    raw.insert("CNI_NETNS", OsString::from_vec(vec![b'/', 0xff]));
    assert!(refusal(&raw, RANGE).1.contains("CNI_NETNS is not UTF-8"));
}

#[test]
fn cni_args_that_are_fine() {
    let table = [
        ("", None, 0),
        ("K8S_POD_NAME=a;", Some("a"), 0),
        ("FOO=1;K8S_POD_NAME=a;IgnoreUnknown=true", Some("a"), 0),
        ("K8S_POD_NAME=a=b;IP=10.1.0.7/16,fd00::7;MAC=0a-00-00-00-00-01", Some("a=b"), 2),
        ("IP=;MAC=;K8S_POD_NAME=", None, 0),
    ];
    for (text, name, ips) in table {
        let (args, complaints) = Args::read(text);
        assert_eq!((args.pod_name.as_deref(), args.asked.ips.len()), (name, ips), "{text}");
        assert!(complaints.is_empty(), "{complaints:?}");
    }
}

#[test]
fn each_wrong_configuration_has_its_code() {
    let table = [
        ("", 6, "EOF while parsing a value at line 1 column 0"),
        ("{\n  \"a\": 1,\n}", 6, "trailing comma at line 3 column 1"),
        ("[]", 6, "it is JSON, but not an object"),
        (
            r#"{"cniVersion":"2.0.0"}"#,
            1,
            "speak the configuration's cniVersion `2.0.0`; it is not one of 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0",
        ),
        (r#"{"cniVersion":true}"#, 1, "cniVersion `true`; it is not one of"),
        (r#"{"cniVersion":"1.0.0","type":"x","mode":"bridge"}"#, 7, "`name` is missing"),
        (
            r#"{"cniVersion":"1.0.0","name":"n","type":"x","mode":"bridge","prevResult":{"ips":[{"address":"x"}]}}"#,
            6,
            "read `prevResult`; read a result of CNI 1.0.0: `ips[0].address` `x` is not an address",
        ),
        (r#"{"cniVersion":"1.0.0","name":"n","type":"x","mode":"bridge","vlan":1}"#, 2, "`vlan` is `1`"),
    ];
    for (stdin, expect, part) in table {
        let (code, text) = refusal(&vars("ADD"), stdin);
        assert_eq!(code, expect, "{text}");
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn an_error_is_answered_in_the_callers_version_where_we_speak_it() {
    let table = [
        (r#"{"cniVersion":"0.4.0"}"#, Version::V0_4_0),
        ("{}", Version::V0_1_0),
        (r#"{"cniVersion":"2.0.0"}"#, Version::V1_1_0),
        ("{", Version::V1_1_0),
    ];
    for (stdin, expect) in table {
        assert_eq!(read(&vars("ADD"), stdin.as_bytes()).unwrap_err().version, expect);
    }
}

#[test]
fn a_configuration_without_a_version_is_answered_in_the_oldest() {
    let request = read(&vars("ADD"), br#"{"name":"n","type":"x","ipam":{"type":"static"}}"#).unwrap();
    assert_eq!(request.version(), Version::V0_1_0);
}

#[test]
fn the_netns_override_is_a_switch() {
    for (value, expect) in [("1", true), ("TRUE", true), ("0", false), ("yes", false), ("", false)] {
        let env = with(vars("ADD"), "CNI_NETNS_OVERRIDE", value);
        let Ok(Request::Add { call, .. }) = read(&env, RANGE.as_bytes()) else { panic!() };
        assert_eq!(call.netns_override, expect, "{value}");
    }
}

#[test]
fn check_needs_the_result_that_it_compares_with() {
    let (code, text) = refusal(&vars("CHECK"), RANGE);
    assert_eq!(code, 7);
    assert!(text.contains("`prevResult` is missing"), "{text}");
    let mut stdin: Value = serde_json::from_str(RANGE).unwrap();
    stdin["prevResult"] = json!({"cniVersion": "0.2.0", "ip4": {"ip": "10.1.0.7/32"}});
    let Ok(Request::Check { call, previous }) = read(&vars("CHECK"), stdin.to_string().as_bytes()) else {
        panic!()
    };
    assert_eq!(call.config.attach, Attach::Routed);
    assert_eq!(previous.ips.len(), 1);
}

#[test]
fn a_chained_add_carries_the_result_before_it() {
    let stdin =
        r#"{"cniVersion":"1.0.0","name":"n","type":"x","prevResult":{"cniVersion":"1.0.0","ips":[]}}"#;
    let Ok(Request::Add { call, previous }) = read(&vars("ADD"), stdin.as_bytes()) else { panic!() };
    assert_eq!((call.config.attach, previous), (Attach::Chained, Some(CniResult::default())));
}

#[test]
fn del_goes_on_whatever_is_wrong_with_everything_but_the_owner() {
    let table = [
        ("", 1, false),
        ("{", 1, false),
        ("[1]", 1, false),
        ("{}", 2, false),
        (RANGE, 0, true),
        (r#"{"cniVersion":"9","name":"n","type":"x","ipam":{"type":"y"},"a":1,"b":2}"#, 3, true),
        (r#"{"cniVersion":"1.0.0","name":"n","type":"x","ipam":{"type":"y"},"prevResult":[]}"#, 1, true),
        (r#"{"cniVersion":"1.0.0","name":"../n","type":"x","ipam":{"type":"y"}}"#, 1, false),
    ];
    for (stdin, notes, network) in table {
        let del = del(&vars("DEL"), stdin);
        assert_eq!((del.notes.len(), del.network.is_some()), (notes, network), "{stdin}: {:?}", del.notes);
        assert_eq!(del.config.is_some(), network);
        assert_eq!(del.owner.key(), "abc:eth0");
    }
    let mut env = with(with(vars("DEL"), "CNI_ARGS", "FOO;BAR=1;K8S_POD_NAME=a"), "CNI_NETNS", "");
    let saved = del(&env, RANGE);
    assert_eq!(saved.notes.len(), 2, "{:?}", saved.notes);
    assert_eq!((saved.netns, saved.args.pod_name.as_deref()), (None, Some("a")));
    env.remove("CNI_CONTAINERID");
    assert_eq!(refusal(&env, RANGE).0, 4);
}

#[test]
fn status_needs_nothing_of_a_container() {
    let mut env = vars("STATUS");
    for name in ["CNI_ARGS", "CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS"] {
        env = with(env, name, "");
    }
    assert!(matches!(read(&env, RANGE.as_bytes()), Ok(Request::Status(_))));
    assert_eq!(refusal(&env, "{}").0, 7);
}

#[test]
fn version_echoes_what_it_knows_and_never_fails() {
    let table = [
        ("", Version::V1_1_0),
        ("{}", Version::V1_1_0),
        ("nonsense", Version::V1_1_0),
        (r#"{"cniVersion":"0.3.1"}"#, Version::V0_3_1),
        (r#"{"cniVersion":"7"}"#, Version::V1_1_0),
    ];
    let env = with(Vars::new(), "CNI_COMMAND", "VERSION");
    for (stdin, expect) in table {
        assert_eq!(read(&env, stdin.as_bytes()).unwrap(), Request::Version(expect), "{stdin}");
    }
}

#[test]
fn gc_without_its_list_is_refused_and_an_empty_list_is_one() {
    let owner = |id: &str| json!({"containerID": id, "ifname": "eth0"});
    let table = [
        (
            json!({}),
            Err(
                "`cni.dev/valid-attachments` is missing, and without it every attachment would count as stale",
            ),
        ),
        (json!({"cni.dev/valid-attachments": []}), Ok(0)),
        (json!({"cni.dev/attachments": null}), Ok(0)),
        (
            json!({"cni.dev/valid-attachments": [owner("a")], "cni.dev/attachments": [owner("a"), owner("b")]}),
            Ok(2),
        ),
        (
            json!({"cni.dev/attachments": [owner("a"), {"containerID": "b"}]}),
            Err("`cni.dev/attachments[1]` is not"),
        ),
        (json!({"cni.dev/attachments": {}}), Err("`cni.dev/attachments` is not a list")),
        (json!({"cni.dev/attachments": [], "name": ""}), Err("`name` is missing")),
        (json!({"cni.dev/attachments": [], "mtu": 1, "unknown": 1}), Ok(0)),
    ];
    for (more, expect) in table {
        let mut stdin: Value = serde_json::from_str(RANGE).unwrap();
        stdin.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        match (read(&vars("GC"), stdin.to_string().as_bytes()), expect) {
            (Ok(Request::Gc(gc)), Ok(count)) => assert_eq!(gc.valid.len(), count, "{stdin}"),
            (Err(refused), Err(part)) => {
                assert_eq!(refused.error.kind(), Kind::Config);
                assert!(refused.error.chain().contains(part), "{}", refused.error.chain());
            }
            other => panic!("{stdin}: {other:?}"),
        }
    }
}

const NAMES: [&str; 9] = [
    "CNI_COMMAND",
    "CNI_CONTAINERID",
    "CNI_NETNS",
    "CNI_IFNAME",
    "CNI_ARGS",
    "CNI_PATH",
    "CNI_NETNS_OVERRIDE",
    "OTHER",
    "PATH",
];

/// A configuration with most keys in it, for tearing apart.
fn rich() -> Value {
    json!({
        "cniVersion": "1.1.0", "name": "n", "type": "nodeplug-cni", "mode": "bridge", "bridge": "cni0",
        "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/16"}]]}, "mtu": 1400, "ipMasq": true,
        "nonMasqueradeCIDRs": ["10.0.0.0/8"], "args": {"cni": {"ips": ["10.1.0.7"], "mac": "0a:00:00:00:00:01"}},
        "runtimeConfig": {"PortMappings": [{"HostPort": 1}], "ips": ["10.1.0.7/16"], "dns": {"Servers": ["a"]}},
        "capabilities": {"ips": true}, "dns": {"nameservers": ["a"]}, "logFile": "/l", "vlan": 1,
        "cni.dev/valid-attachments": [{"containerID": "a", "ifname": "eth0"}],
        "prevResult": {"cniVersion": "1.1.0", "interfaces": [{"name": "eth0", "mtu": 1}],
            "ips": [{"address": "10.1.0.7/32", "interface": 0}], "routes": [{"dst": "0.0.0.0/0", "scope": 1}]}
    })
}

fn scrap() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
        Just(json!([])),
        Just(json!([1, "x", null, {}])),
        Just(json!({})),
        Just(json!({"a": [[{}]]})),
        Just(json!("9".repeat(70_000))),
    ]
}

/// Replaces the `n`th node of `value`, counted in depth, by `scrap`.
fn tear(value: &mut Value, n: &mut usize, scrap: &Value) {
    if *n == 0 {
        *value = scrap.clone();
    }
    *n = n.wrapping_sub(1);
    match value {
        Value::Object(fields) => fields.values_mut().for_each(|v| tear(v, n, scrap)),
        Value::Array(items) => items.iter_mut().for_each(|v| tear(v, n, scrap)),
        _ => {}
    }
}

fn answers(vars: &Vars, stdin: &[u8]) -> Result<(), TestCaseError> {
    match read(vars, stdin) {
        Ok(request) => prop_assert!(Version::ALL.contains(&request.version())),
        Err(refused) => {
            let text = render::text(&render::error(&refused.error, refused.version));
            let answer: Value = serde_json::from_str(&text).unwrap();
            prop_assert!(answer["code"].as_u64().unwrap() > 0);
            prop_assert!(!answer["msg"].as_str().unwrap().is_empty());
            if vars.get("CNI_COMMAND").is_some_and(|c| c == "DEL") {
                // Whatever stdin is, only the owner can be wrong with a DEL.
                prop_assert_eq!(refused.error.kind(), Kind::Usage);
            }
        }
    }
    Ok(())
}

fn verb() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION", "NONE"])
}

proptest! {
    #[test]
    fn any_environment_and_any_bytes_get_an_answer(
        values in prop::collection::vec(prop::option::of(prop::collection::vec(any::<u8>(), 0..40)), NAMES.len()),
        command in prop::option::of(verb()),
        stdin in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let set = NAMES.into_iter().zip(values).filter_map(|(n, v)| Some((n, OsString::from_vec(v?))));
        let mut env: Vars = set.collect();
        if let Some(command) = command {
            env.insert("CNI_COMMAND", command.into());
        }
        answers(&env, &stdin)?;
    }

    #[test]
    fn any_torn_configuration_gets_an_answer(command in verb(), n in 0_usize..70, scrap in scrap()) {
        let mut stdin = rich();
        tear(&mut stdin, &mut n.clone(), &scrap);
        answers(&vars(command), stdin.to_string().as_bytes())?;
    }

    #[test]
    fn any_cut_or_bent_configuration_gets_an_answer(
        command in verb(), end in 0_usize..1200, at in 0_usize..1200, byte: u8,
    ) {
        let mut stdin = rich().to_string().into_bytes();
        stdin.truncate(end);
        if let Some(b) = stdin.get_mut(at) {
            *b = byte;
        }
        answers(&vars(command), &stdin)?;
    }

    #[test]
    fn any_cni_args_are_read(text in "(K8S_POD_NAME|IP|MAC|IgnoreUnknown|FOO|)(=|;|)[ -~]{0,12}(;|)(IP=[0-9a-f:./,]{0,20})?") {
        let env = with(vars("ADD"), "CNI_ARGS", &text);
        answers(&env, RANGE.as_bytes())?;
    }
}

#[test]
fn json_that_nests_without_end_is_refused() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(refusal(&vars("ADD"), &deep).0, 6);
}
