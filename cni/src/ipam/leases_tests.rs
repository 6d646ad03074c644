use std::collections::HashSet;

use serde_json::json;

use std::time::Duration;

use super::*;
use crate::ipam::testing::{BOOT, LATER, Scratch, host_local, modified, no_pods, owner, touch};

fn pods() -> HostLocal {
    host_local(&json!({"subnet": "10.1.0.0/29"}))
}

/// ADD as the caller does it: choose, record, reserve.
fn add(scratch: &Scratch, facts: &Facts<'_>, config: &HostLocal, id: &str) -> Result<Vec<String>> {
    let mut leases = Leases::open(&scratch.folder(), facts)?;
    let choices = leases.choose(config, &[], &owner(id))?;
    let addresses: Vec<_> = choices.iter().map(|c| c.address.addr().to_string()).collect();
    scratch.record(facts.boot, &owner(id), &addresses.iter().map(String::as_str).collect::<Vec<_>>());
    for choice in &choices {
        leases.reserve(choice, &owner(id))?;
    }
    Ok(addresses)
}

/// DEL by the record.
fn del(scratch: &Scratch, facts: &Facts<'_>, id: &str) {
    let mut leases = Leases::open(&scratch.folder(), facts).unwrap();
    for address in scratch.attachments.find(&owner(id)).unwrap().unwrap().addresses {
        assert!(leases.release(address, &owner(id)).unwrap());
        assert!(!leases.release(address, &owner(id)).unwrap(), "a second release gives nothing back");
    }
    scratch.attachments.remove(&owner(id)).unwrap();
}

#[test]
fn a_lease_is_the_references_file_and_leaves_no_other() {
    let scratch = Scratch::new();
    let config = host_local(&json!({"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00::/64"}]]}));
    let mut leases = Leases::open(&scratch.folder(), &scratch.facts()).unwrap();
    let choices = leases.choose(&config, &[], &owner("c1")).unwrap();
    let shown: Vec<_> = choices.iter().map(|c| format!("{} {:?} {}", c.address, c.gateway, c.set)).collect();
    assert_eq!(shown, ["10.1.0.2/24 Some(10.1.0.1) 0", "fd00::2/64 Some(fd00::1) 1"]);
    for choice in &choices {
        leases.reserve(choice, &owner("c1")).unwrap();
    }
    let read = |name: &str| fs::read_to_string(scratch.folder().join(name)).unwrap();
    assert_eq!(read("10.1.0.2"), "c1\r\neth0");
    assert_eq!(read("fd00::2"), "c1\r\neth0");
    assert_eq!(
        (read("last_reserved_ip.0"), read("last_reserved_ip.1")),
        ("10.1.0.2".into(), "fd00::2".into())
    );
    let mut names = store::names(&scratch.folder()).unwrap();
    names.sort();
    let expect = [".nodeplug", "10.1.0.2", "fd00::2", "last_reserved_ip.0", "last_reserved_ip.1", "lock"];
    assert_eq!(names, expect);
    assert_eq!(leases.holder("fd00::2".parse().unwrap()).unwrap(), Some(owner("c1")));
    assert_eq!(leases.holder("fd00::3".parse().unwrap()).unwrap(), None);
    assert_eq!(leases.all().unwrap().len(), 2);
    assert!(!leases.release("fd00::2".parse().unwrap(), &owner("other")).unwrap());
    assert!(leases.release("fd00::2".parse().unwrap(), &owner("c1")).unwrap());
    assert_eq!(scratch.leased(), ["10.1.0.2"]);
}

#[test]
fn a_network_that_never_had_a_lease_stays_without_a_folder() {
    let scratch = Scratch::new();
    assert!(Leases::open_existing(&scratch.folder(), &scratch.facts()).unwrap().is_none());
    assert!(!scratch.folder().exists());
}

#[test]
fn a_wanted_address_is_given_or_the_answer_says_why_not() {
    let scratch = Scratch::new();
    let config = host_local(&json!({
        "ranges": [[{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.1", "rangeEnd": "10.1.0.99"}], [{"subnet": "fd00::/64"}]],
        "exclude": ["10.1.0.64/28"],
    }));
    let mut leases = Leases::open(&scratch.folder(), &scratch.facts()).unwrap();
    let wanted = |list: &[&str]| -> Vec<IpAddr> { list.iter().map(|a| a.parse().unwrap()).collect() };
    let asked = wanted(&["fd00::77", "::ffff:10.1.0.50", "10.1.0.50"]);
    let choices = leases.choose(&config, &asked, &owner("c1")).unwrap();
    let shown: Vec<_> = choices.iter().map(|c| c.address.to_string()).collect();
    assert_eq!(shown, ["10.1.0.50/24", "fd00::77/64"]);
    leases.reserve(&choices[0], &owner("c1")).unwrap();
    let table = [
        (&["10.1.0.1"][..], "c2", Kind::Config, "it is the gateway"),
        (&["10.1.0.65"], "c2", Kind::Config, "it is excluded"),
        (&["10.1.0.100"], "c2", Kind::Config, "`10.1.0.100` from the ranges `10.1.0.1-10.1.0.99 fd00::1-"),
        (&["10.1.0.7", "10.1.0.8"], "c2", Kind::Config, "wanted address `10.1.0.8`"),
        (&["10.1.0.50"], "c2", Kind::Conflict, "held by container `c1`, interface `eth0`"),
        (&["10.1.0.50"], "c1", Kind::Conflict, "held by this very attachment"),
    ];
    for (list, id, kind, text) in table {
        let error = leases.choose(&config, &wanted(list), &owner(id)).unwrap_err();
        assert_eq!(error.kind(), kind, "{list:?}");
        assert!(error.chain().contains(text), "{list:?}: {}", error.chain());
        assert!(error.advice().is_some());
    }
    // The same choice again, as a program that keeps no lock would have it.
    let error = leases.reserve(&choices[0], &owner("c2")).unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
    assert_eq!(leases.holder("10.1.0.50".parse().unwrap()).unwrap(), Some(owner("c1")));
}

#[test]
fn a_full_range_says_so_and_recovers_with_the_address_that_rested_longest() {
    let scratch = Scratch::new();
    let config = pods();
    for (id, expect) in ["a", "b", "c", "d", "e"].iter().zip(2..) {
        assert_eq!(add(&scratch, &scratch.facts(), &config, id).unwrap(), [format!("10.1.0.{expect}")]);
    }
    let error = add(&scratch, &scratch.facts(), &config, "f").unwrap_err();
    assert_eq!(error.kind(), Kind::TryAgain);
    let expect = "take a free address from `10.1.0.1-10.1.0.6`: 5 of 5 are leased, 0 are cooling";
    assert_eq!(error.chain(), expect);
    assert!(error.advice().unwrap().contains("nodeplug-cni ipam check"));
    {
        let leases = Leases::open(&scratch.folder(), &scratch.facts()).unwrap();
        assert!(!leases.has_room(&config).unwrap());
        assert_eq!(leases.room(&config).unwrap(), [Room { usable: 5, leased: 5, cooling: 0 }]);
    }
    del(&scratch, &scratch.facts_at(BOOT, 1001), "d");
    del(&scratch, &scratch.facts_at(BOOT, 1002), "b");
    {
        let leases = Leases::open(&scratch.folder(), &scratch.facts_at(BOOT, 1003)).unwrap();
        assert_eq!(leases.room(&config).unwrap(), [Room { usable: 5, leased: 3, cooling: 2 }]);
        assert!(leases.has_room(&config).unwrap());
    }
    assert_eq!(add(&scratch, &scratch.facts_at(BOOT, 1003), &config, "g").unwrap(), ["10.1.0.5"]);
    assert_eq!(add(&scratch, &scratch.facts_at(BOOT, 1003), &config, "h").unwrap(), ["10.1.0.3"]);
}

#[test]
fn a_freed_address_rests_while_there_are_others() {
    let scratch = Scratch::new();
    let config = host_local(
        &json!({"ranges": [[{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.2", "rangeEnd": "10.1.0.4"}]]}),
    );
    add(&scratch, &scratch.facts(), &config, "a").unwrap();
    del(&scratch, &scratch.facts(), "a");
    let table = [
        // (second, expect): .2 is resting from second 1000 to 1030.
        (1001, "10.1.0.3"),
        (1002, "10.1.0.4"),
        (1030, "10.1.0.3"),
        (1031, "10.1.0.4"),
        (1032, "10.1.0.2"),
    ];
    for (second, expect) in table {
        // Without a rest of their own, so that only the first one's counts.
        let mut facts = scratch.facts_at(BOOT, second);
        assert_eq!(add(&scratch, &facts, &config, "x").unwrap(), [expect], "{second}");
        facts.cooldown = Duration::ZERO;
        del(&scratch, &facts, "x");
    }
    // A clock that was set back: a mark of the future does not count.
    del_with_mark_at(&scratch, &config, 5000);
    assert!(scratch.folder().join(".nodeplug/cooling/10.1.0.3").exists());
    fs::write(scratch.folder().join("last_reserved_ip.0"), "10.1.0.2").unwrap();
    assert_eq!(add(&scratch, &scratch.facts_at(BOOT, 1040), &config, "y").unwrap(), ["10.1.0.3"]);
}

fn del_with_mark_at(scratch: &Scratch, config: &HostLocal, second: u64) {
    add(scratch, &scratch.facts_at(BOOT, 1033), config, "z").unwrap();
    del(scratch, &scratch.facts_at(BOOT, second), "z");
}

#[test]
fn what_a_crash_leaves_is_put_right_at_the_next_call() {
    let scratch = Scratch::new();
    let config = pods();
    add(&scratch, &scratch.facts(), &config, "live").unwrap();
    // The reference, killed between create and write; and what a power loss makes of a file.
    scratch.lease("10.1.0.3", b"");
    scratch.lease("10.1.0.4", b"\0\0\0\0");
    scratch.lease("10.1.0.5", b"../../etc/passwd\r\neth0");
    // We, killed between link and unlink: a second name of the live lease.
    let ours = scratch.folder().join(".nodeplug");
    fs::hard_link(scratch.folder().join("10.1.0.2"), ours.join("lease.new")).unwrap();
    assert_eq!(add(&scratch, &scratch.facts(), &config, "next").unwrap(), ["10.1.0.3"]);
    assert_eq!(scratch.leased(), ["10.1.0.2", "10.1.0.3"]);
    assert_eq!(fs::read(scratch.folder().join("10.1.0.2")).unwrap(), b"live\r\neth0");
    let mut names = store::names(&ours).unwrap();
    names.sort();
    assert_eq!(names, ["cooling", "state"]);
    // The same second name in a folder that nobody else changed: no scan comes before the next write.
    fs::hard_link(scratch.folder().join("10.1.0.3"), ours.join("lease.new")).unwrap();
    assert_eq!(add(&scratch, &scratch.facts(), &config, "third").unwrap(), ["10.1.0.4"]);
    assert_eq!(fs::read(scratch.folder().join("10.1.0.3")).unwrap(), b"next\r\neth0");
}

#[test]
fn leases_of_an_earlier_boot_are_dropped_with_their_records() {
    let scratch = Scratch::new();
    let config = host_local(&json!({"ranges": [[{"subnet": "10.1.0.0/29"}], [{"subnet": "fd00::/64"}]]}));
    add(&scratch, &scratch.facts(), &config, "old").unwrap();
    add(&scratch, &scratch.facts(), &config, "gone").unwrap();
    del_leases_only(&scratch, "gone");
    scratch.lease("10.1.0.6", b"foreign\r\neth0");
    // Another plugin's pods are up: what it left is not ours to drop.
    let leases = Leases::open(&scratch.folder(), &scratch.facts_at(LATER, 2000)).unwrap();
    assert_eq!(scratch.leased(), ["10.1.0.6"]);
    assert!(leases.may_hold_foreign());
    assert!(!scratch.attachments.has(&owner("old")));
    assert!(!scratch.attachments.has(&owner("gone")), "a record whose leases are gone goes too");
    assert_eq!(store::names(&scratch.folder().join(".nodeplug/cooling")).unwrap(), [""; 0]);
    drop(leases);
    // No pod can be alive: the range is whole again.
    let facts = Facts { pods_on_node: &no_pods, ..scratch.facts_at("third-boot", 3000) };
    let leases = Leases::open(&scratch.folder(), &facts).unwrap();
    assert!(!leases.may_hold_foreign());
    assert_eq!(scratch.leased(), [""; 0]);
}

fn del_leases_only(scratch: &Scratch, id: &str) {
    let mut leases = Leases::open(&scratch.folder(), &scratch.facts()).unwrap();
    for address in scratch.attachments.find(&owner(id)).unwrap().unwrap().addresses {
        assert!(leases.release(address, &owner(id)).unwrap());
    }
}

#[test]
fn a_record_of_addresses_alone_counts_as_one_and_goes_with_its_last_lease() {
    let scratch = Scratch::new();
    let record = |id: &str, addresses: &[&str]| {
        scratch.record(BOOT, &owner(id), addresses);
        let record = scratch.attachments.find(&owner(id)).unwrap().unwrap();
        scratch.attachments.remove(&owner(id)).unwrap();
        scratch.lessees.others.create(&record).unwrap();
    };
    record("lives", &["10.1.0.2", "10.1.0.3"]);
    record("died", &["10.1.0.4"]);
    scratch.lease("10.1.0.3", b"lives\r\neth0");
    let leases = Leases::open(&scratch.folder(), &scratch.facts()).unwrap();
    assert!(!leases.may_hold_foreign(), "a record leads to it");
    assert_eq!(leases.held_by(&owner("lives")).unwrap(), ["10.1.0.3".parse::<IpAddr>().unwrap()]);
    assert!(scratch.lessees.others.has(&owner("lives")) && !scratch.lessees.others.has(&owner("died")));
    drop(leases);
    let leases = Leases::open(&scratch.folder(), &scratch.facts_at(LATER, 2000)).unwrap();
    assert_eq!(leases.held_by(&owner("lives")).unwrap(), [] as [IpAddr; 0]);
    assert!(!scratch.lessees.has(&owner("lives")), "it was of an earlier boot");
}

#[test]
fn in_the_same_boot_a_foreign_lease_is_kept_whatever_links_there_are() {
    let scratch = Scratch::new();
    add(&scratch, &scratch.facts(), &pods(), "ours").unwrap();
    scratch.lease("10.1.0.6", b"foreign\r\neth0");
    let facts = Facts { pods_on_node: &no_pods, ..scratch.facts() };
    let leases = Leases::open(&scratch.folder(), &facts).unwrap();
    assert!(leases.may_hold_foreign());
    assert_eq!(scratch.leased(), ["10.1.0.2", "10.1.0.6"]);
}

#[test]
fn foreign_leases_are_found_by_reading_and_counted_down() {
    let scratch = Scratch::new();
    add(&scratch, &scratch.facts(), &pods(), "ours").unwrap();
    scratch.lease("10.1.0.3", b"f1\r\neth0");
    scratch.lease("10.1.0.4", b"f1\r\nnet1");
    // An old host-local wrote the id alone.
    scratch.lease("10.1.0.5", b"f2");
    scratch.lease("10.1.0.6", b"f2\r\nnet1");
    let open = || Leases::open(&scratch.folder(), &scratch.facts()).unwrap();
    let release = |id: &str| {
        let found = open().release_by_scan(&owner(id)).unwrap();
        found.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert!(open().may_hold_foreign());
    assert_eq!(release("never-seen"), [""; 0]);
    assert_eq!(release("f1"), ["10.1.0.3"]);
    assert_eq!(release("f2"), ["10.1.0.5"]);
    assert!(open().may_hold_foreign());
    let other = |id: &str| Owner { container_id: id.into(), ifname: "net1".into() };
    open().release_by_scan(&other("f1")).unwrap();
    open().release_by_scan(&other("f2")).unwrap();
    assert!(!open().may_hold_foreign());
    assert_eq!(scratch.leased(), ["10.1.0.2"]);
}

#[test]
fn a_sealed_folder_is_not_read_again_and_any_change_breaks_the_seal() {
    let scratch = Scratch::new();
    add(&scratch, &scratch.facts(), &pods(), "ours").unwrap();
    let sealed = modified(&scratch.folder());
    add(&scratch, &scratch.facts_at(BOOT, 1500), &pods(), "more").unwrap();
    assert_eq!(modified(&scratch.folder()), sealed, "our own changes keep the seal");
    // Were the folder read, this lease would count as foreign.
    scratch.lease("10.1.0.6", b"foreign\r\neth0");
    assert_ne!(modified(&scratch.folder()), sealed);
    touch(&scratch.folder(), 996);
    let foreign = || Leases::open(&scratch.folder(), &scratch.facts()).unwrap().may_hold_foreign();
    assert!(!foreign());
    touch(&scratch.folder(), 998);
    assert!(foreign());
    // A torn state is no state.
    let state = scratch.folder().join(".nodeplug/state");
    let whole = fs::read_to_string(&state).unwrap();
    assert_eq!(whole, format!("1 {BOOT} 996 1\n"));
    fs::remove_file(scratch.folder().join("10.1.0.6")).unwrap();
    for torn in ["", "1", whole.trim_end(), "2 x 996 1\n", "1 x 996 1 1\n"] {
        fs::write(&state, torn).unwrap();
        assert!(!foreign(), "{torn}");
    }
}

#[test]
fn the_one_free_address_of_a_crowded_range_is_found() {
    let scratch = Scratch::new();
    let config = host_local(&json!({"subnet": "10.1.0.0/22"}));
    for n in 2..1023 {
        let address = format!("10.1.{}.{}", n / 256, n % 256);
        if n != 700 {
            scratch.lease(&address, format!("c{n}\r\neth0").as_bytes());
        }
    }
    fs::write(scratch.folder().join("last_reserved_ip.0"), "10.1.2.200").unwrap();
    let facts = scratch.facts();
    let leases = Leases::open(&scratch.folder(), &facts).unwrap();
    let choices = leases.choose(&config, &[], &owner("x")).unwrap();
    assert_eq!(choices[0].address.to_string(), "10.1.2.188/22");
    assert_eq!(leases.room(&config).unwrap(), [Room { usable: 1021, leased: 1020, cooling: 0 }]);
}

#[test]
fn sixty_four_at_once_never_share_an_address() {
    let scratch = Scratch::new();
    let config = host_local(&json!({"subnet": "10.1.0.0/25"}));
    let addresses: Vec<_> = std::thread::scope(|scope| {
        let one = |n: usize| add(&scratch, &scratch.facts(), &config, &format!("c{n}")).unwrap();
        let all: Vec<_> = (0..64).map(|n| scope.spawn(move || one(n))).collect();
        all.into_iter().flat_map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(addresses.iter().collect::<HashSet<_>>().len(), 64);
    assert_eq!(scratch.leased().len(), 64);
}

mod with_the_reference {
    use super::*;
    use std::process::{Command, Stdio};

    const REFERENCE: &str = "/usr/lib/cni/host-local";

    /// Whether the reference is here; a test without it says so, and fails where everything must run.
    fn missing() -> bool {
        if Path::new(REFERENCE).exists() {
            return false;
        }
        let why = format!("skipped: `{REFERENCE}` is not here (install containernetworking-plugins)");
        assert!(std::env::var_os("CI").is_none_or(|v| v != "true"), "{why}");
        println!("{why}");
        true
    }

    fn reference(scratch: &Scratch, verb: &str, id: &str) -> std::result::Result<String, String> {
        let config = json!({
            "cniVersion": "1.0.0", "name": "pods", "type": "x",
            "ipam": {"type": "host-local", "dataDir": scratch.root.join("networks"), "subnet": "10.1.0.0/24"},
        });
        let mut child = Command::new(REFERENCE)
            .envs([("CNI_COMMAND", verb), ("CNI_CONTAINERID", id), ("CNI_IFNAME", "eth0")])
            .envs([("CNI_NETNS", "/proc/self/ns/net"), ("CNI_PATH", "/usr/lib/cni")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(config.to_string().as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        if !output.status.success() {
            return Err(text);
        }
        let value: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        Ok(value["ips"][0]["address"].as_str().unwrap_or_default().to_owned())
    }

    fn config() -> HostLocal {
        host_local(&json!({"subnet": "10.1.0.0/24"}))
    }

    #[test]
    fn each_program_reads_goes_on_after_and_releases_the_others_leases() {
        if missing() {
            return;
        }
        let scratch = Scratch::new();
        assert_eq!(reference(&scratch, "ADD", "r1").unwrap(), "10.1.0.2/24");
        assert_eq!(add(&scratch, &scratch.facts(), &config(), "n1").unwrap(), ["10.1.0.3"]);
        assert_eq!(reference(&scratch, "ADD", "r2").unwrap(), "10.1.0.4/24");
        assert_eq!(add(&scratch, &scratch.facts(), &config(), "n2").unwrap(), ["10.1.0.5"]);
        assert!(reference(&scratch, "ADD", "n2").unwrap_err().contains("duplicate allocation"));
        reference(&scratch, "CHECK", "n1").unwrap();
        let held: Vec<_> = {
            let leases = Leases::open(&scratch.folder(), &scratch.facts()).unwrap();
            assert!(leases.may_hold_foreign());
            leases.all().unwrap().into_iter().filter_map(|l| Some(l.owner?.container_id)).collect()
        };
        assert_eq!(held, ["r1", "n1", "r2", "n2"]);
        // Ours ends the reference's pod, the reference ends ours.
        let mut leases = Leases::open(&scratch.folder(), &scratch.facts()).unwrap();
        assert_eq!(leases.release_by_scan(&owner("r1")).unwrap(), ["10.1.0.2".parse::<IpAddr>().unwrap()]);
        drop(leases);
        reference(&scratch, "DEL", "n1").unwrap();
        assert_eq!(scratch.leased(), ["10.1.0.4", "10.1.0.5"]);
        assert!(reference(&scratch, "CHECK", "n1").is_err());
        // The last of the reference's goes by itself: nothing foreign is left, and ours still stands.
        reference(&scratch, "DEL", "r2").unwrap();
        let leases = Leases::open(&scratch.folder(), &scratch.facts()).unwrap();
        assert!(!leases.may_hold_foreign());
        assert_eq!(scratch.leased(), ["10.1.0.5"]);
        // What rests with us is invisible to the reference, and it finds no owner in our files.
        drop(leases);
        del(&scratch, &scratch.facts(), "n2");
        assert!(reference(&scratch, "CHECK", "n2").is_err());
        assert_eq!(reference(&scratch, "ADD", "r3").unwrap(), "10.1.0.6/24");
    }

    #[test]
    fn both_at_once_never_share_an_address() {
        if missing() {
            return;
        }
        let scratch = Scratch::new();
        let (scratch, config) = (&scratch, &config());
        let mut all: Vec<String> = std::thread::scope(|scope| {
            let each = (0..24).map(|n| {
                scope.spawn(move || match n % 2 {
                    0 => add(scratch, &scratch.facts(), config, &format!("n{n}")).unwrap().remove(0),
                    _ => reference(scratch, "ADD", &format!("r{n}")).unwrap().replace("/24", ""),
                })
            });
            each.collect::<Vec<_>>().into_iter().map(|t| t.join().unwrap()).collect()
        });
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 24);
        assert_eq!(scratch.leased().len(), 24);
        // Two range files would differ in order; the folder is up to date for us whoever came last.
        let leases = Leases::open(&scratch.folder(), &scratch.facts()).unwrap();
        assert!(leases.may_hold_foreign());
    }
}
