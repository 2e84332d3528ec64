//! What starts from rows of logits. The crate's functions make their own logits from hidden states
//! and a head, and go back to both; only the dispatches between are replayed, on logits that are
//! given.

use anyhow::{Context, Result};
use prefgrad::data::{NONE, RowList, Target};
use prefgrad::kernels::policy::ppo_loss::{PpoLossIo, PpoLossOptions, ppo_loss as push_ppo_loss};
use prefgrad::kernels::policy::token_logprob::{
    HeadWindow, TokenLogprobBackwardIo, TokenLogprobIo, token_logprob_backward,
    token_logprob_forward,
};
use prefgrad::kernels::policy::{
    Experience, KlControl, POLICY_METRICS, TokenGradient, TokenLogprob,
};
use prefgrad::{Gpu, Plan, Tensor};

use super::replay::Replay;
use crate::data::{LogitsData, PpoData};
use crate::digest::Digest;
use crate::rows::CLIP_RANGE;

/// Width of hidden states that are never read.
const WIDTH: usize = 4;

/// A language head whose products are left out.
struct LogitsHead {
    rows: usize,
    hidden: Tensor,
    head: Tensor,
    targets: Tensor,
    gathered: Tensor,
    logits: Tensor,
    logprobs: Tensor,
}

impl LogitsHead {
    fn new(gpu: &Gpu, data: &LogitsData) -> Result<Self> {
        let rows = data.targets.len();
        let vocab = data.logits.len() / rows;
        let zeros = |label, shape: &[usize]| Tensor::zeros::<f32>(gpu, label, shape);
        let target = |(row, &token)| Target {
            row,
            token,
            answer: NONE,
            weight: 1.0,
        };
        let targets: Vec<Target> = (0..).zip(&data.targets).map(target).collect();
        Ok(Self {
            rows,
            hidden: zeros("hidden", &[rows, WIDTH])?,
            head: zeros("head", &[vocab, WIDTH])?,
            targets: Tensor::from_slice(gpu, "targets", &[rows], &targets)?,
            gathered: zeros("gathered", &[rows, WIDTH])?,
            logits: Tensor::from_slice(gpu, "logits", &[rows, vocab], &data.logits)?,
            logprobs: Tensor::zeros::<TokenLogprob>(gpu, "logprobs", &[rows])?,
        })
    }

    fn window(&self) -> [HeadWindow<'_>; 1] {
        [HeadWindow {
            weight: &self.head,
            dweight: None,
            first_row: 0,
        }]
    }

    fn io<'a>(&'a self, window: &'a [HeadWindow<'a>]) -> TokenLogprobIo<'a> {
        TokenLogprobIo {
            hidden: &self.hidden,
            head_windows: window,
            targets: &self.targets,
            gathered: &self.gathered,
            logits: &self.logits,
            logprobs: &self.logprobs,
            counts: None,
        }
    }

    /// Log-probability, entropy and log-sum-exp of each row: the last dispatch of the function's.
    fn forward(&self, gpu: &Gpu) -> Result<(Plan, std::ops::Range<usize>)> {
        let mut plan = Plan::new(gpu);
        token_logprob_forward(&mut plan, &self.io(&self.window()), 1.0)?;
        let last = plan.len().checked_sub(1).context("an empty plan")?;
        let softmax = last..plan.len();
        Ok((plan, softmax))
    }

    /// The gradient of the logits in their place: the first dispatch of the function's.
    fn backward(&self, gpu: &Gpu, gradients: &Tensor) -> Result<(Plan, std::ops::Range<usize>)> {
        let row = |id| RowList {
            id,
            start: id,
            end: id + 1,
            pad: 0,
        };
        let lists: Vec<RowList> = (0..self.rows as u32).map(row).collect();
        let lists = Tensor::from_slice(gpu, "target lists", &[self.rows], &lists)?;
        let dgathered = Tensor::zeros::<f32>(gpu, "dgathered", &[self.rows, WIDTH])?;
        let dhidden = Tensor::zeros::<f32>(gpu, "dhidden", &[self.rows, WIDTH])?;
        let window = self.window();
        let io = TokenLogprobBackwardIo {
            forward: self.io(&window),
            gradients,
            target_lists: &lists,
            dgathered: &dgathered,
            dhidden: &dhidden,
        };
        let mut plan = Plan::new(gpu);
        token_logprob_backward(&mut plan, &io, 1.0)?;
        Ok((plan, 0..1))
    }
}

pub fn log_softmax(gpu: &Gpu) -> Result<Replay> {
    let head = LogitsHead::new(gpu, &LogitsData::for_log_softmax())?;
    let forward = head.forward(gpu)?;
    let read = move |gpu: &Gpu| {
        let rows: Vec<TokenLogprob> = head.logprobs.read(gpu)?;
        let logprobs: Vec<f32> = rows.iter().map(|row| row.logprob).collect();
        Ok(vec![Digest::of("logprobs", &logprobs)])
    };
    Ok(Replay::new(gpu, vec![forward], read))
}

pub fn ppo_loss(gpu: &Gpu) -> Result<Replay> {
    let data = PpoData::new();
    let head = LogitsHead::new(gpu, &data.now)?;
    let n = head.rows;
    let given = Tensor::from_slice(gpu, "given logits", head.logits.shape(), &data.now.logits)?;
    let experience = |(&logprob, &advantage): (&f32, &f32)| Experience {
        logprob,
        advantage,
        weight: 1.0,
        ..Experience::default()
    };
    let experience: Vec<Experience> = data
        .old
        .iter()
        .zip(&data.advantages)
        .map(experience)
        .collect();
    let zeros = |label, shape: &[usize]| Tensor::zeros::<f32>(gpu, label, shape);
    let metrics = zeros("metrics", &[1, POLICY_METRICS])?;
    let gradients = Tensor::zeros::<TokenGradient>(gpu, "gradients", &[n])?;
    let io = PpoLossIo {
        logprobs: &head.logprobs,
        experience: &Tensor::from_slice(gpu, "experience", &[n], &experience)?,
        values: &zeros("values", &[n])?,
        gradients: &gradients,
        dvalues: &zeros("dvalues", &[n])?,
        partials: &zeros("partials", &[n.div_ceil(64) * POLICY_METRICS])?,
        metrics: &metrics,
        kl_control: &Tensor::zeros::<KlControl>(gpu, "kl control", &[1])?,
        counts: None,
    };
    let options = PpoLossOptions {
        clip_range: CLIP_RANGE as f32,
        clip_range_value: None,
        vf_coef: 0.0,
        target_scale: 1.0 / n as f32,
        ..PpoLossOptions::default()
    };
    let mut loss = Plan::new(gpu);
    push_ppo_loss(&mut loss, &io, &options)?;
    let all = 0..loss.len();
    let parts = vec![
        head.forward(gpu)?,
        (loss, all),
        head.backward(gpu, &gradients)?,
    ];
    let logits = head.logits.clone();
    let read = move |gpu: &Gpu| {
        let figures: Vec<f32> = metrics.read(gpu)?;
        let loss = figures.first().copied().context("no figures")?;
        let dlogits: Vec<f32> = logits.read(gpu)?;
        Ok(vec![
            Digest::figure("loss", loss.into()),
            Digest::of("dlogits", &dlogits),
        ])
    };
    Ok(Replay::new(gpu, parts, read).restoring(given, head.logits))
}
