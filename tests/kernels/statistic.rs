//! Statistics of special values and of live rows, and what is refused.

use prefgrad::kernels::reduce::fill::fill;
use prefgrad::kernels::reduce::statistic::{Statistic, StatisticIo, statistic};
use prefgrad::kernels::{Count, Size};
use prefgrad::{Plan, Tensor};

use crate::gpu::gpu;
use crate::tools::{assert_same_bits, random, token_counts, zeros};

const ALL: [Statistic; 4] = [
    Statistic::Sum,
    Statistic::Moments,
    Statistic::Extremes,
    Statistic::NonFinite,
];

/// The result for the first `live` of `values`.
fn of(which: Statistic, values: &[f32], live: usize) -> Vec<f32> {
    let gpu = gpu();
    let len = values.len();
    let values = Tensor::from_slice(gpu, "values", &[len], values).unwrap();
    let result = random(gpu, "result", &[which.result_len()], 1);
    let io = StatisticIo {
        values: &values,
        result: &result,
        partials: &zeros(gpu, "partials", &[which.partials_len(len)]),
        counts: Some(&token_counts(gpu, live as u32)),
    };
    let mut plan = Plan::new(gpu);
    statistic(&mut plan, &io, which, Size::live(len, Count::Tokens)).unwrap();
    plan.submit();
    result.read(gpu).unwrap()
}

#[test]
fn extremes_count_infinities_and_pass_over_what_is_no_number() {
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    let of = |values: &[f32]| of(Statistic::Extremes, values, values.len());
    assert_eq!(of(&[nan, 2.0, -nan, -3.0, nan]), [-3.0, 2.0]);
    assert_eq!(of(&[1.0, inf, nan]), [1.0, inf]);
    assert_eq!(of(&[-inf, nan, -5.0]), [-inf, -5.0]);
    assert_eq!(of(&[nan, -nan]), [inf, -inf]);
    assert_eq!(of(&[f32::MAX, f32::MIN]), [f32::MIN, f32::MAX]);
    assert_eq!(of(&[0.0, f32::MIN_POSITIVE]), [0.0, f32::MIN_POSITIVE]);
    assert_eq!(of(&[-0.5, -0.25]), [-0.5, -0.25]);
}

#[test]
fn no_value_has_a_result_of_its_own() {
    let values = [5.0; 20];
    assert_eq!(of(Statistic::Sum, &values, 0), [0.0]);
    assert_eq!(of(Statistic::Moments, &values, 0), [0.0, 0.0]);
    let (inf, none) = (f32::INFINITY, f32::NEG_INFINITY);
    assert_eq!(of(Statistic::Extremes, &values, 0), [inf, none]);
    assert_eq!(of(Statistic::NonFinite, &values, 0), [0.0]);
}

#[test]
fn one_bad_value_is_found_wherever_it_is() {
    let len = 33_000;
    for at in [0, 63, 64, 16_383, 16_384, len - 1] {
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut values = vec![f32::MAX; len];
            values[at] = bad;
            assert_eq!(of(Statistic::NonFinite, &values, len), [1.0], "{bad} {at}");
            assert_eq!(of(Statistic::NonFinite, &values, at), [0.0], "{bad} {at}");
        }
    }
}

#[test]
fn the_same_inputs_give_the_same_bits() {
    let gpu = gpu();
    let values = random(gpu, "values", &[100_001], 1);
    for which in ALL {
        let result = zeros(gpu, "result", &[which.result_len()]);
        let io = StatisticIo {
            values: &values,
            result: &result,
            partials: &zeros(gpu, "partials", &[which.partials_len(100_001)]),
            counts: None,
        };
        let mut plan = Plan::new(gpu);
        statistic(&mut plan, &io, which, Size::fixed(100_001)).unwrap();
        assert_same_bits(&plan, &[&result], || {});
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let gpu = gpu();
    let values = random(gpu, "values", &[10, 3], 1);
    let mut plan = Plan::new(gpu);
    let mut refused = |result: usize, partials: usize, rows: usize| {
        let io = StatisticIo {
            values: &values,
            result: &zeros(gpu, "the result", &[result]),
            partials: &zeros(gpu, "the scratch", &[partials]),
            counts: None,
        };
        let error = statistic(&mut plan, &io, Statistic::Moments, Size::fixed(rows));
        error.unwrap_err().to_string()
    };
    assert!(refused(1, 1000, 10).contains("the result"));
    assert!(refused(2, 255, 10).contains("the scratch"));
    assert!(refused(2, 256, 9).contains("values"));
    let indices = Tensor::from_slice(gpu, "indices", &[3], &[1u32, 2, 3]).unwrap();
    let error = fill(&mut plan, &indices, 0.0).unwrap_err();
    assert!(error.to_string().contains("indices"), "{error}");
    assert!(plan.is_empty());
}
