//! The loop: what is told of a change becomes a look, a look becomes a list.
//!
//! Nothing runs by itself but what is due: with no event, no timed source and no check, the daemon sleeps until
//! the next look at everything.

mod ask;
mod due;
mod jobs;
mod reload;
mod slot;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use node::{Context, Error, Kind, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::board::{Board, Ping};
use crate::cdi;
use crate::config::{Config, Registration};
use crate::features;
use crate::holders::{self, Held};
use crate::metrics::Metrics;
use crate::session;
use crate::watch::{Told, Watch};

pub use ask::{lock, lock_path};
use jobs::{Done, Workers};
use slot::Slot;

/// How long a configuration has to be left alone before it is read again: editors write in several steps.
const CALM: Duration = Duration::from_millis(50);

/// How often everything is looked at where nothing tells of changes.
const BLIND: Duration = Duration::from_secs(2);

/// From so many resources on, their registrations need memory that is worth giving back, and are done after this time.
const MANY: usize = 50;
const REGISTERED: Duration = Duration::from_secs(1);

/// The daemon's state.
pub struct Daemon {
    path: PathBuf,
    text: String,
    config: Config,
    metrics: Arc<Metrics>,
    board: Arc<Board>,
    watch: Watch,
    slots: Vec<Slot>,
    done: mpsc::UnboundedSender<Done>,
    workers: Workers,
    /// When what is dirty is looked at.
    settled: Option<Instant>,
    /// When the configuration's file is read again.
    calm: Option<Instant>,
    /// When the kubelet is asked who holds what is gone.
    part: Option<Instant>,
    /// When memory that many registrations needed is given back.
    trim: Option<Instant>,
    /// Devices of two resources that were told of.
    overlaps: BTreeSet<String>,
}

/// What wakes the loop.
enum Woken {
    Told(Told),
    Done(Done),
    Ping(Ping),
    Due,
    Reload,
    Stop,
}

/// Offers what the configuration at `path` says until SIGTERM or SIGINT. `text` and `config` are its content.
pub async fn run(path: &Path, text: String, config: Config) -> Result<()> {
    let mut signals = Signals::new()?;
    let (done, mut finished) = mpsc::unbounded_channel();
    let (board, mut pings) = Board::new(config.kubelet.pod_resources.clone());
    let mut daemon = Daemon::start(path, text, config, board, done);
    let http = crate::http::serve(&daemon.config.http, daemon.board.clone())?;
    loop {
        let due = daemon.next_due();
        let woken = tokio::select! {
            biased;
            woken = signals.next() => woken,
            told = daemon.watch.told() => Woken::Told(told),
            Some(done) = finished.recv() => Woken::Done(done),
            Some(ping) = pings.recv() => Woken::Ping(ping),
            () = until(due) => Woken::Due,
        };
        match woken {
            Woken::Told(told) => daemon.told(&told),
            Woken::Done(done) => daemon.take(done),
            // Whoever asked has given up where it can't be answered.
            Woken::Ping(ping) => drop(ping.send(())),
            Woken::Due => {}
            Woken::Reload => daemon.calm = Some(Instant::now()),
            Woken::Stop => break,
        }
        daemon.do_what_is_due().await;
    }
    info!("stopping");
    daemon.stop().await;
    http.stop();
    Ok(())
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        let on = |kind| signal(kind).doing(Kind::Kernel, || "wait for signals".to_owned());
        Ok(Self {
            term: on(SignalKind::terminate())?,
            int: on(SignalKind::interrupt())?,
            hup: on(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Woken {
        tokio::select! {
            _ = self.term.recv() => Woken::Stop,
            _ = self.int.recv() => Woken::Stop,
            _ = self.hup.recv() => Woken::Reload,
        }
    }
}

impl Daemon {
    fn start(
        path: &Path,
        text: String,
        config: Config,
        board: Arc<Board>,
        done: mpsc::UnboundedSender<Done>,
    ) -> Self {
        let metrics = board.metrics().clone();
        metrics.reloaded(true);
        let mut daemon = Self {
            path: path.to_owned(),
            text,
            config,
            metrics,
            board,
            watch: Watch::start(),
            slots: Vec::new(),
            done,
            workers: Workers::default(),
            settled: None,
            calm: None,
            part: None,
            trim: None,
            overlaps: BTreeSet::new(),
        };
        for resource in daemon.config.resources.clone() {
            daemon.slots.push(daemon.slot(resource));
        }
        daemon.announce();
        daemon.look_where_dirty(false);
        daemon.greet();
        daemon
    }

    fn greet(&self) {
        let socket = self.config.kubelet.device_plugins.join("kubelet.sock");
        let direct = self.config.kubelet.registration == Registration::Direct;
        info!(resources = self.slots.len(), "started");
        if direct && !socket.exists() {
            info!(socket = %socket.display(), "the kubelet is not there yet: waiting for it");
        }
    }

    /// The folders that are watched, for the devices and for ourselves. To be called before a look, so that what
    /// changes during it is told.
    fn watch_folders(&mut self, anew: bool) {
        let mut folders: BTreeSet<PathBuf> =
            BTreeSet::from([session::folder(&self.config.kubelet).to_owned()]);
        let mut contents: BTreeSet<PathBuf> = self.path.parent().map(Path::to_owned).into_iter().collect();
        for slot in &self.slots {
            folders.extend(slot.watches.folders.iter().cloned());
            contents.extend(slot.watches.contents.iter().cloned());
        }
        self.watch.folders(&folders, &contents, anew);
    }

    fn told(&mut self, told: &Told) {
        self.metrics.announced(told.uevents);
        let kubelet = session::folder(&self.config.kubelet);
        if told.all || (told.sockets && told.folders.contains(kubelet)) {
            self.order(|orders| orders.looks += 1);
            self.trim_later();
        }
        if told.all || self.path.parent().is_some_and(|folder| told.folders.contains(folder)) {
            self.calm = Some(Instant::now() + CALM);
        }
        let mut any = false;
        for slot in &mut self.slots {
            if told.all || slot.wants(told) {
                slot.dirty = true;
                any = true;
            }
        }
        if any {
            self.settled.get_or_insert_with(|| Instant::now() + self.config.discovery.debounce.duration());
        }
    }

    fn order(&self, change: impl Fn(&mut session::Orders)) {
        for slot in &self.slots {
            slot.orders.send_modify(&change);
        }
    }

    /// Tells who asks over HTTP what is offered, and takes away what is not any more.
    fn announce(&self) {
        self.board.offers(self.slots.iter().map(|slot| slot.offer.clone()).collect());
        if let Err(error) = cdi::sweep(&self.config.host, &self.config.resources) {
            complain(&error);
        }
    }

    /// Tells node-feature-discovery what there is.
    fn label(&self) {
        let Some(path) = &self.config.feature_file else { return };
        let healthy = |slot: &Slot| slot.offer.with(|resource, inventory| inventory.counts(resource).0);
        let text = features::text(self.slots.iter().map(|slot| (slot.offer.name(), healthy(slot))));
        if let Err(error) = features::write(path, &text) {
            complain(&error);
        }
    }

    async fn stop(&mut self) {
        self.order(|orders| orders.stop = true);
        for slot in self.slots.drain(..) {
            slot.end().await;
        }
    }

    /// Asks the kubelet who holds what is gone. It may take its time.
    fn ask_who_holds(&mut self) {
        self.part = None;
        let (socket, done) = (self.config.kubelet.pod_resources.clone(), self.done.clone());
        tokio::spawn(async move {
            let held = holders::ask(&socket).await;
            let _ = done.send(Done::Asked { held });
        });
    }

    /// Lets go what nobody holds. Where the kubelet did not say who holds what, everything may be held.
    fn part(&mut self, held: Result<Option<Held>>) {
        let then = Instant::now().checked_sub(self.config.discovery.forget_after.duration());
        match (held, then) {
            (Ok(Some(held)), Some(then)) => {
                for slot in &self.slots {
                    let ours = held.get(slot.offer.name().as_str());
                    slot.offer.part(then, &|id| ours.is_some_and(|ids| ids.contains(id)));
                }
            }
            (Ok(_), _) => {}
            (Err(error), _) => complain(&error),
        }
    }

    fn trim_later(&mut self) {
        if self.slots.len() > MANY {
            self.trim = Some(Instant::now() + REGISTERED);
        }
    }

    fn part_later(&mut self) {
        let gone = self.slots.iter().any(|slot| slot.offer.with(|_, inventory| inventory.has_gone()));
        if gone && self.part.is_none() {
            self.part = Some(Instant::now() + self.config.discovery.forget_after.duration());
        }
    }
}

fn complain(error: &Error) {
    warn!(hint = error.advice(), "{}", error.chain());
}
