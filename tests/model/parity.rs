//! Fifty updates that TRL's own trainers made, made again: the same losses, gradient norms,
//! margins, accuracies and learning rates.

use example_tools::parity::{Difference, Run};

use crate::support::fixture;
use crate::tools::gpu;

/// Of losses, margins, accuracies and learning rates. Both sides compute in f32, and every update
/// starts from weights that carry the rounding of all before it; measured: 5e-6.
const BOUND: f64 = 2e-5;
/// Of gradient norms, relative where they are above 1; measured: 4e-5, as TRL from float64.
const NORM_BOUND: f64 = 1e-4;

fn compare(name: &str) {
    let Some(folder) = fixture("parity") else {
        return;
    };
    let run = Run::read(&folder.join(format!("{name}.json"))).unwrap();
    let ours = run.train(gpu()).unwrap();
    assert_eq!(ours.loss.len(), 50);
    let all = ours.figures().into_iter().zip(run.trl.figures());
    for (((what, ours), (_, trl)), (_, exact)) in all.zip(run.f64.figures()) {
        let found = Difference::of(ours, trl);
        println!(
            "{name}: {what}: {:.1e} from TRL at update {}, {:.1e} from float64",
            found.largest,
            found.update,
            Difference::of(ours, exact).largest
        );
        let bound = match what {
            "gradient norm" => NORM_BOUND,
            _ => BOUND,
        };
        assert!(found.largest < bound, "{name}: {what}: {found:?}");
    }
}

#[test]
fn fifty_updates_of_a_gpt2_reward_model_equal_trl() {
    compare("reward_gpt2");
}

#[test]
fn fifty_updates_of_dpo_on_gpt2_equal_trl() {
    compare("dpo_gpt2");
}

#[test]
fn fifty_updates_of_a_qwen2_reward_model_equal_trl() {
    compare("reward_qwen2");
}

#[test]
fn fifty_updates_of_dpo_on_qwen2_equal_trl() {
    compare("dpo_qwen2");
}

#[test]
fn a_difference_is_the_largest_and_never_overlooks_what_is_not_a_number() {
    let of = |ours: &[f64], theirs: &[f64]| Difference::of(ours, theirs);
    let found = of(&[1.0, 0.5, 12.0], &[1.0, 0.25, 10.0]);
    assert_eq!((found.largest, found.update), (0.25, 2));
    assert_eq!(of(&[1.0], &[1.0, 2.0]).update, 2);
    assert!(of(&[1.0], &[1.0, 2.0]).largest.is_infinite());
    let found = of(&[0.0, f64::NAN, 3.0], &[0.0, 1.0, 1.0]);
    assert!(found.largest.is_nan() && found.update == 2);
}
