//! Rewards of answers and the losses over comparisons of them.

pub mod pairwise_loss;
pub mod pooled_head;
