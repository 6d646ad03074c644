//! Folders of the node, as far as its policy lets pods have them.

mod attackers;
mod owners;
mod spread;

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use harness::call::tool;
use harness::kubelet::{Kubelet, Volume};
use harness::suite::volume;
use harness::volume_look::{Mount, mounts_at};
use harness::volume_node::VolumeNode;
use libtest_mimic::Trial;

use crate::ours::Call;

pub fn trials() -> Vec<Trial> {
    let mut all = own();
    all.extend(attackers::trials());
    all.extend(owners::trials());
    all.extend(spread::trials());
    all
}

fn own() -> Vec<Trial> {
    vec![
        volume("a_folder_of_the_node_is_off_without_a_policy", &[], off),
        volume("a_root_is_for_its_namespaces_and_the_longest_decides", &[], roots),
        volume("a_folder_is_written_by_one_pod_and_read_by_another", &[], shared),
        volume("a_read_only_root_is_never_written", &[], read_only),
        volume("a_missing_folder_is_made_where_the_policy_lets_pods_make_some", &[], create),
        volume("sub_path_is_made_of_the_pods_names", &[], sub_path),
        volume("a_source_that_is_no_folder_is_refused", &["mknod", "mkfifo"], no_folder),
        volume("a_source_that_is_the_nodes_own_is_refused", &[], of_the_node),
        volume("a_root_of_the_nodes_own_stops_every_mount", &[], forbidden_roots),
        volume("suid_bits_devices_and_programs_of_a_source_are_limited", &["cp", "id", "mknod"], limited),
    ]
}

const POLICY: &str = "
backends:
  bind: {roots: [{path: /srv/shared, create: true}]}
";

/// The volume `data` of `/srv/shared`, for a new pod.
fn data(kubelet: &Kubelet) -> Volume {
    from(kubelet, "/srv/shared")
}

fn from(kubelet: &Kubelet, source: &str) -> Volume {
    kubelet.pod("default", "web").inline("nodeplug/bind", "data").option("source", source)
}

fn lay_out(node: &VolumeNode) {
    node.policy(POLICY);
    fs::create_dir_all("/srv/shared/sub").unwrap();
    fs::write("/srv/shared/marker", "inside").unwrap();
    fs::write("/srv/shared/sub/marker", "inside sub").unwrap();
    fs::create_dir_all("/srv/outside/sub").unwrap();
    fs::write("/srv/outside/marker", "outside").unwrap();
    fs::write("/srv/outside/sub/marker", "outside").unwrap();
}

#[track_caller]
fn only_mount(volume: &Volume) -> Mount {
    let mut all = mounts_at(&volume.path());
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

#[track_caller]
fn end(node: &VolumeNode, kubelet: &Kubelet, volume: &Volume) {
    kubelet.end(volume.pod());
    node.assert_nothing_left(&volume.pod().name);
}

/// Refused for a reason that has these words.
#[track_caller]
fn refused(node: &VolumeNode, kubelet: &Kubelet, volume: &Volume, words: &[&str]) {
    let why = kubelet.set_up(volume).refused().to_owned();
    assert!(words.iter().all(|word| why.contains(word)), "{words:?}: {why}");
    end(node, kubelet, volume);
}

fn off(node: &VolumeNode) {
    fs::create_dir_all("/srv/shared").unwrap();
    let kubelet = node.kubelet();
    refused(
        node,
        &kubelet,
        &data(&kubelet),
        &["`bind`", "off on this node", r#"bind: {roots: [{path: "/srv/shared", namespaces: ["default"]}]}"#],
    );
    node.policy("backends: {tmpfs: {}}\n");
    refused(node, &kubelet, &data(&kubelet), &["off on this node", "below `backends`"]);
    // The lines of the hint are the ones that allow it.
    node.policy("backends: {tmpfs: {}, nfs: {}, cifs: {}, bind: {roots: [{path: \"/srv/shared\", namespaces: [\"default\"]}]}}\n");
    let volume = data(&kubelet);
    kubelet.set_up(&volume).mounted();
    end(node, &kubelet, &volume);
}

fn roots(node: &VolumeNode) {
    lay_out(node);
    node.policy(
        "
backends:
  bind:
    roots:
      - {path: /srv/shared, namespaces: [\"team-*\"]}
      - {path: /srv/shared/sub, namespaces: [special]}
      - {path: /srv/outside, namespaces: [\"team-a\"], readOnly: true}
",
    );
    let kubelet = node.kubelet();
    let table = [
        ("team-a", "/srv/shared/other", ""),
        ("team-b", "/srv/shared/other", ""),
        ("default", "/srv/shared/other", "is not for the namespace `default`"),
        ("special", "/srv/shared/other", "is not for the namespace `special`"),
        ("special", "/srv/shared/sub", ""),
        ("team-a", "/srv/shared/sub", "is not for the namespace `team-a`"),
        ("team-a", "/srv/shared", "contains the root `/srv/shared/sub`"),
        ("team-a", "/srv/shared/sub2", ""),
        ("team-a", "/srv/shared2", "lists no root that contains it"),
        ("team-a", "/srv", "lists no root that contains it"),
        ("team-a", "/srv/outside", "read-only"),
        ("team-", "/srv/shared/other", ""),
        ("xteam-a", "/srv/shared/other", "is not for the namespace"),
        ("", "/srv/shared/other", "is not a namespace's name"),
    ];
    for folder in ["/srv/shared/other", "/srv/shared/sub2", "/srv/shared2"] {
        fs::create_dir_all(folder).unwrap();
    }
    for (namespace, source, words) in table {
        let pod = kubelet.pod(namespace, "web");
        let volume = pod.inline("nodeplug/bind", "data").option("source", source);
        if words.is_empty() {
            kubelet.set_up(&volume).mounted();
            assert_eq!(only_mount(&volume).root, Path::new(source.trim_start_matches("/srv")), "{source}");
            end(node, &kubelet, &volume);
        } else {
            refused(node, &kubelet, &volume, &[words]);
        }
    }
}

fn shared(node: &VolumeNode) {
    lay_out(node);
    let kubelet = node.kubelet();
    let (writer, reader) = (data(&kubelet), data(&kubelet).read_only());
    for volume in [&writer, &reader] {
        kubelet.set_up(volume).mounted();
    }
    let (one, two) = (kubelet.container(&[&writer]), kubelet.container(&[&reader]));
    one.says("echo hello > /mnt/data/new");
    assert_eq!(two.says("cat /mnt/data/new"), "hello\n");
    let written = two.run("echo x > /mnt/data/other");
    assert!(written.stderr.contains("Read-only file system"), "{written:?}");
    drop((one, two));
    kubelet.end(writer.pod());
    assert_eq!(fs::read_to_string(reader.path().join("new")).unwrap(), "hello\n", "the other pod's stays");
    // What the source was may be gone by then.
    fs::remove_dir_all("/srv/shared").unwrap();
    end(node, &kubelet, &reader);
    let kind = fs::read_dir("/srv").unwrap().count();
    assert_eq!(kind, 1, "nothing was made beside it");
}

fn read_only(node: &VolumeNode) {
    lay_out(node);
    node.policy("backends: {bind: {roots: [{path: /srv/shared, readOnly: true}]}}\n");
    let kubelet = node.kubelet();
    refused(node, &kubelet, &data(&kubelet), &["is read-only", "readOnly: true"]);
    refused(node, &kubelet, &data(&kubelet).option("readOnly", "false"), &["is read-only"]);
    refused(node, &kubelet, &data(&kubelet).option("mountOptions", "rw"), &["`rw` is refused"]);
    refused(node, &kubelet, &data(&kubelet).read_only().option("create", "dir"), &["make something new"]);
    for volume in [
        data(&kubelet).read_only(),
        data(&kubelet).option("readOnly", "true"),
        data(&kubelet).option("mountOptions", "ro"),
        data(&kubelet).read_only().fs_group(1234).option("fsGroupPolicy", "recursive"),
        data(&kubelet).read_only().option("recursive", "true"),
    ] {
        kubelet.set_up(&volume).mounted();
        assert!(only_mount(&volume).options.contains(&"ro".to_owned()));
        let container = kubelet.container(&[&volume]);
        let tried = container.run("echo x > /mnt/data/marker; chown 1 /mnt/data/marker; rm /mnt/data/marker");
        assert_eq!(tried.stderr.matches("Read-only file system").count(), 3, "{tried:?}");
        drop(container);
        end(node, &kubelet, &volume);
        let marker = fs::metadata("/srv/shared/marker").unwrap();
        assert_eq!((marker.uid(), marker.gid()), (0, 0), "nothing was given to the group");
    }
}

fn create(node: &VolumeNode) {
    lay_out(node);
    let kubelet = node.kubelet();
    refused(node, &kubelet, &from(&kubelet, "/srv/shared/new"), &["No such file", "`create: dir`"]);
    let volume = from(&kubelet, "/srv/shared/new/deep").option("create", "dir");
    let volume = volume.option("mode", "0750").option("uid", "1000").option("gid", "2000");
    kubelet.set_up(&volume).mounted();
    for path in ["/srv/shared/new", "/srv/shared/new/deep"] {
        let made = fs::metadata(path).unwrap();
        assert_eq!((made.mode() & 0o7777, made.uid(), made.gid()), (0o750, 1000, 2000), "{path}");
    }
    end(node, &kubelet, &volume);
    assert!(Path::new("/srv/shared/new/deep").exists(), "what a pod wrote stays");
    // One that is there stays as it is.
    let volume =
        from(&kubelet, "/srv/shared/sub").option("create", "dir").option("mode", "0700").option("uid", "7");
    kubelet.set_up(&volume).mounted();
    let there = fs::metadata("/srv/shared/sub").unwrap();
    assert_eq!((there.mode() & 0o7777, there.uid()), (0o755, 0));
    end(node, &kubelet, &volume);
    refused(
        node,
        &kubelet,
        &from(&kubelet, "/srv/shared/new").option("create", "file"),
        &["`create` (file)"],
    );
    symlink("/srv/outside", "/srv/shared/link").unwrap();
    for source in ["/srv/shared/link", "/srv/shared/link/new", "/srv/shared/marker/new"] {
        let volume = from(&kubelet, source).option("create", "dir");
        kubelet.set_up(&volume).refused();
        end(node, &kubelet, &volume);
    }
    assert_eq!(fs::read_dir("/srv/outside").unwrap().count(), 2, "nothing was made outside");
    node.policy("backends: {bind: {roots: [{path: /srv/shared}]}}\n");
    refused(
        node,
        &kubelet,
        &from(&kubelet, "/srv/shared/newer").option("create", "dir"),
        &["make something new", "`create: true`"],
    );
    assert!(!Path::new("/srv/shared/newer").exists());
}

fn sub_path(node: &VolumeNode) {
    lay_out(node);
    let kubelet = node.kubelet();
    let made = |template: &str| data(&kubelet).option("create", "dir").option("subPath", template);
    for (template, expect) in [
        ("plain", "plain"),
        ("${pod.namespace}/${pod.name}", "default/web"),
        ("x-${volume}-y", "x-data-y"),
        ("${pod.serviceAccount}", "default"),
        ("$HOME", "$HOME"),
        ("a b", "a b"),
    ] {
        let volume = made(template);
        kubelet.set_up(&volume).mounted();
        assert_eq!(only_mount(&volume).root, Path::new("/shared").join(expect), "{template}");
        end(node, &kubelet, &volume);
    }
    let volume = made("${pod.uid}");
    kubelet.set_up(&volume).mounted();
    assert_eq!(only_mount(&volume).root, Path::new("/shared").join(&volume.pod().uid));
    end(node, &kubelet, &volume);
    for bad in [
        "..",
        "../outside",
        "a/../../outside",
        "/etc",
        "a//b",
        "./a",
        "a/",
        "${HOME}",
        "${pod.name",
        "a\nb",
        "a\u{7f}",
    ] {
        refused(node, &kubelet, &made(bad), &["`subPath`"]);
    }
    // Somebody who writes the kubelet's keys adds no component.
    for lie in ["..", "../..", "a/b", "", "-rf", "a\0b"] {
        let volume = made("${pod.name}").option("kubernetes.io/pod.name", lie);
        refused(node, &kubelet, &volume, &["${pod.name}"]);
    }
    assert_eq!(fs::read_dir("/srv").unwrap().count(), 2);
}

fn no_folder(node: &VolumeNode) {
    lay_out(node);
    tool(&["mkfifo", "/srv/shared/fifo"]);
    tool(&["mknod", "/srv/shared/null", "c", "1", "3"]);
    let _socket = std::os::unix::net::UnixListener::bind("/srv/shared/socket").unwrap();
    let kubelet = node.kubelet();
    for name in ["marker", "fifo", "null", "socket", "marker/below"] {
        let volume = from(&kubelet, &format!("/srv/shared/{name}"));
        refused(node, &kubelet, &volume, &["Not a directory"]);
    }
    refused(node, &kubelet, &from(&kubelet, "/srv/shared/none"), &["No such file"]);
    for bad in [
        "srv/shared",
        "",
        ".",
        "-o",
        "/srv/shared/../outside",
        "/srv//shared",
        "/srv/shared/",
        "/srv/shared/.",
        "//srv/shared",
        "/srv/shared\n",
        "~",
        "file:///srv/shared",
    ] {
        let volume = from(&kubelet, bad);
        kubelet.set_up(&volume).refused();
        end(node, &kubelet, &volume);
    }
}

/// The kernel's files, and the node's own, by whatever way they came beneath a root.
fn of_the_node(node: &VolumeNode) {
    lay_out(node);
    let kubelet = node.kubelet();
    for source in [
        "/",
        "/proc",
        "/proc/1/root",
        "/sys",
        "/dev",
        "/etc",
        "/etc/kubernetes",
        "/run",
        "/run/containerd",
        "/var/lib/kubelet",
        "/var/lib/kubelet/pods",
        "/var/lib/containerd",
        "/root",
        "/usr",
        "/var/run/docker.sock",
        "/srv/shared/../../etc",
    ] {
        let volume = from(&kubelet, source);
        let why = kubelet.set_up(&volume).refused().to_owned();
        let told = why.contains("no policy allows") || why.contains("no root") || why.contains(" component");
        assert!(told, "{source}: {why}");
        end(node, &kubelet, &volume);
    }
    fs::create_dir_all("/srv/shared/kernel/sub").unwrap();
    for kind in ["proc", "sysfs", "devpts", "cgroup2", "mqueue"] {
        if !harness::call::try_tool(&["mount", "-t", kind, "none", "/srv/shared/kernel"]).ok() {
            continue;
        }
        node.keep();
        refused(node, &kubelet, &from(&kubelet, "/srv/shared/kernel"), &["of the kernel"]);
        // With everything below it, it would come along.
        refused(
            node,
            &kubelet,
            &data(&kubelet).option("recursive", "true"),
            &["/srv/shared/kernel", "of the kernel"],
        );
        let volume = data(&kubelet);
        kubelet.set_up(&volume).mounted();
        assert_eq!(fs::read_dir(volume.path().join("kernel")).unwrap().count(), 1, "{kind} stays behind");
        end(node, &kubelet, &volume);
        tool(&["umount", "/srv/shared/kernel"]);
    }
    // Devices come by a bind mount, too.
    tool(&["mount", "--bind", "/dev", "/srv/shared/kernel"]);
    node.keep();
    refused(node, &kubelet, &from(&kubelet, "/srv/shared/kernel"), &["of the kernel"]);
    refused(node, &kubelet, &data(&kubelet).option("recursive", "true"), &["/srv/shared/kernel"]);
    tool(&["umount", "/srv/shared/kernel"]);
    // Nothing is made where nothing may be had.
    tool(&["mount", "-t", "proc", "none", "/srv/shared/kernel"]);
    node.keep();
    let new = from(&kubelet, "/srv/shared/kernel/new/deep").option("create", "dir");
    refused(node, &kubelet, &new, &["of the kernel"]);
}

fn forbidden_roots(node: &VolumeNode) {
    lay_out(node);
    let kubelet = node.kubelet();
    for root in [
        "/",
        "/proc",
        "/dev",
        "/etc/kubernetes",
        "/var/lib",
        "/var/lib/kubelet",
        "/run/containerd",
        "/srv/../etc",
        "srv",
    ] {
        node.policy(&format!("backends: {{tmpfs: {{}}, bind: {{roots: [{{path: {root}}}]}}}}\n"));
        let volume = kubelet.pod("default", "web").inline("nodeplug/tmpfs", "data");
        refused(node, &kubelet, &volume, &["check the node's policy", "backends.bind.roots[0].path"]);
    }
    // The words of a root are plain, and what it leads to is not.
    for (link, real) in [("/srv/etc", "/etc"), ("/srv/pods", "/var/lib/kubelet/pods")] {
        symlink(real, link).unwrap();
        node.policy(&format!("backends: {{bind: {{roots: [{{path: {link}, create: true}}]}}}}\n"));
        refused(node, &kubelet, &from(&kubelet, link), &["no policy can allow it"]);
        refused(
            node,
            &kubelet,
            &from(&kubelet, &format!("{link}/new")).option("create", "dir"),
            &["no policy can allow it"],
        );
        assert!(!Path::new(real).join("new").exists());
    }
    // The node's whole disk. Nothing is made there: it is the host's.
    symlink("/", "/srv/all").unwrap();
    node.policy("backends: {bind: {roots: [{path: /srv/all}]}}\n");
    refused(node, &kubelet, &from(&kubelet, "/srv/all"), &["no policy can allow it"]);
    refused(node, &kubelet, &from(&kubelet, "/srv/all/proc"), &["no policy can allow it"]);
    // One that leads to a folder of its own is the operator's word.
    symlink("/srv/shared", "/srv/alias").unwrap();
    node.policy("backends: {bind: {roots: [{path: /srv/alias}]}}\n");
    let volume = from(&kubelet, "/srv/alias/sub");
    kubelet.set_up(&volume).mounted();
    assert_eq!(only_mount(&volume).root, Path::new("/shared/sub"));
    end(node, &kubelet, &volume);
}

fn limited(node: &VolumeNode) {
    lay_out(node);
    tool(&[
        "sh",
        "-c",
        "cd /srv/shared && cp /usr/bin/id id && chmod 4755 id && mknod null c 1 3 && chmod 666 null",
    ]);
    let kubelet = node.kubelet();
    let probes = |volume: &Volume| {
        kubelet.set_up(volume).mounted();
        let container = kubelet.container(&[volume]);
        let runs = container.run_as(1000, &[], "/mnt/data/id -u");
        let device = container.run("echo x > /mnt/data/null");
        drop(container);
        end(node, &kubelet, volume);
        (runs.stdout.trim().to_owned(), device.ok())
    };
    assert_eq!(probes(&data(&kubelet)), ("1000".to_owned(), false));
    assert_eq!(probes(&data(&kubelet).option("noexec", "true")), (String::new(), false));
    refused(node, &kubelet, &data(&kubelet).option("allowSuid", "true"), &["allowSuid"]);
    node.policy(&format!("allowSuid: [default]\nallowDev: [default]\n{POLICY}"));
    let both = data(&kubelet).option("allowSuid", "true").option("allowDev", "true");
    assert_eq!(probes(&both), ("0".to_owned(), true));
    for bad in [
        "suid",
        "dev",
        "exec",
        "noatime,suid",
        "bind",
        "rbind",
        "shared",
        "remount,rw",
        "size=1",
        "X-mount.mkdir",
    ] {
        refused(node, &kubelet, &data(&kubelet).option("mountOptions", bad), &["mountOptions"]);
    }
    // Removed while it is mounted, the policy keeps nobody from ending.
    let volume = data(&kubelet);
    kubelet.set_up(&volume).mounted();
    fs::remove_file("/etc/nodeplug/flexvolume.yaml").unwrap();
    Call::unmount(&volume).succeeds();
    end(node, &kubelet, &volume);
}
