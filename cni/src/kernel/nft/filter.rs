//! What a pod gets in nf_tables, and what of it is taken out.

use std::fmt;
use std::net::IpAddr;

use node::Result;

use super::{Masquerade, Nft};
use crate::owner::Owner;

/// One thing that a pod gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// What these addresses send leaves with the node's address.
    Masquerade(Masquerade, Vec<IpAddr>),
}

/// What is known of a [`Filter`] when it has to go: enough to find it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trace {
    /// The masquerade of these addresses, in whichever network.
    Masquerade(Vec<IpAddr>),
}

impl Filter {
    /// What finds it again.
    pub fn trace(&self) -> Trace {
        match self {
            Self::Masquerade(_, addresses) => Trace::Masquerade(addresses.clone()),
        }
    }
}

impl Nft {
    /// Makes `filters` stand for `owner`, all of them or none.
    pub fn put(&mut self, filters: &[Filter], owner: &Owner, lives: &dyn Fn(&str) -> bool) -> Result<()> {
        filters.iter().try_for_each(|filter| match filter {
            Filter::Masquerade(what, addresses) => self.masquerade(what, addresses, owner, lives),
        })
    }

    /// Takes out what is `owner`'s of `traces`. What is not there is done.
    pub fn take(&mut self, traces: &[Trace], owner: &Owner) -> Result<()> {
        traces.iter().try_for_each(|trace| match trace {
            Trace::Masquerade(addresses) => self.unmasquerade(addresses, owner),
        })
    }

    /// What is missing or different of `filters`, one line for each thing.
    pub fn lacks(&mut self, filters: &[Filter], owner: &Owner) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        for filter in filters {
            match filter {
                Filter::Masquerade(what, addresses) => lines.extend(self.missing(what, addresses, owner)?),
            }
        }
        Ok(lines)
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Masquerade(what, addresses) => {
                write!(f, "masquerade {} by the rules of `{}`", listed(addresses), what.network)
            }
        }
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Masquerade(addresses) => write!(f, "stop masquerading {}", listed(addresses)),
        }
    }
}

fn listed(addresses: &[IpAddr]) -> String {
    let each: Vec<_> = addresses.iter().map(|a| format!("`{a}`")).collect();
    each.join(", ")
}
