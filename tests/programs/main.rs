//! The examples as a person runs them: their output, their files, and what they refuse.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../support/mod.rs"]
mod support;

mod chat;
mod generate;
mod logprobs;
mod models;
mod policy;
mod refused;
mod resume;
mod run;
mod score;
mod small;
