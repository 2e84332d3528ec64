//! Sampling: random numbers to the bit, frequencies, sets, and what is refused.

use prefgrad::kernels::nn::attention_decode::Sequence;
use prefgrad::kernels::nn::copy_rows::RowCopy;
use prefgrad::kernels::policy::sample::{SampleIo, SampleSettings, Sampled, sample};
use prefgrad::kernels::{Count, Size};
use prefgrad::reference::policy::sample::{Sampling, distribution};
use prefgrad::reference::random::{philox, unit};
use prefgrad::{
    Binding, Capability, Cost, Dispatch, Gpu, Lib, Params, Plan, Result, Shader, Tensor, Variant,
};

use crate::gpu::gpu;
use crate::tools::token_counts;

/// Draws of one row of logits: enough that each token is expected often.
const DRAWS: usize = 4096;

const RANDOM: Lib = Lib {
    name: "lib.random",
    text: include_str!("../../shaders/lib/random.wgsl"),
};

const PROBE: Shader = Shader::new(
    "test.random",
    "
@group(0) @binding(1) var<storage, read> inputs: array<u32>;
@group(0) @binding(2) var<storage, read_write> bits: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> units: array<f32>;
@compute @workgroup_size(64)
fn probe(@builtin(global_invocation_id) id: vec3<u32>) {
    let at = 6u * id.x;
    if (at < arrayLength(&inputs)) {
        let counter = vec4<u32>(inputs[at], inputs[at + 1u], inputs[at + 2u], inputs[at + 3u]);
        bits[id.x] = philox(counter, vec2<u32>(inputs[at + 4u], inputs[at + 5u]));
        units[id.x] = unit(bits[id.x].x);
    }
}
",
    Capability::Core,
);

#[test]
fn random_numbers_are_those_of_the_reference_to_the_bit() {
    let mut inputs = vec![[0; 6], [u32::MAX; 6]];
    inputs.push([
        0x243f_6a88,
        0x85a3_08d3,
        0x1319_8a2e,
        0x0370_7344,
        0xa409_3822,
        0x299f_31d0,
    ]);
    for i in 0..61u32 {
        let mixed = |k: u32| (i + 1).wrapping_mul(0x9e37_79b9 ^ k.wrapping_mul(0x85eb_ca6b));
        inputs.push([i, mixed(1), mixed(2), 0, mixed(3), mixed(4)]);
    }
    let count = inputs.len();
    let words = Tensor::from_slice(gpu(), "inputs", &[6 * count], inputs.as_flattened()).unwrap();
    let bits = Tensor::zeros::<u32>(gpu(), "bits", &[4 * count]).unwrap();
    let units = Tensor::zeros::<f32>(gpu(), "units", &[count]).unwrap();
    let mut plan = Plan::new(gpu());
    plan.push(&Dispatch {
        label: "test.random",
        shader: &PROBE,
        variant: Variant {
            entry: "probe",
            libs: &[&RANDOM],
            consts: &[],
        },
        params: Params::NONE,
        bindings: &[
            Binding::read(1, &words),
            Binding::write(2, &bits),
            Binding::write(3, &units),
        ],
        workgroups: count.div_ceil(64) as u64,
        cost: Cost::default(),
    })
    .unwrap();
    plan.submit();
    let (bits, units): (Vec<u32>, Vec<f32>) =
        (bits.read(gpu()).unwrap(), units.read(gpu()).unwrap());
    for (i, &[a, b, c, d, k, l]) in inputs.iter().enumerate() {
        let expected = philox([a, b, c, d], [k, l]);
        assert_eq!(bits[4 * i..4 * i + 4], expected, "input {i}");
        assert_eq!(units[i], unit(expected[0]));
    }
}

fn settings() -> SampleSettings {
    SampleSettings {
        temperature: 1.0,
        top_p: 1.0,
        max_new_tokens: 1,
        seed_low: 5,
        ..SampleSettings::default()
    }
}

/// One draw of each sequence.
struct Draws {
    plan: Plan,
    sequences: Tensor,
    sampled: Tensor,
}

impl Draws {
    /// Sequences 0, 1, ... over the rows of `logits`, (rows, V).
    fn new(gpu: &Gpu, logits: &[f32], vocab: usize, settings: SampleSettings) -> Self {
        let rows = logits.len() / vocab;
        let stride = vocab.next_multiple_of(4);
        let mut padded = vec![1e20; rows * stride];
        for (to, from) in padded.chunks_mut(stride).zip(logits.chunks(vocab)) {
            to[..vocab].copy_from_slice(from);
        }
        let words = |label: &str, len: usize| Tensor::zeros::<u32>(gpu, label, &[len]).unwrap();
        let sequences = Tensor::zeros::<Sequence>(gpu, "sequences", &[rows]).unwrap();
        let sampled = Tensor::zeros::<Sampled>(gpu, "sampled", &[rows, 1]).unwrap();
        let io = SampleIo {
            settings: &Tensor::from_slice(gpu, "settings", &[1], &[settings]).unwrap(),
            logits: &Tensor::from_slice(gpu, "logits", &[rows, stride], &padded).unwrap(),
            stops: &words("stops", vocab.div_ceil(32)),
            sequences: &sequences,
            tokens: &words("tokens", rows),
            positions: &words("positions", rows),
            appends: &Tensor::zeros::<RowCopy>(gpu, "appends", &[rows]).unwrap(),
            sampled: &sampled,
            counts: Some(&token_counts(gpu, rows as u32)),
        };
        let mut plan = Plan::new(gpu);
        sample(&mut plan, &io, Size::live(rows, Count::Tokens), vocab).unwrap();
        Self {
            plan,
            sequences,
            sampled,
        }
    }

    fn run(&self, ids: &[u64]) -> Vec<Sampled> {
        let gpu = self.plan.gpu();
        let sequences: Vec<Sequence> = ids
            .iter()
            .map(|&id| Sequence {
                id_low: id as u32,
                id_high: (id >> 32) as u32,
                ..Sequence::default()
            })
            .collect();
        self.sequences.write(gpu, &sequences).unwrap();
        self.plan.submit();
        self.sampled.read(gpu).unwrap()
    }
}

/// Logits of 37 tokens with probabilities from 0.1 % to 10 %.
fn uneven() -> Vec<f32> {
    (0..37)
        .map(|i| ((i * 17 % 37) as f32 / 8.0) - 1.0)
        .collect()
}

/// The smallest chi-squared that is exceeded with a probability of 0.001 (Wilson & Hilferty 1931).
fn critical(freedom: usize) -> f64 {
    let f = freedom as f64;
    let a = 2.0 / (9.0 * f);
    f * (1.0 - a + 3.09 * a.sqrt()).powi(3)
}

/// Fails where the frequencies of the draws, at a significance of 0.001, are not those of the
/// distribution, or where a token was drawn that was not kept, or never one that was.
fn check_frequencies(sampling: Sampling) {
    let settings = SampleSettings {
        temperature: sampling.temperature as f32,
        top_k: sampling.top_k as u32,
        top_p: sampling.top_p as f32,
        ..settings()
    };
    let row = uneven();
    let draws = Draws::new(gpu(), &row.repeat(DRAWS), row.len(), settings);
    let ids: Vec<u64> = (0..DRAWS as u64).collect();
    let mut counts = vec![0usize; row.len()];
    for drawn in draws.run(&ids) {
        counts[drawn.token as usize] += 1;
    }
    let wide: Vec<f64> = row.iter().map(|&z| f64::from(z)).collect();
    let twin = distribution(&wide, &sampling);
    let (mut squared, mut kept) = (0.0, 0);
    for (token, &count) in counts.iter().enumerate() {
        assert_eq!(count > 0, twin.kept[token], "token {token}: {count}");
        if twin.kept[token] {
            let p = (twin.logprobs[token] - twin.kept_logprob).exp();
            let expected = p * DRAWS as f64;
            assert!(expected > 3.0, "{expected}");
            squared += (count as f64 - expected).powi(2) / expected;
            kept += 1;
        }
    }
    let limit = critical(kept - 1);
    assert!(squared < limit, "{squared} over {limit} for {kept} tokens");
    // Too even is as unlikely as too uneven.
    assert!(squared > 0.2 * (kept - 1) as f64, "{squared} for {kept}");
}

#[test]
fn frequencies_are_the_probabilities() {
    for (temperature, top_k, top_p) in
        [(1.0, 0, 1.0), (0.6, 20, 1.0), (1.0, 0, 0.7), (2.0, 12, 0.9)]
    {
        check_frequencies(Sampling {
            temperature,
            top_k,
            top_p,
        });
    }
}

#[test]
fn each_sequence_and_seed_draws_anew() {
    let row = uneven();
    let draws = Draws::new(gpu(), &row.repeat(8), row.len(), settings());
    let tokens = |drawn: &[Sampled]| drawn.iter().map(|d| d.token).collect::<Vec<u32>>();
    let low = tokens(&draws.run(&[0, 1, 2, 3, 4, 5, 6, 7]));
    let high = tokens(&draws.run(&[0, 1, 2, 3, 4, 5, 6, 7].map(|id: u64| id << 32 | 1)));
    assert_ne!(low, high, "the upper half of the id counts");
    let mut other = settings();
    other.seed_high = 1;
    let other = Draws::new(gpu(), &row.repeat(8), row.len(), other);
    assert_ne!(low, tokens(&other.run(&[0, 1, 2, 3, 4, 5, 6, 7])));
    // The same sequences in another order draw the same.
    let back = tokens(&draws.run(&[7, 6, 5, 4, 3, 2, 1, 0]));
    assert_eq!(low.into_iter().rev().collect::<Vec<_>>(), back);
}

#[test]
fn the_same_bits_in_every_run() {
    let row: Vec<f32> = (0..5003).map(|i| (i as f32 * 0.37).sin() * 4.0).collect();
    let settings = SampleSettings {
        top_k: 900,
        top_p: 0.8,
        ..settings()
    };
    let draws = Draws::new(gpu(), &row.repeat(16), row.len(), settings);
    let ids: Vec<u64> = (0..16).collect();
    let first = draws.run(&ids);
    for _ in 0..4 {
        assert_eq!(draws.run(&ids), first);
    }
}

#[test]
fn logits_that_are_not_finite_leave_a_sequence_as_it_is() {
    for greedy in [0, 1] {
        let mut row = vec![0.0; 40];
        row[17] = f32::NAN;
        let mut settings = settings();
        settings.greedy = greedy;
        let draws = Draws::new(gpu(), &row, 40, settings);
        draws.run(&[3]);
        let sequence = draws.sequences.read::<Sequence>(gpu()).unwrap()[0];
        assert_eq!((sequence.len, sequence.finished), (0, 0));
    }
}

#[test]
fn tensors_that_do_not_fit_are_refused_by_name() {
    let words = |len: usize| Tensor::zeros::<u32>(gpu(), "words", &[len]).unwrap();
    let run = |vocab: usize, logits: [usize; 2], stops: usize, tokens: usize| -> Result<()> {
        let io = SampleIo {
            settings: &Tensor::zeros::<SampleSettings>(gpu(), "settings", &[1]).unwrap(),
            logits: &Tensor::zeros::<f32>(gpu(), "logits", &logits).unwrap(),
            stops: &words(stops),
            sequences: &Tensor::zeros::<Sequence>(gpu(), "sequences", &[2]).unwrap(),
            tokens: &words(tokens),
            positions: &words(2),
            appends: &Tensor::zeros::<RowCopy>(gpu(), "appends", &[2]).unwrap(),
            sampled: &Tensor::zeros::<Sampled>(gpu(), "sampled", &[2, 3]).unwrap(),
            counts: None,
        };
        sample(&mut Plan::new(gpu()), &io, Size::fixed(2), vocab)
    };
    run(61, [2, 64], 2, 2).unwrap();
    for (result, name) in [
        (run(61, [2, 61], 2, 2), "logits"),
        (run(61, [3, 64], 2, 2), "logits"),
        (run(65, [2, 68], 2, 2), "stops"),
        (run(61, [2, 64], 2, 1), "tokens"),
        (run(0, [2, 0], 0, 2), "vocabulary"),
    ] {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
    }
}
