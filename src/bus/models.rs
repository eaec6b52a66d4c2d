//! Questions for a model on NATS: `llm.query`, `llm.parallel`, `llm.pipeline`.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, Subject};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::endpoints::{Call, Endpoint, Reply, Served};
use super::job::progress_subject;
use super::reply::most;
use super::wire::{self, Code, Progress, Refusal, State};
use crate::domain::{RequestId, Timestamp};
use crate::llm::{Answered, Listener, Schema, Terms};
use crate::pipeline::{self, ModelAnswer, ModelAnswers, ModelSteps, Pipeline};

/// So much text goes into one message, in bytes; a model writes less between two.
const MOST_TEXT: usize = 32 << 10;

/// Beyond the time that was given: what was paid is written down before the answer leaves.
const WRITING: Duration = Duration::from_secs(2);

/// One question; with `options.stream` its text is told as it comes.
pub(super) fn query(row: Endpoint<()>, pipeline: Pipeline, client: Client) -> Endpoint {
    row.served(move |call| match wire::model_query(call.body()) {
        Err(refusal) => refusal.into(),
        Ok(asked) => {
            let timeout = asked.query.timeout.unwrap_or(pipeline.query_timeout()).min(pipeline.query_timeout());
            let (pipeline, client) = (pipeline.clone(), client.clone());
            within(call, timeout, asked.schemas(), move |call, terms| async move {
                let most = most(&client);
                let (teller, telling) = Teller::new(client, asked.stream.as_ref(), &call);
                let listener = asked.stream.is_some().then(|| teller.listener());
                drop(teller);
                let terms = Terms { listener, ..terms };
                let (answer, ()) = tokio::join!(pipeline.query_model(asked.query, terms, call.now), telling);
                Reply::json_or_shorter(answer?, most, ModelAnswer::shorten)
            })
        }
    })
}

/// Questions beside each other.
pub(super) fn parallel(row: Endpoint<()>, pipeline: Pipeline, client: Client) -> Endpoint {
    several(
        row,
        pipeline,
        client,
        wire::batch,
        ModelAnswers::shorten,
        |pipeline, batch, terms, now, teller| async move {
            let told = |index, answer: &Answered| teller.ended(index, answer);
            pipeline.query_models(batch.queries, batch.max_concurrent, &terms, now, told).await
        },
    )
}

/// Questions after each other.
pub(super) fn steps(row: Endpoint<()>, pipeline: Pipeline, client: Client) -> Endpoint {
    several(row, pipeline, client, wire::steps, ModelSteps::shorten, |pipeline, batch, terms, now, teller| async move {
        let told = |index, answer: &Answered| teller.ended(index, answer);
        pipeline.query_steps(batch.queries, batch.use_context, batch.done, &terms, now, told).await
    })
}

fn several<T, F>(
    row: Endpoint<()>,
    pipeline: Pipeline,
    client: Client,
    read: fn(&[u8]) -> Result<wire::Batch, Refusal>,
    shorten: fn(&mut T),
    answer: fn(Pipeline, wire::Batch, Terms, Timestamp, Teller) -> F,
) -> Endpoint
where
    T: Serialize + Send + 'static,
    F: Future<Output = Result<T, pipeline::Error>> + Send + 'static,
{
    row.served(move |call| match read(call.body()) {
        Err(refusal) => refusal.into(),
        Ok(batch) => {
            let timeout = batch.timeout.unwrap_or(pipeline.batch_timeout());
            let (pipeline, client) = (pipeline.clone(), client.clone());
            within(call, timeout, batch.schemas(), move |call, terms| async move {
                let most = most(&client);
                let (teller, telling) = Teller::new(client, batch.progress.as_ref(), &call);
                let (answers, ()) = tokio::join!(answer(pipeline, batch, terms, call.now, teller), telling);
                Reply::json_or_shorter(answers?, most, shorten)
            })
        }
    })
}

/// Done under a permit, and over by the call's own deadline.
fn within<F>(
    call: Call,
    timeout: Duration,
    schemas: Vec<(String, Schema)>,
    work: impl FnOnce(Arc<Call>, Terms) -> F + Send + 'static,
) -> Served
where
    F: Future<Output = Result<Reply, Refusal>> + Send + 'static,
{
    let timeout = call.envelope.within(timeout, call.now);
    let deadline = Instant::now() + timeout;
    let terms = Terms::new(call.envelope.tenant.clone(), call.envelope.correlation_id.clone(), deadline);
    let work = async move {
        if !schemas.is_empty() {
            let built = tokio::task::spawn_blocking(move || wire::build(&schemas)).await;
            built.map_err(|error| Refusal::new(Code::Internal, format!("build the schema: {error}")))??;
        }
        work(Arc::new(call), terms).await
    };
    Served::Later { work: Box::pin(work), timeout: timeout + WRITING }
}

/// Tells whoever listens on the progress subject what happens. What it was told is published in its order, all of it before
/// the answer is sent.
#[derive(Clone)]
struct Teller {
    /// `None`: nobody asked to be told.
    to: Option<mpsc::UnboundedSender<Told>>,
}

enum Told {
    Text { attempt: u32, text: String },
    Ended { index: usize, success: bool },
}

impl Teller {
    /// The second part publishes; it ends with the last teller.
    fn new(client: Client, id: Option<&RequestId>, call: &Call) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let subject = id.map(|id| Subject::from(progress_subject(&call.envelope.tenant, id)));
        // What waits here is bounded by what a model may answer at most.
        let (to, mut from) = mpsc::unbounded_channel();
        let to = subject.is_some().then_some(to);
        let (id, correlation_id) = (id.cloned(), call.envelope.correlation_id.clone());
        let telling = async move {
            let (Some(subject), Some(id)) = (subject, id) else { return };
            let mut next = from.recv().await;
            while let Some(told) = next.take() {
                let progress = Progress::new(id.as_str(), correlation_id.as_str(), Timestamp::now().0, State::Writing);
                let progress = match told {
                    Told::Ended { index, success } => {
                        Progress { state: State::Ended, index: Some(index), success: Some(success), ..progress }
                    }
                    Told::Text { attempt, mut text } => {
                        // What piled up meanwhile is one message.
                        while text.len() < MOST_TEXT {
                            match from.try_recv() {
                                Ok(Told::Text { attempt: same, text: more }) if same == attempt => text.push_str(&more),
                                Ok(other) => {
                                    next = Some(other);
                                    break;
                                }
                                Err(_) => break,
                            }
                        }
                        Progress { attempt: Some(attempt), text: Some(text), ..progress }
                    }
                };
                if let Ok(body) = serde_json::to_vec(&progress) {
                    // Kept nowhere and sent once: the answer has all of it.
                    let _ = client.publish(subject.clone(), body.into()).await;
                }
                if next.is_none() {
                    next = from.recv().await;
                }
            }
        };
        (Self { to }, telling)
    }

    fn listener(&self) -> Listener {
        let teller = self.clone();
        Listener::new(move |attempt, text| teller.tell(Told::Text { attempt, text: text.to_owned() }))
    }

    fn ended(&self, index: usize, answer: &Answered) {
        self.tell(Told::Ended { index, success: answer.is_success() });
    }

    fn tell(&self, told: Told) {
        if let Some(to) = &self.to {
            // It fails only where the whole call is given up.
            let _ = to.send(told);
        }
    }
}
