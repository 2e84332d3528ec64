//! Weight files: `model.safetensors` under Hugging Face names.

use std::collections::HashMap;
use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::{ModelConfig, Parameters};
use crate::files::{io_error, write_atomically};
use crate::gpu::Gpu;
use crate::{Error, Result};

const VALUE_HEAD: &str = "value_head.weight";
const VALUE_HEAD_FILE: &str = "value_head.safetensors";
/// Parameters that models of one kind have and those of another lack.
const HEADS: [&str; 3] = ["score.weight", "lm_head.weight", VALUE_HEAD];

/// Tensors of old GPT-2 files that hold no weights: the causal mask.
fn holds_no_weights(name: &str) -> bool {
    name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias")
}

/// Fills the parameters from `model.safetensors` of a folder (f32, f16 or bf16), and a value head
/// from `value_head.safetensors`, where there is such a file, as [`save_language_model`] writes it.
///
/// The names may lack `transformer.` (a bare GPT-2). A head that only the files have is passed over;
/// one that only the model has keeps its starting value, and `false` is returned for it.
///
/// # Errors
///
/// [`Error::Io`]; [`Error::Model`] names a tensor that is missing, unknown, of another shape or of
/// another type.
pub fn load_weights(gpu: &Gpu, parameters: &Parameters, folder: &Path) -> Result<bool> {
    let path = folder.join("model.safetensors");
    let bytes = read(&path)?;
    let value_path = folder.join(VALUE_HEAD_FILE);
    let value_bytes = match value_path.exists() {
        true => Some(read(&value_path)?),
        false => None,
    };
    let refuse = |detail: String| refused(&path, detail);
    let mut found = tensors(&path, &bytes)?;
    if let Some(bytes) = &value_bytes {
        found.extend(tensors(&value_path, bytes)?);
    }
    let mut has_heads = true;
    for spec in parameters.specs() {
        let Some(view) = found.remove(&spec.name) else {
            if HEADS.contains(&spec.name.as_str()) {
                has_heads = false;
                continue;
            }
            return Err(refuse(format!("it has no tensor `{}`", spec.name)));
        };
        if view.shape() != spec.shape {
            return Err(refuse(format!(
                "`{}` is {:?}, the configuration asks for {:?}",
                spec.name,
                view.shape(),
                spec.shape
            )));
        }
        let values = to_f32(&view).ok_or_else(|| {
            refuse(format!(
                "`{}` is {:?}; F32, F16 and BF16 are read",
                spec.name,
                view.dtype()
            ))
        })?;
        parameters.write(gpu, &spec.name, &values)?;
    }
    let unknown = found.keys().filter(|name| !HEADS.contains(&name.as_str()));
    match unknown.min() {
        None => Ok(has_heads),
        Some(name) => Err(refuse(format!("`{name}` is no parameter of this model"))),
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(io_error("cannot read", path))
}

fn refused(path: &Path, detail: String) -> Error {
    Error::Model {
        place: path.display().to_string(),
        detail,
    }
}

/// The weights in a file, under the names that parameters have.
fn tensors<'a>(path: &Path, bytes: &'a [u8]) -> Result<HashMap<String, TensorView<'a>>> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| refused(path, error.to_string()))?;
    let mut found = HashMap::new();
    for (name, view) in file.tensors() {
        if holds_no_weights(&name) {
            continue;
        }
        let full = if HEADS.contains(&name.as_str()) || name.starts_with("transformer.") {
            name
        } else {
            format!("transformer.{name}")
        };
        found.insert(full, view);
    }
    Ok(found)
}

/// The values of a floating-point tensor, `None` for other types.
pub(crate) fn to_f32(view: &TensorView<'_>) -> Option<Vec<f32>> {
    let data = view.data();
    match view.dtype() {
        Dtype::F32 => Some(bytemuck::pod_collect_to_vec(data)),
        Dtype::F16 => {
            let halves: Vec<half::f16> = bytemuck::pod_collect_to_vec(data);
            Some(halves.into_iter().map(half::f16::to_f32).collect())
        }
        Dtype::BF16 => {
            let halves: Vec<half::bf16> = bytemuck::pod_collect_to_vec(data);
            Some(halves.into_iter().map(half::bf16::to_f32).collect())
        }
        _ => None,
    }
}

/// Named f32 tensors as the bytes of a safetensors file.
pub(crate) fn to_safetensors<'a>(
    tensors: impl IntoIterator<Item = (String, &'a [usize], &'a [f32])>,
) -> Result<Vec<u8>> {
    let refuse = |error: safetensors::SafeTensorError| Error::Model {
        place: "safetensors".into(),
        detail: error.to_string(),
    };
    let mut views = Vec::new();
    for (name, shape, values) in tensors {
        let bytes = bytemuck::cast_slice(values);
        let view = TensorView::new(Dtype::F32, shape.to_vec(), bytes).map_err(refuse)?;
        views.push((name, view));
    }
    // What `transformers` looks for to know the layout.
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize(views, Some(metadata)).map_err(refuse)
}

/// Writes `config.json` and `model.safetensors` of a reward model, each whole or not at all.
///
/// `buffers` holds the weights, one `Vec` a chunk, as [`Parameters::read`] gives them.
///
/// # Errors
///
/// [`Error::Io`].
pub fn save_reward_model(
    parameters: &Parameters,
    buffers: &[Vec<f32>],
    config: &ModelConfig,
    folder: &Path,
) -> Result<()> {
    write_tensors(
        parameters,
        buffers,
        &folder.join("model.safetensors"),
        |_| true,
    )?;
    write_json(&config.reward_model_json(), &folder.join("config.json"))
}

/// Writes `config.json`, `generation_config.json` and `model.safetensors` of a language model, as
/// [`save_reward_model`] does. A value head, which `transformers` knows nothing of, goes into a
/// file of its own, `value_head.safetensors`.
///
/// # Errors
///
/// [`Error::Io`].
pub fn save_language_model(
    parameters: &Parameters,
    buffers: &[Vec<f32>],
    config: &ModelConfig,
    folder: &Path,
) -> Result<()> {
    let model = folder.join("model.safetensors");
    write_tensors(parameters, buffers, &model, |name| name != VALUE_HEAD)?;
    if parameters
        .specs()
        .iter()
        .any(|spec| spec.name == VALUE_HEAD)
    {
        let value = folder.join(VALUE_HEAD_FILE);
        write_tensors(parameters, buffers, &value, |name| name == VALUE_HEAD)?;
    }
    let generation = config.generation_json();
    write_json(&generation, &folder.join("generation_config.json"))?;
    write_json(&config.language_model_json(), &folder.join("config.json"))
}

fn write_tensors(
    parameters: &Parameters,
    buffers: &[Vec<f32>],
    path: &Path,
    wanted: impl Fn(&str) -> bool,
) -> Result<()> {
    let weights = parameters.split(buffers);
    let chosen = weights.iter().filter(|(spec, _)| wanted(&spec.name));
    let bytes = to_safetensors(
        chosen.map(|(spec, values)| (spec.name.clone(), spec.shape.as_slice(), values.as_slice())),
    )?;
    write_atomically(path, &bytes)
}

fn write_json(json: &serde_json::Value, path: &Path) -> Result<()> {
    write_atomically(path, format!("{json:#}\n").as_bytes())
}
