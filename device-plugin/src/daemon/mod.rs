//! The loop: what is told of a change becomes a look, a look becomes a list.
//!
//! Nothing runs by itself but what is due: with no event, no timed source and no check, the daemon sleeps until
//! the next look at everything.

mod ask;
mod due;
mod holding;
mod jobs;
mod reload;
mod slot;
mod tell;

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
use crate::config::Config;
use crate::metrics::Metrics;
use crate::service::Turns;
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

/// A look that takes longer hangs: what it was to find can't be known.
const LATE: Duration = Duration::from_mins(1);

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
    turns: Turns,
    /// The file's text, or what kept it from being read, that was refused.
    refused: Option<String>,
    /// The kubelet said what pods hold, and what of it nobody found is listed.
    remembered: bool,
    /// The kubelet is being asked.
    asking: bool,
    /// What was said last of a kubelet that does not answer: not to be said again.
    said: String,
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
            turns: Turns::default(),
            refused: None,
            remembered: false,
            asking: false,
            said: String::new(),
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
        daemon.ask_who_holds();
        daemon.look_where_dirty(false);
        daemon.look_at_file_later();
        daemon.greet();
        daemon
    }

    /// The folders that are watched, for the devices and for ourselves. To be called before a look, so that what
    /// changes during it is told.
    fn watch_folders(&mut self, anew: bool) {
        let kubelet = session::folder(&self.config.kubelet);
        // The folder above it tells of a folder that is made anew.
        let above = kubelet.parent().unwrap_or(kubelet);
        let mut folders = BTreeSet::from([kubelet.to_owned(), above.to_owned()]);
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
        let above = kubelet.parent().is_some_and(|above| told.folders.contains(above));
        if told.ended || above {
            self.watch_folders(false);
        }
        let kubelet = session::folder(&self.config.kubelet);
        if told.all || told.ended || above || (told.sockets && told.folders.contains(kubelet)) {
            self.order(|orders| orders.looks += 1);
            self.trim_later();
            if !self.remembered {
                self.ask_who_holds();
            }
        }
        if told.all || self.path.parent().is_some_and(|folder| told.folders.contains(folder)) {
            self.calm.get_or_insert_with(|| Instant::now() + CALM);
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
        self.label();
    }

    async fn stop(&mut self) {
        self.order(|orders| orders.stop = true);
        for slot in self.slots.drain(..) {
            slot.end().await;
        }
    }

    /// Where nothing tells of a change of the configuration's file.
    fn look_at_file_later(&mut self) {
        if self.watch.is_blind() {
            self.calm.get_or_insert_with(|| Instant::now() + BLIND);
        }
    }

    fn trim_later(&mut self) {
        if self.slots.len() > MANY {
            self.trim = Some(Instant::now() + REGISTERED);
        }
    }
}

fn complain(error: &Error) {
    warn!(hint = error.advice(), "{}", error.chain());
}
