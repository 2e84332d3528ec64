//! Generation without a cache: the whole of every sequence through the model for each token.

use prefgrad::data::{Capacity, PackOptions, TokenRecord, pack_all};
use prefgrad::kernels::Size;
use prefgrad::kernels::nn::copy_rows::{CopyRowsIo, RowCopy, copy_rows};
use prefgrad::kernels::nn::matmul::{Epilogue, Layout, MatmulIo, MatmulSizes, Matrix, matmul};
use prefgrad::model::{DeviceBatch, ModelConfig, Parameters, Purpose, Trunk, head_windows};
use prefgrad::{Gpu, Plan, Result, Tensor};

/// A forward pass over whole sequences to the logits behind their last tokens.
pub struct Uncached {
    gpu: Gpu,
    vocabulary: usize,
    batch: DeviceBatch,
    last_rows: Tensor,
    logits: Tensor,
    plan: Plan,
}

impl Uncached {
    /// Records the pass for exactly `sequences` sequences of at most `tokens` tokens together.
    pub fn new(
        gpu: &Gpu,
        config: &ModelConfig,
        parameters: &Parameters,
        sequences: usize,
        tokens: usize,
    ) -> Result<Self> {
        let capacity = Capacity {
            tokens,
            segments: sequences,
            answers: sequences,
            ..Capacity::default()
        };
        let batch = DeviceBatch::new(gpu, capacity)?;
        let trunk = Trunk::new(gpu, config, capacity, Purpose::Score)?;
        let last_rows = Tensor::zeros::<RowCopy>(gpu, "last rows", &[sequences])?;
        let hidden = Tensor::zeros::<f32>(gpu, "last hidden", &[sequences, config.hidden_size])?;
        let stride = config.vocab_size.next_multiple_of(4);
        let logits = Tensor::zeros::<f32>(gpu, "logits", &[sequences, stride])?;
        let mut plan = Plan::new(gpu);
        trunk.forward(&mut plan, parameters, &batch)?;
        let io = CopyRowsIo {
            rows: trunk.hidden(),
            column: 0,
            copies: &last_rows,
            out: &hidden,
            counts: None,
        };
        copy_rows(&mut plan, &io, Size::fixed(sequences))?;
        for window in head_windows(config, parameters)? {
            let io = MatmulIo {
                a: Matrix::whole(&hidden),
                b: Matrix::whole(window.weight),
                out: Matrix::from_column(&logits, window.first_row),
                epilogue: Epilogue::Store,
                counts: None,
            };
            let sizes = MatmulSizes {
                layout: Layout::Nt,
                m: Size::fixed(sequences),
                n: window.weight.shape()[0],
                k: Size::fixed(config.hidden_size),
            };
            matmul(&mut plan, &io, &sizes)?;
        }
        Ok(Self {
            gpu: gpu.clone(),
            vocabulary: config.vocab_size,
            batch,
            last_rows,
            logits,
            plan,
        })
    }

    /// The logits behind each sequence's last token.
    pub fn logits(&self, sequences: &[Vec<u32>]) -> Result<Vec<Vec<f32>>> {
        let records: Vec<TokenRecord> = sequences
            .iter()
            .map(|sequence| TokenRecord {
                line: 1,
                prompt: vec![],
                answers: vec![sequence.clone()],
                preferences: vec![],
            })
            .collect();
        let options = PackOptions {
            with_pairs: false,
            ..PackOptions::default()
        };
        let batches = pack_all(&records, self.batch.capacity, options)?;
        assert_eq!(batches.len(), 1, "one batch holds the sequences");
        let last_rows: Vec<RowCopy> = (0..)
            .zip(&batches[0].answers)
            .map(|(destination, answer)| RowCopy {
                source: answer.pooled_row,
                destination,
            })
            .collect();
        self.batch.upload(&self.gpu, &batches[0])?;
        self.last_rows.write(&self.gpu, &last_rows)?;
        self.plan.submit();
        let logits: Vec<f32> = self.logits.read(&self.gpu)?;
        let rows = logits.chunks(self.vocabulary.next_multiple_of(4));
        Ok(rows.map(|row| row[..self.vocabulary].to_vec()).collect())
    }

    /// The likeliest `new_tokens` tokens behind each prompt.
    pub fn greedy(&self, prompts: &[Vec<u32>], new_tokens: usize) -> Result<Vec<Vec<u32>>> {
        let mut sequences = prompts.to_vec();
        for _ in 0..new_tokens {
            let rows = self.logits(&sequences)?;
            for (sequence, row) in sequences.iter_mut().zip(rows) {
                sequence.push(likeliest(&row));
            }
        }
        Ok(sequences
            .iter()
            .zip(prompts)
            .map(|(sequence, prompt)| sequence[prompt.len()..].to_vec())
            .collect())
    }
}

/// The first of the largest logits.
fn likeliest(logits: &[f32]) -> u32 {
    let better = |best: (u32, f32), (token, &z): (u32, &f32)| {
        if z > best.1 { (token, z) } else { best }
    };
    (0..).zip(logits).fold((0, f32::MIN), better).0
}
