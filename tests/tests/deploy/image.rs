//! scripts/image.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use harness::call::{Answer, tool};
use harness::suite::with_tools;
use libtest_mimic::{Completion, Trial};
use serde_json::{Value, json};

use crate::archive::{self, NAME, PROGRAMS, made, room, run, script};
use crate::folders::text;

const TOOLS: &[&str] = &["umoci", "skopeo", "tar", "readelf", "od"];
/// What a node without a fast line should have to fetch.
const MOST: u64 = 12 << 20;

pub fn trials() -> Vec<Trial> {
    vec![
        with_tools("the_image_holds_the_three_programs_and_nothing_else", TOOLS, holds),
        with_tools("the_image_says_what_it_is", TOOLS, says),
        with_tools("the_same_programs_make_the_same_image", TOOLS, same),
        with_tools("the_image_is_for_the_processor_of_its_programs", TOOLS, processor),
        with_tools("a_program_that_needs_a_c_library_is_refused", TOOLS, dynamic),
        with_tools("the_archive_has_a_name_of_its_own", TOOLS, named),
        with_tools("a_wrong_argument_is_refused_with_the_usage", TOOLS, usage),
        Trial::ignorable_test("the_image_is_small", || {
            if !archive::is_release() {
                let why = "the programs under test are debug builds";
                let ci = std::env::var("CI").as_deref() == Ok("true");
                return if ci { Err(why.into()) } else { Ok(Completion::ignored_with(why)) };
            }
            let size = fs::metadata(&made().archive).unwrap().len();
            assert!(size <= MOST, "{size} bytes");
            Ok(Completion::Completed)
        }),
    ]
}

fn text_of(path: &Path) -> &str {
    path.to_str().expect("a path of letters")
}

/// The image's configuration, as a registry would give it.
pub fn configuration(archive: &Path) -> Value {
    let text = tool(&["skopeo", "inspect", "--config", &format!("oci-archive:{}", text_of(archive))]);
    serde_json::from_str(&text).expect("a configuration")
}

fn manifest(archive: &Path) -> Value {
    let text = tool(&["skopeo", "inspect", &format!("oci-archive:{}", text_of(archive))]);
    serde_json::from_str(&text).expect("a manifest")
}

fn holds() {
    let rootfs = archive::unpack(&made().archive, &room("holds").join("bundle"));
    let mut names: Vec<String> =
        fs::read_dir(&rootfs).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, PROGRAMS);
    let given = archive::programs("holds-programs");
    for name in PROGRAMS {
        let path = rootfs.join(name);
        let about = fs::symlink_metadata(&path).unwrap();
        assert!(about.is_file(), "{name}");
        assert_eq!((about.uid(), about.gid(), about.permissions().mode() & 0o7777), (0, 0, 0o755), "{name}");
        assert_eq!(fs::read(&path).unwrap(), fs::read(given.join(name)).unwrap(), "{name}");
    }
}

fn says() {
    let made = made();
    let config = configuration(&made.archive);
    assert_eq!(config["os"], "linux");
    let inner = &config["config"];
    // Manifests name the program: none of the three is more the image's than another.
    assert_eq!(inner.get("Entrypoint"), None);
    assert_eq!(inner["Cmd"], json!(["/nodeplug-cni", "--help"]));
    assert_eq!((&inner["User"], &inner["WorkingDir"]), (&json!("0:0"), &json!("/")));
    let label = |name: &str| {
        inner["Labels"][format!("org.opencontainers.image.{name}")].as_str().unwrap_or("").to_owned()
    };
    assert_eq!(label("title"), "nodeplug");
    assert_eq!(label("version"), env!("CARGO_PKG_VERSION"));
    assert_eq!(label("licenses"), "Apache-2.0");
    assert!(label("description").contains("Kubernetes"), "{inner}");
    assert!(!label("revision").is_empty() && label("created") == config["created"], "{config}");
    let digest = manifest(&made.archive)["Digest"].as_str().unwrap().to_owned();
    let size = fs::metadata(&made.archive).unwrap().len() >> 10;
    for part in
        [&digest, &format!("localhost/nodeplug:{} linux/", env!("CARGO_PKG_VERSION")), text_of(&made.archive)]
    {
        assert!(made.said.contains(part), "{part} of {size} KiB: {}", made.said);
    }
    let index = tool(&["tar", "-xOf", text_of(&made.archive), "index.json"]);
    let index: Value = serde_json::from_str(&index).unwrap();
    let names: Vec<&Value> =
        index["manifests"].as_array().unwrap().iter().map(|m| &m["annotations"]).collect();
    assert_eq!(names, [&json!({"org.opencontainers.image.ref.name": NAME})], "as the kubelet asks for it");
}

/// Another folder, another time, another umask, another time zone.
fn same() {
    let (from, to) = (room("same-programs"), room("same").join("again.tar"));
    for name in PROGRAMS {
        let copy = from.join(name);
        fs::copy(archive::programs(&format!("same-{name}")).join(name), &copy).unwrap();
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o700)).unwrap();
    }
    let words = ["--from", ".", "--output", text_of(&to)];
    let mut command = std::process::Command::new("sh");
    let script = script(&words);
    command.args(["-c", "umask 077; exec \"$0\" \"$@\""]).arg(script.get_program()).args(words);
    command.current_dir(&from).env("TZ", "Asia/Tokyo").env("LC_ALL", "C");
    let answer = run(&mut command);
    assert!(answer.ok(), "{answer:?}");
    assert!(
        fs::read(&to).unwrap() == fs::read(&made().archive).unwrap(),
        "{} and {}",
        answer.stdout,
        made().said
    );
    assert_eq!(
        fs::metadata(&to).unwrap().permissions().mode() & 0o77,
        0,
        "the umask's for the archive itself"
    );
    let answer = run(
        self::script(&["--from", text_of(&from), "--output", text_of(&to)]).env("SOURCE_DATE_EPOCH", "1")
    );
    assert!(answer.ok(), "{answer:?}");
    assert_eq!(configuration(&to)["created"], "1970-01-01T00:00:01Z");
}

/// Programs that say of themselves that they are for this processor (e_machine of elf(5)).
fn for_machine(name: &str, machines: [u8; 3]) -> PathBuf {
    let (given, folder) = (archive::programs(&format!("{name}-given")), room(name));
    for (program, machine) in PROGRAMS.into_iter().zip(machines) {
        let mut bytes = fs::read(given.join(program)).unwrap();
        bytes[18..20].copy_from_slice(&[machine, 0]);
        fs::write(folder.join(program), bytes).unwrap();
    }
    folder
}

fn image_of(folder: &Path) -> (Answer, PathBuf) {
    let to = folder.join("image.tar");
    (run(&mut script(&["--from", text_of(folder), "--output", text_of(&to)])), to)
}

fn processor() {
    for (machine, expect) in [(62, "amd64"), (183, "arm64"), (243, "riscv64")] {
        let (answer, archive) = image_of(&for_machine(expect, [machine; 3]));
        assert!(answer.ok() && answer.stdout.contains(&format!("linux/{expect}")), "{answer:?}");
        assert_eq!(configuration(&archive)["architecture"], expect);
    }
    for (name, machines, words) in
        [("mixed", [62, 183, 62], "two processors"), ("strange", [250; 3], "for a processor")]
    {
        let (answer, archive) = image_of(&for_machine(name, machines));
        assert!(!answer.ok() && answer.stderr.contains(words), "{answer:?}");
        assert!(!archive.exists());
    }
}

fn dynamic() {
    let folder = room("dynamic");
    for name in PROGRAMS {
        fs::copy("/bin/sh", folder.join(name)).unwrap();
    }
    let (answer, archive) = image_of(&folder);
    assert!(!answer.ok() && answer.stderr.contains("is not static"), "{answer:?}");
    assert!(!archive.exists());
}

fn named() {
    let (from, target) = (archive::programs("named"), room("named-target"));
    let answer = run(script(&["--from", text_of(&from)]).env("CARGO_TARGET_DIR", &target));
    assert!(answer.ok(), "{answer:?}");
    let line = answer.stdout.lines().find_map(|line| line.strip_prefix("archive  ")).expect("a line");
    let path = Path::new(line);
    assert!(path.starts_with(&target) && path.ends_with("release/nodeplug.oci.tar"), "{line}");
    assert_eq!(fs::read(path).unwrap().len(), fs::read(&made().archive).unwrap().len());
    assert!(text(".gitignore").contains("/target"), "no commit has it");
}

fn usage() {
    for words in [&["--outptu", "x"][..], &["--output"]] {
        let answer = run(&mut script(words));
        assert_eq!(answer.exit, Some(2), "{answer:?}");
    }
    let answer = run(&mut script(&["--help"]));
    assert!(answer.ok() && answer.stdout.contains("scripts/image [--output FILE]"), "{answer:?}");
}
