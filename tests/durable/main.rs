//! Durable work on a real server: submits survive workers, servers and senders, and each has one effect.

#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub, reason = "a test")]

#[path = "../support/nats.rs"]
mod nats;
mod streams;
