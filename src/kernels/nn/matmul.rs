//! Matrix products with an epilogue: `shaders/nn/matmul.wgsl`, and its forms for subgroups and for
//! workgroup memory.

use super::matmul_tiled::Tile;
use crate::gpu::{
    Binding, Const, Cost, Dispatch, Gpu, Lib, MatmulDesign, Params, Plan, ProductClass, Shader,
    Tensor, Tiling, Variant, device_struct,
};
use crate::kernels::{DISPATCH, Size, columns_lib, lib, live_lib, shader, to_u32};
use crate::{Error, Result};

/// The kernel's text: an 8×8 block of outputs a thread, in registers.
pub const SHADER: Shader = shader!("nn.matmul", "nn/matmul.wgsl", Core);

/// The kernel's form for subgroups: rows of A spread by broadcasts.
pub const SUBGROUP: Shader = shader!("nn.matmul_subgroup", "nn/matmul_subgroup.wgsl", Subgroups);

pub(super) const OP: &str = "nn.matmul";
const GELU: &Lib = lib!("lib.gelu", "gelu.wgsl");
const GELU_SCALAR: &Lib = lib!("lib.gelu_scalar", "gelu_scalar.wgsl");
const GELU_VEC4: &Lib = lib!("lib.gelu_vec4", "gelu_vec4.wgsl");
const ROW_SCALAR: &Lib = lib!("lib.matmul.row_scalar", "matmul/row_scalar.wgsl");
const ROW_VEC4: &Lib = lib!("lib.matmul.row_vec4", "matmul/row_vec4.wgsl");
pub(super) const PARAMS: &Lib = lib!("lib.matmul.params", "matmul/params.wgsl");
pub(super) const STORE_BLOCK: &Lib = lib!("lib.matmul.store_block", "matmul/store_block.wgsl");
const BLOCKS: &Lib = lib!("lib.matmul.blocks", "matmul/blocks.wgsl");
const ACCESS_VEC4: &Lib = lib!("lib.matmul.access_vec4", "matmul/access_vec4.wgsl");
const ACCESS_SCALAR: &Lib = lib!("lib.matmul.access_scalar", "matmul/access_scalar.wgsl");
const ACCESS_STAGED: &Lib = lib!("lib.matmul.access_staged", "matmul/access_staged.wgsl");
const WITHIN_VEC4: &Lib = lib!("lib.matmul.within_vec4", "matmul/within_vec4.wgsl");
const WITHIN_SCALAR: &Lib = lib!("lib.matmul.within_scalar", "matmul/within_scalar.wgsl");
pub(super) const STORE: &Lib = lib!("lib.matmul.epilogue_store", "matmul/epilogue_store.wgsl");
const ADD: &Lib = lib!("lib.matmul.epilogue_add", "matmul/epilogue_add.wgsl");
const BIAS: &Lib = lib!("lib.matmul.epilogue_bias", "matmul/epilogue_bias.wgsl");
const RESIDUAL: &Lib = lib!(
    "lib.matmul.epilogue_residual",
    "matmul/epilogue_residual.wgsl"
);
const BIAS_RESIDUAL: &Lib = lib!(
    "lib.matmul.epilogue_bias_residual",
    "matmul/epilogue_bias_residual.wgsl"
);
const BIAS_GELU: &Lib = lib!(
    "lib.matmul.epilogue_bias_gelu",
    "matmul/epilogue_bias_gelu.wgsl"
);
const GELU_BACKWARD: &Lib = lib!(
    "lib.matmul.epilogue_gelu_backward",
    "matmul/epilogue_gelu_backward.wgsl"
);

/// Which operands are stored transposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layout {
    /// `A·B`: A is stored (M, K), B (K, N).
    Nn,
    /// `A·Bᵀ`: A is stored (M, K), B (N, K).
    Nt,
    /// `Aᵀ·B`: A is stored (K, M), B (K, N).
    Tn,
}

/// A row-major matrix inside a tensor.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    /// The tensor.
    pub tensor: &'a Tensor,
    /// The first element, counted from the tensor's start.
    pub offset: usize,
    /// Elements from one row to the next.
    pub stride: usize,
}

impl<'a> Matrix<'a> {
    /// The whole tensor, its last dimension the row.
    pub fn whole(tensor: &'a Tensor) -> Self {
        Self {
            tensor,
            offset: 0,
            stride: tensor.shape().last().copied().unwrap_or(1),
        }
    }

    /// The tensor from column `column` on.
    pub fn from_column(tensor: &'a Tensor, column: usize) -> Self {
        Self {
            offset: column,
            ..Self::whole(tensor)
        }
    }

    fn check(&self, name: &str, rows: usize, cols: usize) -> Result<()> {
        self.tensor.expect_element::<f32>()?;
        let end = self.offset + rows.saturating_sub(1) * self.stride + cols;
        if cols > self.stride || (rows > 0 && end > self.tensor.len()) {
            return Err(Error::shape(
                OP,
                format!(
                    "{name}: a {rows}x{cols} matrix at {} with rows of {} does not fit `{}` {:?}",
                    self.offset,
                    self.stride,
                    self.tensor.label(),
                    self.tensor.shape()
                ),
            ));
        }
        Ok(())
    }

    /// Whether every row, and the tensor, is made of whole fours.
    fn fours(&self) -> bool {
        let sizes = [self.offset, self.stride, self.tensor.len()];
        sizes.iter().all(|size| size.is_multiple_of(4))
    }
}

/// What happens to each product before it is stored.
#[derive(Debug, Clone, Copy)]
pub enum Epilogue<'a> {
    /// `out = A·B`
    Store,
    /// `out += A·B`
    Add,
    /// `out = A·B + bias`, bias (N).
    Bias {
        /// (N)
        bias: &'a Tensor,
    },
    /// `out = A·B + residual`; residual has out's shape and a buffer of its own.
    Residual {
        /// Out's shape.
        residual: &'a Tensor,
    },
    /// `out = A·B + bias + residual`; residual has out's shape and a buffer of its own.
    BiasResidual {
        /// (N)
        bias: &'a Tensor,
        /// Out's shape.
        residual: &'a Tensor,
    },
    /// `pre = A·B + bias; out = gelu(pre)`; pre has out's shape.
    BiasGelu {
        /// (N)
        bias: &'a Tensor,
        /// Out's shape, written.
        pre: &'a Tensor,
    },
    /// `out = A·B · gelu'(pre)`; pre has out's shape.
    GeluBackward {
        /// Out's shape.
        pre: &'a Tensor,
    },
}

impl<'a> Epilogue<'a> {
    fn lib(&self) -> &'static Lib {
        match self {
            Self::Store => STORE,
            Self::Add => ADD,
            Self::Bias { .. } => BIAS,
            Self::Residual { .. } => RESIDUAL,
            Self::BiasResidual { .. } => BIAS_RESIDUAL,
            Self::BiasGelu { .. } => BIAS_GELU,
            Self::GeluBackward { .. } => GELU_BACKWARD,
        }
    }

    fn bindings(&self) -> Vec<Binding<'a>> {
        match *self {
            Self::Store | Self::Add => vec![],
            Self::Bias { bias } => vec![Binding::read(5, bias)],
            Self::Residual { residual } => vec![Binding::read(5, residual)],
            Self::BiasResidual { bias, residual } => {
                vec![Binding::read(5, bias), Binding::read(6, residual)]
            }
            Self::BiasGelu { bias, pre } => vec![Binding::read(5, bias), Binding::write(6, pre)],
            Self::GeluBackward { pre } => vec![Binding::read(5, pre)],
        }
    }

    fn check(&self, out: &Matrix<'_>, n: usize) -> Result<()> {
        let (bias, like_out) = match self {
            Self::Store | Self::Add => (None, None),
            Self::Bias { bias } => (Some(bias), None),
            Self::Residual { residual } => (None, Some(residual)),
            Self::BiasResidual { bias, residual } => (Some(bias), Some(residual)),
            Self::BiasGelu { bias, pre } => (Some(bias), Some(pre)),
            Self::GeluBackward { pre } => (None, Some(pre)),
        };
        if let Some(bias) = bias
            && bias.len() != n
        {
            return Err(Error::shape(
                OP,
                format!("bias `{}` {:?}, expected [{n}]", bias.label(), bias.shape()),
            ));
        }
        match like_out {
            Some(tensor) if tensor.shape() != out.tensor.shape() => Err(Error::shape(
                OP,
                format!(
                    "`{}` {:?} must have the shape of out {:?}",
                    tensor.label(),
                    tensor.shape(),
                    out.tensor.shape()
                ),
            )),
            _ => Ok(()),
        }
    }
}

/// The tensors of a product.
#[derive(Debug, Clone, Copy)]
pub struct MatmulIo<'a> {
    /// The left operand.
    pub a: Matrix<'a>,
    /// The right operand.
    pub b: Matrix<'a>,
    /// The result.
    pub out: Matrix<'a>,
    /// What happens to each product.
    pub epilogue: Epilogue<'a>,
    /// The batch's counts, where a size is live.
    pub counts: Option<&'a Tensor>,
}

impl<'a> MatmulIo<'a> {
    /// `out = op(A)·op(B)` of whole tensors, all sizes fixed.
    pub fn whole(a: &'a Tensor, b: &'a Tensor, out: &'a Tensor) -> Self {
        Self {
            a: Matrix::whole(a),
            b: Matrix::whole(b),
            out: Matrix::whole(out),
            epilogue: Epilogue::Store,
            counts: None,
        }
    }

    /// Whether the operands can be read four elements at a time.
    fn fours(&self) -> bool {
        self.a.fours() && self.b.fours()
    }

    /// How the product is computed.
    fn design(&self, gpu: &Gpu, class: ProductClass) -> MatmulDesign {
        match gpu.matmul_design_for(class) {
            MatmulDesign::Cooperative if !self.fours() => MatmulDesign::Tiled(Tiling::BySize),
            design => design,
        }
    }

    /// How the operands are read, and as what they are bound.
    fn operands(&self, gpu: &Gpu, design: MatmulDesign) -> (&'static Lib, [Binding<'a>; 2]) {
        let (a, b) = (self.a.tensor, self.b.tensor);
        let buffers = [Binding::read(2, a), Binding::read(3, b)];
        let fours = self.fours();
        match design {
            MatmulDesign::Tiled(_) if fours => (WITHIN_VEC4, buffers),
            MatmulDesign::Tiled(_) => (WITHIN_SCALAR, buffers),
            _ if !fours => (ACCESS_SCALAR, buffers),
            MatmulDesign::Staged if gpu.can_stage(a) && gpu.can_stage(b) => {
                let textures = [Binding::staged(2, a), Binding::staged(3, b)];
                (ACCESS_STAGED, textures)
            }
            _ => (ACCESS_VEC4, buffers),
        }
    }
}

/// Sizes of a product: op(A) is (M, K), op(B) is (K, N).
#[derive(Debug, Clone, Copy)]
pub struct MatmulSizes {
    /// Which operands are stored transposed.
    pub layout: Layout,
    /// Rows of the result.
    pub m: Size,
    /// Columns of the result.
    pub n: usize,
    /// The length of each dot product.
    pub k: Size,
}

impl MatmulSizes {
    /// Where the part of a list that is live begins; one number serves both sizes.
    fn start(&self) -> Result<usize> {
        match (self.m.live, self.k.live) {
            (Some(_), Some(_)) if self.m.start != self.k.start => Err(Error::shape(
                OP,
                format!(
                    "live sizes that start at {} and {}, expected the same start",
                    self.m.start, self.k.start
                ),
            )),
            (Some(_), _) => Ok(self.m.start),
            _ => Ok(self.k.start),
        }
    }
}

device_struct! {
    pub(super) struct MatmulParams {
        pub(super) m: u32,
        pub(super) n: u32,
        pub(super) k: u32,
        pub(super) m_count: u32,
        pub(super) k_count: u32,
        pub(super) a_offset: u32,
        pub(super) a_stride: u32,
        pub(super) b_offset: u32,
        pub(super) b_stride: u32,
        pub(super) out_offset: u32,
        pub(super) out_stride: u32,
        pub(super) start: u32,
        pub(super) part: u32,
        pub(super) pad: [u32; 3],
    }
}

/// How outputs are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stored {
    OneByOne,
    /// Where n and every stride allow it.
    ByFours,
}

impl Stored {
    pub(super) fn columns(self) -> usize {
        match self {
            Self::OneByOne => 1,
            Self::ByFours => 4,
        }
    }

    /// What an epilogue calls.
    pub(super) fn value_libs(self) -> [&'static Lib; 3] {
        let gelu_columns = match self {
            Self::OneByOne => GELU_SCALAR,
            Self::ByFours => GELU_VEC4,
        };
        [columns_lib(self.columns()).0, GELU, gelu_columns]
    }

    fn row_lib(self) -> &'static Lib {
        match self {
            Self::OneByOne => ROW_SCALAR,
            Self::ByFours => ROW_VEC4,
        }
    }
}

/// A product that was checked: what its designs have in common.
pub(super) struct Product<'a> {
    pub(super) label: &'static str,
    pub(super) params: MatmulParams,
    pub(super) live: &'static Lib,
    pub(super) access: &'static Lib,
    pub(super) epilogue: &'static Lib,
    pub(super) stored: Stored,
    pub(super) transpose: [(&'static str, Const); 2],
    pub(super) operands: [Binding<'a>; 2],
    /// The result, then what the epilogue needs.
    pub(super) outputs: Vec<Binding<'a>>,
    pub(super) counts: Option<Binding<'a>>,
    pub(super) cost: Cost,
}

impl Product<'_> {
    /// Appends a dispatch that goes from operands to results.
    pub(super) fn push(
        &self,
        plan: &mut Plan,
        shader: &Shader,
        (entry, own): (&str, &[(&str, Const)]),
        libs: &[&'static Lib],
        workgroups: usize,
    ) -> Result<()> {
        let mut consts = own.to_vec();
        consts.extend(self.transpose);
        let mut all = vec![DISPATCH, self.live, PARAMS, self.access];
        all.extend(libs);
        all.extend([self.epilogue, self.stored.row_lib()]);
        all.extend(self.stored.value_libs());
        let mut bindings = self.operands.to_vec();
        bindings.extend(&self.outputs);
        bindings.extend(self.counts);
        plan.push(&Dispatch {
            label: self.label,
            shader,
            variant: Variant {
                entry,
                libs: &all,
                consts: &consts,
            },
            params: Params::of(&self.params),
            bindings: &bindings,
            workgroups: workgroups as u64,
            cost: self.cost,
        })
    }
}

/// Appends `out = epilogue(op(A)·op(B))`.
///
/// Rows of the result past the live `m` are not written. Sums are in f32, along k in order, four
/// products at a time or one by one; [`Gpu::matmul_design_for`] decides how. Operands are used as
/// they are, but for [`MatmulDesign::Cooperative`], which rounds them to f16.
///
/// # Errors
///
/// [`Error::Shape`] for matrices that do not fit their tensors or each other, and what
/// [`Plan::push`] refuses.
pub fn matmul(plan: &mut Plan, io: &MatmulIo<'_>, sizes: &MatmulSizes) -> Result<()> {
    let (m, n, k) = (sizes.m.capacity, sizes.n, sizes.k.capacity);
    let transpose_a = sizes.layout == Layout::Tn;
    let transpose_b = sizes.layout == Layout::Nt;
    let (a_rows, a_cols) = if transpose_a { (k, m) } else { (m, k) };
    let (b_rows, b_cols) = if transpose_b { (n, k) } else { (k, n) };
    io.a.check("a", a_rows, a_cols)?;
    io.b.check("b", b_rows, b_cols)?;
    io.out.check("out", m, n)?;
    io.epilogue.check(&io.out, n)?;
    let params = MatmulParams {
        m: to_u32(OP, m)?,
        n: to_u32(OP, n)?,
        k: to_u32(OP, k)?,
        m_count: sizes.m.field(),
        k_count: sizes.k.field(),
        a_offset: to_u32(OP, io.a.offset)?,
        a_stride: to_u32(OP, io.a.stride)?,
        b_offset: to_u32(OP, io.b.offset)?,
        b_stride: to_u32(OP, io.b.stride)?,
        out_offset: to_u32(OP, io.out.offset)?,
        out_stride: to_u32(OP, io.out.stride)?,
        start: to_u32(OP, sizes.start()?)?,
        part: to_u32(OP, k)?,
        pad: [0; 3],
    };
    let class = ProductClass::of(transpose_a, transpose_b, m, n);
    let design = io.design(plan.gpu(), class);
    let (access, operands) = io.operands(plan.gpu(), design);
    let (live, counts) = live_lib(OP, &[sizes.m, sizes.k], io.counts)?;
    let tiles = matches!(design, MatmulDesign::Tiled(_) | MatmulDesign::Cooperative);
    let stored = match tiles && io.out.fours() && n.is_multiple_of(4) {
        true => Stored::ByFours,
        false => Stored::OneByOne,
    };
    let mut outputs = vec![Binding::write(4, io.out.tensor)];
    outputs.extend(io.epilogue.bindings());
    let product = Product {
        label: match sizes.layout {
            Layout::Nn => "nn.matmul.nn",
            Layout::Nt => "nn.matmul.nt",
            Layout::Tn => "nn.matmul.tn",
        },
        params,
        live,
        access,
        epilogue: io.epilogue.lib(),
        stored,
        transpose: [
            ("TRANSPOSE_A", Const::Bool(transpose_a)),
            ("TRANSPOSE_B", Const::Bool(transpose_b)),
        ],
        operands,
        outputs,
        counts,
        cost: Cost {
            flops: 2 * (m * n * k) as u64,
            bytes: 4 * (m * k + k * n + m * n) as u64,
        },
    };
    match design {
        MatmulDesign::Registers => {
            let tiles = m.div_ceil(64) * n.div_ceil(64);
            let libs = [BLOCKS, STORE_BLOCK];
            product.push(plan, &SHADER, ("matmul", &[]), &libs, tiles)
        }
        MatmulDesign::Subgroup | MatmulDesign::Staged => {
            let consts = [("TOUCH_NEXT", Const::Bool(access != ACCESS_STAGED))];
            let tiles_n = n.div_ceil(64).next_multiple_of(4);
            let tiles = m.div_ceil(32) * tiles_n;
            let entry = ("matmul_subgroup", &consts[..]);
            product.push(plan, &SUBGROUP, entry, &[BLOCKS], tiles)
        }
        MatmulDesign::Tiled(tiling) => product.push_tiled(plan, Tile::of(tiling, m, n)),
        MatmulDesign::Cooperative => product.push_cooperative(plan),
    }
}
