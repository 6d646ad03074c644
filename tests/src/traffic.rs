//! Packets: small servers that answer with the address that they see, and clients that ask.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::node::Namespace;

/// How long an answer may take. Refusals in the tests wait this long.
const PATIENCE: Duration = Duration::from_millis(1500);
const TURN: Duration = Duration::from_millis(20);

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
        Self::inside_at(namespace, (ip, 0).into())
    }

    /// Serves on this address and port inside a namespace.
    pub fn inside_at(namespace: &Namespace, at: SocketAddr) -> Self {
        Self::serve(namespace.within(move || sockets(at)))
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

fn sockets(at: SocketAddr) -> (TcpListener, UdpSocket) {
    let tcp = TcpListener::bind(at).unwrap_or_else(|e| panic!("listen on {at}: {e}"));
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
