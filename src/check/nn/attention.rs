//! Cases of `nn.attention`, and the packed runs they work on.

use crate::Result;
use crate::check::support::wide;
use crate::check::{Case, Purpose, Trial, values};
use crate::data::batch::{Counts, Segment, TILE_ROWS, Tile};
use crate::gpu::{Gpu, Tensor};
use crate::kernels::nn::attention::{
    AttentionBackwardIo, AttentionForwardIo, AttentionSizes, Heads, attention_backward,
    attention_forward, visible_pairs,
};
use crate::kernels::{Count, Size};
use crate::reference::nn::attention as reference;

const BOUND: f64 = 1e-5;
/// What written tensors hold before, and must still hold past the last live row.
const UNTOUCHED: f32 = -3e10;

/// A packed run as attention sees it.
#[derive(Debug, Clone)]
pub struct Run {
    /// Packed rows.
    pub tokens: usize,
    /// Prompts and answers, in the order of their rows.
    pub segments: Vec<Segment>,
    /// The work list, by row.
    pub tiles: Vec<Tile>,
}

impl Run {
    /// Packs records of a prompt's length and its answers' lengths: `[prompt | answer 1 | ...]`,
    /// one record after the other. A prompt of length 0 makes no segment.
    pub fn new(records: &[(u32, &[u32])]) -> Self {
        let mut segments = Vec::new();
        let mut row = 0;
        for &(prompt, answers) in records {
            let prompt_start = row;
            let record_end = row + prompt + answers.iter().sum::<u32>();
            if prompt > 0 {
                segments.push(Segment {
                    start: row,
                    len: prompt,
                    query_end: record_end,
                    ..Segment::default()
                });
                row += prompt;
            }
            for &answer in answers {
                segments.push(Segment {
                    start: row,
                    len: answer,
                    prefix_start: if prompt > 0 { prompt_start } else { 0 },
                    prefix_len: prompt,
                    position: prompt,
                    query_end: row + answer,
                    pad: [0; 2],
                });
                row += answer;
            }
        }
        Self {
            tokens: row as usize,
            tiles: tiles(&segments),
            segments,
        }
    }

    /// What the reference takes.
    pub fn reference(&self) -> Vec<reference::Segment> {
        let convert = |segment: &Segment| reference::Segment {
            start: segment.start,
            len: segment.len,
            prefix_start: segment.prefix_start,
            prefix_len: segment.prefix_len,
        };
        self.segments.iter().map(convert).collect()
    }

    /// The live sizes that attention reads.
    pub fn counts(&self) -> Counts {
        Counts {
            tokens: self.tokens as u32,
            segments: self.segments.len() as u32,
            tiles: self.tiles.len() as u32,
            ..Counts::default()
        }
    }
}

fn tiles(segments: &[Segment]) -> Vec<Tile> {
    let mut tiles = Vec::new();
    for (index, segment) in segments.iter().enumerate() {
        for row in (segment.start..segment.start + segment.len).step_by(TILE_ROWS as usize) {
            tiles.push(Tile {
                segment: index as u32,
                row,
            });
        }
    }
    tiles
}

#[derive(Clone, Copy)]
struct Spec {
    name: &'static str,
    records: &'static [(u32, &'static [u32])],
    /// H, G, D.
    heads: (usize, usize, usize),
    /// Factor of the queries, whose values otherwise lie within 1.
    query_scale: f32,
    /// Rows and tiles that the plan has room for beyond the run's own.
    spare: usize,
    purpose: Purpose,
}

const PLAIN: Spec = Spec {
    name: "",
    records: &[],
    heads: (2, 2, 16),
    query_scale: 1.0,
    spare: 0,
    purpose: Purpose::Answer,
};

pub(super) fn cases() -> Vec<Case> {
    let mut specs = vec![
        Spec {
            name: "pairs, width 64",
            records: &[(5, &[3, 4]), (40, &[7, 33]), (1, &[1, 1])],
            heads: (2, 2, 64),
            ..PLAIN
        },
        Spec {
            name: "rankings of four, H=4 G=2",
            records: &[(35, &[9, 1, 34, 2]), (0, &[6, 5, 4, 3]), (3, &[1, 1, 1, 1])],
            heads: (4, 2, 16),
            ..PLAIN
        },
        Spec {
            name: "pairs, H=3 G=1, width 32",
            records: &[(20, &[15, 2]), (33, &[5, 8])],
            heads: (3, 1, 32),
            ..PLAIN
        },
        Spec {
            name: "no prompts, width 80",
            records: &[(0, &[5]), (0, &[1]), (0, &[37, 2])],
            heads: (2, 1, 80),
            ..PLAIN
        },
        Spec {
            name: "pairs, width 128",
            records: &[(18, &[6, 35])],
            heads: (2, 1, 128),
            ..PLAIN
        },
        Spec {
            name: "pairs, width 4",
            records: &[(9, &[6, 12])],
            heads: (3, 3, 4),
            ..PLAIN
        },
        Spec {
            name: "pairs, width 8",
            records: &[(34, &[31, 3])],
            heads: (2, 2, 8),
            ..PLAIN
        },
        Spec {
            name: "rankings of three, H=4 G=2, width 20",
            records: &[(17, &[16, 1, 40])],
            heads: (4, 2, 20),
            ..PLAIN
        },
        Spec {
            name: "pairs, width 12",
            records: &[(9, &[6, 12])],
            heads: (2, 1, 12),
            ..PLAIN
        },
        Spec {
            name: "around the tile size",
            records: &[
                (31, &[32, 33]),
                (32, &[31, 65]),
                (33, &[32, 32]),
                (65, &[64, 63]),
            ],
            ..PLAIN
        },
        Spec {
            name: "one row",
            records: &[(0, &[1])],
            ..PLAIN
        },
        Spec {
            name: "large scores, width 64",
            records: &[(6, &[4, 5])],
            heads: (2, 1, 64),
            query_scale: 1e4,
            ..PLAIN
        },
        Spec {
            name: "room to spare",
            records: &[(12, &[20, 33]), (2, &[1])],
            spare: 45,
            ..PLAIN
        },
        Spec {
            name: "one sequence of 300",
            records: &[(0, &[300])],
            heads: (2, 1, 16),
            ..PLAIN
        },
    ];
    specs.push(Spec {
        name: "2 x 4 heads x 128 rows, width 64",
        records: &[(0, &[128]), (0, &[128])],
        heads: (4, 4, 64),
        purpose: Purpose::Timing,
        ..PLAIN
    });
    specs.push(Spec {
        name: "8 pairs of 128 + 64 + 64, 4 heads, width 64",
        records: &[(128, &[64u32, 64] as &[u32]); 8],
        heads: (4, 4, 64),
        purpose: Purpose::Timing,
        ..PLAIN
    });
    specs
        .into_iter()
        .map(|spec| {
            Case::new("nn.attention", spec.name, spec.purpose, move |gpu| {
                build(gpu, spec)
            })
        })
        .collect()
}

fn build(gpu: &Gpu, spec: Spec) -> Result<Trial> {
    let run = Run::new(spec.records);
    let (query, key_value, width) = spec.heads;
    let heads = Heads {
        query,
        key_value,
        width,
    };
    let rows = run.tokens + spec.spare;
    let mut qkv = values(1, rows * heads.qkv_width(), 1.0);
    for row in qkv.chunks_mut(heads.qkv_width()) {
        let queries = &mut row[..heads.out_width()];
        queries.iter_mut().for_each(|q| *q *= spec.query_scale);
    }
    let dout = values(2, rows * heads.out_width(), 3.0);
    let mut trial = Trial::new(gpu);
    let tensors = Tensors::new(&mut trial, rows, heads, &qkv, &dout)?;
    tensors.record(&mut trial, &run, heads, spec.spare)?;
    tensors.expect(&mut trial, &run, heads, &qkv, &dout)?;
    Ok(trial)
}

/// The tensors of forward and backward.
struct Tensors {
    qkv: Tensor,
    dout: Tensor,
    out: Tensor,
    lse: Tensor,
    delta: Tensor,
    dqkv: Tensor,
}

impl Tensors {
    fn new(
        trial: &mut Trial,
        rows: usize,
        heads: Heads,
        qkv: &[f32],
        dout: &[f32],
    ) -> Result<Self> {
        let (qkv_width, out_width) = (heads.qkv_width(), heads.out_width());
        let mut written = |label, width: usize| {
            trial.output(label, &[rows, width], &vec![UNTOUCHED; rows * width])
        };
        Ok(Self {
            out: written("out", out_width)?,
            lse: written("lse", heads.query)?,
            delta: written("delta", heads.query)?,
            dqkv: written("dqkv", qkv_width)?,
            qkv: trial.input("qkv", &[rows, qkv_width], qkv)?,
            dout: trial.input("dout", &[rows, out_width], dout)?,
        })
    }

    fn record(&self, trial: &mut Trial, run: &Run, heads: Heads, spare: usize) -> Result<()> {
        let gpu = trial.plan.gpu().clone();
        let capacity = run.tiles.len() + spare;
        let tiles = Tensor::zeros::<Tile>(&gpu, "tiles", &[capacity])?;
        tiles.write(&gpu, &run.tiles)?;
        let segments = Tensor::from_slice(&gpu, "segments", &[run.segments.len()], &run.segments)?;
        let counts = Tensor::from_slice(&gpu, "counts", &[1], &[run.counts()])?;
        let sizes = AttentionSizes {
            tokens: run.tokens + spare,
            tiles: Size::live(capacity, Count::Tiles),
            heads,
            attended: visible_pairs(&run.segments),
        };
        let forward = AttentionForwardIo {
            qkv: &self.qkv,
            segments: &segments,
            tiles: &tiles,
            counts: Some(&counts),
            out: &self.out,
            lse: &self.lse,
        };
        attention_forward(&mut trial.plan, &forward, &sizes)?;
        let backward = AttentionBackwardIo {
            qkv: &self.qkv,
            segments: &segments,
            tiles: &tiles,
            counts: Some(&counts),
            out: &self.out,
            lse: &self.lse,
            dout: &self.dout,
            delta: &self.delta,
            dqkv: &self.dqkv,
        };
        attention_backward(&mut trial.plan, &backward, &sizes)
    }

    fn expect(
        &self,
        trial: &mut Trial,
        run: &Run,
        heads: Heads,
        qkv: &[f32],
        dout: &[f32],
    ) -> Result<()> {
        let twin = reference::Heads {
            query: heads.query,
            key_value: heads.key_value,
            width: heads.width,
        };
        let segments = run.reference();
        let qkv = wide(&qkv[..run.tokens * heads.qkv_width()]);
        let dout = wide(&dout[..run.tokens * heads.out_width()]);
        let forward = reference::attention_forward(&qkv, &segments, twin);
        let delta = dout
            .chunks(heads.width)
            .zip(forward.out.chunks(heads.width))
            .map(|(dout, out)| dout.iter().zip(out).map(|(a, b)| a * b).sum())
            .collect();
        let dqkv = reference::attention_backward(&qkv, &segments, twin, &dout);
        for (tensor, expected) in [
            (&self.out, forward.out),
            (&self.lse, forward.lse),
            (&self.delta, delta),
            (&self.dqkv, dqkv),
        ] {
            let (live, all) = (expected.len(), tensor.len());
            trial.expect(&tensor.window(tensor.label(), 0, &[live])?, expected, BOUND);
            let label = format!("{} past the last row", tensor.label());
            let rest = tensor.window(&label, live, &[all - live])?;
            trial.expect(&rest, vec![f64::from(UNTOUCHED); all - live], 0.0);
        }
        Ok(())
    }
}
