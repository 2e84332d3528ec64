//! Attention inside a graph, over shared prompts, replayed, and what is refused.

use std::collections::BTreeSet;

use prefgrad::check::nn::attention::Run;
use prefgrad::data::batch::{Counts, Segment, Tile};
use prefgrad::kernels::nn::attention::{
    AttentionBackwardIo, AttentionForwardIo, AttentionSizes, Heads, attention_backward,
    attention_forward, visible_pairs,
};
use prefgrad::kernels::nn::gelu::{GeluBackwardIo, gelu_backward};
use prefgrad::kernels::nn::matmul::Layout;
use prefgrad::kernels::{Count, Size};
use prefgrad::reference;
use prefgrad::reference::compare::difference;
use prefgrad::reference::gradient::numerical_gradient;
use prefgrad::reference::nn::gelu::{Gelu, gelu_forward};
use prefgrad::{Error, Gpu, MatmulDesign, Plan, Tensor, Tiling};

use crate::gpu::{attention_gpus, gpu, host_gpu};
use crate::tools::{assert_close, assert_same_bits, exact, from_f64, product, zeros};

/// Every tensor of attention and of its backward, with room for a run.
pub struct Layer {
    sizes: AttentionSizes,
    qkv: Tensor,
    segments: Tensor,
    tiles: Tensor,
    counts: Tensor,
    pub out: Tensor,
    pub lse: Tensor,
    dout: Tensor,
    delta: Tensor,
    dqkv: Tensor,
}

impl Layer {
    pub fn new(gpu: &Gpu, run: &Run, heads: Heads) -> Self {
        let rows = run.tokens;
        let (qkv, out) = ([rows, heads.qkv_width()], [rows, heads.out_width()]);
        let layer = Self {
            sizes: AttentionSizes {
                tokens: rows,
                tiles: Size::live(run.tiles.len(), Count::Tiles),
                heads,
                attended: visible_pairs(&run.segments),
            },
            qkv: from_f64(gpu, "qkv", &qkv, &exact(1, rows * qkv[1], 1.0)),
            segments: Tensor::zeros::<Segment>(gpu, "segments", &[run.segments.len()]).unwrap(),
            tiles: Tensor::zeros::<Tile>(gpu, "tiles", &[run.tiles.len()]).unwrap(),
            counts: Tensor::zeros::<Counts>(gpu, "counts", &[1]).unwrap(),
            out: zeros(gpu, "out", &out),
            lse: zeros(gpu, "lse", &[rows, heads.query]),
            dout: from_f64(gpu, "dout", &out, &exact(2, rows * out[1], 3.0)),
            delta: zeros(gpu, "delta", &[rows, heads.query]),
            dqkv: zeros(gpu, "dqkv", &qkv),
        };
        layer.load(gpu, run);
        layer
    }

    fn load(&self, gpu: &Gpu, run: &Run) {
        self.segments.write(gpu, &run.segments).unwrap();
        self.tiles.write(gpu, &run.tiles).unwrap();
        self.counts.write(gpu, &[run.counts()]).unwrap();
    }

    fn forward_io(&self) -> AttentionForwardIo<'_> {
        AttentionForwardIo {
            qkv: &self.qkv,
            segments: &self.segments,
            tiles: &self.tiles,
            counts: Some(&self.counts),
            out: &self.out,
            lse: &self.lse,
        }
    }

    fn backward_io(&self) -> AttentionBackwardIo<'_> {
        AttentionBackwardIo {
            qkv: &self.qkv,
            segments: &self.segments,
            tiles: &self.tiles,
            counts: Some(&self.counts),
            out: &self.out,
            lse: &self.lse,
            dout: &self.dout,
            delta: &self.delta,
            dqkv: &self.dqkv,
        }
    }

    fn push(&self, plan: &mut Plan) {
        attention_forward(plan, &self.forward_io(), &self.sizes).unwrap();
        attention_backward(plan, &self.backward_io(), &self.sizes).unwrap();
    }

    /// Runs both ways on these inputs and reads out and dqkv back.
    pub fn run(&self, gpu: &Gpu, qkv: &[f32], dout: &[f32]) -> [Vec<f32>; 2] {
        self.qkv.write(gpu, qkv).unwrap();
        self.dout.write(gpu, dout).unwrap();
        let mut plan = Plan::new(gpu);
        self.push(&mut plan);
        plan.submit();
        [&self.out, &self.dqkv].map(|tensor| tensor.read(gpu).unwrap())
    }
}

pub fn heads(query: usize, key_value: usize, width: usize) -> Heads {
    Heads {
        query,
        key_value,
        width,
    }
}

fn twin(heads: Heads) -> reference::nn::attention::Heads {
    reference::nn::attention::Heads {
        query: heads.query,
        key_value: heads.key_value,
        width: heads.width,
    }
}

const SHARED: &[(u32, &[u32])] = &[(5, &[3, 2]), (0, &[2]), (1, &[1])];

/// `Σ c · gelu(attention(u·a))`.
fn loss(u: &[f64], a: &[f64], c: &[f64], run: &Run, heads: Heads) -> f64 {
    let layout = reference::nn::matmul::Layout::NN;
    let (rows, width) = (run.tokens, heads.qkv_width());
    let qkv = reference::nn::matmul::matmul(u, a, layout, rows, width, u.len() / rows);
    let segments = run.reference();
    let out = reference::nn::attention::attention_forward(&qkv, &segments, twin(heads)).out;
    let y = gelu_forward(&out, Gelu::Tanh);
    y.iter().zip(c).map(|(y, c)| y * c).sum()
}

#[test]
fn the_gradient_passes_through_the_middle_of_a_graph() {
    const INNER: usize = 8;
    let (run, heads) = (Run::new(SHARED), heads(4, 2, 4));
    let (rows, width) = (run.tokens, heads.qkv_width());
    let u = exact(1, rows * INNER, 1.5);
    let a = exact(2, INNER * width, 1.0);
    let c = exact(3, rows * heads.out_width(), 3.0);
    let of_u = numerical_gradient(|u| loss(u, &a, &c, &run, heads), &u, 1e-5);
    for gpu in attention_gpus() {
        let layer = Layer::new(gpu, &run, heads);
        let u = from_f64(gpu, "u", &[rows, INNER], &u);
        let a = from_f64(gpu, "a", &[INNER, width], &a);
        let c = from_f64(gpu, "c", &[rows, heads.out_width()], &c);
        let du = zeros(gpu, "du", &[rows, INNER]);
        let mut plan = Plan::new(gpu);
        product(&mut plan, Layout::Nn, [&u, &a, &layer.qkv]);
        attention_forward(&mut plan, &layer.forward_io(), &layer.sizes).unwrap();
        let activation = GeluBackwardIo {
            x: &layer.out,
            dy: &c,
            dx: &layer.dout,
            counts: None,
        };
        gelu_backward(&mut plan, &activation, Size::fixed(rows)).unwrap();
        attention_backward(&mut plan, &layer.backward_io(), &layer.sizes).unwrap();
        product(&mut plan, Layout::Nt, [&layer.dqkv, &a, &du]);
        plan.submit();
        assert_close(gpu, "graph", &du, &of_u, 1e-5);
    }
}

/// A pair with its prompt computed once, and as two sequences: the same outputs, and gradients that
/// differ only in where the prompt's is summed.
#[test]
fn a_shared_prompt_gives_what_separate_sequences_give() {
    const PROMPT: usize = 37;
    const ANSWERS: [usize; 2] = [20, 34];
    let heads = heads(4, 2, 16);
    let (stride, out_width) = (heads.qkv_width(), heads.out_width());
    let shared = Run::new(&[(37, &[20, 34])]);
    let apart = Run::new(&[(0, &[57]), (0, &[71])]);
    // Rows of the shared run in the order of the separate sequences.
    let prompt = 0..PROMPT;
    let first = PROMPT..PROMPT + ANSWERS[0];
    let second = first.end..first.end + ANSWERS[1];
    let rows: Vec<usize> = [prompt.clone(), first, prompt, second]
        .into_iter()
        .flatten()
        .collect();
    let narrow = |values: Vec<f64>| -> Vec<f32> { values.iter().map(|&x| x as f32).collect() };
    let qkv = narrow(exact(1, shared.tokens * stride, 2.0));
    // The prompt's own gradient counts once: on its first copy.
    let dout = narrow(exact(2, shared.tokens * out_width, 3.0));
    let spread = |values: &[f32], width: usize| -> Vec<f32> {
        let row = |&row: &usize| values[row * width..][..width].to_vec();
        rows.iter().flat_map(row).collect()
    };
    let mut dout_apart = spread(&dout, out_width);
    let second_prompt = (PROMPT + ANSWERS[0]) * out_width;
    dout_apart[second_prompt..second_prompt + PROMPT * out_width].fill(0.0);
    for gpu in attention_gpus() {
        let [out, dqkv] = Layer::new(gpu, &shared, heads).run(gpu, &qkv, &dout);
        let [out_apart, dqkv_apart] =
            Layer::new(gpu, &apart, heads).run(gpu, &spread(&qkv, stride), &dout_apart);
        let mut summed_out = vec![0.0; out.len()];
        let mut summed = vec![0.0; dqkv.len()];
        for (at, &row) in rows.iter().enumerate() {
            for column in 0..out_width {
                summed_out[row * out_width + column] =
                    f64::from(out_apart[at * out_width + column]);
            }
            for column in 0..stride {
                summed[row * stride + column] += f64::from(dqkv_apart[at * stride + column]);
            }
        }
        let out = difference(&out, &summed_out);
        assert!(out.error <= 1e-5, "out: {out}");
        let dqkv = difference(&dqkv, &summed);
        assert!(dqkv.error <= 1e-5, "dqkv: {dqkv}");
    }
}

#[test]
fn a_smaller_batch_after_a_larger_one_sees_nothing_of_it() {
    let heads = heads(2, 1, 16);
    let large = Run::new(&[(40, &[30, 7]), (0, &[33]), (3, &[3, 3])]);
    let small = Run::new(&[(33, &[5, 6]), (0, &[2])]);
    for gpu in attention_gpus() {
        let layer = Layer::new(gpu, &large, heads);
        let mut plan = Plan::new(gpu);
        layer.push(&mut plan);
        plan.submit();
        let written = [&layer.out, &layer.lse, &layer.delta, &layer.dqkv];
        for tensor in written {
            tensor.write(gpu, &vec![9.0f32; tensor.len()]).unwrap();
        }
        layer.load(gpu, &small);
        plan.submit();
        let alone = Layer::new(gpu, &small, heads);
        let mut plan = Plan::new(gpu);
        alone.push(&mut plan);
        plan.submit();
        for (tensor, alone) in
            written
                .iter()
                .zip([&alone.out, &alone.lse, &alone.delta, &alone.dqkv])
        {
            let all: Vec<f32> = tensor.read(gpu).unwrap();
            let alone: Vec<f32> = alone.read(gpu).unwrap();
            assert_eq!(all[..alone.len()], alone, "{}", tensor.label());
            assert!(
                all[alone.len()..].iter().all(|&x| x == 9.0),
                "{}",
                tensor.label()
            );
        }
    }
}

#[test]
fn the_same_inputs_give_the_same_bits() {
    let run = Run::new(&[(40, &[30, 7]), (3, &[3, 3])]);
    for gpu in attention_gpus() {
        let layer = Layer::new(gpu, &run, heads(2, 1, 16));
        let mut plan = Plan::new(gpu);
        layer.push(&mut plan);
        let outputs = [&layer.out, &layer.lse, &layer.delta, &layer.dqkv];
        assert_same_bits(&plan, &outputs, || {});
    }
}

/// A device's limits are not enforced on workgroup memory by wgpu.
#[test]
fn the_form_follows_the_design_and_the_workgroup_memory() {
    let run = Run::new(SHARED);
    let entries = |gpu: Gpu, heads: Heads| -> BTreeSet<String> {
        Layer::new(&gpu, &run, heads).push(&mut Plan::new(&gpu));
        let compiled = gpu.compiled().into_iter();
        compiled.map(|shader| shader.entry).collect()
    };
    let of = |suffix| {
        ["", "_dq", "_dkv"]
            .map(|pass| format!("attention{pass}{suffix}"))
            .into()
    };
    let host = |design| host_gpu(wgpu::Limits::default()).with_matmul(design);
    let tiled = MatmulDesign::Tiled(Tiling::BySize);
    assert_eq!(entries(host(tiled), heads(2, 1, 64)), of("_tiled"));
    assert_eq!(entries(host(tiled), heads(2, 1, 128)), of(""));
    assert_eq!(
        entries(host(MatmulDesign::Registers), heads(2, 1, 64)),
        of("")
    );
}

#[test]
fn the_cost_counts_visible_pairs() {
    // 3·4/2 of the prompt, 2·3 + 2·3/2 and 3 + 1 of the answers.
    let run = Run::new(&[(3, &[2, 1])]);
    assert_eq!(visible_pairs(&run.segments), 6 + 9 + 4);
    let layer = Layer::new(gpu(), &run, heads(2, 1, 16));
    let mut plan = Plan::new(gpu());
    layer.push(&mut plan);
    // Products of width 16 for each pair: two forward, three for dQ and four for dK and dV.
    assert_eq!(plan.cost().flops, 19 * 2 * (2 + 3 + 4) * 2 * 16);
}

#[test]
fn heads_that_are_not_supported_are_refused() {
    let run = Run::new(SHARED);
    for (heads, named) in [
        (heads(2, 1, 6), "6 wide"),
        (heads(2, 1, 1), "1 wide"),
        (heads(2, 1, 0), "0 wide"),
        (heads(2, 1, 132), "132 wide"),
        (heads(3, 2, 8), "3 query heads"),
        (heads(0, 1, 8), "0 query heads"),
        (heads(2, 0, 8), "0 key/value heads"),
    ] {
        let layer = Layer::new(gpu(), &run, heads);
        let mut plan = Plan::new(gpu());
        let forward = attention_forward(&mut plan, &layer.forward_io(), &layer.sizes);
        let backward = attention_backward(&mut plan, &layer.backward_io(), &layer.sizes);
        for error in [forward.unwrap_err(), backward.unwrap_err()] {
            assert!(matches!(error, Error::Shape { .. }), "{error}");
            assert!(error.to_string().contains(named), "{error}");
        }
        assert!(plan.is_empty());
    }
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    let gpu = gpu();
    let layer = Layer::new(gpu, &Run::new(SHARED), heads(2, 1, 4));
    let mut plan = Plan::new(gpu);
    let wrong = zeros(gpu, "wrong", &[7, 3]);
    let forward = layer.forward_io();
    for io in [
        AttentionForwardIo {
            qkv: &wrong,
            ..forward
        },
        AttentionForwardIo {
            segments: &wrong,
            ..forward
        },
        AttentionForwardIo {
            tiles: &wrong,
            ..forward
        },
        AttentionForwardIo {
            out: &wrong,
            ..forward
        },
        AttentionForwardIo {
            lse: &wrong,
            ..forward
        },
    ] {
        let error = attention_forward(&mut plan, &io, &layer.sizes).unwrap_err();
        assert!(error.to_string().contains("wrong"), "{error}");
    }
    let backward = layer.backward_io();
    for io in [
        AttentionBackwardIo {
            qkv: &wrong,
            ..backward
        },
        AttentionBackwardIo {
            out: &wrong,
            ..backward
        },
        AttentionBackwardIo {
            lse: &wrong,
            ..backward
        },
        AttentionBackwardIo {
            dout: &wrong,
            ..backward
        },
        AttentionBackwardIo {
            delta: &wrong,
            ..backward
        },
        AttentionBackwardIo {
            dqkv: &wrong,
            ..backward
        },
    ] {
        let error = attention_backward(&mut plan, &io, &layer.sizes).unwrap_err();
        assert!(error.to_string().contains("wrong"), "{error}");
    }
    let io = AttentionForwardIo {
        counts: None,
        ..forward
    };
    let error = attention_forward(&mut plan, &io, &layer.sizes).unwrap_err();
    assert!(error.to_string().contains("counts"), "{error}");
    assert!(plan.is_empty());
}

/// Old software drivers leave a thread's loops after 65,535 iterations without a word.
#[test]
fn loops_too_long_for_a_software_driver_are_refused_there() {
    // Iterations differ by form.
    let gpu = &gpu().with_matmul(MatmulDesign::Registers);
    let layer = Layer::new(gpu, &Run::new(&[(0, &[30_001])]), heads(8, 1, 4));
    let mut plan = Plan::new(gpu);
    let forward = attention_forward(&mut plan, &layer.forward_io(), &layer.sizes);
    forward.unwrap();
    let backward = attention_backward(&mut plan, &layer.backward_io(), &layer.sizes);
    if gpu.info().device_type == wgpu::DeviceType::Cpu {
        assert!(matches!(backward, Err(Error::Limit { .. })), "{backward:?}");
        assert_eq!(plan.len(), 1);
    } else {
        backward.unwrap();
    }
}
