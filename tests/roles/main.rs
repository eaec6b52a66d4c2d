//! Who may do what: how a worker and its clients log in, what `nats.conf` lets each role do, who makes the streams, and
//! that the files for production are what they say.

#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub, reason = "a test")]

#[path = "../support/process.rs"]
mod process;

mod connect;
mod deploy;
mod permissions;
mod provision;
mod server;
