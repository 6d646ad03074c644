//! The Dockerfile. No Docker runs here: its last stage is built by buildah from the programs under test, and what the
//! stage before it says is read.

use std::fs;
use std::process::Command;

use harness::call;
use harness::suite::{plain, with_tools};
use libtest_mimic::Trial;

use crate::archive::{self, PROGRAMS, made, room};
use crate::folders::text;
use crate::image::configuration;

pub fn trials() -> Vec<Trial> {
    vec![
        with_tools("the_dockerfile_s_last_stage_is_the_image", &["buildah", "umoci", "skopeo", "tar"], last),
        with_tools("the_dockerfile_s_commands_are_a_shell_s", &["sh"], commands),
        plain("the_dockerfile_builds_by_the_compiler_that_the_workspace_asks_for", compiler),
        plain("what_docker_says_of_the_processor_is_not_said_over", processor),
        plain("docker_is_sent_what_cargo_reads", sent),
    ]
}

/// The instructions, each on one line.
fn instructions() -> Vec<String> {
    let text = text("Dockerfile");
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
    lines.join("\n").replace("\\\n", " ").lines().map(str::to_owned).collect()
}

fn last() {
    let folder = room("dockerfile");
    let instructions = instructions();
    let from = instructions.iter().rposition(|line| line.starts_with("FROM ")).expect("a stage");
    assert_eq!(instructions[from], "FROM scratch");
    fs::write(folder.join("Dockerfile"), instructions[from..].join("\n")).unwrap();
    // What the stage `build` leaves.
    let out = folder.join("build/out");
    fs::create_dir_all(&out).unwrap();
    let given = archive::programs("dockerfile-programs");
    for name in PROGRAMS {
        fs::copy(given.join(name), out.join(name)).unwrap();
    }
    // It makes its lock in the folder of networks, which is not to be this machine's.
    let network = format!("[network]\nnetwork_config_dir = \"{}\"\n", folder.join("networks").display());
    fs::write(folder.join("containers.conf"), network).unwrap();
    let buildah = |words: &[&str]| {
        let mut command = Command::new("buildah");
        command.args(["--storage-driver", "vfs"]).arg("--root").arg(folder.join("storage"));
        command.arg("--runroot").arg(folder.join("run")).args(words).current_dir(&folder);
        command.env("CONTAINERS_CONF", folder.join("containers.conf"));
        let answer = call::run(&mut command, b"");
        assert!(answer.ok(), "{words:?}: {answer:?}");
    };
    let context = format!("build={}", folder.join("build").display());
    let tag = crate::laws::IMAGE;
    buildah(&[
        "bud",
        "--isolation",
        "chroot",
        "--build-context",
        &context,
        "--timestamp",
        "0",
        "-t",
        tag,
        ".",
    ]);
    let archive = folder.join("image.tar");
    buildah(&["push", tag, &format!("oci-archive:{}:{}", archive.display(), archive::NAME)]);
    let rootfs = archive::unpack(&archive, &folder.join("bundle"));
    let mut names: Vec<_> = fs::read_dir(rootfs).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, PROGRAMS);
    let [theirs, ours] = [&archive, &made().archive].map(|archive| configuration(archive)["config"].clone());
    for key in ["User", "Cmd", "WorkingDir", "Entrypoint"] {
        assert_eq!(theirs.get(key), ours.get(key), "{key}");
    }
    let labels = ours["Labels"].as_object().unwrap();
    for (name, value) in
        labels.iter().filter(|(name, _)| !name.ends_with("revision") && !name.ends_with("created"))
    {
        assert_eq!(&theirs["Labels"][name], value, "{name}");
    }
    assert_eq!(theirs["Labels"]["org.opencontainers.image.revision"], "unknown", "a build argument");
}

fn commands() {
    let mut count = 0;
    for line in instructions().iter().filter_map(|line| line.strip_prefix("RUN ")) {
        let answer = call::run(Command::new("sh").args(["-n", "-c", line]), b"");
        assert!(answer.ok(), "{line}: {answer:?}");
        count += 1;
    }
    assert_eq!(count, 2);
}

fn compiler() {
    let (docker, cargo) = (text("Dockerfile"), text("Cargo.toml"));
    let version = cargo.lines().find_map(|line| line.strip_prefix("rust-version = ")).expect("rust-version");
    let wanted = format!("ARG RUST_VERSION={}", version.trim_matches('"'));
    assert!(docker.lines().any(|line| line == wanted), "{wanted}");
    let tag = format!("docker build -t localhost/nodeplug:{} .", env!("CARGO_PKG_VERSION"));
    assert!(docker.contains(&tag), "{tag}");
    for name in PROGRAMS {
        assert!(docker.contains(&format!("-p {name}")), "{name}");
    }
    for (processor, triple) in [("amd64", "x86_64-unknown-linux-gnu"), ("arm64", "aarch64-unknown-linux-gnu")]
    {
        assert!(docker.contains(&format!("{processor}) triple={triple}")), "{processor}");
    }
}

/// BuildKit takes the default of a stage before the platform that it was asked for.
fn processor() {
    let of_docker = |line: &str| {
        let argument = line.strip_prefix("ARG ").unwrap_or_default();
        argument.starts_with("TARGET") || argument.starts_with("BUILD")
    };
    let said: Vec<String> = instructions().into_iter().filter(|line| of_docker(line)).collect();
    assert_eq!(said, ["ARG TARGETARCH"]);
}

fn sent() {
    let ignore = text(".dockerignore");
    let sent: Vec<&str> = ignore.lines().filter_map(|line| line.strip_prefix('!')).collect();
    let cargo = text("Cargo.toml");
    let members = cargo.lines().find_map(|line| line.strip_prefix("members = ")).expect("members");
    let members: Vec<String> = serde_json::from_str(members).expect("a list");
    for needed in members.iter().map(String::as_str).chain([".cargo", "Cargo.lock", "Cargo.toml"]) {
        assert!(sent.contains(&needed), "{needed}");
    }
    assert!(ignore.lines().any(|line| line == "*"), "nothing else");
}
