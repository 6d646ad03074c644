//! What mount.nfs and mount.cifs say when they fail, and what to do then. Their words are in English: they
//! run with `LC_ALL=C`.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use node::{Error, Kind};

use crate::plan::Protocol;

/// A part of a helper's words, who has to act, and what to do.
type Meaning = (&'static str, Kind, &'static str);

const UNREACHABLE: &str = "check that the node reaches the server: its name, its network, its firewall";

// utils/mount/error.c of nfs-utils, and strerror(3). The first that fits counts.
const NFS: [Meaning; 14] = [
    (
        "rpc.statd is not running",
        Kind::Unavailable,
        "start rpc-statd.service on the node, or set `nolock: \"true\"`, or use `vers: 4`",
    ),
    ("unknown filesystem type", Kind::Unavailable, NO_NFS),
    ("No such device", Kind::Unavailable, NO_NFS),
    (
        "access denied by server",
        Kind::Config,
        "the server does not export this folder to this node: see /etc/exports there, and `showmount -e SERVER`",
    ),
    ("Failed to resolve server", Kind::TryAgain, "check `server`, and that the node can look names up (DNS)"),
    (
        "requested NFS version or transport protocol is not supported",
        Kind::Config,
        "the server speaks another version: set `vers`, or `proto`",
    ),
    ("Protocol not supported", Kind::Config, "the server speaks another version: set `vers`"),
    (
        "No such file or directory",
        Kind::Config,
        "the server has no such folder, or does not export it: check `share`",
    ),
    ("Not a directory", Kind::Config, "what the server exports there is no folder: check `share`"),
    (
        "Connection refused",
        Kind::TryAgain,
        "nothing answers there: check that the server runs, and `port` (2049 by default)",
    ),
    (
        "Permission denied",
        Kind::Config,
        "the server wants another security flavor or a port below 1024: check `sec` and its exports",
    ),
    (
        "an incorrect mount option was specified",
        Kind::Config,
        "check the options against this kernel: dmesg may say which",
    ),
    ("Invalid argument", Kind::Config, "check the options against this kernel: dmesg may say which"),
    (
        "Operation not permitted",
        Kind::Kernel,
        "run as root with CAP_SYS_ADMIN, and check the server's exports",
    ),
];
const NO_NFS: &str = "this node's kernel has no nfs: load its module (modprobe nfs) or use another kernel";

// mount.cifs.c of cifs-utils, and the numbers of errno(3).
const CIFS: [Meaning; 16] = [
    ("cifs filesystem not supported", Kind::Unavailable, NO_CIFS),
    ("mount error(19)", Kind::Unavailable, NO_CIFS),
    (
        "mount error(13)",
        Kind::Config,
        "check `username`, `password` and `domain` in the Secret, and the user's rights on the share",
    ),
    (
        "mount error(1)",
        Kind::Config,
        "check the user's rights on the share, and that the driver runs with CAP_SYS_ADMIN",
    ),
    (
        "mount error(2)",
        Kind::Config,
        "the server has no share of this name, or no such folder in it: check `share`",
    ),
    ("mount error(6)", Kind::Config, "the server has no share of this name: check `share`"),
    ("mount error(5)", Kind::TryAgain, "the server broke off: check its log, and `vers` and `sec`"),
    ("mount error(16)", Kind::TryAgain, "the kubelet will try again"),
    ("mount error(20)", Kind::Config, "what the path behind the share names is no folder: check `share`"),
    ("mount error(22)", Kind::Config, "check the options against this kernel: dmesg says which"),
    (
        "mount error(95)",
        Kind::Config,
        "the server does not speak this version or security: set `vers` (3.1.1, 2.1) or `sec`",
    ),
    (
        "mount error(111)",
        Kind::TryAgain,
        "nothing answers there: check that the server runs, and `port` in `mountOptions` (445 by default)",
    ),
    (
        "mount error(112)",
        Kind::TryAgain,
        "the server is down or speaks another version: check it, and `vers`",
    ),
    (
        "mount error(126)",
        Kind::Config,
        "there is no Kerberos ticket for this user: check `cruid` and the node's request-key and cifs.upcall",
    ),
    (
        "could not resolve address",
        Kind::TryAgain,
        "check the server's name, and that the node can look names up (DNS)",
    ),
    ("credential", Kind::Config, "check `username`, `password` and `domain` in the Secret"),
];
const NO_CIFS: &str = "this node's kernel has no cifs: load its module (modprobe cifs) or use another kernel";

// The same for both: the network's errors, by their text.
const BOTH: [Meaning; 5] = [
    ("timed out", Kind::TryAgain, UNREACHABLE),
    ("No route to host", Kind::TryAgain, UNREACHABLE),
    ("Network is unreachable", Kind::TryAgain, UNREACHABLE),
    ("Host is down", Kind::TryAgain, UNREACHABLE),
    ("Operation now in progress", Kind::TryAgain, UNREACHABLE),
];

/// The error of a helper that ended with `status` and wrote `text`.
pub fn refused(protocol: Protocol, status: ExitStatus, text: &str) -> Box<Error> {
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "no exit code".to_owned(),
    };
    let words = told(text);
    let why = if words.is_empty() { format!("it said nothing ({how})") } else { format!("{words} ({how})") };
    let (kind, hint) = meaning(protocol, &words);
    Error::caused(kind, "run the helper", why).hint(hint)
}

/// A helper's lines as one, without what sends its reader to a manual.
fn told(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.filter(|line| !line.starts_with("Refer to the ")).collect::<Vec<_>>().join("; ")
}

fn meaning(protocol: Protocol, words: &str) -> (Kind, &'static str) {
    let own: &[Meaning] = match protocol {
        Protocol::Nfs => &NFS,
        Protocol::Cifs => &CIFS,
    };
    let found = own.iter().chain(&BOTH).find(|(part, _, _)| words.contains(part));
    let unknown = "try it by hand on the node; dmesg there may say more";
    found.map_or((Kind::Kernel, unknown), |(_, kind, hint)| (*kind, hint))
}

#[cfg(test)]
mod tests {
    use super::*;
    use Protocol::{Cifs, Nfs};

    const WORDS: [(Protocol, &str, Kind, &str); 15] = [
        (Nfs, "mount.nfs: No such device", Kind::Unavailable, "modprobe nfs"),
        (Nfs, "mount.nfs: access denied by server while mounting 10.0.0.1:/x", Kind::Config, "/etc/exports"),
        (Nfs, "mount.nfs: Connection refused", Kind::TryAgain, "2049"),
        (Nfs, "mount.nfs: Connection timed out", Kind::TryAgain, "firewall"),
        (Nfs, "mount.nfs: No route to host", Kind::TryAgain, "firewall"),
        (
            Nfs,
            "mount.nfs: mounting 10.0.0.1:/x failed, reason given by server: No such file or directory",
            Kind::Config,
            "`share`",
        ),
        (Nfs, "mount.nfs: Failed to resolve server nas: Name or service not known", Kind::TryAgain, "DNS"),
        (
            Nfs,
            "mount.nfs: rpc.statd is not running but is required for remote locking.\nmount.nfs: Either use '-o nolock' to keep locks local, or start statd.",
            Kind::Unavailable,
            "nolock",
        ),
        (Nfs, "mount.nfs: something new", Kind::Kernel, "dmesg"),
        (
            Cifs,
            "mount error: cifs filesystem not supported by the system\nmount error(19): No such device",
            Kind::Unavailable,
            "modprobe cifs",
        ),
        (
            Cifs,
            "mount error(13): Permission denied\nRefer to the mount.cifs(8) manual page (e.g. man mount.cifs)",
            Kind::Config,
            "`password`",
        ),
        (Cifs, "mount error(115): Operation now in progress", Kind::TryAgain, "firewall"),
        (
            Cifs,
            "mount error(113): could not connect to 10.0.0.1Unable to find suitable address. No route to host",
            Kind::TryAgain,
            "firewall",
        ),
        (Cifs, "mount error: could not resolve address for nas: Unknown error", Kind::TryAgain, "DNS"),
        (Cifs, "mount error(126): Required key not available", Kind::Config, "Kerberos"),
    ];

    #[test]
    fn a_helpers_words_lead_to_what_to_do() {
        for (protocol, text, kind, hint) in WORDS {
            let error = refused(protocol, ExitStatus::from_raw(32 << 8), text);
            assert_eq!(error.kind(), kind, "{text}");
            assert!(error.advice().unwrap().contains(hint), "{text}: {:?}", error.advice());
            assert!(
                !error.chain().contains("Refer to") && error.chain().ends_with("(exit code 32)"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_helper_that_says_nothing_has_an_end_at_least() {
        let error = refused(Nfs, ExitStatus::from_raw(9), " \n");
        assert_eq!(error.chain(), "run the helper: it said nothing (signal 9)");
    }
}
