//! A model provider over HTTP that takes its time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::post;
use serde_json::json;
use tandem::config::Config;
use tandem::llm::{Credentials, Key, PriceOverride};
use tokio::net::TcpListener;

pub struct Slow {
    address: SocketAddr,
    pub asked: Arc<AtomicUsize>,
    serving: tokio::task::JoinHandle<()>,
}

impl Slow {
    /// Answers each call after `delay`.
    pub async fn start(delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let answer = move || {
            count.fetch_add(1, Ordering::Relaxed);
            async move {
                tokio::time::sleep(delay).await;
                let text = "```rust\npub fn least() -> u32 {\n    0\n}\n```";
                axum::Json(json!({
                    "id": "c", "object": "chat.completion", "created": 1, "model": "gpt-5-mini",
                    "choices": [{
                        "index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"
                    }],
                    "usage": {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}
                }))
            }
        };
        let app = Router::new().fallback(post(answer));
        let serving = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, asked, serving }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What a worker needs to ask it. It costs nothing, so no answer waits for the database.
    pub fn known_to(&self, config: &mut Config) -> Credentials {
        let price = PriceOverride { input_usd_per_mtok: 0.0, output_usd_per_mtok: 0.0 };
        config.llm.prices.insert("openai/gpt-5-mini".to_owned(), price);
        Credentials { openai: Some(Key { secret: "sk-test".into(), base_url: self.url() }), ..Credentials::default() }
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
