//! [`Rope`]: the frequencies of a rotary position embedding, as Hugging Face configurations give
//! them.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// A rotary position embedding (Su et al. 2021, arXiv 2104.09864): its base and what stretches it to
/// longer contexts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rope {
    /// The base θ: pair `i` of D/2 turns by `θ^(-2i/D)` radians from one position to the next.
    pub theta: f64,
    /// How a context longer than the model was first trained on is reached.
    pub scaling: RopeScaling,
}

/// How the frequencies of a [`Rope`] are changed for longer contexts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum RopeScaling {
    /// Not at all: `default`.
    None,
    /// Every position divided by `factor` (Chen et al. 2023, arXiv 2306.15595): `linear`.
    Linear {
        /// How much longer contexts become, 1 or more.
        factor: f64,
    },
    /// Low frequencies divided by `factor`, high ones kept, those between interpolated (Llama 3.1,
    /// Dubey et al. 2024, arXiv 2407.21783): `llama3`.
    Llama3 {
        /// What low frequencies are divided by, 1 or more.
        factor: f64,
        /// Frequencies with fewer turns than this in the original context are low.
        low_freq_factor: f64,
        /// Frequencies with more turns than this in the original context are high.
        high_freq_factor: f64,
        /// The original context in tokens.
        original_max_position_embeddings: usize,
    },
    /// As `Llama3` but with a ramp over the pairs, and a factor on cosines and sines (YaRN, Peng et
    /// al. 2023, arXiv 2309.00071): `yarn`.
    Yarn {
        /// What low frequencies are divided by, 1 or more.
        factor: f64,
        /// The original context in tokens.
        original_max_position_embeddings: usize,
        /// The factor on cosines and sines; where `None` it follows from `factor`, and from
        /// `mscale` and `mscale_all_dim` where both are given.
        attention_factor: Option<f64>,
        /// The ramp begins at the pair with this many turns in the original context.
        beta_fast: f64,
        /// The ramp ends at the pair with this many.
        beta_slow: f64,
        /// Weight of `ln factor` in the attention factor's numerator.
        mscale: Option<f64>,
        /// Weight of `ln factor` in the attention factor's denominator.
        mscale_all_dim: Option<f64>,
        /// Whether the ends of the ramp are whole pairs.
        truncate: bool,
    },
}

/// What transformers takes where a YaRN configuration says nothing.
const BETA_FAST: f64 = 32.0;
const BETA_SLOW: f64 = 1.0;

impl Rope {
    /// The inverse frequencies (D/2) for heads of width D = `head_dim`, in radians a position, and
    /// the factor on cosines and sines.
    pub fn frequencies(&self, head_dim: usize) -> (Vec<f64>, f64) {
        let exponent = |i: usize| -2.0 * i as f64 / head_dim as f64;
        let pairs = 0..head_dim / 2;
        let plain: Vec<f64> = pairs.map(|i| self.theta.powf(exponent(i))).collect();
        match self.scaling {
            RopeScaling::None => (plain, 1.0),
            RopeScaling::Linear { factor } => (plain.iter().map(|w| w / factor).collect(), 1.0),
            RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            } => {
                let context = original_max_position_embeddings as f64;
                let scaled = |w: &f64| {
                    let turns = context * w / (2.0 * PI);
                    let kept = (turns - low_freq_factor) / (high_freq_factor - low_freq_factor);
                    interpolated(*w, factor, kept)
                };
                (plain.iter().map(scaled).collect(), 1.0)
            }
            RopeScaling::Yarn {
                factor,
                attention_factor,
                mscale,
                mscale_all_dim,
                ..
            } => {
                let (low, high) = self.ramp(head_dim);
                let scaled = |(i, w): (usize, &f64)| {
                    let kept = 1.0 - (i as f64 - low) / (high - low);
                    interpolated(*w, factor, kept)
                };
                let inferred = || yarn_attention_factor(factor, mscale, mscale_all_dim);
                let attention_factor = attention_factor.unwrap_or_else(inferred);
                (
                    plain.iter().enumerate().map(scaled).collect(),
                    attention_factor,
                )
            }
        }
    }

    /// Reads a model's `config.json`: `rope_parameters` as transformers 5 writes it, or `rope_theta`
    /// and `rope_scaling` as 4 does.
    ///
    /// `max_position_embeddings` is the model's context, from which an original context or a YaRN
    /// factor that is not given follows; `default_theta` is the base where none is given.
    ///
    /// # Errors
    ///
    /// Names what is missing, out of range, or not supported: another `rope_type`, heads that are
    /// turned in part, and parameters that are not known.
    pub fn from_json(
        config: &Value,
        max_position_embeddings: usize,
        default_theta: f64,
    ) -> Result<Self, String> {
        let fields = Fields::of(config)?;
        fields.check_names()?;
        let theta = match fields.number("rope_theta")? {
            Some(theta) => theta,
            None => number_of("rope_theta", &config["rope_theta"])?.unwrap_or(default_theta),
        };
        if theta <= 1.0 {
            return Err(format!("`rope_theta` is {theta}, expected more than 1"));
        }
        let scaling = match fields.rope_type()? {
            "default" => RopeScaling::None,
            "linear" => RopeScaling::Linear {
                factor: fields.factor()?,
            },
            "llama3" => fields.llama3(max_position_embeddings)?,
            "yarn" => fields.yarn(max_position_embeddings)?,
            other => {
                return Err(format!(
                    "`{}` has the rope_type `{other}`: `default`, `linear`, `llama3` and `yarn` are \
                     supported",
                    fields.name
                ));
            }
        };
        Ok(Self { theta, scaling })
    }

    /// The fields of a `config.json`: `rope_theta` and `rope_scaling`, which transformers 4 and 5
    /// both read.
    pub fn to_json(&self) -> Map<String, Value> {
        let scaling = match self.scaling {
            RopeScaling::None => Value::Null,
            RopeScaling::Linear { factor } => json!({"rope_type": "linear", "factor": factor}),
            RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            } => json!({
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": low_freq_factor,
                "high_freq_factor": high_freq_factor,
                "original_max_position_embeddings": original_max_position_embeddings,
            }),
            RopeScaling::Yarn {
                factor,
                original_max_position_embeddings,
                attention_factor,
                beta_fast,
                beta_slow,
                mscale,
                mscale_all_dim,
                truncate,
            } => {
                let mut fields = json!({
                    "rope_type": "yarn",
                    "factor": factor,
                    "original_max_position_embeddings": original_max_position_embeddings,
                    "beta_fast": beta_fast,
                    "beta_slow": beta_slow,
                });
                for (name, value) in [
                    ("attention_factor", attention_factor),
                    ("mscale", mscale),
                    ("mscale_all_dim", mscale_all_dim),
                ] {
                    if let Some(value) = value {
                        fields[name] = json!(value);
                    }
                }
                if !truncate {
                    fields["truncate"] = json!(false);
                }
                fields
            }
        };
        let theta = ("rope_theta".to_owned(), json!(self.theta));
        Map::from_iter([theta, ("rope_scaling".to_owned(), scaling)])
    }

    /// The pairs between which YaRN goes from kept to divided frequencies.
    fn ramp(&self, head_dim: usize) -> (f64, f64) {
        let RopeScaling::Yarn {
            original_max_position_embeddings,
            beta_fast,
            beta_slow,
            truncate,
            ..
        } = self.scaling
        else {
            return (0.0, 1.0);
        };
        let (width, context) = (head_dim as f64, original_max_position_embeddings as f64);
        // The pair that makes this many turns in the original context.
        let pair =
            |turns: f64| width * (context / (turns * 2.0 * PI)).ln() / (2.0 * self.theta.ln());
        let (mut low, mut high) = (pair(beta_fast), pair(beta_slow));
        if truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        (low, high) = (low.max(0.0), high.min(width - 1.0));
        if low == high {
            high += 0.001;
        }
        (low, high)
    }
}

/// `w` where `kept` is 1 or more, `w / factor` where it is 0 or less, and between them between.
fn interpolated(w: f64, factor: f64, kept: f64) -> f64 {
    let kept = kept.clamp(0.0, 1.0);
    w * kept + w / factor * (1.0 - kept)
}

/// The paper's `0.1 ln factor + 1`, or the quotient of two such numbers with weights of their own.
fn yarn_attention_factor(factor: f64, mscale: Option<f64>, mscale_all_dim: Option<f64>) -> f64 {
    let weighted = |weight: f64| 0.1 * weight * factor.ln() + 1.0;
    match (mscale, mscale_all_dim) {
        (Some(numerator), Some(denominator)) if numerator != 0.0 && denominator != 0.0 => {
            weighted(numerator) / weighted(denominator)
        }
        _ => weighted(1.0),
    }
}

/// What transformers knows, or knows to leave alone.
const NAMES: [&str; 15] = [
    "rope_type",
    "type",
    "rope_theta",
    "partial_rotary_factor",
    "factor",
    "original_max_position_embeddings",
    "low_freq_factor",
    "high_freq_factor",
    "attention_factor",
    "beta_fast",
    "beta_slow",
    "mscale",
    "mscale_all_dim",
    "truncate",
    "finetuned",
];

/// The parameters of a configuration, with the name that they stand under.
struct Fields<'a> {
    config: &'a Value,
    name: &'static str,
    map: Option<&'a Map<String, Value>>,
}

impl<'a> Fields<'a> {
    /// `rope_scaling` where it says something, as in transformers, otherwise `rope_parameters`.
    fn of(config: &'a Value) -> Result<Self, String> {
        let mut name = "rope_parameters";
        let mut map = None;
        for of in ["rope_parameters", "rope_scaling"] {
            match &config[of] {
                Value::Null => {}
                Value::Object(fields) if fields.is_empty() => {}
                Value::Object(fields) => (name, map) = (of, Some(fields)),
                other => return Err(format!("`{of}` is {other}, expected an object")),
            }
        }
        Ok(Self { config, name, map })
    }

    fn get(&self, field: &str) -> Option<&'a Value> {
        self.map?.get(field)
    }

    /// Refuses what is not known, since it may change the numbers.
    fn check_names(&self) -> Result<(), String> {
        for (field, value) in self.map.into_iter().flatten() {
            if !NAMES.contains(&field.as_str()) && !value.is_null() {
                let name = self.name;
                return Err(format!("`{name}` has `{field}`, which is not supported"));
            }
        }
        let of_config = &self.config["partial_rotary_factor"];
        let whole = |value: &Value| value.is_null() || value.as_f64() == Some(1.0);
        for value in [self.get("partial_rotary_factor"), Some(of_config)] {
            if let Some(value) = value.filter(|value| !whole(value)) {
                return Err(format!(
                    "`partial_rotary_factor` is {value}: only whole heads, 1, are supported"
                ));
            }
        }
        Ok(())
    }

    fn rope_type(&self) -> Result<&'a str, String> {
        match self.get("rope_type").or_else(|| self.get("type")) {
            None => Ok("default"),
            Some(Value::String(rope_type)) => Ok(rope_type),
            Some(other) => Err(format!("`rope_type` is {other}, expected a name")),
        }
    }

    /// A number that may be left out.
    fn number(&self, field: &str) -> Result<Option<f64>, String> {
        let value = self.get(field).unwrap_or(&Value::Null);
        number_of(&format!("{}.{field}", self.name), value)
    }

    /// A number that must be there, and be more than zero.
    fn positive(&self, field: &str) -> Result<f64, String> {
        let name = self.name;
        match self.number(field)? {
            Some(value) if value > 0.0 => Ok(value),
            Some(value) => Err(format!("`{name}.{field}` is {value}, expected more than 0")),
            None => Err(format!("`{name}` lacks `{field}`")),
        }
    }

    fn factor(&self) -> Result<f64, String> {
        at_least_one(self.name, self.positive("factor")?)
    }

    /// The context before it was stretched: the configuration's own field, that of the parameters,
    /// or the context there is.
    fn original_context(&self) -> Result<Option<usize>, String> {
        let field = "original_max_position_embeddings";
        let of_config = number_of(field, &self.config[field])?;
        match of_config.or(self.number(field)?) {
            None => Ok(None),
            Some(value) if value >= 1.0 && value.fract() == 0.0 && value < 1e15 => {
                Ok(Some(value as usize))
            }
            Some(value) => Err(format!("`{field}` is {value}, expected a number of tokens")),
        }
    }

    fn llama3(&self, context: usize) -> Result<RopeScaling, String> {
        let factor = self.factor()?;
        let low_freq_factor = self.positive("low_freq_factor")?;
        let high_freq_factor = self.positive("high_freq_factor")?;
        if high_freq_factor <= low_freq_factor {
            return Err(format!(
                "`{}.high_freq_factor` is {high_freq_factor}, expected more than \
                 `low_freq_factor`, {low_freq_factor}",
                self.name
            ));
        }
        Ok(RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings: self.original_context()?.unwrap_or(context),
        })
    }

    fn yarn(&self, context: usize) -> Result<RopeScaling, String> {
        let name = self.name;
        let original = self.original_context()?;
        let factor = match (self.number("factor")?, original) {
            (None, Some(original)) => at_least_one(name, context as f64 / original as f64)?,
            _ => self.factor()?,
        };
        let optional = |field| match self.number(field)? {
            Some(value) if value < 0.0 => {
                Err(format!("`{name}.{field}` is {value}, expected 0 or more"))
            }
            value => Ok(value),
        };
        // Zero stands for nothing, as in transformers.
        let or = |field, default| -> Result<f64, String> {
            Ok(optional(field)?.filter(|&x| x > 0.0).unwrap_or(default))
        };
        let (beta_fast, beta_slow) = (or("beta_fast", BETA_FAST)?, or("beta_slow", BETA_SLOW)?);
        if beta_fast < beta_slow {
            return Err(format!(
                "`{name}.beta_fast` is {beta_fast}, expected `beta_slow`, {beta_slow}, or more"
            ));
        }
        let truncate = match self.get("truncate") {
            None => true,
            Some(Value::Bool(truncate)) => *truncate,
            Some(other) => return Err(format!("`{name}.truncate` is {other}, expected a boolean")),
        };
        Ok(RopeScaling::Yarn {
            factor,
            original_max_position_embeddings: original.unwrap_or(context),
            attention_factor: optional("attention_factor")?,
            beta_fast,
            beta_slow,
            mscale: optional("mscale")?,
            mscale_all_dim: optional("mscale_all_dim")?,
            truncate,
        })
    }
}

fn number_of(name: &str, value: &Value) -> Result<Option<f64>, String> {
    match (value, value.as_f64()) {
        (Value::Null, _) => Ok(None),
        (_, Some(number)) => Ok(Some(number)),
        _ => Err(format!("`{name}` is {value}, expected a number")),
    }
}

fn at_least_one(name: &str, factor: f64) -> Result<f64, String> {
    if factor < 1.0 {
        return Err(format!("`{name}.factor` is {factor}, expected 1 or more"));
    }
    Ok(factor)
}
