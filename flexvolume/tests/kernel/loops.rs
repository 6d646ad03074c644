//! Loop devices.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};

use flexvolume::kernel::loop_device::{Loop, Wish, attach, backing, over};
use flexvolume::kernel::mount;
use libtest_mimic::Trial;
use rustix::fs::{SeekFrom, seek};

use crate::scratch::{Scratch, eventually, test};

pub fn trials() -> Vec<Trial> {
    vec![
        test("a_loop_device_ends_with_its_last_user", autoclear),
        test("a_second_loop_on_one_file_is_seen_by_any_name", second),
        test("a_read_only_loop_writes_nothing", read_only),
        test("direct_io_is_used_where_it_can_be", direct),
        test("a_loop_device_takes_over_a_new_size", capacity),
        test("many_at_once_get_a_device_each", many),
    ]
}

/// Waits for the file's devices to be gone.
pub fn gone(image: &File) {
    eventually("no loop device is left", || over(image).unwrap().is_empty());
}

fn autoclear(s: &Scratch) {
    let image = s.formatted("image", 16 << 20, &["mkfs.ext4", "-q", "-F"]);
    let device = attach(&image, Wish::default()).unwrap();
    assert_eq!(over(&image).unwrap(), [device.number()]);
    let tree = mount::make("ext4", device.path().to_str(), &[], false).unwrap();
    let number = device.number();
    drop(device);
    // A tree that is nowhere keeps it, and is all that does.
    assert_eq!(over(&image).unwrap(), [number]);
    drop(tree);
    gone(&image);
    let device = attach(&image, Wish::default()).unwrap();
    drop(device);
    gone(&image);
}

fn second(s: &Scratch) {
    let image = s.image("image", 1 << 20);
    fs::hard_link(s.path("image"), s.path("other")).unwrap();
    let other = File::open(s.path("other")).unwrap();
    let stranger = s.image("stranger", 1 << 20);
    assert!(over(&image).unwrap().is_empty());
    let first = attach(&image, Wish::default()).unwrap();
    let second = attach(&other, Wish { read_only: true, ..Wish::default() }).unwrap();
    let mut both = [first.number(), second.number()];
    both.sort_unstable();
    assert_eq!(over(&image).unwrap(), both);
    assert_eq!(over(&other).unwrap(), both);
    assert!(over(&stranger).unwrap().is_empty());
    let status = image.metadata().unwrap();
    assert_eq!(backing(first.number()).unwrap(), Some((status.dev(), status.ino())));
    // Its name is nothing to the device.
    fs::remove_file(s.path("image")).unwrap();
    assert_eq!(over(&image).unwrap(), both);
    drop((first, second));
    gone(&image);
}

fn read_only(s: &Scratch) {
    let image = s.image("image", 1 << 20);
    let device = attach(&image, Wish { read_only: true, ..Wish::default() }).unwrap();
    let writer = OpenOptions::new().write(true).open(device.path());
    assert!(writer.and_then(|device| device.write_all_at(b"x", 0)).is_err());
    drop(device);
    // So is one over a file that is open to read alone, whatever is wished.
    let image = File::open(s.path("image")).unwrap();
    let device = attach(&image, Wish::default()).unwrap();
    let read_only = format!("/sys/block/loop{}/ro", device.number());
    assert_eq!(fs::read_to_string(read_only).unwrap(), "1\n");
    drop(device);
    gone(&image);
}

fn direct(s: &Scratch) {
    let image = s.image("image", 1 << 20);
    let device = attach(&image, Wish { direct_io: true, ..Wish::default() }).unwrap();
    let writer = OpenOptions::new().write(true).open(device.path()).unwrap();
    writer.write_all_at(&[7; 4096], 0).unwrap();
    writer.sync_all().unwrap();
    drop(writer);
    let mut seen = [0; 4096];
    (&image).read_exact(&mut seen).unwrap();
    assert_eq!(seen, [7; 4096]);
    drop(device);
    gone(&image);
}

fn capacity(s: &Scratch) {
    let mut image = s.image("image", 1 << 20);
    let device = attach(&image, Wish::default()).unwrap();
    let size = |device: &Loop| seek(device.file(), SeekFrom::End(0)).unwrap();
    assert_eq!(size(&device), 1 << 20);
    image.set_len(3 << 20).unwrap();
    image.write_all(b"x").unwrap();
    let again = Loop::open(device.number()).unwrap();
    again.set_capacity().unwrap();
    assert_eq!(size(&device), 3 << 20);
    drop((device, again));
    gone(&image);
}

fn many(s: &Scratch) {
    let images: Vec<_> = (0..24).map(|n| s.image(&n.to_string(), 1 << 20)).collect();
    let mut numbers: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            images.iter().map(|image| scope.spawn(|| attach(image, Wish::default()).unwrap())).collect();
        let devices: Vec<_> = threads.into_iter().map(|t| t.join().unwrap()).collect();
        for (image, device) in images.iter().zip(&devices) {
            assert_eq!(over(image).unwrap(), [device.number()]);
        }
        devices.iter().map(Loop::number).collect()
    });
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), images.len());
    images.iter().for_each(gone);
}
