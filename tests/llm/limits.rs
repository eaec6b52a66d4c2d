//! What a model's limit does to one client's calls. How workers share it: `tests/faults/limits.rs`.

use std::time::Duration;

use tandem::llm::{Books, Client, Credentials, Error, LimitOverride, Options, Terms};
use tandem::store::{self, Recorder, RecorderOptions, Store};
use tokio::time::Instant;

use crate::provider::{Reply, Server};
use crate::{Anthropic, CANARY, Format, NOW, OpenAi, by, prompt, soon};

/// A database with its client, whose route is these.
struct Limited {
    client: Client,
    _folder: tempfile::TempDir,
}

async fn limited(options: Options, servers: &[(Format, String)]) -> Limited {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("tandem.db").display());
    let store = Store::open(&store::Options { url, ..store::Options::default() }).await.unwrap();
    let recorder = Recorder::start(store.clone(), &RecorderOptions::default());
    let route = servers.iter().map(|(format, _)| format.model().to_owned()).collect();
    let credentials = servers.iter().fold(Credentials::default(), |credentials, (format, url)| {
        let own = format.credentials(url.clone(), CANARY);
        Credentials {
            anthropic: credentials.anthropic.or(own.anthropic),
            openai: credentials.openai.or(own.openai),
            google: credentials.google.or(own.google),
        }
    });
    let books = Books { store, recorder, journal: None };
    let client = Client::new(Options { route, ..options }, credentials, Some(books)).unwrap();
    Limited { client, _folder: folder }
}

fn options(requests_per_minute: u64, tokens_per_minute: u64) -> Options {
    Options { requests_per_minute, tokens_per_minute, max_retries: 0, ..Options::default() }
}

fn good(format: Format) -> Reply {
    Reply::json(200, format.good(format.stop()).to_string())
}

#[tokio::test]
async fn who_could_not_be_served_in_time_is_told_at_once_and_from_when_on_he_can() {
    let server = Server::start(good(OpenAi)).await;
    let limited = limited(options(2, 0), &[(OpenAi, server.url())]).await;
    for _ in 0..2 {
        limited.client.ask(&prompt(), &soon(), NOW).await.unwrap();
    }
    let begun = Instant::now();
    let failed = limited.client.ask(&prompt(), &by(begun + Duration::from_secs(30)), NOW).await.unwrap_err();
    let Error::Limited { after: Some(after), .. } = &failed.error else { panic!("{:?}", failed.error) };
    assert!((30..=61).contains(&after.as_secs()), "{after:?}");
    assert_eq!((failed.error.code(), failed.error.is_transient()), ("limited", true));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!((server.received().len(), failed.spent.attempts), (2, 0));
    let limit = limited.client.health()[0].limit.unwrap();
    assert_eq!((limit.requests_per_minute, limit.waiting), (2, 0));
}

#[tokio::test]
async fn a_model_whose_limit_is_used_up_is_left_for_the_next() {
    let (first, second) = (Server::start(good(Anthropic)).await, Server::start(good(OpenAi)).await);
    let free = LimitOverride { requests_per_minute: Some(0), tokens_per_minute: None };
    let options = Options { limits: [(OpenAi.model().to_owned(), free)].into(), ..options(1, 0) };
    let limited = limited(options, &[(Anthropic, first.url()), (OpenAi, second.url())]).await;
    assert_eq!(limited.client.health()[1].limit, None);
    let begun = Instant::now();
    for _ in 0..5 {
        limited.client.ask(&prompt(), &by(begun + Duration::from_secs(100)), NOW).await.unwrap();
    }
    assert_eq!((first.received().len(), second.received().len()), (1, 4));
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn what_needs_more_tokens_than_a_minute_has_is_not_asked() {
    let (first, second) = (Server::start(good(Anthropic)).await, Server::start(good(OpenAi)).await);
    let small = LimitOverride { tokens_per_minute: Some(1_000), ..LimitOverride::default() };
    let options = Options { limits: [(Anthropic.model().to_owned(), small)].into(), ..options(0, 0) };
    let limited = limited(options, &[(Anthropic, first.url()), (OpenAi, second.url())]).await;
    assert_eq!(limited.client.ask(&prompt(), &soon(), NOW).await.unwrap().provider.as_str(), "openai");
    let terms = Terms { model: Some(Anthropic.model().to_owned()), ..soon() };
    let failed = limited.client.ask(&prompt(), &terms, NOW).await.unwrap_err();
    assert!(matches!(failed.error, Error::OverLimit { limit: 1_000, .. }), "{:?}", failed.error);
    assert!(first.received().is_empty());
}

#[tokio::test]
async fn tokens_that_were_not_used_are_given_back() {
    let server = Server::start(good(OpenAi)).await;
    // A call may take some 1,500 at the worst, and truly takes 1,077: room for three that say so, and for two that don't.
    let limited = limited(options(0, 4_000), &[(OpenAi, server.url())]).await;
    let begun = Instant::now();
    for _ in 0..3 {
        limited.client.ask(&prompt(), &by(begun + Duration::from_secs(30)), NOW).await.unwrap();
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    // What was truly used is not free before a minute is over.
    let failed = limited.client.ask(&prompt(), &by(Instant::now() + Duration::from_secs(20)), NOW).await.unwrap_err();
    assert!(matches!(failed.error, Error::Limited { .. }), "{:?}", failed.error);
    assert_eq!(server.received().len(), 3);
}

#[tokio::test]
async fn what_was_never_sent_counts_for_nothing() {
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let limited = limited(options(1, 0), &[(OpenAi, format!("http://{closed}"))]).await;
    for _ in 0..2 {
        let failed = limited.client.ask(&prompt(), &soon(), NOW).await.unwrap_err();
        assert!(matches!(failed.error, Error::Connect { .. }), "{:?}", failed.error);
    }
}

#[tokio::test]
async fn a_second_request_beside_the_first_never_waits_for_the_limit() {
    let server = Server::start(good(OpenAi)).await;
    let limited = limited(Options { hedge: true, ..options(21, 0) }, &[(OpenAi, server.url())]).await;
    for _ in 0..20 {
        limited.client.ask(&prompt(), &soon(), NOW).await.unwrap();
    }
    server.script_on([Reply::Stalled, good(OpenAi)]);
    let failed = limited.client.ask(&prompt(), &by(Instant::now() + Duration::from_secs(3)), NOW).await.unwrap_err();
    assert!(matches!(failed.error, Error::Timeout { .. }), "{:?}", failed.error);
    assert_eq!(server.received().len(), 21);
}

#[tokio::test]
async fn who_waits_for_one_models_limit_is_in_nobodys_way() {
    let (first, second) = (Server::start(good(Anthropic)).await, Server::start(good(OpenAi)).await);
    let free = LimitOverride { requests_per_minute: Some(0), tokens_per_minute: None };
    let limits = [(OpenAi.model().to_owned(), free)].into();
    let options = Options { limits, max_concurrent: 1, ..options(1, 0) };
    let limited = limited(options, &[(Anthropic, first.url()), (OpenAi, second.url())]).await;
    let of = |format: Format| Terms {
        model: Some(format.model().to_owned()),
        ..by(Instant::now() + Duration::from_secs(100))
    };
    limited.client.ask(&prompt(), &of(Anthropic), NOW).await.unwrap();
    let (client, terms) = (limited.client.clone(), of(Anthropic));
    let waiting = tokio::spawn(async move { client.ask(&prompt(), &terms, NOW).await });
    while limited.client.health()[0].limit.unwrap().waiting == 0 {
        assert!(!waiting.is_finished(), "it does not wait");
        tokio::task::yield_now().await;
    }
    let begun = Instant::now();
    limited.client.ask(&prompt(), &of(OpenAi), NOW).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    // Who gives up leaves the queue.
    waiting.abort();
    let _ = waiting.await;
    assert_eq!(limited.client.health()[0].limit.unwrap().waiting, 0);
    assert_eq!(first.received().len(), 1);
}
