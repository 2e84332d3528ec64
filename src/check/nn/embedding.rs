//! Cases of `nn.embedding`.

use crate::Result;
use crate::check::support::{expect_start, live_unless, partly_written, wide};
use crate::check::{Case, Purpose, Trial, values};
use crate::data::batch::{Counts, RowList};
use crate::gpu::{Gpu, Tensor};
use crate::kernels::nn::embedding::{
    EmbeddingBackwardIo, EmbeddingIo, Positions, Window, embedding_backward, embedding_forward,
};
use crate::kernels::{Count, Size};
use crate::reference::nn::embedding as reference;

const BOUND: f64 = 1e-5;

/// Which tokens occur.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Tokens {
    /// Any, a few of them several times.
    Mixed,
    /// One token in nearly every row.
    Common,
    /// Another one in every row.
    Distinct,
}

#[derive(Debug, Clone, Copy)]
struct Spec {
    rows: usize,
    live: usize,
    vocabulary: usize,
    columns: usize,
    tokens: Tokens,
    /// The largest window of the token table, in bytes; the device's limit where 0.
    window_bytes: u64,
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (rows, live, vocabulary, columns) in [
        (1, 1, 1, 1),
        (7, 7, 3, 4),
        (65, 65, 50, 33),
        (64, 64, 300, 64),
        (130, 130, 97, 20),
        (200, 131, 97, 20),
        (200, 131, 97, 7),
        (200, 0, 97, 8),
        (33, 33, 50, 768),
    ] {
        let spec = Spec {
            rows,
            live,
            vocabulary,
            columns,
            tokens: Tokens::Mixed,
            window_bytes: 0,
        };
        cases.extend(all(spec, Purpose::Answer));
        // Three windows or more.
        if vocabulary > 40 {
            let window_bytes = 4 * (vocabulary * columns / 3) as u64;
            let spec = Spec {
                window_bytes,
                ..spec
            };
            cases.extend(all(spec, Purpose::Answer));
        }
    }
    for (tokens, rows, vocabulary, columns) in [
        (Tokens::Common, 20_000, 10, 5),
        (Tokens::Common, 20_000, 10, 8),
        // More workgroups than a dimension of a dispatch takes.
        (Tokens::Distinct, 65_536 * 64 + 1, 65_536 * 64 + 1, 1),
    ] {
        let spec = Spec {
            rows,
            live: rows,
            vocabulary,
            columns,
            tokens,
            window_bytes: 0,
        };
        cases.extend(all(spec, Purpose::Answer));
    }
    let spec = Spec {
        rows: 2048,
        live: 2048,
        vocabulary: 8192,
        columns: 256,
        tokens: Tokens::Mixed,
        window_bytes: 0,
    };
    cases.extend(all(spec, Purpose::Timing));
    cases
}

fn all(spec: Spec, purpose: Purpose) -> Vec<Case> {
    let Spec {
        rows,
        live,
        vocabulary,
        columns,
        tokens,
        window_bytes,
    } = spec;
    let windows = if window_bytes > 0 { " in windows" } else { "" };
    let name =
        format!("{live} of {rows} from {vocabulary}x{columns} {tokens:?}{windows}").to_lowercase();
    let forward = move |gpu: &Gpu| build_forward(gpu, spec, true);
    let alone = move |gpu: &Gpu| build_forward(gpu, spec, false);
    let backward = move |gpu: &Gpu| build_backward(gpu, spec);
    let kernel = "nn.embedding";
    let plain = format!("forward without positions {name}");
    vec![
        Case::new(kernel, format!("forward {name}"), purpose, forward),
        Case::new(kernel, plain, purpose, alone),
        Case::new(kernel, format!("backward {name}"), purpose, backward),
    ]
}

impl Spec {
    fn contexts(self) -> usize {
        self.rows.min(70)
    }

    fn tokens(self) -> Vec<u32> {
        let token = |(i, x): (usize, f32)| match self.tokens {
            Tokens::Mixed => ((x + 1.0) / 2.0 * self.vocabulary as f32) as u32,
            Tokens::Common if i % 1000 == 999 => (i / 1000 % self.vocabulary) as u32,
            Tokens::Common => 3,
            Tokens::Distinct => i as u32,
        };
        let last = self.vocabulary as u32 - 1;
        let draws = values(1, self.rows, 1.0).into_iter().enumerate();
        draws.map(|draw| token(draw).min(last)).collect()
    }

    fn positions(self) -> Vec<u32> {
        (0..self.rows)
            .map(|i| (i % self.contexts()) as u32)
            .collect()
    }

    fn size(self, capacity: usize, field: Count) -> Size {
        live_unless(self.live == self.rows, capacity, field)
    }

    fn windows(self, gpu: &Gpu) -> Result<Vec<Window>> {
        match self.window_bytes {
            0 => Window::cover(gpu, self.vocabulary, self.columns),
            bytes => Window::cover_within(gpu, self.vocabulary, self.columns, bytes),
        }
    }
}

fn build_forward(gpu: &Gpu, spec: Spec, with_positions: bool) -> Result<Trial> {
    let (rows, columns) = (spec.rows, spec.columns);
    let (tokens, positions) = (spec.tokens(), spec.positions());
    let token_table = values(2, spec.vocabulary * columns, 1.0);
    let position_table = values(3, spec.contexts() * columns, 1.0);
    let mut trial = Trial::new(gpu);
    let counts = Counts {
        tokens: spec.live as u32,
        ..Counts::default()
    };
    let contexts = [spec.contexts(), columns];
    let io_positions = Positions {
        ids: &Tensor::from_slice(gpu, "positions", &[rows], &positions)?,
        table: &trial.input("position table", &contexts, &position_table)?,
    };
    let io = EmbeddingIo {
        tokens: &Tensor::from_slice(gpu, "tokens", &[rows], &tokens)?,
        token_table: &trial.input("token table", &[spec.vocabulary, columns], &token_table)?,
        positions: with_positions.then_some(io_positions),
        out: &partly_written(&mut trial, "out", &[rows, columns])?,
        counts: Some(&Tensor::from_slice(gpu, "counts", &[1], &[counts])?),
    };
    for window in spec.windows(gpu)? {
        let size = spec.size(rows, Count::Tokens);
        embedding_forward(&mut trial.plan, &io, size, window)?;
    }
    let position_table = wide(&position_table);
    let reference_positions = reference::Positions {
        ids: &positions[..spec.live],
        table: &position_table,
    };
    let expected = reference::embedding_forward(
        &tokens[..spec.live],
        &wide(&token_table),
        with_positions.then_some(reference_positions),
        columns,
    );
    expect_start(&mut trial, io.out, expected, BOUND)?;
    Ok(trial)
}

/// The lists of equal ids, ids ascending, and the rows of all of them.
fn row_lists(ids: &[u32]) -> (Vec<RowList>, Vec<u32>) {
    let mut rows: Vec<u32> = (0..ids.len() as u32).collect();
    rows.sort_by_key(|&row| ids[row as usize]);
    let mut lists: Vec<RowList> = Vec::new();
    for (i, &row) in rows.iter().enumerate() {
        let (id, end) = (ids[row as usize], i as u32 + 1);
        match lists.last_mut() {
            Some(list) if list.id == id => list.end = end,
            _ => lists.push(RowList {
                id,
                start: i as u32,
                end,
                pad: 0,
            }),
        }
    }
    (lists, rows)
}

fn build_backward(gpu: &Gpu, spec: Spec) -> Result<Trial> {
    let (rows, columns) = (spec.rows, spec.columns);
    let (tokens, positions) = (spec.tokens(), spec.positions());
    let dout = values(4, rows * columns, 1.0);
    let mut trial = Trial::new(gpu);
    let dout_tensor = trial.input("dout", &[rows, columns], &dout)?;
    let live_dout = wide(&dout[..spec.live * columns]);
    let expected = |ids: &[u32], height| {
        reference::embedding_backward(&ids[..spec.live], &live_dout, height, columns)
    };
    let (token_lists, token_rows) = row_lists(&tokens[..spec.live]);
    let (position_lists, position_rows) = row_lists(&positions[..spec.live]);
    let counts = Counts {
        token_lists: token_lists.len() as u32,
        position_lists: position_lists.len() as u32,
        ..Counts::default()
    };
    let counts = Tensor::from_slice(gpu, "counts", &[1], &[counts])?;
    let tables = [
        (
            "token",
            spec.vocabulary,
            spec.windows(gpu)?,
            (token_lists, token_rows, Count::TokenLists),
            expected(&tokens, spec.vocabulary),
        ),
        (
            "position",
            spec.contexts(),
            vec![Window::whole(spec.contexts())],
            (position_lists, position_rows, Count::PositionLists),
            expected(&positions, spec.contexts()),
        ),
    ];
    for (name, height, windows, (mut lists, list_rows, field), expected) in tables {
        // Lists past the live ones, which must not be followed.
        let size = if spec.live == rows {
            Size::fixed(lists.len())
        } else {
            let last = RowList {
                id: 0,
                start: 0,
                end: 2,
                pad: 0,
            };
            lists.resize(rows, last);
            spec.size(rows, field)
        };
        let before = values(5, height * columns, 1.0);
        let label = format!("d{name} table");
        let io = EmbeddingBackwardIo {
            lists: &Tensor::from_slice(gpu, "lists", &[lists.len()], &lists)?,
            list_rows: &Tensor::from_slice(gpu, "list rows", &[list_rows.len()], &list_rows)?,
            dout: &dout_tensor,
            dtable: &trial.output(&label, &[height, columns], &before)?,
            counts: Some(&counts),
        };
        for window in windows {
            embedding_backward(&mut trial.plan, &io, size, window)?;
        }
        let before = wide(&before);
        let after = before.iter().zip(expected).map(|(a, b)| a + b).collect();
        trial.expect(io.dtable, after, BOUND);
    }
    Ok(trial)
}
