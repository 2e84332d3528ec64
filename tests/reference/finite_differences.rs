//! Each backward against central differences, with a random gradient coming in.

use prefgrad::reference::gradient::check_gradient;
use prefgrad::reference::nn::attention::{Heads, Segment, attention_backward, attention_forward};
use prefgrad::reference::nn::cross_entropy::{Target, cross_entropy};
use prefgrad::reference::nn::embedding::{Positions, embedding_backward, embedding_forward};
use prefgrad::reference::nn::gelu::{Gelu, gelu_backward, gelu_forward};
use prefgrad::reference::nn::layer_norm::{layer_norm_backward, layer_norm_forward};
use prefgrad::reference::nn::matmul::{Layout, add_bias, bias_gradient, matmul, matmul_backward};
use prefgrad::reference::nn::qk_norm::{qk_norm_backward, qk_norm_forward};
use prefgrad::reference::nn::rms_norm::{rms_norm_backward, rms_norm_forward};
use prefgrad::reference::nn::rope::{rope_backward, rope_forward};
use prefgrad::reference::nn::swiglu::{swiglu_backward, swiglu_forward};
use prefgrad::reference::policy::token_logprob::{
    self as logprob, TokenGradient, token_logprob_backward, token_logprob_forward,
};
use prefgrad::reference::preference::pairwise_loss::{Pair, PairwiseLossOptions, pairwise_loss};
use prefgrad::reference::preference::pooled_head::{pooled_head_backward, pooled_head_forward};
use prefgrad::reference::transformer::{Parameters, Run, Transformer};

use crate::support::random::Random;
use crate::{FINITE_DIFFERENCE_BOUND, assert_close, dot};

/// Checks one input's gradient of `f`.
#[track_caller]
fn check(what: &str, f: impl FnMut(&[f64]) -> f64, x: &[f64], analytic: &[f64]) {
    let error = check_gradient(f, x, analytic, 1e-5);
    assert!(error <= FINITE_DIFFERENCE_BOUND, "{what}: {error:.3e}");
}

#[test]
fn matmul_in_three_layouts() {
    let mut random = Random::new(1);
    let (m, n, k) = (3, 4, 5);
    for layout in [Layout::NN, Layout::NT, Layout::TN] {
        let (a, b) = (random.values(m * k, 1.0), random.values(k * n, 1.0));
        let bias = random.values(n, 1.0);
        let dc = random.values(m * n, 3.0);
        let value = |a: &[f64], b: &[f64], bias: &[f64]| {
            let mut c = matmul(a, b, layout, m, n, k);
            add_bias(&mut c, bias);
            dot(&c, &dc)
        };
        let out = matmul_backward(&a, &b, &dc, layout, (m, n, k));
        check("da", |a| value(a, &b, &bias), &a, &out.da);
        check("db", |b| value(&a, b, &bias), &b, &out.db);
        let dbias = bias_gradient(&dc, n);
        check("dbias", |bias| value(&a, &b, bias), &bias, &dbias);
    }
}

#[test]
fn embedding() {
    let mut random = Random::new(2);
    let (vocabulary, contexts, width) = (5, 4, 3);
    let tokens = [4, 0, 4, 2, 4];
    let positions = [0, 1, 2, 2, 3];
    let token_table = random.values(vocabulary * width, 1.0);
    let position_table = random.values(contexts * width, 1.0);
    let dout = random.values(tokens.len() * width, 2.0);
    let value = |token_table: &[f64], table: Option<&[f64]>| {
        let ids = &positions;
        let positions = table.map(|table| Positions { ids, table });
        dot(
            &embedding_forward(&tokens, token_table, positions, width),
            &dout,
        )
    };
    let dtokens = embedding_backward(&tokens, &dout, vocabulary, width);
    for table in [None, Some(position_table.as_slice())] {
        check("dtoken_table", |x| value(x, table), &token_table, &dtokens);
    }
    let dpositions = embedding_backward(&positions, &dout, contexts, width);
    let of_positions = |table: &[f64]| value(&token_table, Some(table));
    check(
        "dposition_table",
        of_positions,
        &position_table,
        &dpositions,
    );
}

#[test]
fn layer_norm() {
    let mut random = Random::new(3);
    let (rows, width, eps) = (4, 6, 1e-5);
    let x = random.values(rows * width, 2.0);
    let (weight, bias) = (random.values(width, 1.5), random.values(width, 1.0));
    let dy = random.values(rows * width, 2.0);
    let value = |x: &[f64], weight: &[f64], bias: &[f64]| {
        dot(&layer_norm_forward(x, weight, bias, eps).y, &dy)
    };
    let forward = layer_norm_forward(&x, &weight, &bias, eps);
    let out = layer_norm_backward(&x, &weight, &forward.mean, &forward.rstd, &dy);
    check("dx", |x| value(x, &weight, &bias), &x, &out.dx);
    check("dweight", |w| value(&x, w, &bias), &weight, &out.dweight);
    check("dbias", |b| value(&x, &weight, b), &bias, &out.dbias);
}

#[test]
fn rms_norm() {
    let mut random = Random::new(32);
    // The larger eps is as large as the squares.
    for (rows, width, eps) in [(4, 6, 1e-6), (3, 5, 0.5)] {
        let x = random.values(rows * width, 2.0);
        let weight = random.values(width, 1.5);
        let dy = random.values(rows * width, 2.0);
        let value = |x: &[f64], weight: &[f64]| dot(&rms_norm_forward(x, weight, eps).y, &dy);
        let rstd = rms_norm_forward(&x, &weight, eps).rstd;
        let out = rms_norm_backward(&x, &weight, &rstd, &dy);
        check("dx", |x| value(x, &weight), &x, &out.dx);
        check("dweight", |w| value(&x, w), &weight, &out.dweight);
    }
}

#[test]
fn qk_norm() {
    let mut random = Random::new(33);
    let (rows, eps) = (3, 1e-3);
    for (query, key_value) in [(1, 1), (4, 2)] {
        let heads = Heads {
            query,
            key_value,
            width: 4,
        };
        let x = random.values(rows * heads.qkv_width(), 2.0);
        let [query_weight, key_weight] = [1.5, 2.5].map(|scale| random.values(heads.width, scale));
        let dy = random.values(x.len(), 2.0);
        let value = |x: &[f64], query: &[f64], key: &[f64]| {
            dot(&qk_norm_forward(x, query, key, heads, eps), &dy)
        };
        let out = qk_norm_backward(&x, &query_weight, &key_weight, heads, eps, &dy);
        let of_query = |w: &[f64]| value(&x, w, &key_weight);
        check("dx", |x| value(x, &query_weight, &key_weight), &x, &out.dx);
        check("dquery_weight", of_query, &query_weight, &out.dquery_weight);
        let of_key = |w: &[f64]| value(&x, &query_weight, w);
        check("dkey_weight", of_key, &key_weight, &out.dkey_weight);
    }
}

#[test]
fn gelu() {
    let mut random = Random::new(4);
    let x = random.values(40, 6.0);
    let dy = random.values(40, 2.0);
    for form in [Gelu::Tanh, Gelu::Erf] {
        let dx = gelu_backward(&x, &dy, form);
        check("dx", |x| dot(&gelu_forward(x, form), &dy), &x, &dx);
    }
}

#[test]
fn swiglu() {
    let mut random = Random::new(11);
    let (rows, inner) = (4, 5);
    let gate_up = random.values(rows * 2 * inner, 6.0);
    let dy = random.values(rows * inner, 2.0);
    let dgate_up = swiglu_backward(&gate_up, &dy, inner);
    let value = |x: &[f64]| dot(&swiglu_forward(x, inner), &dy);
    check("dgate_up", value, &gate_up, &dgate_up);
}

#[test]
fn rope() {
    let mut random = Random::new(12);
    let heads = Heads {
        query: 2,
        key_value: 1,
        width: 6,
    };
    let (positions, frequencies, scale) = ([0, 1, 500, 1], [1.0, 0.3, 0.002], 1.3);
    let qkv = random.values(positions.len() * heads.qkv_width(), 1.5);
    let dout = random.values(qkv.len(), 2.0);
    let dqkv = rope_backward(&dout, &positions, heads, &frequencies, scale);
    let value = |x: &[f64]| {
        let out = rope_forward(x, &positions, heads, &frequencies, scale);
        dot(&out, &dout)
    };
    check("dqkv", value, &qkv, &dqkv);
}

/// Two records: a prompt with two answers (one of them a single token), and a lone sequence; one
/// row at the end belongs to no segment.
fn segments() -> Vec<Segment> {
    let answer = |start, len| Segment {
        start,
        len,
        prefix_start: 0,
        prefix_len: 3,
    };
    vec![
        Segment::alone(0, 3),
        answer(3, 4),
        answer(7, 1),
        Segment::alone(8, 5),
    ]
}

#[test]
fn attention_with_shared_prefixes_and_grouped_heads() {
    let mut random = Random::new(5);
    let (rows, segments) = (14, segments());
    for (query, key_value) in [(1, 1), (4, 2), (3, 1), (2, 2)] {
        let heads = Heads {
            query,
            key_value,
            width: 3,
        };
        let qkv = random.values(rows * heads.qkv_width(), 1.5);
        let dout = random.values(rows * query * heads.width, 2.0);
        let dqkv = attention_backward(&qkv, &segments, heads, &dout);
        let value = |qkv: &[f64]| dot(&attention_forward(qkv, &segments, heads).out, &dout);
        check("dqkv", value, &qkv, &dqkv);
        let untouched = &dqkv[13 * heads.qkv_width()..];
        assert!(untouched.iter().all(|&x| x == 0.0));
    }
}

/// `lse` and the output written out for one row of an answer.
#[test]
fn attention_attends_to_the_prefix_and_to_itself() {
    let mut random = Random::new(6);
    let heads = Heads {
        query: 1,
        key_value: 1,
        width: 2,
    };
    let qkv = random.values(14 * heads.qkv_width(), 1.5);
    let out = attention_forward(&qkv, &segments(), heads);
    let row = |row: usize, part: usize| &qkv[row * 6 + 2 * part..][..2];
    // Row 5 is the third of the answer that starts at row 3.
    let keys = [0, 1, 2, 3, 4, 5];
    let exp = keys.map(|key| (dot(row(5, 0), row(key, 1)) / 2.0_f64.sqrt()).exp());
    let total: f64 = exp.iter().sum();
    let mut expected = [0.0; 2];
    for (key, exp) in keys.into_iter().zip(exp) {
        for (expected, value) in expected.iter_mut().zip(row(key, 2)) {
            *expected += exp / total * value;
        }
    }
    assert_close("out", &out.out[10..12], &expected, 1e-14);
    assert_close("lse", &out.lse[5..6], &[total.ln()], 1e-14);
}

#[test]
fn next_token_cross_entropy() {
    let mut random = Random::new(7);
    let (rows, vocabulary, width, scale) = (5, 7, 4, 0.3);
    let hidden = random.values(rows * width, 2.0);
    let head = random.values(vocabulary * width, 2.0);
    // Row 1 predicts three tokens (two of them the same), row 3 none.
    let targets: Vec<Target> = [
        (0, 6, 1.0),
        (1, 2, 0.5),
        (1, 2, 2.0),
        (1, 0, 1.5),
        (4, 3, 0.0),
    ]
    .map(|(row, token, weight)| Target { row, token, weight })
    .to_vec();
    let value =
        |hidden: &[f64], head: &[f64]| cross_entropy(hidden, head, &targets, width, scale).loss;
    let out = cross_entropy(&hidden, &head, &targets, width, scale);
    check("dhidden", |x| value(x, &head), &hidden, &out.dhidden);
    check("dhead", |x| value(&hidden, x), &head, &out.dhead);
    let by_logprob: Vec<f64> = targets.iter().map(|t| -scale * t.weight).collect();
    assert_close(
        "loss",
        &[out.loss],
        &[dot(&out.logprobs, &by_logprob)],
        1e-14,
    );
}

#[test]
fn token_logprob_with_a_shared_row() {
    let mut random = Random::new(31);
    let (width, temperature) = (3, 0.7);
    let (hidden, head) = (random.values(4 * width, 1.0), random.values(6 * width, 1.0));
    let target = |(row, token)| logprob::Target { row, token };
    let targets = [(0, 5), (2, 1), (2, 4), (3, 1)].map(target);
    let incoming = random.values(2 * targets.len(), 2.0);
    let gradients: Vec<TokenGradient> = incoming
        .chunks_exact(2)
        .map(|pair| TokenGradient {
            dlogprob: pair[0],
            dentropy: pair[1],
        })
        .collect();
    let value = |hidden: &[f64], head: &[f64]| {
        let figures = token_logprob_forward(hidden, head, &targets, width, temperature);
        let flat = figures.iter().flat_map(|of| [of.logprob, of.entropy]);
        dot(&flat.collect::<Vec<_>>(), &incoming)
    };
    let sizes = (width, temperature);
    let out = token_logprob_backward(&hidden, &head, &targets, &gradients, sizes);
    check(
        "dhidden",
        |hidden| value(hidden, &head),
        &hidden,
        &out.dhidden,
    );
    check("dhead", |head| value(&hidden, head), &head, &out.dhead);
}

#[test]
fn pooled_head_with_a_shared_row() {
    let mut random = Random::new(8);
    let (rows, width) = (5, 3);
    let hidden = random.values(rows * width, 1.0);
    let w = random.values(width, 1.0);
    let pooled_rows = [4, 1, 4, 0];
    let drewards = random.values(4, 2.0);
    let value = |hidden: &[f64], w: &[f64], b: f64| {
        dot(&pooled_head_forward(hidden, &pooled_rows, w, b), &drewards)
    };
    let out = pooled_head_backward(&hidden, &pooled_rows, &w, &drewards);
    check("dhidden", |x| value(x, &w, 0.2), &hidden, &out.dhidden);
    check("dw", |w| value(&hidden, w, 0.2), &w, &out.dw);
    check("db", |b| value(&hidden, &w, b[0]), &[0.2], &[out.db]);
}

#[test]
fn pairwise_loss_with_every_option() {
    let mut random = Random::new(9);
    let count = 6;
    let rewards = random.values(2 * count, 3.0);
    let pairs: Vec<Pair> = (0..count)
        .map(|_| Pair {
            weight: random.value(1.0).abs() + 0.1,
            margin: random.value(1.0),
        })
        .collect();
    for (label_smoothing, centering) in [(0.0, 0.0), (0.1, 0.0), (0.0, 0.02), (0.2, 0.05)] {
        let options = PairwiseLossOptions {
            label_smoothing,
            centering,
            pair_scale: 0.7,
        };
        let out = pairwise_loss(&rewards, &pairs, &options);
        let value = |rewards: &[f64]| pairwise_loss(rewards, &pairs, &options).statistics.loss;
        check("drewards", value, &rewards, &out.drewards);
    }
}

/// A small model, random parameters for it, and the run of [`segments`] with tokens.
fn small_model() -> (Transformer, Parameters, Vec<u32>, Vec<u32>) {
    let mut random = Random::new(10);
    let model = Transformer {
        vocabulary: 7,
        context: 8,
        width: 4,
        layers: 2,
        heads: 2,
        inner: 6,
        eps: 1e-5,
        gelu: Gelu::Tanh,
    };
    let mut parameters: Parameters = model
        .parameter_sizes()
        .into_iter()
        .map(|(name, size)| (name, random.values(size, 0.8)))
        .collect();
    parameters.insert("score.weight".to_owned(), random.values(model.width, 1.0));
    let tokens = random.indices(13, 7);
    let positions = vec![0, 1, 2, 3, 4, 5, 6, 3, 0, 1, 2, 3, 4];
    (model, parameters, tokens, positions)
}

/// Checks the gradient of every parameter, by name.
fn check_parameters(
    parameters: &Parameters,
    gradients: &Parameters,
    value: impl Fn(&Parameters) -> f64,
) {
    for (name, gradient) in gradients {
        let mut moved = parameters.clone();
        let f = |x: &[f64]| {
            moved.insert(name.clone(), x.to_vec());
            value(&moved)
        };
        check(name, f, &parameters[name], gradient);
    }
}

#[test]
fn transformer_with_a_reward_head() {
    let (model, parameters, tokens, positions) = small_model();
    let segments = segments();
    let run = Run {
        tokens: &tokens,
        positions: &positions,
        segments: &segments,
    };
    // The second pair's rejected answer pools in the prompt that the first pair shares.
    let pooled_rows = [6, 7, 12, 2];
    let pairs = [(1.0, 0.5), (0.6, 0.0)].map(|(weight, margin)| Pair { weight, margin });
    let options = PairwiseLossOptions {
        label_smoothing: 0.1,
        centering: 0.05,
        pair_scale: 0.5,
    };
    let step = |parameters: &Parameters| {
        let step = model.reward_step(parameters, &run, &pooled_rows, &pairs, &options);
        step.expect("parameters that fit")
    };
    let out = step(&parameters);
    assert_eq!(out.gradients.len(), parameters.len());
    check_parameters(&parameters, &out.gradients, |p| {
        step(p).loss.statistics.loss
    });
    let rewards = model.rewards(&parameters, &run, &pooled_rows).expect("fit");
    assert_eq!(rewards, out.rewards);
}

#[test]
fn transformer_with_a_tied_language_model_head() {
    let (model, mut parameters, tokens, positions) = small_model();
    parameters.remove("score.weight");
    let segments = segments();
    let run = Run {
        tokens: &tokens,
        positions: &positions,
        segments: &segments,
    };
    // The prompt's last row predicts the first token of both answers.
    let targets: Vec<Target> = [
        (0, 1),
        (1, 2),
        (2, 3),
        (2, 7),
        (3, 4),
        (4, 5),
        (8, 9),
        (11, 12),
    ]
    .into_iter()
    .enumerate()
    .map(|(n, (row, next))| Target {
        row,
        token: tokens[next],
        weight: 1.0 + 0.1 * n as f64,
    })
    .collect();
    let step = |parameters: &Parameters| {
        let step = model.language_step(parameters, &run, &targets, 0.25);
        step.expect("parameters that fit")
    };
    let out = step(&parameters);
    assert_eq!(out.gradients.len(), parameters.len());
    check_parameters(&parameters, &out.gradients, |p| step(p).loss);
}

#[test]
fn a_missing_or_misshapen_parameter_is_named() {
    let (model, mut parameters, tokens, positions) = small_model();
    let segments = segments();
    let run = Run {
        tokens: &tokens,
        positions: &positions,
        segments: &segments,
    };
    let message = |parameters: &Parameters| {
        let result = model.rewards(parameters, &run, &[0]);
        result.expect_err("parameters that do not fit").to_string()
    };
    parameters.insert("score.weight".to_owned(), vec![0.0; 3]);
    assert_eq!(
        message(&parameters),
        "score.weight: the parameter has 3 elements instead of 4"
    );
    let name = "transformer.h.1.mlp.c_fc.bias";
    parameters.remove(name);
    assert_eq!(
        message(&parameters),
        format!("{name}: the parameter is missing")
    );
}
