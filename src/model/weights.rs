//! Weight files: `model.safetensors` under Hugging Face names.

use std::collections::HashMap;
use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::{Gpt2Config, Parameters};
use crate::files::{io_error, write_atomically};
use crate::gpu::Gpu;
use crate::{Error, Result};

/// The parameter that only a reward model has.
const HEAD: &str = "score.weight";

/// Tensors of old GPT-2 files that hold no weights: the causal mask.
fn holds_no_weights(name: &str) -> bool {
    name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias") || name == "lm_head.weight"
}

/// Fills the parameters from `model.safetensors` of a folder (f32, f16 or bf16).
///
/// The names may lack `transformer.` (a bare GPT-2) and `score.weight` (a language model): a
/// missing head keeps its starting value, and `false` is returned for it.
///
/// # Errors
///
/// [`Error::Io`]; [`Error::Model`] names a tensor that is missing, unknown, of another shape or of
/// another type.
pub fn load_weights(gpu: &Gpu, parameters: &Parameters, folder: &Path) -> Result<bool> {
    let path = folder.join("model.safetensors");
    let bytes = std::fs::read(&path).map_err(io_error("cannot read", &path))?;
    let refuse = |detail: String| Error::Model {
        place: path.display().to_string(),
        detail,
    };
    let file = SafeTensors::deserialize(&bytes).map_err(|error| refuse(error.to_string()))?;
    let mut found: HashMap<String, TensorView<'_>> = HashMap::new();
    for (name, view) in file.tensors() {
        if holds_no_weights(&name) {
            continue;
        }
        let full = if name == HEAD || name.starts_with("transformer.") {
            name
        } else {
            format!("transformer.{name}")
        };
        found.insert(full, view);
    }
    let mut has_head = true;
    for spec in parameters.specs() {
        let Some(view) = found.remove(&spec.name) else {
            if spec.name == HEAD {
                has_head = false;
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
    match found.keys().min() {
        None => Ok(has_head),
        Some(name) => Err(refuse(format!("`{name}` is no parameter of this model"))),
    }
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
    config: &Gpt2Config,
    folder: &Path,
) -> Result<()> {
    let weights = parameters.split(buffers);
    let bytes = to_safetensors(
        weights
            .iter()
            .map(|(spec, values)| (spec.name.clone(), spec.shape.as_slice(), values.as_slice())),
    )?;
    write_atomically(&folder.join("model.safetensors"), &bytes)?;
    let json = format!("{:#}\n", config.reward_model_json());
    write_atomically(&folder.join("config.json"), json.as_bytes())
}
