//! What providers count, priced: each object goes through the real adapter, at once and as a stream.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tandem::domain::Timestamp;
use tandem::llm::{Listener, Terms};

use crate::provider::{Reply, Server};
use crate::{Anthropic, Format, Gemini, OpenAi, prompt, soon};

struct Recorded {
    at: Timestamp,
    note: String,
    usage: Value,
    nanodollars: u64,
}

fn recorded() -> BTreeMap<String, Vec<Recorded>> {
    let mut models: BTreeMap<String, Vec<Recorded>> = BTreeMap::new();
    for line in include_str!("../data/usage.jsonl").lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let of_model = models.entry(line["model"].as_str().unwrap().to_owned()).or_default();
        of_model.push(Recorded {
            at: Timestamp(line["at_ms"].as_i64().unwrap()),
            note: line["note"].as_str().unwrap().to_owned(),
            usage: line["usage"].clone(),
            nanodollars: line["nanodollars"].as_u64().unwrap(),
        });
    }
    models
}

impl Format {
    fn of(model: &str) -> Self {
        match model.split('/').next().unwrap() {
            "anthropic" => Anthropic,
            "openai" => OpenAi,
            "google" => Gemini,
            other => panic!("{other}"),
        }
    }

    fn counting(self, model: &str, usage: &Value) -> Reply {
        let mut body = self.good(self.stop());
        let (name, place) = match self {
            Anthropic => ("model", "usage"),
            OpenAi => ("model", "usage"),
            Gemini => ("modelVersion", "usageMetadata"),
        };
        body[name] = json!(model);
        body[place] = usage.clone();
        Reply::json(200, body.to_string())
    }

    fn counting_as_stream(self, usage: &Value) -> Reply {
        let counted = self.good(self.stop())[if self == Gemini { "usageMetadata" } else { "usage" }].clone();
        let events = self.events(self.stop()).into_iter().map(|event| {
            let at = event.find("data: ").unwrap() + 6;
            let Ok(mut data) = serde_json::from_str::<Value>(event[at..].trim()) else { return event };
            // The tests' own model is in the events; the one that was asked for says what is paid.
            ["model", "modelVersion"].iter().for_each(|name| drop(data.as_object_mut().unwrap().remove(*name)));
            match self {
                Anthropic if data["type"] == "message_start" => {
                    data["message"].as_object_mut().unwrap().remove("model");
                    data["message"]["usage"] = usage.clone();
                    data["message"]["usage"]["output_tokens"] = json!(1);
                }
                // Counts are cumulative: the last ones hold.
                Anthropic if data["type"] == "message_delta" => data["usage"] = usage.clone(),
                OpenAi if data["usage"] == counted => data["usage"] = usage.clone(),
                Gemini if data["usageMetadata"] == counted => data["usageMetadata"] = usage.clone(),
                _ => {}
            }
            format!("{}{data}\n\n", &event[..at])
        });
        Reply::events(events.collect::<Vec<_>>())
    }
}

#[tokio::test]
async fn recorded_usage_is_priced_to_the_nano_dollar() {
    let models = recorded();
    let count: usize = models.values().map(Vec::len).sum();
    assert!(count >= 200, "{count}");
    let mut of_format = BTreeMap::<&str, usize>::new();
    for (model, recorded) in &models {
        let (format, name) = (Format::of(model), model.split_once('/').unwrap().1);
        *of_format.entry(model.split('/').next().unwrap()).or_default() += recorded.len();
        let server = Server::start(Reply::json(500, "")).await;
        let client = format.client_for(model, server.url());
        for Recorded { at, note, usage, nanodollars } in recorded {
            server.says(format.counting(name, usage));
            let whole = client.ask(&prompt(), &soon(), *at).await.unwrap();
            assert_eq!(whole.cost().0, *nanodollars, "{model}, {note}: {usage}");
            server.says(format.counting_as_stream(usage));
            let terms = Terms { listener: Some(Listener::new(|_, _| {})), ..soon() };
            let stream = client.ask(&prompt(), &terms, *at).await.unwrap();
            assert_eq!(stream.cost().0, *nanodollars, "{model}, {note}, as a stream: {usage}");
            assert_eq!(whole.tokens, stream.tokens, "{model}, {note}");
        }
    }
    assert!(of_format.len() == 3 && of_format.values().all(|n| *n >= 60), "{of_format:?}");
}

#[test]
fn the_expected_costs_are_those_of_the_script() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/usage.py");
    let checked = std::process::Command::new("python3").args([script, "--check"]).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}
