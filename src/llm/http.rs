//! One attempt over HTTP, the same for every provider: at once, or as a stream.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use reqwest::header::{ACCEPT, CONTENT_TYPE, DATE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Response, StatusCode, Url};
use secrecy::ExposeSecret;
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

use super::call::{Answer, Call, Tokens};
use super::provider::{Target, Unreadable};
use super::sse::Events;
use super::{Error, Reason};

/// Of input or of output: far above what the largest models take. A count above it is none, and no cost follows from it.
const MAX_TOKENS: u64 = 100_000_000;
/// Far above any answer in text, far below what hurts.
const MAX_ANSWER: usize = 8 << 20;
const MAX_ERROR_BODY: usize = 64 << 10;
const MAX_MESSAGE: usize = 300;
const MAX_WORD: usize = 100;

/// How long one attempt may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) deadline: Instant,
    /// From sending to the head of an answer that is no stream.
    pub(super) response: Duration,
    /// From sending to the first token of a stream.
    pub(super) first_token: Duration,
    /// Between two pieces of an answer.
    pub(super) idle: Duration,
}

/// What is known of an attempt while it runs, for whoever drops it.
#[derive(Debug, Default)]
pub(super) struct Trace {
    /// Something may have reached the provider.
    pub(super) sent: bool,
    /// The provider said that it does not answer.
    pub(super) turned_away: bool,
    /// The provider began to answer.
    pub(super) accepted: bool,
    /// From sending to the first token.
    pub(super) first_token: Option<Duration>,
}

/// Is told the text of a stream as it comes.
pub(super) type Told<'a> = &'a (dyn Fn(&str) + Send + Sync);

/// The pools that targets share. Made when first needed: a worker without a model reads no certificates.
pub(super) struct Connections {
    connect_timeout: Duration,
    usual: Option<reqwest::Client>,
    loopback: Option<reqwest::Client>,
}

impl Connections {
    pub(super) fn new(connect_timeout: Duration) -> Self {
        Self { connect_timeout, usual: None, loopback: None }
    }

    /// The system's proxy (`HTTPS_PROXY` and the like) is respected, but not on the way to this machine itself.
    pub(super) fn to(&mut self, url: &Url) -> Result<reqwest::Client, Error> {
        let loopback = is_loopback(url);
        let pool = if loopback { &mut self.loopback } else { &mut self.usual };
        match pool {
            Some(client) => Ok(client.clone()),
            None => Ok(pool.insert(client(loopback, self.connect_timeout)?).clone()),
        }
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

fn client(loopback: bool, connect_timeout: Duration) -> Result<reqwest::Client, Error> {
    // Another room, or a test, may have installed one already: any will do.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder()
        .user_agent(concat!("tandem/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(connect_timeout)
        // A redirect would carry the key to whoever the answer names.
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never());
    let builder = if loopback { builder.no_proxy() } else { builder };
    builder.build().map_err(Error::Setup)
}

/// Sends once and reads the answer; as a stream where somebody is told the text. At the deadline the request is dropped,
/// which closes its connection.
pub(super) async fn attempt(
    target: &Target,
    call: &Call<'_>,
    bounds: Bounds,
    told: Option<Told<'_>>,
    trace: &mut Trace,
) -> Result<Answer, Error> {
    let late = || Error::Timeout { model: target.name.clone() };
    if Instant::now() >= bounds.deadline {
        return Err(late());
    }
    let url = if told.is_some() { &target.stream_url } else { &target.url };
    let body = target.provider.wire().body(url, call, told.is_some());
    let body = body.map_err(|source| Error::Encode { model: target.name.clone(), source })?;
    let exchange = Box::pin(exchange(target, url, body, bounds, told, trace));
    timeout_at(bounds.deadline, exchange).await.unwrap_or_else(|_| Err(late()))
}

async fn exchange(
    target: &Target,
    url: &Url,
    body: Vec<u8>,
    bounds: Bounds,
    told: Option<Told<'_>>,
    trace: &mut Trace,
) -> Result<Answer, Error> {
    let accept = HeaderValue::from_static(if told.is_some() { EVENTS } else { JSON });
    let request = target
        .http
        .post(url.clone())
        .headers(target.headers.clone())
        .header(CONTENT_TYPE, HeaderValue::from_static(JSON))
        .header(ACCEPT, accept)
        .body(body);
    trace.sent = true;
    let sent = Instant::now();
    let (awaited, patience) = match told {
        // The whole is made before the first byte comes.
        None => (HEAD, bounds.response),
        Some(_) => (FIRST, bounds.first_token),
    };
    let Ok(response) = timeout_at(later(sent, patience), request.send()).await else {
        return Err(stalled(target, awaited, patience));
    };
    let response = response.map_err(|error| {
        let error = broken(target, error);
        trace.sent = !matches!(error, Error::Connect { .. });
        error
    })?;
    trace.accepted = response.status().is_success();
    trace.turned_away = !trace.accepted;
    if trace.turned_away {
        return Err(refusal(target, response, bounds.idle).await);
    }
    let answer = match told {
        Some(told) if is(response.headers(), EVENTS) => stream(target, response, sent, bounds, told, trace).await?,
        _ => whole(target, response, bounds.idle, told.is_some()).await?,
    };
    checked(target, answer)
}

async fn whole(target: &Target, response: Response, idle: Duration, streamed: bool) -> Result<Answer, Error> {
    if !is_json(response.headers()) {
        return Err(malformed(target, "the content type is another one"));
    }
    let body = read(target, response, MAX_ANSWER, idle).await?;
    if body.is_empty() {
        return Err(garbled(target, "the body is empty"));
    }
    match target.provider.wire().answer(&body) {
        Ok(answer) if !streamed => Ok(answer),
        // Some say what is wrong with status 200.
        Ok(_) | Err(_) if says_refusal(&body) => Err(said(target, StatusCode::OK, None, &body)),
        Ok(_) => Err(malformed(target, "a stream was asked for, and none came")),
        Err(error) => Err(unreadable(target, error, &body)),
    }
}

async fn stream(
    target: &Target,
    mut response: Response,
    sent: Instant,
    bounds: Bounds,
    told: Told<'_>,
    trace: &mut Trace,
) -> Result<Answer, Error> {
    let mut reader = target.provider.wire().reader();
    let (mut events, mut length, mut anything) = (Events::default(), 0, false);
    'reading: loop {
        let (until, awaited, after) = match trace.first_token {
            None => (later(sent, bounds.first_token), FIRST, bounds.first_token),
            Some(_) => (later(Instant::now(), bounds.idle), MORE, bounds.idle),
        };
        let Ok(chunk) = timeout_at(until, response.chunk()).await else {
            return Err(stalled(target, awaited, after));
        };
        let Some(chunk) = chunk.map_err(|error| broken(target, error))? else { break };
        length += chunk.len();
        if length > MAX_ANSWER {
            return Err(Error::TooLarge { model: target.name.clone(), limit: MAX_ANSWER });
        }
        events.push(&chunk);
        while let Some(event) = events.next().map_err(|_| garbled(target, "an event has no end"))? {
            anything = true;
            let piece = reader.event(&event).map_err(|error| unreadable(target, error, &event))?;
            if piece.token && trace.first_token.is_none() {
                trace.first_token = Some(sent.elapsed());
            }
            if let Some(text) = piece.text {
                told(&text);
            }
            if piece.is_last {
                break 'reading;
            }
        }
    }
    if !anything {
        return Err(garbled(target, "the stream is empty"));
    }
    // What nobody reads any more must still end, for its connection to serve again; nearly always it has.
    let _ = tokio::time::timeout(LINGER, response.chunk()).await;
    reader.finish().map_err(|error| unreadable(target, error, &[]))
}

const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream";
const HEAD: &str = "response";
const FIRST: &str = "first token";
const MORE: &str = "next piece";
/// For the end of a stream after its last event.
const LINGER: Duration = Duration::from_millis(5);

/// An answer whose figures can be, and whose words reach logs, records and answers clean. The text is the model's own
/// and stays as it is.
fn checked(target: &Target, mut answer: Answer) -> Result<Answer, Error> {
    let Tokens { input, output, reasoning, .. } = answer.tokens;
    if input.max(output).max(reasoning.unwrap_or(0)) > MAX_TOKENS {
        return Err(malformed(target, "it counts more tokens than any call can have"));
    }
    answer.model = answer.model.map(|model| clean(target, &model, MAX_WORD)).filter(|model| !model.is_empty());
    if let Err(word) = &mut answer.finish {
        *word = clean(target, word, MAX_WORD);
    }
    Ok(answer)
}

fn later(from: Instant, by: Duration) -> Instant {
    from.checked_add(by).unwrap_or(from + Duration::from_secs(86_400))
}

fn garbled(target: &Target, problem: &str) -> Error {
    Error::Garbled { model: target.name.clone(), problem: problem.to_owned() }
}

fn malformed(target: &Target, problem: &str) -> Error {
    Error::Malformed { model: target.name.clone(), problem: problem.to_owned() }
}

fn stalled(target: &Target, awaited: &'static str, after: Duration) -> Error {
    Error::Stalled { model: target.name.clone(), awaited, after }
}

/// Not the parser's own message: it quotes the body.
fn unreadable(target: &Target, error: Unreadable, body: &[u8]) -> Error {
    match error {
        Unreadable::Json(error) if error.is_data() => {
            malformed(target, &format!("its JSON has another form, {}", at(&error)))
        }
        Unreadable::Json(error) => garbled(target, &format!("it is no JSON, {}", at(&error))),
        Unreadable::Lacks(field) => malformed(target, &format!("it lacks {field:?}")),
        Unreadable::Refusal => said(target, StatusCode::OK, None, body),
        Unreadable::Cut(lacks) => Error::Cut { model: target.name.clone(), lacks },
    }
}

fn at(error: &serde_json::Error) -> String {
    format!("line {} column {}", error.line(), error.column())
}

fn broken(target: &Target, error: reqwest::Error) -> Error {
    let (model, connecting) = (target.name.clone(), error.is_connect());
    let source = error.without_url();
    if connecting { Error::Connect { model, source } } else { Error::Interrupted { model, source } }
}

fn content_type(headers: &HeaderMap) -> String {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn is(headers: &HeaderMap, kind: &str) -> bool {
    content_type(headers) == kind
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = content_type(headers);
    kind == JSON || (kind.starts_with("application/") && kind.ends_with("+json"))
}

async fn read(target: &Target, mut response: Response, limit: usize, idle: Duration) -> Result<Vec<u8>, Error> {
    let mut body = Vec::new();
    loop {
        let Ok(chunk) = tokio::time::timeout(idle, response.chunk()).await else {
            return Err(stalled(target, MORE, idle));
        };
        let Some(chunk) = chunk.map_err(|error| broken(target, error))? else { return Ok(body) };
        if body.len() + chunk.len() > limit {
            return Err(Error::TooLarge { model: target.name.clone(), limit });
        }
        body.extend_from_slice(&chunk);
    }
}

/// What a provider says when it does not answer.
async fn refusal(target: &Target, response: Response, idle: Duration) -> Error {
    let status = response.status();
    let retry_after = retry_after(response.headers(), SystemTime::now());
    // A body that can't be read must not hide the status.
    let body = read(target, response, MAX_ERROR_BODY, idle).await.unwrap_or_default();
    said(target, status, retry_after, &body)
}

/// All of them say it as `{"error": …}`, in some variants.
fn said(target: &Target, status: StatusCode, retry_after: Option<Duration>, body: &[u8]) -> Error {
    let said: Option<Refusal> = serde_json::from_slice(body).ok();
    let (code, number, message) = said.map_or((None, None, None), Refusal::parts);
    let message = message.map(|text| clean(target, &text, MAX_MESSAGE)).filter(|text| !text.is_empty());
    let message = message.unwrap_or_else(|| unsaid(status).to_owned());
    let code = code.map(|code| clean(target, &code, MAX_WORD));
    // In the middle of an answer the status stands in the body, if anywhere.
    let status = match number {
        Some(number) if status.is_success() => number,
        _ => status.as_u16(),
    };
    let reason = Reason::of(status, code.as_deref(), &message);
    Error::Status { model: target.name.clone(), status, reason, code, message, retry_after }
}

fn says_refusal(body: &[u8]) -> bool {
    serde_json::from_slice::<Refusal>(body).is_ok()
}

fn unsaid(status: StatusCode) -> &'static str {
    if status.is_redirection() {
        return "a redirect, which is not followed: check the base URL";
    }
    status.canonical_reason().unwrap_or("without a message")
}

#[derive(Deserialize)]
struct Refusal {
    error: Said,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Said {
    Text(String),
    Detail {
        message: Option<String>,
        /// A word with OpenAI, the status as a number with Google.
        code: Option<Code>,
        status: Option<String>,
        #[serde(rename = "type")]
        kind: Option<String>,
    },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Code {
    Word(String),
    Number(u16),
    Other(serde::de::IgnoredAny),
}

impl Refusal {
    /// The word, the number and the message.
    fn parts(self) -> (Option<String>, Option<u16>, Option<String>) {
        match self.error {
            Said::Text(message) => (None, None, Some(message)),
            Said::Detail { message, code, status, kind } => {
                let (word, number) = match code {
                    Some(Code::Word(word)) => (Some(word), None),
                    Some(Code::Number(number)) => (None, Some(number).filter(|n| (400..=599).contains(n))),
                    Some(Code::Other(_)) | None => (None, None),
                };
                (word.or(status).or(kind), number, message)
            }
        }
    }
}

/// In milliseconds as OpenAI and Anthropic also say it, else in seconds, else as a date. A date is counted from the one
/// that the answer itself bears: clocks differ.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |value: &HeaderValue| value.to_str().ok().map(|text| text.trim().to_owned());
    let number = |text: String| text.parse::<f64>().ok();
    let asked = headers.get(RETRY_AFTER).and_then(text);
    let ms = headers.get("retry-after-ms").and_then(text).and_then(number).map(|ms| ms / 1000.0);
    if let Some(seconds) = ms.or_else(|| asked.clone().and_then(number)) {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let date = |text: String| httpdate::parse_http_date(&text).ok();
    let now = headers.get(DATE).and_then(text).and_then(date).unwrap_or(now);
    asked.and_then(date).map(|then| then.duration_since(now).unwrap_or_default())
}

/// One line of bounded length without the key, should the provider repeat it.
fn clean(target: &Target, text: &str, max_chars: usize) -> String {
    let secret = target.secret.expose_secret();
    let text = if secret.is_empty() { text.to_owned() } else { text.replace(secret, "[redacted]") };
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(max_chars).collect();
    line.trim().to_owned()
}
