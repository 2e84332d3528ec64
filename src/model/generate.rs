//! [`Generator`]: draws responses from a language model with a cache of keys and values.

mod options;
mod waves;

pub use options::{Completion, Finish, GenerateOptions, Request, SamplingOptions};

use super::language_head::head_windows;
use super::trunk::Rows;
use super::{DeviceBatch, ModelConfig, Parameters, Purpose, Trunk};
use crate::data::{Capacity, Counts};
use crate::gpu::{Gpu, MemoryUse, Plan, Tensor};
use crate::kernels::nn::attention_decode::{
    AttentionDecodeIo, AttentionDecodeSizes, Sequence, attention_decode,
};
use crate::kernels::nn::copy_rows::{CopyRowsIo, RowCopy, copy_rows};
use crate::kernels::nn::language_head::push_logits_of;
use crate::kernels::policy::sample::{SampleIo, SampleSettings, Sampled, sample};
use crate::kernels::{Count, Size};
use crate::{Error, Result};
use waves::{Wave, waves};

const OP: &str = "generation";

/// Steps between two looks at whether all sequences have finished: a look waits for the device.
const LOOK_EVERY: usize = 16;

/// What a generator works on at one time; more is worked off in waves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GeneratorCapacity {
    /// Tokens of all prompts together.
    pub prompt_tokens: usize,
    /// Prompts.
    pub prompts: usize,
    /// Responses.
    pub sequences: usize,
    /// Tokens of a response.
    pub new_tokens: usize,
}

/// Draws responses from a language model.
///
/// Prompts are read as one packed run, each once however many responses it gets, and their keys
/// and values stay in a cache; then each step takes the last token of every sequence through the
/// model. The plans read the weights of the parameters they were recorded with: a policy's updates
/// take effect at once.
pub struct Generator {
    gpu: Gpu,
    config: ModelConfig,
    capacity: GeneratorCapacity,
    prompts: DeviceBatch,
    /// (sequences) [`RowCopy`]: the last row of each sequence's prompt to that sequence's row.
    last_rows: Tensor,
    state: State,
    /// Reads the prompts.
    prefill: Plan,
    /// One token a sequence, then the draw of the next.
    step: Plan,
    /// Where in `step` the draw begins.
    draw: usize,
}

/// What lives on the device from step to step.
struct State {
    counts: Tensor,
    settings: Tensor,
    stops: Tensor,
    sequences: Tensor,
    tokens: Tensor,
    positions: Tensor,
    appends: Tensor,
    sampled: Tensor,
}

impl State {
    fn new(gpu: &Gpu, vocabulary: usize, capacity: GeneratorCapacity) -> Result<Self> {
        let rows = capacity.sequences;
        Ok(Self {
            counts: Tensor::zeros::<Counts>(gpu, "generation counts", &[1])?,
            settings: Tensor::zeros::<SampleSettings>(gpu, "sample settings", &[1])?,
            stops: Tensor::zeros::<u32>(gpu, "stop tokens", &[vocabulary.div_ceil(32)])?,
            sequences: Tensor::zeros::<Sequence>(gpu, "sequences", &[rows])?,
            tokens: Tensor::zeros::<u32>(gpu, "last tokens", &[rows])?,
            positions: Tensor::zeros::<u32>(gpu, "last positions", &[rows])?,
            appends: Tensor::zeros::<RowCopy>(gpu, "appends", &[rows])?,
            sampled: Tensor::zeros::<Sampled>(gpu, "sampled", &[rows, capacity.new_tokens])?,
        })
    }
}

impl Generator {
    /// Allocates the cache and records the plans with these parameters' weights.
    ///
    /// The cache takes `8 · layers · G · D · (prompt_tokens + sequences · new_tokens)` bytes, for G
    /// key/value heads of D values.
    ///
    /// # Errors
    ///
    /// [`Error::Model`] for a configuration that can't be or parameters that do not fit it,
    /// [`Error::Shape`] for a capacity of 0, [`Error::Limit`] and [`Error::OutOfMemory`] for one
    /// that does not fit the device.
    pub fn new(
        gpu: &Gpu,
        config: &ModelConfig,
        parameters: &Parameters,
        capacity: GeneratorCapacity,
    ) -> Result<Self> {
        config.validate("config")?;
        let sizes = [
            ("prompt_tokens", capacity.prompt_tokens),
            ("prompts", capacity.prompts),
            ("sequences", capacity.sequences),
            ("new_tokens", capacity.new_tokens),
        ];
        if let Some((name, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            return Err(Error::shape(OP, format!("a capacity of 0 {name}")));
        }
        let packed = Capacity {
            tokens: capacity.prompt_tokens,
            segments: capacity.prompts,
            ..Capacity::default()
        };
        let mut generator = Self {
            gpu: gpu.clone(),
            config: config.clone(),
            capacity,
            prompts: DeviceBatch::new(gpu, packed)?,
            last_rows: Tensor::zeros::<RowCopy>(gpu, "last rows", &[capacity.sequences])?,
            state: State::new(gpu, config.vocab_size, capacity)?,
            prefill: Plan::new(gpu),
            step: Plan::new(gpu),
            draw: 0,
        };
        generator.record(parameters)?;
        Ok(generator)
    }

    fn record(&mut self, parameters: &Parameters) -> Result<()> {
        let (gpu, config) = (&self.gpu, &self.config);
        let cache = self.allocate_cache()?;
        let rows = Capacity {
            tokens: self.capacity.sequences,
            ..Capacity::default()
        };
        let trunk = Trunk::new(gpu, config, rows, Purpose::Score)?;
        let reader = Trunk::new(gpu, config, self.prompts.capacity, Purpose::Score)?;
        let mut prefill = Plan::new(gpu);
        self.record_prefill(&mut prefill, parameters, &reader, &cache)?;
        let gathered = CopyRowsIo {
            rows: reader.hidden(),
            column: 0,
            copies: &self.last_rows,
            out: trunk.hidden(),
            counts: Some(&self.state.counts),
        };
        copy_rows(&mut prefill, &gathered, self.live_sequences())?;
        let mut step = Plan::new(gpu);
        self.record_step(&mut step, parameters, &trunk, &cache)?;
        let draw = step.len();
        self.record_draw(&mut step, parameters, trunk.hidden())?;
        (self.prefill, self.step, self.draw) = (prefill, step, draw);
        Ok(())
    }

    /// A tensor a layer: the prompts' rows as packed, then `new_tokens` rows a sequence.
    fn allocate_cache(&self) -> Result<Vec<Tensor>> {
        let capacity = self.capacity;
        let rows = capacity.prompt_tokens + capacity.sequences * capacity.new_tokens;
        let heads = self.config.heads();
        let width = 2 * heads.key_value * heads.width;
        let gpu = self.gpu.for_use(MemoryUse::Cache);
        let tensor = |layer| {
            let label = format!("block {layer} cache");
            Tensor::zeros::<f32>(&gpu, &label, &[rows, width])
        };
        (0..self.config.num_hidden_layers).map(tensor).collect()
    }

    fn live_sequences(&self) -> Size {
        Size::live(self.capacity.sequences, Count::Tokens)
    }

    /// The prompts through the decoder, their keys and values into the cache.
    fn record_prefill(
        &self,
        plan: &mut Plan,
        parameters: &Parameters,
        trunk: &Trunk,
        cache: &[Tensor],
    ) -> Result<()> {
        let batch = &self.prompts;
        let in_place: Vec<RowCopy> = (0..self.capacity.prompt_tokens as u32)
            .map(|row| RowCopy {
                source: row,
                destination: row,
            })
            .collect();
        let copies = Tensor::from_slice(&self.gpu, "prompt rows", &[in_place.len()], &in_place)?;
        let rows = Rows {
            tokens: &batch.tokens,
            positions: &batch.positions,
            counts: &batch.counts,
        };
        trunk.forward_with(plan, parameters, rows, |plan, attend| {
            let io = CopyRowsIo {
                rows: attend.qkv,
                column: trunk.heads().out_width(),
                copies: &copies,
                out: &cache[attend.layer],
                counts: Some(&batch.counts),
            };
            copy_rows(plan, &io, trunk.rows())?;
            trunk.attend_packed(plan, batch, attend)
        })
    }

    /// The last token of each sequence through the decoder.
    fn record_step(
        &self,
        plan: &mut Plan,
        parameters: &Parameters,
        trunk: &Trunk,
        cache: &[Tensor],
    ) -> Result<()> {
        let state = &self.state;
        let rows = Rows {
            tokens: &state.tokens,
            positions: &state.positions,
            counts: &state.counts,
        };
        let sizes = AttentionDecodeSizes {
            sequences: self.live_sequences(),
            heads: trunk.heads(),
            context: self.config.max_position_embeddings / 2,
        };
        trunk.forward_with(plan, parameters, rows, |plan, attend| {
            let io = CopyRowsIo {
                rows: attend.qkv,
                column: trunk.heads().out_width(),
                copies: &state.appends,
                out: &cache[attend.layer],
                counts: Some(&state.counts),
            };
            copy_rows(plan, &io, self.live_sequences())?;
            let io = AttentionDecodeIo {
                qkv: attend.qkv,
                cache: &cache[attend.layer],
                sequences: &state.sequences,
                out: attend.out,
                counts: Some(&state.counts),
            };
            attention_decode(plan, &io, &sizes)
        })
    }

    /// From a hidden row a sequence to its next token.
    fn record_draw(&self, plan: &mut Plan, parameters: &Parameters, hidden: &Tensor) -> Result<()> {
        let (state, vocabulary) = (&self.state, self.config.vocab_size);
        let shape = [self.capacity.sequences, vocabulary.next_multiple_of(4)];
        let logits = Tensor::zeros::<f32>(&self.gpu, "next-token logits", &shape)?;
        let head = head_windows(&self.config, parameters)?;
        let live = (self.live_sequences(), Some(&state.counts));
        push_logits_of(
            plan,
            (hidden, self.config.hidden_size),
            &head,
            &logits,
            live,
        )?;
        let io = SampleIo {
            settings: &state.settings,
            logits: &logits,
            stops: &state.stops,
            sequences: &state.sequences,
            tokens: &state.tokens,
            positions: &state.positions,
            appends: &state.appends,
            sampled: &state.sampled,
            counts: Some(&state.counts),
        };
        sample(plan, &io, self.live_sequences(), vocabulary)
    }

    /// Sizes and token ids.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// What is worked on at one time.
    pub fn capacity(&self) -> GeneratorCapacity {
        self.capacity
    }

    /// The recorded plans by name, for profiles: one reads the prompts, one is a step.
    pub fn plans(&self) -> [(&'static str, &Plan); 2] {
        [("prefill", &self.prefill), ("decode", &self.step)]
    }

    /// Draws `samples` responses to each prompt; the first prompt's come first.
    ///
    /// Sequence `prompt · samples + sample` is the number that chooses the random numbers of a
    /// response; [`Generator::respond`] lets the caller number them.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] names an option out of range; [`Error::Data`] a prompt without tokens,
    /// with a token that the model does not know, or too long for the context or the generator;
    /// [`Error::Model`] where the model's logits are not finite; and what the device reports.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn generate(
        &mut self,
        prompts: &[Vec<u32>],
        samples: usize,
        options: &GenerateOptions,
    ) -> Result<Vec<Completion>> {
        let requests: Vec<Request<'_>> = (0..)
            .zip(prompts)
            .map(|(index, prompt)| Request {
                prompt,
                samples,
                first_sequence: index * samples as u64,
            })
            .collect();
        pollster::block_on(self.respond(&requests, options))
    }

    /// Draws responses to requests, in their order.
    ///
    /// # Errors
    ///
    /// As [`Generator::generate`].
    pub async fn respond(
        &mut self,
        requests: &[Request<'_>],
        options: &GenerateOptions,
    ) -> Result<Vec<Completion>> {
        options.validate(self.config.vocab_size, self.capacity.new_tokens)?;
        self.write_options(options)?;
        let mut completions = Vec::new();
        for wave in waves(requests, self.capacity, &self.config, options)? {
            completions.extend(self.run(&wave, options.max_new_tokens).await?);
        }
        Ok(completions)
    }

    fn write_options(&self, options: &GenerateOptions) -> Result<()> {
        let sampling = options.sampling;
        let mut stops = vec![0u32; self.config.vocab_size.div_ceil(32)];
        for token in &options.stop_tokens {
            stops[*token as usize / 32] |= 1 << (token % 32);
        }
        self.state.stops.write(&self.gpu, &stops)?;
        let settings = SampleSettings {
            temperature: sampling.temperature,
            top_p: sampling.top_p,
            top_k: sampling.top_k.min(self.config.vocab_size) as u32,
            greedy: sampling.greedy.into(),
            max_new_tokens: options.max_new_tokens as u32,
            seed_low: options.seed as u32,
            seed_high: (options.seed >> 32) as u32,
            pad: 0,
        };
        self.state.settings.write(&self.gpu, &[settings])
    }

    async fn run(&self, wave: &Wave, max_new_tokens: usize) -> Result<Vec<Completion>> {
        let counts = Counts {
            tokens: wave.sequences.len() as u32,
            ..Counts::default()
        };
        self.state.counts.write(&self.gpu, &[counts])?;
        self.state.sequences.write(&self.gpu, &wave.sequences)?;
        self.last_rows.write(&self.gpu, &wave.last_rows)?;
        self.prompts.upload(&self.gpu, &wave.prompts)?;
        let mut encoder = self
            .gpu
            .device()
            .create_command_encoder(&Default::default());
        self.prefill.commands(&mut encoder);
        self.step
            .commands_range(&mut encoder, self.draw..self.step.len());
        self.gpu.note(|activity| activity.submissions += 1);
        self.gpu.queue().submit([encoder.finish()]);
        for step in 1..max_new_tokens {
            self.step.submit();
            if step % LOOK_EVERY == 0 && self.all_finished(wave).await? {
                break;
            }
        }
        let sequences: Vec<Sequence> = self.state.sequences.read_async(&self.gpu).await?;
        let sampled: Vec<Sampled> = self.state.sampled.read_async(&self.gpu).await?;
        wave.completions(&sequences, &sampled, self.capacity.new_tokens)
    }

    async fn all_finished(&self, wave: &Wave) -> Result<bool> {
        let sequences: Vec<Sequence> = self.state.sequences.read_async(&self.gpu).await?;
        let live = &sequences[..wave.sequences.len()];
        Ok(live.iter().all(|sequence| sequence.finished != 0))
    }
}
