//! Calls of our own driver, and what they have to answer.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::call::{self, Answer, Launch};
use harness::kubelet::{PLUGINS, Pod, Volume, reply};
use serde_json::Value;

/// Where the driver keeps its state.
pub const STATE: &str = "/run/nodeplug/flexvolume";

/// A value that nobody may ever read outside the volume.
pub const SECRET: &str = "hunter2-4711";
/// The same as the kubelet hands it over.
pub const SECRET_BASE64: &str = "aHVudGVyMi00NzEx";

/// The program that the kubelet execs for `nodeplug/NAME`.
pub fn program(name: &str) -> PathBuf {
    Path::new(PLUGINS).join(format!("nodeplug~{name}")).join(name)
}

/// A call whose arguments need not be text, in a shell's words about its descriptors and limits.
#[derive(Debug, Clone)]
pub struct Call {
    driver: String,
    arguments: Vec<OsString>,
    /// Before the exec, such as `ulimit -n 3;`.
    before: &'static str,
    /// Behind the exec, such as `2>&-`.
    behind: String,
}

impl Call {
    /// `nodeplug/NAME` with these arguments.
    pub fn of<A: AsRef<OsStr>>(driver: &str, arguments: &[A]) -> Self {
        let arguments = arguments.iter().map(|a| a.as_ref().to_owned()).collect();
        Self { driver: driver.to_owned(), arguments, before: "", behind: String::new() }
    }

    /// With arguments of any bytes.
    pub fn bytes(driver: &str, arguments: &[&[u8]]) -> Self {
        let arguments: Vec<&OsStr> = arguments.iter().map(|a| OsStr::from_bytes(a)).collect();
        Self::of(driver, &arguments)
    }

    /// `mount` of a volume.
    pub fn mount(volume: &Volume) -> Self {
        let json = volume.mount_json().expect("the options");
        Self::of(short(volume), &["mount", volume.path().to_str().expect("a path of text"), &json])
    }

    /// `unmount` of a volume.
    pub fn unmount(volume: &Volume) -> Self {
        Self::of(short(volume), &["unmount", volume.path().to_str().expect("a path of text")])
    }

    /// With a line of shell in front.
    pub fn after(mut self, line: &'static str) -> Self {
        self.before = line;
        self
    }

    /// With redirections.
    pub fn with(mut self, redirections: &str) -> Self {
        redirections.clone_into(&mut self.behind);
        self
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn run(&self) -> Answer {
        call::run(&mut self.command(), b"")
    }

    /// Runs it; the one object that it answers.
    #[track_caller]
    pub fn object(&self) -> Value {
        let answer = self.run();
        object(&self.verb(), &answer)
    }

    /// Runs it; stops the test unless it succeeds.
    #[track_caller]
    pub fn succeeds(&self) -> Value {
        let object = self.object();
        assert_eq!(object["status"], "Success", "{object}");
        object
    }

    /// Runs it; stops the test unless it fails. Its message.
    #[track_caller]
    pub fn fails(&self) -> String {
        let object = self.object();
        assert_eq!(object["status"], "Failure", "{object}");
        object["message"].as_str().unwrap_or_default().to_owned()
    }

    /// The protocol's word.
    pub fn verb(&self) -> String {
        self.arguments.first().map(|v| v.to_string_lossy().into_owned()).unwrap_or_default()
    }
}

impl Launch for Call {
    fn command(&self) -> Command {
        let program = program(&self.driver);
        let mut command = if self.before.is_empty() && self.behind.is_empty() {
            Command::new(program)
        } else {
            let mut shell = Command::new("sh");
            shell.arg("-c").arg(format!("{} exec \"$0\" \"$@\" {}", self.before, self.behind)).arg(program);
            shell
        };
        command
            .args(&self.arguments)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .current_dir("/");
        command
    }

    fn one_stream(&self) -> bool {
        true
    }
}

/// The one JSON object of an answer, on one line, with exit code 0, and as the kubelet can take it.
#[track_caller]
pub fn object(verb: &str, answer: &Answer) -> Value {
    assert!(answer.ok(), "{verb}: {answer:?}");
    assert_eq!(answer.stderr, "", "{verb}");
    let line = answer.stdout.strip_suffix('\n').unwrap_or_else(|| panic!("{verb}: no line: {answer:?}"));
    assert!(!line.contains('\n'), "{verb}: more than one line: {line}");
    let (_, log) = reply::read(verb, answer.stdout.as_bytes());
    assert!(!log.as_ref().is_some_and(|l| l.contains("failed to unmarshal")), "{verb}: {log:?}");
    let json: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{verb}: {e}: {line}"));
    assert!(json.is_object() && !has_null(&json), "{verb}: {line}");
    let status = json["status"].as_str().unwrap_or_default();
    assert!(["Success", "Failure", "Not supported"].contains(&status), "{verb}: {line}");
    assert!(status == "Success" || json["message"].as_str().is_some_and(|m| m.len() > 10), "{verb}: {line}");
    json
}

fn has_null(json: &Value) -> bool {
    match json {
        Value::Null => true,
        Value::Array(all) => all.iter().any(has_null),
        Value::Object(all) => all.values().any(has_null),
        _ => false,
    }
}

/// A tmpfs with a secret in it, for a new pod.
pub fn memory(name: &str) -> Volume {
    let pod = Pod::new("default", name);
    pod.inline("nodeplug/tmpfs", "data").option("size", "1Mi").secret("password", SECRET.as_bytes())
}

/// Makes the volume's folder, as the kubelet does.
pub fn folder(volume: &Volume) -> PathBuf {
    let path = volume.path();
    std::fs::create_dir_all(&path).expect("make the volume's folder");
    path
}

fn short(volume: &Volume) -> &str {
    volume.driver().rsplit('/').next().unwrap_or_default()
}
