//! What those see who ask over HTTP or gRPC how things are.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::holders;
use crate::metrics::Metrics;
use crate::service::Offer;

/// A question to the loop: it answers when it comes around.
pub type Ping = oneshot::Sender<()>;

/// A loop that takes longer hangs.
const ALIVE: Duration = Duration::from_secs(2);

/// The state, shared with the daemon's loop.
#[derive(Debug)]
pub struct Board {
    offers: RwLock<Vec<Arc<Offer>>>,
    metrics: Arc<Metrics>,
    pod_resources: PathBuf,
    pings: mpsc::Sender<Ping>,
}

/// How a resource stands with the kubelet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The kubelet has its list, and listens.
    Streamed,
    /// It does not, yet or any more.
    Waiting,
    /// No such resource is offered.
    Unknown,
}

impl Board {
    /// A board, and where the loop finds the questions.
    pub fn new(pod_resources: PathBuf) -> (Arc<Self>, mpsc::Receiver<Ping>) {
        let (pings, asked) = mpsc::channel(16);
        let board =
            Self { offers: RwLock::default(), metrics: Arc::new(Metrics::default()), pod_resources, pings };
        (Arc::new(board), asked)
    }

    /// What is offered from now on.
    pub fn offers(&self, offers: Vec<Arc<Offer>>) {
        *self.offers.write().unwrap_or_else(PoisonError::into_inner) = offers;
    }

    /// Where counts go.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Each resource and how it stands.
    pub fn standings(&self) -> Vec<(String, Standing)> {
        let offers = self.offers.read().unwrap_or_else(PoisonError::into_inner);
        let standing =
            |offer: &Arc<Offer>| if offer.is_known() { Standing::Streamed } else { Standing::Waiting };
        offers.iter().map(|offer| (offer.name().as_str().to_owned(), standing(offer))).collect()
    }

    /// How one stands.
    pub fn standing(&self, resource: &str) -> Standing {
        let found = self.standings().into_iter().find(|(name, _)| name == resource);
        found.map_or(Standing::Unknown, |(_, standing)| standing)
    }

    /// Whether the loop comes around.
    pub async fn is_alive(&self) -> bool {
        let (ping, answered) = oneshot::channel();
        let asked = async { self.pings.send(ping).await.is_ok() && answered.await.is_ok() };
        tokio::time::timeout(ALIVE, asked).await.unwrap_or(false)
    }

    /// The metrics, with what the kubelet says of holders now.
    pub async fn metrics_text(&self) -> String {
        if let Ok(Some(held)) = holders::ask(&self.pod_resources).await {
            for offer in self.offers.read().unwrap_or_else(PoisonError::into_inner).iter() {
                let count = held.get(offer.name().as_str()).map_or(0, std::collections::BTreeSet::len);
                self.metrics.held(offer.name(), count);
            }
        }
        self.metrics.text()
    }
}
