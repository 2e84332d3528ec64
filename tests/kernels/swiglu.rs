//! SwiGLU against PyTorch, alone and between the products of a feed-forward layer, at extremes, and
//! what is refused.

use prefgrad::kernels::Size;
use prefgrad::kernels::nn::matmul::Layout;
use prefgrad::kernels::nn::swiglu::{SwigluBackwardIo, SwigluIo, swiglu_backward, swiglu_forward};
use prefgrad::reference::compare::{difference, f32_bound};
use prefgrad::{Error, Gpu, Plan, Tensor};

use crate::gpu::gpu;
use crate::support::golden;
use crate::tools::{assert_close, from_f64, product, random, zeros};

/// `y` and the gradient of `gate_up`, both read.
fn run(gpu: &Gpu, gate_up: &[f32], dy: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let [narrow, wide] = [[1, dy.len()], [1, gate_up.len()]];
    let gate_up = Tensor::from_slice(gpu, "gate_up", &wide, gate_up).unwrap();
    let dy = Tensor::from_slice(gpu, "dy", &narrow, dy).unwrap();
    let (y, dgate_up) = (zeros(gpu, "y", &narrow), zeros(gpu, "dgate_up", &wide));
    let mut plan = Plan::new(gpu);
    append(&mut plan, [&gate_up, &y], [&dy, &dgate_up]);
    plan.submit();
    (y.read(gpu).unwrap(), dgate_up.read(gpu).unwrap())
}

/// Both directions.
fn append(plan: &mut Plan, [gate_up, y]: [&Tensor; 2], gradients: [&Tensor; 2]) {
    let rows = Size::fixed(y.shape()[0]);
    let io = SwigluIo {
        gate_up,
        y,
        counts: None,
    };
    swiglu_forward(plan, &io, rows).unwrap();
    let [dy, dgate_up] = gradients;
    let io = SwigluBackwardIo {
        gate_up,
        dy,
        dgate_up,
        counts: None,
    };
    swiglu_backward(plan, &io, rows).unwrap();
}

#[test]
fn pytorchs_figures() {
    for (prefix, gate) in [("silu", "x"), ("swiglu_gate", "g")] {
        for case in golden::cases("act", prefix) {
            let g = case.input(gate).f32();
            let n = g.len();
            let up = match gate {
                "x" => vec![1.0; n],
                _ => case.input("u").f32(),
            };
            let gate_up = [g.clone(), up].concat();
            let (y, dgate_up) = run(gpu(), &gate_up, &case.cotangent("y").f32());
            let (dgate, dup) = dgate_up.split_at(n);
            let of_gate = format!("grad.{gate}");
            let mut results = vec![
                ("out.y", y.as_slice(), case.output("y")),
                (&of_gate, dgate, case.gradient(gate)),
            ];
            if gate == "g" {
                results.push(("grad.u", dup, case.gradient("u")));
            }
            for (name, actual, expected) in results {
                let expected = expected.f64();
                let bound = f32_bound(case.torch_error(name).unwrap());
                let all = difference(actual, &expected);
                assert!(all.error <= bound, "{} {name}: {all}", case.name);
                // Some gates are as large as 1e4: the others deserve a measure of their own.
                let ordinary: Vec<usize> = (0..n).filter(|&i| g[i].abs() < 10.0).collect();
                let actual: Vec<f32> = ordinary.iter().map(|&i| actual[i]).collect();
                let expected: Vec<f64> = ordinary.iter().map(|&i| expected[i]).collect();
                let ordinary = difference(&actual, &expected);
                assert!(ordinary.error <= 1e-5, "{} {name}: {ordinary}", case.name);
            }
        }
    }
}

#[test]
fn between_the_products_of_a_layer() {
    let gpu = gpu();
    for case in golden::cases("mlp", "swiglu") {
        let [n, d, h] = ["N", "d", "h"].map(|size| case.number(size) as usize);
        let x = from_f64(gpu, "x", &[n, d], &case.input("x").f64());
        let w = [case.input("w_gate").f64(), case.input("w_up").f64()].concat();
        let w = from_f64(gpu, "w", &[2 * h, d], &w);
        let w_down = from_f64(gpu, "w_down", &[d, h], &case.input("w_down").f64());
        let dy = from_f64(gpu, "dy", &[n, d], &case.cotangent("y").f64());
        let [gate_up, dgate_up] = ["gate_up", "dgate_up"].map(|l| zeros(gpu, l, &[n, 2 * h]));
        let [act, dact] = ["act", "dact"].map(|label| zeros(gpu, label, &[n, h]));
        let [y, dx] = ["y", "dx"].map(|label| zeros(gpu, label, &[n, d]));
        let (dw, dw_down) = (
            zeros(gpu, "dw", &[2 * h, d]),
            zeros(gpu, "dw_down", &[d, h]),
        );
        let mut plan = Plan::new(gpu);
        product(&mut plan, Layout::Nt, [&x, &w, &gate_up]);
        product(&mut plan, Layout::Nn, [&dy, &w_down, &dact]);
        append(&mut plan, [&gate_up, &act], [&dact, &dgate_up]);
        product(&mut plan, Layout::Nt, [&act, &w_down, &y]);
        product(&mut plan, Layout::Tn, [&dy, &act, &dw_down]);
        product(&mut plan, Layout::Tn, [&dgate_up, &x, &dw]);
        product(&mut plan, Layout::Nn, [&dgate_up, &w, &dx]);
        plan.submit();
        let dw_expected = [case.gradient("w_gate").f64(), case.gradient("w_up").f64()].concat();
        for (name, actual, expected) in [
            ("out.y", &y, case.output("y").f64()),
            ("grad.x", &dx, case.gradient("x").f64()),
            ("grad.w_gate", &dw, dw_expected),
            ("grad.w_down", &dw_down, case.gradient("w_down").f64()),
        ] {
            let bound = f32_bound(case.torch_error(name).unwrap());
            assert_close(gpu, &case.name, actual, &expected, bound);
        }
    }
}

/// Where an exponential of the gate is beyond f32's range, the gate is open or shut.
#[test]
fn gates_of_any_size() {
    let sizes = [90.0f32, 200.0, 1e4, 1e20, 3e38];
    let gates: Vec<f32> = sizes.iter().flat_map(|&size| [size, -size]).collect();
    let up = vec![0.5f32; gates.len()];
    let (y, dgate_up) = run(gpu(), &[gates.clone(), up.clone()].concat(), &up);
    let (dgate, dup) = dgate_up.split_at(gates.len());
    for (i, &gate) in gates.iter().enumerate() {
        let open = gate > 0.0;
        let [y, dgate, dup] = [y[i], dgate[i], dup[i]];
        let of_open = [0.5 * gate, 0.25, 0.5 * gate];
        let expected = if open { of_open } else { [0.0; 3] };
        for (actual, expected) in [y, dgate, dup].into_iter().zip(expected) {
            let error = (actual - expected).abs();
            assert!(
                error <= 1e-6 * expected.abs() + 1e-30,
                "{gate}: {actual} {expected}"
            );
        }
    }
}

#[test]
fn shapes_that_do_not_agree_are_named() {
    let gpu = gpu();
    let io = SwigluIo {
        gate_up: &random(gpu, "wide", &[3, 10], 1),
        y: &zeros(gpu, "y", &[3, 5]),
        counts: None,
    };
    let mut plan = Plan::new(gpu);
    let mut refused = |io: &SwigluIo<'_>, rows: usize, name: &str| {
        let error = swiglu_forward(&mut plan, io, Size::fixed(rows)).unwrap_err();
        assert!(matches!(error, Error::Shape { .. }), "{error}");
        assert!(error.to_string().contains(name), "{error}");
        assert!(plan.is_empty());
    };
    refused(&io, 4, "wide");
    let y = &zeros(gpu, "slim", &[3, 4]);
    refused(&SwigluIo { y, ..io }, 3, "slim");
    let gate_up = &zeros(gpu, "odd", &[3, 9]);
    refused(&SwigluIo { gate_up, ..io }, 3, "odd");
    let backward = SwigluBackwardIo {
        gate_up: io.gate_up,
        dy: io.y,
        dgate_up: io.y,
        counts: None,
    };
    let error = swiglu_backward(&mut plan, &backward, Size::fixed(3)).unwrap_err();
    assert!(error.to_string().contains("dgate_up"), "{error}");
}
