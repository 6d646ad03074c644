use std::path::Path;
use std::time::Instant;

use super::*;
use crate::backend::Common;
use crate::kernel::superblock::Health;
use crate::options::Options;
use crate::policy::Policy;
use crate::target::Target;

const GIB: u64 = 1 << 30;

/// Options.
type Pairs = &'static [(&'static str, &'static str)];

/// What is read of `pairs`, or every problem with them.
fn read_all(pairs: &[(&str, &str)], format: bool) -> Result<Block, String> {
    let all = pairs.iter().map(|(k, v)| ((*k).to_owned(), serde_json::json!(v)));
    let json = serde_json::Value::Object(all.collect()).to_string();
    let options = Options::parse(&json).unwrap();
    let policy = format!("backends: {{block: {{devices: [/dev/disk/by-id/data-*], format: {format}}}}}");
    let policy = Policy::parse(&policy).unwrap();
    let path = Path::new("/var/lib/kubelet/pods/u/volumes/nodeplug~volume/data");
    let target = Target::parse(path, &policy.kubelet_root).unwrap();
    let mut reader = options.reader();
    let pod = options.pod();
    let common = Common::read(&options, &pod, &policy, &mut reader, Instant::now());
    let asked = Asked { options: &options, pod, target: &target, policy: &policy, common };
    let block = options_of(&asked, &mut reader);
    reader.finish().map_err(|e| e.causes())?;
    block.map_err(|e| e.chain())
}

/// The steps for what was found.
fn steps(pairs: &[(&str, &str)], found: Option<Found>) -> (String, Record) {
    let block = read_all(pairs, true).unwrap();
    let fs = found.map_or(block.wanted.fs.unwrap_or(ImageFs::Ext4), |f| f.fs);
    let read_only = block.wanted.common.read_only || only_read(fs);
    let mounted = block.wanted.mounted(fs, read_only).unwrap();
    let seen = Seized {
        lock: "block 8:16".to_owned(),
        key: format!("block 8:16 {}", mounted.words()),
        path: PathBuf::from("/dev/sdb"),
        name: block.name,
        size: GIB,
        sequence: Some(7),
        found,
        format: block.format,
        wanted: block.wanted,
        mounted,
    };
    let mut record = Record::default();
    seen.describe(&mut record);
    let lines: Vec<String> = seen.steps().iter().map(ToString::to_string).collect();
    (lines.join("|"), record)
}

const DEVICE: (&str, &str) = ("device", "/dev/disk/by-id/data-1");

#[test]
fn an_empty_device_is_remembered_while_it_is_formatted() {
    let pairs = [DEVICE, ("format", "ifEmpty"), ("fsType", "xfs"), ("mkfsOptions", "-m reflink=0")];
    let (lines, record) = steps(&pairs, None);
    assert_eq!(
        lines,
        "make a file system: `mkfs.xfs -q -f -K -m reflink=0`|remember that it is formatted|\
         make a `xfs` of the device"
    );
    let unfinished = record.format.unwrap();
    assert_eq!(
        (unfinished.device.to_str(), unfinished.sequence, unfinished.size),
        (Some("/dev/sdb"), Some(7), GIB)
    );
    assert_eq!((record.lock.as_str(), record.source.as_str()), ("block 8:16", DEVICE.1));
}

#[test]
fn what_is_there_is_never_formatted() {
    let ext4 = Found { fs: ImageFs::Ext4, length: GIB, taken: Some(GIB), health: Health::default() };
    let replay = Health { suspect: false, replay: true };
    let table: [(Pairs, Found, &str); 5] = [
        (&[DEVICE, ("format", "ifEmpty")], ext4, "make a `ext4` of the device with `errors=remount-ro`"),
        (
            &[DEVICE],
            Found { taken: Some(GIB / 2), ..ext4 },
            "check `/dev/sdb` by `e2fsck -p -f`|grow the unmounted ext4 by `resize2fs`|\
             make a `ext4` of the device with `errors=remount-ro`",
        ),
        (
            &[DEVICE],
            Found { fs: ImageFs::Xfs, taken: Some(GIB / 2), ..ext4 },
            "make a `xfs` of the device|grow the mounted xfs to 1Gi",
        ),
        // Others may read it, too: nothing is written.
        (
            &[DEVICE, ("readOnly", "true")],
            Found { taken: Some(GIB / 2), health: replay, ..ext4 },
            "make a `ext4` of the device with `errors=remount-ro,noload`, read-only",
        ),
        (&[DEVICE], Found { fs: ImageFs::Erofs, ..ext4 }, "make a `erofs` of the device, read-only"),
    ];
    for (pairs, found, expect) in table {
        let (lines, record) = steps(pairs, Some(found));
        assert_eq!(lines, expect, "{pairs:?} {found:?}");
        assert_eq!(record.format, None);
    }
}

#[test]
fn a_refusal_says_what_to_write() {
    let table: [(Pairs, bool, &str); 6] = [
        (&[], true, "`device` is missing; write its name, such as /dev/disk/by-id/"),
        (&[("device", "/dev/sda")], true, "use the device `/dev/sda`: the node's policy does not list it"),
        (
            &[("device", "/dev/disk/by-id/data-1/../../../sda")],
            true,
            "use the device `/dev/disk/by-id/data-1/../",
        ),
        (
            &[DEVICE, ("format", "ifEmpty")],
            false,
            "format an empty device: the node's policy does not allow it",
        ),
        (&[DEVICE, ("mkfsOptions", "-N 100")], true, "`mkfsOptions` is for a new file system; set `format`"),
        (
            &[DEVICE, ("format", "ifEmpty"), ("fsType", "squashfs")],
            true,
            "`format` writes to the device, which is only read here; leave it out",
        ),
    ];
    for (pairs, format, expect) in table {
        let why = read_all(pairs, format).unwrap_err();
        assert!(why.starts_with(expect), "{pairs:?}\n{why}");
    }
}
