//! The stream of lists, which tells when it ends: nobody else would.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use proto::EncodedList;
use tokio_stream::Stream;
use tokio_stream::wrappers::WatchStream;
use tonic::Status;

use super::Offer;

/// The lists of one resource, from the one of now on.
pub struct Lists {
    offer: Arc<Offer>,
    updates: WatchStream<Option<EncodedList>>,
    /// Ends with a value, when the kubelet is to come again.
    ended: WatchStream<()>,
    number: u64,
}

impl Lists {
    pub(super) fn open(offer: Arc<Offer>) -> Self {
        let (number, ended) = offer.stream_opened();
        let updates = WatchStream::new(offer.lists());
        Self { offer, updates, ended: WatchStream::from_changes(ended), number }
    }
}

impl Stream for Lists {
    type Item = Result<EncodedList, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if Pin::new(&mut self.ended).poll_next(context).is_ready() {
            return Poll::Ready(None);
        }
        loop {
            match Pin::new(&mut self.updates).poll_next(context) {
                // Nothing was found yet: nothing is said.
                Poll::Ready(Some(None)) => {}
                Poll::Ready(Some(Some(list))) => {
                    self.offer.metrics().sent(self.offer.name());
                    self.offer.stream_heard(self.number);
                    return Poll::Ready(Some(Ok(list)));
                }
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl Drop for Lists {
    /// Whoever closed it, this end or the other: the kubelet does not ask again by itself.
    fn drop(&mut self) {
        self.offer.stream_ended(self.number);
    }
}
