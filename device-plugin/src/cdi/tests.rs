use super::*;
use crate::config::{Config, NodeOptions};
use crate::inventory::DeviceNumber;

fn resource(name: &str, allocate: &str) -> Resource {
    let text = format!(
        "resources: [{{name: {name}, devices: [{{path: {{glob: [/dev/x]}}}}], allocate: {allocate}}}]"
    );
    Config::parse(&text).unwrap().resources.remove(0)
}

fn node(path: &str, real: &str, device: bool) -> Node {
    let device = device.then_some(DeviceNumber { block: false, major: 226, minor: 0 });
    Node { path: path.into(), real: real.into(), device, options: NodeOptions::default() }
}

fn gpu(address: &str) -> Found {
    Found {
        identity: format!("pci:{address}"),
        name: "card0".to_owned(),
        nodes: vec![
            node("/dev/dri/by-path/pci-card", "/dev/dri/card0", true),
            node("/dev/dri/renderD128", "/dev/dri/renderD128", true),
            node("/run/x.sock", "/run/x.sock", false),
        ],
        ..Found::default()
    }
}

#[test]
fn a_specification_is_as_reviewed() {
    let write =
        "{cdi: {write: {uid: 1000, gid: 44, mode: '0660'}}, node: {containerPath: '/dev/dri/${name}'}}";
    let text =
        specification(&resource("example.com/gpu", write), &[&gpu("0000:01:00.0"), &gpu("0000:00:02.0")]);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/cdi.json");
    let text = text.unwrap().unwrap();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &text).unwrap();
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn what_an_answer_names_is_in_the_specification() {
    let resource = resource("example.com/gpu", "{cdi: {write: {kind: vendor.org/class}}}");
    let found = gpu("0000:01:00.0");
    let full = name(&resource, &found).unwrap();
    let (kind, device) = full.split_once('=').unwrap();
    let text = specification(&resource, &[&found]).unwrap().unwrap();
    assert_eq!(kind, "vendor.org/class");
    assert!(text.contains(&format!("\"name\": \"{device}\"")), "{text}");
}

#[test]
fn a_resource_whose_name_is_no_kind_needs_one() {
    let text = "resources: [{name: 3d.example/x, devices: [{path: {glob: [/dev/x]}}], allocate: {cdi: {write: {}}}}]";
    let why = Config::parse(text).unwrap_err().chain();
    assert!(
        why.contains("`3d.example/x`: `allocate.cdi.write.kind` is needed: `3d.example/x` is no CDI kind"),
        "{why}"
    );
}

#[test]
fn the_file_is_written_when_it_changes_and_goes_with_the_resource() {
    let room = std::env::temp_dir().join(format!("nodeplug-cdi-{}", std::process::id()));
    let _ = fs::remove_dir_all(&room);
    let host = Host { cdi: room.join("cdi"), ..Host::default() };
    let resource = resource("example.com/gpu", "{cdi: {write: {}}}");
    let (one, two) = (gpu("0000:01:00.0"), gpu("0000:02:00.0"));
    let path = room.join("cdi/nodeplug-example.com-gpu.json");
    let written = || fs::read_to_string(&path).unwrap().matches("containerEdits").count();

    assert!(!write(&host, &resource, &[]).unwrap());
    assert!(write(&host, &resource, &[&one]).unwrap());
    assert!(!write(&host, &resource, &[&one]).unwrap());
    assert!(write(&host, &resource, &[&one, &two, &one]).unwrap());
    assert_eq!(written(), 2);
    assert!(!write(&host, &resource, &[&two, &one]).unwrap(), "in any order");
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o111, 0);

    for other in
        ["nodeplug-old-x.json", ".nodeplug-example.com-gpu.json.new", "nvidia.json", "nodeplug-x.yaml"]
    {
        fs::write(host.cdi.join(other), "{}").unwrap();
    }
    let gone = sweep(&host, std::slice::from_ref(&resource)).unwrap();
    assert_eq!(
        gone,
        [".nodeplug-example.com-gpu.json.new", "nodeplug-old-x.json"].map(|name| host.cdi.join(name))
    );
    assert!(write(&host, &resource, &[]).unwrap(), "without devices there is no file");
    assert!(!path.exists());
    write(&host, &resource, &[&one]).unwrap();
    sweep(&host, &[]).unwrap();
    let mut left = store::names(&host.cdi).unwrap();
    left.sort();
    assert_eq!(left, ["nodeplug-x.yaml", "nvidia.json"]);
    assert_eq!(
        sweep(&Host { cdi: room.join("none"), ..Host::default() }, &[]).unwrap(),
        Vec::<PathBuf>::new()
    );
    fs::remove_dir_all(&room).unwrap();
}
