//! Preference records and packed batches.
