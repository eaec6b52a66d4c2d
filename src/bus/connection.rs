//! A connection to NATS, and what the client library tells of it on the side.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, Subscriber};
use futures::StreamExt;
use futures::future::BoxFuture;
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::{Error, Options, login, window};
use crate::pipeline::{ComponentHealth, Status};

/// How long the server may take to send back what was sent to oneself.
const ECHO: Duration = Duration::from_secs(5);
/// Ends a subscription on the server at once and in the client never. The server reads at most nine digits here and
/// takes a longer number for none, which means now; the client counts up to it and so keeps the subscription.
const NOW_AND_NEVER: u64 = 10_000_000_000;

/// A client and what became of its connection. Clones are the same connection.
#[derive(Clone)]
pub struct Connection {
    pub client: Client,
    pub signs: Arc<Signs>,
}

impl Connection {
    /// A message to oneself: once it is back, the server has taken all that was sent before it, and the client has
    /// taken in all that the server had sent.
    pub(super) async fn echo(&self) -> Result<(), Error> {
        self.mark().await?.await
    }

    /// The same in two steps: sent when this comes back, and back when its future does.
    pub(super) async fn mark(&self) -> Result<BoxFuture<'static, Result<(), Error>>, Error> {
        let inbox = self.client.new_inbox();
        let subscribed = self.client.subscribe(inbox.clone()).await;
        let mut echo = subscribed.map_err(|source| Error::Subscribe { subject: inbox.clone(), source })?;
        let sent = self.client.publish(inbox.clone(), "echo".into()).await;
        sent.map_err(|source| Error::Publish { subject: inbox, source })?;
        Ok(Box::pin(async move {
            match tokio::time::timeout(ECHO, echo.next()).await {
                Ok(Some(_)) => Ok(()),
                _ => Err(Error::NoEcho { seconds: ECHO.as_secs() }),
            }
        }))
    }

    pub(super) fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected && !self.signs.has_ended()
    }

    /// Whether it stands, and whether all that came was read.
    pub fn health(&self) -> ComponentHealth {
        let state = self.client.connection_state();
        let dropped = self.signs.dropped();
        if self.signs.has_ended() {
            let message = "the client has ended; the log says why".to_owned();
            return ComponentHealth { status: Status::Down, message: Some(message) };
        }
        let status = match state {
            State::Connected if dropped == 0 => Status::Ok,
            State::Connected => Status::Degraded,
            State::Pending | State::Disconnected => Status::Down,
        };
        let lost = if dropped > 0 { format!("; {dropped} messages were dropped unread") } else { String::new() };
        let version = self.client.server_info().version;
        ComponentHealth { status, message: Some(format!("{state}, nats-server {version}{lost}")) }
    }

    /// Tells the server to send nothing more. What it sends until it has read that is taken in; an [`Self::echo`] says
    /// when that is.
    pub(super) async fn end(&self, subscription: &mut Subscriber) {
        if let Err(error) = subscription.unsubscribe_after(NOW_AND_NEVER).await {
            warn!("end a subscription: {error}");
        }
    }

    /// Takes no more messages from the server, and gives those that were under way to `each`.
    ///
    /// Not by `Subscriber::drain` of async-nats 0.51: it forgets the subscription the next time that its task wakes,
    /// which under load is before the server has read the UNSUB; what comes in between is thrown away. With it, each of
    /// eight runs of ten restarts under load lost requests; with this, none of 25 did.
    pub(super) async fn drain<F: Future<Output = ()>>(
        &self,
        mut from: Subscriber,
        each: impl Fn(async_nats::Message) -> F,
    ) {
        // Without a connection nothing is under way, and there is nobody to tell.
        if !self.is_connected() {
            return;
        }
        self.end(&mut from).await;
        {
            let mut echo = std::pin::pin!(self.echo());
            loop {
                tokio::select! {
                    message = from.next() => match message {
                        Some(message) => each(message).await,
                        None => return,
                    },
                    echoed = &mut echo => {
                        if let Err(error) = echoed {
                            warn!("what was under way may be lost: {error}");
                            return;
                        }
                        break;
                    }
                }
            }
        }
        if let Err(error) = from.unsubscribe().await {
            warn!("end a subscription: {error}");
        }
        while let Some(message) = from.next().await {
            each(message).await;
        }
    }
}

/// What the client library tells on the side.
#[derive(Default)]
pub struct Signs {
    dropped: AtomicU64,
    connected: watch::Sender<()>,
    denied: watch::Sender<Option<String>>,
    ended: watch::Sender<bool>,
}

/// Goes when the client's own task does.
struct Alive(Arc<Signs>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.ended.send_replace(true);
    }
}

impl Signs {
    /// How many messages the library dropped because it had no room for them: at least, for in a flood it also drops some
    /// of the events that are counted here. Zero only where none was dropped: see `overrun`. Above is an alarm:
    /// the door did not shed fast enough.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Comes back when the server has forbidden something, with its words. Only here does it say so: what is forbidden
    /// is left unanswered, and whoever asked would wait until the time is over.
    pub async fn denied(&self) -> String {
        let mut denied = self.denied.subscribe();
        match denied.wait_for(Option::is_some).await {
            Ok(said) => said.clone().unwrap_or_default(),
            // The sender is this very value.
            Err(_) => std::future::pending().await,
        }
    }

    /// Changes soon after each connect. In a flood the library drops such signs: `Client::statistics` counts them all.
    pub(super) fn connected(&self) -> watch::Receiver<()> {
        self.connected.subscribe()
    }

    /// Comes back when the client has ended for good and does not reconnect: async-nats 0.51 panics at a header with a
    /// carriage return in its value, and then still says that it is connected.
    pub(crate) async fn ended(&self) {
        // The sender is this very value.
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
    }

    pub(super) fn has_ended(&self) -> bool {
        *self.ended.borrow()
    }

    /// A subscription came to its limit and the server may have sent more: the library forgets it then, and does not tell
    /// of what it drops. How much that was nobody knows, so it counts as one.
    pub(super) fn overrun(&self) {
        self.note_dropped();
    }

    fn note_dropped(&self) {
        let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
        // One line for each doubling: a flood must not become a flood of lines.
        if dropped.is_power_of_two() {
            error!(nats.dropped = dropped, "the client library dropped requests: the reader is too slow");
        }
    }

    fn note(&self, event: &Event) {
        match event {
            Event::Connected => {
                self.connected.send_replace(());
                info!("connected to NATS");
            }
            Event::Disconnected => warn!("lost the connection to NATS; the client reconnects by itself"),
            Event::LameDuckMode => info!("the NATS server is about to stop; the client moves on"),
            Event::SlowConsumer(_) => self.note_dropped(),
            Event::ServerError(error) => {
                warn!("the NATS server says: {error}");
                let text = error.to_string();
                if text.to_lowercase().contains("permissions violation") {
                    self.denied.send_replace(Some(text));
                }
            }
            Event::ClientError(error) => warn!("the NATS client says: {error}"),
            Event::Draining | Event::Closed => {}
        }
    }
}

/// Connects once: whether to try again is the caller's to say. Afterwards the client reconnects by itself, for ever.
pub async fn connect(options: &Options) -> Result<Connection, Error> {
    options.check()?;
    let signs = Arc::new(Signs::default());
    let connected = connect_options(options, &signs)?.connect(options.urls.clone()).await;
    let client = connected.map_err(|source| {
        let urls = shown(&options.urls).join(", ");
        Error::Connect { urls, mend: mend(&source), source }
    })?;
    Ok(Connection { client, signs })
}

/// What a worker's connection is made with; `signs` is told what happens to it.
pub fn connect_options(options: &Options, signs: &Arc<Signs>) -> Result<ConnectOptions, Error> {
    let alive = Alive(signs.clone());
    let options = login::connect_options(options)?
        .name(&options.name)
        .custom_inbox_prefix(&options.inbox_prefix)
        .subscription_capacity(window::LIMIT)
        .ping_interval(options.ping_interval())
        .connection_timeout(Duration::from_secs(5))
        .max_reconnects(None)
        // Half a second at most: a server that came back is served within two.
        .reconnect_delay_callback(|attempt| Duration::from_millis(500.min(20 * attempt as u64)))
        .event_callback(move |event| {
            alive.0.note(&event);
            async {}
        });
    Ok(options)
}

/// What to do about a connection that failed.
fn mend(error: &async_nats::ConnectError) -> &'static str {
    let certificate = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source())
        .any(|cause| cause.to_string().to_lowercase().contains("certificate"));
    match error.kind() {
        ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
            "the server does not let this user in; check nats.user and its password, nats.credentials_file or nats.nkey_seed_file"
        }
        ConnectErrorKind::ServerParse => "write nats.urls as nats://host:4222 or tls://host:4222",
        ConnectErrorKind::Dns => "the name of the host is not known; check nats.urls",
        _ if certificate => {
            "the two do not trust each other's certificates; check nats.tls.ca_file, nats.tls.cert_file and the host's name"
        }
        ConnectErrorKind::Tls => "TLS could not be begun; check that the server serves it, and nats.tls",
        ConnectErrorKind::TimedOut => "no answer in time; check nats.urls, and nats.tls.first on both sides",
        _ => "check that the server runs, and nats.urls",
    }
}

/// The urls as they may be shown: without user and password.
pub fn shown(urls: &[String]) -> Vec<String> {
    let bare = |url: &String| match url.rsplit_once('@') {
        Some((before, host)) => {
            let scheme = before.split_once("://").map_or(String::new(), |(scheme, _)| format!("{scheme}://"));
            format!("{scheme}{host}")
        }
        None => url.clone(),
    };
    urls.iter().map(bare).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_password_in_a_url_is_never_shown() {
        let urls = ["nats://bob:se@cret@host:4222".to_owned(), "tls://other".to_owned()];
        assert_eq!(super::shown(&urls), ["nats://host:4222", "tls://other"]);
    }
}
