//! Work of a GPU's size, built from the public kernels with random numbers; answers are not checked.

mod optim;
mod products;
mod rows;
mod tables;

use prefgrad::check::values;
use prefgrad::kernels::Size;
use prefgrad::kernels::nn::copy_rows::{CopyRowsIo, RowCopy, copy_rows};
use prefgrad::kernels::reduce::fill::fill;
use prefgrad::{Gpu, Plan, Result, Tensor};

use crate::work::Work;

/// Random numbers made on the host, 16 MiB; larger tensors repeat them.
const BLOCK: usize = 1 << 22;
/// 256 MiB of numbers.
const MOVED: usize = 1 << 26;

/// All of it.
pub fn works() -> Vec<Work> {
    let mut works = products::works();
    works.extend(rows::works());
    works.extend(tables::works());
    works.extend(optim::works());
    works.push(work("reduce.fill", "one workgroup", |data| filled(data, 4)));
    works.push(work("reduce.fill", "256 MiB", |data| filled(data, MOVED)));
    works.push(work(
        "nn.copy_rows",
        "256 MiB, rows of 1024 in reverse",
        |data| copied(data, MOVED / 1024, 1024),
    ));
    works
}

fn work(
    kernel: &'static str,
    name: impl Into<String>,
    build: impl Fn(&Data) -> Result<Plan> + 'static,
) -> Work {
    Work::new(kernel, name, move |gpu| Ok(build(&Data::new(gpu)?)?))
}

/// Forward or backward pass of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    Forward,
    Backward,
}

impl Pass {
    const BOTH: [Self; 2] = [Self::Forward, Self::Backward];

    fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Backward => "backward",
        }
    }
}

/// A device, and random numbers on it that tensors are filled with.
struct Data {
    gpu: Gpu,
    block: Tensor,
}

impl Data {
    fn new(gpu: &Gpu) -> Result<Self> {
        Ok(Self {
            gpu: gpu.clone(),
            block: Tensor::from_slice(gpu, "block", &[BLOCK], &values(1, BLOCK, 1.0))?,
        })
    }

    fn plan(&self) -> Plan {
        Plan::new(&self.gpu)
    }

    /// Numbers in [-1, 1).
    fn random(&self, label: &str, shape: &[usize]) -> Result<Tensor> {
        let tensor = self.zeros(label, shape)?;
        let mut encoder = self
            .gpu
            .device()
            .create_command_encoder(&Default::default());
        let step = self.block.bytes();
        for start in (0..tensor.bytes()).step_by(BLOCK * size_of::<f32>()) {
            let bytes = step.min(tensor.bytes() - start);
            encoder.copy_buffer_to_buffer(self.block.buffer(), 0, tensor.buffer(), start, bytes);
        }
        self.gpu.queue().submit([encoder.finish()]);
        Ok(tensor)
    }

    /// A tensor that is written.
    fn zeros(&self, label: &str, shape: &[usize]) -> Result<Tensor> {
        Tensor::zeros::<f32>(&self.gpu, label, shape)
    }

    /// Whole numbers, or structs of them.
    fn list<T: prefgrad::Element>(&self, label: &str, list: &[T]) -> Result<Tensor> {
        Tensor::from_slice(&self.gpu, label, &[list.len()], list)
    }
}

/// `len` whole numbers below `limit`.
fn below(limit: usize, len: usize) -> Vec<u32> {
    let number = |x: &f32| ((x + 1.0) / 2.0 * limit as f32) as u32;
    let numbers = values(2, len, 1.0);
    numbers
        .iter()
        .map(|x| number(x).min(limit as u32 - 1))
        .collect()
}

fn filled(data: &Data, len: usize) -> Result<Plan> {
    let mut plan = data.plan();
    fill(&mut plan, &data.zeros("out", &[len])?, 1.0)?;
    Ok(plan)
}

fn copied(data: &Data, rows: usize, columns: usize) -> Result<Plan> {
    let copies: Vec<RowCopy> = (0..rows as u32)
        .map(|row| RowCopy {
            source: row,
            destination: rows as u32 - 1 - row,
        })
        .collect();
    let io = CopyRowsIo {
        rows: &data.random("rows", &[rows, columns])?,
        column: 0,
        copies: &data.list("copies", &copies)?,
        out: &data.zeros("out", &[rows, columns])?,
        counts: None,
    };
    let mut plan = data.plan();
    copy_rows(&mut plan, &io, Size::fixed(rows))?;
    Ok(plan)
}
