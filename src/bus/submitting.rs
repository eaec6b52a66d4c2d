//! The other side of durable work: to submit, to follow, to fetch results, and to look after dead letters.

use std::time::Duration;

use async_nats::jetstream::context::{Context, PublishErrorKind};
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{DirectGetErrorKind, Stream};
use async_nats::{HeaderMap, Message, Subscriber, jetstream};
use futures::StreamExt;
use serde::Serialize;
use tokio::time::Instant;

use super::client::{Client, Said};
use super::dead::header;
use super::job::{ID, SEQUENCE, progress_subject, result_subject};
use super::reply::ERROR_CODE;
use super::streams::{DEAD, RESULT};
use super::submit::SUBJECT;
use super::wire::{DEADLINE, Progress};
use super::{Error, dead};
use crate::domain::{RequestId, Tenant};

/// Between looks for a result that was not heard of: the connection may have been away.
const LOOK: Duration = Duration::from_secs(2);

/// What the stream said to a submit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Submitted {
    /// Its place in the stream.
    pub sequence: u64,
    /// The same id was submitted just before; this is that one's place.
    pub duplicate: bool,
}

/// Listens to one submit. To be begun before it is submitted.
pub struct Followed {
    client: Client,
    tenant: Tenant,
    id: RequestId,
    results: Subscriber,
    progress: Subscriber,
}

/// A submit that was set aside.
#[derive(Debug, Clone, Serialize)]
pub struct DeadLetter {
    /// Its place among the dead letters.
    pub sequence: u64,
    pub tenant: String,
    pub id: String,
    /// The code of the error.
    pub reason: String,
    pub message: String,
    /// When it was set aside, in milliseconds since the Unix epoch.
    pub at_ms: Option<i64>,
    pub attempts: Option<u32>,
    /// What it was submitted on.
    pub subject: String,
    /// Its place in the stream of submits.
    pub submitted: Option<u64>,
    /// As it came; `null` where it was left out or is no text.
    pub body: Option<String>,
    #[serde(skip)]
    raw: Vec<u8>,
    #[serde(skip)]
    headers: HeaderMap,
}

impl Client {
    fn jetstream(&self) -> Context {
        let mut context = jetstream::new(self.0.client.clone());
        context.set_timeout(Duration::from_secs(5));
        context
    }

    /// Submits a body whose `id` is `id`. When this returns, it survives whatever happens to workers and servers.
    pub async fn submit(&self, tenant: &Tenant, id: &RequestId, body: Vec<u8>) -> Result<Submitted, Error> {
        let subject = match *tenant == Tenant::default() {
            true => SUBJECT.to_owned(),
            false => format!("{SUBJECT}.{tenant}"),
        };
        let mut headers = HeaderMap::new();
        // The server knows these of all tenants together.
        headers.insert("Nats-Msg-Id", format!("{tenant}.{id}"));
        self.publish(subject, headers, body).await
    }

    async fn publish(&self, subject: String, headers: HeaderMap, body: Vec<u8>) -> Result<Submitted, Error> {
        let failed = |error: jetstream::context::PublishError| match error.kind() {
            PublishErrorKind::StreamNotFound => {
                Error::Streams { wrong: "nothing on this NATS server keeps submits; start a worker".to_owned() }
            }
            _ => Error::JetStream { action: "submit".to_owned(), source: error.into() },
        };
        let sent = self.jetstream().publish_with_headers(subject, headers, body.into()).await.map_err(failed)?;
        let taken = sent.await.map_err(failed)?;
        Ok(Submitted { sequence: taken.sequence, duplicate: taken.duplicate })
    }

    /// Begins to listen to what becomes of a submit.
    pub async fn follow(&self, tenant: &Tenant, id: &RequestId) -> Result<Followed, Error> {
        let client = &self.0.client;
        let listen = |subject: String| async move {
            let listened = client.subscribe(subject.clone()).await;
            listened.map_err(|source| Error::Subscribe { subject, source })
        };
        let results = listen(result_subject(tenant, id)).await?;
        let progress = listen(progress_subject(tenant, id)).await?;
        // The submit goes the same way after them, so the server knows both before it.
        Ok(Followed { client: self.clone(), tenant: tenant.clone(), id: id.clone(), results, progress })
    }

    /// The kept result of a submit; `None` where there is none, or none yet.
    pub async fn result(&self, tenant: &Tenant, id: &RequestId) -> Result<Option<Said>, Error> {
        tokio::select! {
            kept = self.last_result(tenant, id) => Ok(kept?.map(|(said, _)| said)),
            said = self.0.signs.denied() => Err(Error::MayNotFetch { said }),
        }
    }

    async fn last_result(&self, tenant: &Tenant, id: &RequestId) -> Result<Option<(Said, u64)>, Error> {
        let stream = self.stream(RESULT).await?;
        match stream.direct_get_last_for_subject(result_subject(tenant, id)).await {
            Ok(kept) => Ok(Some((said(&kept.headers, &kept.payload), sequence(&kept.headers)))),
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::JetStream { action: "fetch a result".to_owned(), source: error.into() }),
        }
    }

    async fn stream(&self, name: &str) -> Result<Stream<()>, Error> {
        let found = self.jetstream().get_stream_no_info(name).await;
        found.map_err(|error| Error::JetStream { action: format!("find the stream {name}"), source: error.into() })
    }

    /// The dead letters of a tenant, or of all, from the oldest; at most `limit`.
    pub async fn dead_letters(&self, tenant: Option<&Tenant>, limit: usize) -> Result<Vec<DeadLetter>, Error> {
        let stream = self.stream(DEAD).await?;
        let below = tenant.map_or("execution.dead.>".to_owned(), |tenant| format!("execution.dead.{tenant}.>"));
        let (mut letters, mut next) = (vec![], 1);
        while letters.len() < limit {
            match stream.direct_get_next_for_subject(below.clone(), Some(next)).await {
                Ok(kept) => {
                    next = kept.sequence + 1;
                    letters.push(DeadLetter::of(kept));
                }
                Err(error) if error.kind() == DirectGetErrorKind::NotFound => break,
                Err(error) => {
                    return Err(Error::JetStream { action: "read the dead letters".to_owned(), source: error.into() });
                }
            }
        }
        Ok(letters)
    }

    /// One dead letter by its place; `None` where there is none.
    pub async fn dead_letter(&self, sequence: u64) -> Result<Option<DeadLetter>, Error> {
        match self.stream(DEAD).await?.direct_get(sequence).await {
            Ok(kept) => Ok(Some(DeadLetter::of(kept))),
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::JetStream { action: "read a dead letter".to_owned(), source: error.into() }),
        }
    }

    /// Submits a dead letter again, under its id and without the deadline that it had, and takes it from the dead letters.
    /// Comes with what kept it from being taken away, should something have.
    pub async fn requeue(&self, letter: &DeadLetter) -> Result<(Submitted, Option<Error>), Error> {
        let mut headers = HeaderMap::new();
        for (name, values) in letter.headers.iter() {
            let name: &str = name.as_ref();
            if !name.starts_with("Nats-") && !name.starts_with("Dead-") && name != DEADLINE {
                values.iter().for_each(|value| headers.append(name, value.as_str()));
            }
        }
        headers.insert(ID, letter.id.as_str());
        // Sent twice, it is submitted once.
        headers.insert("Nats-Msg-Id", format!("requeue-{}-{}", letter.sequence, letter.at_ms.unwrap_or(0)));
        let subject = match letter.tenant == Tenant::default().as_str() {
            true => SUBJECT.to_owned(),
            false => format!("{SUBJECT}.{}", letter.tenant),
        };
        let submitted = self.publish(subject, headers, letter.raw.clone()).await?;
        let removed = self.stream(DEAD).await?.delete_message(letter.sequence).await;
        let left = removed.err().map(|error| Error::JetStream {
            action: "take a letter from the dead ones".to_owned(),
            source: error.into(),
        });
        Ok((submitted, left))
    }
}

impl Followed {
    /// Waits for the result of what was submitted, and hands on what is told meanwhile.
    pub async fn result(
        mut self,
        submitted: Submitted,
        timeout: Duration,
        mut told: impl FnMut(Progress),
    ) -> Result<Said, Error> {
        let end = Instant::now() + timeout;
        let mut look = Instant::now();
        loop {
            tokio::select! {
                Some(message) = self.results.next() => {
                    let headers = message.headers.clone().unwrap_or_default();
                    if let Some(said) = of(submitted, said(&headers, &message.payload), sequence(&headers)) {
                        return Ok(said);
                    }
                }
                Some(message) = self.progress.next() => {
                    if let Some(progress) = read(&message) {
                        told(progress);
                    }
                }
                () = tokio::time::sleep_until(look) => {
                    let looked = tokio::select! {
                        looked = self.client.last_result(&self.tenant, &self.id) => looked,
                        said = self.client.0.signs.denied() => Err(Error::MayNotFetch { said }),
                    };
                    match looked {
                        Ok(Some((said, sequence))) => {
                            if let Some(said) = of(submitted, said, sequence) {
                                return Ok(said);
                            }
                        }
                        // It hears it all the same, but for one that the server dropped as a repeated one.
                        Err(denied @ Error::MayNotFetch { .. }) if submitted.duplicate => return Err(denied),
                        Err(Error::MayNotFetch { .. }) => {
                            look = end;
                            continue;
                        }
                        _ => {}
                    }
                    look = Instant::now() + LOOK;
                }
                () = tokio::time::sleep_until(end) => {
                    let subject = result_subject(&self.tenant, &self.id);
                    return Err(Error::NoAnswer { subject, seconds: timeout.as_secs_f64() });
                }
            }
        }
    }
}

/// A result if it is this submit's. An answer to a later one with the same id is the same; an error may be another's.
fn of(submitted: Submitted, said: Said, sequence: u64) -> Option<Said> {
    (sequence == submitted.sequence || (!said.is_error && sequence > submitted.sequence)).then_some(said)
}

fn said(headers: &HeaderMap, body: &[u8]) -> Said {
    Said { body: body.to_vec(), is_error: headers.get(ERROR_CODE).is_some() }
}

fn sequence(headers: &HeaderMap) -> u64 {
    headers.get(SEQUENCE).and_then(|value| value.as_str().parse().ok()).unwrap_or(0)
}

fn read(message: &Message) -> Option<Progress> {
    serde_json::from_slice(&message.payload).ok()
}

impl DeadLetter {
    fn of(kept: StreamMessage) -> Self {
        let text = |name: &str| kept.headers.get(name).map(|v| v.as_str().to_owned()).unwrap_or_default();
        let number = |name: &str| text(name).parse::<i64>().ok();
        let mut place = kept.subject.as_str().split('.').skip(2).map(str::to_owned);
        let left_out = kept.headers.get(dead::header::LEFT_OUT).is_some();
        Self {
            sequence: kept.sequence,
            tenant: place.next().unwrap_or_default(),
            id: place.next().unwrap_or_default(),
            reason: text(header::REASON),
            message: text(header::MESSAGE),
            at_ms: number(header::AT),
            attempts: number(header::ATTEMPTS).and_then(|n| u32::try_from(n).ok()),
            subject: text(header::SUBJECT),
            submitted: number(header::SEQUENCE).and_then(|n| u64::try_from(n).ok()),
            body: (!left_out).then(|| String::from_utf8(kept.payload.to_vec()).ok()).flatten(),
            raw: kept.payload.to_vec(),
            headers: kept.headers,
        }
    }

    /// Whether there is something to submit again.
    pub fn has_body(&self) -> bool {
        self.headers.get(header::LEFT_OUT).is_none()
    }
}
