//! Why an option that mount(8) or a helper knows is not for a pod's author.

use super::Fs;

/// The reason for anything that carries a credential.
pub(super) const CREDENTIAL: &str = "it belongs into the Secret named by secretRef, \
    where not everybody who can read the pod can read it";

/// Whether `name` carries a credential, or is near enough.
pub(super) fn is_credential(name: &str) -> bool {
    let name = name.trim_start_matches('-').to_ascii_lowercase();
    let exact = ["user", "username", "pass", "pw", "cred"];
    exact.contains(&name.as_str())
        || ["passw", "credential", "secret", "token"].iter().any(|part| name.contains(part))
}

const FSTAB: &str = "it is a word for /etc/fstab; leave it out";
const OTHER_MOUNT: &str = "it would change another mount than this volume's; leave it out";
const LOOP: &str = "the driver makes loop devices itself; use the backend `image`";
const LABEL: &str = "write the option `selinuxContext`, where the node's policy allows it";
const SERVER: &str = "it would reach another server than the one that the node's policy was asked about; \
    write the option `server`";
const DRIVER: &str = "the driver sets it itself; leave it out";
const DEVICE: &str = "it names a file or device of the node; leave it out";

/// The same for every filesystem.
const EVERYWHERE: &[(&str, &str)] = &[
    ("rw", "a volume is writable unless it is read-only (`readOnly: true`); leave it out"),
    ("suid", "write the option `allowSuid: \"true\"`, where the node's policy allows it"),
    ("dev", "write the option `allowDev: \"true\"`, where the node's policy allows it"),
    ("exec", "programs may run unless the option `noexec` is set; leave it out"),
    ("symfollow", "symlinks are followed unless `nosymfollow` is set; leave it out"),
    ("async", "it is the default; leave it out"),
    ("atime", "write `relatime` or `strictatime`"),
    ("remount", OTHER_MOUNT),
    ("bind", OTHER_MOUNT),
    ("rbind", OTHER_MOUNT),
    ("move", OTHER_MOUNT),
    ("shared", OTHER_MOUNT),
    ("rshared", OTHER_MOUNT),
    ("slave", OTHER_MOUNT),
    ("rslave", OTHER_MOUNT),
    ("private", OTHER_MOUNT),
    ("rprivate", OTHER_MOUNT),
    ("unbindable", OTHER_MOUNT),
    ("runbindable", OTHER_MOUNT),
    ("loop", LOOP),
    ("offset", LOOP),
    ("sizelimit", LOOP),
    ("encryption", LOOP),
    ("helper", "it would run another program as root; leave it out"),
    ("uhelper", "it would run another program as root; leave it out"),
    ("users", FSTAB),
    ("nouser", FSTAB),
    ("owner", FSTAB),
    ("group", FSTAB),
    ("auto", FSTAB),
    ("noauto", FSTAB),
    ("nofail", FSTAB),
    ("_netdev", FSTAB),
    ("defaults", FSTAB),
    ("comment", FSTAB),
    ("context", LABEL),
    ("fscontext", LABEL),
    ("defcontext", LABEL),
    ("rootcontext", LABEL),
    ("seclabel", LABEL),
    ("source", DRIVER),
    ("fd", DRIVER),
    ("device", DEVICE),
    ("journal_dev", DEVICE),
    ("journal_path", DEVICE),
    ("logdev", DEVICE),
    ("rtdev", DEVICE),
    ("sb", DEVICE),
    ("fatal_errors", "it could stop the node; leave it out"),
    ("norecovery", "a filesystem whose log was not replayed may be inconsistent; leave it out"),
    ("noload", "a filesystem whose log was not replayed may be inconsistent; leave it out"),
];

const TMPFS: &[(&str, &str)] = &[
    ("size", "write the option `size`"),
    ("nr_blocks", "write the option `size`"),
    ("nr_inodes", "write the option `inodes`"),
    ("mode", "write the option `mode`"),
    ("uid", "write the option `uid`"),
    ("gid", "write the option `gid`"),
    ("huge", "write the option `huge`"),
    ("noswap", "write the option `noswap`"),
];

const OVERLAY: &[(&str, &str)] = &[
    ("lowerdir", "write the option `lower`"),
    ("upperdir", "write the option `upper`"),
    ("workdir", DRIVER),
    ("redirect_dir", "write the option `redirectDir`"),
    ("index", "write the option `index`"),
    ("volatile", "write the option `volatile`"),
    ("metacopy", "with layers from others it can show files that were not meant to be; leave it out"),
];

const NFS: &[(&str, &str)] = &[
    ("addr", SERVER),
    ("mountaddr", SERVER),
    ("mounthost", SERVER),
    ("clientaddr", "the node's own address is not the pod's to choose; leave it out"),
    ("retry", "the kubelet tries again by itself; leave it out"),
    ("bg", "the pod would start before its volume is there; leave it out"),
    ("fg", "it is what the driver does; leave it out"),
    ("sloppy", "mistakes shall be seen; leave it out"),
];

const CIFS: &[(&str, &str)] = &[
    ("ip", SERVER),
    ("addr", SERVER),
    ("servern", SERVER),
    ("unc", "write the option `source`"),
    ("target", "write the option `source`"),
    ("path", "write the option `source`"),
    ("prefixpath", "write the option `subDir`"),
    ("domain", "write the option `domain`, or put it into the Secret"),
    ("dom", "write the option `domain`, or put it into the Secret"),
    ("workgroup", "write the option `domain`, or put it into the Secret"),
    ("guest", "write the option `guest: \"true\"`"),
    ("multiuser", "write the option `multiuser: \"true\"`"),
    ("cruid", "write the option `cruid`"),
    ("sep", "it would change what separates options; leave it out"),
    ("backupuid", "it would pass over the files' permissions; leave it out"),
    ("backupgid", "it would pass over the files' permissions; leave it out"),
    ("sloppy", "mistakes shall be seen; leave it out"),
];

const FUSE: &[(&str, &str)] = &[
    ("allow_other", DRIVER),
    ("allow_root", DRIVER),
    ("rootmode", DRIVER),
    ("user_id", DRIVER),
    ("group_id", DRIVER),
    ("fsname", DRIVER),
    ("subtype", DRIVER),
];

/// Why `name` is refused, where more is to be said than that it is not on the list.
pub(super) fn reason(fs: Fs, name: &str) -> Option<&'static str> {
    if name.starts_with("x-") || name.starts_with("X-") {
        return Some(FSTAB);
    }
    let own: &[(&str, &str)] = match fs {
        Fs::Tmpfs => TMPFS,
        Fs::Overlay => OVERLAY,
        Fs::Nfs => NFS,
        Fs::Cifs => CIFS,
        Fs::Fuse => FUSE,
        Fs::Ext4 | Fs::Xfs | Fs::Btrfs | Fs::Erofs | Fs::Squashfs | Fs::Bind => &[],
    };
    own.iter().chain(EVERYWHERE).find(|(word, _)| *word == name).map(|(_, why)| *why)
}
