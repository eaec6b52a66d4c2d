//! The only wiring.

pub mod nats_server;
