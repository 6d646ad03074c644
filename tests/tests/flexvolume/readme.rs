//! flexvolume/README.md does what it says: its policy is valid, its defaults are the defaults, its tables have
//! every option and no other, and every volume in it and in README.md is mounted, used and unmounted.

mod examples;
mod page;

use std::collections::BTreeSet;
use std::fs;

use harness::call::{Answer, try_tool};
use harness::kubelet::{Kubelet, Outcome};
use harness::suite::volume;
use harness::volume_node::VolumeNode;
use libtest_mimic::Trial;

use super::ours::program;
use examples::{Example, examples, prepare};
use page::{block_with, front_page, page, section, table};

const TOOLS: &[&str] = &["bindfs", "mkfs.ext4", "mkfs.xfs", "mksquashfs", "sshfs"];

pub fn trials() -> Vec<Trial> {
    vec![
        volume("the_policy_of_the_readme_is_valid_and_explained_there", &[], the_policy_is_valid),
        volume("what_the_readme_calls_a_default_is_one", &[], defaults_are_defaults),
        volume("the_tables_of_the_readme_have_every_option_and_no_other", TOOLS, options_are_complete),
        volume("every_volume_of_the_readme_is_mounted", TOOLS, volumes_are_mounted),
    ]
}

/// What `validate` says of this text.
fn validate(text: &str) -> Answer {
    let path = "/var/lib/harness/flexvolume.yaml";
    fs::write(path, text).unwrap();
    try_tool(&[program("volume").to_str().unwrap(), "validate", path])
}

fn the_policy_is_valid(_: &VolumeNode) {
    let page = page();
    let said = validate(&block_with(&page, "\nbackends:"));
    assert!(said.ok(), "{said:?}");
    assert!(page.contains(&said.stdout), "the page does not show what `validate` says:\n{}", said.stdout);
}

fn defaults_are_defaults(_: &VolumeNode) {
    let policy = block_with(&page(), "\nbackends:");
    let needed: Vec<&str> = policy.lines().filter(|line| !line.trim_end().ends_with("# default")).collect();
    assert!(policy.lines().count() - needed.len() > 20, "few lines of the policy are marked `# default`");
    assert_eq!(validate(&policy).stdout, validate(&needed.join("\n")).stdout);
}

/// A volume with a key that nobody knows is refused with all that are known.
fn options_are_complete(node: &VolumeNode) {
    prepare(node);
    let kubelet = node.kubelet();
    let common = table(&section(&page(), "Options of every volume"));
    for (title, backend) in [
        ("tmpfs", "tmpfs"),
        ("bind: a folder of the node", "bind"),
        ("Images that are read", "image"),
        ("block", "block"),
        ("overlay", "overlay"),
        ("nfs", "nfs"),
        ("cifs", "cifs"),
        ("fuse", "fuse"),
    ] {
        let known = known_options(&kubelet, backend);
        let mut told = common.clone();
        told.extend(table(&section(&page(), title)));
        // The profile's own.
        let known: BTreeSet<_> = known.into_iter().filter(|key| key != "port" || backend == "nfs").collect();
        let both = ["mode", "uid", "gid"].map(str::to_owned);
        let untold: Vec<_> = known.difference(&told).filter(|key| !both.contains(key)).collect();
        assert!(untold.is_empty(), "the page does not tell of {untold:?} of {backend}");
        let unknown: Vec<_> = told.difference(&known).collect();
        assert!(unknown.is_empty(), "the page tells of {unknown:?}, which {backend} does not know");
    }
}

fn known_options(kubelet: &Kubelet, backend: &str) -> BTreeSet<String> {
    let driver = format!("nodeplug/{backend}");
    let all = examples(kubelet, &page());
    let example = all.into_iter().find(|e| e.volume.driver() == driver);
    let volume = example.expect("an example of each backend").volume.option("qqqqqqqqqqqqqqqqq", "1");
    let outcome = kubelet.set_up(&volume);
    let why = outcome.refused();
    let list = why.split("known are ").nth(1).unwrap_or_else(|| panic!("no list: {why}"));
    let end = list.find([';', '`']).unwrap_or(list.len());
    list[..end].split(", ").map(|key| key.trim().to_owned()).collect()
}

fn volumes_are_mounted(node: &VolumeNode) {
    prepare(node);
    let kubelet = node.kubelet();
    let all = examples(&kubelet, &page());
    assert!(all.len() >= 16, "two examples of each of the eight backends, and not {}", all.len());
    let first = examples(&kubelet, &front_page());
    assert_eq!(first.len(), 1, "README.md has one worked volume");
    for example in all.iter().chain(&first) {
        use_it(node, &kubelet, example);
    }
}

fn use_it(node: &VolumeNode, kubelet: &Kubelet, Example { volume, read_only, grows }: &Example) {
    let name = format!("`{}` of {}", volume.name(), volume.driver());
    assert_eq!(kubelet.set_up(volume), Outcome::Mounted, "{name}");
    let container = kubelet.container(&[volume]);
    let inside = format!("/mnt/{}", volume.name());
    assert!(container.run(&format!("ls {inside}")).ok(), "{name}");
    let written = container.run(&format!("echo x > {inside}/written"));
    assert_eq!(written.ok(), !read_only, "{name}: {written:?}");
    if *grows {
        assert_eq!(kubelet.expand(volume, 2 << 30, 1 << 30), Outcome::Expanded, "{name}");
        let size: u64 =
            container.says(&format!("df --output=size -B1 {inside} | tail -1")).trim().parse().unwrap();
        assert!(size > 3 << 29, "{name} has {size} bytes");
    }
    container.stop();
    kubelet.tear_down(volume).unmounted();
    node.assert_nothing_left(&name);
}
