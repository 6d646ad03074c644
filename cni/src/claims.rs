//! Whose a port of the node is: one small file a claim, in a folder for each port, so that a second pod is
//! told of the first one whatever became of the firewall, and at a cost that does not grow with pods.
//!
//! `STATE/ports/PROTOCOL-PORT/ADDRESS` holds the owner's key. As with bind(2), every address of a family
//! excludes each single one of it, and the reverse.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use node::{Context, Error, Kind, Result, store};

use crate::kernel::nft::Forward;
use crate::owner::Owner;
use crate::port::Protocol;

const LOCK: &str = "lock";

/// The folder of claims.
#[derive(Debug, Clone)]
pub struct Claims {
    folder: PathBuf,
}

/// A claim as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The protocol.
    pub protocol: Protocol,
    /// The node's address, unspecified for all of its family, and the port.
    pub host: SocketAddr,
    /// Whose it is; `None` where the file does not say.
    pub owner: Option<Owner>,
}

impl Claims {
    /// The claims below `state`.
    pub fn at(state: &Path) -> Self {
        Self { folder: state.join("ports") }
    }

    /// Claims all of `ports` for `owner`, or none. A claim whose owner `lives` is [`Kind::Conflict`]; any
    /// other is stale, and taken over. `who` names a pod for people.
    pub fn claim(
        &self,
        ports: &[Forward],
        owner: &Owner,
        lives: &dyn Fn(&Owner) -> bool,
        who: &dyn Fn(&Owner) -> String,
    ) -> Result<()> {
        let _one_at_a_time = self.lock()?;
        let mut stale = Vec::new();
        for port in ports {
            for (address, holder) in self.holders(port)? {
                match Owner::from_key(&holder) {
                    Some(holder) if holder == *owner => {}
                    Some(holder) if lives(&holder) => return Err(taken(port, address, &who(&holder))),
                    _ => stale.push(self.of(port).join(address.to_string())),
                }
            }
        }
        stale.iter().try_for_each(|path| store::remove(path))?;
        for port in ports {
            let folder = self.of(port);
            store::make_folder(&folder)?;
            match store::create_whole(&folder.join(port.host.to_string()), owner.key().as_bytes()) {
                // Another try of the same attachment.
                Err(e) if e.kind() == Kind::Conflict => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// Gives back those of `ports` that are `owner`'s.
    pub fn release(&self, ports: &[Forward], owner: &Owner) -> Result<()> {
        if ports.is_empty() || !self.folder.is_dir() {
            return Ok(());
        }
        let _one_at_a_time = self.lock()?;
        for port in ports {
            let folder = self.of(port);
            let path = folder.join(port.host.to_string());
            if read(&path)?.is_some_and(|holder| holder == owner.key()) {
                store::remove(&path)?;
            }
            tidy(&folder)?;
        }
        Ok(())
    }

    /// What is missing of `owner`'s claims, one line for each.
    pub fn lacks(&self, ports: &[Forward], owner: &Owner) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        for port in ports {
            let shown = shown(port);
            match read(&self.of(port).join(port.host.to_string()))? {
                Some(holder) if holder == owner.key() => {}
                Some(holder) => lines.push(format!("the claim to {shown} is held by `{holder}`")),
                None => lines.push(format!("the claim to {shown} is gone")),
            }
        }
        Ok(lines)
    }

    /// Every claim. Reads them all: for when records are lost, and for GC.
    pub fn all(&self) -> Result<Vec<Claim>> {
        let mut all = Vec::new();
        for name in store::names(&self.folder)? {
            let Some((protocol, port)) = name.split_once('-') else { continue };
            let protocol = Protocol::ALL.into_iter().find(|p| p.name() == protocol);
            let (Some(protocol), Ok(port)) = (protocol, port.parse::<u16>()) else { continue };
            let folder = self.folder.join(&name);
            for address in store::names(&folder)? {
                let Ok(ip) = address.parse::<IpAddr>() else { continue };
                let owner = read(&folder.join(&address))?.and_then(|key| Owner::from_key(&key));
                all.push(Claim { protocol, host: SocketAddr::new(ip, port), owner });
            }
        }
        Ok(all)
    }

    /// The ports that `owner` claims, without where they led. Reads every claim: for when records are lost.
    pub fn of_owner(&self, owner: &Owner) -> Result<Vec<Forward>> {
        let mut claims = self.all()?;
        claims.retain(|claim| claim.owner.as_ref() == Some(owner));
        let nowhere = |ip: IpAddr| match ip {
            IpAddr::V4(_) => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0),
            IpAddr::V6(_) => SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0),
        };
        let port = |claim: Claim| Forward {
            host: claim.host.ip(),
            port: claim.host.port(),
            protocol: claim.protocol,
            to: nowhere(claim.host.ip()),
        };
        Ok(claims.into_iter().map(port).collect())
    }

    /// Removes the claims whose owner does not live.
    pub fn sweep(&self, lives: &dyn Fn(&Owner) -> bool) -> Result<()> {
        if !self.folder.is_dir() {
            return Ok(());
        }
        let _one_at_a_time = self.lock()?;
        for claim in self.all()? {
            if claim.owner.is_none_or(|owner| !lives(&owner)) {
                let folder = self.folder.join(format!("{}-{}", claim.protocol, claim.host.port()));
                store::remove(&folder.join(claim.host.ip().to_string()))?;
                tidy(&folder)?;
            }
        }
        Ok(())
    }

    /// Who holds what `port` is about, and under which address.
    fn holders(&self, port: &Forward) -> Result<Vec<(IpAddr, String)>> {
        let folder = self.of(port);
        let mut holders = Vec::new();
        for name in store::names(&folder)? {
            let Ok(address) = name.parse::<IpAddr>() else { continue };
            let overlap = address.is_ipv4() == port.host.is_ipv4()
                && (address == port.host || address.is_unspecified() || port.host.is_unspecified());
            if let Some(holder) = read(&folder.join(&name))?.filter(|_| overlap) {
                holders.push((address, holder));
            }
        }
        Ok(holders)
    }

    fn of(&self, port: &Forward) -> PathBuf {
        self.folder.join(format!("{}-{}", port.protocol, port.port))
    }

    fn lock(&self) -> Result<store::Lock> {
        let path = self.folder.join(LOCK);
        match store::Lock::exclusive(&path) {
            Err(e) if e.errno() == Some(libc::ENOENT) => {
                store::make_folder(&self.folder)?;
                store::Lock::exclusive(&path)
            }
            other => other,
        }
    }
}

/// The owner's key that a file holds; `None` where there is no such file.
fn read(path: &Path) -> Result<Option<String>> {
    Ok(store::read(path)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

/// Removes a port's folder that holds no claim any more.
fn tidy(folder: &Path) -> Result<()> {
    match fs::remove_dir(folder) {
        Err(e) if !matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTEMPTY | libc::EEXIST)) => {
            Err(e).doing(Kind::Io, || format!("remove `{}`", folder.display()))
        }
        _ => Ok(()),
    }
}

fn taken(port: &Forward, held: IpAddr, who: &str) -> Box<Error> {
    let how = if held == port.host {
        String::new()
    } else if held.is_unspecified() {
        " on every address".to_owned()
    } else {
        format!(" on `{held}`")
    };
    let what = format!("give {} to this pod, which {who} has{how}", shown(port));
    Error::new(Kind::Conflict, what).hint(
        "give one of the two pods another `hostPort`, or a `hostIP` of its own; if that pod is gone, its DEL or \
         GC frees the port",
    )
}

fn shown(port: &Forward) -> String {
    let (protocol, number) = (port.protocol, port.port);
    if port.host.is_unspecified() {
        format!("the host's port {number}/{protocol}")
    } else {
        format!("the host's port {number}/{protocol} of `{}`", port.host)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// A folder that is gone when the test ends.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new() -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let next = NEXT.fetch_add(1, Ordering::Relaxed);
            Self(std::env::temp_dir().join(format!("cni-claims-{}-{next}", std::process::id())))
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    fn owner(id: &str) -> Owner {
        Owner { container_id: id.into(), ifname: "eth0".into() }
    }

    fn port(host: &str, protocol: Protocol) -> Forward {
        let host: IpAddr = host.parse().unwrap();
        let to = if host.is_ipv4() { "10.0.0.2:80" } else { "[fd00::2]:80" };
        Forward { host, port: 80, protocol, to: to.parse().unwrap() }
    }

    fn claim(claims: &Claims, ports: &[Forward], id: &str) -> Result<()> {
        claims.claim(ports, &owner(id), &|o| o.container_id != "dead", &|o| format!("`{o}`"))
    }

    #[test]
    fn an_address_and_every_address_exclude_each_other_within_a_family_and_protocol() {
        const ANY: &str = "0.0.0.0";
        let cases = [
            (ANY, ANY, false),
            (ANY, "192.0.2.1", false),
            ("192.0.2.1", ANY, false),
            ("192.0.2.1", "192.0.2.1", false),
            ("192.0.2.1", "192.0.2.2", true),
            (ANY, "::", true),
            ("::", "fd00::1", false),
            ("fd00::1", "fd00::2", true),
        ];
        for (first, second, goes) in cases {
            let scratch = Scratch::new();
            let claims = Claims::at(&scratch.0);
            claim(&claims, &[port(first, Protocol::Tcp)], "a").unwrap();
            claim(&claims, &[port(second, Protocol::Udp)], "b").unwrap();
            let result = claim(&claims, &[port(second, Protocol::Tcp)], "b");
            assert_eq!(result.is_ok(), goes, "{first} and then {second}: {result:?}");
            if let Err(error) = result {
                assert_eq!(error.kind(), Kind::Conflict);
                assert!(error.to_string().contains("`a/eth0` has"), "{error}");
            }
        }
    }

    #[test]
    fn a_call_claims_all_or_nothing_and_only_the_owner_gives_back() {
        let scratch = Scratch::new();
        let claims = Claims::at(&scratch.0);
        let (four, six) = (port("0.0.0.0", Protocol::Tcp), port("::", Protocol::Tcp));
        claim(&claims, &[six], "a").unwrap();
        claim(&claims, &[four, six], "b").unwrap_err();
        assert_eq!(claims.all().unwrap().len(), 1);
        claims.release(&[four, six], &owner("b")).unwrap();
        assert_eq!(claims.lacks(&[six], &owner("a")).unwrap(), [""; 0]);
        assert_eq!(
            claims.lacks(&[four], &owner("a")).unwrap(),
            ["the claim to the host's port 80/tcp is gone"]
        );
        let found = claims.of_owner(&owner("a")).unwrap();
        assert_eq!(found.iter().map(|f| f.host).collect::<Vec<_>>(), [six.host]);
        assert_eq!(claims.of_owner(&owner("b")).unwrap(), []);
        claim(&claims, &[six], "a").unwrap();
        claims.release(&[six], &owner("a")).unwrap();
        claims.release(&[six], &owner("a")).unwrap();
        assert_eq!(store::names(&scratch.0.join("ports")).unwrap(), [LOCK]);
    }

    #[test]
    fn what_nobody_alive_holds_is_taken_over() {
        let scratch = Scratch::new();
        let claims = Claims::at(&scratch.0);
        let (any, one) = (port("0.0.0.0", Protocol::Tcp), port("192.0.2.1", Protocol::Tcp));
        claim(&claims, &[one], "dead").unwrap();
        fs::write(scratch.0.join("ports/tcp-80/192.0.2.9"), "").unwrap();
        claim(&claims, &[any], "b").unwrap();
        let held: Vec<String> = claims.all().unwrap().iter().map(|c| c.host.to_string()).collect();
        assert_eq!(held, ["0.0.0.0:80"]);
        claims.sweep(&|_| false).unwrap();
        assert_eq!(claims.all().unwrap(), []);
    }
}
