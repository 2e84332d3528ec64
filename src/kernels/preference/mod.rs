//! Rewards of answers and losses over comparisons.

pub mod pairwise_loss;
pub mod pooled_head;
