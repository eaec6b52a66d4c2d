//! The table of faults: each one in each wire format, at once and as a stream where it can be in one.

use std::time::Duration;

use serde_json::{Value, json};
use tandem::domain::{NanoUsd, Tally, Tenant};
use tandem::llm::{
    Books, BreakerOptions, Client, Completion, Error, Failed, Finish, Options, Prompt, Reason, Schema, Terms,
};
use tandem::store::{Options as StoreOptions, Recorder, RecorderOptions, Store};
use tokio::net::TcpListener;

use crate::Format::{Anthropic, Gemini, OpenAi};
use crate::fault::report;
use crate::provider::{Act, Reply, Server};
use crate::stream::{listening, text};
use crate::{CANARY, FORMATS, Format, NOW, assert_no_canary, prompt};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    AtOnce,
    Stream,
}

use Mode::{AtOnce, Stream};

/// One fault: what is sent, and then what must come of it.
struct Fault {
    name: &'static str,
    /// The replies before a good one; empty where the fault can't be in this mode.
    replies: fn(Format, Mode) -> Vec<Reply>,
    expect: Expect,
}

enum Expect {
    /// A later attempt succeeds, after so many.
    Recovers(u32),
    /// No attempt is made after the first, and the error is of this kind.
    Fails(fn(&Error) -> bool),
    /// An answer that says itself that it is not whole.
    Truncated,
}

use Expect::{Fails, Recovers, Truncated};

const TABLE: &[Fault] = &[
    Fault { name: "429", replies: |f, _| vec![refused(f, 429)], expect: Recovers(2) },
    Fault {
        name: "429, Retry-After",
        replies: |f, _| vec![refused(f, 429).header("retry-after", "1")],
        expect: Recovers(2),
    },
    Fault {
        name: "429, Retry-After-Ms",
        replies: |f, _| vec![refused(f, 429).header("retry-after-ms", "50")],
        expect: Recovers(2),
    },
    Fault { name: "529", replies: |f, _| vec![refused(f, 529)], expect: Recovers(2) },
    Fault { name: "500 twice", replies: |f, _| vec![refused(f, 500), refused(f, 500)], expect: Recovers(3) },
    Fault { name: "reset before the answer", replies: |_, _| vec![Reply::Reset], expect: Recovers(2) },
    Fault { name: "reset in the middle", replies: reset, expect: Recovers(2) },
    Fault { name: "cut in good order", replies: cut, expect: Recovers(2) },
    Fault { name: "stalled before the answer", replies: stalled_first, expect: Recovers(2) },
    Fault { name: "stalled in the middle", replies: stalled, expect: Recovers(2) },
    Fault { name: "slow first token", replies: slow, expect: Recovers(2) },
    Fault { name: "malformed", replies: malformed, expect: Recovers(2) },
    Fault { name: "empty body", replies: empty, expect: Recovers(2) },
    Fault { name: "overload in a 200", replies: overload, expect: Recovers(2) },
    Fault { name: "two events in a chunk", replies: joined, expect: Recovers(1) },
    Fault { name: "one event in two chunks", replies: split, expect: Recovers(1) },
    Fault {
        name: "wrong content type",
        replies: |f, mode| {
            let html = vec![("content-type", "text/html".to_owned())];
            let body = match mode {
                AtOnce => f.good(f.stop()).to_string(),
                Stream => f.events(f.stop()).concat(),
            };
            vec![Reply::Full { status: 200, headers: html, body: body.into() }]
        },
        expect: Fails(|e| matches!(e, Error::Malformed { .. })),
    },
    Fault {
        name: "redirect",
        replies: |_, _| vec![Reply::json(307, "").header("location", "/elsewhere")],
        expect: Fails(|e| matches!(e, Error::Status { status: 307, reason: Reason::Rejected, .. })),
    },
    Fault { name: "huge answer", replies: huge, expect: Fails(|e| matches!(e, Error::TooLarge { .. })) },
    Fault {
        name: "400",
        replies: |f, _| vec![refused(f, 400)],
        expect: Fails(|e| matches!(e, Error::Status { reason: Reason::Rejected, .. })),
    },
    Fault {
        name: "401 after a key rotation",
        replies: |f, _| vec![refused(f, 401)],
        expect: Fails(|e| matches!(e, Error::Status { reason: Reason::Unauthorized, .. })),
    },
    Fault {
        name: "403",
        replies: |f, _| vec![refused(f, 403)],
        expect: Fails(|e| matches!(e, Error::Status { reason: Reason::Unauthorized, .. })),
    },
    Fault {
        name: "spending limit",
        replies: |f, _| vec![broke(f)],
        expect: Fails(|e| matches!(e, Error::Status { reason: Reason::AccountLimit, .. })),
    },
    Fault {
        name: "context too long",
        replies: |f, _| vec![too_long(f)],
        expect: Fails(|e| matches!(e, Error::Status { reason: Reason::TooLong, .. })),
    },
    Fault {
        name: "unknown finish reason",
        replies: |f, mode| vec![finished(f, mode, "surprise")],
        expect: Fails(|e| matches!(e, Error::UnknownFinish { word, .. } if word == "surprise")),
    },
    Fault {
        name: "wrong JSON against the schema",
        replies: |f, mode| vec![finished(f, mode, f.stop())],
        expect: Fails(|e| matches!(e, Error::Mismatch { .. })),
    },
    Fault {
        name: "cut at the limit of tokens",
        replies: |f, mode| {
            let word = match f {
                Anthropic => "max_tokens",
                OpenAi => "length",
                Gemini => "MAX_TOKENS",
            };
            vec![finished(f, mode, word)]
        },
        expect: Truncated,
    },
];

fn refused(format: Format, status: u16) -> Reply {
    Reply::json(status, format.error(&format!("no, {CANARY}")).to_string())
}

fn finished(format: Format, mode: Mode, word: &str) -> Reply {
    match mode {
        AtOnce => Reply::json(200, format.good(word).to_string()),
        Stream => Reply::events(format.events(word)),
    }
}

/// The events of a good stream up to where text has come and the end has not.
fn begun(format: Format) -> Vec<Act> {
    let events = format.events(format.stop());
    let some = match format {
        Anthropic => 7,
        OpenAi | Gemini => 2,
    };
    events.into_iter().take(some).map(|event| Act::Send(event.into_bytes())).collect()
}

fn broken_off(format: Format, mode: Mode, by: Act) -> Vec<Reply> {
    let acts = match mode {
        AtOnce => {
            let body = format.good(format.stop()).to_string().into_bytes();
            let half = Act::Send(body[..body.len() / 2].to_vec());
            return vec![Reply::Stream { content_type: "application/json", acts: vec![half, by] }];
        }
        Stream => [begun(format), vec![by]].concat(),
    };
    vec![Reply::acts(acts)]
}

fn reset(format: Format, mode: Mode) -> Vec<Reply> {
    broken_off(format, mode, Act::Reset)
}

fn stalled(format: Format, mode: Mode) -> Vec<Reply> {
    broken_off(format, mode, Act::Stall)
}

fn cut(format: Format, mode: Mode) -> Vec<Reply> {
    match mode {
        AtOnce => broken_off(format, mode, Act::Send(b" ".to_vec())),
        Stream => vec![Reply::acts(begun(format))],
    }
}

fn stalled_first(_: Format, _: Mode) -> Vec<Reply> {
    vec![Reply::Stalled]
}

fn slow(_: Format, mode: Mode) -> Vec<Reply> {
    let alive = Act::Send(b": still here\n\n".to_vec());
    let pause = Act::Pause(Duration::from_millis(100));
    match mode {
        AtOnce => vec![],
        Stream => vec![Reply::acts([alive, pause].into_iter().cycle().take(200).chain([Act::Stall]))],
    }
}

fn malformed(format: Format, mode: Mode) -> Vec<Reply> {
    match mode {
        AtOnce => vec![Reply::json(200, format!("{{\"key\": \"{CANARY}\", nope"))],
        Stream => {
            let wrong = Act::Send(format!("data: {{\"key\": \"{CANARY}\", nope\n\n").into_bytes());
            vec![Reply::acts([begun(format), vec![wrong]].concat())]
        }
    }
}

fn empty(_: Format, mode: Mode) -> Vec<Reply> {
    match mode {
        AtOnce => vec![Reply::json(200, "")],
        Stream => vec![Reply::acts([])],
    }
}

fn overload(format: Format, mode: Mode) -> Vec<Reply> {
    let overloaded = format.overload();
    match mode {
        AtOnce => vec![Reply::json(200, overloaded.to_string())],
        Stream => {
            let told = match format {
                Anthropic => format!("event: error\ndata: {overloaded}\n\n"),
                OpenAi | Gemini => format!("data: {overloaded}\n\n"),
            };
            vec![Reply::acts([begun(format), vec![Act::Send(told.into_bytes())]].concat())]
        }
    }
}

fn huge(format: Format, mode: Mode) -> Vec<Reply> {
    match mode {
        AtOnce => vec![Reply::Endless],
        Stream => {
            let comment = Act::Send(format!(":{}\n\n", " ".repeat(512 << 10)).into_bytes());
            vec![Reply::acts([begun(format), vec![comment; 20], vec![Act::Stall]].concat())]
        }
    }
}

fn joined(format: Format, mode: Mode) -> Vec<Reply> {
    match mode {
        AtOnce => vec![],
        Stream => vec![Reply::events(format.events(format.stop()).chunks(2).map(<[String]>::concat))],
    }
}

fn split(format: Format, mode: Mode) -> Vec<Reply> {
    let halves = |text: String| {
        let (first, second) = text.as_bytes().split_at(text.len() / 2);
        [first.to_vec(), second.to_vec()]
    };
    match mode {
        AtOnce => {
            let acts = halves(format.good(format.stop()).to_string()).map(Act::Send).to_vec();
            vec![Reply::Stream { content_type: "application/json", acts }]
        }
        Stream => vec![Reply::events(format.events(format.stop()).into_iter().flat_map(halves))],
    }
}

/// As each provider says that the account is empty, which is not the same as too many requests.
fn broke(format: Format) -> Reply {
    let says = |status, body: Value| Reply::json(status, body.to_string());
    match format {
        Anthropic => says(
            400,
            json!({"type": "error", "error": {"type": "invalid_request_error",
            "message": "Your credit balance is too low to access the Anthropic API."}}),
        ),
        OpenAi => {
            says(429, json!({"error": {"type": "insufficient_quota", "code": "insufficient_quota", "message": "x"}}))
        }
        Gemini => says(402, json!({"error": {"code": 402, "status": "FAILED_PRECONDITION", "message": "billing"}})),
    }
}

fn too_long(format: Format) -> Reply {
    let body = match format {
        Anthropic => json!({"type": "error", "error": {"type": "invalid_request_error",
            "message": "prompt is too long: 210000 tokens > 200000 maximum"}}),
        OpenAi => {
            json!({"error": {"type": "invalid_request_error", "code": "context_length_exceeded", "message": "x"}})
        }
        Gemini => json!({"error": {"code": 400, "status": "INVALID_ARGUMENT",
            "message": "The input token count (2000000) exceeds the maximum number of tokens allowed (1048576)."}}),
    };
    Reply::json(400, body.to_string())
}

async fn asked(
    fault: &Fault,
    format: Format,
    mode: Mode,
    server: &Server,
    books: &Books,
) -> (Result<Completion, Failed>, String) {
    // Short only where silence is the fault: a busy machine is silent, too.
    let patience = if fault.name.starts_with("stalled") || fault.name.starts_with("slow") { 1_500 } else { 30_000 };
    let options = Options {
        route: vec![format.model().into()],
        backoff_ms: 1,
        requests_per_minute: 0,
        response_timeout_ms: patience,
        first_token_timeout_ms: patience,
        idle_timeout_ms: patience,
        breaker: BreakerOptions { failures: 0, ..BreakerOptions::default() },
        ..Options::default()
    };
    let schema = fault.name.contains("schema").then(|| Schema::new(&json!({"type": "object"})).unwrap());
    let asked = Prompt { schema, ..prompt() };
    let (terms, heard) = listening();
    let terms = if mode == Stream { terms } else { Terms { listener: None, ..terms } };
    let client = Client::new(options, format.credentials(server.url(), CANARY), Some(books.clone())).unwrap();
    let answer = client.ask(&asked, &terms, NOW).await;
    let attempt = server.received().len() as u32;
    (answer, text(&heard, attempt))
}

/// What the table says of one fault in one format, and how many requests the provider got.
async fn cell(fault: &Fault, format: Format, mode: Mode, books: &Books) -> (String, u32) {
    let replies = (fault.replies)(format, mode);
    if replies.is_empty() {
        return ("-".to_owned(), 0);
    }
    let server = Server::script(replies.into_iter().chain([finished(format, mode, format.stop())])).await;
    let (answer, heard) = asked(fault, format, mode, &server, books).await;
    let (received, at) = (server.received().len() as u32, format!("{}, {format:?}, {mode:?}", fault.name));
    match (&fault.expect, &answer) {
        (Recovers(attempts), Ok(answer)) => {
            assert_eq!((received, answer.spent.attempts), (*attempts, *attempts), "{at}");
            assert_eq!((answer.text.as_str(), answer.finish), ("fn main() {}", Finish::Stop), "{at}");
            assert!(answer.cost() > NanoUsd::ZERO, "{at}");
            assert!(mode == AtOnce || heard == "fn main() {}", "{at}: {heard}");
        }
        (Fails(is_right), Err(failed)) => {
            assert!(is_right(&failed.error), "{at}: {:?}", failed.error);
            assert_eq!(received, 1, "{at}");
            assert_no_canary(&failed.error);
        }
        (Truncated, Ok(answer)) => {
            assert_eq!((received, answer.finish, answer.is_complete()), (1, Finish::Length, false), "{at}");
        }
        (_, answer) => panic!("{at}: {answer:?}"),
    }
    (format!("pass in {received}"), received)
}

#[tokio::test]
async fn every_fault_in_every_format_ends_as_it_should() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("tandem.db").display());
    let store = Store::open(&StoreOptions { url, ..StoreOptions::default() }).await.unwrap();
    let books = Books { recorder: Recorder::start(store.clone(), &RecorderOptions::default()), store, journal: None };
    let (mut lines, mut received) = (vec![], 0);
    for fault in TABLE {
        let of = |mode| FORMATS.map(|format| cell(fault, format, mode, &books));
        let cells: Vec<(String, u32)> = futures::future::join_all([AtOnce, Stream].into_iter().flat_map(of)).await;
        received += cells.iter().map(|(_, received)| u64::from(*received)).sum::<u64>();
        lines.push((fault.name, cells.into_iter().map(|(cell, _)| cell).collect::<Vec<_>>()));
    }
    books.recorder.flush().await.unwrap();
    let (tallies, _) = books.store.tallies(&Tenant::default()).await.unwrap();
    let sum = |of: fn(&Tally) -> u64| tallies.iter().map(of).sum::<u64>();
    let (sent, unknown) = (sum(|tally| tally.sent), sum(|tally| tally.unknown));
    report(
        "model: the ledger against the providers' logs",
        format!("{sent} in the ledger, {unknown} of them of unknown cost; {received} received"),
        "as many",
    );
    assert_eq!((sent, sum(|tally| tally.attempts)), (received, received));
    for file in std::fs::read_dir(folder.path()).unwrap().flatten() {
        let bytes = std::fs::read(file.path()).unwrap();
        assert!(!bytes.windows(CANARY.len()).any(|part| part == CANARY.as_bytes()), "{:?} has the key", file.path());
    }
    for (name, cells) in lines {
        report(
            &format!("model: {name}"),
            cells.join(", "),
            "full pass; at once, then streamed: Anthropic, OpenAI, Gemini",
        );
    }
}

#[tokio::test]
async fn a_provider_that_is_not_there_is_unreachable_and_costs_nothing() {
    for (format, mode) in FORMATS.into_iter().flat_map(|f| [(f, AtOnce), (f, Stream)]) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let options =
            Options { route: vec![format.model().into()], backoff_ms: 1, max_retries: 2, ..Options::default() };
        let client: Client = format.client_with(options, format!("http://{address}"));
        let (terms, _) = listening();
        let terms = if mode == Stream { terms } else { Terms { listener: None, ..terms } };
        let failed = client.ask(&prompt(), &terms, NOW).await.unwrap_err();
        assert!(matches!(failed.error, Error::Connect { .. }), "{:?}", failed.error);
        assert_eq!((failed.spent.attempts, failed.spent.cost, failed.spent.unknown), (3, NanoUsd::ZERO, NanoUsd::ZERO));
        assert_no_canary(&failed.error);
    }
    report("model: refused connection", "pass, nothing sent, nothing owed", "full pass");
}
