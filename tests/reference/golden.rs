//! Each operation against PyTorch's figures in `float64`.

use prefgrad::reference::nn::attention::Heads;
use prefgrad::reference::nn::cross_entropy::{Target, cross_entropy};
use prefgrad::reference::nn::embedding::{embedding_backward, embedding_forward};
use prefgrad::reference::nn::gelu::{Gelu, gelu_backward, gelu_forward};
use prefgrad::reference::nn::layer_norm::{layer_norm_backward, layer_norm_forward};
use prefgrad::reference::nn::matmul::{Layout, add_bias, bias_gradient, matmul, matmul_backward};
use prefgrad::reference::nn::qk_norm::{qk_norm_backward, qk_norm_forward};
use prefgrad::reference::nn::rms_norm::{rms_norm_backward, rms_norm_forward};
use prefgrad::reference::nn::rope::{rope_backward, rope_forward};
use prefgrad::reference::nn::swiglu::{swiglu_backward, swiglu_forward};
use prefgrad::reference::optim::adamw::{AdamW, adamw};
use prefgrad::reference::optim::grad_norm::{clip_coefficient, global_norm};
use prefgrad::reference::policy::token_logprob::{
    self as logprob, TokenGradient, token_logprob_backward, token_logprob_forward,
};
use prefgrad::reference::preference::pairwise_loss::{Pair, PairwiseLossOptions, pairwise_loss};
use prefgrad::reference::preference::pooled_head::{pooled_head_backward, pooled_head_forward};

use crate::support::golden::{Case, cases};
use crate::{F64_BOUND, assert_close, dot};

impl Case {
    #[track_caller]
    fn assert_output(&self, name: &str, actual: &[f64]) {
        let what = format!("{} out.{name}", self.name);
        assert_close(&what, actual, &self.output(name).f64(), F64_BOUND);
    }

    #[track_caller]
    fn assert_gradient(&self, name: &str, actual: &[f64]) {
        let what = format!("{} grad.{name}", self.name);
        assert_close(&what, actual, &self.gradient(name).f64(), F64_BOUND);
    }
}

#[test]
fn matmul_in_three_layouts() {
    for (prefix, layout) in [("nn", Layout::NN), ("nt", Layout::NT), ("tn", Layout::TN)] {
        for case in cases("matmul", prefix) {
            let [m, n, k] = ["m", "n", "k"].map(|size| case.number(size) as usize);
            let (x, w) = (case.input("x").f64(), case.input("w").f64());
            let mut y = matmul(&x, &w, layout, m, n, k);
            add_bias(&mut y, &case.input("b").f64());
            case.assert_output("y", &y);
            let dy = case.cotangent("y").f64();
            let gradients = matmul_backward(&x, &w, &dy, layout, (m, n, k));
            case.assert_gradient("x", &gradients.da);
            case.assert_gradient("w", &gradients.db);
            case.assert_gradient("b", &bias_gradient(&dy, n));
        }
    }
}

#[test]
fn gelu_in_both_forms() {
    for (prefix, form) in [("gelu_tanh", Gelu::Tanh), ("gelu_erf", Gelu::Erf)] {
        for case in cases("act", prefix) {
            let x = case.input("x").f64();
            let dy = case.cotangent("y").f64();
            let results = [
                ("out.y", gelu_forward(&x, form), case.output("y")),
                ("grad.x", gelu_backward(&x, &dy, form), case.gradient("x")),
            ];
            for (name, actual, expected) in results {
                let what = format!("{} {name}", case.name);
                let expected = expected.f64();
                assert_close(&what, &actual, &expected, F64_BOUND);
                let [actual, expected] = [&actual, &expected].map(|of| ordinary(of, &x));
                assert_close(&what, &actual, &expected, 1e-14);
            }
        }
    }
}

/// Some inputs of activations are as large as 1e4: the others deserve a measure of their own.
fn ordinary(values: &[f64], inputs: &[f64]) -> Vec<f64> {
    let pairs = values.iter().zip(inputs);
    let pairs = pairs.filter(|(_, input)| input.abs() < 10.0);
    pairs.map(|(value, _)| *value).collect()
}

/// Gates that let ones through, which is SiLU, and gates that let anything through.
#[test]
fn swiglu_of_given_gates() {
    for (prefix, gate) in [("silu", "x"), ("swiglu_gate", "g")] {
        for case in cases("act", prefix) {
            let g = case.input(gate).f64();
            let n = g.len();
            let up = match gate {
                "x" => vec![1.0; n],
                _ => case.input("u").f64(),
            };
            let gate_up = [g.clone(), up].concat();
            let y = swiglu_forward(&gate_up, n);
            let dgate_up = swiglu_backward(&gate_up, &case.cotangent("y").f64(), n);
            let (dgate, dup) = dgate_up.split_at(n);
            let mut results = vec![
                (y.as_slice(), case.output("y")),
                (dgate, case.gradient(gate)),
            ];
            if gate == "g" {
                results.push((dup, case.gradient("u")));
            }
            for (actual, expected) in results {
                let expected = expected.f64();
                assert_close(&case.name, actual, &expected, F64_BOUND);
                let [actual, expected] = [actual, &expected].map(|of| ordinary(of, &g));
                assert_close(&case.name, &actual, &expected, 1e-14);
            }
        }
    }
}

/// Two products side by side, the gate between them, and the product that follows.
#[test]
fn gated_mlp() {
    for case in cases("mlp", "swiglu") {
        let [rows, d, h] = ["N", "d", "h"].map(|size| case.number(size) as usize);
        let x = case.input("x").f64();
        let w_down = case.input("w_down").f64();
        let w = [case.input("w_gate").f64(), case.input("w_up").f64()].concat();
        let gate_up = matmul(&x, &w, Layout::NT, rows, 2 * h, d);
        let act = swiglu_forward(&gate_up, h);
        case.assert_output("y", &matmul(&act, &w_down, Layout::NT, rows, d, h));

        let dy = case.cotangent("y").f64();
        let down = matmul_backward(&act, &w_down, &dy, Layout::NT, (rows, d, h));
        let dgate_up = swiglu_backward(&gate_up, &down.da, h);
        let up = matmul_backward(&x, &w, &dgate_up, Layout::NT, (rows, 2 * h, d));
        case.assert_gradient("w_down", &down.db);
        case.assert_gradient("w_gate", &up.db[..h * d]);
        case.assert_gradient("w_up", &up.db[h * d..]);
        case.assert_gradient("x", &up.da);
    }
}

#[test]
fn rope() {
    for case in cases("rope", "") {
        let [batch, query, length, width] = case.input("x").shape[..] else {
            panic!("{}: x is not [B,H,T,D]", case.name)
        };
        // A sequence and head is a row with one query head, and a key and a value that are nothing.
        let heads = Heads {
            query: 1,
            key_value: 1,
            width,
        };
        let rows = |x: Vec<f64>| -> Vec<f64> {
            let padded = |head: &[f64]| [head, &vec![0.0; 2 * width]].concat();
            x.chunks_exact(width).flat_map(padded).collect()
        };
        let heads_of = |rows: Vec<f64>| -> Vec<f64> {
            let rows = rows.chunks_exact(3 * width);
            rows.flat_map(|row| row[..width].to_vec()).collect()
        };
        let of_batch = case.input("pos").u32();
        let of_batch = of_batch.chunks_exact(length);
        let positions: Vec<u32> = of_batch.flat_map(|of| of.repeat(query)).collect();
        assert_eq!(positions.len(), batch * query * length);
        let exponent = |i: usize| -2.0 * i as f64 / width as f64;
        let theta = case.number("theta");
        let frequencies: Vec<f64> = (0..width / 2).map(|i| theta.powf(exponent(i))).collect();
        let x = rows(case.input("x").f64());
        let y = rope_forward(&x, &positions, heads, &frequencies, 1.0);
        case.assert_output("y", &heads_of(y));
        let dy = rows(case.cotangent("y").f64());
        let dx = rope_backward(&dy, &positions, heads, &frequencies, 1.0);
        case.assert_gradient("x", &heads_of(dx));
    }
}

/// Matmul, bias and GELU put together.
#[test]
fn mlp() {
    for case in cases("mlp", "gpt2") {
        let [rows, d, h] = ["N", "d", "h"].map(|size| case.number(size) as usize);
        let [x, w_fc, w_proj] = ["x", "w_fc", "w_proj"].map(|name| case.input(name).f64());
        let mut fc = matmul(&x, &w_fc, Layout::NN, rows, h, d);
        add_bias(&mut fc, &case.input("b_fc").f64());
        let gelu = gelu_forward(&fc, Gelu::Tanh);
        let mut y = matmul(&gelu, &w_proj, Layout::NN, rows, d, h);
        add_bias(&mut y, &case.input("b_proj").f64());
        case.assert_output("y", &y);

        let dy = case.cotangent("y").f64();
        let proj = matmul_backward(&gelu, &w_proj, &dy, Layout::NN, (rows, d, h));
        let dfc = gelu_backward(&fc, &proj.da, Gelu::Tanh);
        let fc = matmul_backward(&x, &w_fc, &dfc, Layout::NN, (rows, h, d));
        case.assert_gradient("w_proj", &proj.db);
        case.assert_gradient("b_proj", &bias_gradient(&dy, d));
        case.assert_gradient("w_fc", &fc.db);
        case.assert_gradient("b_fc", &bias_gradient(&dfc, h));
        case.assert_gradient("x", &fc.da);
    }
}

#[test]
fn layer_norm() {
    for case in cases("norm", "layernorm") {
        let [x, w, b] = ["x", "w", "b"].map(|name| case.input(name).f64());
        let out = layer_norm_forward(&x, &w, &b, case.number("eps"));
        case.assert_output("y", &out.y);
        let dy = case.cotangent("y").f64();
        let gradients = layer_norm_backward(&x, &w, &out.mean, &out.rstd, &dy);
        case.assert_gradient("x", &gradients.dx);
        if w.len() == 1 {
            // A row of one element normalises to zero: PyTorch's figure is its rounding error.
            assert!(gradients.dweight[0].abs() < 1e-14, "{}", case.name);
        } else {
            case.assert_gradient("w", &gradients.dweight);
        }
        case.assert_gradient("b", &gradients.dbias);
    }
}

#[test]
fn rms_norm() {
    for case in cases("norm", "rmsnorm") {
        let [x, w] = ["x", "w"].map(|name| case.input(name).f64());
        let out = rms_norm_forward(&x, &w, case.number("eps"));
        case.assert_output("y", &out.y);
        let dy = case.cotangent("y").f64();
        let gradients = rms_norm_backward(&x, &w, &out.rstd, &dy);
        case.assert_gradient("x", &gradients.dx);
        case.assert_gradient("w", &gradients.dweight);
    }
}

#[test]
fn qk_norm() {
    for case in cases("norm", "qknorm") {
        let [query, key_value, width] = ["H", "G", "D"].map(|name| case.number(name) as usize);
        let heads = Heads {
            query,
            key_value,
            width,
        };
        let eps = case.number("eps");
        let [x, wq, wk] = ["x", "wq", "wk"].map(|name| case.input(name).f64());
        case.assert_output("y", &qk_norm_forward(&x, &wq, &wk, heads, eps));
        let dy = case.cotangent("y").f64();
        let gradients = qk_norm_backward(&x, &wq, &wk, heads, eps, &dy);
        case.assert_gradient("x", &gradients.dx);
        case.assert_gradient("wq", &gradients.dquery_weight);
        case.assert_gradient("wk", &gradients.dkey_weight);
    }
}

#[test]
fn token_embedding() {
    for case in cases("embedding", "") {
        let table = case.input("w");
        let (vocabulary, width) = (table.shape[0], table.shape[1]);
        let ids = case.input("ids").u32();
        let out = embedding_forward(&ids, &table.f64(), None, width);
        case.assert_output("y", &out);
        let dout = case.cotangent("y").f64();
        let dtable = embedding_backward(&ids, &dout, vocabulary, width);
        case.assert_gradient("w", &dtable);
    }
}

/// The cases start from logits, which come from hidden states here: so the hidden states are the
/// logits, and the head is the identity.
#[test]
fn cross_entropy_of_given_logits() {
    for case in cases("logprob", "plain") {
        let logits = case.input("logits");
        let vocabulary = logits.shape[1];
        let identity = identity(vocabulary);
        let dlogprobs = case.cotangent("logp").f64();
        let tokens = case.input("targets").u32();
        let targets: Vec<Target> = (0..)
            .zip(tokens)
            .zip(&dlogprobs)
            .map(|((row, token), dlogprob)| Target {
                row,
                token,
                weight: -dlogprob,
            })
            .collect();
        let out = cross_entropy(&logits.f64(), &identity, &targets, vocabulary, 1.0);
        case.assert_output("logp", &out.logprobs);
        case.assert_gradient("logits", &out.dhidden);
        let loss = dot(&out.logprobs, &dlogprobs);
        assert_close(&case.name, &[out.loss], &[loss], F64_BOUND);
    }
}

fn identity(size: usize) -> Vec<f64> {
    let mut identity = vec![0.0; size * size];
    identity.iter_mut().step_by(size + 1).for_each(|x| *x = 1.0);
    identity
}

#[test]
fn token_logprob_of_given_logits() {
    for case in ["N", "extreme", "all_masked"]
        .iter()
        .flat_map(|prefix| cases("logprob", prefix))
    {
        let logits = case.input("logits");
        let head = identity(logits.shape[1]);
        let sizes = (logits.shape[1], case.number("temperature"));
        let mask = case.input("mask").f64();
        let tokens = case.input("targets").u32();
        let target = |(row, token)| logprob::Target { row, token };
        let targets: Vec<_> = (0..).zip(tokens).map(target).collect();
        let logits = logits.f64();
        let figures = token_logprob_forward(&logits, &head, &targets, sizes.0, sizes.1);
        let masked = |figure: fn(&logprob::TokenLogprob) -> f64| -> Vec<f64> {
            let figures = figures.iter().zip(&mask);
            figures.map(|(of, mask)| figure(of) * mask).collect()
        };
        case.assert_output("logp", &masked(|of| of.logprob));
        case.assert_output("entropy", &masked(|of| of.entropy));
        let [dlogp, dentropy] = ["logp", "entropy"].map(|name| case.cotangent(name).f64());
        let incoming = mask.iter().zip(dlogp.iter().zip(&dentropy));
        let gradients: Vec<_> = incoming
            .map(|(mask, (dlogprob, dentropy))| TokenGradient {
                dlogprob: mask * dlogprob,
                dentropy: mask * dentropy,
            })
            .collect();
        let out = token_logprob_backward(&logits, &head, &targets, &gradients, sizes);
        case.assert_gradient("logits", &out.dhidden);
    }
}

#[test]
fn pooled_head() {
    for case in cases("value_head", "reward") {
        let hidden = case.input("hidden");
        let (batch, length) = (hidden.shape[0] as u32, hidden.shape[1] as u32);
        let pooled = (0..batch).zip(case.output("index").u32());
        let rows: Vec<u32> = pooled.map(|(b, index)| b * length + index).collect();
        let (hidden, w) = (hidden.f64(), case.input("w").f64());
        case.assert_output("reward", &pooled_head_forward(&hidden, &rows, &w, 0.0));
        let drewards = case.cotangent("reward").f64();
        let gradients = pooled_head_backward(&hidden, &rows, &w, &drewards);
        case.assert_gradient("hidden", &gradients.dhidden);
        case.assert_gradient("w", &gradients.dw);
    }
}

#[test]
fn pooled_head_with_a_bias_and_shared_rows() {
    for case in cases("value_head", "B") {
        let hidden = case.input("hidden");
        let (batch, length) = (hidden.shape[0] as u32, hidden.shape[1] as u32);
        // One answer pools at each sequence's row, and one more at every row, so that rows are
        // shared as they are by answers.
        let pooled = (0..batch).zip(case.output("index").u32());
        let mut rows: Vec<u32> = pooled.map(|(b, index)| b * length + index).collect();
        rows.extend(0..batch * length);
        let (hidden, w) = (hidden.f64(), case.input("w").f64());
        let rewards = pooled_head_forward(&hidden, &rows, &w, case.input("b").scalar());
        let (pooled, every) = rewards.split_at(batch as usize);
        case.assert_output("reward", pooled);
        case.assert_output("values", every);
        let mut drewards = case.cotangent("reward").f64();
        drewards.extend(case.cotangent("values").f64());
        let gradients = pooled_head_backward(&hidden, &rows, &w, &drewards);
        case.assert_gradient("hidden", &gradients.dhidden);
        case.assert_gradient("w", &gradients.dw);
        case.assert_gradient("b", &[gradients.db]);
    }
}

#[test]
fn pairwise_loss_of_bradley_terry() {
    for case in cases("bradley_terry", "") {
        let [chosen, rejected, margin] = ["rc", "rr", "margin"].map(|name| case.input(name).f64());
        let count = chosen.len() as f64;
        let rewards: Vec<f64> = chosen
            .iter()
            .zip(&rejected)
            .flat_map(|(c, r)| [*c, *r])
            .collect();
        let pairs: Vec<Pair> = margin
            .iter()
            .map(|&margin| Pair {
                weight: 1.0,
                margin,
            })
            .collect();
        let options = PairwiseLossOptions {
            label_smoothing: case.number("label_smoothing"),
            centering: case.number("center_rewards_coefficient"),
            pair_scale: 1.0 / count,
        };
        let out = pairwise_loss(&rewards, &pairs, &options);
        case.assert_output("loss", &[out.statistics.loss]);
        case.assert_output("accuracy", &[out.statistics.correct / count]);
        // Gaps of both signs cancel, so the error is measured by the largest of them.
        let gaps = chosen.iter().zip(&rejected).map(|(c, r)| (c - r).abs());
        let largest = gaps.fold(0.0, f64::max);
        let mean_gap = out.statistics.gap_sum / count;
        let error = (mean_gap - case.output("margin").scalar()).abs();
        assert!(error <= F64_BOUND * largest, "{}: {error:e}", case.name);
        let side = |side: usize| -> Vec<f64> {
            out.drewards.iter().skip(side).step_by(2).copied().collect()
        };
        case.assert_gradient("rc", &side(0));
        case.assert_gradient("rr", &side(1));
        let mean = out.losses.iter().sum::<f64>() / count;
        assert_close(&case.name, &[mean], &[out.statistics.loss], F64_BOUND);
    }
}

#[test]
fn adamw_with_clipping() {
    for case in cases("adamw", "") {
        let steps = case.number("steps") as usize;
        let mut params: Vec<Vec<f64>> = Vec::new();
        while case.has_input(&format!("p{}", params.len())) {
            params.push(case.input(&format!("p{}", params.len())).f64());
        }
        let mut m: Vec<Vec<f64>> = params.iter().map(|p| vec![0.0; p.len()]).collect();
        let mut v = m.clone();
        for step in 0..steps {
            let gradients: Vec<Vec<f64>> = (0..params.len())
                .map(|i| case.input(&format!("g{step}_{i}")).f64())
                .collect();
            let views: Vec<&[f64]> = gradients.iter().map(Vec::as_slice).collect();
            let norm = global_norm(&views);
            case.assert_output(&format!("norm{step}"), &[norm]);
            let max_norm = case.attribute("max_grad_norm").unwrap_or(f64::INFINITY);
            let options = AdamW {
                lr: case.number("lr"),
                beta1: case.number("beta1"),
                beta2: case.number("beta2"),
                eps: case.number("eps"),
                weight_decay: case.number("weight_decay"),
                step: step as i32 + 1,
                gradient_scale: clip_coefficient(norm, max_norm),
            };
            for i in 0..params.len() {
                adamw(
                    &options,
                    &mut params[i],
                    &gradients[i],
                    &mut m[i],
                    &mut v[i],
                );
                if step == 0 || step == steps - 1 {
                    case.assert_output(&format!("p{i}_step{}", step + 1), &params[i]);
                }
            }
        }
        for i in 0..params.len() {
            case.assert_output(&format!("m{i}"), &m[i]);
            case.assert_output(&format!("v{i}"), &v[i]);
        }
    }
}
