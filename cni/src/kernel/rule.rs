//! Rules of policy routing: `ip rule`.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use node::Result;

use super::socket::{Request, RouteSocket};

/// What a rule says, as far as anybody here asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The one source address that it is for; `None` where it is for any other set of them.
    pub from: Option<IpAddr>,
    /// Where it sends the look-up.
    pub table: u32,
}

/// `ip rule add from ADDRESS lookup TABLE`, with the priority that the kernel chooses: before those that
/// are there, but for the look-up of local addresses.
pub fn add(from: IpAddr, table: u32) -> Request {
    Request { message: RouteNetlinkMessage::NewRule(message(from, table)), flags: NLM_F_CREATE | NLM_F_EXCL }
}

/// `ip rule del from ADDRESS lookup TABLE`: the first that fits.
pub fn delete(from: IpAddr, table: u32) -> Request {
    Request { message: RouteNetlinkMessage::DelRule(message(from, table)), flags: 0 }
}

/// `ip rule show` of both families. A kernel that was built without rules has none.
pub fn list(socket: &mut RouteSocket) -> Result<Vec<Rule>> {
    let mut all = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut query = RuleMessage::default();
        query.header.family = family;
        let doing = || "list the routing rules".to_owned();
        let found = match socket.dump(&RouteNetlinkMessage::GetRule(query), doing) {
            Err(e) if matches!(e.errno(), Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP)) => continue,
            other => other?,
        };
        all.extend(found.iter().filter_map(|m| match m {
            RouteNetlinkMessage::NewRule(m) => Some(described(m)),
            _ => None,
        }));
    }
    Ok(all)
}

fn described(message: &RuleMessage) -> Rule {
    let mut rule = Rule { from: None, table: u32::from(message.header.table) };
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Source(ip) if message.header.src_len == whole(*ip) => rule.from = Some(*ip),
            RuleAttribute::Table(table) => rule.table = *table,
            _ => {}
        }
    }
    rule
}

fn message(from: IpAddr, table: u32) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = if from.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.action = RuleAction::ToTable;
    message.header.src_len = whole(from);
    message.attributes.push(RuleAttribute::Source(from));
    match u8::try_from(table) {
        Ok(small) => message.header.table = small,
        Err(_) => message.attributes.push(RuleAttribute::Table(table)),
    }
    message
}

fn whole(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}
