//! Norms, activations and what else goes row by row.

use prefgrad::kernels::Size;
use prefgrad::kernels::nn::attention::Heads;
use prefgrad::kernels::nn::bias_gradient::{
    BiasGradientIo, bias_gradient, bias_gradient_partials_len,
};
use prefgrad::kernels::nn::gelu::{GeluBackwardIo, GeluIo, gelu_backward, gelu_forward};
use prefgrad::kernels::nn::layer_norm::{
    InputGradient, LayerNormBackwardIo, LayerNormIo, LayerNormSizes, layer_norm_backward,
    layer_norm_forward, layer_norm_partials_len,
};
use prefgrad::kernels::nn::rms_norm::{
    RmsNormBackwardIo, RmsNormIo, RmsNormSizes, rms_norm_backward, rms_norm_forward,
    rms_norm_partials_len,
};
use prefgrad::kernels::nn::rope::{RopeIo, RopeSizes, Turn, rope, rope_table};
use prefgrad::kernels::nn::swiglu::{SwigluBackwardIo, SwigluIo, swiglu_backward, swiglu_forward};
use prefgrad::{Plan, Result};

use super::{Data, Pass, work};
use crate::work::Work;

const ROWS: usize = 8192;
/// Of a small training step.
const FEW_ROWS: usize = 512;
const WIDTH: usize = 768;
const HIDDEN_WIDTH: usize = 3072;
const EPS: f32 = 1e-5;
const HEADS: Heads = Heads {
    query: 12,
    key_value: 4,
    width: 64,
};
const POSITIONS: usize = 1024;

type Build = fn(&Data, [usize; 2], Pass) -> Result<Plan>;

pub fn works() -> Vec<Work> {
    let passes: [(&'static str, Build, usize, usize); 5] = [
        ("nn.layer_norm", layer_norm, ROWS, WIDTH),
        ("nn.layer_norm", layer_norm, FEW_ROWS, WIDTH),
        ("nn.rms_norm", rms_norm, ROWS, WIDTH),
        ("nn.gelu", gelu, ROWS, HIDDEN_WIDTH),
        ("nn.swiglu", swiglu, ROWS, HIDDEN_WIDTH),
    ];
    let passes = passes.into_iter().flat_map(|(kernel, build, rows, width)| {
        Pass::BOTH.map(|pass| {
            let name = format!("{} {rows}x{width}", pass.name());
            work(kernel, name, move |data| build(data, [rows, width], pass))
        })
    });
    let mut works: Vec<Work> = passes.collect();
    let Heads {
        query,
        key_value,
        width,
    } = HEADS;
    let name = format!("{ROWS} rows, {query}+{key_value} heads of {width}");
    works.push(work("nn.rope", name, turned));
    let name = format!("{ROWS}x{HIDDEN_WIDTH}");
    works.push(work("nn.bias_gradient", name, |data| {
        column_sums(data, ROWS, HIDDEN_WIDTH)
    }));
    works
}

fn layer_norm(data: &Data, shape: [usize; 2], pass: Pass) -> Result<Plan> {
    let [rows, columns] = shape;
    let sizes = LayerNormSizes {
        rows: Size::fixed(rows),
        columns,
        eps: EPS,
    };
    let forward = LayerNormIo {
        x: &data.random("x", &shape)?,
        weight: &data.random("weight", &[columns])?,
        bias: &data.random("bias", &[columns])?,
        y: &data.zeros("y", &shape)?,
        mean: &data.zeros("mean", &[rows])?,
        rstd: &data.zeros("rstd", &[rows])?,
        counts: None,
    };
    let mut plan = data.plan();
    layer_norm_forward(&mut plan, &forward, &sizes)?;
    if pass == Pass::Forward {
        return Ok(plan);
    }
    plan.submit();
    let scratch = layer_norm_partials_len(rows, columns);
    let backward = LayerNormBackwardIo {
        x: forward.x,
        weight: forward.weight,
        mean: forward.mean,
        rstd: forward.rstd,
        dy: &data.random("dy", &shape)?,
        dx: &data.zeros("dx", &shape)?,
        dweight: &data.zeros("dweight", &[columns])?,
        dbias: &data.zeros("dbias", &[columns])?,
        partials: &data.zeros("partials", &[scratch])?,
        counts: None,
    };
    let mut plan = data.plan();
    layer_norm_backward(&mut plan, &backward, &sizes, InputGradient::Overwrite)?;
    Ok(plan)
}

fn rms_norm(data: &Data, shape: [usize; 2], pass: Pass) -> Result<Plan> {
    let [rows, columns] = shape;
    let sizes = RmsNormSizes {
        rows: Size::fixed(rows),
        columns,
        eps: EPS,
    };
    let forward = RmsNormIo {
        x: &data.random("x", &shape)?,
        weight: &data.random("weight", &[columns])?,
        y: &data.zeros("y", &shape)?,
        rstd: &data.zeros("rstd", &[rows])?,
        counts: None,
    };
    let mut plan = data.plan();
    rms_norm_forward(&mut plan, &forward, &sizes)?;
    if pass == Pass::Forward {
        return Ok(plan);
    }
    plan.submit();
    let scratch = rms_norm_partials_len(rows, columns);
    let backward = RmsNormBackwardIo {
        x: forward.x,
        weight: forward.weight,
        rstd: forward.rstd,
        dy: &data.random("dy", &shape)?,
        dx: &data.zeros("dx", &shape)?,
        dweight: &data.zeros("dweight", &[columns])?,
        partials: &data.zeros("partials", &[scratch])?,
        counts: None,
    };
    let mut plan = data.plan();
    rms_norm_backward(&mut plan, &backward, &sizes, InputGradient::Overwrite)?;
    Ok(plan)
}

fn gelu(data: &Data, shape: [usize; 2], pass: Pass) -> Result<Plan> {
    let mut plan = data.plan();
    let (x, out) = (data.random("x", &shape)?, data.zeros("out", &shape)?);
    let rows = Size::fixed(shape[0]);
    match pass {
        Pass::Forward => {
            let io = GeluIo {
                x: &x,
                y: &out,
                counts: None,
            };
            gelu_forward(&mut plan, &io, rows)?;
        }
        Pass::Backward => {
            let io = GeluBackwardIo {
                x: &x,
                dy: &data.random("dy", &shape)?,
                dx: &out,
                counts: None,
            };
            gelu_backward(&mut plan, &io, rows)?;
        }
    }
    Ok(plan)
}

fn swiglu(data: &Data, shape: [usize; 2], pass: Pass) -> Result<Plan> {
    let mut plan = data.plan();
    let both = [shape[0], 2 * shape[1]];
    let gate_up = data.random("gate_up", &both)?;
    let rows = Size::fixed(shape[0]);
    match pass {
        Pass::Forward => {
            let io = SwigluIo {
                gate_up: &gate_up,
                y: &data.zeros("y", &shape)?,
                counts: None,
            };
            swiglu_forward(&mut plan, &io, rows)?;
        }
        Pass::Backward => {
            let io = SwigluBackwardIo {
                gate_up: &gate_up,
                dy: &data.random("dy", &shape)?,
                dgate_up: &data.zeros("dgate_up", &both)?,
                counts: None,
            };
            swiglu_backward(&mut plan, &io, rows)?;
        }
    }
    Ok(plan)
}

fn turned(data: &Data) -> Result<Plan> {
    let width = HEADS.width;
    let frequency = |i: usize| 1e4_f64.powf(-2.0 * i as f64 / width as f64);
    let frequencies: Vec<f64> = (0..width / 2).map(frequency).collect();
    let table = rope_table(&frequencies, 1.0, POSITIONS);
    let positions: Vec<u32> = (0..ROWS).map(|row| (row % POSITIONS) as u32).collect();
    let table = data.list("table", &table)?;
    let io = RopeIo {
        qkv: &data.random("qkv", &[ROWS, HEADS.qkv_width()])?,
        positions: &data.list("positions", &positions)?,
        table: &table.reshape(&[table.len() / width, width])?,
        counts: None,
    };
    let sizes = RopeSizes {
        rows: Size::fixed(ROWS),
        heads: HEADS,
    };
    let mut plan = data.plan();
    rope(&mut plan, &io, &sizes, Turn::Forward)?;
    Ok(plan)
}

fn column_sums(data: &Data, rows: usize, columns: usize) -> Result<Plan> {
    let scratch = bias_gradient_partials_len(rows, columns);
    let io = BiasGradientIo {
        dy: &data.random("dy", &[rows, columns])?,
        dbias: &data.zeros("dbias", &[columns])?,
        partials: &data.zeros("partials", &[scratch])?,
        counts: None,
    };
    let mut plan = data.plan();
    bias_gradient(&mut plan, &io, Size::fixed(rows), columns)?;
    Ok(plan)
}
