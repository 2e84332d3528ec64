//! Embeddings of tokens and of learned positions: `shaders/nn/embedding.wgsl`.

use crate::data::batch::RowList;
use crate::gpu::{
    Binding, Cost, Dispatch, Gpu, Lib, Params, Plan, Shader, Tensor, Variant, device_struct,
};
use crate::kernels::operand::{Operand, bind_operands, operand};
use crate::kernels::{DISPATCH, Size, columns_lib, expect_shape, lib, live_lib, shader, to_u32};
use crate::{Error, Result};

/// The kernel's text.
pub const SHADER: Shader = shader!("nn.embedding", "nn/embedding.wgsl", Core);

const OP: &str = "nn.embedding";
const OPERANDS: [&Operand; 2] = [
    operand!("position_table", 5, "Columns"),
    operand!("dout", 9, "Columns"),
];
/// Staged where it is at most `STAGED_TABLE` times as long as what is looked up in it.
const TOKEN_TABLE: &Operand = operand!("token_table", 4, "Columns");
const STAGED_TABLE: usize = 4;
const THREADS: usize = 64;
const LEARNED_POSITIONS: &Lib = lib!(
    "lib.embedding.learned_positions",
    "embedding/learned_positions.wgsl"
);
const NO_POSITIONS: &Lib = lib!("lib.embedding.no_positions", "embedding/no_positions.wgsl");

/// Some consecutive rows of a table, few enough for one binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// The first row.
    pub first_row: usize,
    /// How many rows.
    pub rows: usize,
}

impl Window {
    /// All of a table of `rows` rows.
    pub fn whole(rows: usize) -> Self {
        Self { first_row: 0, rows }
    }

    /// Windows that cover a table of `rows` rows of `columns` values, each as large as a binding
    /// of this device may be.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`] where a binding takes too few rows to keep to the offset alignment.
    pub fn cover(gpu: &Gpu, rows: usize, columns: usize) -> Result<Vec<Self>> {
        let limits = gpu.limits();
        let limit = limits.max_storage_buffer_binding_size;
        Self::cover_within(gpu, rows, columns, limit)
    }

    /// [`Window::cover`] with windows of at most `limit` bytes.
    ///
    /// # Errors
    ///
    /// As [`Window::cover`].
    pub fn cover_within(gpu: &Gpu, rows: usize, columns: usize, limit: u64) -> Result<Vec<Self>> {
        let alignment = u64::from(gpu.limits().min_storage_buffer_offset_alignment);
        let row_bytes = 4 * columns.max(1) as u64;
        // A power of two: the number of rows after which offsets are aligned again.
        let step = alignment / alignment.min(1 << row_bytes.trailing_zeros().min(31));
        let fitting = (limit / row_bytes) / step * step;
        if fitting == 0 {
            return Err(Error::Limit {
                what: "a window of an embedding table".into(),
                needed: step * row_bytes,
                limit_name: "maxStorageBufferBindingSize",
                limit,
                hint: "use a smaller width",
            });
        }
        let fitting = usize::try_from(fitting).unwrap_or(usize::MAX);
        let windows = (0..rows).step_by(fitting).map(|first_row| Self {
            first_row,
            rows: fitting.min(rows - first_row),
        });
        Ok(windows.collect())
    }

    fn of(self, name: &str, table: &Tensor, columns: usize) -> Result<Tensor> {
        table.expect_element::<f32>()?;
        match *table.shape() {
            [rows, width] if width == columns && rows == self.rows => Ok(table.clone()),
            [rows, width] if width == columns && self.first_row + self.rows <= rows => table
                .window(
                    table.label(),
                    self.first_row * columns,
                    &[self.rows, columns],
                ),
            _ => Err(Error::shape(
                OP,
                format!(
                    "{name} is `{}` {:?}, expected rows {}..{} of {columns} columns",
                    table.label(),
                    table.shape(),
                    self.first_row,
                    self.first_row + self.rows
                ),
            )),
        }
    }
}

/// Learned embeddings of positions.
#[derive(Debug, Clone, Copy)]
pub struct Positions<'a> {
    /// (rows) u32, each below the table's number of rows.
    pub ids: &'a Tensor,
    /// (contexts, C)
    pub table: &'a Tensor,
}

impl Positions<'_> {
    fn check(&self, rows: usize, columns: usize) -> Result<()> {
        expect_shape::<u32>(OP, "positions.ids", self.ids, &[rows])?;
        let contexts = self.table.shape().first().copied().unwrap_or(0);
        expect_shape::<f32>(OP, "positions.table", self.table, &[contexts, columns])
    }
}

/// The tensors of [`embedding_forward`].
#[derive(Debug, Clone, Copy)]
pub struct EmbeddingIo<'a> {
    /// (rows) u32
    pub tokens: &'a Tensor,
    /// (V, C): the whole table, or the window's rows alone.
    pub token_table: &'a Tensor,
    /// What is added for the positions; nothing where `None`.
    pub positions: Option<Positions<'a>>,
    /// (rows, C), written.
    pub out: &'a Tensor,
    /// The batch's counts, where the rows are live.
    pub counts: Option<&'a Tensor>,
}

/// The tensors of [`embedding_backward`].
#[derive(Debug, Clone, Copy)]
pub struct EmbeddingBackwardIo<'a> {
    /// (L) [`RowList`], one for each row of the table that occurs.
    pub lists: &'a Tensor,
    /// (N) u32: the rows of dout, list after list.
    pub list_rows: &'a Tensor,
    /// (rows, C): gradient of the forward's output.
    pub dout: &'a Tensor,
    /// (V, C): gradient of the whole table, or of the window's rows alone; added to.
    pub dtable: &'a Tensor,
    /// The batch's counts, where the number of lists is live.
    pub counts: Option<&'a Tensor>,
}

device_struct! {
    struct EmbeddingParams {
        items: u32,
        items_count: u32,
        columns: u32,
        window_first: u32,
        window_rows: u32,
        pad: [u32; 3],
    }
}

fn params(items: Size, columns: usize, window: Window) -> Result<EmbeddingParams> {
    to_u32(OP, items.capacity.saturating_mul(columns))?;
    Ok(EmbeddingParams {
        items: items.capacity_u32(OP)?,
        items_count: items.field(),
        columns: to_u32(OP, columns)?,
        window_first: to_u32(OP, window.first_row)?,
        window_rows: to_u32(OP, window.rows)?,
        pad: [0; 3],
    })
}

/// Appends `out[t] = token_table[tokens[t]]`, plus `positions.table[positions.ids[t]]` where there
/// are `positions`, for the live rows whose token lies in `window`; other rows are not written.
///
/// A table larger than a binding takes one call for each of [`Window::cover`].
///
/// # Errors
///
/// [`Error::Shape`] for shapes that do not agree, and what [`Plan::push`] refuses.
pub fn embedding_forward(
    plan: &mut Plan,
    io: &EmbeddingIo<'_>,
    rows: Size,
    window: Window,
) -> Result<()> {
    let [_, columns] = *io.out.shape() else {
        return Err(Error::shape(
            OP,
            format!("out is `{}` {:?}", io.out.label(), io.out.shape()),
        ));
    };
    expect_shape::<f32>(OP, "out", io.out, &[rows.capacity, columns])?;
    expect_shape::<u32>(OP, "tokens", io.tokens, &[rows.capacity])?;
    let token_table = window.of("token_table", io.token_table, columns)?;
    let params = params(rows, columns, window)?;
    let (live, counts) = live_lib(OP, &[rows], io.counts)?;
    let (access, groups) = columns_lib(columns);
    let mut bindings = vec![
        Binding::read(2, io.tokens),
        Binding::read(4, &token_table),
        Binding::write(6, io.out),
    ];
    let (of_positions, reads) = match &io.positions {
        None => (NO_POSITIONS, 1),
        Some(positions) => {
            positions.check(rows.capacity, columns)?;
            bindings.push(Binding::read(3, positions.ids));
            bindings.push(Binding::read(5, positions.table));
            (LEARNED_POSITIONS, 2)
        }
    };
    bindings.extend(counts);
    let mut libs = bind_operands(plan.gpu(), &OPERANDS, &mut bindings, groups < columns);
    let short = token_table.len() <= STAGED_TABLE * io.out.len();
    let token_libs = bind_operands(
        plan.gpu(),
        &[TOKEN_TABLE],
        &mut bindings,
        short && groups < columns,
    );
    libs.extend(token_libs);
    libs.extend([DISPATCH, live, access, of_positions]);
    plan.push(&Dispatch {
        label: "nn.embedding_forward",
        shader: &SHADER,
        variant: Variant {
            entry: "embedding_forward",
            libs: &libs,
            consts: &[],
        },
        params: Params::of(&params),
        bindings: &bindings,
        workgroups: (rows.capacity * groups).div_ceil(THREADS) as u64,
        cost: Cost {
            flops: io.out.len() as u64,
            bytes: 4 * ((reads + 1) * io.out.len() + reads * rows.capacity) as u64,
        },
    })
}

/// Appends `dtable[list.id] += Σ dout[row]` over the rows of each live list whose id lies in
/// `window`, in the order of the list.
///
/// For the token table the lists are by token, for the position table by position. No two live
/// lists may have the same id. One thread walks a list in steps of four rows; drivers that end
/// loops after 65,535 iterations (Mesa 22's software driver) serve lists of up to 200,000 rows.
///
/// # Errors
///
/// As [`embedding_forward`].
pub fn embedding_backward(
    plan: &mut Plan,
    io: &EmbeddingBackwardIo<'_>,
    lists: Size,
    window: Window,
) -> Result<()> {
    let [rows, columns] = *io.dout.shape() else {
        return Err(Error::shape(
            OP,
            format!("dout is `{}` {:?}", io.dout.label(), io.dout.shape()),
        ));
    };
    expect_shape::<f32>(OP, "dout", io.dout, &[rows, columns])?;
    expect_shape::<RowList>(OP, "lists", io.lists, &[lists.capacity])?;
    expect_shape::<u32>(OP, "list_rows", io.list_rows, &[io.list_rows.len()])?;
    let dtable = window.of("dtable", io.dtable, columns)?;
    let params = params(lists, columns, window)?;
    let (live, counts) = live_lib(OP, &[lists], io.counts)?;
    let (access, groups) = columns_lib(columns);
    let mut bindings = vec![
        Binding::read(7, io.lists),
        Binding::read(8, io.list_rows),
        Binding::read(9, io.dout),
        Binding::write(10, &dtable),
    ];
    bindings.extend(counts);
    let mut libs = bind_operands(plan.gpu(), &OPERANDS, &mut bindings, groups < columns);
    libs.extend([&TOKEN_TABLE.buffer, DISPATCH, live, access, NO_POSITIONS]);
    let changed = lists.capacity.min(window.rows) * columns;
    plan.push(&Dispatch {
        label: "nn.embedding_backward",
        shader: &SHADER,
        variant: Variant {
            entry: "embedding_backward",
            libs: &libs,
            consts: &[],
        },
        params: Params::of(&params),
        bindings: &bindings,
        workgroups: (lists.capacity * groups).div_ceil(THREADS) as u64,
        cost: Cost {
            flops: io.dout.len() as u64,
            bytes: 4 * (io.dout.len() + 2 * changed + io.list_rows.len()) as u64,
        },
    })
}
