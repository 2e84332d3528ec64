//! Preference records and packed batches.

pub mod batch;
