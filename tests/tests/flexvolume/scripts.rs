//! Drivers in a few lines of shell, to show what a kubelet makes of them.

/// `init` of a driver that only mounts.
pub const INIT: &str = r#"echo '{"status":"Success","capabilities":{"attach":false,"fsGroup":false}}'"#;

/// A success and no more.
pub const OK: &str = r#"echo '{"status":"Success"}'"#;

/// `mount` with a tmpfs.
pub const TMPFS: &str = r#"mount -t tmpfs scripted "$2" && echo '{"status":"Success"}'"#;

/// `unmount`, as long as something is there.
pub const UNMOUNT: &str =
    r#"while mountpoint -q "$2"; do umount "$2" || break; done; echo '{"status":"Success"}'"#;

/// A failure with a message.
pub const FAIL: &str = r#"echo '{"status":"Failure","message":"no disk"}'"#;

/// A driver of these verbs and lines of shell; other verbs are not supported.
pub fn script(verbs: &[(&str, &str)]) -> String {
    let arms: String = verbs.iter().map(|(verb, line)| format!("{verb})\n{line}\n;;\n")).collect();
    format!("#!/bin/sh\ncase \"$1\" in\n{arms}*) echo '{{\"status\":\"Not supported\"}}' ;;\nesac\n")
}

/// A driver that mounts a tmpfs.
pub fn tmpfs() -> String {
    script(&[("init", INIT), ("mount", TMPFS), ("unmount", UNMOUNT)])
}

/// A driver whose `mount` is this.
pub fn mounting(line: &str) -> String {
    script(&[("init", INIT), ("mount", line), ("unmount", UNMOUNT)])
}
