//! Graphs of steps.

pub mod optimize;
