//! Every shader variant that the kernels and the model use: does each target's compiler take it,
//! and does its layout agree with the Rust side?

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod browser;
mod coverage;
mod inventory;
mod layout;
mod limits;
mod module;
mod targets;
