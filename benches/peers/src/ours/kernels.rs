//! Single kernels: the matrix product, attention, LayerNorm.

use anyhow::Result;
use prefgrad::data::{Segment, TILE_ROWS, Tile};
use prefgrad::kernels::nn::attention::{
    AttentionBackwardIo, AttentionForwardIo, AttentionSizes, Heads, attention_backward,
    attention_forward, visible_pairs,
};
use prefgrad::kernels::nn::layer_norm::{
    InputGradient, LayerNormBackwardIo, LayerNormIo, LayerNormSizes, layer_norm_backward,
    layer_norm_forward, layer_norm_partials_len,
};
use prefgrad::kernels::nn::matmul::{Layout, MatmulIo, MatmulSizes};
use prefgrad::kernels::{Size, nn};
use prefgrad::{Gpu, Plan, Tensor};

use super::replay::{Replay, tensors};
use crate::data::{AttentionData, LayerNormData, matrices};
use crate::rows::{ATTENTION, LAYER_NORM, NORM_EPS};

pub fn matmul(gpu: &Gpu, size: usize) -> Result<Replay> {
    let shape = [size, size];
    let [a, b] = matrices(size);
    let a = Tensor::from_slice(gpu, "a", &shape, &a)?;
    let b = Tensor::from_slice(gpu, "b", &shape, &b)?;
    let out = Tensor::zeros::<f32>(gpu, "out", &shape)?;
    let mut plan = Plan::new(gpu);
    let io = MatmulIo::whole(&a, &b, &out);
    let sizes = MatmulSizes {
        layout: Layout::Nn,
        m: Size::fixed(size),
        n: size,
        k: Size::fixed(size),
    };
    nn::matmul::matmul(&mut plan, &io, &sizes)?;
    Ok(Replay::whole(gpu, plan, tensors(vec![("product", out)])))
}

pub fn attention(gpu: &Gpu) -> Result<Replay> {
    let [sequences, tokens, heads, width] = ATTENTION;
    let heads = Heads {
        query: heads,
        key_value: heads,
        width,
    };
    let rows = sequences * tokens;
    let data = AttentionData::new();
    let of = |label, width: usize| Tensor::zeros::<f32>(gpu, label, &[rows, width]);
    let (qkv, dout) = (
        of("qkv", heads.qkv_width())?,
        of("dout", heads.out_width())?,
    );
    qkv.write(gpu, &data.qkv)?;
    dout.write(gpu, &data.dout)?;
    let (out, dqkv) = (
        of("out", heads.out_width())?,
        of("dqkv", heads.qkv_width())?,
    );
    let (lse, delta) = (of("lse", heads.query)?, of("delta", heads.query)?);
    let (segments, tiles) = packed(sequences as u32, tokens as u32);
    let sizes = AttentionSizes {
        tokens: rows,
        tiles: Size::fixed(tiles.len()),
        heads,
        attended: visible_pairs(&segments),
    };
    let segments = Tensor::from_slice(gpu, "segments", &[segments.len()], &segments)?;
    let tiles = Tensor::from_slice(gpu, "tiles", &[tiles.len()], &tiles)?;
    let mut plan = Plan::new(gpu);
    let forward = AttentionForwardIo {
        qkv: &qkv,
        segments: &segments,
        tiles: &tiles,
        counts: None,
        out: &out,
        lse: &lse,
    };
    attention_forward(&mut plan, &forward, &sizes)?;
    let backward = AttentionBackwardIo {
        qkv: &qkv,
        segments: &segments,
        tiles: &tiles,
        counts: None,
        out: &out,
        lse: &lse,
        dout: &dout,
        delta: &delta,
        dqkv: &dqkv,
    };
    attention_backward(&mut plan, &backward, &sizes)?;
    let read = tensors(vec![("out", out), ("dqkv", dqkv)]);
    Ok(Replay::whole(gpu, plan, read))
}

/// Sequences of the same length behind each other, each of which attends to itself.
fn packed(sequences: u32, tokens: u32) -> (Vec<Segment>, Vec<Tile>) {
    let segment = |index: u32| Segment {
        start: index * tokens,
        len: tokens,
        query_end: (index + 1) * tokens,
        ..Segment::default()
    };
    let tiles = |segment: u32| {
        let rows = (0..tokens).step_by(TILE_ROWS as usize);
        rows.map(move |row| Tile {
            segment,
            row: segment * tokens + row,
        })
    };
    let segments = (0..sequences).map(segment).collect();
    (segments, (0..sequences).flat_map(tiles).collect())
}

pub fn layer_norm(gpu: &Gpu) -> Result<Replay> {
    let [rows, columns] = LAYER_NORM;
    let data = LayerNormData::new();
    let matrix = |label, values: &[f32]| Tensor::from_slice(gpu, label, &[rows, columns], values);
    let row = |label, values: &[f32]| Tensor::from_slice(gpu, label, &[columns], values);
    let (x, dy) = (matrix("x", &data.x)?, matrix("dy", &data.dy)?);
    let (weight, bias) = (row("weight", &data.weight)?, row("bias", &data.bias)?);
    let zeros = |label, shape: &[usize]| Tensor::zeros::<f32>(gpu, label, shape);
    let (y, dx) = (zeros("y", x.shape())?, zeros("dx", x.shape())?);
    let (mean, rstd) = (zeros("mean", &[rows])?, zeros("rstd", &[rows])?);
    let (dweight, dbias) = (zeros("dweight", &[columns])?, zeros("dbias", &[columns])?);
    let partials = zeros("partials", &[layer_norm_partials_len(rows, columns)])?;
    let sizes = LayerNormSizes {
        rows: Size::fixed(rows),
        columns,
        eps: NORM_EPS as f32,
    };
    let mut plan = Plan::new(gpu);
    let forward = LayerNormIo {
        x: &x,
        weight: &weight,
        bias: &bias,
        y: &y,
        mean: &mean,
        rstd: &rstd,
        counts: None,
    };
    layer_norm_forward(&mut plan, &forward, &sizes)?;
    let backward = LayerNormBackwardIo {
        x: &x,
        weight: &weight,
        mean: &mean,
        rstd: &rstd,
        dy: &dy,
        dx: &dx,
        dweight: &dweight,
        dbias: &dbias,
        partials: &partials,
        counts: None,
    };
    layer_norm_backward(&mut plan, &backward, &sizes, InputGradient::Overwrite)?;
    let outputs = vec![("y", y), ("dx", dx), ("dweight", dweight), ("dbias", dbias)];
    Ok(Replay::whole(gpu, plan, tensors(outputs)))
}
