//! `conditionsV4` and `conditionsV6`: which packets a host port takes, in the words of iptables or of nft.

use std::net::IpAddr;

use crate::config::reader::{Problem, Reader};
use crate::port::Condition;
use ipnet::IpNet;

/// `IFNAMSIZ` less the NUL.
const LONGEST_INTERFACE: usize = 15;
const HINT: &str = "known are `[!] -s NET`, `[!] -d NET`, `[!] -i IF` and nft's `ip saddr|daddr [!=] NET`, \
                    `iifname [!=] IF`";

/// Reads the list `key`, whose networks are of one family.
pub(super) fn read(
    reader: &mut Reader<'_>,
    key: &'static str,
    four: bool,
    problems: &mut Vec<Problem>,
) -> Vec<Condition> {
    let place = reader.place(key);
    let list = reader.strings(key, problems);
    // The reference hands each to iptables as an argument, and all of them to nft as one line.
    let mut words = Words { rest: list.iter().flat_map(|item| item.split_whitespace()).peekable() };
    let mut conditions = Vec::new();
    while words.rest.peek().is_some() {
        match words.condition(four) {
            Ok(condition) => conditions.push(condition),
            Err((unsupported, what)) => {
                let make = if unsupported { Problem::unsupported } else { Problem::wrong };
                problems.push(make(&place, what).hint(HINT));
                break;
            }
        }
    }
    conditions
}

struct Words<'a, I: Iterator<Item = &'a str>> {
    rest: std::iter::Peekable<I>,
}

/// What is wrong, and whether it is a word that is not supported.
type Wrong = (bool, String);

impl<'a, I: Iterator<Item = &'a str>> Words<'a, I> {
    fn condition(&mut self, four: bool) -> Result<Condition, Wrong> {
        let is = self.rest.next_if_eq(&"!").is_none();
        let word = self.next("a condition")?;
        match word {
            "-s" | "--source" | "--src" => Ok(Condition::Source { net: self.net(four)?, is }),
            "-d" | "--destination" | "--dst" => Ok(Condition::Destination { net: self.net(four)?, is }),
            "-i" | "--in-interface" => Ok(Condition::Interface { name: self.interface()?, is }),
            "ip" | "ip6" if is => {
                if (word == "ip") != four {
                    let key = if four { "conditionsV6" } else { "conditionsV4" };
                    return Err((false, format!("has `{word}`, which belongs into `{key}`")));
                }
                let side = self.next("`saddr` or `daddr`")?;
                let is = self.equal();
                match side {
                    "saddr" => Ok(Condition::Source { net: self.net(four)?, is }),
                    "daddr" => Ok(Condition::Destination { net: self.net(four)?, is }),
                    other => Err((true, format!("has `{word} {other}`, which is not supported here"))),
                }
            }
            "iifname" if is => {
                let is = self.equal();
                Ok(Condition::Interface { name: self.interface()?, is })
            }
            other => Err((true, format!("has `{other}`, which is not supported here"))),
        }
    }

    fn equal(&mut self) -> bool {
        let is = self.rest.next_if_eq(&"!=").is_none();
        if is {
            self.rest.next_if_eq(&"==");
        }
        is
    }

    fn net(&mut self, four: bool) -> Result<IpNet, Wrong> {
        let text = self.next("a network")?;
        let net = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
        let family = if four { "IPv4" } else { "IPv6" };
        match net {
            Some(net) if net.addr().is_ipv4() == four => Ok(net.trunc()),
            _ => Err((false, format!("has `{text}`, which is no {family} network"))),
        }
    }

    fn interface(&mut self) -> Result<String, Wrong> {
        let text = self.next("an interface")?.trim_matches('"');
        // iptables writes `eth+` for what nft writes as `eth*`.
        let name = text.strip_suffix('+').map_or_else(|| text.to_owned(), |start| format!("{start}*"));
        let plain = |c: char| c.is_ascii_graphic() && c != '/';
        if name.trim_end_matches('*').is_empty() || name.len() > LONGEST_INTERFACE || !name.chars().all(plain)
        {
            return Err((false, format!("has `{text}`, which is no name of an interface")));
        }
        Ok(name)
    }

    fn next(&mut self, what: &str) -> Result<&'a str, Wrong> {
        self.rest.next().ok_or_else(|| (false, format!("ends where {what} should stand")))
    }
}
