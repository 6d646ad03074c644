//! The floor of the benchmark: only the kernel work of an ADD or a DEL in bridge mode.
//!
//! The environment tells it what to do, as it tells a plugin: `CNI_COMMAND`, `CNI_NETNS`, and in
//! `CNI_ARGS` `HOST BRIDGE ADDRESS PREFIX GATEWAY`, with blanks between.

use std::io;

use harness::kernel::netlink::{self, Floor};

fn main() -> io::Result<()> {
    let variable = |name: &str| std::env::var(name).map_err(io::Error::other);
    let words = variable("CNI_ARGS")?;
    let mut words = words.split(' ');
    let mut next = || words.next().ok_or_else(|| io::Error::other("CNI_ARGS has too few words"));
    let host = next()?;
    if variable("CNI_COMMAND")? == "DEL" {
        return netlink::delete(host);
    }
    let netns = variable("CNI_NETNS")?;
    let bridge = next()?;
    let address = next()?.parse().map_err(io::Error::other)?;
    let prefix = next()?.parse().map_err(io::Error::other)?;
    let gateway = next()?.parse().map_err(io::Error::other)?;
    Floor { netns: &netns, host, bridge, address, prefix, gateway }.add()
}
