//! A connection to NATS, and what the client library tells of it on the side.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event};
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::{Error, Options};

/// A client and what became of its connection. Clones are the same connection.
#[derive(Clone)]
pub struct Connection {
    pub client: Client,
    pub signs: Arc<Signs>,
}

/// What the client library tells on the side.
pub struct Signs {
    dropped: AtomicU64,
    connects: watch::Sender<u64>,
}

impl Signs {
    /// How many messages the library dropped because a subscription's buffer was full: at least, for in a flood it
    /// also drops some of the events that are counted here. Above zero is an alarm: the door did not shed fast enough.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Changes after each reconnect.
    pub(super) fn reconnects(&self) -> watch::Receiver<u64> {
        self.connects.subscribe()
    }

    fn note(&self, event: &Event) {
        match event {
            Event::Connected => {
                self.connects.send_modify(|n| *n += 1);
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
    let signs = Arc::new(Signs { dropped: AtomicU64::new(0), connects: watch::Sender::new(0) });
    let client = connect_options(options, &signs)
        .connect(options.urls.clone())
        .await
        .map_err(|source| Error::Connect { urls: shown(&options.urls).join(", "), source })?;
    Ok(Connection { client, signs })
}

/// What a worker's connection is made with; `signs` is told what happens to it.
pub fn connect_options(options: &Options, signs: &Arc<Signs>) -> ConnectOptions {
    let signs = signs.clone();
    ConnectOptions::new()
        .name(&options.name)
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
