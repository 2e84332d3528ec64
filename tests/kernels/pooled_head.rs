//! The reward head: PyTorch's figures, and finite differences through head and loss.

use prefgrad::check::values;
use prefgrad::data::batch::{Answer, Pair, RowList};
use prefgrad::kernels::preference::pairwise_loss::{
    PairwiseLossIo, PairwiseLossOptions, pairwise_loss,
};
use prefgrad::kernels::preference::pooled_head::{
    PooledHeadBackwardIo, PooledHeadIo, pooled_head_backward, pooled_head_forward,
};
use prefgrad::reference::gradient::numerical_gradient;
use prefgrad::reference::preference::pairwise_loss as reference_loss;
use prefgrad::reference::preference::pooled_head as reference;
use prefgrad::{Error, Plan, Tensor};

use crate::gpu::gpu;
use crate::support::golden::cases;
use crate::tools::{assert_values, bits};

struct Setup {
    hidden: Tensor,
    w: Tensor,
    answers: Tensor,
    lists: Tensor,
    rows: Tensor,
    rewards: Tensor,
    drewards: Tensor,
    dhidden: Tensor,
    dw: Tensor,
}

impl Setup {
    fn new(hidden: &[f32], w: &[f32], pooled_rows: &[u32]) -> Self {
        let (width, count) = (w.len(), pooled_rows.len());
        let tokens = hidden.len() / width;
        let answers: Vec<Answer> = pooled_rows
            .iter()
            .map(|&pooled_row| Answer {
                pooled_row,
                ..Answer::default()
            })
            .collect();
        let (mut lists, mut rows) = (Vec::new(), Vec::new());
        for id in 0..tokens as u32 {
            let start = rows.len() as u32;
            rows.extend((0..count as u32).filter(|&a| pooled_rows[a as usize] == id));
            let end = rows.len() as u32;
            if start < end {
                lists.push(RowList {
                    id,
                    start,
                    end,
                    pad: 0,
                });
            }
        }
        let tensor = |label: &str, shape: &[usize], values: &[f32]| {
            Tensor::from_slice(gpu(), label, shape, values).unwrap()
        };
        Self {
            hidden: tensor("hidden", &[tokens, width], hidden),
            w: tensor("w", &[width], w),
            answers: Tensor::from_slice(gpu(), "answers", &[count], &answers).unwrap(),
            lists: Tensor::from_slice(gpu(), "lists", &[lists.len()], &lists).unwrap(),
            rows: Tensor::from_slice(gpu(), "rows", &[count], &rows).unwrap(),
            rewards: tensor("rewards", &[count], &vec![7.0; count]),
            drewards: tensor("drewards", &[count], &vec![7.0; count]),
            dhidden: tensor("dhidden", &[tokens, width], &vec![7.0; hidden.len()]),
            dw: tensor("dw", &[width], &vec![0.0; width]),
        }
    }

    fn forward(&self, plan: &mut Plan) -> Result<(), Error> {
        let io = PooledHeadIo {
            hidden: &self.hidden,
            w: &self.w,
            answers: &self.answers,
            rewards: &self.rewards,
            counts: None,
        };
        pooled_head_forward(plan, &io)
    }

    fn backward(&self, plan: &mut Plan) -> Result<(), Error> {
        let io = PooledHeadBackwardIo {
            hidden: &self.hidden,
            w: &self.w,
            answers: &self.answers,
            pooled_lists: &self.lists,
            pooled_rows: &self.rows,
            drewards: &self.drewards,
            dhidden: &self.dhidden,
            dw: &self.dw,
            counts: None,
        };
        pooled_head_backward(plan, &io)
    }
}

fn read(tensor: &Tensor) -> Vec<f32> {
    tensor.read(gpu()).unwrap()
}

#[test]
fn equals_pytorch() {
    for case in cases("value_head", "reward") {
        let hidden = case.input("hidden");
        let length = hidden.shape[1] as u32;
        let pooled = (0..).zip(case.output("index").u32());
        let rows: Vec<u32> = pooled.map(|(b, index)| b * length + index).collect();
        let setup = Setup::new(&hidden.f32(), &case.input("w").f32(), &rows);
        let drewards = case.cotangent("reward").f32();
        setup.drewards.write(gpu(), &drewards).unwrap();
        let mut plan = Plan::new(gpu());
        setup.forward(&mut plan).unwrap();
        setup.backward(&mut plan).unwrap();
        plan.submit();
        let name = |what: &str| format!("{} {what}", case.name);
        let reward = case.output("reward").f64();
        assert_values(&name("reward"), &read(&setup.rewards), &reward);
        let dhidden = case.gradient("hidden").f64();
        assert_values(&name("dhidden"), &read(&setup.dhidden), &dhidden);
        assert_values(&name("dw"), &read(&setup.dw), &case.gradient("w").f64());
    }
}

#[test]
fn gradients_through_head_and_loss_equal_finite_differences() {
    // Rows are shared: 2 serves three answers, 0 two.
    let rows = [2, 4, 0, 2, 5, 0, 2, 1];
    let (tokens, width) = (6, 5);
    let (hidden, w) = (values(1, tokens * width, 1.0), values(2, width, 1.0));
    let pairs: Vec<Pair> = (0..4)
        .map(|p| Pair {
            weight: 0.5 + p as f32,
            margin: 0.25 * p as f32,
        })
        .collect();
    let setup = Setup::new(&hidden, &w, &rows);
    let pairs_tensor = Tensor::from_slice(gpu(), "pairs", &[4], &pairs).unwrap();
    let losses = Tensor::zeros::<f32>(gpu(), "losses", &[4]).unwrap();
    let mut plan = Plan::new(gpu());
    setup.forward(&mut plan).unwrap();
    let io = PairwiseLossIo {
        rewards: &setup.rewards,
        pairs: &pairs_tensor,
        losses: &losses,
        drewards: &setup.drewards,
        counts: None,
    };
    let options = PairwiseLossOptions {
        label_smoothing: 0.125,
        center_rewards_coefficient: 0.0625,
        pair_scale: 0.375,
    };
    pairwise_loss(&mut plan, &io, &options).unwrap();
    setup.backward(&mut plan).unwrap();
    plan.submit();

    let pairs: Vec<_> = pairs
        .iter()
        .map(|pair| reference_loss::Pair {
            weight: pair.weight.into(),
            margin: pair.margin.into(),
        })
        .collect();
    let options = reference_loss::PairwiseLossOptions {
        label_smoothing: 0.125,
        centering: 0.0625,
        pair_scale: 0.375,
    };
    let loss = |hidden: &[f64], w: &[f64]| {
        let rewards = reference::pooled_head_forward(hidden, &rows, w, 0.0);
        reference_loss::pairwise_loss(&rewards, &pairs, &options)
            .statistics
            .loss
    };
    let wide = |values: &[f32]| values.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
    let (hidden, w) = (wide(&hidden), wide(&w));
    let dhidden = numerical_gradient(|x| loss(x, &w), &hidden, 1e-5);
    let dw = numerical_gradient(|x| loss(&hidden, x), &w, 1e-5);
    assert_values("dhidden", &read(&setup.dhidden), &dhidden);
    assert_values("dw", &read(&setup.dw), &dw);
}

#[test]
fn the_same_inputs_give_the_same_bits() {
    let rows: Vec<u32> = (0..100).map(|a| a * 7 % 13).collect();
    let setup = Setup::new(&values(1, 13 * 37, 1.0), &values(2, 37, 1.0), &rows);
    setup.drewards.write(gpu(), &values(3, 100, 1.0)).unwrap();
    let mut plan = Plan::new(gpu());
    setup.forward(&mut plan).unwrap();
    setup.backward(&mut plan).unwrap();
    let runs: Vec<_> = (0..3)
        .map(|_| {
            setup.dw.write(gpu(), &[0.5; 37]).unwrap();
            plan.submit();
            (
                bits(gpu(), &setup.rewards),
                bits(gpu(), &setup.dhidden),
                bits(gpu(), &setup.dw),
            )
        })
        .collect();
    assert!(runs.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn what_does_not_fit_is_refused() {
    let setup = Setup::new(&values(1, 12, 1.0), &values(2, 4, 1.0), &[0, 2]);
    let short = Tensor::zeros::<f32>(gpu(), "short", &[3]).unwrap();
    let mut plan = Plan::new(gpu());
    let io = PooledHeadIo {
        hidden: &setup.hidden,
        w: &short,
        answers: &setup.answers,
        rewards: &setup.rewards,
        counts: None,
    };
    let error = pooled_head_forward(&mut plan, &io).unwrap_err();
    assert!(error.to_string().contains("hidden"), "{error}");
    let io = PooledHeadIo {
        w: &setup.w,
        rewards: &short,
        ..io
    };
    let error = pooled_head_forward(&mut plan, &io).unwrap_err();
    assert!(error.to_string().contains("short"), "{error}");
    assert!(plan.is_empty());
}
