//! A share from its mount to its unmount, by a helper that does what the test needs.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use harness::kubelet::Outcome;
use harness::suite::{volume, volume_shared};
use harness::volume_look::{mounts, mounts_at};
use harness::volume_node::VolumeNode;
use libtest_mimic::Trial;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{BIND, EXPORT, PASSWORD, cifs, help, nfs, policy, serve};

pub fn trials() -> Vec<Trial> {
    vec![
        volume("a_share_is_there_for_its_pod_and_nowhere_else", &[], there_and_gone),
        volume_shared("a_share_leaves_no_mount_on_a_node_that_shares_its_mounts", &[], there_and_gone),
        volume("a_helper_gets_its_words_its_secrets_and_nothing_else", &[], words_and_nothing_else),
        volume("a_folder_of_a_share_is_the_volume", &[], folder_of_a_share),
        volume("a_folder_of_a_share_is_never_reached_by_a_symlink", &[], no_symlink),
        volume("a_share_is_given_to_the_group_where_the_pod_asks_for_it", &[], given_to_the_group),
        volume("a_helper_that_fails_is_quoted_without_the_password", &[], quoted_without_the_password),
        volume("a_helper_that_mounts_nothing_is_a_failure", &[], mounts_nothing),
        volume("a_helper_that_is_missing_is_named_with_its_package", &[], missing_helper),
        volume("a_program_left_in_the_background_holds_nothing_up", &[], left_in_the_background),
        volume("a_server_that_the_policy_does_not_list_is_never_asked", &[], unlisted_server),
        volume("many_pods_mount_one_share_at_the_same_time", &[], many_pods),
    ]
}

fn there_and_gone(node: &VolumeNode) {
    serve(node, BIND);
    let kubelet = node.kubelet();
    for volume in [nfs(&kubelet), cifs(&kubelet)] {
        let before = mounts().len();
        kubelet.set_up(&volume).mounted();
        assert_eq!(mounts().len(), before + 1);
        let options = mounts_at(&volume.path())[0].options.join(",");
        assert!(options.starts_with("rw,nosuid,nodev"), "{options}");
        let container = kubelet.container(&[&volume]);
        assert_eq!(container.says("cat /mnt/data/file; echo of the pod > /mnt/data/new"), "of the server\n");
        assert_eq!(fs::read_to_string(Path::new(EXPORT).join("new")).unwrap(), "of the pod\n");
        container.stop();
        assert_eq!(kubelet.set_up(&volume), Outcome::AlreadyMounted);
        kubelet.tear_down(&volume).unmounted();
        assert_eq!(kubelet.tear_down(&volume), Outcome::NotThere);
        kubelet.end(volume.pod());
        node.assert_nothing_left("after an unmount");

        let frozen = volume.read_only();
        kubelet.set_up(&frozen).mounted();
        let container = kubelet.container(&[&frozen]);
        assert!(container.run("echo x > /mnt/data/file").stderr.contains("Read-only file system"));
        container.stop();
        kubelet.end(frozen.pod());
    }
}

fn words_and_nothing_else(node: &VolumeNode) {
    serve(
        node,
        &format!(
            "printf '%s\\n' \"$@\" > /srv/words\n\
             tr '\\0' '\\n' < /proc/$$/environ > /srv/environment\n\
             readlink /proc/$$/fd/* > /srv/descriptors\n\
             readlink /proc/$$/cwd >> /srv/descriptors\n\
             umask > /srv/umask\n\
             file=$(echo \"$5\" | tr , '\\n' | sed -n s/^credentials=//p)\n\
             cat \"$file\" > /srv/credentials; stat -Lc '%a %u %s' \"$file\" >> /srv/umask\n{BIND}"
        ),
    );
    let kubelet = node.kubelet();
    let volume = cifs(&kubelet).secret("domain", b"DOM").secret("other", b"unheard-of").fs_group(7);
    kubelet.set_up(&volume).mounted();
    let read = |name: &str| fs::read_to_string(Path::new("/srv").join(name)).unwrap();
    let words = read("words");
    let (options, number) = words.trim_end().rsplit_once("/fd/").unwrap();
    assert!(number.parse::<u32>().unwrap() > 2);
    assert_eq!(
        options,
        "//127.0.0.1/share\n/run/nodeplug/flexvolume/stage/mnt\n-n\n-o\n\
         nosuid,nodev,vers=3,gid=7,file_mode=0770,dir_mode=0770,credentials=/proc/self"
    );
    assert_eq!(read("environment"), "LC_ALL=C\nPATH=/usr/sbin:/usr/bin:/sbin:/bin\n");
    let content = read("credentials");
    let expect = format!("username=bob\npassword={}\ndomain=DOM\n", String::from_utf8_lossy(PASSWORD));
    assert_eq!(content, expect);
    assert_eq!(read("umask"), format!("0077\n600 0 {}\n", content.len()));
    // Input, output, the script itself (dash has it at 10), the locks of volume and share, the credentials.
    for line in read("descriptors").lines() {
        let known =
            ["/dev/null", "/memfd:", "/opt/helper", "/run/nodeplug/flexvolume/locks/", "/srv/descriptors"];
        assert!(line == "/" || known.iter().any(|k| line.starts_with(k)), "{line}");
    }
    kubelet.assert_not_told(PASSWORD);
    kubelet.end(volume.pod());
}

fn folder_of_a_share(node: &VolumeNode) {
    serve(node, BIND);
    let kubelet = node.kubelet();
    let export = Path::new(EXPORT);
    let volume = nfs(&kubelet).option("subDir", "${pod.namespace}/${pod.name}");
    let why = kubelet.set_up(&volume).refused().to_owned();
    assert!(why.contains("`shop/web-0`") && why.contains("createSubDir"), "{why}");
    node.assert_nothing_left("a folder that is missing");
    assert!(!export.join("shop").exists());

    let made = volume.clone().option("createSubDir", "true");
    kubelet.set_up(&made).mounted();
    let container = kubelet.container(&[&made]);
    container.says("test ! -e /mnt/data/file; echo x > /mnt/data/mine");
    assert!(container.run("test -e /mnt/data/../file").exit != Some(0));
    container.stop();
    assert!(export.join("shop/web-0/mine").exists());
    assert_eq!(fs::metadata(export.join("shop/web-0")).unwrap().mode() & 0o7777, 0o770);
    kubelet.end(made.pod());
    node.assert_nothing_left("a folder that was made");

    // What is there already stays as it is.
    let owned = made.option("mode", "2777").option("uid", "1000").option("gid", "1001");
    kubelet.set_up(&owned).mounted();
    assert_eq!(fs::metadata(export.join("shop/web-0")).unwrap().mode() & 0o7777, 0o770);
    kubelet.end(owned.pod());
    fs::remove_dir_all(export.join("shop")).unwrap();
    kubelet.set_up(&owned).mounted();
    let found = fs::metadata(owned.path()).unwrap();
    assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (1000, 1001, 0o2777));
    kubelet.end(owned.pod());

    // A share's own folder, by a user that the client does not choose.
    let cifs = cifs(&kubelet).option("subDir", "made/deep").option("createSubDir", "true");
    kubelet.set_up(&cifs).mounted();
    assert!(export.join("made/deep").is_dir());
    kubelet.end(cifs.pod());
}

fn no_symlink(node: &VolumeNode) {
    serve(node, BIND);
    fs::create_dir_all("/srv/secret/deep").unwrap();
    symlink("/srv/secret", Path::new(EXPORT).join("link")).unwrap();
    symlink("file", Path::new(EXPORT).join("last")).unwrap();
    let kubelet = node.kubelet();
    for sub_dir in ["link", "link/deep", "last", "file"] {
        for create in ["true", "false"] {
            let volume = nfs(&kubelet).option("subDir", sub_dir).option("createSubDir", create);
            kubelet.set_up(&volume).refused();
            node.assert_nothing_left(sub_dir);
        }
    }
    let volume = nfs(&kubelet).option("subDir", "link/new").option("createSubDir", "true");
    let why = kubelet.set_up(&volume).refused().to_owned();
    assert!(why.contains("a symlink or `..` stands in the way"), "{why}");
    assert!(!Path::new("/srv/secret/new").exists());
}

fn given_to_the_group(node: &VolumeNode) {
    serve(node, BIND);
    let kubelet = node.kubelet();
    let (export, file) = (Path::new(EXPORT), Path::new(EXPORT).join("file"));
    let group = |path: &Path| fs::metadata(path).unwrap().gid();
    let cases = [
        (None, false, (0, 0)),
        (Some("root"), false, (1234, 0)),
        (Some("recursive"), false, (1234, 1234)),
        (Some("recursive"), true, (0, 0)),
    ];
    for (scope, read_only, expect) in cases {
        for path in [export, &file] {
            chown(path, Some(0), Some(0)).unwrap();
        }
        let volume = nfs(&kubelet).fs_group(1234);
        let volume = scope.map_or(volume.clone(), |scope| volume.option("fsGroupPolicy", scope));
        let volume = if read_only { volume.read_only() } else { volume };
        kubelet.set_up(&volume).mounted();
        assert_eq!((group(export), group(&file)), expect, "{scope:?} {read_only}");
        kubelet.end(volume.pod());
    }
}

fn quoted_without_the_password(node: &VolumeNode) {
    serve(node, "cat \"${5##*credentials=}\" >&2; echo 'mount error(13): Permission denied' >&2; exit 32");
    let kubelet = node.kubelet();
    let why = kubelet.set_up(&cifs(&kubelet)).refused().to_owned();
    assert!(why.contains("mount error(13): Permission denied (exit code 32)"), "{why}");
    assert!(why.contains("password=[secret password]") && why.contains("in the Secret"), "{why}");
    kubelet.assert_not_told(PASSWORD);
    node.assert_nothing_left("a helper that failed");

    help(node, "kill -SEGV $$");
    let why = kubelet.set_up(&nfs(&kubelet)).refused().to_owned();
    assert!(why.contains("signal 11"), "{why}");
    node.assert_nothing_left("a helper that crashed");
}

fn mounts_nothing(node: &VolumeNode) {
    serve(node, "exit 0");
    let kubelet = node.kubelet();
    let why = kubelet.set_up(&nfs(&kubelet)).refused().to_owned();
    assert!(why.contains("it ended well, and nothing is mounted"), "{why}");
    node.assert_nothing_left("a helper that mounts nothing");
}

fn missing_helper(node: &VolumeNode) {
    node.policy("backends: {nfs: {helper: /opt/mount.nfs}, cifs: {helper: /opt/mount.cifs}}\n");
    let kubelet = node.kubelet();
    for (volume, package) in [(nfs(&kubelet), "nfs-common"), (cifs(&kubelet), "cifs-utils")] {
        let why = kubelet.set_up(&volume).refused().to_owned();
        assert!(why.contains(&format!("install `{package}` on the node")), "{why}");
        node.assert_nothing_left(package);
    }
}

fn left_in_the_background(node: &VolumeNode) {
    serve(node, &format!("setsid sleep infinity & echo $! > /srv/left\n{BIND}"));
    let kubelet = node.kubelet();
    let volume = nfs(&kubelet);
    // The kubelet reads the pipe to its end: a program that held it would hold this up.
    kubelet.set_up(&volume).mounted();
    let left: i32 = fs::read_to_string("/srv/left").unwrap().trim().parse().unwrap();
    let mounts = fs::read_to_string(format!("/proc/{left}/mountinfo")).unwrap();
    assert!(!mounts.contains("/stage/mnt "), "it keeps the share mounted: {mounts}");
    kubelet.end(volume.pod());
    let other = nfs(&kubelet);
    kubelet.set_up(&other).mounted();
    kubelet.end(other.pod());
    for pid in node
        .processes()
        .into_iter()
        .filter(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|c| c.trim() == "sleep"))
    {
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    }
    node.assert_nothing_left("the end of what was left");
}

fn unlisted_server(node: &VolumeNode) {
    serve(node, ": > /srv/asked");
    node.policy(
        "backends: {nfs: {servers: ['nas.example'], helper: /opt/helper}, cifs: {namespaces: ['team-*']}}\n",
    );
    let kubelet = node.kubelet();
    let why = kubelet.set_up(&nfs(&kubelet)).refused().to_owned();
    assert!(
        why.contains("does not list it") && why.contains("servers: [\"nas.example\",\"127.0.0.1\"]"),
        "{why}"
    );
    let why = kubelet.set_up(&cifs(&kubelet)).refused().to_owned();
    assert!(why.contains("does not allow it to the namespace `shop`"), "{why}");
    assert!(!Path::new("/srv/asked").exists());
    node.assert_nothing_left("a refusal");
}

fn many_pods(node: &VolumeNode) {
    serve(node, BIND);
    policy(node, "");
    let kubelet = node.kubelet();
    let volumes: Vec<_> = (0..8).map(|_| nfs(&kubelet)).collect();
    for outcome in kubelet.set_up_all(&volumes) {
        outcome.mounted();
    }
    for volume in &volumes {
        assert!(volume.path().join("file").exists());
        let mode = fs::metadata(volume.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o7000, 0);
    }
    for outcome in kubelet.tear_down_all(&volumes) {
        outcome.unmounted();
    }
    for volume in &volumes {
        kubelet.end(volume.pod());
    }
    node.assert_nothing_left("many pods");
}
