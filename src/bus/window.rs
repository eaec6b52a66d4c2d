//! A subscription that is sent no more than it can hold.
//!
//! The client library drops what it has no room for, without a word to the sender, and NATS has no other brake for plain
//! messages than to end a subscription. So where more waits here than is wanted, the subscription is ended, and a new
//! one is begun when half of that was read. What comes meanwhile meets no subscription: then the server itself tells the
//! sender at once that there is no responder, or gives the message to another worker.
//!
//! Until the server has read that a subscription ends it sends more. All of that is taken: the client keeps an ended
//! subscription until the server has sent the last of it, and there is room for far more than comes in such a moment.
//! See `docs/decisions/0007-window.md`.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use async_nats::{Message, Subscriber};
use futures::future::{BoxFuture, join, join_all};
use futures::{FutureExt, StreamExt};
use tokio::task::coop::{consume_budget, unconstrained};
use tracing::warn;

use super::{Connection, Error};

/// Messages of one subscription, at most: then the server ends it by itself, and the client forgets it. The library's
/// buffer has room for as many. Nothing else holds the server back where the client's task does not come to write; and
/// it must not be reached while the server may still send, or what comes then is lost.
pub(super) const LIMIT: usize = 65_536;
/// Bytes that may wait, as [`Window::most`] messages may.
const MOST_BYTES: usize = 32 << 20;
/// Messages between two looks at what has come.
const LOOK: usize = 16;
/// Messages of a subscription before the one that it follows is ended. The server looks for a message's receivers and gives
/// it to one of them in two steps: if that one ended in between it finds none, though another has begun.
const OVERLAP: usize = 1_024;
/// Subscriptions that have ended and may still be sent something, at most.
const ENDING: usize = 4;

/// The subscriptions to one subject, one after the other.
pub(super) struct Window {
    connection: Connection,
    subject: String,
    /// Not only for sharing with other workers: while one subscription takes another's place, each would get every message.
    group: String,
    /// Messages that may wait.
    most: usize,
    live: Option<Slice>,
    /// The one that `live` follows, until it may end.
    before: Option<Slice>,
    /// The server was told that they end.
    ending: Vec<Slice>,
    waiting: VecDeque<Message>,
    bytes: usize,
    /// Messages since the last look.
    taken: usize,
    /// A subscription came to its limit, and the server may have sent more before it had read what the limit is.
    overrun: bool,
}

/// One subscription.
struct Slice {
    messages: Subscriber,
    received: usize,
    /// The server has read the limit, and had sent less until then.
    limited: Mark,
    /// The server has read that it ends, and all that it had sent until then has come.
    ended: Option<Mark>,
}

/// What the server sends back in its turn: see [`Connection::mark`].
enum Mark {
    Awaited(BoxFuture<'static, Result<(), Error>>),
    Came,
    Missing,
}

impl Window {
    pub(super) async fn open(
        connection: &Connection,
        subject: String,
        group: String,
        most: usize,
    ) -> Result<Self, Error> {
        let mut window = Self {
            connection: connection.clone(),
            subject,
            group,
            most,
            live: None,
            before: None,
            ending: vec![],
            waiting: VecDeque::new(),
            bytes: 0,
            taken: 0,
            overrun: false,
        };
        window.begin().await?;
        Ok(window)
    }

    /// Ends a subscription where too much waits, begins one where there is room. False where the connection is closed.
    /// Not to be dropped halfway: what a new subscription was sent would be lost.
    pub(super) async fn refill(&mut self) -> bool {
        if self.waiting.len() > self.most || self.bytes > MOST_BYTES {
            for slice in [self.before.take(), self.live.take()].into_iter().flatten() {
                self.end(slice).await;
            }
        } else if self.may_begin() {
            if let Some(before) = self.before.take() {
                self.end(before).await;
            }
            self.before = self.live.take();
            if let Err(error) = self.begin().await {
                warn!(subject = self.subject, "a subscription could not be renewed: {error}");
                return false;
            }
            if std::mem::take(&mut self.overrun) {
                self.connection.signs.overrun();
            }
        } else if self.live.as_ref().is_some_and(|live| live.received >= OVERLAP)
            && let Some(before) = self.before.take()
        {
            self.end(before).await;
        }
        true
    }

    /// `None` where nothing waits and there is room to begin anew: see [`Self::refill`]. May be dropped at any time.
    pub(super) async fn next(&mut self) -> Option<Message> {
        // What follows takes no part in tokio's fairness, for it must see all that has come.
        consume_budget().await;
        unconstrained(poll_fn(|cx| self.poll_next(cx))).await
    }

    /// Takes no more messages, and gives those that were under way to `each`.
    pub(super) async fn drain<F: Future<Output = ()>>(self, each: impl Fn(Message) -> F) {
        let Self { connection, live, before, ending, waiting, .. } = self;
        let slices = ending.into_iter().chain(before).chain(live);
        let came = async {
            for message in waiting {
                each(message).await;
            }
        };
        join(came, join_all(slices.map(|slice| connection.drain(slice.messages, &each)))).await;
    }

    fn may_begin(&self) -> bool {
        match &self.live {
            // Long before the limit, so that the server never comes to it.
            Some(slice) => slice.received >= LIMIT / 2,
            None => {
                let room = self.waiting.len() <= self.most / 2 && self.bytes <= MOST_BYTES / 2;
                room && self.ending.len() < ENDING
            }
        }
    }

    async fn begin(&mut self) -> Result<(), Error> {
        let failed = |source| Error::Subscribe { subject: self.subject.clone(), source };
        let (client, subject, group) = (&self.connection.client, self.subject.clone(), self.group.clone());
        let mut messages = client.queue_subscribe(subject, group).await.map_err(failed)?;
        // Fails only where the connection is closed, and then nothing comes.
        let _ = messages.unsubscribe_after(LIMIT as u64).await;
        let limited = Mark::of(self.connection.mark().await);
        self.live = Some(Slice { messages, received: 0, limited, ended: None });
        Ok(())
    }

    async fn end(&mut self, mut slice: Slice) {
        self.connection.end(&mut slice.messages).await;
        slice.ended = Some(Mark::of(self.connection.mark().await));
        self.ending.push(slice);
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        if self.waiting.is_empty() || self.taken >= LOOK {
            self.taken = 0;
            self.look(cx);
        }
        match self.waiting.pop_front() {
            Some(message) => {
                self.taken += 1;
                self.bytes = self.bytes.saturating_sub(message.length);
                Poll::Ready(Some(message))
            }
            None if self.live.is_none() && self.may_begin() => Poll::Ready(None),
            None => Poll::Pending,
        }
    }

    /// Takes in all that has come.
    fn look(&mut self, cx: &mut Context<'_>) {
        // The older ones first, so that the order stays.
        let mut n = 0;
        while let Some(slice) = self.ending.get_mut(n) {
            // Asked before looking: what came before the mark is there by now.
            let ended = slice.ended.as_mut().is_none_or(|ended| ended.poll(cx).is_ready());
            let open = slice.take(&mut self.waiting, &mut self.bytes, cx);
            self.overrun |= !open && !slice.limited.has_come(cx);
            if ended && let Some(Mark::Missing) = slice.ended {
                warn!(subject = self.subject, "the server does not say that a subscription has ended");
                // What it still sends finds nobody here.
                self.overrun = true;
            }
            if open && !ended {
                n += 1;
            } else {
                self.ending.remove(n);
            }
        }
        for served in [&mut self.before, &mut self.live] {
            if let Some(slice) = served
                && !slice.take(&mut self.waiting, &mut self.bytes, cx)
            {
                self.overrun |= !slice.limited.has_come(cx);
                *served = None;
            }
        }
    }
}

impl Slice {
    /// Moves what has come to `waiting`. False where nothing comes any more.
    fn take(&mut self, waiting: &mut VecDeque<Message>, bytes: &mut usize, cx: &mut Context<'_>) -> bool {
        // Polled so that its mark is taken when it comes, and does not time out.
        let _ = self.limited.poll(cx);
        loop {
            match self.messages.poll_next_unpin(cx) {
                Poll::Ready(Some(message)) => {
                    self.received += 1;
                    *bytes += message.length;
                    waiting.push_back(message);
                }
                Poll::Ready(None) => return false,
                Poll::Pending => return true,
            }
        }
    }
}

impl Mark {
    fn of(sent: Result<BoxFuture<'static, Result<(), Error>>, Error>) -> Self {
        sent.map_or(Self::Missing, Self::Awaited)
    }

    /// Ready when it has come, or will not.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Self::Awaited(mark) = self {
            *self = match ready!(mark.poll_unpin(cx)) {
                Ok(()) => Self::Came,
                Err(_) => Self::Missing,
            };
        }
        Poll::Ready(())
    }

    fn has_come(&mut self, cx: &mut Context<'_>) -> bool {
        self.poll(cx).is_ready() && matches!(self, Self::Came)
    }
}
