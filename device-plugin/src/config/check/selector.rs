//! Mistakes in where devices come from.

use std::path::Path;

use super::Mistakes;
use crate::allocate::template;
use crate::config::{
    BlockSelector, CharSelector, Glob, GroupSelector, Measure, Member, NetSelector, ParentMatch,
    PathSelector, Pattern, PciSelector, Resource, Selector, SensorSelector, UsbSelector,
};
use crate::inventory::counted_weight;

/// The largest numbers of a device (makedev(3), as the kernel has them).
const LARGEST_MAJOR: u32 = 0xfff;
const LARGEST_MINOR: u32 = 0xf_ffff;
/// Above this many devices, starting a pod takes the kubelet milliseconds.
const MANY: u64 = 1000;

/// What works and is hardly meant. What a file, a command or a sensor says is known when it is asked.
pub(super) fn oddities(resource: &Resource) -> Option<String> {
    let counts = resource
        .devices
        .iter()
        .map(|selector| if let Selector::Count(count) = selector { count.0 } else { 0 });
    let count = counts.map(u64::from).sum::<u64>() * u64::from(resource.replicas);
    (count > MANY).then(|| {
        format!(
            "`{}`: it has {count} devices; the kubelet takes their whole list at each change, and a millisecond for each \
             thousand to start a pod",
            resource.name
        )
    })
}

/// How many devices counted sources may give the resource, replicas included, and the bytes of their list.
fn counted(resource: &Resource) -> (u64, u64) {
    let counts = resource.devices.iter().filter_map(|selector| match selector {
        Selector::Count(count) => Some(count.0),
        Selector::File(file) => Some(file.max),
        Selector::Command(command) => Some(command.max),
        Selector::Sensor(sensor) => Some(sensor.max),
        _ => None,
    });
    counts.map(u64::from).fold((0, 0), |(count, bytes), more| {
        let replicas = u64::from(resource.replicas);
        (count + more * replicas, bytes.saturating_add(counted_weight(more, resource.replicas)))
    })
}

impl Mistakes {
    pub(super) fn selectors(&mut self, resource: &Resource) {
        if resource.devices.is_empty() {
            self.note(
                "devices",
                "is empty; say where the devices come from, such as `- path: {glob: [/dev/kvm]}`",
            );
        }
        for (index, selector) in resource.devices.iter().enumerate() {
            self.selector(&format!("devices[{index}]"), selector);
        }
        self.counts(resource);
    }

    /// Counted devices are numbered, so that two lists of them would be one; and their list has a largest size.
    fn counts(&mut self, resource: &Resource) {
        let kinds = [
            ("count", resource.devices.iter().filter(|s| matches!(s, Selector::Count(_))).count()),
            ("file", resource.devices.iter().filter(|s| matches!(s, Selector::File(_))).count()),
            ("command", resource.devices.iter().filter(|s| matches!(s, Selector::Command(_))).count()),
            ("sensor", resource.devices.iter().filter(|s| matches!(s, Selector::Sensor(_))).count()),
        ];
        for (kind, times) in kinds.into_iter().filter(|(_, times)| *times > 1) {
            let what =
                format!("has `{kind}` {times} times; their devices would be the same, so make one of them");
            self.note("devices", what);
        }
        let (count, bytes) = counted(resource);
        let most = u64::try_from(proto::MESSAGE_LIMIT).unwrap_or(u64::MAX);
        if bytes > most {
            self.note(
                "devices",
                format!(
                    "may be {count}, replicas included: a list of {bytes} bytes, and the kubelet takes at most {most}; \
                     lower `count`, `max` or `replicas`"
                ),
            );
        }
    }

    fn selector(&mut self, at: &str, selector: &Selector) {
        match selector {
            Selector::Path(path) => self.path_selector(&format!("{at}.path"), path),
            Selector::Usb(usb) => self.usb(&format!("{at}.usb"), usb),
            Selector::Pci(pci) => self.pci(&format!("{at}.pci"), pci),
            Selector::Sysfs(sysfs) => {
                let at = format!("{at}.sysfs");
                self.subsystem(&format!("{at}.subsystem"), &sysfs.subsystem);
                self.attributes(&at, sysfs.attributes.keys());
                self.parents(&at, &sysfs.parents);
            }
            Selector::Net(net) => self.net(&format!("{at}.net"), net),
            Selector::Block(block) => self.block(&format!("{at}.block"), block),
            Selector::Char(char) => self.char(&format!("{at}.char"), char),
            Selector::Group(group) => self.group(&format!("{at}.group"), group),
            Selector::Count(_) => {}
            Selector::File(file) => {
                self.path(&format!("{at}.file.path"), &file.path);
                self.some(&format!("{at}.file.max"), file.max);
            }
            Selector::Command(command) => {
                let at = format!("{at}.command");
                self.command(&at, &command.run, command.timeout, &[]);
                self.at_least_a_second(&format!("{at}.every"), command.every);
                self.some(&format!("{at}.max"), command.max);
            }
            Selector::Sensor(sensor) => self.measured(&format!("{at}.sensor"), sensor),
        }
    }

    fn some(&mut self, at: &str, count: u32) {
        if count == 0 {
            self.note(at, "is 0; write at least 1");
        }
    }

    fn nothing_said(&mut self, at: &str, advice: &str) {
        self.note(at, format!("says nothing, so that everything would match; {advice}"));
    }

    fn path_selector(&mut self, at: &str, path: &PathSelector) {
        if path.glob.is_empty() && path.regex.is_none() {
            self.nothing_said(at, "write `glob: [/dev/ttyUSB*]` or `regex`");
        }
        self.globs(&format!("{at}.glob"), path.glob.iter());
        // One that begins anywhere is fine where nothing is looked for by it.
        let fixed = path.exclude.iter().filter(|glob| !glob.as_str().starts_with('*'));
        self.globs(&format!("{at}.exclude"), fixed);
        match &path.below {
            Some(_) if path.regex.is_none() => {
                self.note(&format!("{at}.below"), "is where `regex` looks, and there is none; leave it out");
            }
            Some(below) => self.path(&format!("{at}.below"), below),
            None => {}
        }
        if let Some(text) = path.regex.as_ref().and_then(Pattern::relative) {
            let name = text.strip_prefix('^').unwrap_or(text);
            let below = path.below.as_deref().unwrap_or(Path::new("/dev")).join(name);
            let what =
                format!("matches no path: `{text}` has to match the whole; write `{}`", below.display());
            self.note(&format!("{at}.regex"), what);
        }
        let literal = path.regex.is_none() && path.glob.iter().all(literal);
        if path.expected && !literal {
            self.note(
                &format!("{at}.expected"),
                "is for paths without `*`: nobody knows which others to expect",
            );
        }
    }

    fn globs<'g>(&mut self, at: &str, globs: impl Iterator<Item = &'g Glob>) {
        for (index, glob) in globs.enumerate() {
            self.glob(&format!("{at}[{index}]"), glob);
        }
    }

    fn glob(&mut self, at: &str, glob: &Glob) {
        if let Err(why) = template::absolute(glob.as_str().to_owned()) {
            self.note(at, format!("matches no path: {why}"));
        }
    }

    fn usb(&mut self, at: &str, usb: &UsbSelector) {
        let words = [&usb.serial, &usb.port].iter().any(|glob| glob.is_some());
        if usb.vendor.is_none() && usb.product.is_none() && usb.interface_class.is_none() && !words {
            self.nothing_said(at, "write `vendor` and `product` as `lsusb` prints them, or `interfaceClass`");
        }
        if usb.product.is_some() && usb.vendor.is_none() {
            self.note(&format!("{at}.product"), "means nothing without `vendor`; write both");
        }
        self.subsystems(&format!("{at}.nodes"), &usb.nodes);
    }

    fn pci(&mut self, at: &str, pci: &PciSelector) {
        let words = [&pci.driver, &pci.address].iter().any(|glob| glob.is_some());
        if pci.vendor.is_none() && pci.device.is_none() && pci.class.is_none() && !words {
            self.nothing_said(at, "write `vendor` and `device` as `lspci -n` prints them, or `class`");
        }
        if pci.device.is_some() && pci.vendor.is_none() {
            self.note(&format!("{at}.device"), "means nothing without `vendor`; write both");
        }
        self.subsystems(&format!("{at}.nodes"), &pci.nodes);
    }

    fn net(&mut self, at: &str, net: &NetSelector) {
        let words = [&net.name, &net.driver].iter().any(|glob| glob.is_some());
        if !words && net.attributes.is_empty() && net.parents.is_empty() {
            self.nothing_said(at, "write `name: \"*\"` where all interfaces are meant");
        }
        self.attributes(at, net.attributes.keys());
        self.parents(at, &net.parents);
    }

    fn block(&mut self, at: &str, block: &BlockSelector) {
        let words = [&block.name, &block.model, &block.serial, &block.wwn].iter().any(|glob| glob.is_some());
        let sizes = block.min_size.is_some() || block.max_size.is_some();
        if !words && !sizes && block.removable.is_none() && block.parents.is_empty() {
            self.nothing_said(at, "the node's own disks, too; write `model`, `serial` or `minSize`");
        }
        if let (Some(least), Some(most)) = (block.min_size, block.max_size)
            && least > most
        {
            self.note(&format!("{at}.minSize"), format!("({least}) is more than `maxSize` ({most})"));
        }
        self.parents(at, &block.parents);
    }

    fn char(&mut self, at: &str, char: &CharSelector) {
        if char.major > LARGEST_MAJOR {
            self.note(&format!("{at}.major"), format!("is {}; it is at most {LARGEST_MAJOR}", char.major));
        }
        for (key, minor) in [("minor", char.minor), ("lastMinor", char.last_minor)] {
            if let Some(minor) = minor.filter(|minor| *minor > LARGEST_MINOR) {
                self.note(&format!("{at}.{key}"), format!("is {minor}; it is at most {LARGEST_MINOR}"));
            }
        }
        match (char.minor, char.last_minor) {
            (None, Some(_)) => self.note(&format!("{at}.lastMinor"), "needs `minor`, the first of the range"),
            (Some(first), Some(last)) if last < first => {
                self.note(&format!("{at}.lastMinor"), format!("({last}) is less than `minor` ({first})"));
            }
            _ => {}
        }
    }

    fn group(&mut self, at: &str, group: &GroupSelector) {
        if let Some(parent) = &group.parent {
            self.parent(&format!("{at}.parent"), parent);
        }
        if group.members.is_empty() {
            self.note(&format!("{at}.members"), "is empty; say what belongs to the device");
        } else if group.members.iter().all(|member| member.optional) {
            self.note(&format!("{at}.members"), "are all optional; one has to be what makes the device");
        }
        for (index, member) in group.members.iter().enumerate() {
            self.member(&format!("{at}.members[{index}]"), member, group.parent.is_some());
        }
    }

    fn member(&mut self, at: &str, member: &Member, parent: bool) {
        match (&member.subsystem, &member.glob) {
            (None, None) => self.nothing_said(at, "write `glob`, or `subsystem` for nodes below the parent"),
            (Some(_), Some(_)) => self.note(at, "has both `subsystem` and `glob`; make two members of it"),
            (Some(_), None) if !parent => {
                self.note(&format!("{at}.subsystem"), "needs the group's `parent`; write it, or `glob`");
            }
            (Some(subsystem), None) => self.subsystem(&format!("{at}.subsystem"), subsystem),
            (None, Some(glob)) => self.glob(&format!("{at}.glob"), glob),
        }
        if member.limit == Some(0) {
            self.note(&format!("{at}.limit"), "is 0; write at least 1, or leave the member out");
        }
        self.node_options(&format!("{at}.node"), &member.node);
    }

    fn measured(&mut self, at: &str, sensor: &SensorSelector) {
        if sensor.unit.bytes() == 0 {
            self.note(&format!("{at}.unit"), "is 0; write how much a device stands for, such as 1Gi");
        }
        if let Measure::DiskTotal(path) | Measure::DiskFree(path) = &sensor.of
            && path.as_path() != Path::new("/")
        {
            self.path(&format!("{at}.of"), path);
        }
        self.at_least_a_second(&format!("{at}.every"), sensor.every);
        self.some(&format!("{at}.max"), sensor.max);
    }

    fn parents(&mut self, at: &str, parents: &[ParentMatch]) {
        for (index, parent) in parents.iter().enumerate() {
            self.parent(&format!("{at}.parents[{index}]"), parent);
        }
    }

    fn parent(&mut self, at: &str, parent: &ParentMatch) {
        if *parent == ParentMatch::default() {
            self.nothing_said(at, "write `subsystem`, `driver`, `name` or `attributes`");
        }
        if let Some(subsystem) = &parent.subsystem {
            self.subsystem(&format!("{at}.subsystem"), subsystem);
        }
        self.attributes(at, parent.attributes.keys());
    }

    fn attributes<'n>(&mut self, at: &str, names: impl Iterator<Item = &'n String>) {
        for name in names {
            self.attribute(&format!("{at}.attributes"), name);
        }
    }

    fn subsystems(&mut self, at: &str, names: &[String]) {
        for (index, name) in names.iter().enumerate() {
            self.subsystem(&format!("{at}[{index}]"), name);
        }
    }

    fn subsystem(&mut self, at: &str, name: &str) {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
            self.note(at, format!("(`{}`) is no name below /sys/class or /sys/bus", name.escape_debug()));
        }
    }
}

/// Whether it is a path as it stands.
pub(super) fn literal(glob: &Glob) -> bool {
    !glob.as_str().contains(['*', '?', '['])
}
