//! One attempt over HTTP, the same for every provider.

use std::net::IpAddr;
use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Response, StatusCode, Url};
use secrecy::ExposeSecret;
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

use super::Error;
use super::call::{Answer, Call, Finish, Tokens};
use super::provider::{Target, Unreadable};

/// Of input or of output: far above what the largest models take. A count above it is none, and no cost follows from it.
const MAX_TOKENS: u64 = 100_000_000;
/// Far above any answer in text, far below what hurts.
const MAX_ANSWER: usize = 8 << 20;
const MAX_ERROR_BODY: usize = 64 << 10;
const MAX_MESSAGE: usize = 300;
const MAX_WORD: usize = 100;

/// The pools that targets share. Made when first needed: a worker without a model reads no certificates.
#[derive(Default)]
pub(super) struct Connections {
    usual: Option<reqwest::Client>,
    loopback: Option<reqwest::Client>,
}

impl Connections {
    /// The system's proxy (`HTTPS_PROXY` and the like) is respected, but not on the way to this machine itself.
    pub(super) fn to(&mut self, url: &Url) -> Result<reqwest::Client, Error> {
        let loopback = is_loopback(url);
        let pool = if loopback { &mut self.loopback } else { &mut self.usual };
        match pool {
            Some(client) => Ok(client.clone()),
            None => Ok(pool.insert(client(loopback)?).clone()),
        }
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

fn client(loopback: bool) -> Result<reqwest::Client, Error> {
    // Another room, or a test, may have installed one already: any will do.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder()
        .user_agent(concat!("tandem/", env!("CARGO_PKG_VERSION")))
        // A redirect would carry the key to whoever the answer names.
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never());
    let builder = if loopback { builder.no_proxy() } else { builder };
    builder.build().map_err(Error::Setup)
}

/// Sends once and reads the answer. At the deadline the request is dropped, which closes its connection.
pub(super) async fn attempt(target: &Target, call: &Call<'_>, deadline: Instant) -> Result<Answer, Error> {
    let late = || Error::Timeout { model: target.name.clone() };
    if Instant::now() >= deadline {
        return Err(late());
    }
    let body = target.provider.wire().body(&target.url, call);
    let body = body.map_err(|source| Error::Encode { model: target.name.clone(), source })?;
    timeout_at(deadline, Box::pin(exchange(target, body))).await.unwrap_or_else(|_| Err(late()))
}

async fn exchange(target: &Target, body: Vec<u8>) -> Result<Answer, Error> {
    let json = HeaderValue::from_static("application/json");
    let request = target
        .http
        .post(target.url.clone())
        .headers(target.headers.clone())
        .header(CONTENT_TYPE, json.clone())
        .header(ACCEPT, json)
        .body(body);
    let response = request.send().await.map_err(|error| broken(target, error))?;
    if !response.status().is_success() {
        return Err(refusal(target, response).await);
    }
    let malformed = |problem: &str| Error::Malformed { model: target.name.clone(), problem: problem.to_owned() };
    if !is_json(response.headers()) {
        return Err(malformed("the content type is not JSON"));
    }
    let body = read(target, response, MAX_ANSWER).await?;
    if body.is_empty() {
        return Err(malformed("the body is empty"));
    }
    let mut answer = target.provider.wire().answer(&body).map_err(|error| match error {
        // Not the parser's own message: it quotes the body.
        Unreadable::Json(error) if error.is_data() => malformed(&format!("its JSON has another form, {}", at(&error))),
        Unreadable::Json(error) => malformed(&format!("it is no JSON, {}", at(&error))),
        Unreadable::Lacks(field) => malformed(&format!("it lacks {field:?}")),
    })?;
    let Tokens { input, output, reasoning, .. } = answer.tokens;
    if input.max(output).max(reasoning) > MAX_TOKENS {
        return Err(malformed("it counts more tokens than any call can have"));
    }
    // These two reach logs, records and answers; the text is the model's own and stays as it is.
    answer.model = answer.model.map(|model| clean(target, &model, MAX_WORD)).filter(|model| !model.is_empty());
    if let Finish::Other(word) = &mut answer.finish {
        *word = clean(target, word, MAX_WORD);
    }
    Ok(answer)
}

fn at(error: &serde_json::Error) -> String {
    format!("line {} column {}", error.line(), error.column())
}

fn broken(target: &Target, error: reqwest::Error) -> Error {
    let (model, connecting) = (target.name.clone(), error.is_connect());
    let source = error.without_url();
    if connecting { Error::Connect { model, source } } else { Error::Interrupted { model, source } }
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()) else { return false };
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
}

async fn read(target: &Target, mut response: Response, limit: usize) -> Result<Vec<u8>, Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| broken(target, error))? {
        if body.len() + chunk.len() > limit {
            return Err(Error::TooLarge { model: target.name.clone(), limit });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// What a provider says when it does not answer. All of them say it as `{"error": …}`, in some variants.
async fn refusal(target: &Target, response: Response) -> Error {
    let status = response.status();
    let retry_after = retry_after(response.headers());
    // A body that can't be read must not hide the status.
    let body = read(target, response, MAX_ERROR_BODY).await.unwrap_or_default();
    let said: Option<Refusal> = serde_json::from_slice(&body).ok();
    let (code, message) = said.map_or((None, None), Refusal::parts);
    let message = message.map(|text| clean(target, &text, MAX_MESSAGE)).filter(|text| !text.is_empty());
    Error::Status {
        model: target.name.clone(),
        status: status.as_u16(),
        code: code.map(|code| clean(target, &code, MAX_WORD)),
        message: message.unwrap_or_else(|| unsaid(status).to_owned()),
        retry_after,
    }
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
        /// A word with OpenAI, a number with Google.
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
    Other(serde::de::IgnoredAny),
}

impl Refusal {
    fn parts(self) -> (Option<String>, Option<String>) {
        match self.error {
            Said::Text(message) => (None, Some(message)),
            Said::Detail { message, code, status, kind } => {
                let word = match code {
                    Some(Code::Word(word)) => Some(word),
                    Some(Code::Other(_)) | None => None,
                };
                (word.or(status).or(kind), message)
            }
        }
    }
}

/// In milliseconds as OpenAI and Anthropic also say it, else in seconds.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<f64>().ok();
    let seconds = number("retry-after-ms").map(|ms| ms / 1000.0).or_else(|| number("retry-after"))?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// One line of bounded length without the key, should the provider repeat it.
fn clean(target: &Target, text: &str, max_chars: usize) -> String {
    let secret = target.secret.expose_secret();
    let text = if secret.is_empty() { text.to_owned() } else { text.replace(secret, "[redacted]") };
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(max_chars).collect();
    line.trim().to_owned()
}
