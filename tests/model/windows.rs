//! A token table over the device's binding limit, bound in windows: as GPT-2's 147 MiB is on a
//! device with 128 MiB.

use prefgrad::data::{PackOptions, Targets, TokenRecord};
use prefgrad::kernels::preference::pairwise_loss::PairwiseLossOptions;
use prefgrad::model::{Gpt2Config, ModelConfig, RewardModel};
use prefgrad::train::{AdamW, Optimizer, capacity_for};
use prefgrad::{Gpu, GpuOptions};

use crate::tools::{batch, difference, gpu, pair};

const LIMIT: u64 = 128 << 10;

/// A device whose bindings hold 128 KiB.
pub fn narrow_gpu() -> Gpu {
    let (device, queue) = pollster::block_on(async {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
        let adapter = instance.request_adapter(&Default::default()).await.unwrap();
        let limits = wgpu::Limits {
            max_storage_buffer_binding_size: LIMIT,
            ..Default::default()
        };
        let descriptor = wgpu::DeviceDescriptor {
            required_limits: limits,
            ..Default::default()
        };
        adapter.request_device(&descriptor).await.unwrap()
    });
    Gpu::from_device(device, queue, GpuOptions::default())
}

/// Gradients by name, and weights after one update.
type Outcome = Vec<(String, Vec<f32>)>;

fn train(gpu: &Gpu) -> (RewardModel, Outcome) {
    let config: ModelConfig = Gpt2Config {
        vocab_size: 2001,
        n_positions: 32,
        n_embd: 32,
        n_layer: 1,
        n_head: 2,
        n_inner: None,
        layer_norm_epsilon: 1e-5,
        eos_token_id: None,
        pad_token_id: None,
        tie_word_embeddings: true,
    }
    .into();
    let loss = PairwiseLossOptions::default();
    let model = RewardModel::to_train(gpu, &config, capacity_for(96, true), &loss).unwrap();
    model.parameters().initialise(gpu, 5).unwrap();
    // Tokens of every window, the last one included.
    let ids = |first: u32| -> Vec<u32> { (0..12).map(|i| (first + 181 * i) % 2001).collect() };
    let records: Vec<TokenRecord> = vec![
        pair(&ids(0), &ids(1990), &[2000, 7]),
        pair(&[], &ids(400), &[1999]),
    ];
    let options = PackOptions {
        with_pairs: false,
        targets: Targets::All,
        ..PackOptions::default()
    };
    model
        .accumulate_language(&batch(&model, &records, options))
        .unwrap();
    model
        .accumulate(&batch(&model, &records, PackOptions::default()))
        .unwrap();
    let named = |values: Vec<(&prefgrad::model::ParameterSpec, Vec<f32>)>| -> Outcome {
        values
            .into_iter()
            .map(|(spec, values)| (spec.name.clone(), values))
            .collect()
    };
    let mut outcome = named(model.parameters().read_gradients(gpu).unwrap());
    let mut optimizer = Optimizer::new(gpu, model.parameters(), AdamW::default()).unwrap();
    optimizer.step(1e-3).unwrap();
    outcome.extend(named(model.parameters().read_weights(gpu).unwrap()));
    (model, outcome)
}

#[test]
fn a_table_in_windows_trains_as_a_whole_one_does() {
    let (whole, expected) = train(gpu());
    let table = |model: &RewardModel| {
        model
            .parameters()
            .windows("transformer.wte.weight")
            .unwrap()
            .len()
    };
    assert_eq!(table(&whole), 1);
    let (windowed, actual) = train(&narrow_gpu());
    assert!(table(&windowed) > 1);
    assert_eq!(actual.len(), expected.len());
    for ((name, actual), (_, expected)) in actual.iter().zip(&expected) {
        // The key's bias has no gradient in theory: Adam turns its rounding noise into steps.
        if name.ends_with("attn.c_attn.bias") {
            continue;
        }
        let error = difference(actual, expected);
        assert!(error < 1e-5, "{name}: {error:e}");
    }
}
