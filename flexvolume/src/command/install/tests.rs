//! Installs into real folders. No test needs root.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::{Child, Command};

use node::Kind;

use super::testing::Room;
use super::*;

const TWO: [&str; 2] = ["tmpfs", "nfs"];
const TREE: [&str; 4] = ["nodeplug~nfs", "nodeplug~nfs/nfs", "nodeplug~tmpfs", "nodeplug~tmpfs/tmpfs"];

fn outcomes(report: &Report) -> Vec<(Outcome, bool)> {
    report.drivers.iter().map(|row| (row.outcome, row.answers)).collect()
}

fn content(room: &Room, path: &str) -> Vec<u8> {
    fs::read(room.plugins().join(path)).unwrap()
}

#[test]
fn drivers_are_installed_then_unchanged_then_replaced_then_removed() {
    let room = Room::new("life");
    let (one, two) = (room.good("one"), room.good("two"));
    let table = [(&one, Outcome::Installed), (&one, Outcome::Unchanged), (&two, Outcome::Replaced)];
    for (from, expect) in table {
        let report = install(&room.install(from, &TWO)).unwrap();
        assert_eq!(outcomes(&report), [(expect, true); 2]);
        assert_eq!((report.folder.clone(), report.why.as_str()), (room.plugins(), "--dir"));
        assert_eq!(room.tree(), TREE, "nothing but the drivers");
        for (driver, about) in TWO.map(|n| (n, room.plugins().join(format!("nodeplug~{n}/{n}")))) {
            assert_eq!(fs::read(&about).unwrap(), fs::read(from).unwrap(), "{driver}");
            assert_eq!(fs::metadata(&about).unwrap().mode() & 0o7777, 0o755);
        }
    }
    for expect in [Outcome::Removed, Outcome::Absent] {
        let report = uninstall(&room.uninstall(&two, &TWO)).unwrap();
        assert_eq!(outcomes(&report), [(expect, false); 2]);
        assert!(room.tree().is_empty(), "{:?}", room.tree());
    }
}

#[test]
fn all_nine_are_names_of_one_file() {
    let room = Room::new("names");
    install(&room.install(&room.good("one"), &NAMES)).unwrap();
    let inode =
        |name: &&str| fs::metadata(room.plugins().join(format!("nodeplug~{name}/{name}"))).unwrap().ino();
    let mut inodes: Vec<u64> = NAMES.iter().map(inode).collect();
    inodes.dedup();
    assert_eq!(inodes.len(), 1);
    // An upgrade of one of them changes no other.
    install(&room.install(&room.good("two"), &["nfs"])).unwrap();
    assert_ne!(content(&room, "nodeplug~nfs/nfs"), content(&room, "nodeplug~tmpfs/tmpfs"));
    assert_eq!(room.tree().len(), 18);
}

#[test]
fn a_program_that_answers_wrongly_is_never_shown() {
    let room = Room::new("wrong");
    let good = room.good("good");
    let table = [
        room.program("chatty", "echo starting >&2; echo '{\"status\":\"Success\"}'"),
        room.program("silent", "exit 0"),
        room.program("failing", "exit 7"),
        room.file("foreign", "\x7fELF is not enough"),
    ];
    for from in &table {
        let error = install(&room.install(from, &TWO)).unwrap_err();
        assert_eq!(error.kind(), Kind::Mismatch, "{}", error.chain());
        assert!(room.tree().is_empty(), "{:?}", room.tree());
    }
    install(&room.install(&good, &TWO)).unwrap();
    for from in &table {
        install(&room.install(from, &TWO)).unwrap_err();
        assert_eq!(
            (room.tree(), content(&room, "nodeplug~nfs/nfs")),
            (TREE.map(String::from).to_vec(), fs::read(&good).unwrap())
        );
    }
}

#[test]
fn a_first_install_that_fails_at_its_place_is_taken_back_whole() {
    let room = Room::new("first");
    // The second driver fails: the first one goes, too.
    let from = room.turncoat("t", &format!("case $0 in */tmpfs) echo '{}';; esac", testing::GOOD));
    let error = install(&room.install(&from, &TWO)).unwrap_err();
    assert!(error.chain().contains("nodeplug~nfs/nfs` for `init`: no JSON object"), "{}", error.chain());
    assert_eq!(error.advice(), Some("everything is as it was before"));
    assert!(room.tree().is_empty(), "{:?}", room.tree());
}

#[test]
fn an_upgrade_that_fails_at_its_place_is_rolled_back_to_the_old_program() {
    let room = Room::new("upgrade");
    let good = room.good("good");
    install(&room.install(&good, &["tmpfs", "nfs", "bind"])).unwrap();
    // One driver is new, one is there already, one is the bad one's turn.
    let wish =
        room.install(&room.turncoat("t", "echo '{\"status\":\"Failure\"}'"), &["image", "tmpfs", "nfs"]);
    let error = install(&wish).unwrap_err();
    assert!(error.chain().contains("the status is not `Success`"), "{}", error.chain());
    assert_eq!(room.tree().len(), 6, "{:?}", room.tree());
    for name in ["tmpfs", "nfs", "bind"] {
        assert_eq!(content(&room, &format!("nodeplug~{name}/{name}")), fs::read(&good).unwrap());
    }
}

#[test]
fn what_a_killed_install_left_is_removed_by_the_next_install_or_uninstall() {
    let room = Room::new("killed");
    let (one, two) = (room.good("one"), room.good("two"));
    let litter = || {
        room.file("plugins/.nodeplug~nfs.new/nfs", "half");
        room.file("plugins/.nodeplug~tmpfs.new/.tmpfs.new", "half");
    };
    litter();
    install(&room.install(&one, &TWO)).unwrap();
    assert_eq!(room.tree(), TREE);
    litter();
    room.file("plugins/nodeplug~nfs/.nfs.new", "half");
    room.file("plugins/nodeplug~nfs/.nfs.old", "former");
    install(&room.install(&two, &TWO)).unwrap();
    assert_eq!(room.tree(), TREE);
    litter();
    room.file("plugins/nodeplug~nfs/.nfs.old", "former");
    uninstall(&room.uninstall(&two, &TWO)).unwrap();
    assert!(room.tree().is_empty(), "{:?}", room.tree());
}

const TO_KILL: &str = "NODEPLUG_TEST_INSTALL_TO_BE_KILLED";

/// Not a test of its own: the process that the next test has killed.
#[test]
fn an_installer_to_be_killed() {
    let Ok(told) = std::env::var(TO_KILL) else { return };
    let (plugins, from) = told.split_once(' ').unwrap();
    let place = Place {
        dir: Some(plugins.into()),
        vendor: VENDOR.to_owned(),
        backends: TWO.map(String::from).to_vec(),
        root: None,
    };
    let _ = install(&Install { place, dry_run: false, force: false, stay: false, from: from.into() });
}

#[test]
fn a_kill_at_any_question_shows_whole_drivers_only_and_the_next_install_converges() {
    let kill = "kill -9 $PPID";
    let killers = [
        ("hidden", format!("case $0 in */.*) {kill};; esac")),
        ("shown", format!("case $0 in */.*) ;; *) {kill};; esac; echo '{}'", testing::GOOD)),
        ("second", format!("case $0 in */.*) ;; */nfs) {kill};; esac; echo '{}'", testing::GOOD)),
    ];
    for is_upgrade in [false, true] {
        for (name, body) in &killers {
            let room = Room::new(&format!("kill-{name}-{is_upgrade}"));
            let (old, new, killer) = (room.good("old"), room.good("new"), room.program(name, body));
            if is_upgrade {
                install(&room.install(&old, &TWO)).unwrap();
            }
            let ended = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "command::install::tests::an_installer_to_be_killed"])
                .env(TO_KILL, format!("{} {}", room.plugins().display(), killer.display()))
                .output()
                .unwrap();
            assert_eq!(ended.status.code(), None, "{name}: not killed");
            for folder in room.tree().iter().filter(|path| !path.contains('/') && !path.starts_with('.')) {
                let program = content(&room, &format!("{folder}/{}", folder.replace("nodeplug~", "")));
                assert!(
                    program == fs::read(&killer).unwrap() || program == fs::read(&old).unwrap(),
                    "{name}"
                );
            }
            install(&room.install(&new, &TWO)).unwrap();
            assert_eq!(room.tree(), TREE, "{name} {is_upgrade}");
            assert_eq!(content(&room, "nodeplug~nfs/nfs"), fs::read(&new).unwrap());
        }
    }
}

#[test]
fn the_command_line_has_all_drivers_by_default_or_a_list() {
    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        install: Install,
    }
    let parse = |words: &[&str]| <Cli as clap::Parser>::try_parse_from(words).map(|cli| cli.install);
    let wish = parse(&["install"]).unwrap();
    assert_eq!(
        (wish.place.backends.as_slice(), wish.place.vendor.as_str()),
        (&NAMES.map(String::from)[..], "nodeplug")
    );
    assert_eq!(wish.from, Path::new(OURSELVES));
    let wish = parse(&["install", "--backends", "tmpfs,nfs", "--dir", "/p", "--dry-run"]).unwrap();
    assert_eq!(
        (wish.place.backends, wish.place.dir, wish.dry_run),
        (TWO.map(String::from).to_vec(), Some("/p".into()), true)
    );
}

/// Another test's fork may hold the file that was just written open until its exec: ETXTBSY.
fn sleeper(program: &Path) -> Child {
    loop {
        match Command::new(program).arg("60").spawn() {
            Err(e) if e.kind() == io::ErrorKind::ExecutableFileBusy => std::thread::yield_now(),
            spawned => return spawned.unwrap(),
        }
    }
}

#[test]
fn a_driver_that_runs_is_upgraded_and_runs_on() {
    let room = Room::new("running");
    install(&room.install(&room.good("one"), &["nfs"])).unwrap();
    let program = room.plugins().join("nodeplug~nfs/nfs");
    fs::copy("/bin/sleep", &program).unwrap();
    let mut running = sleeper(&program);
    let wish = Install { force: true, ..room.install(&room.good("two"), &["nfs"]) };
    let report = install(&wish).unwrap();
    assert_eq!(outcomes(&report), [(Outcome::Replaced, true)]);
    assert!(running.try_wait().unwrap().is_none());
    running.kill().unwrap();
    running.wait().unwrap();
}

#[test]
fn another_program_of_that_name_is_neither_replaced_nor_removed() {
    let room = Room::new("stranger");
    let good = room.good("good");
    room.file("plugins/nodeplug~nfs/nfs", "#!/bin/sh\n# somebody else's\n");
    let error = install(&room.install(&good, &TWO)).unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
    assert!(error.advice().unwrap().contains("--force"));
    assert_eq!(room.tree(), ["nodeplug~nfs", "nodeplug~nfs/nfs"]);
    let error = uninstall(&Uninstall { force: true, ..room.uninstall(&good, &TWO) }).unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
    assert_eq!(room.tree(), ["nodeplug~nfs", "nodeplug~nfs/nfs"]);
    install(&Install { force: true, ..room.install(&good, &TWO) }).unwrap();
    assert_eq!(room.tree(), TREE);
}

#[test]
fn another_version_of_this_program_is_removed_and_strange_files_beside_it_stay() {
    let room = Room::new("beside");
    install(&room.install(&room.good("old"), &TWO)).unwrap();
    room.file("plugins/nodeplug~nfs/README", "keep me");
    let report = uninstall(&room.uninstall(&room.good("new"), &TWO)).unwrap();
    assert_eq!(room.tree(), ["nodeplug~nfs", "nodeplug~nfs/README"]);
    assert!(report.notes.iter().any(|note| note.contains("holds README")), "{:?}", report.notes);
}

#[test]
fn a_link_in_place_of_the_drivers_folder_is_refused() {
    let room = Room::new("link");
    fs::create_dir(room.path().join("elsewhere")).unwrap();
    symlink(room.path().join("elsewhere"), room.plugins().join("nodeplug~nfs")).unwrap();
    let error = install(&room.install(&room.good("good"), &TWO)).unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict, "{}", error.chain());
    assert_eq!(room.tree(), ["nodeplug~nfs"]);
}

#[test]
fn a_dry_run_changes_nothing_and_tells_all() {
    let room = Room::new("dry");
    let good = room.good("good");
    install(&room.install(&good, &["tmpfs"])).unwrap();
    room.file("plugins/.nodeplug~nfs.new/nfs", "half");
    let before = room.tree();
    let report = install(&Install { dry_run: true, ..room.install(&good, &TWO) }).unwrap();
    assert_eq!(outcomes(&report), [(Outcome::Unchanged, false), (Outcome::Installed, false)]);
    let report = uninstall(&Uninstall { dry_run: true, ..room.uninstall(&good, &TWO) }).unwrap();
    assert_eq!(outcomes(&report), [(Outcome::Removed, false), (Outcome::Absent, false)]);
    assert_eq!(room.tree(), before);
}

#[test]
fn a_folder_below_another_root_is_found_and_made() {
    let room = Room::new("root");
    room.file("var/lib/kubelet/config.yaml", "volumePluginDir: /opt/plugins\n");
    let mut wish = room.install(&room.good("good"), &["nfs"]);
    wish.place.dir = None;
    wish.place.root = Some(room.path().to_owned());
    let report = install(&wish).unwrap();
    assert_eq!(report.folder, room.path().join("opt/plugins"));
    assert!(report.why.starts_with("volumePluginDir in /var/lib/kubelet/config.yaml"), "{}", report.why);
    assert!(room.path().join("opt/plugins/nodeplug~nfs/nfs").is_file());
    assert_eq!(report.notes.len(), 1, "it was not there");
}

#[test]
fn a_running_kubelet_is_found_by_its_files_in_proc() {
    let room = Room::new("proc");
    let wish = |root: &Path| {
        let mut wish = room.install(&room.good("good"), &["nfs"]);
        wish.place.dir = None;
        wish.place.root = Some(root.to_owned());
        wish.dry_run = true;
        wish
    };
    room.file("proc/7/comm", "kube-proxy\n");
    room.file("proc/7/cmdline", "kube-proxy\0");
    room.file("proc/8/comm", "kubelet\n");
    room.file(
        "proc/8/cmdline",
        "/usr/bin/kubelet\0--config=/etc/kubelet.yaml\0--config-dir\0/etc/kubelet.d\0",
    );
    let error = install(&wish(room.path())).unwrap_err();
    assert!(error.chain().contains("/etc/kubelet.yaml") && error.advice().unwrap().contains("--dir"));
    room.file("etc/kubelet.yaml", "volumePluginDir: /opt/one\n");
    assert_eq!(install(&wish(room.path())).unwrap().folder, room.path().join("opt/one"));
    room.file("etc/kubelet.d/10.conf", "volumePluginDir: /opt/two\n");
    let report = install(&wish(room.path())).unwrap();
    assert_eq!(report.folder, room.path().join("opt/two"));
    assert!(report.why.ends_with("of kubelet (process 8)"), "{}", report.why);
    room.file("proc/9/comm", "k3s-server\n");
    room.file("proc/9/cmdline", "/usr/local/bin/k3s server\0");
    room.file("etc/rancher/k3s/config.yaml", "token: x\nkubelet-arg: [v=2, volume-plugin-dir=/opt/two]\n");
    room.file("etc/rancher/k3s/config.yaml.d/a.yaml", "kubelet-arg+: max-pods=9\n");
    assert_eq!(install(&wish(room.path())).unwrap().folder, room.path().join("opt/two"));
    room.file("etc/rancher/k3s/config.yaml.d/b.yaml", "kubelet-arg+: volume-plugin-dir=/opt/three\n");
    let error = install(&wish(room.path())).unwrap_err();
    assert!(error.advice().unwrap().contains("/opt/three"), "{error:?}");
}

#[test]
fn a_driver_with_a_mounted_volume_stays_unless_forced() {
    let room = Room::new("mounted");
    let good = room.good("good");
    install(&room.install(&good, &["nfs"])).unwrap();
    room.file("proc/8/comm", "kubelet\n");
    room.file("proc/8/cmdline", "kubelet\0");
    room.file(
        "proc/8/mountinfo",
        "36 35 0:9 / /var/lib/kubelet/pods/u/volumes/nodeplug~nfs/data rw - nfs4 h:/x rw\n",
    );
    let mut wish = room.uninstall(&good, &["nfs"]);
    wish.place.dir = Some("/plugins".into());
    wish.place.root = Some(room.path().to_owned());
    let error = uninstall(&wish).unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
    assert!(error.chain().ends_with("mounted: /var/lib/kubelet/pods/u/volumes/nodeplug~nfs/data"));
    assert_eq!(room.tree().len(), 2);
    uninstall(&Uninstall { force: true, ..wish }).unwrap();
    assert!(room.tree().is_empty());
}
