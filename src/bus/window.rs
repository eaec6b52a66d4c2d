//! A subscription that is never sent more than it can hold.
//!
//! The client library drops what does not fit into a subscription's buffer, without a word to the sender, and NATS has
//! no other brake for plain messages. But a subscription can be told to end after so many messages. So a subject is
//! listened on in slices of limited length, all in one queue group, and a new slice is begun when as many messages as it
//! holds have been taken. What comes on top meets no subscription: then the server itself tells the sender at once that
//! there is no responder, or gives the message to another worker. See `docs/decisions/0007-window.md`.

use std::future::poll_fn;
use std::task::Poll;

use async_nats::{Message, Subscriber};
use futures::StreamExt;
use futures::future::join_all;
use tracing::warn;

use super::{Connection, Error};

/// The slices of one subject.
pub(super) struct Window {
    connection: Connection,
    subject: String,
    /// Not only for sharing with other workers: slices without a group would each get every message.
    group: String,
    /// The oldest first; two or three.
    slices: Vec<Subscriber>,
    /// Messages in one slice.
    slice: usize,
    /// Messages that may be on their way or waiting here, at most.
    most: usize,
    /// Of them: how many may still come.
    open: usize,
}

impl Window {
    pub(super) async fn open(
        connection: &Connection,
        subject: String,
        group: String,
        most: usize,
    ) -> Result<Self, Error> {
        // Half: when one is used up and its successor on the way, another is there.
        let slice = (most / 2).max(1);
        let connection = connection.clone();
        let mut window = Self { connection, subject, group, slices: vec![], slice, most, open: 0 };
        window.fill().await?;
        Ok(window)
    }

    /// Begins the slices that there is room for. Not to be dropped halfway: what a new one was sent would be lost.
    pub(super) async fn refill(&mut self) {
        if let Err(error) = self.fill().await {
            warn!(subject = self.subject, "a subscription could not be renewed: {error}");
        }
    }

    /// `None` when the connection is closed. May be dropped at any time.
    pub(super) async fn next(&mut self) -> Option<Message> {
        let slices = &mut self.slices;
        let next = poll_fn(|cx| {
            let mut n = 0;
            while let Some(slice) = slices.get_mut(n) {
                match slice.poll_next_unpin(cx) {
                    Poll::Ready(Some(message)) => return Poll::Ready(Some(message)),
                    // Used up.
                    Poll::Ready(None) => drop(slices.remove(n)),
                    Poll::Pending => n += 1,
                }
            }
            if slices.is_empty() { Poll::Ready(None) } else { Poll::Pending }
        });
        let message = next.await?;
        self.open = self.open.saturating_sub(1);
        Some(message)
    }

    /// Takes no more messages, and gives those that were under way to `each`.
    pub(super) async fn drain<F: Future<Output = ()>>(self, each: impl Fn(Message) -> F) {
        let Self { connection, slices, .. } = self;
        join_all(slices.into_iter().map(|slice| connection.drain(slice, &each))).await;
    }

    async fn fill(&mut self) -> Result<(), Error> {
        while self.open + self.slice <= self.most.max(self.slice) {
            let (subject, group) = (self.subject.clone(), self.group.clone());
            let failed = |source| Error::Subscribe { subject: self.subject.clone(), source };
            let mut slice = self.connection.client.queue_subscribe(subject, group).await.map_err(failed)?;
            // Fails only where the connection is closed, and then nothing comes.
            let _ = slice.unsubscribe_after(self.slice as u64).await;
            self.slices.push(slice);
            self.open += self.slice;
        }
        Ok(())
    }
}
