//! Twenty updates of a small reward model, against PyTorch's losses.

use prefgrad::data::TokenRecord;
use prefgrad::kernels::preference::pairwise_loss::PairwiseLossOptions;
use prefgrad::model::{ModelConfig, RewardModel, load_weights};
use prefgrad::train::{AdamW, Optimizer, Schedule, capacity_for};
use serde_json::Value;

use crate::support::fixture;
use crate::tools::{batch, gpu, pair, pairs};

/// A loss within 1e-4 would not tell whether biases decay: 5e-6 does.
const BOUND: f64 = 5e-6;

#[test]
fn the_first_twenty_losses_equal_pytorch() {
    let Some(folder) = fixture("train20") else {
        return;
    };
    let json = |name: &str| -> Value {
        let text = std::fs::read_to_string(folder.join(name)).unwrap();
        serde_json::from_str(&text).unwrap()
    };
    let (steps, expected) = (json("steps.json"), json("expected.json"));
    let settings = &expected["settings"];
    let number = |name: &str| settings[name].as_f64().unwrap();
    let config = ModelConfig::read(&folder).unwrap();
    let loss = PairwiseLossOptions::default();
    let model = RewardModel::to_train(gpu(), &config, capacity_for(1024, false), &loss).unwrap();
    assert!(load_weights(gpu(), model.parameters(), &folder).unwrap());
    let options = AdamW {
        weight_decay: number("weight_decay"),
        max_grad_norm: number("max_grad_norm"),
        eps: number("eps"),
        ..AdamW::default()
    };
    let mut optimizer = Optimizer::new(gpu(), model.parameters(), options).unwrap();
    let schedule = Schedule {
        peak: number("peak"),
        floor: number("peak") * number("floor"),
        warmup: number("warmup") as u64,
        total: number("steps") as u64,
    };
    let steps = steps.as_array().unwrap();
    let mut largest = 0.0f64;
    assert_eq!(steps.len(), 20);
    for (index, step) in steps.iter().enumerate() {
        let ids = |value: &Value| -> Vec<u32> {
            let list = value.as_array().unwrap();
            list.iter().map(|id| id.as_u64().unwrap() as u32).collect()
        };
        let records: Vec<TokenRecord> = step
            .as_array()
            .unwrap()
            .iter()
            .map(|p| pair(&ids(&p["prompt"]), &ids(&p["chosen"]), &ids(&p["rejected"])))
            .collect();
        model
            .accumulate(&batch(&model, &records, pairs(&config)))
            .unwrap();
        optimizer
            .step(schedule.learning_rate(index as u64))
            .unwrap();
        let loss = f64::from(model.read_metrics().unwrap()[0][0]);
        let expected = expected["f64"]["loss"][index].as_f64().unwrap();
        largest = largest.max((loss - expected).abs());
        assert!(
            (loss - expected).abs() < BOUND,
            "step {index}: {loss} {expected}"
        );
    }
    println!("largest difference of a loss: {largest:.1e}");
}
