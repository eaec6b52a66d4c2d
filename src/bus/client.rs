//! The other side of the door: what the command line asks with. It knows no more than any client does.

use std::pin::pin;
use std::time::Duration;

use async_nats::header::HeaderMap;
use async_nats::{Request, RequestErrorKind};
use futures::{FutureExt, StreamExt};
use serde::Serialize;

use super::job::progress_subject;
use super::wire::{ACCEPT_OBJECT_STORE, Progress};
use super::{Connection, Error, Options, connect, objects};
use crate::domain::{RequestId, Tenant};

/// A connection that asks. Cheap to clone.
#[derive(Clone)]
pub struct Client(pub(super) Connection);

/// What a worker said.
#[derive(Debug, Clone)]
pub struct Said {
    pub body: Vec<u8>,
    /// True where it is an error, by its header.
    pub is_error: bool,
}

impl Client {
    pub async fn connect(options: &Options) -> Result<Self, Error> {
        connect(options).await.map(Self)
    }

    /// Asks on `subject`, for a tenant other than the default on `subject.<tenant>`.
    pub async fn ask(
        &self,
        subject: &str,
        tenant: &Tenant,
        body: &impl Serialize,
        timeout: Duration,
    ) -> Result<Said, Error> {
        let body = serde_json::to_vec(body)?;
        self.ask_raw(subject, tenant, body, timeout).await
    }

    /// As [`Self::ask`], and hears what is told of it meanwhile at the progress subject of `id`, which stands in the body.
    pub async fn ask_told(
        &self,
        subject: &str,
        tenant: &Tenant,
        body: &impl Serialize,
        timeout: Duration,
        id: &RequestId,
        mut told: impl FnMut(Progress),
    ) -> Result<Said, Error> {
        let progress = progress_subject(tenant, id);
        let listening = self.0.client.subscribe(progress.clone()).await;
        // The question goes the same way after it, so the server knows it before.
        let mut listening = listening.map_err(|source| Error::Subscribe { subject: progress, source })?;
        let mut tell = |message: async_nats::Message| {
            if let Ok(progress) = serde_json::from_slice(&message.payload) {
                told(progress);
            }
        };
        let mut asking = pin!(self.ask(subject, tenant, body, timeout));
        let said = loop {
            tokio::select! {
                biased;
                Some(message) = listening.next() => tell(message),
                said = &mut asking => break said?,
            }
        };
        // It came before the answer and may not be read yet.
        while let Some(Some(message)) = listening.next().now_or_never() {
            tell(message);
        }
        Ok(said)
    }

    /// Asks with a body as it is, right or wrong. An answer too large for a message is fetched from where it is.
    pub async fn ask_raw(
        &self,
        subject: &str,
        tenant: &Tenant,
        body: Vec<u8>,
        timeout: Duration,
    ) -> Result<Said, Error> {
        let subject = if *tenant == Tenant::default() { subject.to_owned() } else { format!("{subject}.{tenant}") };
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_OBJECT_STORE, "true");
        let request = Request::new().payload(body.into()).timeout(Some(timeout)).headers(headers);
        let asked = self.0.client.send_request(subject.clone(), request).await;
        let message = asked.map_err(|error| match error.kind() {
            RequestErrorKind::NoResponders => Error::NoWorker { subject },
            RequestErrorKind::TimedOut => Error::NoAnswer { subject, seconds: timeout.as_secs_f64() },
            _ => Error::Ask { subject, source: error },
        })?;
        let header = |name| message.headers.as_ref().and_then(|h| h.get(name)).map(|value| value.as_str());
        let is_error = header("Nats-Service-Error-Code").is_some();
        let body = match (header(objects::BUCKET), header(objects::OBJECT)) {
            (Some(bucket), Some(name)) => objects::get(&self.0.client, bucket, name, timeout).await?,
            _ => message.payload.to_vec(),
        };
        Ok(Said { body, is_error })
    }
}
