//! A model that takes its time and counts whom it was asked by.

#![allow(dead_code, reason = "each test takes what it needs")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use serde_json::{Value, json};
use tandem::config::Config;
use tandem::llm::{Credentials, Key, PriceOverride};

const MODEL: &str = "openai/gpt-5-mini";
const CODE: &str = "```rust\npub fn minimum_cost(matrix: &[Vec<u32>]) -> Option<u32> {\n    matrix.first()?.first().copied()\n}\n```\n";

pub(crate) struct Model {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Model {
    /// Answers after `delay`.
    pub(crate) async fn slow(delay: Duration) -> Self {
        Self::saying(CODE, delay).await
    }

    /// Says this to everything, after `delay`.
    pub(crate) async fn saying(text: &'static str, delay: Duration) -> Self {
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let kept = asked.clone();
        let answer = move |State(asked): State<Arc<Mutex<Vec<String>>>>, body: String| async move {
            asked.lock().unwrap().push(body);
            tokio::time::sleep(delay).await;
            axum::Json(json!({
                "id": "c", "object": "chat.completion", "created": 1, "model": "gpt-5-mini",
                "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 1000, "completion_tokens": 200, "total_tokens": 1200}
            }))
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().fallback(answer).with_state(kept);
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, asked }
    }

    /// How many calls came.
    pub(crate) fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    /// What they sent.
    pub(crate) fn bodies(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    pub(crate) fn credentials(&self) -> Credentials {
        let key = Some(Key { secret: "sk-test".into(), base_url: self.url.clone() });
        Credentials { openai: key, ..Credentials::default() }
    }

    pub(crate) fn routed(&self, mut config: Config) -> Config {
        let price = PriceOverride { input_usd_per_mtok: 3.0, output_usd_per_mtok: 15.0 };
        config.llm.prices = [(MODEL.to_owned(), price)].into();
        config.llm.route = vec![MODEL.to_owned()];
        config
    }

    /// The same for a worker that is a process.
    pub(crate) fn variables(&self) -> Vec<(&'static str, String)> {
        let price: Value = json!({MODEL: {"input_usd_per_mtok": 3, "output_usd_per_mtok": 15}});
        vec![
            ("OPENAI_API_KEY", "sk-test".to_owned()),
            ("OPENAI_BASE_URL", self.url.clone()),
            ("TANDEM__LLM__ROUTE", MODEL.to_owned()),
            ("TANDEM__LLM__PRICES", price.to_string()),
            // More is asked of it than sixty times a minute.
            ("TANDEM__LLM__REQUESTS_PER_MINUTE", "0".to_owned()),
        ]
    }
}
