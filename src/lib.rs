//! Tandem answers requests for code on NATS: by cache, by rules, by a model, and learns which works best.
//! `ARCHITECTURE.md` is the map; `tests/architecture.rs` holds the floors.

pub mod app;
pub mod bus;
pub mod cache;
pub mod cli;
pub mod config;
pub mod coordinator;
pub mod domain;
pub mod embed;
pub mod http;
pub mod llm;
pub mod pipeline;
pub mod retry;
pub mod store;
pub mod telemetry;
pub mod workflow;
