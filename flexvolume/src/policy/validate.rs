//! What a policy allows, told to a person.

use std::fmt::Write;

use node::Result;

use super::glob::Glob;
use super::{Backends, Busy, Handover, Policy, Profile, Root};

/// Checks a policy's text and tells what it allows, in lines of two columns. The error is that of
/// [`Policy::parse`].
pub fn explain(text: &str) -> Result<String> {
    let policy = Policy::parse(text)?;
    let mut table = Table::default();
    node(&mut table, &policy);
    local(&mut table, &policy.backends);
    remote(&mut table, &policy.backends);
    table.0.push_str(
        "\nA volume in a pod and one of a PersistentVolume cannot be told apart: whoever may create pods in a\n\
         namespace may use all that is allowed to it.\n",
    );
    Ok(table.0)
}

/// Lines whose first column names what the second is about.
#[derive(Default)]
struct Table(String);

impl Table {
    fn row(&mut self, name: &str, text: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{name:<16}{text}");
    }

    fn rows(&mut self, name: &str, lines: Vec<String>) {
        let names = std::iter::once(name).chain(std::iter::repeat(""));
        for (name, line) in names.zip(lines) {
            self.row(name, &line);
        }
    }
}

fn node(table: &mut Table, policy: &Policy) {
    table.row("kubelet root", &policy.kubelet_root.to_string_lossy());
    table.row("one call", &format!("at most {}", policy.timeout));
    table.row("the driver", &who(&policy.namespaces));
    table.row("suid bits", &format!("kept on request, {}", who(&policy.allow_suid)));
    table.row("device nodes", &format!("kept on request, {}", who(&policy.allow_dev)));
    table.row("SELinux context", &format!("chosen on request, {}", who(&policy.allow_selinux_context)));
    let busy = match policy.busy {
        Busy::Fail => "unmount fails and names the holders",
        Busy::Lazy => "unmount detaches it",
    };
    table.row("a busy volume", &format!("after {} {busy}", policy.busy_wait));
    table.row("the log", &policy.log_explained());
    table.0.push('\n');
}

fn local(table: &mut Table, backends: &Backends) {
    let off = || vec!["off".to_owned()];
    let tmpfs = backends.tmpfs.as_ref().map_or_else(off, |b| {
        vec![format!(
            "{} unless asked for, at most {} and {} files; {}",
            b.default_size,
            b.max_size,
            b.max_inodes,
            who(&b.namespaces)
        )]
    });
    table.rows("tmpfs", tmpfs);
    table.rows("bind", backends.bind.as_ref().map_or_else(off, |b| b.roots.iter().map(folder).collect()));
    let image = backends.image.as_ref().map_or_else(off, |b| {
        let types: Vec<_> = b.fs_types.iter().map(|fs| fs.name()).collect();
        let limits = format!("{}; new or grown ones at most {}", types.join(", "), b.max_size);
        b.roots.iter().map(folder).chain([limits]).collect()
    });
    table.rows("image", image);
    let overlay = backends.overlay.as_ref().map_or_else(off, |b| {
        let lower = b
            .lower
            .iter()
            .map(|root| format!("layers in {}; {}", root.path.display(), who(&root.namespaces)));
        let upper = b.upper.iter().map(|root| format!("writable on disk in {}", folder(root)));
        lower.chain(upper).chain([format!("writable in memory, at most {}", b.max_size)]).collect()
    });
    table.rows("overlay", overlay);
    let block = backends.block.as_ref().map_or_else(off, |b| {
        let format = if b.format { "empty ones may be formatted" } else { "never formatted" };
        vec![format!("{}, {format}; {}", list(&b.devices), who(&b.namespaces))]
    });
    table.rows("block", block);
}

fn remote(table: &mut Table, backends: &Backends) {
    let nfs = backends.nfs.as_ref().map(|b| ("nfs", &b.servers, &b.namespaces, &b.helper));
    let cifs = backends.cifs.as_ref().map(|b| ("cifs", &b.servers, &b.namespaces, &b.helper));
    for (name, found) in [("nfs", nfs), ("cifs", cifs)] {
        let text = found.map_or("off".to_owned(), |(_, servers, namespaces, helper)| {
            let any = servers.iter().any(|glob| glob.as_str() == "*");
            let which = if any { "any server".to_owned() } else { format!("servers {}", list(servers)) };
            format!("{which} by {}; {}", helper.display(), who(namespaces))
        });
        table.row(name, &text);
    }
    let fuse = backends.fuse.as_ref();
    let fuse = fuse.map(|b| b.profiles.iter().map(|(name, profile)| program(name, profile)).collect());
    table.rows("fuse", fuse.unwrap_or_else(|| vec!["off".to_owned()]));
}

fn program(name: &str, profile: &Profile) -> String {
    let handover = match profile.handover {
        Handover::Descriptor => "by descriptor",
        Handover::Folder => "by folder",
    };
    let options: Vec<_> = profile.options.keys().map(String::as_str).collect();
    let mut parts = vec![format!("{name}: {} {handover}", profile.program.display())];
    let lists = [
        ("sources", list(&profile.sources)),
        ("options", options.join(", ")),
        ("secrets", profile.secrets.join(", ")),
    ];
    parts.extend(
        lists.iter().filter(|(_, text)| !text.is_empty()).map(|(what, text)| format!("{what} {text}")),
    );
    parts.push(who(&profile.namespaces));
    parts.join("; ")
}

fn folder(root: &Root) -> String {
    let mode = match (root.read_only, root.create) {
        (true, _) => "read-only",
        (false, false) => "read-write",
        (false, true) => "read-write, new ones may be made",
    };
    format!("{} {mode}; {}", root.path.display(), who(&root.namespaces))
}

fn who(namespaces: &[Glob]) -> String {
    match namespaces {
        [] => "for no namespace".to_owned(),
        all if all.iter().any(|glob| glob.as_str() == "*") => "for every namespace".to_owned(),
        some => format!("for {}", list(some)),
    }
}

fn list(globs: &[Glob]) -> String {
    globs.iter().map(Glob::as_str).collect::<Vec<_>>().join(", ")
}
