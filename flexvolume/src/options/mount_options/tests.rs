use super::*;
use proptest::prelude::*;

fn words(fs: Fs, text: &str) -> String {
    match check(fs, text) {
        Ok(found) => {
            let attributes = found.attributes.iter().map(|attr| format!("{attr:?}"));
            attributes.chain(found.options.iter().map(ToString::to_string)).collect::<Vec<_>>().join(" ")
        }
        Err(why) => why,
    }
}

#[test]
fn sensible_tuning_passes() {
    let table = [
        (
            Fs::Ext4,
            "noatime,commit=30,data=ordered,errors=remount-ro",
            "NoAtime commit=30 data=ordered errors=remount-ro",
        ),
        (Fs::Ext4, "discard, nodiratime ,barrier=0", "NoDirAtime discard barrier=0"),
        (Fs::Xfs, "inode64,logbsize=256k,allocsize=64m,nouuid", "inode64 logbsize=256k allocsize=64m nouuid"),
        (Fs::Btrfs, "compress=zstd:3,discard=async,ssd", "compress=zstd:3 discard=async ssd"),
        (Fs::Btrfs, "compress,discard", "compress discard"),
        (Fs::Erofs, "cache_strategy=readaround", "cache_strategy=readaround"),
        (Fs::Squashfs, "threads=multi,errors=continue", "threads=multi errors=continue"),
        (Fs::Overlay, "xino=auto", "xino=auto"),
        (Fs::Tmpfs, "noexec,inode64", "NoExec inode64"),
        (Fs::Bind, "ro,nosuid,nodev,nosymfollow", "ReadOnly NoSuid NoDev NoSymFollow"),
        (
            Fs::Nfs,
            "hard,timeo=600,retrans=2,nconnect=4,sec=krb5:sys",
            "hard timeo=600 retrans=2 nconnect=4 sec=krb5:sys",
        ),
        (Fs::Nfs, "vers=4.1,rsize=1048576,proto=tcp,nolock", "vers=4.1 rsize=1048576 proto=tcp nolock"),
        (
            Fs::Cifs,
            "vers=3.1.1,file_mode=0640,uid=1000,seal,iocharset=utf8",
            "vers=3.1.1 file_mode=0640 uid=1000 seal iocharset=utf8",
        ),
        (Fs::Fuse, "default_permissions,max_read=131072", "default_permissions max_read=131072"),
    ];
    for (fs, text, expect) in table {
        assert_eq!(words(fs, text), expect, "{fs} {text}");
    }
}

const DENIED: &[&str] = &[
    "rw",
    "suid",
    "dev",
    "exec",
    "remount",
    "bind",
    "rbind",
    "move",
    "loop",
    "loop=/dev/loop0",
    "offset=512",
    "user",
    "users",
    "user=bob",
    "owner",
    "x-systemd.automount",
    "X-mount.mkdir",
    "helper=/tmp/x",
    "uhelper=x",
    "credentials=/etc/shadow",
    "cred=/etc/shadow",
    "password=x",
    "pass=x",
    "PASSWORD=x",
    "username=a%b",
    "ip=10.0.0.1",
    "context=system_u:object_r:etc_t:s0",
    "fscontext=x",
    "-o",
    "--bind",
    "-oremount",
    "nosuid,suid",
    "noatime,dev",
    "device=/dev/sda",
    "journal_path=/dev/sda",
    "source=/etc",
    "fd=3",
    "errors=panic",
    "fatal_errors=panic",
    "addr=10.0.0.1",
    "mounthost=evil",
    "clientaddr=10.0.0.1",
    "prefixpath=..",
    "unc=//evil/x",
    "sep=;",
    "allow_other",
    "rootmode=40777",
    "lowerdir=/etc",
    "upperdir=/etc",
    "workdir=/etc",
    "subvol=/x",
    "size=1t",
    "nr_inodes=0",
    "verity.hashdevice=/x",
    "",
    " ",
    ",",
    "noatime,",
    ",noatime",
    "noatime,,ro",
    "=",
    "=x",
    "no atime",
    "noatime=1",
    "ro=0",
    "\"noatime\"",
    "'a,suid'",
    "noatime\\,suid",
    "noatime\nsuid",
    "noatime\0",
    "noatime\tsuid",
    "noatime,noatime",
    "noatime,relatime",
    "ro,ro",
];

#[test]
fn what_is_denied_is_denied_for_every_filesystem() {
    for fs in Fs::ALL {
        for text in DENIED {
            assert!(check(fs, text).is_err(), "{fs} {text:?}");
        }
    }
}

#[test]
fn a_refusal_says_why_and_what_to_write() {
    let table = [
        (Fs::Ext4, "noatme", "`noatme` is not for ext4 volumes; did you mean `noatime`?"),
        (
            Fs::Ext4,
            "suid",
            "`suid` is refused: write the option `allowSuid: \"true\"`, where the node's policy allows it",
        ),
        (Fs::Ext4, "commit=0", "`commit` cannot be `0`; write a whole number from 1 to 300"),
        (Fs::Ext4, "commit", "`commit` cannot be without a value; write a whole number from 1 to 300"),
        (Fs::Ext4, "errors=panic", "`errors` cannot be `panic`; write remount-ro"),
        (Fs::Ext4, "discard=1", "`discard` cannot be `1`; write it without a value"),
        (
            Fs::Tmpfs,
            "size=1g,nosiud",
            "`size` is refused: write the option `size`; `nosiud` is not for tmpfs volumes; did you mean `nosuid`?",
        ),
        (
            Fs::Bind,
            "frobnicate=7",
            "`frobnicate` is not for bind volumes; allowed are ro, nosuid, nodev, noexec, noatime, relatime, \
             strictatime, nodiratime, nosymfollow",
        ),
        (
            Fs::Btrfs,
            "compress=zstd:99",
            "`compress` cannot be `zstd:99`; write zlib or lzo or zstd or no or none, with a level as in zlib:3 or without",
        ),
        (
            Fs::Nfs,
            "sec=krb5:root",
            "`sec` cannot be `krb5:root`; write some of none, sys, krb5, krb5i, krb5p, joined by colons",
        ),
        (
            Fs::Xfs,
            "allocsize=1k",
            "`allocsize` cannot be `1k`; write bytes from 4096 to 1073741824, such as 64k or 1m",
        ),
        (Fs::Nfs, "-o soft", "`-o soft` starts with a dash; write the options alone"),
        (Fs::Nfs, "noatime,relatime", "`relatime` contradicts what is before it; write one of them"),
    ];
    for (fs, text, expect) in table {
        assert_eq!(words(fs, text), expect, "{fs} {text}");
    }
}

#[test]
fn a_password_in_two_halves_is_not_shown() {
    let why = words(Fs::Cifs, "vers=3.0,username=bob,password=hun,ter2");
    assert!(why.starts_with("`username` is refused: it belongs into the Secret"), "{why}");
    for text in ["password=hun,ter2", "passwrd=hun", "frobnicate=hun"] {
        let why = words(Fs::Cifs, text);
        assert!(!why.contains("hun") && !why.contains("ter2"), "{why}");
    }
}

proptest! {
    #[test]
    fn junk_is_never_more_than_an_error(text in "[a-z=,:0-9 \"'\\\\-]{0,40}|\\PC{0,24}") {
        for fs in Fs::ALL {
            let _ = check(fs, &text);
        }
    }

    #[test]
    fn what_passes_reads_back_and_holds_nothing_strange(
        picks in proptest::collection::vec((0..64_usize, "[a-z0-9:.,=]{0,6}"), 1..6),
        fs in 0..Fs::ALL.len(),
    ) {
        let fs = Fs::ALL[fs];
        let names: Vec<_> = Attr::ALL.iter().map(|(w, _)| *w).chain(fs.allowed().iter().map(|(w, _)| *w)).collect();
        let word = |(at, value): &(usize, String)| {
            let name = names[at % names.len()];
            if value.is_empty() { name.to_owned() } else { format!("{name}={value}") }
        };
        let text = picks.iter().map(word).collect::<Vec<_>>().join(",");
        if let Ok(found) = check(fs, &text) {
            for option in &found.options {
                prop_assert!(!option.to_string().contains([',', ' ', '/', '"', '\\']));
            }
            let back = found.options.iter().map(ToString::to_string);
            let attributes = found.attributes.iter();
            let attributes = attributes.map(|a| Attr::ALL.iter().find(|(_, b)| a == b).unwrap().0.to_owned());
            let text: Vec<_> = attributes.chain(back).collect();
            prop_assert_eq!(check(fs, &text.join(",")), Ok(found));
        }
    }
}
