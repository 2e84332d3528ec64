//! Weight files of other types and in shards, into models and out of them.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use half::{bf16, f16};
use prefgrad::Gpu;
use prefgrad::data::TokenRecord;
use prefgrad::model::{
    Head, Init, ModelConfig, ParameterSpec, Parameters, Purpose, RewardModel, SaveOptions,
    WeightFiles, load_weights, model_parameters, save_language_model, save_reward_model,
};
use prefgrad::train::{capacity_for, score_records};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::support::checkpoint::{Checkpoint, load};
use crate::support::tensors::read;
use crate::tools::{gpu, pair};
use crate::windows::narrow_gpu;

const INDEX: &str = "model.safetensors.index.json";

/// A tensor's type, shape and bytes.
type Stored = (Dtype, Vec<usize>, Vec<u8>);

fn stored(checkpoint: &Checkpoint, of: impl Fn(f32) -> Vec<u8>, dtype: Dtype) -> Tensors {
    read(&checkpoint.folder.join("model.safetensors"))
        .iter()
        .map(|(name, array)| {
            let bytes = array.f32().into_iter().flat_map(&of).collect();
            (name.clone(), (dtype, array.shape.clone(), bytes))
        })
        .collect()
}

type Tensors = BTreeMap<String, Stored>;

fn write(tensors: &Tensors, path: &Path) {
    let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
        (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    safetensors::serialize_to_file(views, None, path).unwrap();
}

/// A copy of a checkpoint in `shards` files of other types.
fn copy(checkpoint: &Checkpoint, tensors: &Tensors, shards: usize) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    std::fs::copy(
        checkpoint.folder.join("config.json"),
        path.join("config.json"),
    )
    .unwrap();
    if shards == 1 {
        write(tensors, &path.join("model.safetensors"));
        return folder;
    }
    let mut map = HashMap::new();
    for shard in 0..shards {
        let file = format!("model-{:05}-of-{shards:05}.safetensors", shard + 1);
        let some: Tensors = tensors
            .iter()
            .skip(shard)
            .step_by(shards)
            .map(|(name, stored)| (name.clone(), stored.clone()))
            .collect();
        write(&some, &path.join(&file));
        map.extend(some.into_keys().map(|name| (name, file.clone())));
    }
    let index = serde_json::json!({"metadata": {}, "weight_map": map});
    std::fs::write(path.join(INDEX), index.to_string()).unwrap();
    folder
}

fn records(checkpoint: &Checkpoint) -> Vec<TokenRecord> {
    let sequences = checkpoint.sequences();
    let (chosen, rejected) = sequences.split_at(sequences.len() / 2);
    let pairs = chosen.iter().zip(rejected);
    pairs.map(|(c, r)| pair(&[], c, r)).collect()
}

/// What the model in a folder gives for the checkpoint's sequences.
fn rewards(checkpoint: &Checkpoint, folder: &Path) -> Vec<Vec<f32>> {
    let config = ModelConfig::read(folder).unwrap();
    let model = RewardModel::to_score(gpu(), &config, capacity_for(512, false)).unwrap();
    assert!(load_weights(gpu(), model.parameters(), folder).unwrap());
    score_records(&model, &records(checkpoint)).unwrap()
}

#[test]
fn shards_and_half_precision_give_the_rewards_of_their_values() {
    let Some(checkpoint) = load("gpt2_rm") else {
        return;
    };
    let exact = rewards(&checkpoint, &checkpoint.folder);
    let f32s = |round: fn(f32) -> f32| {
        stored(
            &checkpoint,
            move |x| round(x).to_le_bytes().into(),
            Dtype::F32,
        )
    };
    let folder = copy(&checkpoint, &f32s(|x| x), 3);
    assert_eq!(rewards(&checkpoint, folder.path()), exact);

    let to_f16 = |x| f16::from_f32(x).to_le_bytes().into();
    let to_bf16 = |x| bf16::from_f32(x).to_le_bytes().into();
    for (tensors, rounded) in [
        (
            stored(&checkpoint, to_f16, Dtype::F16),
            f32s(|x| f16::from_f32(x).to_f32()),
        ),
        (
            stored(&checkpoint, to_bf16, Dtype::BF16),
            f32s(|x| bf16::from_f32(x).to_f32()),
        ),
    ] {
        let expected = rewards(&checkpoint, copy(&checkpoint, &rounded, 1).path());
        assert_ne!(expected, exact);
        for shards in [1, 2] {
            let folder = copy(&checkpoint, &tensors, shards);
            assert_eq!(rewards(&checkpoint, folder.path()), expected);
        }
    }
}

#[test]
fn nothing_is_written_before_all_was_checked() {
    let Some(checkpoint) = load("gpt2_rm") else {
        return;
    };
    let mut tensors = stored(&checkpoint, |x| x.to_le_bytes().into(), Dtype::F32);
    let (dtype, shape, bytes) = tensors.get_mut("score.weight").unwrap();
    *dtype = Dtype::F64;
    bytes.resize(8 * shape[1], 0);
    let folder = copy(&checkpoint, &tensors, 1);
    let config = ModelConfig::read(folder.path()).unwrap();
    let specs = model_parameters(&config, &[Head::Score]);
    let parameters = Parameters::allocate(gpu(), specs, Purpose::Score).unwrap();
    let error = load_weights(gpu(), &parameters, folder.path()).unwrap_err();
    assert!(error.to_string().contains("`score.weight`"), "{error}");
    let weights = parameters.read_weights(gpu()).unwrap();
    assert!(
        weights
            .iter()
            .all(|(_, values)| values.iter().all(|&x| x == 0.0))
    );
}

#[test]
fn a_model_saved_in_shards_is_the_model() {
    let Some(checkpoint) = load("gpt2_rm") else {
        return;
    };
    let exact = rewards(&checkpoint, &checkpoint.folder);
    let config = ModelConfig::read(&checkpoint.folder).unwrap();
    let specs = model_parameters(&config, &[Head::Score]);
    let parameters = Parameters::allocate(gpu(), specs, Purpose::Score).unwrap();
    load_weights(gpu(), &parameters, &checkpoint.folder).unwrap();
    let weights = parameters.read(gpu(), |chunk| &chunk.weights).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for (max_shard_bytes, files) in [(u64::MAX, 1), (150_000, 4), (1, 29), (u64::MAX, 1)] {
        let options = SaveOptions { max_shard_bytes };
        options
            .save_reward_model(&parameters, &weights, &config, folder)
            .unwrap();
        let names = std::fs::read_dir(folder).unwrap();
        let names = names.map(|entry| entry.unwrap().path());
        let saved = names.filter(|path| path.extension().is_some_and(|end| end == "safetensors"));
        assert_eq!(saved.count(), files);
        assert_eq!(folder.join(INDEX).exists(), files > 1);
        assert_eq!(rewards(&checkpoint, folder), exact);
    }
}

#[test]
fn a_reward_model_takes_the_place_of_a_language_model() {
    let Some(checkpoint) = load("gpt2_rm") else {
        return;
    };
    let config = ModelConfig::read(&checkpoint.folder).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let allocate = |heads: &[Head]| {
        let parameters =
            Parameters::allocate(gpu(), model_parameters(&config, heads), Purpose::Score).unwrap();
        let weights = parameters.read(gpu(), |chunk| &chunk.weights).unwrap();
        (parameters, weights)
    };
    let (language, weights) = allocate(&[Head::Language, Head::Value]);
    save_language_model(&language, &weights, &config, folder).unwrap();
    assert!(
        WeightFiles::open(folder)
            .unwrap()
            .get("value_head.weight")
            .is_some()
    );
    assert!(folder.join("generation_config.json").exists());
    let (reward, weights) = allocate(&[Head::Score]);
    save_reward_model(&reward, &weights, &config, folder).unwrap();
    let files = WeightFiles::open(folder).unwrap();
    assert!(files.get("value_head.weight").is_none() && files.get("score.weight").is_some());
    assert!(!folder.join("generation_config.json").exists());
}

/// Parameters of a table in several windows and a small one behind it.
fn split(gpu: &Gpu) -> Parameters {
    let spec = |name: &str, rows: usize| ParameterSpec {
        name: name.into(),
        shape: vec![rows, 64],
        decay: true,
        init: Init::Zeros,
        stack: None,
    };
    let specs = vec![
        spec("transformer.table", 1500),
        spec("transformer.small", 2),
    ];
    Parameters::allocate(gpu, specs, Purpose::Score).unwrap()
}

#[test]
fn a_range_is_written_across_windows() {
    let gpu = narrow_gpu();
    let parameters = split(&gpu);
    let windows = parameters.windows("transformer.table").unwrap();
    assert!(windows.len() >= 3);
    let len = 1500 * 64;
    let mut expected = vec![0.0f32; len];
    let second = windows[1].first_row * 64;
    for (first, count) in [
        (0, 3),
        (second - 2, 5),
        (10, len - 20),
        (len - 1, 1),
        (len, 0),
    ] {
        let values: Vec<f32> = (0..count).map(|i| (first + i) as f32 + 0.5).collect();
        parameters
            .write_range(&gpu, "transformer.table", first, &values)
            .unwrap();
        expected[first..first + count].copy_from_slice(&values);
        let read = parameters.read_weights(&gpu).unwrap();
        assert!(read[0].1 == expected);
        assert!(read[1].1.iter().all(|&x| x == 0.0));
    }
    for (first, count) in [(len, 1), (len - 1, 2), (usize::MAX, 2)] {
        let values = vec![0.0; count];
        let refused = parameters.write_range(&gpu, "transformer.table", first, &values);
        assert!(
            refused
                .unwrap_err()
                .to_string()
                .contains("transformer.table")
        );
    }
}

#[test]
fn a_split_table_is_loaded_and_saved_in_pieces() {
    let gpu = narrow_gpu();
    let parameters = split(&gpu);
    let values: Vec<f32> = (0..1500 * 64).map(|i| (i % 1999) as f32 / 8.0).collect();
    let halves = values.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes());
    let small: Vec<u8> = (0..128).flat_map(|i| (i as f32).to_le_bytes()).collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let tensors = Tensors::from([
        (
            "table".into(),
            (Dtype::F16, vec![1500, 64], halves.collect()),
        ),
        ("small".into(), (Dtype::F32, vec![2, 64], small)),
    ]);
    write(&tensors, &path);
    assert!(load_weights(&gpu, &parameters, folder.path()).unwrap());
    assert!(parameters.read_weights(&gpu).unwrap()[0].1 == values);

    let weights = parameters.read(&gpu, |chunk| &chunk.weights).unwrap();
    let config = crate::tools::small_model(8, None, false).config().clone();
    save_reward_model(&parameters, &weights, &config, folder.path()).unwrap();
    let files = WeightFiles::open(folder.path()).unwrap();
    assert!(files.get("transformer.table").unwrap().values().unwrap() == values);
}
