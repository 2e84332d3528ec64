//! Advantages of responses within their groups (Shao et al. 2024, arXiv 2402.03300, section
//! 4.1.2; Ahmadian et al. 2024, arXiv 2402.14740).

use std::ops::Range;

use crate::kernels::policy::group_advantage::{GroupBaseline, GroupScale};

/// The advantage of each reward; groups do not overlap, and a reward in none gets 0 and counts
/// nowhere.
pub fn group_advantage(
    rewards: &[f64],
    groups: &[Range<usize>],
    baseline: GroupBaseline,
    scale: GroupScale,
    eps: f64,
) -> Vec<f64> {
    let mut out = vec![0.0; rewards.len()];
    for group in groups {
        let own = &rewards[group.clone()];
        for (i, a) in group.clone().zip(&mut out[group.clone()]) {
            let others = own.iter().sum::<f64>() - rewards[i];
            *a = match baseline {
                GroupBaseline::Mean => rewards[i] - mean(own),
                GroupBaseline::LeaveOneOut if own.len() == 1 => 0.0,
                GroupBaseline::LeaveOneOut => rewards[i] - others / (own.len() - 1) as f64,
            };
            if scale == GroupScale::Group {
                *a /= deviation(own) + eps;
            }
        }
    }
    if scale == GroupScale::Batch {
        let spread_of = match baseline {
            GroupBaseline::Mean => rewards,
            GroupBaseline::LeaveOneOut => &out,
        };
        let used: Vec<f64> = groups
            .iter()
            .flat_map(|group| spread_of[group.clone()].iter().copied())
            .collect();
        let shift = match baseline {
            GroupBaseline::Mean => 0.0,
            GroupBaseline::LeaveOneOut => mean(&used),
        };
        let divisor = deviation(&used) + eps;
        for i in groups.iter().cloned().flatten() {
            out[i] = (out[i] - shift) / divisor;
        }
    }
    out
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Unbiased; 0 of fewer than two values.
fn deviation(values: &[f64]) -> f64 {
    let mean = mean(values);
    let squares: f64 = values.iter().map(|x| (x - mean) * (x - mean)).sum();
    (squares / (values.len().max(2) - 1) as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rewards_in_no_group_count_nowhere() {
        let rewards = [1.0, 3.0, 1e9, 5.0];
        let of = |baseline, scale| {
            let groups = [0..2, 3..4];
            group_advantage(&rewards, &groups, baseline, scale, 0.0)
        };
        let mean = of(GroupBaseline::Mean, GroupScale::None);
        assert_eq!(mean, [-1.0, 1.0, 0.0, 0.0]);
        let others = of(GroupBaseline::LeaveOneOut, GroupScale::None);
        assert_eq!(others, [-2.0, 2.0, 0.0, 0.0]);
        let batch = of(GroupBaseline::Mean, GroupScale::Batch);
        assert_eq!(batch, [-0.5, 0.5, 0.0, 0.0]);
    }
}
