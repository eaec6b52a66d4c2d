//! Graphs of steps.

pub mod draw;
pub mod optimize;
pub mod rules;
