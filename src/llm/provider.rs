use std::fmt;

use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};

use tokio::time::{Duration, Instant};

use super::breaker::Breaker;
use super::call::{Answer, Call};
use super::limit::Limiter;
use super::pace::Pace;
use super::sse::Event;
use super::{Books, Credentials, Error, Key, Options, anthropic, gemini, http, openai};
use crate::domain::CorrelationId;

/// Whose format is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Provider {
    Anthropic,
    /// OpenAI, and every address that is compatible with it.
    OpenAi,
    Google,
}

/// One provider's format: pure, no I/O. [`super::http`] does the rest, the same for all.
pub(super) trait Wire: Sync {
    /// Where the provider itself is reached.
    fn public_url(&self) -> &'static str;
    /// What is asked at `base`, which has no trailing slash, for `model`.
    fn url(&self, base: Url, model: &str) -> Url;
    /// The header that carries the key, and the key as it stands there.
    fn key(&self, secret: &str) -> (HeaderName, String);
    /// Headers that say how the format is meant.
    fn headers(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }
    /// Where a stream is asked for, from where an answer is.
    fn stream_url(&self, url: &Url) -> Url {
        url.clone()
    }
    fn body(&self, url: &Url, call: &Call<'_>, stream: bool) -> serde_json::Result<Vec<u8>>;
    fn answer(&self, body: &[u8]) -> Result<Answer, Unreadable>;
    fn reader(&self) -> Box<dyn Reader>;
}

/// Puts an answer together out of the events of one stream.
pub(super) trait Reader: Send {
    fn event(&mut self, event: &Event) -> Result<Piece, Unreadable>;
    /// The answer, once the stream has ended; [`Unreadable::Cut`] where the answer had not.
    fn finish(self: Box<Self>) -> Result<Answer, Unreadable>;
}

/// What one event brought.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Piece {
    /// Something that the model made: text, or a thought.
    pub(super) token: bool,
    /// New text of the answer.
    pub(super) text: Option<String>,
    /// Nothing comes after it.
    pub(super) is_last: bool,
}

/// Why a body or an event is no answer.
pub(super) enum Unreadable {
    Json(serde_json::Error),
    Lacks(&'static str),
    /// The provider says what is wrong, in place of an answer.
    Refusal,
    /// The stream ended without this.
    Cut(&'static str),
}

impl From<serde_json::Error> for Unreadable {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(error)
    }
}

/// One model of the route, with all that does not change from call to call.
pub(super) struct Target {
    pub(super) provider: Provider,
    pub(super) model: String,
    /// `provider/model`.
    pub(super) name: String,
    pub(super) url: Url,
    pub(super) stream_url: Url,
    /// The key's header is marked as sensitive.
    pub(super) headers: HeaderMap,
    /// Only to find it in what comes back.
    pub(super) secret: SecretString,
    pub(super) http: reqwest::Client,
    pub(super) breaker: Breaker,
    /// `None`: as often as one likes.
    pub(super) limiter: Option<Limiter>,
    /// How long it usually takes.
    pub(super) pace: Pace,
}

impl Provider {
    pub const ALL: [Self; 3] = [Self::Anthropic, Self::OpenAi, Self::Google];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Anthropic => "anthropic",
            Self::OpenAi => "openai",
            Self::Google => "google",
        }
    }

    pub(super) fn wire(self) -> &'static dyn Wire {
        match self {
            Self::Anthropic => &anthropic::Messages,
            Self::OpenAi => &openai::ChatCompletions,
            Self::Google => &gemini::GenerateContent,
        }
    }

    fn default_model(self) -> &'static str {
        match self {
            Self::Anthropic => "claude-sonnet-4-5",
            Self::OpenAi => "gpt-5-mini",
            Self::Google => "gemini-2.5-flash",
        }
    }

    fn credentials(self, credentials: &Credentials) -> Option<&Key> {
        match self {
            Self::Anthropic => credentials.anthropic.as_ref(),
            Self::OpenAi => credentials.openai.as_ref(),
            Self::Google => credentials.google.as_ref(),
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Reads `provider/model`. A model's own name may hold slashes.
pub(super) fn parse(entry: &str) -> Result<(Provider, String), Error> {
    let wrong = |problem| Error::Model { entry: entry.chars().take(100).collect(), problem };
    let (provider, model) = entry.split_once('/').ok_or_else(|| wrong("it is written as provider/model"))?;
    let provider = Provider::ALL.into_iter().find(|p| p.as_str() == provider);
    let provider = provider.ok_or_else(|| wrong("the provider is one of anthropic, openai and google"))?;
    if !(1..=200).contains(&model.len()) || !model.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(wrong("a model's name is 1 to 200 visible ASCII characters"));
    }
    Ok((provider, model.to_owned()))
}

/// The models that can be asked, in order.
pub(super) fn route(options: &Options, credentials: &Credentials, books: Option<&Books>) -> Result<Vec<Target>, Error> {
    for model in options.limits.keys() {
        parse(model)?;
    }
    let worker = CorrelationId::generate();
    let mut targets = Vec::new();
    let mut connections = http::Connections::new(Duration::from_millis(options.connect_timeout_ms));
    let mut target = |provider: Provider, model: String, key: &Key| {
        let breaker = Breaker::new(options.breaker.clone(), Instant::now());
        let mut target = Target::new(provider, model, key, &mut connections, breaker)?;
        let (requests, tokens) = options.limit(&target.name);
        target.limiter =
            books.and_then(|books| Limiter::new(&target.name, requests, tokens, worker.as_str(), &books.store));
        Ok::<_, Error>(target)
    };
    if options.route.is_empty() {
        for provider in Provider::ALL {
            if let Some(key) = provider.credentials(credentials) {
                targets.push(target(provider, provider.default_model().to_owned(), key)?);
            }
        }
    }
    for entry in &options.route {
        let (provider, model) = parse(entry)?;
        match provider.credentials(credentials) {
            Some(key) => targets.push(target(provider, model, key)?),
            None => tracing::warn!(llm.model = %entry, "left out of the route: {provider} has no key"),
        }
    }
    Ok(targets)
}

impl Target {
    fn new(
        provider: Provider,
        model: String,
        key: &Key,
        connections: &mut http::Connections,
        breaker: Breaker,
    ) -> Result<Self, Error> {
        let wire = provider.wire();
        let base = if key.base_url.trim().is_empty() { wire.public_url() } else { key.base_url.trim() };
        let url = wire.url(base_url(provider, base)?, &model);
        let mut headers = HeaderMap::new();
        for (name, value) in wire.headers() {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        let secret = key.secret.expose_secret().trim();
        if !secret.is_empty() {
            let (name, value) = wire.key(secret);
            let mut value = HeaderValue::from_str(&value).map_err(|_| Error::Key { provider })?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        let http = connections.to(&url)?;
        let (name, secret) = (format!("{provider}/{model}"), secret.into());
        let (stream_url, pace) = (wire.stream_url(&url), Pace::default());
        let limiter = None;
        Ok(Self { provider, name, model, url, stream_url, headers, secret, http, breaker, limiter, pace })
    }
}

fn base_url(provider: Provider, text: &str) -> Result<Url, Error> {
    let wrong = |problem| Error::BaseUrl { provider, problem };
    let mut url = Url::parse(text).map_err(|_| wrong("is no URL"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong("must begin with http:// or https://"));
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("must not hold a user, a password, a query or a fragment"));
    }
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    Ok(url)
}

/// Appends segments to the path, escaped.
pub(super) fn join(mut url: Url, segments: &[&str]) -> Url {
    // Only a URL that can't be a base has no segments; `base_url` lets http and https through, which always have them.
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(segments);
    }
    url
}

/// Appends the version unless the address already names one, as people copy it both ways.
pub(super) fn versioned(url: Url, known: &[&str], version: &str) -> Url {
    let last = url.path_segments().and_then(|mut segments| segments.next_back().map(str::to_owned));
    if last.is_some_and(|last| known.contains(&last.as_str())) { url } else { join(url, &[version]) }
}
