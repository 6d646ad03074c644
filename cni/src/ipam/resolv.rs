//! A file in resolv.conf's format as the result's dns (resolv.conf(5)).

use std::path::Path;

use node::{Context, Error, Kind, Result, store};

use crate::result::Dns;

/// The dns of the file at `path`.
pub fn read(path: &Path) -> Result<Dns> {
    let doing = || format!("read `{}` for the pod's dns", path.display());
    let hint = "correct `ipam.resolvConf` or make the file";
    // A FIFO would block for ever: look first.
    let metadata = std::fs::metadata(path).doing(Kind::Io, doing).map_err(|e| e.hint(hint))?;
    if !metadata.is_file() {
        return Err(Error::new(Kind::Config, format!("{}: not a regular file", doing())).hint(hint));
    }
    let bytes = store::read(path)?.unwrap_or_default();
    Ok(parse(&String::from_utf8_lossy(&bytes)))
}

/// The dns of a resolv.conf's text. Like the reference, and unlike a resolver, several `search` and
/// `options` lines add up and no limit of three servers is applied: the runtime writes the pod's file.
pub fn parse(text: &str) -> Dns {
    let mut dns = Dns::default();
    for line in text.lines().map(str::trim).filter(|l| !l.starts_with(['#', ';'])) {
        let mut words = line.split_whitespace();
        let Some(keyword) = words.next() else { continue };
        let mut values = words.map(str::to_owned);
        match keyword {
            "nameserver" => dns.nameservers.extend(values.next()),
            "domain" => dns.domain = values.next().or(dns.domain),
            "search" => dns.search.extend(values),
            "options" => dns.options.extend(values),
            _ => {}
        }
    }
    dns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_domain_search_and_options_are_read_and_the_rest_is_passed_over() {
        let dns = parse(
            "# a comment\n; another\nnameserver 10.0.0.10\n nameserver fd00::a extra\nnameserver\n\
             search a.example b.example\nsearch c.example\ndomain d.example\nsortlist 1.2.3.4\n\
             options ndots:5 edns0\n",
        );
        assert_eq!(dns.nameservers, ["10.0.0.10", "fd00::a"]);
        assert_eq!(dns.search, ["a.example", "b.example", "c.example"]);
        assert_eq!(dns.domain.as_deref(), Some("d.example"));
        assert_eq!(dns.options, ["ndots:5", "edns0"]);
    }

    #[test]
    fn a_file_that_is_missing_or_no_file_is_an_answer_that_names_it() {
        for path in ["/nonexistent/resolv.conf", "/dev/null"] {
            let error = read(Path::new(path)).unwrap_err();
            assert!(error.chain().contains(path), "{}", error.chain());
            assert!(error.advice().unwrap().contains("ipam.resolvConf"));
        }
    }
}
