//! Log-probabilities and entropies of tokens: PyTorch's figures, finite differences in the middle
//! of a graph, the same bits in any company, and what is refused.

use prefgrad::check::values;
use prefgrad::data::batch::{NONE, RowList, Target};
use prefgrad::kernels::nn::matmul::Layout;
use prefgrad::kernels::policy::token_logprob::{
    HeadWindow, TokenLogprobBackwardIo, TokenLogprobIo, token_logprob_backward,
    token_logprob_forward,
};
use prefgrad::kernels::policy::{TokenGradient, TokenLogprob};
use prefgrad::reference::gradient::numerical_gradient;
use prefgrad::reference::nn::matmul as reference_matmul;
use prefgrad::reference::policy::token_logprob as reference;
use prefgrad::{Error, Gpu, Plan, Tensor};

use crate::gpu::{gpu, gpu_without_subgroups};
use crate::support::golden::{Case, cases};
use crate::tools::{assert_values, product};

struct Setup {
    gpu: Gpu,
    hidden: Tensor,
    targets: Tensor,
    lists: Tensor,
    gradients: Tensor,
    dhidden: Tensor,
    /// Weight, gradient and first row of each window.
    windows: Vec<(Tensor, Tensor, usize)>,
    gathered: Tensor,
    logits: Tensor,
    logprobs: Tensor,
    dgathered: Tensor,
    temperature: f32,
}

impl Setup {
    /// `windows` are the rows of each window of the head.
    fn new(
        gpu: &Gpu,
        hidden: &[f32],
        head: &[f32],
        targets: &[Target],
        (windows, chunk, temperature): (&[usize], usize, f32),
    ) -> Self {
        let vocab: usize = windows.iter().sum();
        let width = head.len() / vocab;
        let tokens = hidden.len() / width;
        let mut first_row = 0;
        let mut parts = Vec::new();
        for &rows in windows {
            let part = &head[first_row * width..(first_row + rows) * width];
            let weight = Tensor::from_slice(gpu, "head", &[rows, width], part).unwrap();
            let dweight = Tensor::zeros::<f32>(gpu, "dhead", &[rows, width]).unwrap();
            parts.push((weight, dweight, first_row));
            first_row += rows;
        }
        let n = targets.len();
        let lists = lists(targets);
        let zeros = |label: &str, shape: &[usize]| Tensor::zeros::<f32>(gpu, label, shape).unwrap();
        Self {
            gpu: gpu.clone(),
            hidden: Tensor::from_slice(gpu, "hidden", &[tokens, width], hidden).unwrap(),
            targets: Tensor::from_slice(gpu, "targets", &[n], targets).unwrap(),
            lists: Tensor::from_slice(gpu, "lists", &[lists.len()], &lists).unwrap(),
            gradients: Tensor::from_slice(gpu, "gradients", &[n], &gradients(n)).unwrap(),
            dhidden: zeros("dhidden", &[tokens, width]),
            windows: parts,
            gathered: zeros("gathered", &[chunk, width]),
            logits: zeros("logits", &[chunk, vocab.next_multiple_of(4)]),
            logprobs: Tensor::zeros::<TokenLogprob>(gpu, "logprobs", &[n]).unwrap(),
            dgathered: zeros("dgathered", &[n, width]),
            temperature,
        }
    }

    fn head(&self) -> Vec<HeadWindow<'_>> {
        let windows = self.windows.iter();
        windows
            .map(|(weight, dweight, first_row)| HeadWindow {
                weight,
                dweight: Some(dweight),
                first_row: *first_row,
            })
            .collect()
    }

    fn io<'a>(&'a self, head: &'a [HeadWindow<'a>]) -> TokenLogprobBackwardIo<'a> {
        TokenLogprobBackwardIo {
            forward: TokenLogprobIo {
                hidden: &self.hidden,
                head_windows: head,
                targets: &self.targets,
                gathered: &self.gathered,
                logits: &self.logits,
                logprobs: &self.logprobs,
                counts: None,
            },
            gradients: &self.gradients,
            target_lists: &self.lists,
            dgathered: &self.dgathered,
            dhidden: &self.dhidden,
        }
    }

    fn push(&self, plan: &mut Plan) {
        let head = self.head();
        let io = self.io(&head);
        token_logprob_forward(plan, &io.forward, self.temperature).unwrap();
        token_logprob_backward(plan, &io, self.temperature).unwrap();
    }

    fn run(&self) {
        let mut plan = Plan::new(&self.gpu);
        self.push(&mut plan);
        plan.submit();
    }

    fn figures(&self) -> Vec<TokenLogprob> {
        self.logprobs.read(&self.gpu).unwrap()
    }

    fn dhidden(&self) -> Vec<f32> {
        self.dhidden.read(&self.gpu).unwrap()
    }

    fn dhead(&self) -> Vec<f32> {
        let windows = self.windows.iter();
        windows
            .flat_map(|(_, dweight, _)| dweight.read::<f32>(&self.gpu).unwrap())
            .collect()
    }
}

fn lists(targets: &[Target]) -> Vec<RowList> {
    let mut lists: Vec<RowList> = Vec::new();
    for (n, target) in (0..).zip(targets) {
        match lists.last_mut() {
            Some(list) if list.id == target.row => list.end = n + 1,
            _ => lists.push(RowList {
                id: target.row,
                start: n,
                end: n + 1,
                pad: 0,
            }),
        }
    }
    lists
}

fn gradients(count: usize) -> Vec<TokenGradient> {
    let values = values(9, 2 * count, 1.5);
    values
        .chunks_exact(2)
        .map(|pair| TokenGradient {
            dlogprob: pair[0],
            dentropy: pair[1],
        })
        .collect()
}

fn target(row: u32, token: u32) -> Target {
    Target {
        row,
        token,
        answer: NONE,
        weight: 1.0,
    }
}

/// Rows 0 and 4 predict several tokens, rows 2 and 5 none.
fn branching_targets() -> Vec<Target> {
    let pairs = [(0, 3), (0, 6), (0, 3), (1, 0), (3, 5), (4, 1), (4, 6)];
    pairs.map(|(row, token)| target(row, token)).into()
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&x| x.into()).collect()
}

fn identity(size: usize) -> Vec<f32> {
    let mut identity = vec![0.0; size * size];
    identity.iter_mut().step_by(size + 1).for_each(|x| *x = 1.0);
    identity
}

fn bits(figures: &[TokenLogprob]) -> Vec<[u32; 3]> {
    let bits = |of: &TokenLogprob| [of.logprob, of.entropy, of.lse].map(f32::to_bits);
    figures.iter().map(bits).collect()
}

/// The logits are inputs there: the hidden states under a head that changes nothing.
fn equals_pytorch_case(gpu: &Gpu, case: &Case) {
    let logits = case.input("logits");
    let vocab = logits.shape[1];
    let (mask, tokens) = (case.input("mask").f32(), case.input("targets").u32());
    let targets: Vec<Target> = (0..)
        .zip(tokens)
        .map(|(n, token)| target(n, token))
        .collect();
    let sizes = (
        &[vocab][..],
        targets.len(),
        case.number("temperature") as f32,
    );
    let setup = Setup::new(gpu, &logits.f32(), &identity(vocab), &targets, sizes);
    let (dlogp, dentropy) = (
        case.cotangent("logp").f32(),
        case.cotangent("entropy").f32(),
    );
    let gradients: Vec<TokenGradient> = (mask.iter().zip(dlogp.iter().zip(&dentropy)))
        .map(|(mask, (dlogprob, dentropy))| TokenGradient {
            dlogprob: mask * dlogprob,
            dentropy: mask * dentropy,
        })
        .collect();
    setup.gradients.write(gpu, &gradients).unwrap();
    setup.run();
    let figures = setup.figures();
    let masked = |figure: fn(&TokenLogprob) -> f32| -> Vec<f32> {
        let figures = figures.iter().zip(&mask);
        figures.map(|(of, mask)| figure(of) * mask).collect()
    };
    let name = |what: &str| format!("{} {what}", case.name);
    let [logp, entropy] = ["logp", "entropy"].map(|name| case.output(name).f64());
    assert_values(&name("logp"), &masked(|of| of.logprob), &logp);
    assert_values(&name("entropy"), &masked(|of| of.entropy), &entropy);
    let dlogits = case.gradient("logits").f64();
    assert_values(&name("dlogits"), &setup.dhidden(), &dlogits);
}

#[test]
fn equals_pytorch() {
    let cases: Vec<Case> = ["N", "extreme", "all_masked"]
        .iter()
        .flat_map(|prefix| cases("logprob", prefix))
        .collect();
    assert_eq!(cases.len(), 10);
    for gpu in [gpu(), gpu_without_subgroups()] {
        for case in &cases {
            equals_pytorch_case(gpu, case);
        }
    }
}

#[test]
fn gradients_through_a_product_equal_finite_differences() {
    let (tokens, width, vocab) = (6, 4, 7);
    let (x, w) = (
        values(1, tokens * width, 1.0),
        values(2, width * width, 1.0),
    );
    let head = values(3, vocab * width, 1.0);
    let targets = branching_targets();
    let gpu = gpu();
    // In chunks, and with the logits that the forward pass left.
    for chunk in [3, 7] {
        let temperature = 0.75;
        let sizes = (&[4, 3][..], chunk, temperature);
        let setup = Setup::new(gpu, &[0.0; 24], &head, &targets, sizes);
        let x_tensor = Tensor::from_slice(gpu, "x", &[tokens, width], &x).unwrap();
        let w_tensor = Tensor::from_slice(gpu, "w", &[width, width], &w).unwrap();
        let dx = Tensor::zeros::<f32>(gpu, "dx", &[tokens, width]).unwrap();
        let mut plan = Plan::new(gpu);
        product(&mut plan, Layout::Nn, [&x_tensor, &w_tensor, &setup.hidden]);
        setup.push(&mut plan);
        product(&mut plan, Layout::Nt, [&setup.dhidden, &w_tensor, &dx]);
        plan.submit();

        let (x, w, head) = (wide(&x), wide(&w), wide(&head));
        let loss = |x: &[f64], head: &[f64]| {
            let layout = reference_matmul::Layout::NN;
            let hidden = reference_matmul::matmul(x, &w, layout, tokens, width, width);
            weighted_figures(&hidden, head, width, temperature.into())
        };
        let expected = numerical_gradient(|x| loss(x, &head), &x, 1e-5);
        let dx: Vec<f32> = dx.read(gpu).unwrap();
        assert_values("dx", &dx, &expected);
        let expected = numerical_gradient(|head| loss(&x, head), &head, 1e-5);
        assert_values("dhead", &setup.dhead(), &expected);
    }
}

/// A loss whose gradients with respect to the figures are those of [`gradients`].
fn weighted_figures(hidden: &[f64], head: &[f64], width: usize, temperature: f64) -> f64 {
    let target = |target: &Target| reference::Target {
        row: target.row,
        token: target.token,
    };
    let targets: Vec<_> = branching_targets().iter().map(target).collect();
    let figures = reference::token_logprob_forward(hidden, head, &targets, width, temperature);
    let terms = figures.iter().zip(gradients(targets.len()));
    terms
        .map(|(of, gradient)| {
            f64::from(gradient.dlogprob) * of.logprob + f64::from(gradient.dentropy) * of.entropy
        })
        .sum()
}

#[test]
fn confident_predictions_keep_their_digits() {
    // One logit leads by 12 to 60: 1 - p is far below what f32 resolves next to 1. The entropy and
    // its gradient are as small where the token that came is another one.
    for gpu in [gpu(), gpu_without_subgroups()] {
        for lead in [12.0f32, 20.0, 60.0] {
            for token in [0, 2] {
                let head = [lead, 0.0, -1.0, 0.5, 0.25];
                let sizes = (&[5][..], 1, 1.0);
                let setup = Setup::new(gpu, &[1.0], &head, &[target(0, token)], sizes);
                let gradient = TokenGradient {
                    dlogprob: if token == 0 { 1.0 } else { 0.0 },
                    dentropy: 0.5,
                };
                setup.gradients.write(gpu, &[gradient]).unwrap();
                setup.run();
                let rest: f64 = wide(&head[1..])
                    .iter()
                    .map(|z| (z - f64::from(lead)).exp())
                    .sum();
                let slope: f64 = wide(&head[1..])
                    .iter()
                    .map(|z| z - f64::from(lead))
                    .map(|d| d.exp() * d)
                    .sum();
                let entropy = rest.ln_1p() - slope / (1.0 + rest);
                let figures = setup.figures()[0];
                assert_values("entropy", &[figures.entropy], &[entropy]);
                if token == 0 {
                    assert_values("logprob", &[figures.logprob], &[-rest.ln_1p()]);
                }
                let expected = reference::token_logprob_backward(
                    &[1.0],
                    &wide(&head),
                    &[reference::Target { row: 0, token }],
                    &[reference::TokenGradient {
                        dlogprob: gradient.dlogprob.into(),
                        dentropy: gradient.dentropy.into(),
                    }],
                    (1, 1.0),
                );
                assert_values("dhead", &setup.dhead(), &expected.dhead);
            }
        }
    }
}

#[test]
fn figures_have_the_same_bits_in_any_chunks_and_company() {
    let (tokens, width, vocab) = (40, 12, 301);
    let (hidden, head) = (
        values(1, tokens * width, 2.0),
        values(2, vocab * width, 1.0),
    );
    let all: Vec<Target> = (0..97)
        .map(|n| target(n * 40 / 97, (n * 53 + 7) % 301))
        .collect();
    for gpu in [gpu(), gpu_without_subgroups()] {
        let run = |targets: &[Target], windows: &[usize], chunk| {
            let sizes = (windows, chunk, 0.7);
            let setup = Setup::new(gpu, &hidden, &head, targets, sizes);
            setup.run();
            bits(&setup.figures())
        };
        let whole = run(&all, &[301], 97);
        for chunk in [1, 7, 32, 96, 200] {
            assert_eq!(run(&all, &[301], chunk), whole, "chunks of {chunk}");
        }
        assert_eq!(run(&all, &[100, 104, 97], 13), whole, "three windows");
        // Every third target alone, from another place on, in another chunk.
        let some: Vec<usize> = (5..97).step_by(3).collect();
        let few: Vec<Target> = some.iter().map(|&n| all[n]).collect();
        let expected: Vec<_> = some.iter().map(|&n| whole[n]).collect();
        assert_eq!(run(&few, &[301], 4), expected, "in other company");
        assert_eq!(run(&all[61..62], &[301], 1), whole[61..62], "alone");
    }
}

#[test]
fn windows_and_chunks_change_nothing_but_rounding() {
    let (hidden, head) = (values(1, 6 * 12, 1.0), values(2, 70 * 12, 1.0));
    let targets = branching_targets();
    let run = |windows: &[usize], chunk| {
        let setup = Setup::new(gpu(), &hidden, &head, &targets, (windows, chunk, 0.7));
        setup.run();
        (setup.dhidden(), setup.dhead())
    };
    let (dhidden, dhead) = run(&[70], 7);
    let (dhidden, dhead) = (wide(&dhidden), wide(&dhead));
    for (windows, chunk) in [
        (&[24, 26, 20][..], 7),
        (&[1, 2, 64, 3], 3),
        (&[70], 1),
        (&[70], 6),
        (&[70], 99),
    ] {
        let parts = run(windows, chunk);
        assert_values("dhidden", &parts.0, &dhidden);
        assert_values("dhead", &parts.1, &dhead);
    }
    let bits = |(a, b): (Vec<f32>, Vec<f32>)| {
        let all = a.into_iter().chain(b);
        all.map(f32::to_bits).collect::<Vec<_>>()
    };
    assert_eq!(bits(run(&[32, 38], 3)), bits(run(&[32, 38], 3)));
}

#[test]
fn a_frozen_head_and_gradients_that_add_up() {
    let (hidden, head) = (values(1, 24, 1.0), values(2, 28, 1.0));
    let sizes = (&[4, 3][..], 4, 1.0);
    let setup = Setup::new(gpu(), &hidden, &head, &branching_targets(), sizes);
    let mut frozen = setup.head();
    frozen[0].dweight = None;
    let mut plan = Plan::new(gpu());
    token_logprob_backward(&mut plan, &setup.io(&frozen), 1.0).unwrap();
    plan.submit();
    let once = setup.dhead();
    assert!(once[..16].iter().all(|&x| x == 0.0) && once[16..].iter().any(|&x| x != 0.0));
    let dhidden = setup.dhidden();
    plan.submit();
    let doubled: Vec<f64> = once.iter().map(|&x| 2.0 * f64::from(x)).collect();
    assert_values("dhead", &setup.dhead(), &doubled);
    assert_eq!(setup.dhidden(), dhidden);
}

#[test]
fn what_is_not_finite_shows() {
    for gpu in [gpu(), gpu_without_subgroups()] {
        for bad in [f32::NAN, f32::INFINITY] {
            for place in 0..9 {
                let mut head = values(1, 9, 1.0);
                head[place] = bad;
                let sizes = (&[9][..], 1, 1.0);
                let setup = Setup::new(gpu, &[1.0], &head, &[target(0, 4)], sizes);
                setup.run();
                let figures = setup.figures()[0];
                assert!(
                    !figures.logprob.is_finite() && !figures.entropy.is_finite(),
                    "{bad} at {place}: {figures:?}"
                );
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let sizes = (&[4, 3][..], 4, 1.0);
    let setup = Setup::new(gpu(), &[0.0; 24], &[0.0; 28], &branching_targets(), sizes);
    let mut plan = Plan::new(gpu());
    let head = setup.head();
    let io = setup.io(&head);
    let message = |result: Result<(), Error>| result.unwrap_err().to_string();
    for temperature in [0.0, -1.0, 1e-9, f32::NAN, f32::INFINITY] {
        let error = message(token_logprob_forward(&mut plan, &io.forward, temperature));
        assert!(error.contains("temperature"), "{error}");
        let error = message(token_logprob_backward(&mut plan, &io, temperature));
        assert!(error.contains("temperature"), "{error}");
    }
    let mut wrong = io;
    wrong.forward.head_windows = &head[..1];
    let error = message(token_logprob_forward(&mut plan, &wrong.forward, 1.0));
    assert!(error.contains("logits"), "{error}");
    wrong = io;
    wrong.forward.logprobs = &setup.dgathered;
    let error = message(token_logprob_forward(&mut plan, &wrong.forward, 1.0));
    assert!(error.contains("TokenLogprob"), "{error}");
    wrong = io;
    wrong.gradients = &setup.logprobs;
    let error = message(token_logprob_backward(&mut plan, &wrong, 1.0));
    assert!(error.contains("TokenGradient"), "{error}");
    wrong = io;
    wrong.dgathered = &setup.gathered;
    let error = message(token_logprob_backward(&mut plan, &wrong, 1.0));
    assert!(error.contains("dgathered"), "{error}");
    wrong = io;
    wrong.dhidden = &setup.dgathered;
    let error = message(token_logprob_backward(&mut plan, &wrong, 1.0));
    assert!(error.contains("dhidden"), "{error}");
    assert!(plan.is_empty());
}
