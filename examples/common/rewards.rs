//! Reward models as judges of a policy's answers.

use std::path::PathBuf;

use anyhow::{Result, bail};
use prefgrad::Gpu;
use prefgrad::model::{Finish, RewardModel, load_weights};
use prefgrad::train::{Reward, RewardEnsemble, Sample, capacity_for};

use crate::model_folder::{LoadedTokenizer, config_of};

/// A reward that can tell more of the answers it judged last than their rewards.
pub trait RolloutReward: Reward {
    /// Figures by name, such as `reward/spread`, always the same ones in the same order.
    fn figures(&self) -> Vec<(&'static str, f64)> {
        Vec::new()
    }
}

/// One or several reward models from their folders.
///
/// Models with the policy's own tokenizer read the policy's tokens. Otherwise answers are decoded
/// with their prompts and tokenised anew, with the end-of-text token where the answer ended by
/// itself; the special tokens of a chat template are lost on that way. What exceeds the models' context loses tokens from its left.
pub struct RewardJudge {
    ensemble: RewardEnsemble,
    /// The policy's tokenizer and the models', where they differ.
    translation: Option<(LoadedTokenizer, LoadedTokenizer)>,
    context: usize,
}

impl RewardJudge {
    /// Loads the models. With several, the reward is the mean less `pessimism` standard deviations.
    ///
    /// # Errors
    ///
    /// What a model's folder lacks, models of one ensemble with different tokenizers, and what
    /// the device reports.
    pub fn load(
        gpu: &Gpu,
        folders: &[PathBuf],
        pessimism: f32,
        policy: LoadedTokenizer,
        batch_tokens: usize,
    ) -> Result<Self> {
        let Some(first) = folders.first() else {
            bail!("no reward model is given");
        };
        let tokenizer = LoadedTokenizer::of_model(first)?;
        let mut context = usize::MAX;
        let mut models = Vec::new();
        for folder in folders {
            if !LoadedTokenizer::of_model(folder)?.is_same(&tokenizer)? {
                bail!(
                    "{} and {} have different tokenizers: reward models of one ensemble must share \
                     theirs",
                    first.display(),
                    folder.display()
                );
            }
            let config = config_of(folder, &*tokenizer)?;
            context = context.min(config.max_position_embeddings);
            let tokens = batch_tokens.max(config.max_position_embeddings);
            let model = RewardModel::to_score(gpu, &config, capacity_for(tokens, false))?;
            if !load_weights(gpu, model.parameters(), folder)? {
                bail!(
                    "{} has no reward head (`score.weight`): train one with train_reward",
                    folder.display()
                );
            }
            models.push(model);
        }
        let translation = match tokenizer.is_same(&policy)? {
            true => None,
            false => Some((policy, tokenizer)),
        };
        Ok(Self {
            ensemble: RewardEnsemble::new(models, pessimism)?,
            translation,
            context,
        })
    }

    /// Whether texts are tokenised anew for the models.
    pub fn retokenises(&self) -> bool {
        self.translation.is_some()
    }

    /// The longest text that the models read whole, in their tokens.
    pub fn context(&self) -> usize {
        self.context
    }

    /// The models.
    pub fn models(&self) -> &[RewardModel] {
        self.ensemble.models()
    }
}

impl Reward for RewardJudge {
    fn rewards(&mut self, samples: &[Sample<'_>]) -> prefgrad::Result<Vec<f32>> {
        let Some((from, to)) = &self.translation else {
            let context = self.context;
            let fitting: Vec<Sample<'_>> = samples.iter().map(|s| shortened(s, context)).collect();
            return self.ensemble.rewards(&fitting);
        };
        let texts = samples
            .iter()
            .map(|sample| translate(sample, from, to))
            .collect::<prefgrad::Result<Vec<Vec<u32>>>>()?;
        let whole: Vec<Sample<'_>> = texts
            .iter()
            .zip(samples)
            .map(|(tokens, sample)| Sample {
                prompt: &[],
                completion: &tokens[tokens.len().saturating_sub(self.context)..],
                finish: sample.finish,
            })
            .collect();
        self.ensemble.rewards(&whole)
    }
}

impl RolloutReward for RewardJudge {
    fn figures(&self) -> Vec<(&'static str, f64)> {
        match self.ensemble.models().len() {
            1 => Vec::new(),
            _ => vec![("reward/spread", self.ensemble.spread())],
        }
    }
}

/// The sample without what exceeds the context, from the left.
fn shortened<'a>(sample: &Sample<'a>, context: usize) -> Sample<'a> {
    let answer = sample.completion.len().min(context);
    let prompt = sample.prompt.len().min(context - answer);
    Sample {
        prompt: &sample.prompt[sample.prompt.len() - prompt..],
        completion: &sample.completion[sample.completion.len() - answer..],
        finish: sample.finish,
    }
}

/// Prompt and answer in the tokens of another tokenizer.
fn translate(
    sample: &Sample<'_>,
    from: &LoadedTokenizer,
    to: &LoadedTokenizer,
) -> prefgrad::Result<Vec<u32>> {
    let tokens = [sample.prompt, sample.completion].concat();
    let mut translated = to.encode_text(&from.text(&tokens))?;
    if sample.finish == Finish::Stop {
        translated.extend(to.eos_token_id());
    }
    Ok(translated)
}
