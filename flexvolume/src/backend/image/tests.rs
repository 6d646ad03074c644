use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::open::Opened;
use super::options::{Access, Image};
use super::{alone, options};
use crate::apply::Hands;
use crate::backend::medium::Found;
use crate::backend::{Asked, Common};
use crate::kernel::superblock::Health;
use crate::options::{Options, Secrets};
use crate::plan::Step;
use crate::policy::{ImageFs, Policy};
use crate::record::Record;
use crate::target::Target;

const POLICY: &str = "
backends:
  tmpfs: {}
  image:
    roots:
      - {path: /pool, create: true}
      - {path: /kept}
      - {path: /golden, readOnly: true}
    maxSize: 2Gi
    fsTypes: [ext4, xfs, btrfs, squashfs]
";
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const RW: (&str, &str) = ("path", "/pool/a.img");

/// What is read of `pairs`, or every problem with them.
fn read(pairs: &[(&str, &str)]) -> Result<Image, String> {
    let pod = [("kubernetes.io/pod.name", "web-0"), ("kubernetes.io/pod.namespace", "shop")];
    let all = pod.iter().chain(pairs).map(|(k, v)| ((*k).to_owned(), serde_json::json!(v)));
    let json = serde_json::Value::Object(all.collect()).to_string();
    let options = Options::parse(&json).unwrap();
    let policy = Policy::parse(POLICY).unwrap();
    let path = Path::new("/var/lib/kubelet/pods/u/volumes/nodeplug~volume/data");
    let target = Target::parse(path, &policy.kubelet_root).unwrap();
    let mut reader = options.reader();
    let pod = options.pod();
    let common = Common::read(&options, &pod, &policy, &mut reader, Instant::now());
    let asked = Asked { options: &options, pod, target: &target, policy: &policy, common };
    let image = options::read(&asked, &mut reader);
    reader.finish().map_err(|e| e.causes())?;
    image.map_err(|e| e.chain())
}

fn opened() -> Opened {
    Opened { path: PathBuf::from("/pool/a.img"), lock: "image 1:2/a.img".to_owned(), file: None }
}

fn lines(steps: &[Step]) -> Vec<String> {
    steps.iter().map(ToString::to_string).collect()
}

/// The steps for an image that is not there.
fn new(pairs: &[(&str, &str)]) -> Vec<String> {
    let seen = alone::missing(read(pairs).unwrap(), opened(), Vec::new()).unwrap();
    lines(&seen.steps())
}

/// The steps for one that is.
fn old(pairs: &[(&str, &str)], found: Found) -> Vec<String> {
    let secrets = Secrets::default();
    let mut hands = Hands::new(&secrets, Instant::now() + Duration::from_secs(1));
    let seen = alone::found(read(pairs).unwrap(), opened(), found, &mut hands).unwrap();
    lines(&seen.steps())
}

fn found(fs: ImageFs, length: u64, taken: u64) -> Found {
    Found { fs, length, taken: Some(taken), health: Health::default() }
}

#[test]
fn a_missing_image_is_made_under_another_name() {
    let id = read(&[("path", "/pool/a.img")]).unwrap().id;
    let pairs = [
        ("path", "/pool/a.img"),
        ("create", "ifMissing"),
        ("size", "1Gi"),
        ("mode", "0755"),
        ("uid", "7"),
        ("kubernetes.io/mounterArgs.FsGroup", "1234"),
    ];
    let mkfs = "make a file system: `mkfs.ext4 -q -F -E nodiscard,lazy_itable_init=1,lazy_journal_init=1 -m 0 -b 4096`";
    assert_eq!(
        new(&pairs),
        [
            format!("make the image `/pool/.a.img.{id}.new`").as_str(),
            "make the image 1Gi long, sparse",
            "put a loop device over the image, alone",
            mkfs,
            format!("rename `/pool/.a.img.{id}.new` to `/pool/a.img`").as_str(),
            "make a `ext4` of the device with `errors=remount-ro`",
            "set the root folder's mode 2775 owner 7",
            "give the group 1234 all of it, unless its root folder has it",
        ]
    );
    let pairs = [
        ("path", "/pool/a.img"),
        ("create", "ifMissing"),
        ("size", "300Mi"),
        ("fsType", "xfs"),
        ("allocate", "full"),
        ("mkfsOptions", "-m reflink=0"),
        ("mountOptions", "noatime,allocsize=64k"),
        ("readOnly", "true"),
    ];
    assert_eq!(
        new(&pairs),
        [
            format!("make the image `/pool/.a.img.{id}.new`").as_str(),
            "make the image 300Mi long, allocated",
            "put a loop device over the image, alone",
            "make a file system: `mkfs.xfs -q -f -K -m reflink=0`",
            format!("rename `/pool/.a.img.{id}.new` to `/pool/a.img`").as_str(),
            "put a read-only loop device over the image, alone",
            "make a `xfs` of the device with `norecovery,nouuid,allocsize=64k`, read-only",
        ]
    );
}

#[test]
fn the_record_names_what_a_kill_could_leave() {
    let pairs = [("path", "/pool/a.img"), ("create", "ifMissing"), ("size", "1Gi"), ("retain", "delete")];
    let image = read(&pairs).unwrap();
    let scratch = PathBuf::from(format!("/pool/.a.img.{}.new", image.id));
    let mut record = Record::default();
    alone::missing(image, opened(), Vec::new()).unwrap().describe(&mut record);
    assert_eq!(record.scratch, [scratch]);
    assert_eq!(record.delete, [PathBuf::from("/pool/a.img")]);
    assert_eq!((record.lock.as_str(), record.key.as_str()), ("image 1:2/a.img", ""));
}

/// Options, what is there, and the steps.
type Case = (&'static [(&'static str, &'static str)], Found, &'static [&'static str]);

#[test]
fn an_image_grows_where_its_file_system_can() {
    let table: [Case; 3] = [
        (
            &[RW],
            found(ImageFs::Ext4, GIB, GIB),
            &[
                "put a loop device over the image, alone",
                "make a `ext4` of the device with `errors=remount-ro`",
            ],
        ),
        (
            &[RW, ("size", "2Gi"), ("discard", "true")],
            found(ImageFs::Ext4, GIB, GIB),
            &[
                "make the image 2Gi long, sparse",
                "put a loop device over the image, alone",
                "check `/pool/a.img` by `e2fsck -p -f`",
                "grow the unmounted ext4 by `resize2fs`",
                "make a `ext4` of the device with `errors=remount-ro,discard`",
            ],
        ),
        (
            &[RW, ("size", "1Mi")],
            found(ImageFs::Btrfs, GIB, 512 * MIB),
            &[
                "put a loop device over the image, alone",
                "make a `btrfs` of the device",
                "grow the mounted btrfs to 1Gi",
            ],
        ),
    ];
    for (pairs, found, expect) in table {
        assert_eq!(old(pairs, found), expect, "{pairs:?} {found:?}");
    }
}

#[test]
fn ext4_is_repaired_where_it_says_that_it_needs_it() {
    let suspect = Health { suspect: true, replay: false };
    let replay = Health { suspect: false, replay: true };
    let table: [Case; 5] = [
        (
            &[RW],
            Found { health: suspect, ..found(ImageFs::Ext4, GIB, GIB) },
            &[
                "put a loop device over the image, alone",
                "check `/pool/a.img` by `e2fsck -p`",
                "make a `ext4` of the device with `errors=remount-ro`",
            ],
        ),
        (
            &[RW, ("fsck", "never"), ("mountOptions", "errors=remount-ro,commit=30")],
            Found { health: suspect, ..found(ImageFs::Ext4, GIB, GIB) },
            &[
                "put a loop device over the image, alone",
                "make a `ext4` of the device with `errors=remount-ro,commit=30`",
            ],
        ),
        (
            &[RW],
            Found { health: replay, ..found(ImageFs::Ext4, GIB, GIB) },
            &[
                "put a loop device over the image, alone",
                "make a `ext4` of the device with `errors=remount-ro`",
            ],
        ),
        (
            &[RW, ("access", "rw"), ("readOnly", "true")],
            Found { health: replay, ..found(ImageFs::Ext4, GIB, GIB) },
            &[
                "put a loop device over the image, alone",
                "check `/pool/a.img` by `e2fsck -p`",
                "put a read-only loop device over the image, alone",
                "make a `ext4` of the device with `errors=remount-ro,noload`, read-only",
            ],
        ),
        (
            &[RW, ("access", "rw"), ("readOnly", "true")],
            found(ImageFs::Xfs, GIB, GIB),
            &[
                "put a read-only loop device over the image, alone",
                "make a `xfs` of the device with `norecovery,nouuid`, read-only",
            ],
        ),
    ];
    for (pairs, found, expect) in table {
        assert_eq!(old(pairs, found), expect, "{pairs:?} {found:?}");
    }
}

#[test]
fn who_may_write_follows_from_the_options_and_the_root() {
    let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let table: [(&[(&str, &str)], Access); 10] = [
        (&[RW, ("overlay", "tmpfs"), ("overlaySize", "1Mi")], Access::Shared),
        (&[("path", "/pool/a")], Access::Open),
        (&[("path", "/golden/a")], Access::Shared),
        (&[("path", "/pool/a"), ("fsType", "ext3")], Access::Alone),
        (&[("path", "/pool/a"), ("fsType", "squashfs")], Access::Shared),
        (&[("path", "/pool/a"), ("readOnly", "true")], Access::Shared),
        (&[("path", "/pool/a"), ("kubernetes.io/readwrite", "ro"), ("access", "rw")], Access::Alone),
        (&[("path", "/pool/a"), ("sha256", hash)], Access::Shared),
        (&[("path", "/pool/a"), ("size", "1Gi"), ("readOnly", "true")], Access::Alone),
        (&[("pool", "/pool"), ("name", "${pod.namespace}-${pod.name}"), ("access", "ro")], Access::Shared),
    ];
    for (pairs, expect) in table {
        assert_eq!(read(pairs).unwrap().access, expect, "{pairs:?}");
    }
    let named = read(&[("pool", "/pool/deep"), ("name", "${pod.namespace}-${pod.name}.img")]).unwrap();
    let place = named.place.unwrap();
    assert_eq!((place.root, place.folder), (PathBuf::from("/pool"), PathBuf::from("deep")));
    assert_eq!(place.name, "shop-web-0.img");
}

/// Options, and how what is said of them begins.
type Refusal = (&'static [(&'static str, &'static str)], &'static str);

#[track_caller]
fn assert_refused(table: &[Refusal]) {
    for (pairs, expect) in table {
        let why = read(pairs).unwrap_err();
        assert!(why.starts_with(expect), "{pairs:?}\n{why}");
    }
}

#[test]
fn a_refused_name_says_what_to_write() {
    let table: [Refusal; 14] = [
        (
            &[RW, ("overlaySize", "1Mi")],
            "`overlaySize` is of what is laid over the image; set `overlay` to tmpfs",
        ),
        (
            &[RW, ("overlay", "tmpfs"), ("readOnly", "true")],
            "`overlay` lets the pod write, and the volume is read-only",
        ),
        (&[RW, ("overlay", "tmpfs"), ("access", "rw")], "`overlay` is for an image that nobody writes to"),
        (
            &[RW, ("overlay", "tmpfs"), ("overlaySize", "1Gi")],
            "allow `size` of 1Gi: the node's policy allows at most 256Mi",
        ),
        (&[], "`path` is missing; write the image's path, or `pool` and `name`"),
        (&[("pool", "/pool")], "`name` is missing; write the image's name in the pool"),
        (&[("path", "/pool/a"), ("name", "b")], "`path` contradicts `pool` and `name`; leave it or them out"),
        (&[("pool", "/pool"), ("name", "../a")], "`name` (../a) has the component `..`; write one name"),
        (
            &[("pool", "/pool"), ("name", "a/b")],
            "`name` (a/b) has a `/`; write one name, and the folder in `pool`",
        ),
        (
            &[("path", "/pool/.a.new")],
            "`path` (/pool/.a.new) ends in `.a.new`; an image's name does not start with a dot",
        ),
        (&[("path", "/pool/../etc/x")], "use `/pool/../etc/x`: it has the component `..`"),
        (&[("path", "/else/a")], "use `/else/a`: the node's policy lists no root that contains it"),
        (
            &[("path", "/pool/a"), ("fsType", "ntfs")],
            "`fsType` (ntfs) is not a file system for it; write ext4 or",
        ),
        (
            &[("path", "/pool/a"), ("fsType", "erofs")],
            "mount erofs from an image: the node's policy allows ext4",
        ),
    ];
    assert_refused(&table);
}

#[test]
fn a_refused_wish_says_what_to_write() {
    let table: [Refusal; 7] = [
        (&[("path", "/pool/a"), ("create", "ifMissing")], "`size` is missing; write how large"),
        (
            &[("path", "/pool/a"), ("create", "ifMissing"), ("size", "1Mi"), ("fsType", "xfs")],
            "`size` is too small for xfs; write at least 300Mi",
        ),
        (
            &[("path", "/kept/a"), ("create", "ifMissing"), ("size", "1Gi")],
            "make something new in `/kept`: the node's policy does not allow it",
        ),
        (
            &[("path", "/pool/a"), ("size", "3Gi")],
            "allow `size` of 3Gi: the node's policy allows at most 2Gi",
        ),
        (
            &[("path", "/golden/a"), ("access", "rw")],
            "use `/golden/a`: the root `/golden` is read-only; ask for `readOnly: true`",
        ),
        (
            &[
                ("path", "/pool/a"),
                ("access", "ro"),
                ("size", "1Gi"),
                ("retain", "delete"),
                ("sha256", "abc"),
            ],
            "`sha256` is not 64 hex digits; write what `sha256sum` prints; `size` changes the image, which is only \
             read here; set `access` to rw; `retain` changes the image",
        ),
        (
            &[("path", "/pool/a"), ("fsType", "squashfs"), ("access", "rw")],
            "`fsType` is squashfs, which is only read; set `access` to ro",
        ),
    ];
    assert_refused(&table);
}
