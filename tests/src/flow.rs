//! A flow of bytes as fast as it goes, and how fast it went.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::node::Namespace;
use crate::traffic::Protocol;

/// Payload of a datagram: a packet of the usual MTU holds it in both families.
const DATAGRAM: usize = 1400;
/// The Ethernet header, which shapers count.
const ETHERNET: u16 = 14;
/// How often an address that is not ready yet is tried: a reference's IPv6 address is tentative at first.
const TRIES: usize = 100;
const TURN: Duration = Duration::from_millis(50);

/// Where a flow starts or ends.
#[derive(Debug, Clone, Copy)]
pub enum Place<'a> {
    /// On the node.
    Node,
    /// In a namespace.
    Inside(&'a Namespace),
}

/// A flow that is on its way.
#[derive(Debug)]
pub struct Flow {
    protocol: Protocol,
    to: IpAddr,
    arrived: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Flow {
    /// Sends from `source` to `ip` in `sink`: TCP what goes, UDP twice what `rate` bits a second are.
    pub fn start(protocol: Protocol, source: Place, sink: Place, ip: IpAddr, rate: u64) -> Self {
        let (arrived, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, end) = (arrived.clone(), stop.clone());
        let end_of_source = stop.clone();
        let threads = match protocol {
            Protocol::Tcp => {
                let listener = sink.socket(move || TcpListener::bind((ip, 0)));
                let address = listener.local_addr().expect("the listener's address");
                let stream = source.socket(move || TcpStream::connect_timeout(&address, TURN * 20));
                let (peer, _) = listener.accept().expect("accept");
                vec![
                    thread::spawn(move || swallow(peer, &count, &end)),
                    thread::spawn(move || pour(stream, &end_of_source)),
                ]
            }
            Protocol::Udp => {
                let socket = sink.socket(move || UdpSocket::bind((ip, 0)));
                let address = socket.local_addr().expect("the socket's address");
                let from = source.socket(move || {
                    let any: IpAddr = if ip.is_ipv4() { [0, 0, 0, 0].into() } else { [0_u16; 8].into() };
                    let from = UdpSocket::bind((any, 0))?;
                    from.connect(address).map(|()| from)
                });
                vec![
                    thread::spawn(move || collect(&socket, &count, &end)),
                    thread::spawn(move || drizzle(&from, address, rate * 2, &end_of_source)),
                ]
            }
        };
        Self { protocol, to: ip, arrived, stop, threads }
    }

    /// Bits a second, headers included as a shaper counts them, that arrive during `time` after `rest`.
    pub fn rate(&self, rest: Duration, time: Duration) -> f64 {
        thread::sleep(rest);
        let (start, before) = (Instant::now(), self.arrived.load(Ordering::Relaxed));
        thread::sleep(time);
        let bytes = self.arrived.load(Ordering::Relaxed) - before;
        let bytes = u32::try_from(bytes).map_or(f64::INFINITY, f64::from);
        bytes * 8.0 / start.elapsed().as_secs_f64() / self.share()
    }

    /// What of a full packet is payload.
    fn share(&self) -> f64 {
        let network = if self.to.is_ipv4() { 20 } else { 40 };
        match self.protocol {
            // 32 bytes of TCP header with its time stamps.
            Protocol::Tcp => f64::from(1500 - network - 32) / f64::from(1500 + ETHERNET),
            Protocol::Udp => 1400.0 / f64::from(1400 + 8 + network + ETHERNET),
        }
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

impl Place<'_> {
    fn socket<T: Send + 'static>(self, make: impl Fn() -> std::io::Result<T> + Send + 'static) -> T {
        let patient = move || {
            for _ in 1..TRIES {
                if let Ok(socket) = make() {
                    return socket;
                }
                thread::sleep(TURN);
            }
            make().expect("a socket")
        };
        match self {
            Self::Node => patient(),
            Self::Inside(namespace) => namespace.within(patient),
        }
    }
}

fn swallow(mut stream: TcpStream, count: &AtomicU64, end: &AtomicBool) {
    stream.set_read_timeout(Some(TURN)).expect("a socket that can stop");
    let mut bytes = vec![0; 256 * 1024];
    while !end.load(Ordering::Relaxed) {
        match stream.read(&mut bytes) {
            Ok(0) => return,
            Ok(n) => drop(count.fetch_add(n as u64, Ordering::Relaxed)),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => return,
        }
    }
}

fn pour(mut stream: TcpStream, end: &AtomicBool) {
    stream.set_write_timeout(Some(TURN)).expect("a socket that can stop");
    let bytes = vec![0; 64 * 1024];
    while !end.load(Ordering::Relaxed) {
        match stream.write(&bytes) {
            Ok(_) => {}
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => return,
        }
    }
}

fn collect(socket: &UdpSocket, count: &AtomicU64, end: &AtomicBool) {
    socket.set_read_timeout(Some(TURN)).expect("a socket that can stop");
    let mut bytes = [0; 2048];
    while !end.load(Ordering::Relaxed) {
        if let Ok(n) = socket.recv(&mut bytes) {
            count.fetch_add(n as u64, Ordering::Relaxed);
        }
    }
}

/// Datagrams by the clock: as many as are due, then a rest.
fn drizzle(socket: &UdpSocket, to: SocketAddr, rate: u64, end: &AtomicBool) {
    let (start, bytes) = (Instant::now(), [0; DATAGRAM]);
    let mut sent = 0_u64;
    while !end.load(Ordering::Relaxed) {
        let due = u128::from(rate / 8) * start.elapsed().as_micros() / 1_000_000;
        while u128::from(sent) < due {
            // A full queue drops, and says so here or not.
            drop(socket.send_to(&bytes, to).or_else(|_| socket.send(&bytes)));
            sent += DATAGRAM as u64;
        }
        thread::sleep(Duration::from_millis(1));
    }
}
