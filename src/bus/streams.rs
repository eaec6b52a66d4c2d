//! The streams of durable work: what they are called, what they keep, and that they are there.
//!
//! A server silently ignores what it doesn't know, so it is what the server echoes that is looked at, never what was
//! asked for.

use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::context::{Context, GetStreamErrorKind};
use async_nats::jetstream::stream::{Config, DiscardPolicy, Info, RetentionPolicy, StorageType, Stream};
use async_nats::jetstream::{self, ErrorCode};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::Error;

/// Work that waits for a worker; what was done is gone from it.
pub const SUBMIT: &str = "TANDEM_SUBMIT";
/// The last result of each submit.
pub const RESULT: &str = "TANDEM_RESULT";
/// What could not be done, for a person to look at.
pub const DEAD: &str = "TANDEM_DEAD";
/// What happened in workflows, for who listens.
pub const EVENTS: &str = "TANDEM_EVENTS";
/// The consumer of [`SUBMIT`] that all workers share.
pub const WORKERS: &str = "tandem-workers";

/// Deliveries after which the server gives a message up by itself. Only what no worker can even read comes so far: a
/// worker looks at the attempts, of which `nats.max_deliver` are made.
pub const LAST_DELIVERY: i64 = 100;
/// How many submits all workers together may have in hand, with those that wait for another try.
const IN_HAND: i64 = 20_000;
/// The server's version that all of this was tried on, and later ones.
const OLDEST: (u32, u32) = (2, 11);

/// Who makes the streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Provision {
    /// The worker creates what is missing. It never changes what exists.
    #[default]
    Auto,
    /// The worker only looks; `tandem provision` with an administrator's credentials creates.
    Verify,
}

/// How much the streams keep. They are made with it; a stream that exists is changed only by `tandem provision`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// How many bytes of submits may wait. What comes on top is refused when it is published.
    pub submit_max_bytes: u64,
    /// For how long the server itself drops a second submit with the same `Nats-Msg-Id`, in milliseconds. Later ones
    /// are told apart by the database, for `database.replies_kept_days`.
    pub duplicate_window_ms: u64,
    /// How many bytes of results are kept; the oldest make room.
    pub result_max_bytes: u64,
    /// For how many hours a result is kept. As long as the database keeps the replies.
    pub result_max_age_hours: u32,
    /// How many bytes of dead letters are kept; the oldest make room.
    pub dead_max_bytes: u64,
    /// For how many days a dead letter is kept.
    pub dead_max_age_days: u32,
    /// How many bytes of events are kept; the oldest make room. The database has all of them as long as their workflows.
    pub events_max_bytes: u64,
    /// For how many hours an event is kept.
    pub events_max_age_hours: u32,
    /// On how many servers of a cluster each stream is kept: 1, 3 or 5.
    pub replicas: u8,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            submit_max_bytes: 512 * 1024 * 1024,
            duplicate_window_ms: 120_000,
            result_max_bytes: 1024 * 1024 * 1024,
            result_max_age_hours: 7 * 24,
            dead_max_bytes: 256 * 1024 * 1024,
            dead_max_age_days: 30,
            events_max_bytes: 256 * 1024 * 1024,
            events_max_age_hours: 3 * 24,
            replicas: 1,
        }
    }
}

impl Options {
    pub(super) fn check(&self) -> Result<(), Error> {
        let wrong = |key: &'static str, why: &str| Err(Error::Option { key, why: why.to_owned() });
        for (key, bytes) in [
            ("streams.submit_max_bytes", self.submit_max_bytes),
            ("streams.result_max_bytes", self.result_max_bytes),
            ("streams.dead_max_bytes", self.dead_max_bytes),
            ("streams.events_max_bytes", self.events_max_bytes),
        ] {
            if bytes == 0 || i64::try_from(bytes).is_err() {
                return wrong(key, "must be at least 1 and below 2^63");
            }
        }
        if self.duplicate_window_ms < 100 {
            return wrong("streams.duplicate_window_ms", "must be at least 100, the server's own least");
        }
        if self.result_max_age_hours == 0 || self.dead_max_age_days == 0 || self.events_max_age_hours == 0 {
            let words = "result_max_age_hours, dead_max_age_days and events_max_age_hours must be at least 1";
            return wrong("streams", words);
        }
        if ![1, 3, 5].contains(&self.replicas) {
            return wrong("streams.replicas", "must be 1, 3 or 5");
        }
        Ok(())
    }
}

/// The table: every stream, as it is created.
fn table(options: &Options) -> [Config; 4] {
    let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    let hours = |hours: u32| Duration::from_secs(u64::from(hours) * 3600);
    let common = |name: &str, subjects: &[&str], purpose: &str| Config {
        name: name.to_owned(),
        subjects: subjects.iter().map(|s| (*s).to_owned()).collect(),
        description: Some(purpose.to_owned()),
        storage: StorageType::File,
        num_replicas: usize::from(options.replicas),
        max_messages: -1,
        max_messages_per_subject: -1,
        max_consumers: -1,
        ..Config::default()
    };
    [
        Config {
            retention: RetentionPolicy::WorkQueue,
            discard: DiscardPolicy::New,
            max_bytes: bytes(options.submit_max_bytes),
            duplicate_window: Duration::from_millis(options.duplicate_window_ms),
            ..common(SUBMIT, &["execution.submit", "execution.submit.*"], "Tandem: work that waits for a worker")
        },
        Config {
            retention: RetentionPolicy::Limits,
            discard: DiscardPolicy::Old,
            max_bytes: bytes(options.result_max_bytes),
            max_age: hours(options.result_max_age_hours),
            max_messages_per_subject: 1,
            allow_direct: true,
            ..common(RESULT, &["execution.result.*", "execution.result.*.*"], "Tandem: the last result of each submit")
        },
        Config {
            retention: RetentionPolicy::Limits,
            discard: DiscardPolicy::Old,
            max_bytes: bytes(options.dead_max_bytes),
            max_age: hours(options.dead_max_age_days * 24),
            allow_direct: true,
            ..common(DEAD, &["execution.dead.>"], "Tandem: submits that could not be done")
        },
        Config {
            retention: RetentionPolicy::Limits,
            discard: DiscardPolicy::Old,
            max_bytes: bytes(options.events_max_bytes),
            max_age: hours(options.events_max_age_hours),
            duplicate_window: Duration::from_millis(options.duplicate_window_ms),
            allow_direct: true,
            ..common(EVENTS, &["event.>"], "Tandem: what happened in workflows")
        },
    ]
}

fn workers(ack_wait: Duration) -> pull::Config {
    pull::Config {
        durable_name: Some(WORKERS.to_owned()),
        description: Some("Tandem: all workers".to_owned()),
        ack_policy: AckPolicy::Explicit,
        ack_wait,
        max_deliver: LAST_DELIVERY,
        max_ack_pending: IN_HAND,
        ..pull::Config::default()
    }
}

/// What stands on the server, by its own word.
#[derive(Debug, Clone)]
pub struct Standing {
    /// After how long without a sign the server gives a submit to another worker.
    pub ack_wait: Duration,
}

/// What [`create_all`] did with one stream or consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Made {
    Created,
    /// Its amounts were others than the configuration's and now are those.
    Changed,
    Unchanged,
}

/// Makes sure that all streams and the workers' consumer are there and are what durable work rests on. What has other
/// amounts (bytes, ages, waits) than the configuration is kept as it is, and said in the log.
pub async fn provide(
    client: &Client,
    how: Provision,
    options: &Options,
    ack_wait: Duration,
) -> Result<Standing, Error> {
    check_version(client)?;
    let context = jetstream::new(client.clone());
    let mut wrong = vec![];
    let mut submits = None;
    // Durable work needs no events.
    for wanted in table(options).into_iter().filter(|wanted| wanted.name != EVENTS) {
        let name = wanted.name.clone();
        let Some(found) = seen_to(&context, how, &wanted, &mut wrong).await? else { continue };
        if name == SUBMIT {
            submits = Some(found);
        }
    }
    let consumer = match &submits {
        Some(submits) => consumer(submits, how, ack_wait, &mut wrong).await?,
        None => None,
    };
    match consumer {
        Some(standing) if wrong.is_empty() => Ok(standing),
        _ => Err(Error::Streams { wrong: wrong.join("; ") }),
    }
}

/// Makes sure that the stream of events is there.
pub async fn provide_events(client: &Client, how: Provision, options: &Options) -> Result<(), Error> {
    check_version(client)?;
    let context = jetstream::new(client.clone());
    let mut wrong = vec![];
    let [.., wanted] = table(options);
    seen_to(&context, how, &wanted, &mut wrong).await?;
    if wrong.is_empty() { Ok(()) } else { Err(Error::Streams { wrong: wrong.join("; ") }) }
}

/// A stream that is there, or is made; `None` where it is missing and may not be made.
async fn seen_to(
    context: &Context,
    how: Provision,
    wanted: &Config,
    wrong: &mut Vec<String>,
) -> Result<Option<Stream<Info>>, Error> {
    let name = wanted.name.clone();
    let found = match (find(context, &name).await?, how) {
        (Some(found), _) => found,
        (None, Provision::Verify) => {
            wrong.push(format!("the stream {name} is missing"));
            return Ok(None);
        }
        (None, Provision::Auto) => match context.create_stream(wanted).await {
            Ok(made) => {
                info!(stream = name, "created a stream");
                made
            }
            // Another worker was first, with other amounts.
            Err(error) => match find(context, &name).await? {
                Some(found) => found,
                None => return Err(failed(format!("create the stream {name}"), error)),
            },
        },
    };
    let differences = differences(wanted, &found.cached_info().config);
    wrong.extend(differences.essential.iter().map(|d| format!("the stream {name} has {d}")));
    if !differences.amounts.is_empty() {
        warn!(stream = name, "a stream has other amounts than configured: {}", differences.amounts.join("; "));
    }
    Ok(Some(found))
}

/// What [`create_all`] would do. Changes nothing.
pub async fn plan(client: &Client, options: &Options, ack_wait: Duration) -> Result<Vec<(&'static str, Made)>, Error> {
    check_version(client)?;
    let context = jetstream::new(client.clone());
    let mut planned = vec![];
    let mut consumer = None;
    for (name, wanted) in [SUBMIT, RESULT, DEAD, EVENTS].into_iter().zip(table(options)) {
        let found = find(&context, name).await?;
        planned.push((
            name,
            match &found {
                None => Made::Created,
                Some(found) if differences(&wanted, &found.cached_info().config).none() => Made::Unchanged,
                Some(_) => Made::Changed,
            },
        ));
        if let (SUBMIT, Some(submits)) = (name, &found) {
            consumer = found_consumer(submits).await?;
        }
    }
    planned.push((WORKERS, against(consumer.as_ref(), ack_wait)));
    Ok(planned)
}

/// What becomes of a consumer that was found, or not.
fn against(found: Option<&jetstream::consumer::Config>, ack_wait: Duration) -> Made {
    match found {
        None => Made::Created,
        Some(found) if found.ack_wait == ack_wait && found.max_deliver == LAST_DELIVERY => Made::Unchanged,
        Some(_) => Made::Changed,
    }
}

/// Creates what is missing, and gives what exists the configured amounts. For `tandem provision`: a worker's user may not
/// do this.
pub async fn create_all(
    client: &Client,
    options: &Options,
    ack_wait: Duration,
) -> Result<Vec<(&'static str, Made)>, Error> {
    check_version(client)?;
    let context = jetstream::new(client.clone());
    let mut done = vec![];
    for (name, wanted) in [SUBMIT, RESULT, DEAD, EVENTS].into_iter().zip(table(options)) {
        let Some(found) = find(&context, name).await? else {
            let made = context.create_stream(&wanted).await;
            let made = made.map_err(|error| failed(format!("create the stream {name}"), error))?;
            echoed(name, &wanted, made.cached_info())?;
            done.push((name, Made::Created));
            continue;
        };
        let differences = differences(&wanted, &found.cached_info().config);
        if differences.none() {
            done.push((name, Made::Unchanged));
            continue;
        }
        let changed = context.update_stream(&wanted).await;
        let info = changed.map_err(|error| failed(format!("change the stream {name}"), error))?;
        echoed(name, &wanted, &info)?;
        done.push((name, Made::Changed));
    }
    let Some(submits) = find(&context, SUBMIT).await? else {
        return Err(Error::Streams { wrong: format!("the stream {SUBMIT} is missing") });
    };
    let before = found_consumer(&submits).await?;
    let made = submits.create_consumer(workers(ack_wait)).await;
    let made = made.map_err(|error| failed(format!("create the consumer {WORKERS}"), error))?;
    let echo = made.cached_info().config.clone();
    if echo.ack_wait != ack_wait || echo.max_deliver != LAST_DELIVERY {
        let wrong = format!("the consumer {WORKERS} could not be given an ack wait of {ack_wait:?}");
        return Err(Error::Streams { wrong });
    }
    done.push((WORKERS, against(before.as_ref(), ack_wait)));
    Ok(done)
}

/// A server that doesn't know a feature leaves it out of its echo.
fn echoed(name: &str, wanted: &Config, info: &Info) -> Result<(), Error> {
    let differences = differences(wanted, &info.config);
    let all: Vec<String> = differences.essential.into_iter().chain(differences.amounts).collect();
    if all.is_empty() {
        return Ok(());
    }
    Err(Error::Streams { wrong: format!("the stream {name} has {} whatever is asked for", all.join("; ")) })
}

async fn find(context: &Context, name: &str) -> Result<Option<Stream<Info>>, Error> {
    match context.get_stream(name).await {
        Ok(found) => Ok(Some(found)),
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(ref said) if said.error_code() == ErrorCode::STREAM_NOT_FOUND => Ok(None),
            _ => Err(failed(format!("look at the stream {name}"), error)),
        },
    }
}

async fn found_consumer(submits: &Stream<Info>) -> Result<Option<jetstream::consumer::Config>, Error> {
    match submits.consumer_info(WORKERS).await {
        Ok(info) => Ok(Some(info.config)),
        Err(error) => match error.kind() {
            jetstream::context::ConsumerInfoErrorKind::NotFound => Ok(None),
            jetstream::context::ConsumerInfoErrorKind::JetStream(ref said)
                if said.error_code() == ErrorCode::CONSUMER_NOT_FOUND =>
            {
                Ok(None)
            }
            _ => Err(failed(format!("look at the consumer {WORKERS}"), error)),
        },
    }
}

async fn consumer(
    submits: &Stream<Info>,
    how: Provision,
    ack_wait: Duration,
    wrong: &mut Vec<String>,
) -> Result<Option<Standing>, Error> {
    let found = match (found_consumer(submits).await?, how) {
        (Some(found), _) => found,
        (None, Provision::Verify) => {
            wrong.push(format!("the consumer {WORKERS} is missing"));
            return Ok(None);
        }
        (None, Provision::Auto) => match submits.create_consumer_strict(workers(ack_wait)).await {
            Ok(made) => made.cached_info().config.clone(),
            // Another worker was first.
            Err(error) => match found_consumer(submits).await? {
                Some(found) => found,
                None => return Err(failed(format!("create the consumer {WORKERS}"), error)),
            },
        },
    };
    if found.ack_policy != AckPolicy::Explicit {
        wrong.push(format!("the consumer {WORKERS} has the ack policy {:?}, not Explicit", found.ack_policy));
    }
    if found.deliver_subject.is_some() {
        wrong.push(format!("the consumer {WORKERS} pushes; workers pull"));
    }
    if found.ack_wait != ack_wait {
        warn!(configured = ?ack_wait, found = ?found.ack_wait, "the consumer {WORKERS} has another ack wait; it counts");
    }
    Ok(Some(Standing { ack_wait: found.ack_wait }))
}

#[derive(Default)]
struct Differences {
    /// Durable work would not be durable.
    essential: Vec<String>,
    /// An operator's choice.
    amounts: Vec<String>,
}

impl Differences {
    fn none(&self) -> bool {
        self.essential.is_empty() && self.amounts.is_empty()
    }
}

fn differences(wanted: &Config, found: &Config) -> Differences {
    fn unlike<T: PartialEq + std::fmt::Debug>(what: &str, wanted: &T, found: &T) -> Option<String> {
        (wanted != found).then(|| format!("{what} {found:?}, not {wanted:?}"))
    }
    let sorted = |config: &Config| {
        let mut subjects = config.subjects.clone();
        subjects.sort();
        subjects
    };
    let essential = [
        unlike("the subjects", &sorted(wanted), &sorted(found)),
        unlike("the retention", &wanted.retention, &found.retention),
        unlike("the storage", &wanted.storage, &found.storage),
        unlike("the discard policy", &wanted.discard, &found.discard),
        unlike("the messages per subject", &wanted.max_messages_per_subject, &found.max_messages_per_subject),
        unlike("direct get", &wanted.allow_direct, &found.allow_direct),
    ];
    let amounts = [
        unlike("the bytes", &wanted.max_bytes, &found.max_bytes),
        unlike("the age", &wanted.max_age, &found.max_age),
        unlike("the replicas", &wanted.num_replicas, &found.num_replicas),
        // Zero asks for the server's own.
        (!wanted.duplicate_window.is_zero())
            .then(|| unlike("the duplicate window", &wanted.duplicate_window, &found.duplicate_window))
            .flatten(),
    ];
    Differences {
        essential: essential.into_iter().flatten().collect(),
        amounts: amounts.into_iter().flatten().collect(),
    }
}

fn check_version(client: &Client) -> Result<(), Error> {
    let version = client.server_info().version;
    let mut numbers = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if found < OLDEST {
        return Err(Error::OldServer { version, oldest: format!("{}.{}", OLDEST.0, OLDEST.1) });
    }
    Ok(())
}

fn failed(action: String, source: impl std::error::Error + Send + std::marker::Sync + 'static) -> Error {
    Error::JetStream { action, source: Box::new(source) }
}
