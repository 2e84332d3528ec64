//! Generation with a cache: against whole forward passes, against transformers, and against itself
//! in other company.

use std::path::Path;

use prefgrad::model::{
    Completion, Finish, GenerateOptions, Generator, GeneratorCapacity, Gpt2Config, Head,
    ModelConfig, Parameters, Purpose, Request, SamplingOptions, load_weights, model_parameters,
};
use prefgrad::reference::nn::attention::Segment;
use prefgrad::reference::nn::gelu::Gelu;
use prefgrad::reference::policy::sample::{Sampling, distribution};
use prefgrad::reference::transformer::{self, Run, Transformer};

use crate::support::checkpoint::load;
use crate::support::uncached::Uncached;
use crate::tools::gpu;

const CAPACITY: GeneratorCapacity = GeneratorCapacity {
    prompt_tokens: 64,
    prompts: 4,
    sequences: 6,
    new_tokens: 200,
};

/// A language model and what holds its weights.
struct Model {
    config: ModelConfig,
    parameters: Parameters,
}

impl Model {
    /// Two layers, width 32, an odd vocabulary; weights large enough that what is drawn depends on
    /// what stands before it.
    fn small(tie_word_embeddings: bool) -> Self {
        let config: ModelConfig = Gpt2Config {
            vocab_size: 61,
            n_positions: 256,
            n_embd: 32,
            n_layer: 2,
            n_head: 2,
            n_inner: None,
            layer_norm_epsilon: 1e-5,
            eos_token_id: Some(1),
            pad_token_id: None,
            tie_word_embeddings,
        }
        .into();
        let model = Self::zero(config);
        model.parameters.initialise(gpu(), 7).unwrap();
        for (index, (spec, values)) in model
            .parameters
            .read_weights(gpu())
            .unwrap()
            .into_iter()
            .enumerate()
        {
            let bias = |i: usize| 0.2 * ((i * 7 + index) as f32 * 0.7).sin();
            let scale = if spec.name.contains("wpe") { 8.0 } else { 3.0 };
            let spread: Vec<f32> = values
                .iter()
                .enumerate()
                .map(|(i, x)| if spec.decay { x * scale } else { x + bias(i) })
                .collect();
            model.parameters.write(gpu(), &spec.name, &spread).unwrap();
        }
        model
    }

    fn zero(config: ModelConfig) -> Self {
        let specs = model_parameters(&config, &[Head::Language]);
        Self {
            parameters: Parameters::allocate(gpu(), specs, Purpose::Score).unwrap(),
            config,
        }
    }

    fn from_folder(folder: &Path) -> Self {
        let model = Self::zero(ModelConfig::read(folder).unwrap());
        load_weights(gpu(), &model.parameters, folder).unwrap();
        model
    }

    fn generator(&self, capacity: GeneratorCapacity) -> Generator {
        Generator::new(gpu(), &self.config, &self.parameters, capacity).unwrap()
    }

    /// The logits behind every token of a sequence, in float64.
    fn logits(&self, sequence: &[u32]) -> Vec<Vec<f64>> {
        let config = &self.config;
        let weights: transformer::Parameters = self
            .parameters
            .read_weights(gpu())
            .unwrap()
            .into_iter()
            .map(|(spec, values)| {
                let wide = values.iter().map(|&x| f64::from(x)).collect();
                (spec.name.clone(), wide)
            })
            .collect();
        let reference = Transformer {
            vocabulary: config.vocab_size,
            context: config.max_position_embeddings,
            width: config.hidden_size,
            layers: config.num_hidden_layers,
            heads: config.num_attention_heads,
            inner: config.intermediate_size,
            eps: config.norm_eps,
            gelu: Gelu::Tanh,
        };
        let positions: Vec<u32> = (0..sequence.len() as u32).collect();
        let run = Run {
            tokens: sequence,
            positions: &positions,
            segments: &[Segment::alone(0, sequence.len() as u32)],
        };
        let forward = reference.forward(&weights, &run).unwrap();
        let head = match config.tie_word_embeddings {
            true => &weights["transformer.wte.weight"],
            false => &weights["lm_head.weight"],
        };
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum();
        forward
            .hidden()
            .chunks(config.hidden_size)
            .map(|row| {
                head.chunks(config.hidden_size)
                    .map(|w| dot(row, w))
                    .collect()
            })
            .collect()
    }
}

fn options(sampling: SamplingOptions, max_new_tokens: usize) -> GenerateOptions {
    GenerateOptions {
        sampling,
        max_new_tokens,
        stop_tokens: vec![],
        seed: 11,
    }
}

fn prompts() -> Vec<Vec<u32>> {
    vec![
        vec![5, 9, 33, 2, 60],
        (0..37).map(|i| (i * 11 + 3) % 61).collect(),
        vec![17],
    ]
}

fn tokens(completions: &[Completion]) -> Vec<Vec<u32>> {
    completions.iter().map(|c| c.tokens.clone()).collect()
}

fn distinct(tokens: &[u32]) -> usize {
    let mut seen = tokens.to_vec();
    seen.sort_unstable();
    seen.dedup();
    seen.len()
}

#[test]
fn greedy_with_a_cache_equals_greedy_without() {
    let model = Model::small(true);
    let prompts = prompts();
    let total = prompts.iter().map(|p| p.len() + 200).sum();
    let without = Uncached::new(gpu(), &model.config, &model.parameters, 3, total).unwrap();
    let expected = without.greedy(&prompts, 200).unwrap();
    let mut generator = model.generator(CAPACITY);
    let greedy = options(SamplingOptions::greedy(), 200);
    let completions = generator.generate(&prompts, 1, &greedy).unwrap();
    assert_eq!(tokens(&completions), expected);
    // A text that repeats one token would hide mistakes.
    for completion in &completions {
        assert!(distinct(&completion.tokens) > 10, "{:?}", completion.tokens);
        assert!(completion.sampling_logprobs.iter().all(|&l| l == 0.0));
        assert_eq!(completion.finish, Finish::Length);
    }
}

#[test]
fn greedy_tokens_equal_those_of_transformers() {
    let root = std::env::var_os("CARGO_MANIFEST_DIR").unwrap();
    let models = Path::new(&root).join("../shared/reference/models");
    let folders: Vec<_> = ["gpt2_lm_tied", "gpt2_lm_untied"]
        .iter()
        .map(|name| models.join(name))
        .filter(|folder| folder.exists())
        .collect();
    if folders.is_empty() {
        println!("skipped: there is no {}", models.display());
    }
    for folder in folders {
        let text = std::fs::read(folder.join("expected.json")).unwrap();
        let expected: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let list = |value: &serde_json::Value| -> Vec<u32> {
            let values = value.as_array().unwrap().iter();
            values.map(|x| x.as_u64().unwrap() as u32).collect()
        };
        let cases = expected["greedy"].as_array().unwrap();
        let prompts: Vec<Vec<u32>> = cases.iter().map(|case| list(&case["prompt"])).collect();
        let answers: Vec<Vec<u32>> = cases.iter().map(|case| list(&case["tokens"])).collect();
        let mut generator = Model::from_folder(&folder).generator(CAPACITY);
        let greedy = options(SamplingOptions::greedy(), answers[0].len());
        let completions = generator.generate(&prompts, 1, &greedy).unwrap();
        assert_eq!(tokens(&completions), answers, "{}", folder.display());
    }
}

/// Fails where a log-probability is more than 1e-5 from that of a whole forward pass in float64,
/// or a token was drawn that was not to be kept.
#[track_caller]
fn assert_logprobs(model: &Model, prompt: &[u32], completion: &Completion, sampling: Sampling) {
    let sequence = [prompt, &completion.tokens].concat();
    let logits = model.logits(&sequence);
    for (step, &token) in completion.tokens.iter().enumerate() {
        let row = distribution(&logits[prompt.len() + step - 1], &sampling);
        assert!(row.kept[token as usize], "step {step}: token {token}");
        let expected = row.logprobs[token as usize];
        let error = (f64::from(completion.logprobs[step]) - expected).abs();
        assert!(error < 1e-5, "step {step}: {error:e}");
        let expected = expected - row.kept_logprob;
        let error = (f64::from(completion.sampling_logprobs[step]) - expected).abs();
        assert!(error < 1e-5, "step {step}: {error:e} in sampling_logprob");
    }
}

#[test]
fn log_probabilities_are_those_of_a_whole_forward_pass() {
    let mut models = vec![Model::small(true), Model::small(false)];
    models.extend(load("gpt2_lm").map(|checkpoint| Model::from_folder(&checkpoint.folder)));
    for model in models {
        let mut generator = model.generator(CAPACITY);
        for (temperature, top_k, top_p) in [
            (1.0, 0, 1.0),
            (0.7, 0, 1.0),
            (1.3, 7, 1.0),
            (1.0, 0, 0.8),
            (0.9, 20, 0.9),
        ] {
            let sampling = SamplingOptions {
                temperature,
                top_k,
                top_p,
                greedy: false,
            };
            let options = options(sampling, 24);
            let prompts = prompts();
            for completion in generator.generate(&prompts, 2, &options).unwrap() {
                let twin = Sampling {
                    temperature: f64::from(temperature),
                    top_k,
                    top_p: f64::from(top_p),
                };
                assert_logprobs(&model, &prompts[completion.prompt], &completion, twin);
                if !sampling.truncates() {
                    let pairs = completion
                        .logprobs
                        .iter()
                        .zip(&completion.sampling_logprobs);
                    for (logprob, sampled) in pairs {
                        let error = (logprob - sampled).abs();
                        assert!(
                            error < 1e-6 * sampled.abs().max(1.0),
                            "{logprob} and {sampled}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn samples_that_share_a_prompt_equal_samples_apart() {
    let model = Model::small(true);
    let mut generator = model.generator(CAPACITY);
    let options = options(SamplingOptions::default(), 40);
    let prompt = &prompts()[1];
    let together = generator
        .generate(std::slice::from_ref(prompt), 4, &options)
        .unwrap();
    assert_eq!(together.len(), 4);
    for (sample, expected) in together.iter().enumerate() {
        let request = Request {
            prompt,
            samples: 1,
            first_sequence: sample as u64,
        };
        let alone = pollster::block_on(generator.respond(&[request], &options)).unwrap();
        assert_eq!(alone[0].tokens, expected.tokens);
        assert_eq!(alone[0].logprobs, expected.logprobs);
    }
    assert_ne!(together[0].tokens, together[1].tokens);
}

#[test]
fn neither_company_nor_waves_change_what_a_seed_draws() {
    let model = Model::small(true);
    let options = options(SamplingOptions::default(), 30);
    let many: Vec<Vec<u32>> = (0..9).map(|i| vec![i + 1, 7 * i + 2, 40]).collect();
    // Six sequences at a time, then two, then one, and a prompt's own samples apart.
    let expected = model
        .generator(CAPACITY)
        .generate(&many, 2, &options)
        .unwrap();
    assert_eq!(expected.len(), 18);
    for (index, completion) in expected.iter().enumerate() {
        assert_eq!(
            (completion.prompt, completion.sample),
            (index / 2, index % 2)
        );
    }
    for (sequences, prompt_tokens) in [(2, 9), (1, 3), (18, 64)] {
        let capacity = GeneratorCapacity {
            prompt_tokens,
            prompts: 9,
            sequences,
            new_tokens: 30,
        };
        let again = model
            .generator(capacity)
            .generate(&many, 2, &options)
            .unwrap();
        assert_eq!(again, expected, "{sequences} at a time");
    }
}

#[test]
fn a_seed_chooses_the_tokens() {
    let mut generator = Model::small(true).generator(CAPACITY);
    let first = options(SamplingOptions::default(), 30);
    let run = |generator: &mut Generator, options: &GenerateOptions| {
        tokens(&generator.generate(&prompts(), 1, options).unwrap())
    };
    let drawn = run(&mut generator, &first);
    let mut other = first.clone();
    for seed in [12, 11 | 1 << 40] {
        other.seed = seed;
        let differing = run(&mut generator, &other);
        assert!(drawn.iter().zip(&differing).all(|(a, b)| a != b));
    }
    // Options may change from call to call, and back.
    assert_eq!(run(&mut generator, &first), drawn);
}

#[test]
fn responses_end_at_a_stop_token_or_at_the_limit() {
    let mut generator = Model::small(true).generator(CAPACITY);
    let free = options(SamplingOptions::default(), 50);
    let unstopped = generator.generate(&prompts(), 2, &free).unwrap();
    let stops = vec![unstopped[0].tokens[9], unstopped[3].tokens[20]];
    let stopped = GenerateOptions {
        stop_tokens: stops.clone(),
        ..free
    };
    let completions = generator.generate(&prompts(), 2, &stopped).unwrap();
    for (completion, whole) in completions.iter().zip(&unstopped) {
        let end = whole.tokens.iter().position(|token| stops.contains(token));
        let (len, finish) = match end {
            Some(end) => (end + 1, Finish::Stop),
            None => (50, Finish::Length),
        };
        assert_eq!(completion.tokens, whole.tokens[..len]);
        assert_eq!(completion.logprobs, whole.logprobs[..len]);
        assert_eq!(completion.finish, finish);
    }
    assert!(completions[0].tokens.len() <= 10);
    // A stop token as the last one that fits is a stop.
    let short = GenerateOptions {
        max_new_tokens: completions[0].tokens.len(),
        ..stopped
    };
    let completions = generator.generate(&prompts()[..1], 1, &short).unwrap();
    assert_eq!(completions[0].finish, Finish::Stop);
}

#[test]
fn updates_of_the_weights_take_effect_at_once() {
    let model = Model::small(true);
    let mut generator = model.generator(CAPACITY);
    let greedy = options(SamplingOptions::greedy(), 8);
    let before = generator.generate(&prompts(), 1, &greedy).unwrap();
    let table = model.parameters.read_weights(gpu()).unwrap().remove(0).1;
    let negated: Vec<f32> = table.iter().map(|x| -x).collect();
    let name = "transformer.wte.weight";
    model.parameters.write(gpu(), name, &negated).unwrap();
    let after = generator.generate(&prompts(), 1, &greedy).unwrap();
    assert_ne!(tokens(&before), tokens(&after));
}

#[test]
fn prompts_that_cannot_be_continued_are_refused_by_number() {
    let model = Model::small(true);
    let mut generator = model.generator(CAPACITY);
    let options = options(SamplingOptions::default(), 200);
    let mut refused = |prompt: Vec<u32>, samples: usize, reason: &str| {
        let error = generator
            .generate(&[vec![1], prompt], samples, &options)
            .unwrap_err()
            .to_string();
        let place = if samples == 0 { "prompt 0" } else { "prompt 1" };
        assert!(error.contains(reason) && error.contains(place), "{error}");
    };
    refused(vec![], 1, "no tokens");
    refused(vec![3; 57], 1, "context of 256");
    refused(vec![61], 1, "vocabulary");
    refused(vec![3], 0, "0 responses");
    assert!(generator.generate(&[], 1, &options).unwrap().is_empty());
    let short = GenerateOptions {
        max_new_tokens: 1,
        ..options
    };
    let error = generator.generate(&[vec![3; 65]], 1, &short).unwrap_err();
    assert!(error.to_string().contains("made for 64"), "{error}");
}

#[test]
fn capacities_and_options_out_of_range_are_refused() {
    let model = Model::small(true);
    let none = GeneratorCapacity {
        sequences: 0,
        ..CAPACITY
    };
    let error = Generator::new(gpu(), &model.config, &model.parameters, none)
        .err()
        .unwrap();
    assert!(error.to_string().contains("sequences"), "{error}");
    let mut generator = model.generator(CAPACITY);
    let hot = SamplingOptions {
        temperature: 0.0,
        ..SamplingOptions::default()
    };
    let error = generator
        .generate(&prompts(), 1, &options(hot, 5))
        .unwrap_err();
    assert!(error.to_string().contains("temperature"), "{error}");
}

#[test]
fn weights_that_are_not_finite_are_an_error() {
    let model = Model::small(true);
    let name = "transformer.ln_f.bias";
    let bias = vec![f32::NAN; model.config.hidden_size];
    model.parameters.write(gpu(), name, &bias).unwrap();
    let mut generator = model.generator(CAPACITY);
    for sampling in [SamplingOptions::default(), SamplingOptions::greedy()] {
        let error = generator
            .generate(&prompts(), 1, &options(sampling, 3))
            .unwrap_err();
        assert!(error.to_string().contains("not finite"), "{error}");
    }
}
