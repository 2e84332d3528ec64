//! Cross-entropy with its head: PyTorch's figures, finite differences through a product before it,
//! windows and chunks that change nothing, and what is refused.

use prefgrad::check::values;
use prefgrad::data::batch::{NONE, RowList, Target};
use prefgrad::kernels::Size;
use prefgrad::kernels::nn::cross_entropy::{
    CrossEntropyGradients, CrossEntropyIo, HeadWindow, cross_entropy,
};
use prefgrad::kernels::nn::matmul::{Layout, MatmulIo, MatmulSizes, matmul};
use prefgrad::reference::gradient::numerical_gradient;
use prefgrad::reference::nn::cross_entropy as reference;
use prefgrad::reference::nn::matmul as reference_matmul;
use prefgrad::{Error, Gpu, Plan, Tensor};

use crate::gpu::{gpu, gpu_without_subgroups};
use crate::support::golden::cases;
use crate::tools::assert_values;

struct Setup {
    gpu: Gpu,
    hidden: Tensor,
    targets: Tensor,
    lists: Tensor,
    dhidden: Tensor,
    /// Weight, gradient and first row of each window.
    windows: Vec<(Tensor, Tensor, usize)>,
    gathered: Tensor,
    logits: Tensor,
    logprobs: Tensor,
    dgathered: Tensor,
}

impl Setup {
    /// `windows` are the rows of each window of the head.
    fn new(
        gpu: &Gpu,
        hidden: &[f32],
        head: &[f32],
        targets: &[Target],
        (windows, chunk): (&[usize], usize),
    ) -> Self {
        let vocab: usize = windows.iter().sum();
        let width = head.len() / vocab;
        let tokens = hidden.len() / width;
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
        let zeros = |label: &str, shape: &[usize]| Tensor::zeros::<f32>(gpu, label, shape).unwrap();
        Self {
            gpu: gpu.clone(),
            hidden: Tensor::from_slice(gpu, "hidden", &[tokens, width], hidden).unwrap(),
            targets: Tensor::from_slice(gpu, "targets", &[n], targets).unwrap(),
            lists: Tensor::from_slice(gpu, "lists", &[lists.len()], &lists).unwrap(),
            dhidden: zeros("dhidden", &[tokens, width]),
            windows: parts,
            gathered: zeros("gathered", &[chunk, width]),
            logits: zeros("logits", &[chunk, vocab.next_multiple_of(4)]),
            logprobs: zeros("logprobs", &[n]),
            dgathered: zeros("dgathered", &[n, width]),
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

    fn push_with(&self, plan: &mut Plan, head: &[HeadWindow<'_>], scale: f32) -> Result<(), Error> {
        let io = CrossEntropyIo {
            hidden: &self.hidden,
            head_windows: head,
            targets: &self.targets,
            gathered: &self.gathered,
            logits: &self.logits,
            logprobs: &self.logprobs,
            gradients: Some(CrossEntropyGradients {
                target_lists: &self.lists,
                dgathered: &self.dgathered,
                dhidden: &self.dhidden,
            }),
            counts: None,
        };
        cross_entropy(plan, &io, scale)
    }

    fn push(&self, plan: &mut Plan, scale: f32) {
        self.push_with(plan, &self.head(), scale).unwrap();
    }

    fn run(&self, scale: f32) {
        let mut plan = Plan::new(&self.gpu);
        self.push(&mut plan, scale);
        plan.submit();
    }

    fn read(&self, tensor: &Tensor) -> Vec<f32> {
        tensor.read(&self.gpu).unwrap()
    }

    fn dhead(&self) -> Vec<f32> {
        let windows = self.windows.iter();
        windows
            .flat_map(|(_, dweight, _)| self.read(dweight))
            .collect()
    }
}

fn target(row: u32, token: u32, weight: f32) -> Target {
    Target {
        row,
        token,
        answer: NONE,
        weight,
    }
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&x| x.into()).collect()
}

/// Rows 0 and 4 predict several tokens, rows 2 and 5 none.
fn branching_targets() -> Vec<Target> {
    vec![
        target(0, 3, 0.5),
        target(0, 6, 2.0),
        target(0, 3, 1.0),
        target(1, 0, 1.5),
        target(3, 5, 0.0),
        target(4, 1, 0.75),
        target(4, 6, 1.25),
    ]
}

#[test]
fn equals_pytorch() {
    for gpu in [gpu(), gpu_without_subgroups()] {
        for case in cases("logprob", "plain") {
            let logits = case.input("logits");
            let vocab = logits.shape[1];
            let mut identity = vec![0.0; vocab * vocab];
            for v in 0..vocab {
                identity[v * vocab + v] = 1.0;
            }
            let dlogprobs = case.cotangent("logp").f32();
            let tokens = case.input("targets").u32();
            let targets: Vec<Target> = (0..)
                .zip(tokens)
                .zip(&dlogprobs)
                .map(|((row, token), dlogprob)| target(row, token, -dlogprob))
                .collect();
            let sizes = (&[vocab][..], targets.len());
            let setup = Setup::new(gpu, &logits.f32(), &identity, &targets, sizes);
            setup.run(1.0);
            let logprobs = setup.read(&setup.logprobs);
            assert_values(&case.name, &logprobs, &case.output("logp").f64());
            let dlogits = setup.read(&setup.dhidden);
            assert_values(&case.name, &dlogits, &case.gradient("logits").f64());
        }
    }
}

#[test]
fn gradients_through_a_product_and_the_loss_equal_finite_differences() {
    let (tokens, width, vocab) = (6, 4, 7);
    let (x, w) = (
        values(1, tokens * width, 1.0),
        values(2, width * width, 1.0),
    );
    let head = values(3, vocab * width, 1.0);
    let targets = branching_targets();
    let gpu = gpu();
    let setup = Setup::new(gpu, &[0.0; 24], &head, &targets, (&[4, 3], 3));
    let x_tensor = Tensor::from_slice(gpu, "x", &[tokens, width], &x).unwrap();
    let w_tensor = Tensor::from_slice(gpu, "w", &[width, width], &w).unwrap();
    let dx = Tensor::zeros::<f32>(gpu, "dx", &[tokens, width]).unwrap();
    let mut plan = Plan::new(gpu);
    let product = |plan: &mut Plan, a: &Tensor, out: &Tensor, layout: Layout| {
        let io = MatmulIo::whole(a, &w_tensor, out);
        let sizes = MatmulSizes {
            layout,
            m: Size::fixed(tokens),
            n: width,
            k: Size::fixed(width),
        };
        matmul(plan, &io, &sizes).unwrap();
    };
    product(&mut plan, &x_tensor, &setup.hidden, Layout::Nn);
    setup.push(&mut plan, 0.375);
    product(&mut plan, &setup.dhidden, &dx, Layout::Nt);
    plan.submit();

    let (x, w, head) = (wide(&x), wide(&w), wide(&head));
    let targets: Vec<_> = targets
        .iter()
        .map(|target| reference::Target {
            row: target.row,
            token: target.token,
            weight: target.weight.into(),
        })
        .collect();
    let loss = |x: &[f64], head: &[f64]| {
        let layout = reference_matmul::Layout::NN;
        let hidden = reference_matmul::matmul(x, &w, layout, tokens, width, width);
        reference::cross_entropy(&hidden, head, &targets, width, 0.375).loss
    };
    let expected = numerical_gradient(|x| loss(x, &head), &x, 1e-5);
    assert_values("dx", &setup.read(&dx), &expected);
    let expected = numerical_gradient(|head| loss(&x, head), &head, 1e-5);
    assert_values("dhead", &setup.dhead(), &expected);
}

#[test]
fn confident_predictions_keep_their_digits() {
    // The target's logit leads by 12 to 60: 1 - p is far below what f32 resolves next to 1.
    for gpu in [gpu(), gpu_without_subgroups()] {
        for lead in [12.0f32, 20.0, 60.0] {
            let head = [lead, 0.0, -1.0, 0.5, 0.25];
            let setup = Setup::new(gpu, &[1.0], &head, &[target(0, 0, 1.0)], (&[5], 1));
            setup.run(1.0);
            let others = wide(&head[1..]).into_iter();
            let odds: Vec<f64> = others.map(|z| (z - f64::from(lead)).exp()).collect();
            let rest: f64 = odds.iter().sum();
            let logprobs = setup.read(&setup.logprobs);
            // The exponential's own error grows with its argument.
            let error = (f64::from(logprobs[0]) / -rest.ln_1p() - 1.0).abs();
            assert!(error < 1e-5, "{lead}: {error:e}");
            let mut expected = vec![-rest / (1.0 + rest)];
            expected.extend(odds.iter().map(|odds| odds / (1.0 + rest)));
            assert_values("dhead", &setup.dhead(), &expected);
        }
    }
}

#[test]
fn windows_and_chunks_change_nothing_but_rounding() {
    let (tokens, width, vocab) = (6, 12, 70);
    let (hidden, head) = (
        values(1, tokens * width, 1.0),
        values(2, vocab * width, 1.0),
    );
    let targets = branching_targets();
    let run = |windows: &[usize], chunk| {
        let setup = Setup::new(gpu(), &hidden, &head, &targets, (windows, chunk));
        setup.run(0.5);
        [
            setup.read(&setup.logprobs),
            setup.read(&setup.dhidden),
            setup.dhead(),
        ]
    };
    let whole = run(&[70], 7);
    for (windows, chunk) in [
        (&[32, 38][..], 7),
        (&[1, 2, 64, 3], 3),
        (&[70], 1),
        (&[70], 99),
    ] {
        let parts = run(windows, chunk);
        for (part, whole) in parts.iter().zip(&whole) {
            assert_values("in parts", part, &wide(whole));
        }
    }
    let bits =
        |runs: [Vec<f32>; 3]| runs.map(|x| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>());
    assert_eq!(bits(run(&[32, 38], 3)), bits(run(&[32, 38], 3)));
}

#[test]
fn a_frozen_head_and_gradients_that_add_up() {
    let head = values(2, 7 * 4, 1.0);
    let targets = branching_targets();
    let hidden = values(1, 24, 1.0);
    let setup = Setup::new(gpu(), &hidden, &head, &targets, (&[4, 3], 4));
    let mut frozen = setup.head();
    frozen[0].dweight = None;
    let mut plan = Plan::new(gpu());
    setup.push_with(&mut plan, &frozen, 0.5).unwrap();
    plan.submit();
    let once = setup.dhead();
    assert!(once[..16].iter().all(|&x| x == 0.0) && once[16..].iter().any(|&x| x != 0.0));
    let dhidden = setup.read(&setup.dhidden);
    plan.submit();
    let doubled: Vec<f64> = once.iter().map(|&x| 2.0 * f64::from(x)).collect();
    assert_values("dhead", &setup.dhead(), &doubled);
    assert_eq!(setup.read(&setup.dhidden), dhidden);
}

#[test]
fn what_does_not_fit_is_refused() {
    let targets = branching_targets();
    let setup = Setup::new(gpu(), &[0.0; 24], &[0.0; 28], &targets, (&[4, 3], 4));
    let mut plan = Plan::new(gpu());
    let mut head = setup.head();
    head[1].first_row = 5;
    let error = setup.push_with(&mut plan, &head, 1.0).unwrap_err();
    assert!(error.to_string().contains("row 5, expected 4"), "{error}");
    let error = setup.push_with(&mut plan, &head[..1], 1.0).unwrap_err();
    assert!(error.to_string().contains("logits"), "{error}");
    let error = setup.push_with(&mut plan, &[], 1.0).unwrap_err();
    assert!(error.to_string().contains("no rows"), "{error}");
    let setup = Setup {
        dgathered: setup.gathered.clone(),
        ..setup
    };
    let error = setup.push_with(&mut plan, &setup.head(), 1.0).unwrap_err();
    assert!(error.to_string().contains("dgathered"), "{error}");
    assert!(plan.is_empty());
}
