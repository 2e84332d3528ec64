//! What reads GPT-2's table of tokens: the embedding, and the language head with its losses.

use prefgrad::data::batch::{NONE, RowList, Target};
use prefgrad::kernels::Size;
use prefgrad::kernels::nn::cross_entropy::{
    CrossEntropyGradients, CrossEntropyIo, HeadWindow, cross_entropy,
};
use prefgrad::kernels::nn::embedding::{
    EmbeddingBackwardIo, EmbeddingIo, Positions, Window, embedding_backward, embedding_forward,
};
use prefgrad::kernels::policy::token_logprob::{
    TokenLogprobBackwardIo, TokenLogprobIo, token_logprob_backward, token_logprob_forward,
};
use prefgrad::kernels::policy::{TokenGradient, TokenLogprob};
use prefgrad::{Plan, Result, Tensor};

use super::{Data, Pass, below, work};
use crate::work::Work;

const VOCABULARY: usize = 50_257;
const WIDTH: usize = 768;
const ROWS: usize = 8192;
const CONTEXT: usize = 1024;
const TARGETS: usize = 2048;
/// Targets at a time: all, and as many as fit the 64 MiB of logits that a policy takes by default.
const CHUNKS: [usize; 2] = [TARGETS, 333];

pub fn works() -> Vec<Work> {
    let mut works: Vec<Work> = Pass::BOTH
        .map(|pass| {
            let name = format!("{} {ROWS} rows of {VOCABULARY}x{WIDTH}", pass.name());
            work("nn.embedding", name, move |data| match pass {
                Pass::Forward => embedded(data),
                Pass::Backward => embedding_gradient(data),
            })
        })
        .into();
    type Build = fn(&Data, usize) -> Result<Plan>;
    let losses: [(&'static str, Build); 2] = [
        ("nn.cross_entropy", cross_entropies),
        ("policy.token_logprob", logprobs),
    ];
    for (kernel, build) in losses {
        works.extend(CHUNKS.map(|chunk| {
            let name = format!("{TARGETS} targets of {VOCABULARY}x{WIDTH}, {chunk} at once");
            work(kernel, name, move |data| build(data, chunk))
        }));
    }
    works
}

fn embedded(data: &Data) -> Result<Plan> {
    let positions: Vec<u32> = (0..ROWS).map(|row| (row % CONTEXT) as u32).collect();
    let io = EmbeddingIo {
        tokens: &data.list("tokens", &below(VOCABULARY, ROWS))?,
        token_table: &data.random("token table", &[VOCABULARY, WIDTH])?,
        positions: Some(Positions {
            ids: &data.list("positions", &positions)?,
            table: &data.random("position table", &[CONTEXT, WIDTH])?,
        }),
        out: &data.zeros("out", &[ROWS, WIDTH])?,
        counts: None,
    };
    let mut plan = data.plan();
    embedding_forward(&mut plan, &io, Size::fixed(ROWS), Window::whole(VOCABULARY))?;
    Ok(plan)
}

fn embedding_gradient(data: &Data) -> Result<Plan> {
    let tokens = below(VOCABULARY, ROWS);
    let mut rows: Vec<u32> = (0..ROWS as u32).collect();
    rows.sort_by_key(|&row| tokens[row as usize]);
    let lists = lists(rows.iter().map(|&row| tokens[row as usize]));
    let io = EmbeddingBackwardIo {
        lists: &data.list("lists", &lists)?,
        list_rows: &data.list("list rows", &rows)?,
        dout: &data.random("dout", &[ROWS, WIDTH])?,
        dtable: &data.zeros("dtable", &[VOCABULARY, WIDTH])?,
        counts: None,
    };
    let (lists, window) = (Size::fixed(lists.len()), Window::whole(VOCABULARY));
    let mut plan = data.plan();
    embedding_backward(&mut plan, &io, lists, window)?;
    Ok(plan)
}

/// A list for each run of equal ids.
fn lists(ids: impl Iterator<Item = u32>) -> Vec<RowList> {
    let mut lists: Vec<RowList> = Vec::new();
    for (start, id) in (0..).zip(ids) {
        let end = start + 1;
        match lists.last_mut() {
            Some(list) if list.id == id => list.end = end,
            _ => lists.push(RowList {
                id,
                start,
                end,
                pad: 0,
            }),
        }
    }
    lists
}

/// The tensors of a language head, a target for every row.
struct Head {
    hidden: Tensor,
    weight: Tensor,
    dweight: Tensor,
    targets: Tensor,
    target_lists: Tensor,
    gathered: Tensor,
    logits: Tensor,
    dgathered: Tensor,
    dhidden: Tensor,
}

impl Head {
    fn new(data: &Data, chunk: usize) -> Result<Self> {
        let (head, hidden) = ([VOCABULARY, WIDTH], [TARGETS, WIDTH]);
        let target = |(row, token)| Target {
            row,
            token,
            answer: NONE,
            weight: 1.0,
        };
        let targets = (0..).zip(below(VOCABULARY, TARGETS)).map(target);
        let lists = lists(0..TARGETS as u32);
        Ok(Self {
            hidden: data.random("hidden", &hidden)?,
            weight: data.random("head", &head)?,
            dweight: data.zeros("dhead", &head)?,
            targets: data.list("targets", &targets.collect::<Vec<_>>())?,
            target_lists: data.list("target lists", &lists)?,
            gathered: data.zeros("gathered", &[chunk, WIDTH])?,
            logits: data.zeros("logits", &[chunk, VOCABULARY.next_multiple_of(4)])?,
            dgathered: data.zeros("dgathered", &hidden)?,
            dhidden: data.zeros("dhidden", &hidden)?,
        })
    }

    fn window(&self) -> HeadWindow<'_> {
        HeadWindow {
            weight: &self.weight,
            dweight: Some(&self.dweight),
            first_row: 0,
        }
    }
}

fn cross_entropies(data: &Data, chunk: usize) -> Result<Plan> {
    let head = Head::new(data, chunk)?;
    let io = CrossEntropyIo {
        hidden: &head.hidden,
        head_windows: &[head.window()],
        targets: &head.targets,
        gathered: &head.gathered,
        logits: &head.logits,
        logprobs: &data.zeros("logprobs", &[TARGETS])?,
        gradients: Some(CrossEntropyGradients {
            target_lists: &head.target_lists,
            dgathered: &head.dgathered,
            dhidden: &head.dhidden,
        }),
        counts: None,
    };
    let mut plan = data.plan();
    cross_entropy(&mut plan, &io, 1.0 / TARGETS as f32)?;
    Ok(plan)
}

fn logprobs(data: &Data, chunk: usize) -> Result<Plan> {
    let head = Head::new(data, chunk)?;
    let gradient = TokenGradient {
        dlogprob: -1.0 / TARGETS as f32,
        dentropy: 0.1 / TARGETS as f32,
    };
    let io = TokenLogprobBackwardIo {
        forward: TokenLogprobIo {
            hidden: &head.hidden,
            head_windows: &[head.window()],
            targets: &head.targets,
            gathered: &head.gathered,
            logits: &head.logits,
            logprobs: &Tensor::zeros::<TokenLogprob>(&data.gpu, "logprobs", &[TARGETS])?,
            counts: None,
        },
        gradients: &data.list("gradients", &[gradient; TARGETS])?,
        target_lists: &head.target_lists,
        dgathered: &head.dgathered,
        dhidden: &head.dhidden,
    };
    let mut plan = data.plan();
    token_logprob_forward(&mut plan, &io.forward, 1.0)?;
    token_logprob_backward(&mut plan, &io, 1.0)?;
    Ok(plan)
}
