//! What the tests of whole models share.

use std::sync::OnceLock;

use prefgrad::Gpu;
use prefgrad::data::{Batch, PackOptions, Preference, TokenRecord, pack_all};
use prefgrad::kernels::preference::pairwise_loss::PairwiseLossOptions;
use prefgrad::model::{Gpt2Config, ModelConfig, Parameters, RewardModel};
use prefgrad::train::capacity_for;

/// One device for the whole test binary.
pub fn gpu() -> &'static Gpu {
    static GPU: OnceLock<Gpu> = OnceLock::new();
    GPU.get_or_init(|| Gpu::new().expect("the tests need a GPU or the software driver"))
}

/// A pair whose first answer is chosen.
pub fn pair(prompt: &[u32], chosen: &[u32], rejected: &[u32]) -> TokenRecord {
    TokenRecord {
        line: 1,
        prompt: prompt.to_vec(),
        answers: vec![chosen.to_vec(), rejected.to_vec()],
        preferences: vec![Preference {
            chosen: 0,
            rejected: 1,
            weight: 1.0,
            margin: 0.0,
        }],
    }
}

/// One batch of all records, with every pair's loss scaled to the mean.
pub fn batch(model: &RewardModel, records: &[TokenRecord], options: PackOptions) -> Batch {
    let mut batches = pack_all(records, model.capacity(), options).unwrap();
    assert_eq!(batches.len(), 1, "one batch holds the records");
    let mut batch = batches.remove(0);
    batch.counts.pair_scale = 1.0 / batch.pairs.len().max(1) as f32;
    let weights: f32 = batch.targets.iter().map(|t| t.weight).sum();
    batch.counts.target_scale = 1.0 / weights.max(1.0);
    batch
}

/// Options of a batch of pairs for this model.
pub fn pairs(config: &ModelConfig) -> PackOptions {
    PackOptions {
        pad_token_id: config.pad_token_id,
        ..PackOptions::default()
    }
}

/// A small model with random weights, to train.
pub fn small_model(
    vocab_size: usize,
    pad_token_id: Option<u32>,
    with_targets: bool,
) -> RewardModel {
    let config: ModelConfig = Gpt2Config {
        vocab_size,
        n_positions: 64,
        n_embd: 32,
        n_layer: 2,
        n_head: 2,
        n_inner: None,
        layer_norm_epsilon: 1e-5,
        eos_token_id: Some(1),
        pad_token_id,
        tie_word_embeddings: true,
    }
    .into();
    let capacity = capacity_for(512, with_targets);
    let loss = PairwiseLossOptions::default();
    let model = RewardModel::to_train(gpu(), &config, capacity, &loss).unwrap();
    model.parameters().initialise(gpu(), 7).unwrap();
    spread(model.parameters());
    model
}

/// Makes random weights larger: starting values of 0.02 hide mistakes behind small numbers.
pub fn spread(parameters: &Parameters) {
    for (spec, values) in parameters.read_weights(gpu()).unwrap() {
        let values = values.iter().enumerate();
        let spread: Vec<f32> = values
            .map(|(i, x)| match spec.decay {
                true => x * 6.0,
                false => x + 0.1 * (i as f32 * 0.7).sin(),
            })
            .collect();
        parameters.write(gpu(), &spec.name, &spread).unwrap();
    }
}

/// Largest difference of two tensors, relative to the second's largest value.
pub fn difference(actual: &[f32], expected: &[f32]) -> f64 {
    let wide: Vec<f64> = expected.iter().map(|&x| f64::from(x)).collect();
    prefgrad::reference::compare::relative_error(actual, &wide)
}
