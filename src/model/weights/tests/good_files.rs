use half::{bf16, f16};
use proptest::prelude::*;
use safetensors::SafeTensors;

use super::*;

fn values(files: &WeightFiles, name: &str) -> Vec<f32> {
    files.get(name).unwrap().values().unwrap()
}

#[test]
fn shards_are_read_as_one_file_is() {
    let files = WeightFiles::from_bytes(sharded()).unwrap();
    let assigned = files.assign(&specs()).unwrap();
    let files: Vec<&str> = assigned
        .iter()
        .flatten()
        .map(|tensor| tensor.file)
        .collect();
    assert_eq!(files, ["1.safetensors", "2.safetensors"]);
    let read: Vec<Vec<f32>> = assigned
        .iter()
        .flatten()
        .map(|t| t.values().unwrap())
        .collect();
    assert_eq!(read[0], [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(read[1], [10.0, 11.0, 12.0, 13.0]);
}

#[test]
fn one_file_counts_more_than_an_index() {
    let mut files = sharded();
    files.push(named(
        MODEL_FILE,
        safetensors(&[f32s("transformer.a.weight", [2, 3], 7.0)]),
    ));
    let files = WeightFiles::from_bytes(files).unwrap();
    assert_eq!(values(&files, "transformer.a.weight")[0], 7.0);
    assert!(files.get("transformer.b.weight").is_none());
}

#[test]
fn names_may_lack_their_first_part() {
    for prefix in ["transformer.", "model."] {
        let specs = [
            spec("score.weight", [1, 4]),
            spec(&format!("{prefix}h.0.attn.c_attn.weight"), [1, 4]),
            spec(&format!("{prefix}norm.weight"), [2, 2]),
        ];
        for written in ["", prefix] {
            let (first, second) = (
                format!("{written}h.0.attn.c_attn.weight"),
                format!("{written}norm.weight"),
            );
            let inv_freq = format!("{written}layers.0.self_attn.rotary_emb.inv_freq");
            let (mask, masked) = (
                format!("{written}h.0.attn.bias"),
                format!("{written}h.0.attn.masked_bias"),
            );
            let mut tensors = vec![
                f32s(&first, [1, 4], 1.0),
                f32s(&second, [2, 2], 2.0),
                // What holds no weights, of any type, and the head of another kind of model.
                (mask.as_str(), Dtype::BOOL, vec![1, 1, 2, 2], vec![1; 4]),
                f32s(&masked, [1, 1], 0.0),
                f32s(&inv_freq, [1, 1], 0.0),
                f32s("lm_head.weight", [9, 4], 0.0),
            ];
            let read = |tensors: &[Stored<'_>]| -> Vec<Option<f32>> {
                let files = WeightFiles::from_bytes(model(safetensors(tensors))).unwrap();
                let assigned = files.assign(&specs).unwrap();
                assigned
                    .iter()
                    .map(|t| t.map(|t| t.values().unwrap()[0]))
                    .collect()
            };
            assert_eq!(read(&tensors), [None, Some(1.0), Some(2.0)]);
            tensors.push(f32s("score.weight", [1, 4], 3.0));
            assert_eq!(read(&tensors), [Some(3.0), Some(1.0), Some(2.0)]);
        }
    }
}

#[test]
fn half_precision_is_converted_piece_by_piece() {
    let count = (1 << 18) + 5;
    let exact: Vec<f32> = (0..count)
        .map(|i| (i % 2039) as f32 / 8.0 - 100.0)
        .collect();
    let halves: Vec<u8> = exact
        .iter()
        .flat_map(|&x| f16::from_f32(x).to_le_bytes())
        .collect();
    let brains: Vec<u8> = exact
        .iter()
        .flat_map(|&x| bf16::from_f32(x).to_le_bytes())
        .collect();
    let singles: Vec<u8> = exact.iter().flat_map(|x| x.to_le_bytes()).collect();
    let bytes = safetensors(&[
        ("half", Dtype::F16, vec![count], halves),
        ("brain", Dtype::BF16, vec![count], brains),
        ("single", Dtype::F32, vec![count], singles),
    ]);
    let files = WeightFiles::from_bytes(model(bytes)).unwrap();
    let rounded: Vec<f32> = exact.iter().map(|&x| bf16::from_f32(x).to_f32()).collect();
    assert_ne!(rounded, exact);
    for (name, expected) in [("half", &exact), ("brain", &rounded), ("single", &exact)] {
        let mut firsts = Vec::new();
        let tensor = files.get(name).unwrap();
        let check = |first: usize, piece: &[f32]| {
            firsts.push(first);
            assert_eq!(piece, &expected[first..first + piece.len()]);
            Ok(())
        };
        tensor.pieces(check).unwrap();
        assert_eq!(firsts, [0, 1 << 18]);
        assert_eq!(values(&files, name), *expected);
    }
}

#[test]
fn values_at_odd_addresses_are_read_too() {
    // The header's length decides where the data lies.
    for spaces in 0..8 {
        let header = format!(
            r#"{{"byte": {{"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}},
            "half": {{"dtype": "BF16", "shape": [1], "data_offsets": [1, 3]}},
            "single": {{"dtype": "F32", "shape": [2], "data_offsets": [3, 11]}}}}{}"#,
            " ".repeat(spaces)
        );
        let mut data = vec![0u8];
        data.extend(bf16::from_f32(-3.0).to_le_bytes());
        data.extend([1.5f32, 2.5].iter().flat_map(|x| x.to_le_bytes()));
        let files = WeightFiles::from_bytes(model(raw(&header, &data))).unwrap();
        assert_eq!(values(&files, "half"), [-3.0]);
        assert_eq!(values(&files, "single"), [1.5, 2.5]);
    }
}

proptest! {
    /// What is accepted, the safetensors crate accepts as well and reads the same.
    #[test]
    fn damaged_headers_are_judged_as_the_format_says(
        at in 0usize..400, with in any::<u8>(), cut in 0usize..40,
    ) {
        let mut bytes = safetensors(&[
            f32s("a", [2, 3], 0.0), f32s("b", [0, 3], 0.0), f32s("c", [1, 1], 0.0),
        ]);
        let at = at % bytes.len();
        bytes[at] = with;
        bytes.truncate(bytes.len() - cut % 5);
        if let Ok(files) = WeightFiles::from_bytes(model(bytes.clone())) {
            let theirs = SafeTensors::deserialize(&bytes).unwrap();
            prop_assert_eq!(theirs.len(), files.tensors().count());
            for tensor in files.tensors() {
                prop_assert_eq!(theirs.tensor(tensor.name).unwrap().data(), tensor.bytes);
            }
        }
    }
}
