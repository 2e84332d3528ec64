//! The norm of query and key heads against PyTorch, inside a graph, replayed, and what is refused.

use prefgrad::data::batch::Counts;
use prefgrad::kernels::nn::attention::Heads;
use prefgrad::kernels::nn::matmul::Layout;
use prefgrad::kernels::nn::qk_norm::{
    QkNormBackwardIo, QkNormIo, QkNormSizes, qk_norm_backward, qk_norm_forward,
    qk_norm_partials_len,
};
use prefgrad::kernels::{Count, Size};
use prefgrad::reference;
use prefgrad::reference::compare::f32_bound;
use prefgrad::reference::gradient::numerical_gradient;
use prefgrad::reference::nn::qk_norm as twin;
use prefgrad::{Error, Gpu, Plan, Tensor};

use crate::gpu::gpu;
use crate::support::golden;
use crate::tools::{
    assert_close, assert_same_bits, exact, from_f64, product, random, token_counts, zeros,
};

const HEADS: Heads = Heads {
    query: 4,
    key_value: 2,
    width: 8,
};

fn twin_heads(heads: Heads) -> reference::nn::attention::Heads {
    reference::nn::attention::Heads {
        query: heads.query,
        key_value: heads.key_value,
        width: heads.width,
    }
}

/// Every tensor of the norm and of its backward.
struct Layer {
    sizes: QkNormSizes,
    x: Tensor,
    query_weight: Tensor,
    key_weight: Tensor,
    y: Tensor,
    dqkv: Tensor,
    dquery_weight: Tensor,
    dkey_weight: Tensor,
    partials: Tensor,
    counts: Tensor,
}

impl Layer {
    fn new(gpu: &Gpu, rows: Size, heads: Heads) -> Self {
        let (n, c, d) = (rows.capacity, heads.qkv_width(), heads.width);
        Self {
            sizes: QkNormSizes {
                rows,
                heads,
                eps: 1e-5,
            },
            x: random(gpu, "x", &[n, c], 1),
            query_weight: random(gpu, "query_weight", &[d], 2),
            key_weight: random(gpu, "key_weight", &[d], 3),
            y: zeros(gpu, "y", &[n, c]),
            dqkv: random(gpu, "dqkv", &[n, c], 4),
            dquery_weight: zeros(gpu, "dquery_weight", &[d]),
            dkey_weight: zeros(gpu, "dkey_weight", &[d]),
            partials: zeros(gpu, "partials", &[qk_norm_partials_len(n, heads)]),
            counts: token_counts(gpu, n as u32),
        }
    }

    fn io(&self) -> QkNormIo<'_> {
        QkNormIo {
            x: &self.x,
            query_weight: &self.query_weight,
            key_weight: &self.key_weight,
            y: &self.y,
            counts: Some(&self.counts),
        }
    }

    fn backward_io(&self) -> QkNormBackwardIo<'_> {
        QkNormBackwardIo {
            x: &self.x,
            query_weight: &self.query_weight,
            key_weight: &self.key_weight,
            dqkv: &self.dqkv,
            dquery_weight: &self.dquery_weight,
            dkey_weight: &self.dkey_weight,
            partials: &self.partials,
            counts: Some(&self.counts),
        }
    }

    fn push(&self, plan: &mut Plan) {
        qk_norm_forward(plan, &self.io(), &self.sizes).unwrap();
        qk_norm_backward(plan, &self.backward_io(), &self.sizes).unwrap();
    }
}

#[test]
fn pytorchs_figures() {
    let gpu = gpu();
    for case in golden::cases("norm", "qknorm") {
        let [query, key_value, width] = ["H", "G", "D"].map(|name| case.number(name) as usize);
        let heads = Heads {
            query,
            key_value,
            width,
        };
        let rows = case.input("x").shape[0];
        let mut layer = Layer::new(gpu, Size::fixed(rows), heads);
        layer.sizes.eps = case.number("eps") as f32;
        for (tensor, values) in [
            (&layer.x, case.input("x")),
            (&layer.query_weight, case.input("wq")),
            (&layer.key_weight, case.input("wk")),
            (&layer.dqkv, case.cotangent("y")),
        ] {
            tensor.write(gpu, &values.f32()).unwrap();
        }
        let mut plan = Plan::new(gpu);
        layer.push(&mut plan);
        plan.submit();
        for (name, actual, expected) in [
            ("out.y", &layer.y, case.output("y")),
            ("grad.x", &layer.dqkv, case.gradient("x")),
            ("grad.wq", &layer.dquery_weight, case.gradient("wq")),
            ("grad.wk", &layer.dkey_weight, case.gradient("wk")),
        ] {
            let bound = f32_bound(case.torch_error(name).unwrap());
            assert_close(gpu, &case.name, actual, &expected.f64(), bound);
        }
    }
}

const ROWS: usize = 5;
const INNER: usize = 6;

/// `loss = Σ d (norm(u A) B)`.
fn loss(u: &[f64], [a, b]: [&[f64]; 2], [query, key]: [&[f64]; 2], d: &[f64]) -> f64 {
    let width = HEADS.qkv_width();
    let product = |x: &[f64], y: &[f64], n, k| {
        reference::nn::matmul::matmul(x, y, reference::nn::matmul::Layout::NN, ROWS, n, k)
    };
    let z = product(u, a, width, INNER);
    let y = twin::qk_norm_forward(&z, query, key, twin_heads(HEADS), 1e-5);
    let out = product(&y, b, INNER, width);
    out.iter().zip(d).map(|(out, d)| out * d).sum()
}

#[test]
fn gradients_in_the_middle_of_a_graph() {
    let gpu = gpu();
    let (width, d) = (HEADS.qkv_width(), HEADS.width);
    let (u, a) = (exact(1, ROWS * INNER, 1.0), exact(2, INNER * width, 1.0));
    let (b, dout) = (exact(3, width * INNER, 1.0), exact(4, ROWS * INNER, 3.0));
    let (query, key) = (exact(5, d, 1.5), exact(6, d, 1.5));
    let mut layer = Layer::new(gpu, Size::fixed(ROWS), HEADS);
    layer.query_weight = from_f64(gpu, "query_weight", &[d], &query);
    layer.key_weight = from_f64(gpu, "key_weight", &[d], &key);
    let u_tensor = from_f64(gpu, "u", &[ROWS, INNER], &u);
    let a_tensor = from_f64(gpu, "a", &[INNER, width], &a);
    let b_tensor = from_f64(gpu, "b", &[width, INNER], &b);
    let dout_tensor = from_f64(gpu, "dout", &[ROWS, INNER], &dout);
    let du = zeros(gpu, "du", &[ROWS, INNER]);
    let mut plan = Plan::new(gpu);
    product(&mut plan, Layout::Nn, [&u_tensor, &a_tensor, &layer.x]);
    product(
        &mut plan,
        Layout::Nt,
        [&dout_tensor, &b_tensor, &layer.dqkv],
    );
    layer.push(&mut plan);
    product(&mut plan, Layout::Nt, [&layer.dqkv, &a_tensor, &du]);
    plan.submit();
    let of_u = numerical_gradient(|u| loss(u, [&a, &b], [&query, &key], &dout), &u, 1e-5);
    let of_query = numerical_gradient(|w| loss(&u, [&a, &b], [w, &key], &dout), &query, 1e-5);
    let of_key = numerical_gradient(|w| loss(&u, [&a, &b], [&query, w], &dout), &key, 1e-5);
    assert_close(gpu, "graph", &du, &of_u, 1e-5);
    assert_close(gpu, "graph", &layer.dquery_weight, &of_query, 1e-5);
    assert_close(gpu, "graph", &layer.dkey_weight, &of_key, 1e-5);
}

#[test]
fn a_smaller_batch_after_a_larger_one_sees_nothing_of_it() {
    let gpu = gpu();
    let (width, d) = (HEADS.qkv_width(), HEADS.width);
    let layer = Layer::new(gpu, Size::live(300, Count::Tokens), HEADS);
    let mut plan = Plan::new(gpu);
    layer.push(&mut plan);
    let all = exact(4, 300 * width, 1.0);
    let (query, key) = (exact(2, d, 1.0), exact(3, d, 1.0));
    for live in [300, 70, 1, 200] {
        let counts = Counts {
            tokens: live,
            ..Counts::default()
        };
        layer.counts.write(gpu, &[counts]).unwrap();
        layer.dquery_weight.write(gpu, &[0.0f32; 8]).unwrap();
        layer.dkey_weight.write(gpu, &[0.0f32; 8]).unwrap();
        let before: Vec<f32> = all.iter().map(|&x| x as f32).collect();
        layer.dqkv.write(gpu, &before).unwrap();
        plan.submit();
        let end = live as usize * width;
        let x = exact(1, end, 1.0);
        let out = twin::qk_norm_backward(&x, &query, &key, twin_heads(HEADS), 1e-5, &all[..end]);
        let what = format!("{live} rows");
        assert_close(gpu, &what, &layer.dquery_weight, &out.dquery_weight, 1e-5);
        assert_close(gpu, &what, &layer.dkey_weight, &out.dkey_weight, 1e-5);
        let dx = layer.dqkv.window("dx", 0, &[end]).unwrap();
        assert_close(gpu, &what, &dx, &out.dx, 1e-5);
        let after: Vec<f32> = layer.dqkv.read(gpu).unwrap();
        assert!(after[end..] == before[end..], "{what}");
    }
}

#[test]
fn values_pass_through_to_the_bit() {
    let gpu = gpu();
    let layer = Layer::new(gpu, Size::fixed(70), HEADS);
    let before: Vec<f32> = layer.dqkv.read(gpu).unwrap();
    let mut plan = Plan::new(gpu);
    layer.push(&mut plan);
    plan.submit();
    let x: Vec<f32> = layer.x.read(gpu).unwrap();
    let y: Vec<f32> = layer.y.read(gpu).unwrap();
    let after: Vec<f32> = layer.dqkv.read(gpu).unwrap();
    let values = (HEADS.query + HEADS.key_value) * HEADS.width;
    for row in 0..70 {
        let columns = row * HEADS.qkv_width() + values..(row + 1) * HEADS.qkv_width();
        assert!(x[columns.clone()] == y[columns.clone()], "row {row}");
        assert!(before[columns.clone()] == after[columns], "row {row}");
    }
}

#[test]
fn the_same_inputs_give_the_same_bits() {
    let gpu = gpu();
    let layer = Layer::new(gpu, Size::fixed(150), HEADS);
    let before: Vec<f32> = layer.dqkv.read(gpu).unwrap();
    let mut plan = Plan::new(gpu);
    layer.push(&mut plan);
    let outputs = [
        &layer.y,
        &layer.dqkv,
        &layer.dquery_weight,
        &layer.dkey_weight,
    ];
    assert_same_bits(&plan, &outputs, || {
        layer.dqkv.write(gpu, &before).unwrap();
        layer.dquery_weight.write(gpu, &[0.0f32; 8]).unwrap();
        layer.dkey_weight.write(gpu, &[0.0f32; 8]).unwrap();
    });
}

#[test]
fn what_does_not_fit_is_named() {
    let gpu = gpu();
    let layer = Layer::new(gpu, Size::live(10, Count::Tokens), HEADS);
    let mut plan = Plan::new(gpu);
    let refused = |plan: &mut Plan, io: &QkNormBackwardIo<'_>| {
        let error = qk_norm_backward(plan, io, &layer.sizes);
        error.unwrap_err().to_string()
    };
    // A chunk of query heads and one of key heads.
    let short = zeros(gpu, "short scratch", &[15]);
    let io = QkNormBackwardIo {
        partials: &short,
        ..layer.backward_io()
    };
    let text = refused(&mut plan, &io);
    assert!(
        text.contains("short scratch") && text.contains("at least 16"),
        "{text}"
    );
    let narrow = zeros(gpu, "narrow", &[10, 63]);
    let io = QkNormBackwardIo {
        dqkv: &narrow,
        ..layer.backward_io()
    };
    let text = refused(&mut plan, &io);
    assert!(
        text.contains("narrow") && text.contains("[10, 64]"),
        "{text}"
    );
    let io = QkNormBackwardIo {
        counts: None,
        ..layer.backward_io()
    };
    assert!(refused(&mut plan, &io).contains("counts"));
    let wide = QkNormSizes {
        heads: Heads {
            width: 132,
            ..HEADS
        },
        ..layer.sizes
    };
    let error = qk_norm_forward(&mut plan, &layer.io(), &wide).unwrap_err();
    assert!(error.to_string().contains("132 wide"), "{error}");
    let io = QkNormIo {
        y: &layer.x,
        ..layer.io()
    };
    let error = qk_norm_forward(&mut plan, &io, &layer.sizes).unwrap_err();
    assert!(matches!(error, Error::Overlap { .. }), "{error}");
    assert!(plan.is_empty());
}
