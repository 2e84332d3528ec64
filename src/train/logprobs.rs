//! [`AnswerLogprobs`]: how likely a policy finds answers that are already there.

use crate::Result;
use crate::data::Batch;
use crate::gpu::{Plan, Tensor};
use crate::kernels::policy::TokenLogprob;
use crate::kernels::policy::sequence_logprob::{SequenceLogprobIo, sequence_logprob};
use crate::model::Policy;

/// A recorded forward pass of one policy, for batches with targets.
pub struct AnswerLogprobs {
    plan: Plan,
    /// (A)
    sums: Tensor,
}

impl AnswerLogprobs {
    /// Records the forward pass of `policy`.
    ///
    /// # Errors
    ///
    /// What the kernels refuse.
    pub fn new(policy: &Policy) -> Result<Self> {
        let (gpu, batch) = (policy.gpu(), policy.batch());
        let sums = Tensor::zeros::<f32>(gpu, "answer logprobs", &[batch.capacity.answers])?;
        let mut plan = Plan::new(gpu);
        policy.record_forward(&mut plan)?;
        let io = SequenceLogprobIo {
            answer_lists: &batch.answer_lists.lists,
            answer_rows: &batch.answer_lists.rows,
            logprobs: policy.logprobs(),
            sequence_logprobs: &sums,
            counts: Some(&batch.counts),
        };
        sequence_logprob(&mut plan, &io)?;
        Ok(Self { plan, sums })
    }

    /// The recorded plan.
    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The log-probability of every target of the batch, by the policy that was recorded.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Shape`] if the batch is too large, and what the device reports.
    pub fn of_targets(&self, policy: &Policy, batch: &Batch) -> Result<Vec<f32>> {
        policy.batch().upload(policy.gpu(), batch)?;
        self.plan.submit();
        let logprobs: Vec<TokenLogprob> = policy.logprobs().read(policy.gpu())?;
        let live = logprobs.iter().take(batch.targets.len());
        Ok(live.map(|token| token.logprob).collect())
    }

    /// The log-probabilities of every answer's tokens. Behind an empty prompt the first token has
    /// none: nothing predicts it.
    ///
    /// # Errors
    ///
    /// As [`AnswerLogprobs::of_targets`].
    pub fn of_tokens(&self, policy: &Policy, batch: &Batch) -> Result<Vec<Vec<f32>>> {
        let logprobs = self.of_targets(policy, batch)?;
        let answers = &batch.answer_lists;
        let of_list = |start: u32, end: u32| {
            let rows = &answers.rows[start as usize..end as usize];
            rows.iter().map(|&row| logprobs[row as usize]).collect()
        };
        let lists = answers.lists.iter();
        Ok(lists.map(|list| of_list(list.start, list.end)).collect())
    }

    /// The summed log-probability of every answer's tokens, added up as
    /// [`dpo_loss`](crate::kernels::policy::dpo_loss::dpo_loss) does; not a number where a token's
    /// is not finite.
    ///
    /// # Errors
    ///
    /// As [`AnswerLogprobs::of_targets`].
    pub fn of_answers(&self, policy: &Policy, batch: &Batch) -> Result<Vec<f32>> {
        let tokens = self.of_tokens(policy, batch)?;
        let sums: Vec<f32> = self.sums.read(policy.gpu())?;
        let answers = tokens.iter().zip(sums);
        // The kernel holds its summands within bounds, so its sum alone would not tell.
        Ok(answers
            .map(|(tokens, sum)| match tokens.iter().all(|t| t.is_finite()) {
                true => sum,
                false => f32::NAN,
            })
            .collect())
    }
}
