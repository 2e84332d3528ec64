//! Which token's hidden state becomes the reward: against `transformers` with pad = EOS, another
//! padding token, and none.

use prefgrad::data::TokenRecord;
use prefgrad::kernels::preference::pairwise_loss::PairwiseLossOptions;
use prefgrad::model::{ModelConfig, RewardModel, load_weights};
use prefgrad::reference::compare::relative_error;
use prefgrad::train::{capacity_for, score_records};
use serde_json::Value;

use crate::support::fixture;
use crate::tools::{gpu, pair};

fn ids(value: &Value) -> Vec<u32> {
    let list = value.as_array().unwrap();
    list.iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

#[test]
fn rewards_equal_transformers_for_every_kind_of_padding() {
    let (Some(cases), Some(folder)) = (fixture("pooling"), fixture("gpt2_rm")) else {
        return;
    };
    let text = std::fs::read_to_string(cases.join("cases.json")).unwrap();
    let cases: Value = serde_json::from_str(&text).unwrap();
    let configs = cases["configs"].as_array().unwrap();
    assert_eq!(configs.len(), 3);
    for case in configs {
        let config = ModelConfig {
            pad_token_id: case["pad_token_id"].as_u64().map(|id| id as u32),
            tie_word_embeddings: true,
            ..ModelConfig::read(&folder).unwrap()
        };
        let loss = PairwiseLossOptions::default();
        let model =
            RewardModel::to_train(gpu(), &config, capacity_for(1024, false), &loss).unwrap();
        load_weights(gpu(), model.parameters(), &folder).unwrap();
        let pairs = case["pairs"].as_array().unwrap();
        let records: Vec<TokenRecord> = pairs
            .iter()
            .map(|p| {
                let answer = |side: &str| ids(&p[side]["answer"]);
                pair(&ids(&p["prompt"]), &answer("chosen"), &answer("rejected"))
            })
            .collect();
        let rewards = score_records(&model, &records).unwrap();
        for (p, rewards) in pairs.iter().zip(&rewards) {
            let expected =
                ["chosen", "rejected"].map(|side| p[side]["reward_f64"].as_f64().unwrap());
            let error = relative_error(rewards, &expected);
            assert!(
                error < 1e-5,
                "{} {}: {rewards:?} {expected:?}",
                case["label"],
                p["name"]
            );
        }
    }
}
