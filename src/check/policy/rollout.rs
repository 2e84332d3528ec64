//! A made-up rollout, laid out as a packed batch has it, and structs between sentinels.

use crate::Result;
use crate::check::{Trial, values};
use crate::data::batch::{NONE, RowList, Target};
use crate::gpu::{Element, Tensor};
use crate::reference::policy::experience::Token;

/// Responses to one prompt.
const GROUP: usize = 3;
/// Targets within a prompt, which belong to no answer.
const PROMPT: usize = 2;

/// Targets and lists of responses, three to a prompt.
pub(super) struct Rollout {
    pub lists: Vec<RowList>,
    pub rows: Vec<u32>,
    pub targets: Vec<Target>,
}

impl Rollout {
    /// Responses of these lengths: `[prompt | first token of each | the rest of each]`, next
    /// group. Weights are between 0.75 and 1.25, the last of every fifth response 0.
    pub fn new(lengths: &[usize]) -> Self {
        let mut own = vec![Vec::new(); lengths.len()];
        let mut targets = Vec::new();
        let mut push = |answer: u32| {
            let index = targets.len() as u32;
            targets.push(Target {
                row: index,
                token: 7,
                answer,
                weight: 1.0,
            });
            index
        };
        for (group, lengths) in lengths.chunks(GROUP).enumerate() {
            (0..PROMPT).for_each(|_| _ = push(NONE));
            let answers = (group * GROUP..).zip(lengths);
            for (answer, _) in answers.clone().filter(|(_, len)| **len > 0) {
                own[answer].push(push(answer as u32));
            }
            for (answer, &len) in answers {
                own[answer].extend((1..len).map(|_| push(answer as u32)));
            }
        }
        let weights = values(21, targets.len(), 0.25);
        for (target, weight) in targets.iter_mut().zip(weights) {
            target.weight += weight;
        }
        let mut lists = Vec::new();
        let mut rows = Vec::new();
        for (id, own) in (0..).zip(&own) {
            let start = rows.len() as u32;
            rows.extend_from_slice(own);
            lists.push(RowList {
                id,
                start,
                end: rows.len() as u32,
                pad: 0,
            });
            if let (0, Some(&last)) = (id % 5, own.last()) {
                targets[last as usize].weight = 0.0;
            }
        }
        // A batch has room for as many rows as for targets.
        rows.resize(targets.len(), NONE);
        Self {
            lists,
            rows,
            targets,
        }
    }

    /// The targets of a response in the order of its tokens.
    pub fn of(&self, response: usize) -> impl Iterator<Item = usize> {
        let list = &self.lists[response];
        let rows = &self.rows[list.start as usize..list.end as usize];
        rows.iter().map(|&n| n as usize)
    }

    /// The tokens of a response.
    pub fn tokens(&self, response: usize, of: impl Fn(usize) -> Token) -> Vec<Token> {
        self.of(response).map(of).collect()
    }

    /// Lists and rows on the device.
    pub fn upload(&self, trial: &Trial) -> Result<[Tensor; 2]> {
        let gpu = trial.plan.gpu();
        Ok([
            Tensor::from_slice(gpu, "answer_lists", &[self.lists.len()], &self.lists)?,
            Tensor::from_slice(gpu, "answer_rows", &[self.rows.len()], &self.rows)?,
        ])
    }
}

/// Structs between sentinels: as the kernels take them, and as words to compare.
pub(super) struct Structs {
    pub tensor: Tensor,
    words: Tensor,
}

impl Structs {
    /// What kernels only read.
    pub fn input<T: Element>(trial: &mut Trial, label: &str, values: &[T]) -> Result<Self> {
        let words: &[f32] = bytemuck::cast_slice(values);
        let tensor = trial.input(label, &rows_of::<T>(words), words)?;
        Self::over::<T>(tensor, &[values.len()])
    }

    /// What kernels write, with what it holds before.
    pub fn output<T: Element>(
        trial: &mut Trial,
        label: &str,
        shape: &[usize],
        before: &[T],
    ) -> Result<Self> {
        let words: &[f32] = bytemuck::cast_slice(before);
        let tensor = trial.output(label, &rows_of::<T>(words), words)?;
        Self::over::<T>(tensor, shape)
    }

    fn over<T: Element>(words: Tensor, shape: &[usize]) -> Result<Self> {
        let (buffer, offset) = (words.buffer().clone(), words.offset_bytes());
        Ok(Self {
            tensor: Tensor::from_buffer::<T>(words.label(), buffer, offset, shape)?,
            words,
        })
    }

    /// Expects each field that `bounds` names to equal that of `expected` within its bound, and
    /// the others to the bit.
    pub fn expect<T: Element>(&self, trial: &mut Trial, expected: &[T], bounds: &[(usize, f64)]) {
        let words: &[f32] = bytemuck::cast_slice(expected);
        let [_, width] = rows_of::<T>(words);
        for column in 0..width {
            let of_column = words.iter().skip(column).step_by(width);
            let values = of_column.map(|&x| x.into()).collect();
            let bound = bounds.iter().find(|(named, _)| *named == column);
            let bound = bound.map_or(0.0, |(_, bound)| *bound);
            trial.expect_column(
                &format!("field {column}"),
                &self.words,
                column,
                values,
                bound,
            );
        }
    }
}

/// The shape of words as a struct a row.
fn rows_of<T>(words: &[f32]) -> [usize; 2] {
    let width = size_of::<T>() / size_of::<f32>();
    [words.len() / width, width]
}
