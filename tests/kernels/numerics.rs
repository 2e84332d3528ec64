//! The functions that WGSL lacks, element by element.

use prefgrad::{Binding, Capability, Cost, Dispatch, Lib, Params, Plan, Shader, Tensor, Variant};

use crate::gpu::gpu;

const NUMERICS: Lib = Lib {
    name: "lib.numerics",
    text: include_str!("../../shaders/lib/numerics.wgsl"),
};

const PROBE: Shader = Shader::new(
    "test.numerics",
    "
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(64)
fn probe_log1p(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x < arrayLength(&x)) { y[id.x] = log1p(x[id.x]); }
}
@compute @workgroup_size(64)
fn probe_log_sigmoid(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x < arrayLength(&x)) { y[id.x] = log_sigmoid(x[id.x]); }
}
@compute @workgroup_size(64)
fn probe_sigmoid(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x < arrayLength(&x)) { y[id.x] = sigmoid(x[id.x]); }
}
@compute @workgroup_size(64)
fn probe_is_finite(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x < arrayLength(&x)) { y[id.x] = select(0.0, 1.0, is_finite(x[id.x])); }
}
",
    Capability::Core,
);

fn probe(entry: &str, x: &[f32]) -> Vec<f32> {
    let input = Tensor::from_slice(gpu(), "x", &[x.len()], x).unwrap();
    let output = Tensor::zeros::<f32>(gpu(), "y", &[x.len()]).unwrap();
    let mut plan = Plan::new(gpu());
    plan.push(&Dispatch {
        label: "test.numerics",
        shader: &PROBE,
        variant: Variant {
            entry,
            libs: &[&NUMERICS],
            consts: &[],
        },
        params: Params::NONE,
        bindings: &[Binding::read(1, &input), Binding::write(2, &output)],
        workgroups: x.len().div_ceil(64) as u64,
        cost: Cost::default(),
    })
    .unwrap();
    plan.submit();
    output.read(gpu()).unwrap()
}

/// The largest relative error of any element.
fn worst(actual: &[f32], x: &[f32], exact: impl Fn(f64) -> f64) -> f64 {
    let errors = actual.iter().zip(x).map(|(&actual, &x)| {
        let exact = exact(f64::from(x));
        (f64::from(actual) - exact).abs() / exact.abs().max(f64::MIN_POSITIVE)
    });
    errors.fold(0.0, f64::max)
}

#[test]
fn log1p_keeps_its_digits_from_next_to_nothing_to_one() {
    let mut x: Vec<f32> = (1..=4000).map(|i| i as f32 / 4000.0).collect();
    x.extend((0..120).map(|i| 2f32.powi(-i)));
    let error = worst(&probe("probe_log1p", &x), &x, f64::ln_1p);
    assert!(error < 3e-7, "{error:e}");
    let x: Vec<f32> = (0..2000).map(|i| 1.001f32.powi(i * 5)).collect();
    let error = worst(&probe("probe_log1p", &x), &x, f64::ln_1p);
    assert!(error < 1e-6, "{error:e}");
}

#[test]
fn sigmoid_and_its_logarithm_keep_their_digits_and_saturate() {
    let x: Vec<f32> = (-3000..=3000).map(|i| i as f32 * 0.02).collect();
    let log_sigmoid = |x: f64| x.min(0.0) - (-x.abs()).exp().ln_1p();
    // The exponential's own error grows with its argument, to about 60 units in the last place.
    let error = worst(&probe("probe_log_sigmoid", &x), &x, log_sigmoid);
    assert!(error < 8e-6, "{error:e}");
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let error = worst(&probe("probe_sigmoid", &x), &x, sigmoid);
    assert!(error < 8e-6, "{error:e}");

    let far = [-1e4, -1e3, 1e3, 1e4, -3e38, 3e38];
    assert_eq!(probe("probe_sigmoid", &far), [0.0, 0.0, 1.0, 1.0, 0.0, 1.0]);
    assert_eq!(
        probe("probe_log_sigmoid", &far),
        [-1e4, -1e3, 0.0, 0.0, -3e38, 0.0]
    );
}

#[test]
fn what_is_not_finite_is_told_by_its_bits() {
    let x = [
        0.0,
        -0.0,
        1e-45,
        f32::MAX,
        f32::MIN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        -f32::NAN,
        f32::from_bits(0x7f80_0001),
    ];
    assert_eq!(
        probe("probe_is_finite", &x),
        [1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    );
}
