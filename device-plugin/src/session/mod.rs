//! One resource before the kubelet: its socket, its registration, its stream. The kubelet never asks a second
//! time for anything, so whatever ends is begun anew from here.
//!
//! `plan` says what is next, from what was seen; everything else does it.

mod backoff;
mod plan;
mod register;
mod serve;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use node::Error;
use tokio::sync::watch;
use tracing::{debug, info, warn};

use backoff::Backoff;
use plan::{Action, Seen, SocketId, plan};
use serve::Server;

use crate::config::{Kubelet, Registration, ResourceName};
use crate::service::{Offer, Stream};

/// How long the kubelet may take from its answer to Register until it asks for the list.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often the sockets are looked at where nothing tells of a change.
const POLL: Duration = Duration::from_secs(1);

/// How the daemon speaks to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Orders {
    /// Counts what happened in the kubelet's folders: look at the sockets again.
    pub looks: u64,
    /// Counts changes after which the kubelet has to ask for everything anew.
    pub renewals: u64,
    /// Nothing tells of changes: look now and then.
    pub poll: bool,
    /// End everything.
    pub stop: bool,
}

/// A session's own state.
struct Session {
    kubelet: Kubelet,
    offer: Arc<Offer>,
    socket: PathBuf,
    server: Option<Server>,
    /// With which kubelet it is registered, and since when.
    registered: Option<(SocketId, Instant)>,
    /// The kubelet of the last registration, and the one that was seen last.
    last: Option<SocketId>,
    known: Option<SocketId>,
    /// The configuration asked for the next registration.
    renewed: bool,
    backoff: Backoff,
    /// The end of the stream was noticed: the kubelet gets a moment to see it, too, since it looks its client up by name
    /// and would end a new stream with the old one.
    mourned: bool,
    /// What was said last of a registration that went wrong: not to be said again and again.
    said: Option<String>,
}

/// The socket's file name: the resource's name may be longer than a socket's path.
pub fn socket_name(resource: &ResourceName) -> String {
    format!("np-{}.sock", crate::inventory::id::hash(resource.as_str()))
}

/// The folder in which the sockets of resources are.
pub fn folder(kubelet: &Kubelet) -> &Path {
    match kubelet.registration {
        Registration::Direct => &kubelet.device_plugins,
        Registration::Watcher => &kubelet.plugins_registry,
    }
}

/// Serves and registers a resource until it is told to stop. Leaves no socket.
pub async fn run(kubelet: Kubelet, offer: Arc<Offer>, mut orders: watch::Receiver<Orders>) {
    let socket = folder(&kubelet).join(socket_name(offer.name()));
    let mut session = Session {
        kubelet,
        offer,
        socket,
        server: None,
        registered: None,
        last: None,
        known: None,
        renewed: false,
        backoff: Backoff::new(),
        mourned: false,
        said: None,
    };
    let mut streams = session.offer.streams();
    let mut stopping = orders.clone();
    let mut renewals = orders.borrow().renewals;
    loop {
        let now = *orders.borrow_and_update();
        if now.stop {
            break;
        }
        if now.renewals != renewals {
            renewals = now.renewals;
            session.renew().await;
        }
        streams.borrow_and_update();
        // A kubelet that takes its time to answer holds up no end.
        let wait = tokio::select! {
            wait = session.step(now.poll) => wait,
            _ = stopping.wait_for(|orders| orders.stop) => break,
        };
        tokio::select! {
            changed = orders.changed() => if changed.is_err() { break },
            _ = streams.changed() => {}
            () = sleep(wait) => {}
        }
    }
    session.end().await;
}

async fn sleep(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => std::future::pending().await,
    }
}

impl Session {
    /// Does what is next; the answer is how long to wait at most for something to happen.
    async fn step(&mut self, poll: bool) -> Option<Duration> {
        loop {
            self.mourn();
            let seen = self.look();
            let action = plan(&seen);
            if !matches!(action, Action::Wait(_)) {
                debug!(resource = %self.offer.name(), ?action, "next");
            }
            let outcome = match action {
                Action::Wait(wait) => return if poll { Some(wait.unwrap_or(POLL).min(POLL)) } else { wait },
                Action::Serve => self.serve().await,
                Action::Register(kubelet) => self.register(kubelet).await,
            };
            match outcome {
                Ok(()) => self.said = None,
                Err(error) => {
                    self.backoff.begin();
                    self.complain(&error);
                }
            }
        }
    }

    fn mourn(&mut self) {
        let ended = self.offer.stream() == Stream::Ended;
        if ended && !self.mourned {
            self.backoff.begin();
        }
        self.mourned = ended;
    }

    fn look(&mut self) -> Seen {
        let kubelet = match self.kubelet.registration {
            Registration::Direct => SocketId::of(&self.kubelet.device_plugins.join("kubelet.sock")),
            Registration::Watcher => None,
        };
        if kubelet.is_some() && kubelet != self.known {
            self.known = kubelet;
            self.backoff.end();
        }
        Seen {
            own: self.server.as_ref().map(|server| server.is_at(&self.socket)),
            kubelet,
            registered: self.registered.map(|(kubelet, since)| (kubelet, since.elapsed())),
            stream: self.offer.stream(),
            watcher: self.kubelet.registration == Registration::Watcher,
            pause: self.backoff.left(),
        }
    }

    /// Opens the socket and serves on it; what was served before ends.
    async fn serve(&mut self) -> node::Result<()> {
        self.close().await;
        let watcher = self.kubelet.registration == Registration::Watcher;
        self.server = Some(Server::start(&self.socket, &self.offer, watcher)?);
        Ok(())
    }

    async fn register(&mut self, kubelet: SocketId) -> node::Result<()> {
        let reason = self.reason(kubelet);
        self.registered = None;
        self.offer.end_streams();
        let path = self.kubelet.device_plugins.join("kubelet.sock");
        // Boxed, since a session is there for good and a call for milliseconds.
        let call = register::register(&path, &self.socket, self.offer.name(), self.offer.options());
        let result = Box::pin(call).await;
        self.offer.metrics().registered(self.offer.name(), reason, result.is_ok());
        result?;
        info!(resource = %self.offer.name(), reason, "registered");
        self.registered = Some((kubelet, Instant::now()));
        (self.last, self.renewed) = (Some(kubelet), false);
        Ok(())
    }

    fn reason(&self, kubelet: SocketId) -> &'static str {
        match self.last {
            None => "start",
            Some(last) if last != kubelet => "kubelet restarted",
            Some(_) if self.renewed => "configuration changed",
            Some(_) if self.registered.is_some() => "stream ended",
            Some(_) => "socket gone",
        }
    }

    /// One line a change, however often it is tried.
    fn complain(&mut self, error: &Error) {
        let chain = error.chain();
        if self.said.as_ref() != Some(&chain) {
            warn!(resource = %self.offer.name(), hint = error.advice(), "{chain}");
            self.said = Some(chain);
        }
    }

    /// The kubelet is to ask for everything again.
    async fn renew(&mut self) {
        if self.offer.stream() == Stream::Open {
            // The kubelet gets a moment to see the old stream's end, as in `mourn`.
            self.backoff.begin();
        }
        self.offer.end_streams();
        (self.registered, self.renewed) = (None, true);
        if self.kubelet.registration == Registration::Watcher {
            self.close().await;
        }
    }

    async fn close(&mut self) {
        self.offer.end_streams();
        self.registered = None;
        if let Some(server) = self.server.take() {
            server.stop(&self.socket).await;
        }
    }

    async fn end(mut self) {
        self.close().await;
    }
}
