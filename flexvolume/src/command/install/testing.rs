//! A room for tests: a plugin folder, and programs that answer `init` well or badly.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::{Install, MARK, Place, Uninstall};

pub(super) const GOOD: &str = r#"{"status":"Success","capabilities":{"attach":false,"selinuxRelabel":true,"supportsMetrics":true,"fsGroup":false,"requiresFSResize":false}}"#;

/// Removed with all that is in it.
pub(super) struct Room(PathBuf);

impl Room {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("flexvolume-install-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(path.join("plugins")).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn plugins(&self) -> PathBuf {
        self.0.join("plugins")
    }

    /// A program with the driver's mark that runs `body`.
    pub fn program(&self, name: &str, body: &str) -> PathBuf {
        let mark = std::str::from_utf8(&MARK).unwrap();
        self.file(name, &format!("#!/bin/sh\n# {mark}\n# {name}\n{body}\n"))
    }

    /// One that answers well, wherever it lies.
    pub fn good(&self, name: &str) -> PathBuf {
        self.program(name, &format!("echo '{GOOD}'"))
    }

    /// One that answers well while it is hidden, and runs `body` at its place.
    pub fn turncoat(&self, name: &str, body: &str) -> PathBuf {
        self.program(name, &format!("case $0 in */.*) echo '{GOOD}';; *) {body};; esac"))
    }

    /// A file in the room, with its folders.
    pub fn file(&self, path: &str, content: &str) -> PathBuf {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    pub fn install(&self, from: &Path, backends: &[&str]) -> Install {
        Install {
            place: self.place(backends),
            dry_run: false,
            force: false,
            stay: false,
            from: from.to_owned(),
        }
    }

    pub fn uninstall(&self, from: &Path, backends: &[&str]) -> Uninstall {
        Uninstall { place: self.place(backends), dry_run: false, force: false, from: from.to_owned() }
    }

    fn place(&self, backends: &[&str]) -> Place {
        Place {
            dir: Some(self.plugins()),
            vendor: "nodeplug".to_owned(),
            backends: backends.iter().map(|name| (*name).to_owned()).collect(),
            root: None,
        }
    }

    /// Everything below the plugin folder, hidden names too, sorted.
    pub fn tree(&self) -> Vec<String> {
        let mut found = Vec::new();
        collect(&self.plugins(), "", &mut found);
        found.sort();
        found
    }
}

fn collect(folder: &Path, prefix: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type().unwrap().is_dir() {
            collect(&entry.path(), &format!("{name}/"), found);
        }
        found.push(name);
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
