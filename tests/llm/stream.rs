//! Streams: the text as it comes, the same answer and cost as at once, however the bytes are split.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tandem::domain::NanoUsd;
use tandem::llm::{Completion, Error, Failed, Finish, Listener, Options, Terms};

use crate::Format::{Anthropic, Gemini, OpenAi};
use crate::provider::{Act, Reply, Server};
use crate::{FORMATS, Format, NOW, prompt, soon};

/// What the listener was told: the attempt and the text.
pub type Heard = Arc<Mutex<Vec<(u32, String)>>>;

pub fn listening() -> (Terms, Heard) {
    let heard = Heard::default();
    let told = heard.clone();
    let listener = Listener::new(move |attempt, text| told.lock().unwrap().push((attempt, text.to_owned())));
    (Terms { listener: Some(listener), ..soon() }, heard)
}

pub fn text(heard: &Heard, attempt: u32) -> String {
    heard.lock().unwrap().iter().filter(|(a, _)| *a == attempt).map(|(_, text)| text.as_str()).collect()
}

async fn streamed(format: Format, reply: Reply) -> (Result<Completion, Failed>, Heard) {
    let server = Server::start(reply).await;
    let (terms, heard) = listening();
    (format.client(server.url()).ask(&prompt(), &terms, NOW).await, heard)
}

#[tokio::test]
async fn a_stream_gives_the_answer_and_the_cost_that_it_would_have_had_at_once() {
    for (format, input, output, nanos) in
        [(Anthropic, 1000, 40, 3_165_000), (OpenAi, 1000, 77, 329_075), (Gemini, 1001, 12, 330_030)]
    {
        let events = format.events(format.stop());
        let whole = events.concat();
        let by_byte = whole.bytes().map(|byte| vec![byte]).collect::<Vec<_>>();
        let in_two: Vec<Vec<u8>> = whole.as_bytes().chunks(whole.len() / 2 + 7).map(<[u8]>::to_vec).collect();
        let with_cr = whole.replace('\n', "\r\n");
        let commented = format!(": keep alive\n\n{}", events.join(": and again\n\n"));
        for chunks in [
            events.iter().map(|e| e.clone().into_bytes()).collect(),
            vec![whole.clone().into_bytes()],
            by_byte,
            in_two,
            vec![with_cr.into_bytes()],
            vec![commented.into_bytes()],
        ] {
            let (answer, heard) = streamed(format, Reply::events(chunks)).await;
            let answer = answer.unwrap();
            assert_eq!((answer.text.as_str(), answer.finish), ("fn main() {}", Finish::Stop), "{format:?}");
            assert_eq!((answer.tokens.input, answer.tokens.output, answer.cost()), (input, output, NanoUsd(nanos)));
            assert_eq!(text(&heard, 1), "fn main() {}");
        }
    }
}

#[tokio::test]
async fn the_text_is_told_while_the_model_still_writes() {
    for format in FORMATS {
        let mut acts: Vec<Act> = format.events(format.stop()).into_iter().map(|e| Act::Send(e.into_bytes())).collect();
        acts.truncate(match format {
            Anthropic => 7,
            OpenAi | Gemini => 2,
        });
        acts.push(Act::Stall);
        let mut server = Server::start(Reply::acts(acts)).await;
        let (terms, heard) = listening();
        let client = format.client(server.url());
        let asking = tokio::spawn(async move { client.ask(&prompt(), &terms, NOW).await });
        while text(&heard, 1) != "fn " {
            assert!(!asking.is_finished(), "{format:?}");
            tokio::task::yield_now().await;
        }
        // Whoever asked goes: the request is really cancelled.
        asking.abort();
        tokio::time::timeout(Duration::from_secs(10), server.cancelled()).await.unwrap();
    }
}

#[tokio::test]
async fn each_provider_is_asked_for_a_stream_in_its_own_way() {
    for format in FORMATS {
        let server = Server::start(Reply::events(format.events(format.stop()))).await;
        format.client(server.url()).ask(&prompt(), &listening().0, NOW).await.unwrap();
        let request = server.received().remove(0);
        assert_eq!(request.headers["accept"], "text/event-stream");
        match format {
            Anthropic => assert_eq!((request.path.as_str(), &request.body["stream"]), ("/v1/messages", &true.into())),
            OpenAi => {
                assert_eq!((request.path.as_str(), &request.body["stream"]), ("/v1/chat/completions", &true.into()));
                assert_eq!(request.body["stream_options"]["include_usage"], true);
            }
            Gemini => {
                assert_eq!(request.path, "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse");
                assert!(request.body.get("stream").is_none());
            }
        }
    }
}

#[tokio::test]
async fn a_connection_serves_again_after_a_stream() {
    for format in FORMATS {
        let server = Server::start(Reply::events(format.events(format.stop()))).await;
        let client = format.client(server.url());
        for _ in 0..5 {
            client.ask(&prompt(), &listening().0, NOW).await.unwrap();
        }
        assert_eq!((server.received().len(), server.connections()), (5, 1), "{format:?}");
    }
}

#[tokio::test]
async fn a_stream_that_was_cut_begins_anew_and_its_listener_is_told() {
    for format in FORMATS {
        let events = format.events(format.stop());
        let cut = Reply::events(events[..events.len() - 2].to_vec());
        let cut = if format == Gemini { Reply::events(events[..2].to_vec()) } else { cut };
        let server = Server::script([cut, Reply::events(events)]).await;
        let options = Options { route: vec![format.model().into()], backoff_ms: 1, ..Options::default() };
        let (terms, heard) = listening();
        let answer = format.client_with(options, server.url()).ask(&prompt(), &terms, NOW).await;
        if format == OpenAi {
            // Its reason came, its usage did not: the answer is whole and its cost unknown, so it counts as none, once.
            assert!(matches!(answer.unwrap_err().error, Error::Malformed { .. }));
            continue;
        }
        let answer = answer.unwrap();
        assert_eq!((answer.text.as_str(), answer.spent.attempts), ("fn main() {}", 2), "{format:?}");
        assert!(answer.spent.unknown > NanoUsd::ZERO, "what the first attempt cost nobody knows");
        assert_eq!(text(&heard, 2), "fn main() {}");
    }
}

#[tokio::test]
async fn a_count_from_before_the_end_is_no_count() {
    for (format, counted) in [(Anthropic, r#""usage":{"output_tokens":40}"#), (Gemini, r#""candidatesTokenCount":5,"#)]
    {
        let events = format.events(format.stop()).concat();
        assert!(events.contains(counted), "{events}");
        let rest = if format == Anthropic { r#""usage":{}"# } else { "" };
        let (answer, _) = streamed(format, Reply::events([events.replace(counted, rest)])).await;
        let failed = answer.unwrap_err();
        assert!(matches!(failed.error, Error::Malformed { .. }), "{format:?}: {:?}", failed.error);
        assert!(failed.spent.cost == NanoUsd::ZERO && failed.spent.unknown > NanoUsd::ZERO, "{format:?}");
    }
}

#[tokio::test]
async fn a_truncated_stream_says_so() {
    for (format, word) in [(Anthropic, "max_tokens"), (OpenAi, "length"), (Gemini, "MAX_TOKENS")] {
        let (answer, _) = streamed(format, Reply::events(format.events(word))).await;
        let answer = answer.unwrap();
        assert_eq!((answer.finish, answer.is_complete()), (Finish::Length, false), "{format:?}");
    }
}
