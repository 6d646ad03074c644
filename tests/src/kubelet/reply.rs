//! What the kubelet makes of a driver's output.

use super::go_json::{self, Json};

/// What a driver says it can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// The volume is attached to the node before it is mounted.
    pub attach: bool,
    /// The kubelet may relabel its files.
    pub selinux_relabel: bool,
    /// The kubelet may ask it for its size by statfs(2).
    pub supports_metrics: bool,
    /// The kubelet gives its files to the pod's group.
    pub fs_group: bool,
    /// Its filesystem is grown by a call of its own.
    pub requires_fs_resize: bool,
}

impl Default for Capabilities {
    /// What a driver can do that says nothing.
    fn default() -> Self {
        Self {
            attach: true,
            selinux_relabel: true,
            supports_metrics: false,
            fs_group: true,
            requires_fs_resize: true,
        }
    }
}

/// The answer of a call that succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    status: String,
    message: String,
    /// The path of the attached device.
    pub device: String,
    /// A name that nobody asks for.
    pub volume_name: String,
    /// Whether the volume is attached.
    pub attached: bool,
    /// `None` where the driver wrote `null`: whoever reads them then, crashes.
    pub capabilities: Option<Capabilities>,
    /// A size in bytes that nobody looks at.
    pub new_size: i64,
}

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The driver does not know the call, and is not asked again.
    NotSupported,
    /// What the pod's event says.
    Failed(String),
}

impl Fault {
    /// The error's text.
    pub fn text(&self) -> &str {
        match self {
            Self::NotSupported => "Not supported",
            Self::Failed(text) => text,
        }
    }
}

/// The answer to the call `verb`, and what is written to the log about it.
pub fn read(verb: &str, output: &[u8]) -> (Result<Reply, Fault>, Option<String>) {
    let parsed = go_json::parse(output).and_then(|json| {
        let mut target = Target::default();
        target.object(&json)?;
        target.wrong.map_or(Ok(target.reply), Err)
    });
    let reply = match parsed {
        Ok(reply) => reply,
        Err(why) => {
            let shown = String::from_utf8_lossy(output);
            let line =
                format!("E failed to unmarshal output for command: {verb}, output: {shown:?}, error: {why}");
            return (Err(Fault::Failed(why)), Some(line));
        }
    };
    match reply.status.as_str() {
        "Success" => (Ok(reply), None),
        "Not supported" => (Err(Fault::NotSupported), None),
        status => {
            let text = format!("{verb} command failed, status: {status}, reason: {}", reply.message);
            let line = format!("E {text}");
            (Err(Fault::Failed(text)), Some(line))
        }
    }
}

/// The struct that is filled. A wrong type is remembered and the rest is filled all the same; the first
/// one is the error.
struct Target {
    reply: Reply,
    wrong: Option<String>,
}

impl Default for Target {
    fn default() -> Self {
        let reply = Reply {
            status: String::new(),
            message: String::new(),
            device: String::new(),
            volume_name: String::new(),
            attached: false,
            capabilities: Some(Capabilities::default()),
            new_size: 0,
        };
        Self { reply, wrong: None }
    }
}

impl Target {
    fn object(&mut self, json: &Json) -> Result<(), String> {
        match json {
            Json::Object(pairs) => {
                for (key, value) in pairs {
                    self.field(&folded(key), value);
                }
                Ok(())
            }
            // null into a struct changes nothing.
            Json::Null => Ok(()),
            other => Err(format!(
                "json: cannot unmarshal {} into Go value of type flexvolume.DriverStatus",
                kind(other)
            )),
        }
    }

    fn field(&mut self, key: &str, value: &Json) {
        let reply = &mut self.reply;
        let (name, wrong) = match key {
            "status" => ("status", text(&mut reply.status, value)),
            "message" => ("message", text(&mut reply.message, value)),
            "device" => ("device", text(&mut reply.device, value)),
            "volumename" => ("volumeName", text(&mut reply.volume_name, value)),
            "attached" => ("attached", boolean(&mut reply.attached, value)),
            "volumenewsize" => ("volumeNewSize", integer(&mut reply.new_size, value)),
            "capabilities" => return self.capabilities(value),
            _ => return,
        };
        self.note(name, wrong);
    }

    fn capabilities(&mut self, value: &Json) {
        match value {
            Json::Null => self.reply.capabilities = None,
            Json::Object(pairs) => {
                let mut capabilities = self.reply.capabilities.unwrap_or(NONE);
                for (key, value) in pairs {
                    let key = folded(key);
                    let (name, field) = match key.as_str() {
                        "attach" => ("attach", &mut capabilities.attach),
                        "selinuxrelabel" => ("selinuxRelabel", &mut capabilities.selinux_relabel),
                        "supportsmetrics" => ("supportsMetrics", &mut capabilities.supports_metrics),
                        "fsgroup" => ("fsGroup", &mut capabilities.fs_group),
                        "requiresfsresize" => ("requiresFSResize", &mut capabilities.requires_fs_resize),
                        _ => continue,
                    };
                    let wrong = boolean(field, value);
                    self.note(&format!("Capabilities.{name}"), wrong);
                }
                self.reply.capabilities = Some(capabilities);
            }
            other => self.note("Capabilities", Err((kind(other), "flexvolume.DriverCapabilities"))),
        }
    }

    fn note(&mut self, field: &str, wrong: Result<(), Wrong>) {
        let Err((kind, wanted)) = wrong else { return };
        let text = format!(
            "json: cannot unmarshal {kind} into Go struct field DriverStatus.{field} of type {wanted}"
        );
        self.wrong.get_or_insert(text);
    }
}

/// After a `null`, an object fills a new struct, without the defaults.
const NONE: Capabilities = Capabilities {
    attach: false,
    selinux_relabel: false,
    supports_metrics: false,
    fs_group: false,
    requires_fs_resize: false,
};

type Wrong = (String, &'static str);

fn text(field: &mut String, value: &Json) -> Result<(), Wrong> {
    match value {
        Json::Text(text) => text.clone_into(field),
        Json::Null => {}
        other => return Err((kind(other), "string")),
    }
    Ok(())
}

fn boolean(field: &mut bool, value: &Json) -> Result<(), Wrong> {
    match value {
        Json::Bool(is) => *field = *is,
        Json::Null => {}
        other => return Err((kind(other), "bool")),
    }
    Ok(())
}

fn integer(field: &mut i64, value: &Json) -> Result<(), Wrong> {
    match value {
        Json::Number(number) => *field = number.parse().map_err(|_| (format!("number {number}"), "int64"))?,
        Json::Null => {}
        other => return Err((kind(other), "int64")),
    }
    Ok(())
}

fn kind(json: &Json) -> String {
    let kind = match json {
        Json::Null => "null",
        Json::Bool(_) => "bool",
        Json::Number(_) => "number",
        Json::Text(_) => "string",
        Json::Array(_) => "array",
        Json::Object(_) => "object",
    };
    kind.to_owned()
}

/// Keys are compared without regard to case, and two foreign letters fold to `s` and `k`.
fn folded(key: &str) -> String {
    key.chars()
        .map(|c| match c {
            'ſ' => 's',
            '\u{212a}' => 'k',
            _ => c.to_ascii_lowercase(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(output: &str) -> String {
        let (answer, line) = read("mount", output.as_bytes());
        let fault = answer.expect_err(output);
        assert_eq!(line.is_none(), fault == Fault::NotSupported, "{output}: {line:?}");
        fault.text().to_owned()
    }

    #[test]
    fn a_success_is_read() {
        let cases = [
            r#"{"status":"Success"}"#,
            " \n{\"status\":\"Success\"}\n\n",
            r#"{"STATUS":"Success"}"#,
            r#"{"ſtatus":"Success","unknown":[{}],"message":"mounted"}"#,
            r#"{"status":"Failure","status":"Success"}"#,
            r#"{"status":"Success","message":null,"attached":null,"volumeNewSize":null}"#,
        ];
        for output in cases {
            let (answer, line) = read("mount", output.as_bytes());
            let reply = answer.unwrap_or_else(|f| panic!("{output}: {f:?}"));
            assert_eq!(line, None, "{output}");
            assert_eq!(reply.capabilities, Some(Capabilities::default()), "{output}");
        }
        let (answer, _) =
            read("attach", br#"{"status":"Success","Device":"/dev/x","attached":true,"volumeNewSize":7}"#);
        let reply = answer.unwrap();
        assert_eq!((reply.device.as_str(), reply.attached, reply.new_size), ("/dev/x", true, 7));
    }

    #[test]
    fn a_fault_is_told_as_the_kubelet_tells_it() {
        let type_of = |field: &str, kind: &str, wanted: &str| {
            format!(
                "json: cannot unmarshal {kind} into Go struct field DriverStatus.{field} of type {wanted}"
            )
        };
        let cases = [
            (
                r#"{"status":"Failure","message":"no disk"}"#,
                "mount command failed, status: Failure, reason: no disk".to_owned(),
            ),
            (r#"{"status":"success"}"#, "mount command failed, status: success, reason: ".to_owned()),
            ("null", "mount command failed, status: , reason: ".to_owned()),
            (r#"{"status":"Not supported"}"#, "Not supported".to_owned()),
            ("", "unexpected end of JSON input".to_owned()),
            (
                "warning\n{\"status\":\"Success\"}",
                "invalid character 'w' looking for beginning of value".to_owned(),
            ),
            ("{\"status\":\"Success\"}\n{}", "invalid character '{' after top-level value".to_owned()),
            ("[]", "json: cannot unmarshal array into Go value of type flexvolume.DriverStatus".to_owned()),
            (r#"{"status":"Success","attached":"true"}"#, type_of("attached", "string", "bool")),
            (r#"{"status":7,"attached":1}"#, type_of("status", "number", "string")),
            (r#"{"status":"Success","volumeNewSize":1.5}"#, type_of("volumeNewSize", "number 1.5", "int64")),
            (
                r#"{"status":"Success","capabilities":[]}"#,
                type_of("Capabilities", "array", "flexvolume.DriverCapabilities"),
            ),
        ];
        for (output, expect) in cases {
            assert_eq!(fault(output), expect, "{output}");
        }
    }

    #[test]
    fn capabilities_have_defaults_and_null_has_none() {
        let of = |text: &str| {
            let output = format!(r#"{{"status":"Success","capabilities":{text}}}"#);
            read("init", output.as_bytes()).0.unwrap().capabilities
        };
        let all = Capabilities::default();
        assert_eq!(of("{}"), Some(all));
        assert_eq!(
            of(r#"{"attach":false,"FSGroup":false}"#),
            Some(Capabilities { attach: false, fs_group: false, ..all })
        );
        assert_eq!(
            of(r#"{"attach":null,"supportsMetrics":true}"#),
            Some(Capabilities { supports_metrics: true, ..all })
        );
        assert_eq!(of("null"), None);
        assert_eq!(of(r#"null,"capabilities":{"attach":true}"#), Some(Capabilities { attach: true, ..NONE }));
    }
}
