//! Cases of `policy.sample`.

use crate::Result;
use crate::check::support::{structs, token_counts, wide};
use crate::check::{Case, Purpose, Trial, values};
use crate::gpu::{Gpu, Tensor};
use crate::kernels::nn::attention_decode::Sequence;
use crate::kernels::nn::copy_rows::RowCopy;
use crate::kernels::policy::sample::{SampleIo, SampleSettings, Sampled, sample};
use crate::kernels::{Count, Size};
use crate::reference::policy::sample as reference;
use crate::reference::random::sampling_uniform;

const BOUND: f64 = 1e-5;
/// What is not written holds this before and after; no larger than what log-probabilities are
/// compared with.
const UNTOUCHED: f32 = 0.125;
/// Tokens that a sequence has room for.
const ROOM: usize = 4;
const SEED: u64 = 0x1234_5678_9abc_def0;

#[derive(Clone, Copy)]
enum Logits {
    /// Within a range about a centre.
    Within(f32, f32),
    /// All of one value.
    Equal(f32),
    /// Few values, so that many are equal; both zeros among them.
    Steps,
}

#[derive(Clone, Copy)]
struct Spec {
    name: &'static str,
    logits: Logits,
    vocab: usize,
    rows: usize,
    live: usize,
    temperature: f32,
    top_k: u32,
    top_p: f32,
    greedy: bool,
    purpose: Purpose,
}

const PLAIN: Spec = Spec {
    name: "",
    logits: Logits::Within(0.0, 4.0),
    vocab: 61,
    rows: 9,
    live: 9,
    temperature: 1.0,
    top_k: 0,
    top_p: 1.0,
    greedy: false,
    purpose: Purpose::Answer,
};

fn specs() -> Vec<Spec> {
    vec![
        Spec {
            name: "all of 61 tokens",
            ..PLAIN
        },
        Spec {
            name: "5003 tokens at temperature 0.7",
            vocab: 5003,
            temperature: 0.7,
            ..PLAIN
        },
        Spec {
            name: "top-k 7",
            top_k: 7,
            ..PLAIN
        },
        Spec {
            name: "top-p 0.6 of 5003",
            vocab: 5003,
            top_p: 0.6,
            ..PLAIN
        },
        Spec {
            name: "top-k 300 and top-p 0.9 of 2050 at temperature 1.5",
            vocab: 2050,
            temperature: 1.5,
            top_k: 300,
            top_p: 0.9,
            ..PLAIN
        },
        Spec {
            name: "greedy",
            vocab: 1001,
            greedy: true,
            ..PLAIN
        },
        Spec {
            name: "greedy among equals",
            logits: Logits::Equal(-3.0),
            greedy: true,
            ..PLAIN
        },
        Spec {
            name: "equals, top-k 3: all are kept",
            logits: Logits::Equal(0.0),
            top_k: 3,
            ..PLAIN
        },
        Spec {
            name: "steps, top-k 5 and top-p 0.5",
            logits: Logits::Steps,
            top_k: 5,
            top_p: 0.5,
            ..PLAIN
        },
        Spec {
            name: "steps, a threshold at both zeros",
            logits: Logits::Steps,
            top_k: 30,
            ..PLAIN
        },
        Spec {
            name: "one token",
            vocab: 1,
            top_k: 1,
            top_p: 0.5,
            ..PLAIN
        },
        Spec {
            name: "more kept than there are",
            vocab: 7,
            top_k: 100,
            ..PLAIN
        },
        Spec {
            name: "one kept",
            top_k: 1,
            ..PLAIN
        },
        Spec {
            name: "hardly any probability kept",
            top_p: 1e-6,
            ..PLAIN
        },
        Spec {
            name: "about 1e4",
            logits: Logits::Within(1e4, 3.0),
            top_p: 0.7,
            ..PLAIN
        },
        Spec {
            name: "within 1e4 at temperature 1e4",
            logits: Logits::Within(0.0, 1e4),
            temperature: 1e4,
            top_k: 20,
            ..PLAIN
        },
        Spec {
            name: "within 1e4",
            logits: Logits::Within(0.0, 1e4),
            top_p: 0.999,
            ..PLAIN
        },
        Spec {
            name: "room to spare",
            live: 4,
            ..PLAIN
        },
        Spec {
            name: "32 x 50257",
            vocab: 50257,
            rows: 32,
            live: 32,
            purpose: Purpose::Timing,
            ..PLAIN
        },
        Spec {
            name: "32 x 50257, top-k 50 and top-p 0.9",
            vocab: 50257,
            rows: 32,
            live: 32,
            top_k: 50,
            top_p: 0.9,
            purpose: Purpose::Timing,
            ..PLAIN
        },
    ]
}

pub(super) fn cases() -> Vec<Case> {
    specs()
        .into_iter()
        .map(|spec| {
            Case::new("policy.sample", spec.name, spec.purpose, move |gpu| {
                build(gpu, spec)
            })
        })
        .collect()
}

/// (rows, vocab rounded up): the columns past the vocabulary are larger than all others.
fn logits(spec: &Spec) -> Vec<f32> {
    let stride = spec.vocab.next_multiple_of(4);
    let mut all = match spec.logits {
        Logits::Within(centre, range) => values(3, spec.rows * stride, range)
            .iter()
            .map(|x| centre + x)
            .collect(),
        Logits::Equal(value) => vec![value; spec.rows * stride],
        Logits::Steps => {
            let step = |x: &f32| match (x * 3.0).round() {
                0.0 if *x > 0.0 => 0.0,
                0.0 => -0.0,
                other => other,
            };
            values(3, spec.rows * stride, 1.0)
                .iter()
                .map(step)
                .collect()
        }
    };
    for row in all.chunks_mut(stride) {
        row[spec.vocab..].fill(1e30);
    }
    all
}

/// Of nine sequences one has finished, one reaches the limit with its next token.
fn sequences(rows: usize) -> Vec<Sequence> {
    (0..rows as u32)
        .map(|b| Sequence {
            prefix_start: 3 * b,
            prefix_len: 5 + b,
            start: 100 + 10 * b,
            len: if b % 9 == 8 { 2 } else { b % 2 },
            finished: u32::from(b % 9 == 5),
            id_low: 77 * b,
            id_high: b / 2,
            pad: 0,
        })
        .collect()
}

fn words(values: &[u32]) -> Vec<f32> {
    values.iter().map(|&word| f32::from_bits(word)).collect()
}

/// What the outputs must hold, as words.
struct Outcome {
    sequences: Vec<Sequence>,
    tokens: Vec<f32>,
    positions: Vec<f32>,
    appends: Vec<f32>,
    /// (rows, ROOM, 4)
    sampled: Vec<f64>,
}

fn outcome(spec: &Spec, logits: &[f32], stops: &[u32]) -> Outcome {
    let before = sequences(spec.rows);
    let mut out = Outcome {
        sequences: before.clone(),
        tokens: vec![UNTOUCHED; spec.rows],
        positions: vec![UNTOUCHED; spec.rows],
        appends: vec![UNTOUCHED; 2 * spec.rows],
        sampled: vec![f64::from(UNTOUCHED); spec.rows * ROOM * 4],
    };
    let sampling = reference::Sampling {
        temperature: f64::from(spec.temperature),
        top_k: spec.top_k as usize,
        top_p: f64::from(spec.top_p),
    };
    let bits = |word: u32| f32::from_bits(word);
    let stride = spec.vocab.next_multiple_of(4);
    for (b, sequence) in before.iter().enumerate().take(spec.live) {
        if sequence.finished != 0 {
            continue;
        }
        let row = wide(&logits[b * stride..][..spec.vocab]);
        let distribution = reference::distribution(&row, &sampling);
        let id = u64::from(sequence.id_high) << 32 | u64::from(sequence.id_low);
        let uniform = sampling_uniform(SEED, id, sequence.len);
        let (token, kept) = if spec.greedy {
            let greatest = row.iter().copied().fold(f64::MIN, f64::max);
            let token = row.iter().position(|&z| z == greatest).unwrap_or(0);
            (token, distribution.logprobs[token])
        } else {
            let token = reference::draw(&distribution, f64::from(uniform));
            (token, distribution.kept_logprob)
        };
        let logprob = distribution.logprobs[token];
        let stopped = stops[token / 32] >> (token % 32) & 1 == 1;
        let moved = &mut out.sequences[b];
        moved.len += 1;
        moved.finished = match (stopped, moved.len) {
            (true, _) => 1,
            (false, 3) => 2,
            (false, _) => 0,
        };
        out.tokens[b] = bits(token as u32);
        out.positions[b] = bits(sequence.prefix_len + sequence.len);
        out.appends[2 * b] = bits(b as u32);
        out.appends[2 * b + 1] = bits(sequence.start + sequence.len);
        let at = (b * ROOM + sequence.len as usize) * 4;
        let drawn = [f64::from(bits(token as u32)), logprob, logprob - kept, 0.0];
        out.sampled[at..at + 4].copy_from_slice(&drawn);
    }
    out
}

fn build(gpu: &Gpu, spec: Spec) -> Result<Trial> {
    let logits = logits(&spec);
    let stops: Vec<u32> = (0..spec.vocab.div_ceil(32))
        .map(|word| 0x1111_1111 << (word % 4))
        .collect();
    let settings = SampleSettings {
        temperature: spec.temperature,
        top_p: spec.top_p,
        top_k: spec.top_k,
        greedy: spec.greedy.into(),
        max_new_tokens: 3,
        seed_low: SEED as u32,
        seed_high: (SEED >> 32) as u32,
        pad: 0,
    };
    let mut trial = Trial::new(gpu);
    let rows = spec.rows;
    let before = sequences(rows);
    let mut output =
        |label: &str, shape: &[usize], before: &[f32]| trial.output(label, shape, before);
    let blank = vec![UNTOUCHED; rows * ROOM * 4];
    let state = output(
        "sequences",
        &[rows, 8],
        &words(bytemuck::cast_slice(&before)),
    )?;
    let tokens = output("tokens", &[rows], &blank[..rows])?;
    let positions = output("positions", &[rows], &blank[..rows])?;
    let appends = output("appends", &[rows, 2], &blank[..2 * rows])?;
    let sampled = output("sampled", &[rows * ROOM, 4], &blank)?;
    let stride = spec.vocab.next_multiple_of(4);
    let io = SampleIo {
        settings: &Tensor::from_slice(gpu, "settings", &[1], &[settings])?,
        logits: &trial.input("logits", &[rows, stride], &logits)?,
        stops: &Tensor::from_slice(gpu, "stops", &[stops.len()], &stops)?,
        sequences: &structs::<Sequence>(&state)?,
        tokens: &structs::<u32>(&tokens)?,
        positions: &structs::<u32>(&positions)?,
        appends: &structs::<RowCopy>(&appends)?,
        sampled: &structs::<Sampled>(&sampled)?.reshape(&[rows, ROOM])?,
        counts: Some(&token_counts(gpu, spec.live)?),
    };
    sample(
        &mut trial.plan,
        &io,
        Size::live(rows, Count::Tokens),
        spec.vocab,
    )?;
    let after = outcome(&spec, &logits, &stops);
    let moved = words(bytemuck::cast_slice(&after.sequences));
    trial.expect(&state, wide(&moved), 0.0);
    trial.expect(&tokens, wide(&after.tokens), 0.0);
    trial.expect(&positions, wide(&after.positions), 0.0);
    trial.expect(&appends, wide(&after.appends), 0.0);
    for (column, name) in ["token", "logprob", "sampling_logprob", "pad"]
        .iter()
        .enumerate()
    {
        let values: Vec<f64> = after
            .sampled
            .iter()
            .copied()
            .skip(column)
            .step_by(4)
            .collect();
        let bound = if name.ends_with("logprob") {
            BOUND
        } else {
            0.0
        };
        trial.expect_column(name, &sampled, column, values, bound);
    }
    Ok(trial)
}
