//! RMSNorm against PyTorch, inside a graph, replayed, and what is refused.

use prefgrad::data::batch::Counts;
use prefgrad::kernels::nn::gelu::{GeluBackwardIo, gelu_backward};
use prefgrad::kernels::nn::matmul::Layout;
use prefgrad::kernels::nn::rms_norm::{
    InputGradient, RmsNormBackwardIo, RmsNormIo, RmsNormSizes, rms_norm_backward, rms_norm_forward,
    rms_norm_partials_len,
};
use prefgrad::kernels::{Count, Size};
use prefgrad::reference;
use prefgrad::reference::compare::f32_bound;
use prefgrad::reference::gradient::numerical_gradient;
use prefgrad::reference::nn::gelu::{Gelu, gelu_forward};
use prefgrad::{Error, Gpu, Plan, Tensor};

use crate::gpu::{gpu, gpu_without_subgroups};
use crate::support::golden;
use crate::tools::{
    assert_close, assert_same_bits, exact, from_f64, product, random, token_counts, zeros,
};

/// Every tensor of an RMSNorm and of its backward.
struct Layer {
    sizes: RmsNormSizes,
    x: Tensor,
    weight: Tensor,
    y: Tensor,
    rstd: Tensor,
    dy: Tensor,
    dx: Tensor,
    dweight: Tensor,
    partials: Tensor,
    counts: Tensor,
}

impl Layer {
    fn new(gpu: &Gpu, rows: Size, columns: usize) -> Self {
        let (n, c) = (rows.capacity, columns);
        Self {
            sizes: RmsNormSizes {
                rows,
                columns,
                eps: 1e-5,
            },
            x: random(gpu, "x", &[n, c], 1),
            weight: random(gpu, "weight", &[c], 2),
            y: zeros(gpu, "y", &[n, c]),
            rstd: zeros(gpu, "rstd", &[n]),
            dy: random(gpu, "dy", &[n, c], 4),
            dx: zeros(gpu, "dx", &[n, c]),
            dweight: zeros(gpu, "dweight", &[c]),
            partials: zeros(gpu, "partials", &[rms_norm_partials_len(n, c)]),
            counts: token_counts(gpu, n as u32),
        }
    }

    fn io(&self) -> RmsNormIo<'_> {
        RmsNormIo {
            x: &self.x,
            weight: &self.weight,
            y: &self.y,
            rstd: &self.rstd,
            counts: Some(&self.counts),
        }
    }

    fn backward_io(&self) -> RmsNormBackwardIo<'_> {
        RmsNormBackwardIo {
            x: &self.x,
            weight: &self.weight,
            rstd: &self.rstd,
            dy: &self.dy,
            dx: &self.dx,
            dweight: &self.dweight,
            partials: &self.partials,
            counts: Some(&self.counts),
        }
    }

    fn push(&self, plan: &mut Plan, input: InputGradient) {
        rms_norm_forward(plan, &self.io(), &self.sizes).unwrap();
        rms_norm_backward(plan, &self.backward_io(), &self.sizes, input).unwrap();
    }
}

#[test]
fn pytorchs_figures() {
    for gpu in [gpu(), gpu_without_subgroups()] {
        for case in golden::cases("norm", "rmsnorm") {
            let [rows, columns] = case.input("x").shape[..] else {
                panic!("{}: x is not a matrix", case.name)
            };
            let mut layer = Layer::new(gpu, Size::fixed(rows), columns);
            layer.sizes.eps = case.number("eps") as f32;
            layer.x.write(gpu, &case.input("x").f32()).unwrap();
            layer.weight.write(gpu, &case.input("w").f32()).unwrap();
            layer.dy.write(gpu, &case.cotangent("y").f32()).unwrap();
            let mut plan = Plan::new(gpu);
            layer.push(&mut plan, InputGradient::Overwrite);
            plan.submit();
            for (name, actual, expected) in [
                ("out.y", &layer.y, case.output("y")),
                ("grad.x", &layer.dx, case.gradient("x")),
                ("grad.w", &layer.dweight, case.gradient("w")),
            ] {
                let bound = f32_bound(case.torch_error(name).unwrap());
                if columns == 1 && name == "grad.x" {
                    assert_what_is_left(gpu, &case, actual);
                } else {
                    assert_close(gpu, &case.name, actual, &expected.f64(), bound);
                }
            }
        }
    }
}

/// Of one column, the gradient `dy w / rms - x^2 dy w / rms^3` all but cancels, and a last place of
/// the root is 1e-3 of what is left: the error is held against the terms.
fn assert_what_is_left(gpu: &Gpu, case: &golden::Case, dx: &Tensor) {
    let [x, weight, dy] = [case.input("x"), case.input("w"), case.cotangent("y")].map(|a| a.f64());
    let expected = case.gradient("x").f64();
    for (row, dx) in dx.read::<f32>(gpu).unwrap().into_iter().enumerate() {
        let term = dy[row] * weight[0] / x[row];
        let error = (f64::from(dx) - expected[row]).abs();
        assert!(
            error < 5e-7 * term.abs(),
            "{}: {error:e} of {term}",
            case.name
        );
    }
}

const ROWS: usize = 5;
const INNER: usize = 6;
const WIDTH: usize = 7;

/// `loss = Σ d gelu(RMSNorm(z)) + Σ e z` with `z = u A`: RMSNorm's input has a second consumer.
fn loss(u: &[f64], a: &[f64], weight: &[f64], d: &[f64], e: &[f64]) -> f64 {
    let layout = reference::nn::matmul::Layout::NN;
    let z = reference::nn::matmul::matmul(u, a, layout, ROWS, WIDTH, INNER);
    let y = reference::nn::rms_norm::rms_norm_forward(&z, weight, 1e-5).y;
    let out = gelu_forward(&y, Gelu::Tanh);
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    dot(&out, d) + dot(&z, e)
}

#[test]
fn gradients_in_the_middle_of_a_graph() {
    let (u, a) = (exact(1, ROWS * INNER, 1.0), exact(2, INNER * WIDTH, 1.0));
    let weight = exact(3, WIDTH, 1.5);
    let (d, e) = (exact(5, ROWS * WIDTH, 3.0), exact(6, ROWS * WIDTH, 2.0));
    for gpu in [gpu(), gpu_without_subgroups()] {
        let mut layer = Layer::new(gpu, Size::fixed(ROWS), WIDTH);
        layer.weight = from_f64(gpu, "weight", &[WIDTH], &weight);
        layer.dx = from_f64(gpu, "dz", &[ROWS, WIDTH], &e);
        let u_tensor = from_f64(gpu, "u", &[ROWS, INNER], &u);
        let a_tensor = from_f64(gpu, "a", &[INNER, WIDTH], &a);
        let dout = from_f64(gpu, "d", &[ROWS, WIDTH], &d);
        let du = zeros(gpu, "du", &[ROWS, INNER]);
        let mut plan = Plan::new(gpu);
        product(&mut plan, Layout::Nn, [&u_tensor, &a_tensor, &layer.x]);
        rms_norm_forward(&mut plan, &layer.io(), &layer.sizes).unwrap();
        let activation = GeluBackwardIo {
            x: &layer.y,
            dy: &dout,
            dx: &layer.dy,
            counts: None,
        };
        gelu_backward(&mut plan, &activation, Size::fixed(ROWS)).unwrap();
        let add = InputGradient::Add;
        rms_norm_backward(&mut plan, &layer.backward_io(), &layer.sizes, add).unwrap();
        product(&mut plan, Layout::Nt, [&layer.dx, &a_tensor, &du]);
        plan.submit();
        let of_u = numerical_gradient(|u| loss(u, &a, &weight, &d, &e), &u, 1e-5);
        let of_weight = numerical_gradient(|w| loss(&u, &a, w, &d, &e), &weight, 1e-5);
        assert_close(gpu, "graph", &du, &of_u, 1e-5);
        assert_close(gpu, "graph", &layer.dweight, &of_weight, 1e-5);
    }
}

#[test]
fn a_smaller_batch_after_a_larger_one_sees_nothing_of_it() {
    let columns = 20;
    for gpu in [gpu(), gpu_without_subgroups()] {
        let layer = Layer::new(gpu, Size::live(300, Count::Tokens), columns);
        let mut plan = Plan::new(gpu);
        layer.push(&mut plan, InputGradient::Overwrite);
        for live in [300, 70, 1, 200] {
            let counts = Counts {
                tokens: live,
                ..Counts::default()
            };
            layer.counts.write(gpu, &[counts]).unwrap();
            layer.dweight.write(gpu, &vec![0.0f32; columns]).unwrap();
            layer.dx.write(gpu, &vec![9.0f32; 300 * columns]).unwrap();
            plan.submit();
            let end = live as usize * columns;
            let [x, dy] = [1, 4].map(|seed| exact(seed, end, 1.0));
            let weight = exact(2, columns, 1.0);
            use reference::nn::rms_norm as norm;
            let forward = norm::rms_norm_forward(&x, &weight, 1e-5);
            let backward = norm::rms_norm_backward(&x, &weight, &forward.rstd, &dy);
            let what = format!("{live} rows");
            assert_close(gpu, &what, &layer.dweight, &backward.dweight, 1e-5);
            let dx = layer.dx.window("dx", 0, &[end]).unwrap();
            assert_close(gpu, &what, &dx, &backward.dx, 1e-5);
            let all: Vec<f32> = layer.dx.read(gpu).unwrap();
            assert!(all[end..].iter().all(|&x| x == 9.0), "{what}");
        }
    }
}

#[test]
fn the_same_inputs_give_the_same_bits() {
    for gpu in [gpu(), gpu_without_subgroups()] {
        let layer = Layer::new(gpu, Size::fixed(150), 99);
        let mut plan = Plan::new(gpu);
        layer.push(&mut plan, InputGradient::Overwrite);
        let outputs = [&layer.y, &layer.dx, &layer.dweight];
        assert_same_bits(&plan, &outputs, || {
            layer.dweight.write(gpu, &[0.0f32; 99]).unwrap();
        });
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let gpu = gpu();
    let layer = Layer::new(gpu, Size::live(10, Count::Tokens), 8);
    let mut plan = Plan::new(gpu);
    let refused = |plan: &mut Plan, io: &RmsNormBackwardIo<'_>| {
        let error = rms_norm_backward(plan, io, &layer.sizes, InputGradient::Add);
        error.unwrap_err().to_string()
    };
    let short = zeros(gpu, "short scratch", &[7]);
    let io = RmsNormBackwardIo {
        partials: &short,
        ..layer.backward_io()
    };
    let text = refused(&mut plan, &io);
    assert!(
        text.contains("short scratch") && text.contains("at least 8"),
        "{text}"
    );
    let narrow = zeros(gpu, "narrow", &[10, 7]);
    let io = RmsNormBackwardIo {
        dy: &narrow,
        ..layer.backward_io()
    };
    let text = refused(&mut plan, &io);
    assert!(
        text.contains("narrow") && text.contains("[10, 8]"),
        "{text}"
    );
    let io = RmsNormBackwardIo {
        counts: None,
        ..layer.backward_io()
    };
    assert!(refused(&mut plan, &io).contains("counts"));
    assert!(plan.is_empty());
    let io = RmsNormIo {
        y: &layer.x,
        ..layer.io()
    };
    let error = rms_norm_forward(&mut plan, &io, &layer.sizes).unwrap_err();
    assert!(matches!(error, Error::Overlap { .. }), "{error}");
    assert!(plan.is_empty());
}
