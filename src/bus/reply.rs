//! What is sent back, and to whom it may be sent.
//!
//! A reply subject is a stranger's word. An empty body sent to `$JS.API.STREAM.DELETE.X` deletes that stream, and the
//! worker's own subjects would make it talk to itself. So replies go below allowed prefixes only, and never empty.

use async_nats::{Client, HeaderMap, Subject};
use tracing::warn;

use super::objects;
use super::streams::Provision;
use super::wire::{CORRELATION_ID, Causes, Code, Envelope, Error, Refusal, StoredAnswer, TRACEPARENT};
use crate::domain::{CorrelationId, Tenant};

/// Room that a reply's headers may take of the server's `max_payload`, in bytes. Ours are below 700.
pub(super) const HEADER_ROOM: usize = 1024;
/// The longest `Nats-Service-Error`, in characters; the body has all of it.
const ERROR_HEADER_CHARS: usize = 200;

/// Stands on every error and on no answer.
pub(super) const ERROR_CODE: &str = "Nats-Service-Error-Code";

/// A message as a header can carry it.
pub(super) fn header_text(message: &str) -> String {
    message.chars().filter(|c| !c.is_control()).take(ERROR_HEADER_CHARS).collect()
}

/// Which subjects may be answered to.
pub(super) struct Allowed {
    prefixes: Vec<String>,
    /// What this service listens on, without tenants.
    own: Vec<&'static str>,
}

impl Allowed {
    pub(super) fn new(prefixes: Vec<String>, own: Vec<&'static str>) -> Self {
        Self { prefixes, own }
    }

    pub(super) fn permits(&self, subject: &Subject) -> bool {
        let text = subject.as_str();
        let below = |prefix: &str| text.len() > prefix.len() && text.starts_with(prefix);
        let own = |base: &str| text.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        subject.is_valid()
            && !text.starts_with('$')
            && !text.split('.').any(|token| token == "*" || token == ">")
            && self.prefixes.iter().any(|prefix| below(prefix))
            && !self.own.iter().any(|base| own(base))
    }
}

/// The way back to one sender.
pub(super) struct Back {
    pub(super) to: Subject,
    pub(super) correlation_id: CorrelationId,
    traceparent: Option<String>,
    tenant: Tenant,
    /// The sender can fetch an answer from the object store.
    fetches: bool,
}

impl Back {
    /// `own` is the traceparent of the span under which the request is done here; without one the sender gets its own
    /// back.
    pub(super) fn new(to: Subject, envelope: &Envelope, own: Option<String>) -> Self {
        Self {
            to,
            correlation_id: envelope.correlation_id.clone(),
            traceparent: own.or_else(|| envelope.traceparent.clone()),
            tenant: envelope.tenant.clone(),
            fetches: envelope.fetches,
        }
    }

    /// Whether [`answer`](Self::answer) would have to store it first, which takes round trips.
    pub(super) fn must_store(&self, client: &Client, body: &[u8]) -> bool {
        self.fetches && body.len() > most(client)
    }

    /// Sends an answer, or where it is, or says that it is too large to be sent. `provision` says whether the place
    /// may be made.
    pub(super) async fn answer(&self, client: &Client, body: Vec<u8>, provision: Provision) -> Result<(), Unsent> {
        if body.len() <= most(client) {
            return self.send(client, self.headers(), body).await;
        }
        let refused = |more: &str| {
            let (found, most) = (body.len(), most(client));
            let message = format!("the answer has {found} bytes and this NATS server carries at most {most}; {more}");
            Err(Unsent::TooLarge(Refusal::new(Code::TooLarge, message)))
        };
        if !self.fetches {
            return refused("ask for less at a time, or with the header Accept-Object-Store");
        }
        let put = objects::put(client, &self.tenant, &self.correlation_id, &body, provision);
        match tokio::time::timeout(objects::LIMIT, put).await {
            Ok(Ok(object)) => self.stored(client, object, body.len()).await,
            Ok(Err(error)) => {
                warn!(error = %Causes(&error), "an answer could not be stored");
                refused("the object store does not take it; ask for less at a time")
            }
            Err(_) => {
                warn!("an answer could not be stored in {} s", objects::LIMIT.as_secs());
                refused("the object store does not take it; ask for less at a time")
            }
        }
    }

    async fn stored(&self, client: &Client, object: String, bytes: usize) -> Result<(), Unsent> {
        let at = StoredAnswer {
            bucket: objects::bucket(&self.tenant),
            object,
            bytes,
            correlation_id: self.correlation_id.to_string(),
        };
        let mut headers = self.headers();
        headers.insert(objects::BUCKET, at.bucket.as_str());
        headers.insert(objects::OBJECT, at.object.as_str());
        let body = serde_json::to_vec(&at).map_err(|error| Unsent::Failed(error.to_string()))?;
        self.send(client, headers, body).await
    }

    pub(super) async fn refuse(
        &self,
        client: &Client,
        refusal: &Refusal,
        retry_after_ms: Option<u64>,
    ) -> Result<(), Unsent> {
        let mut headers = self.error_headers(refusal);
        if let Some(ms) = retry_after_ms {
            headers.insert("Retry-After-Ms", ms.to_string());
        }
        let error: Error = refusal.to_error(&self.correlation_id);
        let body = serde_json::to_vec(&error).map_err(|error| Unsent::Failed(error.to_string()))?;
        self.send(client, headers, body).await
    }

    pub(super) fn error_headers(&self, refusal: &Refusal) -> HeaderMap {
        let mut headers = self.headers();
        headers.insert("Nats-Service-Error", header_text(&refusal.message));
        headers.insert(ERROR_CODE, refusal.code.status().to_string());
        headers
    }

    pub(super) fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(CORRELATION_ID, self.correlation_id.as_str());
        if let Some(traceparent) = &self.traceparent {
            headers.insert(TRACEPARENT, traceparent.as_str());
        }
        headers
    }

    async fn send(&self, client: &Client, headers: HeaderMap, body: Vec<u8>) -> Result<(), Unsent> {
        debug_assert!(!body.is_empty(), "an empty reply can be an order to the server");
        let sent = client.publish_with_headers(self.to.clone(), headers, body.into()).await;
        sent.map_err(|error| Unsent::Failed(error.to_string()))
    }
}

/// The largest body that the server carries with our headers.
pub(super) fn most(client: &Client) -> usize {
    client.max_payload().saturating_sub(HEADER_ROOM)
}

/// Why a reply did not leave.
pub(super) enum Unsent {
    TooLarge(Refusal),
    Failed(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_inbox_or_a_configured_subject_is_answered() {
        let prefixes = vec!["_INBOX.".to_owned(), "replies.".to_owned(), "execution.".to_owned()];
        let allowed = Allowed::new(prefixes, vec!["execution.request", "tandem.sync"]);
        let permits = |subject: &str| allowed.permits(&Subject::from(subject));
        for good in ["_INBOX.abc", "_INBOX.abc.1", "replies.me", "execution.requested"] {
            assert!(permits(good), "{good:?}");
        }
        for bad in [
            "$JS.API.STREAM.DELETE.X",
            "$JS.API.STREAM.PURGE.X",
            "$SYS.REQ.SERVER.PING",
            "$SRV.PING",
            "_INBOX",
            "_INBOX.",
            "_INBOX.*",
            "_INBOX.a.>",
            "_INBOX..a",
            "_INBOX.a b",
            "_INBOX.a\r\nPUB x 0",
            "_inbox.a",
            "execution.request",
            "execution.request.acme",
            "orders.new",
            "",
        ] {
            assert!(!permits(bad), "{bad:?}");
        }
    }
}
