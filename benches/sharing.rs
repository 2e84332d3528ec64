//! What computing a prompt once is worth on real comparisons: the same updates with prompts shared
//! and apart, `cargo bench --bench sharing -- FILE TOKENIZER.json`.
//!
//! Two reward models start from the same weights and learn from the same pairs, eight an update.
//! Updates of both take turns, so that a machine that slows down slows both; times are CPU time
//! where the system says it, else wall time. The losses must agree.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use example_tools::hf_tokenizer::HfTokenizer;
use example_tools::measure;
use example_tools::record_file::open_records;
use example_tools::table::table_of;
use prefgrad::Gpu;
use prefgrad::data::{
    Boundary, PackOptions, ReadOptions, TokenRecord, TokeniseOptions, Tokenizer, pack_all,
    read_records, tokenise,
};
use prefgrad::kernels::preference::pairwise_loss::PairwiseLossOptions;
use prefgrad::model::{Gpt2Config, ModelConfig, RewardModel};
use prefgrad::train::{AdamW, Optimizer, capacity_for};

const CONTEXTS: [usize; 3] = [128, 256, 512];
const PAIRS: usize = 8;
/// The first compiles the kernels and does not count.
const UPDATES: usize = 6;

fn config(vocab_size: usize) -> ModelConfig {
    Gpt2Config {
        vocab_size,
        n_positions: 512,
        n_embd: 256,
        n_layer: 2,
        n_head: 4,
        n_inner: None,
        layer_norm_epsilon: 1e-5,
        eos_token_id: None,
        pad_token_id: None,
        tie_word_embeddings: true,
    }
    .into()
}

/// The same texts, each answer with a prompt of its own.
fn apart(record: &TokenRecord) -> TokenRecord {
    let whole = |answer: &Vec<u32>| [&record.prompt[..], answer].concat();
    TokenRecord {
        prompt: vec![],
        answers: record.answers.iter().map(whole).collect(),
        ..record.clone()
    }
}

/// A model in training, and what it has used.
struct Side {
    model: RewardModel,
    optimizer: Optimizer,
    tokens: usize,
    time: Duration,
    losses: Vec<f32>,
}

impl Side {
    fn new(gpu: &Gpu, config: &ModelConfig, tokens: usize) -> Result<Self> {
        let loss = PairwiseLossOptions::default();
        let model = RewardModel::to_train(gpu, config, capacity_for(tokens, false), &loss)?;
        model.parameters().initialise(gpu, 0)?;
        let optimizer = Optimizer::new(gpu, model.parameters(), AdamW::default())?;
        Ok(Self {
            model,
            optimizer,
            tokens: 0,
            time: Duration::ZERO,
            losses: vec![],
        })
    }

    fn update(&mut self, records: &[TokenRecord]) -> Result<()> {
        let options = PackOptions::default();
        let mut batches = pack_all(records, self.model.capacity(), options)?;
        ensure!(batches.len() == 1, "{} batches an update", batches.len());
        let mut batch = batches.remove(0);
        batch.counts.pair_scale = 1.0 / records.len() as f32;
        let begun = time();
        self.model.accumulate(&batch)?;
        self.optimizer.step(1e-4)?;
        self.model.gpu().wait()?;
        if !self.losses.is_empty() {
            self.tokens += batch.tokens.len();
            self.time += time() - begun;
        }
        let row = self.model.read_metrics()?[batch.counts.slot as usize];
        self.losses.push(row[0]);
        Ok(())
    }
}

/// CPU time of this process; wall time where the system does not say.
fn time() -> Duration {
    static BEGUN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    let begun = BEGUN.get_or_init(Instant::now);
    measure::cpu_time().unwrap_or_else(|| begun.elapsed())
}

fn row(
    gpu: &Gpu,
    records: &[TokenRecord],
    vocab_size: usize,
    context: usize,
) -> Result<[String; 6]> {
    let config = config(vocab_size);
    let capacity = 2 * PAIRS * context;
    let mut shared = Side::new(gpu, &config, capacity)?;
    let mut separate = Side::new(gpu, &config, capacity)?;
    for pairs in records.chunks_exact(PAIRS).take(UPDATES) {
        shared.update(pairs)?;
        let pairs: Vec<TokenRecord> = pairs.iter().map(apart).collect();
        separate.update(&pairs)?;
    }
    ensure!(shared.losses.len() == UPDATES, "{} records", records.len());
    let tokens = separate.tokens as f64 / shared.tokens as f64;
    let gain = separate.time.as_secs_f64() / shared.time.as_secs_f64();
    let differences = shared.losses.iter().zip(&separate.losses);
    let difference = differences.fold(0.0, |most: f32, (a, b)| most.max((a - b).abs()));
    Ok([
        context.to_string(),
        format!("{:.0}", shared.tokens as f64 / (UPDATES - 1) as f64),
        format!("{tokens:.2}"),
        format!("{gain:.2}"),
        format!("{:.0} %", 100.0 * gain / tokens),
        format!("{difference:.1e}"),
    ])
}

fn run() -> Result<()> {
    let mut paths = std::env::args()
        .skip(1)
        .filter(|part| !part.starts_with('-'));
    let usage = "cargo bench --bench sharing -- FILE TOKENIZER.json";
    let (Some(file), Some(tokenizer)) = (paths.next(), paths.next()) else {
        println!("skipped: {usage}, with a file of preferences and a tokenizer");
        return Ok(());
    };
    let tokenizer = HfTokenizer::load(Path::new(&tokenizer)).context(usage)?;
    let read = read_records(
        open_records(Path::new(&file))?,
        &file,
        ReadOptions::default(),
    )?;
    let gpu = Gpu::new()?;
    println!("{} ({:?}); {file}", gpu.variants(), gpu.info().device_type);
    let mut table = table_of(
        [
            "context",
            "tokens an update",
            "ratio of tokens",
            "ratio of times",
            "of it",
            "losses differ by",
        ],
        0,
    );
    let vocab_size = tokenizer.vocab_size();
    for context in CONTEXTS {
        let options = TokeniseOptions {
            context,
            vocab_size,
            for_scoring: false,
            boundary: Boundary::Longest,
        };
        let tokenised = tokenise(&read.records, &file, &tokenizer, options)?;
        table.add_row(row(&gpu, &tokenised.records, vocab_size, context)?);
    }
    println!("{table}");
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
