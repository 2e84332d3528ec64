//! Matrix products and attention.

use prefgrad::check::nn::attention::Run;
use prefgrad::kernels::Size;
use prefgrad::kernels::nn::attention::{
    AttentionBackwardIo, AttentionForwardIo, AttentionSizes, Heads, attention_backward,
    attention_forward, visible_pairs,
};
use prefgrad::kernels::nn::matmul::{Epilogue, Layout, MatmulIo, MatmulSizes, Matrix, matmul};
use prefgrad::{Plan, Result};

use super::{Data, Pass, work};
use crate::work::Work;

/// Layout, M, N and K: large ones first, then those of training steps.
const PRODUCTS: [(Layout, usize, usize, usize); 11] = [
    (Layout::Nn, 4096, 4096, 4096),
    (Layout::Nt, 4096, 4096, 4096),
    (Layout::Tn, 4096, 4096, 4096),
    (Layout::Nn, 512, 2304, 768),
    (Layout::Nn, 512, 3072, 768),
    (Layout::Nn, 512, 768, 3072),
    (Layout::Nt, 512, 768, 2304),
    (Layout::Nt, 512, 768, 3072),
    (Layout::Tn, 768, 2304, 512),
    (Layout::Nn, 256, 576, 576),
    (Layout::Nn, 2048, 256, 1024),
];
/// Texts and the tokens of each.
const TEXTS: [(usize, u32); 2] = [(8, 1024), (4, 128)];
const HEADS: Heads = Heads {
    query: 12,
    key_value: 12,
    width: 64,
};

pub fn works() -> Vec<Work> {
    let products = PRODUCTS.map(|(layout, m, n, k)| {
        let name = format!("{layout:?} {m}x{n}x{k}").to_lowercase();
        work("nn.matmul", name, move |data| {
            product(data, layout, (m, n, k))
        })
    });
    let attention = TEXTS.into_iter().flat_map(|(texts, tokens)| {
        Pass::BOTH.map(|pass| {
            let Heads { query, width, .. } = HEADS;
            let pass_name = pass.name();
            let name = format!("{pass_name} {texts} x {tokens} tokens, {query} heads of {width}");
            work("nn.attention", name, move |data| {
                attention(data, &Run::new(&vec![(0, &[tokens][..]); texts]), pass)
            })
        })
    });
    products.into_iter().chain(attention).collect()
}

fn product(data: &Data, layout: Layout, (m, n, k): (usize, usize, usize)) -> Result<Plan> {
    let a = if layout == Layout::Tn { [k, m] } else { [m, k] };
    let b = if layout == Layout::Nt { [n, k] } else { [k, n] };
    let (a, b) = (data.random("a", &a)?, data.random("b", &b)?);
    let out = data.zeros("out", &[m, n])?;
    let io = MatmulIo {
        a: Matrix::whole(&a),
        b: Matrix::whole(&b),
        out: Matrix::whole(&out),
        epilogue: Epilogue::Store,
        counts: None,
    };
    let sizes = MatmulSizes {
        layout,
        m: Size::fixed(m),
        n,
        k: Size::fixed(k),
    };
    let mut plan = data.plan();
    matmul(&mut plan, &io, &sizes)?;
    Ok(plan)
}

fn attention(data: &Data, run: &Run, pass: Pass) -> Result<Plan> {
    let (rows, qkv_width, width) = (run.tokens, HEADS.qkv_width(), HEADS.out_width());
    let forward = AttentionForwardIo {
        qkv: &data.random("qkv", &[rows, qkv_width])?,
        segments: &data.list("segments", &run.segments)?,
        tiles: &data.list("tiles", &run.tiles)?,
        counts: None,
        out: &data.zeros("out", &[rows, width])?,
        lse: &data.zeros("lse", &[rows, HEADS.query])?,
    };
    let sizes = AttentionSizes {
        tokens: rows,
        tiles: Size::fixed(run.tiles.len()),
        heads: HEADS,
        attended: visible_pairs(&run.segments),
    };
    let mut plan = data.plan();
    attention_forward(&mut plan, &forward, &sizes)?;
    if pass == Pass::Forward {
        return Ok(plan);
    }
    plan.submit();
    let backward = AttentionBackwardIo {
        qkv: forward.qkv,
        segments: forward.segments,
        tiles: forward.tiles,
        counts: None,
        out: forward.out,
        lse: forward.lse,
        dout: &data.random("dout", &[rows, width])?,
        delta: &data.zeros("delta", &[rows, HEADS.query])?,
        dqkv: &data.zeros("dqkv", &[rows, qkv_width])?,
    };
    let mut plan = data.plan();
    attention_backward(&mut plan, &backward, &sizes)?;
    Ok(plan)
}
