//! Several questions: beside each other and after each other.

use std::cell::RefCell;
use std::time::Duration;

use serde_json::json;
use tandem::llm::{BreakerOptions, Client, Error, Options, Query};
use tokio::time::Instant;

use crate::Format::OpenAi;
use crate::provider::{Act, Reply, Server};
use crate::{NOW, by, soon};

fn says(text: &str) -> Reply {
    let mut body = OpenAi.good("stop");
    body["choices"][0]["message"]["content"] = json!(text);
    Reply::json(200, body.to_string())
}

fn failing() -> Reply {
    Reply::json(400, OpenAi.error("scripted").to_string())
}

fn client(server: &Server) -> Client {
    let breaker = BreakerOptions { failures: 0, ..BreakerOptions::default() };
    let options = Options { route: vec![OpenAi.model().into()], backoff_ms: 1, breaker, ..Options::default() };
    OpenAi.client_with(options, server.url())
}

fn queries(prompts: &[&str]) -> Vec<Query> {
    prompts.iter().map(|prompt| Query { prompt: (*prompt).to_owned(), ..Query::default() }).collect()
}

#[tokio::test]
async fn results_are_in_order_with_failures_among_them_and_each_has_its_session() {
    let server = Server::script([says("a"), failing(), says("c")]).await;
    let told = RefCell::new(vec![]);
    let hear = |index, _: &_| told.borrow_mut().push(index);
    let answers = client(&server).query_parallel(queries(&["1", "2", "3"]), 1, &soon(), NOW, hear).await;
    let prompts: Vec<&str> = answers.iter().map(|answer| answer.prompt.as_str()).collect();
    assert_eq!(prompts, ["1", "2", "3"]);
    assert_eq!(answers.iter().map(|a| a.is_success()).collect::<Vec<_>>(), [true, false, true]);
    let said: Vec<(&str, &str)> = answers[2].messages.iter().map(|m| (m.role.as_str(), m.content.as_str())).collect();
    assert_eq!(said, [("user", "3"), ("assistant", "c")]);
    assert!(matches!(answers[1].outcome.as_ref().unwrap_err().error, Error::Status { status: 400, .. }));
    assert!(answers[0].session_id != answers[2].session_id);
    assert_eq!(told.into_inner(), [0, 1, 2]);
}

#[tokio::test]
async fn never_more_run_than_allowed_and_as_many_as_that_do() {
    let slow = Reply::Stream {
        content_type: "application/json",
        acts: vec![Act::Pause(Duration::from_millis(150)), Act::Send(OpenAi.good("stop").to_string().into_bytes())],
    };
    let server = Server::start(slow).await;
    let many: Vec<Query> = (0..20).map(|n| Query { prompt: n.to_string(), ..Query::default() }).collect();
    // The configuration's bound holds over whatever a sender asks for.
    let options = Options { route: vec![OpenAi.model().into()], max_concurrent: 3, ..Options::default() };
    let bounded = OpenAi.client_with(options, server.url());
    let answers = bounded.query_parallel(many.clone(), 20, &soon(), NOW, |_, _| {}).await;
    assert!(answers.iter().all(|answer| answer.is_success()));
    assert_eq!(server.most_at_once(), 3);
    let begun = Instant::now();
    let answers = client(&server).query_parallel(many, 5, &soon(), NOW, |_, _| {}).await;
    assert!(answers.iter().all(|answer| answer.is_success()));
    assert_eq!(server.most_at_once(), 5);
    // In turn it would be 3 s; four rounds are 0.6.
    assert!(begun.elapsed() < Duration::from_millis(2_000), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn what_runs_at_the_end_of_the_time_is_cancelled_and_what_waited_never_begins() {
    let server = Server::script([says("a"), Reply::Stalled]).await;
    let terms = by(Instant::now() + Duration::from_secs(2));
    let answers = client(&server).query_parallel(queries(&["1", "2", "3", "4"]), 1, &terms, NOW, |_, _| {}).await;
    assert!(answers[0].is_success());
    let error = |index: usize| &answers[index].outcome.as_ref().unwrap_err().error;
    assert!(matches!(error(1), Error::Timeout { .. }), "{:?}", error(1));
    assert!(matches!((error(2), error(3)), (Error::NotBegun, Error::NotBegun)));
    assert_eq!(server.received().len(), 2);
    let begun = Instant::now();
    while server.cancels() < 1 {
        assert!(begun.elapsed() < Duration::from_secs(10), "it was not really cancelled");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_batch_that_nobody_waits_for_is_cancelled_whole() {
    let server = Server::start(Reply::Stalled).await;
    let asking = tokio::spawn({
        let client = client(&server);
        async move { client.query_parallel(queries(&["1", "2", "3"]), 3, &soon(), NOW, |_, _| {}).await }
    });
    while server.received().len() < 3 {
        tokio::task::yield_now().await;
    }
    asking.abort();
    let begun = Instant::now();
    while server.cancels() < 3 {
        assert!(begun.elapsed() < Duration::from_secs(10), "{} of 3 were cancelled", server.cancels());
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn each_step_sees_the_one_before_it_where_it_is_to() {
    for use_context in [true, false] {
        let server = Server::script([says("pear"), says("a pear is green"), says("done")]).await;
        let steps = queries(&["Name a fruit.", "Describe it.", "Translate it."]);
        let steps = client(&server).query_pipeline(steps, use_context, vec![], &soon(), NOW, |_, _| {}).await;
        assert_eq!((steps.failed, steps.taken.len()), (None, 3));
        let asked = server.received().remove(2).body["messages"].clone();
        let expected = match use_context {
            true => {
                json!([{"role": "user", "content": "Describe it."}, {"role": "assistant", "content": "a pear is green"},
                           {"role": "user", "content": "Translate it."}])
            }
            false => json!([{"role": "user", "content": "Translate it."}]),
        };
        assert_eq!(asked, expected);
    }
}

#[tokio::test]
async fn a_pipeline_stops_at_the_step_that_fails_and_goes_on_from_there_without_paying_again() {
    let mut cut = OpenAi.good("length");
    cut["choices"][0]["message"]["content"] = json!("half");
    for failure in [failing(), Reply::json(200, cut.to_string())] {
        let server = Server::script([says("one"), failure]).await;
        let prompts = ["1", "2", "3"];
        let steps = client(&server).query_pipeline(queries(&prompts), true, vec![], &soon(), NOW, |_, _| {}).await;
        assert_eq!((steps.failed, steps.taken.len(), server.received().len()), (Some(1), 2, 2));
        assert!(steps.taken[0].is_success() && !steps.taken[1].is_success());

        server.script_on([says("two"), says("three")]);
        let done = vec!["one".to_owned()];
        let steps = client(&server).query_pipeline(queries(&prompts), true, done, &soon(), NOW, |_, _| {}).await;
        assert_eq!((steps.failed, steps.taken.len(), server.received().len()), (None, 2, 4));
        let asked = server.received().remove(2).body["messages"].clone();
        assert_eq!(asked[1], json!({"role": "assistant", "content": "one"}));
    }
}
