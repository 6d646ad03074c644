use std::time::{Duration, Instant};

use super::*;
use crate::config::Config;

fn resource(more: &str) -> Resource {
    let text = format!("resources: [{{name: example.com/x, devices: [{{count: 1}}]{more}}}]");
    Config::parse(&text).unwrap().resources.remove(0)
}

fn found(identity: &str) -> Found {
    Found { identity: identity.to_owned(), name: identity.to_owned(), ..Found::default() }
}

fn all(found: Vec<Found>) -> Looked {
    Looked { found, ..Looked::default() }
}

/// `+` healthy, `-` not, by the first letter of the ID.
fn list(inventory: &Inventory, resource: &Resource) -> String {
    let mut devices = inventory.list(resource).decoded().unwrap().devices;
    devices.sort_by(|a, b| a.id.cmp(&b.id));
    devices
        .iter()
        .map(|d| format!("{}{}", if d.health == "Healthy" { '+' } else { '-' }, d.id.chars().next().unwrap()))
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn a_device_that_is_gone_stays_listed_until_nobody_holds_it() {
    let (resource, mut inventory, now) = (resource(""), Inventory::default(), Instant::now());
    assert!(inventory.saw(&resource, all(vec![found("a"), found("b")]), now));
    assert!(!inventory.saw(&resource, all(vec![found("b"), found("a")]), now), "nothing changed");
    assert_eq!(list(&inventory, &resource), "+a +b");
    assert!(inventory.saw(&resource, all(vec![found("b")]), now));
    assert_eq!(list(&inventory, &resource), "-a +b");
    let later = now + Duration::from_secs(1);
    assert!(!inventory.saw(&resource, all(vec![found("b")]), later), "it stays as it is");
    assert!(
        !inventory.part(
            &resource,
            now.checked_sub(Duration::from_secs(1)).unwrap(),
            &Holding::Told(&BTreeSet::new())
        ),
        "too early"
    );
    assert!(
        !inventory.part(&resource, later, &Holding::Told(&BTreeSet::from([id("example.com/x", "a", 0)]))),
        "held"
    );
    assert!(inventory.part(&resource, later, &Holding::Told(&BTreeSet::new())));
    assert_eq!(list(&inventory, &resource), "+b");
    assert!(inventory.choose(&id("example.com/x", "a", 0)).is_none());
}

#[test]
fn a_device_that_comes_back_has_its_old_id() {
    let (resource, mut inventory, now) = (resource(""), Inventory::default(), Instant::now());
    inventory.saw(&resource, all(vec![found("a")]), now);
    let before = inventory.list(&resource);
    inventory.saw(&resource, all(vec![]), now);
    assert!(inventory.saw(&resource, all(vec![found("a")]), now));
    assert_eq!(inventory.list(&resource), before);
}

#[test]
fn checks_have_to_fail_and_to_hold_so_many_times() {
    let health = ", health: {checks: [{exists: /x}], failures: 2, successes: 3}";
    let (resource, mut inventory, now) = (resource(health), Inventory::default(), Instant::now());
    inventory.saw(&resource, all(vec![found("a")]), now);
    assert_eq!(list(&inventory, &resource), "-a", "not checked yet");
    // (what the check says, whether the list changes, the list)
    let story = [
        (true, true, "+a"),
        (false, false, "+a"),
        (true, false, "+a"),
        (false, false, "+a"),
        (false, true, "-a"),
        (true, false, "-a"),
        (true, false, "-a"),
        (false, false, "-a"),
        (true, false, "-a"),
        (true, false, "-a"),
        (true, true, "+a"),
    ];
    for (step, (holds, changes, expect)) in story.into_iter().enumerate() {
        let outcome = if holds { Ok(()) } else { Err("no".to_owned()) };
        assert_eq!(inventory.checked(&resource, "a", outcome), changes, "step {step}");
        assert_eq!(list(&inventory, &resource), expect, "step {step}");
    }
    assert!(!inventory.checked(&resource, "nobody", Ok(())));
}

#[test]
fn an_ailing_device_says_why() {
    let (resource, mut inventory, now) = (resource(""), Inventory::default(), Instant::now());
    let ailing = Found { ailing: Some("no carrier".to_owned()), ..found("a") };
    inventory.saw(&resource, all(vec![ailing]), now);
    let (_, entry) = inventory.entries().next().unwrap();
    assert_eq!((entry.state(), entry.why()), (State::Unhealthy, Some("no carrier")));
    assert!(inventory.saw(&resource, all(vec![found("a")]), now), "always recoverable");
    assert_eq!(list(&inventory, &resource), "+a");
}

#[test]
fn replicas_are_devices_of_their_own() {
    let (resource, mut inventory, now) = (resource(", replicas: 3"), Inventory::default(), Instant::now());
    inventory.saw(&resource, all(vec![found("a")]), now);
    let ids: Vec<String> =
        inventory.list(&resource).decoded().unwrap().devices.into_iter().map(|d| d.id).collect();
    assert_eq!(ids.len(), 3);
    for (n, id) in ids.iter().enumerate() {
        let (chosen, _) = inventory.choose(id).unwrap();
        assert_eq!((chosen.found.identity.as_str(), chosen.replica as usize), ("a", n));
    }
    assert!(inventory.choose(&format!("{}-3", ids[0])).is_none());
    assert_eq!(inventory.counts(&resource), (3, 0));
}

#[test]
fn what_nobody_could_look_at_is_not_gone() {
    let (resource, mut inventory, now) = (resource(""), Inventory::default(), Instant::now());
    inventory.saw(&resource, all(vec![found("a"), found("b")]), now);
    let failed = Looked { failed: Some("the command hangs".to_owned()), ..all(vec![found("b")]) };
    assert!(inventory.saw(&resource, failed, now));
    assert_eq!(list(&inventory, &resource), "-a +b");
    assert!(!inventory.has_gone());
    assert!(inventory.saw(&resource, all(vec![found("a"), found("b")]), now));
    assert_eq!(list(&inventory, &resource), "+a +b");
}

#[test]
fn replicas_that_are_too_many_stay_until_nobody_holds_them() {
    let (three, one, now) = (resource(", replicas: 3"), resource(""), Instant::now());
    let mut inventory = Inventory::default();
    inventory.saw(&three, all(vec![found("a")]), now);
    assert_eq!(list(&inventory, &one), "+a -a -a", "at once unhealthy");
    inventory.saw(&one, all(vec![found("a")]), now);
    assert_eq!(inventory.counts(&one), (1, 2));
    assert!(inventory.has_gone());
    assert!(
        !inventory.part(&one, now, &Holding::Told(&BTreeSet::from([id("example.com/x", "a", 2)]))),
        "held"
    );
    assert!(inventory.part(&one, now, &Holding::Told(&BTreeSet::new())));
    assert_eq!(list(&inventory, &one), "+a");
    assert!(inventory.saw(&three, all(vec![found("a")]), now));
    assert_eq!(list(&inventory, &three), "+a +a +a");
}

#[test]
fn no_list_is_longer_than_the_kubelet_takes() {
    let (resource, mut inventory, now) =
        (resource(", replicas: 10000"), Inventory::default(), Instant::now());
    let many = (0..20).map(|n| found(&format!("a{n:020}"))).collect();
    inventory.saw(&resource, all(many), now);
    let bytes = inventory.list(&resource).bytes();
    assert!(bytes <= proto::MESSAGE_LIMIT && bytes > proto::MESSAGE_LIMIT / 2, "{bytes}");
    assert!(inventory.left_out() > 0);
    let listed = inventory.entries().len();
    assert!(!inventory.saw(&resource, all((0..20).map(|n| found(&format!("a{n:020}"))).collect()), now));
    assert_eq!((inventory.entries().len(), inventory.left_out()), (listed, 20 - listed));
}

#[test]
fn what_a_pod_holds_is_listed_though_nobody_found_it() {
    let (resource, mut inventory, now) = (resource(""), Inventory::default(), Instant::now());
    let held = BTreeSet::from([id("example.com/x", "a", 0), id("example.com/x", "b", 0)]);
    inventory.saw(&resource, all(vec![found("b")]), now);
    assert!(inventory.remember(&held, now));
    assert!(!inventory.remember(&held, now), "it is listed already");
    assert_eq!(list(&inventory, &resource), "-a +b");
    assert_eq!((inventory.counts(&resource), inventory.has_gone()), ((1, 1), true));
    assert!(!inventory.part(&resource, now, &Holding::Told(&held)));
    assert!(inventory.saw(&resource, all(vec![found("a"), found("b")]), now), "it is found");
    assert_eq!(list(&inventory, &resource), "+a +b");
    assert!(!inventory.has_gone(), "nothing is astray");
}

#[test]
fn without_the_kubelets_word_nothing_leaves_that_a_pod_was_given() {
    let (resource, mut inventory, now) = (resource(""), Inventory::default(), Instant::now());
    inventory.saw(&resource, all(vec![found("a"), found("b")]), now);
    inventory.give(&[id("example.com/x", "a", 0)]);
    inventory.saw(&resource, all(vec![]), now);
    assert!(inventory.part(&resource, now, &Holding::Unknown));
    assert_eq!(list(&inventory, &resource), "-a");
}

#[test]
fn a_device_that_moves_to_another_numa_node_leaves_as_much_room_as_it_took() {
    let (resource, mut inventory, now) = (resource(""), Inventory::default(), Instant::now());
    let near = |node| all(vec![Found { numa: node, ..found("a") }]);
    inventory.saw(&resource, near(None), now);
    inventory.saw(&resource, near(Some(300)), now);
    inventory.saw(&resource, all(vec![]), now);
    assert!(inventory.part(&resource, now, &Holding::Told(&BTreeSet::new())));
    assert_eq!(inventory.weight, 0);
}
