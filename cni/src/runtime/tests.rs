use std::fs;

use toml::Table;

use super::containerd::read;
use super::lists::{is_loaded, list, parse};
use super::process::Process;
use super::*;

fn table(text: &str) -> Table {
    text.parse().unwrap()
}

/// A made root, gone with the test.
struct Root(PathBuf);

impl Root {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("cni-runtime-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, path: &str, text: &str) {
        let path = below(&self.0, Path::new(path));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_three_versions_of_containerds_configuration_name_the_folders() {
    let cases = [
        ("", "/opt/cni/bin", "/etc/cni/net.d", 1, true),
        ("[plugins.cri.cni]\nbin_dir = '/a/'\nconf_dir = '/c'\nmax_conf_num = 0", "/a", "/c", 0, true),
        (
            "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.cni]\nbin_dir = '/a'",
            "/a",
            "/etc/cni/net.d",
            1,
            true,
        ),
        (
            "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.cni]\nbin_dir = ''\nbin_dirs = ['/a', '/b']\nconf_dir = '/c'\nmax_conf_num = 2",
            "/a /b",
            "/c",
            2,
            true,
        ),
        (
            "version = 3\n[plugins.'io.containerd.grpc.v1.cri'.cni]\nbin_dir = '/a'",
            "/a",
            "/etc/cni/net.d",
            1,
            true,
        ),
        ("disabled_plugins = ['cri']", "/opt/cni/bin", "/etc/cni/net.d", 1, false),
        ("disabled_plugins = ['io.containerd.cri.v1.runtime']", "/opt/cni/bin", "/etc/cni/net.d", 1, false),
    ];
    for (text, bin, conf, number, serves) in cases {
        let settings = read(&[&table(text)], true);
        let dirs: Vec<String> = settings.bin_dirs.iter().map(|d| d.display().to_string()).collect();
        assert_eq!(dirs.join(" "), bin, "{text}");
        assert_eq!((settings.conf_dir.as_path(), settings.max_conf_num), (Path::new(conf), number), "{text}");
        assert_eq!(settings.serves, serves, "{text}");
    }
}

#[test]
fn an_imported_file_replaces_the_section_in_old_releases_and_its_keys_in_new_ones() {
    let main =
        table("version = 2\n[plugins.'io.containerd.grpc.v1.cri'.cni]\nbin_dir = '/a'\nconf_dir = '/c'");
    let import = table("version = 2\n[plugins.'io.containerd.grpc.v1.cri'.cni]\nconf_dir = '/d'");
    let merged = read(&[&main, &import], true);
    assert_eq!((merged.bin_dirs[0].as_path(), merged.conf_dir.as_path()), (Path::new("/a"), Path::new("/d")));
    let replaced = read(&[&main, &import], false);
    assert_eq!(
        (replaced.bin_dirs[0].as_path(), replaced.conf_dir.as_path()),
        (Path::new(BIN), Path::new("/d"))
    );
    let other = table("[plugins.other]\nx = 1");
    assert_eq!(read(&[&main, &other], false).bin_dirs, [Path::new("/a")]);
}

#[test]
fn a_folder_that_a_link_leads_out_of_the_root_is_refused() {
    let root = Root::new("links");
    root.file("/real/x", "");
    let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, root.0.join(name)).unwrap();
    link("/usr", "out");
    link("/nonexistent", "nowhere");
    link("real", "within");
    let is_fine = |path: &str| stays_below(&root.0, Path::new(path)).is_ok();
    assert!(
        is_fine("/real") && is_fine("/real/not/yet") && is_fine("/within/not/yet") && is_fine("/not/yet")
    );
    assert!(!is_fine("/out") && !is_fine("/out/lib") && !is_fine("/out/not/yet") && !is_fine("/nowhere/x"));
    assert!(stays_below(Path::new("/"), Path::new("/opt/cni/bin")).is_ok());
}

#[test]
fn imports_are_followed_once_below_the_root() {
    let root = Root::new("imports");
    let import = "version = 3\nimports = ['conf.d/*.toml', '/etc/containerd/config.toml']\n";
    root.file("/etc/containerd/config.toml", import);
    root.file(
        "/etc/containerd/conf.d/20.toml",
        "[plugins.'io.containerd.cri.v1.runtime'.cni]\nbin_dirs = ['/x']",
    );
    root.file("/etc/containerd/conf.d/30.toml", "broken = [");
    let found = find(&root.0).unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].bin_dirs, [Path::new("/x")]);
    assert_eq!(found[0].release, Some(Release(2, 0)), "version 3 is read by 2.0 and newer ones");
    assert_eq!(
        found[0].files,
        [Path::new("/etc/containerd/config.toml"), Path::new("/etc/containerd/conf.d/20.toml")]
    );
    assert!(found[0].notes[0].contains("30.toml"), "{:?}", found[0].notes);
}

#[test]
fn each_distribution_is_known_by_its_configuration() {
    let root = Root::new("distributions");
    assert_eq!(find(&root.0).unwrap(), []);
    let cni =
        "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = \"/b\"\nconf_dir = \"/c\"\n";
    let files = [
        ("k3s's containerd", "/var/lib/rancher/k3s/agent/etc/containerd/config.toml"),
        ("rke2's containerd", "/var/lib/rancher/rke2/agent/etc/containerd/config.toml"),
        ("microk8s's containerd", "/var/snap/microk8s/current/args/containerd.toml"),
        ("k0s's containerd", "/etc/k0s/containerd.toml"),
    ];
    for (_, file) in files {
        root.file(file, cni);
    }
    root.file(
        "/etc/crio/crio.conf.d/10.conf",
        "[crio.network]\nplugin_dirs = ['/usr/libexec/cni', '/opt/cni/bin/']",
    );
    root.file(
        "/etc/crio/crio.conf.d/20.conf",
        "[crio.network]\nnetwork_dir = '/n/'\ncni_default_network = 'pods'",
    );
    let found = find(&root.0).unwrap();
    let who: Vec<&str> = found.iter().map(|r| r.who.as_str()).collect();
    assert_eq!(who, [files[0].0, files[1].0, files[2].0, files[3].0, "cri-o"]);
    assert!(found[..4].iter().all(|r| r.bin_dirs == [Path::new("/b")] && r.conf_dir == Path::new("/c")));
    let crio = &found[4];
    assert_eq!(crio.bin_dirs, [Path::new("/usr/libexec/cni"), Path::new("/opt/cni/bin")]);
    assert_eq!((crio.conf_dir.as_path(), crio.default_network.as_deref()), (Path::new("/n"), Some("pods")));
}

#[test]
fn a_program_without_a_configuration_has_the_defaults_and_its_packages_release() {
    let root = Root::new("package");
    root.file("/usr/bin/containerd", "");
    root.file(
        "/var/lib/dpkg/status",
        "Package: containerd\nStatus: install ok installed\nVersion: 1.6.20~ds1-1\n\n",
    );
    let found = find(&root.0).unwrap();
    assert_eq!((found.len(), found[0].release), (1, Some(Release(1, 6))));
    assert_eq!((found[0].bin_dirs[0].as_path(), found[0].cni_version()), (Path::new(BIN), "1.0.0"));
}

#[test]
fn arguments_are_read_in_each_of_their_forms() {
    let process = |line: &str| Process {
        arguments: line.split_whitespace().map(str::to_owned).collect(),
        ..Process::default()
    };
    for line in ["--config /x", "--config=/x", "-c /x", "--log-level debug -c /y --config /x"] {
        assert_eq!(process(line).flag(&["config", "c"]).as_deref(), Some("/x"), "{line}");
    }
    assert_eq!(process("config /x --other").flag(&["config"]), None);
    let root = Root::new("arguments");
    let docker = dockerd::running(&root.0, &process("--cni-bin-dir=/a,/b --cni-conf-dir /c")).unwrap();
    assert_eq!(docker.bin_dirs, [Path::new("/a"), Path::new("/b")]);
    let crio = crio::running(&root.0, &process("--cni-plugin-dir /p --cni-config-dir=/q")).unwrap();
    assert_eq!((crio.bin_dirs, crio.conf_dir), (vec![PathBuf::from("/p")], PathBuf::from("/q")));
    root.file("/own.toml", "[plugins.cri.cni]\nbin_dir = '/own'");
    let containerd = containerd::running(&root.0, &process("-c /own.toml")).unwrap();
    assert_eq!(containerd.bin_dirs, [Path::new("/own")]);
}

#[test]
fn a_file_is_broken_where_libcni_says_so() {
    let good = r#"{"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "a"}, {"type": "b"}]}"#;
    let network = parse("10-a.conflist".to_owned(), good.as_bytes());
    assert_eq!((network.broken, network.types), (None, vec!["a".to_owned(), "b".to_owned()]));
    assert_eq!(parse("a.conf".to_owned(), br#"{"name": "n", "type": "a"}"#).broken, None);
    let table = [
        ("a.conf", good, "type"),
        ("a.conflist", r#"{"name": "n", "type": "a"}"#, "no plugins"),
        ("a.conflist", r#"{"plugins": [{"type": "a"}]}"#, "name"),
        ("a.conflist", r#"{"name": "n", "plugins": [{}]}"#, "type"),
        ("a.conflist", r#"{"name": "n", "plugins": ["#, "JSON"),
        ("a.conflist", "[]", "object"),
    ];
    for (file, text, part) in table {
        let broken = parse(file.to_owned(), text.as_bytes()).broken.unwrap();
        assert!(broken.contains(part), "{file} {text}: {broken}");
    }
}

#[test]
fn a_runtime_takes_the_first_by_name_and_stops_at_or_passes_over_a_broken_one() {
    let root = Root::new("lists");
    let folder = below(&root.0, Path::new("/net.d"));
    let net = |name: &str| format!(r#"{{"name": "{name}", "plugins": [{{"type": "x"}}]}}"#);
    root.file("/net.d/20-b.conflist", &net("b"));
    root.file("/net.d/30-c.conflist", &net("c"));
    root.file("/net.d/.10-new.conflist.new", "half");
    root.file("/net.d/README", "text");
    fs::create_dir(folder.join("05.conf")).unwrap();
    let containerd = Runtime::unknown();
    let crio = Runtime { program: Program::Crio, ..Runtime::unknown() };
    let names = |list: &[&lists::Network]| list.iter().map(|n| n.file.clone()).collect::<Vec<_>>().join(" ");
    let networks = list(&folder).unwrap();
    for runtime in [&containerd, &crio] {
        let pick = runtime.pick(&networks);
        assert_eq!(
            (names(&pick.taken), names(&pick.beside)),
            ("20-b.conflist".into(), "30-c.conflist".into())
        );
    }
    let all = Runtime { max_conf_num: 0, ..Runtime::unknown() };
    assert_eq!(all.pick(&networks).taken.len(), 2);
    let told = Runtime { default_network: Some("c".to_owned()), ..crio.clone() };
    assert_eq!(names(&told.pick(&networks).taken), "30-c.conflist");
    root.file("/net.d/.00-hidden.conflist", "{");
    let networks = list(&folder).unwrap();
    let pick = containerd.pick(&networks);
    assert_eq!(pick.stopped_by.unwrap().file, ".00-hidden.conflist");
    assert_eq!((pick.taken.len(), pick.beside.len()), (0, 2));
    let pick = crio.pick(&networks);
    assert_eq!(
        (names(&pick.taken), names(&pick.skipped)),
        ("20-b.conflist".into(), ".00-hidden.conflist".into())
    );
    assert!(is_loaded("a.json") && !is_loaded("conflist") && !is_loaded(".a.conflist.new"));
    assert_eq!(list(Path::new("/nonexistent")).unwrap(), []);
}
