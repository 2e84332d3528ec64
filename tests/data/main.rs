//! From preference files to packed batches.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod examples;
mod expected;
mod packing;
mod real;
mod texts;
