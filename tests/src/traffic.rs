//! Packets: small servers that answer with the address that they see, and clients that ask.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, setsockopt, socket,
    sockopt,
};

use crate::node::Namespace;

/// How long an answer may take. Refusals in the tests wait this long.
const PATIENCE: Duration = Duration::from_millis(1500);
const TURN: Duration = Duration::from_millis(20);
/// How long one asks again.
const LONG: Duration = Duration::from_secs(30);

/// Which protocol carries the question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// One connection.
    Tcp,
    /// One datagram, repeated a few times.
    Udp,
}

/// A TCP and a UDP server on one address, that answer each peer with the address they see it by.
#[derive(Debug)]
pub struct Echo {
    /// Where they listen, the same port for both.
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl Echo {
    /// Serves on `ip` inside a namespace.
    pub fn inside(namespace: &Namespace, ip: IpAddr) -> Self {
        Self::at(namespace, SocketAddr::new(ip, 0))
    }

    /// Serves on an address and port inside a namespace.
    pub fn at(namespace: &Namespace, address: SocketAddr) -> Self {
        Self::serve(namespace.within(move || sockets(address)))
    }

    /// Serves on `ip` on the node.
    pub fn on_node(ip: IpAddr) -> Self {
        Self::on_node_at((ip, 0).into())
    }

    /// Serves on this address and port on the node.
    pub fn on_node_at(at: SocketAddr) -> Self {
        Self::serve(sockets(at))
    }

    fn serve((tcp, udp): (TcpListener, UdpSocket)) -> Self {
        let address = tcp.local_addr().expect("the address of the listener");
        let stop = Arc::new(AtomicBool::new(false));
        let (for_tcp, for_udp) = (stop.clone(), stop.clone());
        thread::spawn(move || serve_tcp(&tcp, &for_tcp));
        thread::spawn(move || serve_udp(&udp, &for_udp));
        Self { address, stop }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn sockets(address: SocketAddr) -> (TcpListener, UdpSocket) {
    let tcp = TcpListener::bind(address).unwrap_or_else(|e| panic!("listen on {address}: {e}"));
    let address = tcp.local_addr().expect("the address of the listener");
    let udp = UdpSocket::bind(address).unwrap_or_else(|e| panic!("bind {address}: {e}"));
    tcp.set_nonblocking(true).expect("a listener that can stop");
    udp.set_read_timeout(Some(TURN)).expect("a socket that can stop");
    (tcp, udp)
}

fn serve_tcp(listener: &TcpListener, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((mut stream, peer)) => drop(stream.write_all(peer.ip().to_string().as_bytes())),
            Err(_) => thread::sleep(TURN),
        }
    }
}

fn serve_udp(socket: &UdpSocket, stop: &AtomicBool) {
    let mut bytes = [0; 64];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((_, peer)) = socket.recv_from(&mut bytes) {
            drop(socket.send_to(peer.ip().to_string().as_bytes(), peer));
        }
    }
}

/// Asks from inside a namespace: the address that the server sees, or why nothing came back.
pub fn ask(from: &Namespace, protocol: Protocol, to: SocketAddr) -> Result<IpAddr, String> {
    from.within(move || ask_here(protocol, to))
}

/// [`ask`], and again for as long as nothing comes back, as clients do: what is busy answers late.
pub fn ask_again(from: &Namespace, protocol: Protocol, to: SocketAddr) -> Result<IpAddr, String> {
    let start = Instant::now();
    loop {
        let answer = ask(from, protocol, to);
        if answer.is_ok() || start.elapsed() > LONG {
            return answer;
        }
    }
}

/// Asks from the node.
pub fn ask_here(protocol: Protocol, to: SocketAddr) -> Result<IpAddr, String> {
    let answer = match protocol {
        Protocol::Tcp => ask_tcp(to),
        Protocol::Udp => ask_udp(to),
    };
    let text = answer.map_err(|e| format!("{protocol:?} to {to}: {e}"))?;
    text.parse().map_err(|_| format!("{protocol:?} to {to}: answer `{text}`"))
}

fn ask_tcp(to: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

fn ask_udp(to: SocketAddr) -> std::io::Result<String> {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(PATIENCE / 5))?;
    let mut bytes = [0; 64];
    let mut last = None;
    for _ in 0..5 {
        // The address resolution of the first datagram may swallow it.
        let answer = socket.send(b"who am I").and_then(|_| socket.recv(&mut bytes));
        match answer {
            Ok(n) => return Ok(String::from_utf8_lossy(&bytes[..n]).into_owned()),
            Err(e) => last = Some(e),
        }
    }
    Err(last.unwrap_or_else(|| std::io::ErrorKind::TimedOut.into()))
}

/// Datagrams from outside, each from a source of its own, to a port that leads to a pod.
#[derive(Debug)]
pub struct Flood {
    from: OwnedFd,
    to: (Ipv4Addr, u16),
    sink: UdpSocket,
    sent: u32,
}

impl Flood {
    /// From a machine outside to `to`, behind which the pod has `port`.
    pub fn new(outside: &Namespace, pod: &Namespace, port: u16, to: (Ipv4Addr, u16)) -> Self {
        let from = outside.within(|| {
            // IPPROTO_RAW: the sender writes the IP header (raw(7)).
            socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw)
                .expect("make a raw socket")
        });
        let sink = pod.within(move || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).expect("bind the sink"));
        setsockopt(&sink, sockopt::RcvBufForce, &SINK).expect("a large buffer");
        sink.set_nonblocking(true).expect("a sink that can be emptied");
        Self { from, to, sink, sent: 0 }
    }

    /// Sends so many, and tells how many of them the pod has got, and how long it took to send them. Each crosses the
    /// node before the next one is sent: a virtual cable has no other end that works meanwhile.
    pub fn burst(&mut self, count: u16) -> (u16, Duration) {
        let to = SockaddrIn::from(SocketAddrV4::new(self.to.0, 0));
        let start = Instant::now();
        for _ in 0..count {
            let datagram = self.next_datagram();
            sendto(self.from.as_raw_fd(), &datagram, &to, MsgFlags::empty()).expect("send a datagram");
        }
        let took = start.elapsed();
        // What a busy node has put off.
        thread::sleep(TURN);
        let mut bytes = [0; 64];
        let mut arrived = 0;
        while self.sink.recv(&mut bytes).is_ok() {
            arrived += 1;
        }
        (arrived, took)
    }

    /// The next source: 32 addresses outside with all their higher ports, then from the start again.
    fn next_datagram(&mut self) -> [u8; 28] {
        let host = u8::try_from(self.sent / PORTS % 32).unwrap_or(0) + 2;
        let port = u16::try_from(self.sent % PORTS).unwrap_or(0) + LOWEST;
        self.sent = self.sent.wrapping_add(1);
        let mut bytes = [0; 28];
        // Version and length, no service, 28 bytes; the kernel fills in the identity and the checksum.
        bytes[..4].copy_from_slice(&[0x45, 0, 0, 28]);
        bytes[8..10].copy_from_slice(&[64, 17]);
        bytes[12..16].copy_from_slice(&[192, 0, 2, host]);
        bytes[16..20].copy_from_slice(&self.to.0.octets());
        bytes[20..22].copy_from_slice(&port.to_be_bytes());
        bytes[22..24].copy_from_slice(&self.to.1.to_be_bytes());
        // The header alone, and no checksum (RFC 768).
        bytes[24..26].copy_from_slice(&8_u16.to_be_bytes());
        bytes
    }
}

/// Room for a burst in the sink, in bytes.
const SINK: usize = 256 << 20;
/// The first port of a source, and how many it has.
const LOWEST: u16 = 1024;
const PORTS: u32 = 60_000;
