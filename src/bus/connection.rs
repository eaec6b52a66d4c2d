//! A connection to NATS, and what the client library tells of it on the side.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, ConnectOptions, Event, ServerAddr, Subscriber};
use futures::StreamExt;
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::{Error, Options};
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
        let inbox = self.client.new_inbox();
        let subscribed = self.client.subscribe(inbox.clone()).await;
        let mut echo = subscribed.map_err(|source| Error::Subscribe { subject: inbox.clone(), source })?;
        let sent = self.client.publish(inbox.clone(), "echo".into()).await;
        sent.map_err(|source| Error::Publish { subject: inbox, source })?;
        match tokio::time::timeout(ECHO, echo.next()).await {
            Ok(Some(_)) => Ok(()),
            _ => Err(Error::NoEcho { seconds: ECHO.as_secs() }),
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Whether it stands, and whether all that came was read.
    pub fn health(&self) -> ComponentHealth {
        let state = self.client.connection_state();
        let dropped = self.signs.dropped();
        let status = match state {
            State::Connected if dropped == 0 => Status::Ok,
            State::Connected => Status::Degraded,
            State::Pending | State::Disconnected => Status::Down,
        };
        let lost = if dropped > 0 { format!("; {dropped} messages were dropped unread") } else { String::new() };
        let version = self.client.server_info().version;
        ComponentHealth { status, message: Some(format!("{state}, nats-server {version}{lost}")) }
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
        if self.client.connection_state() != State::Connected {
            return;
        }
        if let Err(error) = from.unsubscribe_after(NOW_AND_NEVER).await {
            warn!("end a subscription: {error}");
        }
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
pub struct Signs {
    dropped: AtomicU64,
    connected: watch::Sender<()>,
}

impl Signs {
    /// How many messages the library dropped because a subscription's buffer was full: at least, for in a flood it
    /// also drops some of the events that are counted here. Above zero is an alarm: the door did not shed fast enough.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Changes soon after each connect. In a flood the library drops such signs: `Client::statistics` counts them all.
    pub(super) fn connected(&self) -> watch::Receiver<()> {
        self.connected.subscribe()
    }

    fn note(&self, event: &Event) {
        match event {
            Event::Connected => {
                self.connected.send_replace(());
                info!("connected to NATS");
            }
            Event::Disconnected => warn!("lost the connection to NATS; the client reconnects by itself"),
            Event::LameDuckMode => info!("the NATS server is about to stop; the client moves on"),
            Event::SlowConsumer(_) => {
                let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
                // One line for each doubling: a flood must not become a flood of lines.
                if dropped.is_power_of_two() {
                    error!(nats.dropped = dropped, "the client library dropped requests: the reader is too slow");
                }
            }
            Event::ServerError(error) => warn!("the NATS server says: {error}"),
            Event::ClientError(error) => warn!("the NATS client says: {error}"),
            Event::Draining | Event::Closed => {}
        }
    }
}

/// Connects once: whether to try again is the caller's to say. Afterwards the client reconnects by itself, for ever.
pub async fn connect(options: &Options) -> Result<Connection, Error> {
    options.check()?;
    let signs = Arc::new(Signs { dropped: AtomicU64::new(0), connected: watch::Sender::new(()) });
    let client = connect_options(options, &signs)
        .connect(options.urls.clone())
        .await
        .map_err(|source| Error::Connect { urls: shown(&options.urls).join(", "), source })?;
    Ok(Connection { client, signs })
}

/// What a worker's connection is made with; `signs` is told what happens to it.
pub fn connect_options(options: &Options, signs: &Arc<Signs>) -> ConnectOptions {
    let signs = signs.clone();
    credentials(&options.urls)
        .name(&options.name)
        .custom_inbox_prefix(&options.inbox_prefix)
        .subscription_capacity(options.subscription_capacity)
        .ping_interval(options.ping_interval())
        .connection_timeout(Duration::from_secs(5))
        .max_reconnects(None)
        // Half a second at most: a server that came back is served within two.
        .reconnect_delay_callback(|attempt| Duration::from_millis(500.min(20 * attempt as u64)))
        .event_callback(move |event| {
            signs.note(&event);
            async {}
        })
}

/// User and password (`nats://user:password@host`), or a token (`nats://token@host`), of the first url that has some:
/// async-nats 0.51 leaves them unread.
fn credentials(urls: &[String]) -> ConnectOptions {
    let options = ConnectOptions::new();
    let mut addresses = urls.iter().filter_map(|url| url.parse::<ServerAddr>().ok());
    let Some(address) = addresses.find(ServerAddr::has_user_pass) else { return options };
    let user = unescaped(address.username().unwrap_or_default());
    match address.password() {
        Some(password) => options.user_and_password(user, unescaped(password)),
        None => options.token(user),
    }
}

/// `%40` as `@`, as URLs write what would end a password. What is no such escape stays.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let byte = hex.filter(|hex| *first == b'%' && hex.bytes().all(|b| b.is_ascii_hexdigit()));
        match byte.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
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
    fn a_password_is_read_as_urls_write_it() {
        for (written, meant) in [("a%40b%3A", "a@b:"), ("100%", "100%"), ("%zz%4", "%zz%4"), ("%C3%A4", "ä"), ("", "")]
        {
            assert_eq!(super::unescaped(written), meant);
        }
    }

    #[test]
    fn a_password_in_a_url_is_never_shown() {
        let urls = ["nats://bob:se@cret@host:4222".to_owned(), "tls://other".to_owned()];
        assert_eq!(super::shown(&urls), ["nats://host:4222", "tls://other"]);
    }
}
