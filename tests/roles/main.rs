//! Who may do what: how a worker and its clients log in, what `nats.conf` lets each role do, who makes the streams, that
//! the files for production are what they say, and that two versions bear each other.

#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub, reason = "a test")]

#[path = "../support/nats.rs"]
mod nats;
#[path = "../support/process.rs"]
mod process;

mod connect;
mod deploy;
mod permissions;
mod provision;
mod server;
mod upgrade;
