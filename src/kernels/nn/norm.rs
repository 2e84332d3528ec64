//! What LayerNorm and RMSNorm share: `shaders/nn/norm.wgsl` and `norm_subgroup.wgsl`.

use crate::Result;
use crate::gpu::{
    Binding, Const, Cost, Dispatch, Gpu, Lib, Params, Plan, Shader, Tensor, Variant, device_struct,
};
use crate::kernels::operand::{Operand, bind_operands, operand};
use crate::kernels::{
    CHUNK_LANES, CHUNK_ROWS, CHUNK_SUMS, DISPATCH, Size, chunk_sum_columns, chunk_sum_lanes,
    columns_lib, lib, live_lib, shader, to_u32,
};

/// The kernels' text with a workgroup a row, and the sums over rows.
pub const SHADER: Shader = shader!("nn.norm", "nn/norm.wgsl", Core);
/// The kernels' text with a subgroup a row.
pub const SHADER_SUBGROUP: Shader = shader!("nn.norm_subgroup", "nn/norm_subgroup.wgsl", Subgroups);

const ROWS: &Lib = lib!("lib.norm.rows", "norm/rows.wgsl");
/// Formulas of LayerNorm.
pub(super) const LAYER: &Lib = lib!("lib.norm.layer", "norm/layer.wgsl");
/// Formulas of RMSNorm.
pub(super) const RMS: &Lib = lib!("lib.norm.rms", "norm/rms.wgsl");
const OPERANDS: [&Operand; 4] = [
    operand!("x", 2, "Columns"),
    operand!("weight", 3, "Columns"),
    operand!("dy", 7, "Columns"),
    operand!("bias", 11, "Columns"),
];
/// What an input gradient is added to.
const DX: &Operand = operand!("dx", 8, before 15, "Columns");
const THREADS: usize = 64;

/// What differs between the norms.
pub(super) struct NormKind {
    pub op: &'static str,
    pub formulas: &'static Lib,
    /// Labels of both passes of the parameters' gradients.
    pub parameter_labels: [&'static str; 2],
    /// Parameters, of C values each.
    pub parameters: usize,
}

/// A norm of `rows` of `columns` values.
pub(super) struct Norm {
    pub kind: &'static NormKind,
    pub rows: Size,
    pub columns: usize,
    pub eps: f32,
}

/// A dispatch of one of the entry points.
pub(super) struct Pass {
    pub label: &'static str,
    pub entry: &'static str,
    /// Whether dx is added to.
    pub accumulate: bool,
    pub cost: Cost,
}

device_struct! {
    struct NormParams {
        rows: u32,
        rows_count: u32,
        columns: u32,
        eps: f32,
    }
}

/// Rows of a workgroup of 128: where its lanes are software's, all that they take at once; a GPU has
/// room for more workgroups.
fn subgroup_rows(gpu: &Gpu) -> usize {
    if gpu.is_software() { 16 } else { 4 }
}

/// Values of the partial sums over rows, for `parameters` of `columns` values.
pub(super) fn partials_len(rows: usize, columns: usize, parameters: usize) -> usize {
    rows.div_ceil(CHUNK_ROWS) * parameters * columns
}

impl Norm {
    pub fn elements(&self) -> usize {
        self.rows.capacity.saturating_mul(self.columns)
    }

    /// A dispatch that works on whole rows, by subgroups where the device has them.
    pub fn push_rows(
        &self,
        plan: &mut Plan,
        pass: &Pass,
        bindings: &[Binding<'_>],
        counts: Option<&Tensor>,
    ) -> Result<()> {
        let rows = self.rows.capacity;
        let (shader, rows_a_workgroup) = match plan.gpu().subgroups() {
            true => (&SHADER_SUBGROUP, subgroup_rows(plan.gpu())),
            false => (&SHADER, 1),
        };
        let workgroups = rows.div_ceil(rows_a_workgroup);
        self.push(plan, shader, workgroups, pass, bindings, counts)
    }

    /// Adds the sums over rows to `gradients`, through `partials`; `inputs` are what the sums are
    /// made of.
    pub fn push_parameter_gradients(
        &self,
        plan: &mut Plan,
        inputs: &[Binding<'_>],
        partials: &Tensor,
        gradients: &[Binding<'_>],
        counts: Option<&Tensor>,
    ) -> Result<()> {
        let (rows, elements) = (self.rows.capacity, self.elements());
        let parameters = self.kind.parameters;
        let scratch = partials_len(rows, self.columns, parameters);
        let (_, groups) = columns_lib(self.columns);
        let partials = Binding::write(9, partials);
        let [chunks, total] = self.kind.parameter_labels;
        let pass = Pass {
            label: chunks,
            entry: "norm_chunks",
            accumulate: false,
            cost: Cost {
                flops: (3 * parameters * elements) as u64,
                bytes: 4 * (2 * elements + parameters * rows + scratch) as u64,
            },
        };
        let workgroups = (rows.div_ceil(CHUNK_ROWS) * groups).div_ceil(THREADS);
        let bindings = [inputs, &[partials]].concat();
        self.push(plan, &SHADER, workgroups, &pass, &bindings, counts)?;
        let pass = Pass {
            label: total,
            entry: "norm_total",
            accumulate: false,
            cost: Cost {
                flops: scratch as u64,
                bytes: 4 * (scratch + 2 * parameters * self.columns) as u64,
            },
        };
        let bindings = [gradients, &[partials]].concat();
        self.push(
            plan,
            &SHADER,
            groups.div_ceil(chunk_sum_columns(plan.gpu())),
            &pass,
            &bindings,
            counts,
        )
    }

    fn push(
        &self,
        plan: &mut Plan,
        shader: &Shader,
        workgroups: usize,
        pass: &Pass,
        bindings: &[Binding<'_>],
        counts: Option<&Tensor>,
    ) -> Result<()> {
        let params = self.params()?;
        let (live, counts) = live_lib(self.kind.op, &[self.rows], counts)?;
        let (access, groups) = columns_lib(self.columns);
        let mut bindings = bindings.to_vec();
        bindings.extend(counts);
        let fours = groups < self.columns;
        let mut libs = bind_operands(plan.gpu(), &OPERANDS, &mut bindings, fours);
        libs.extend(match pass.accumulate {
            true => bind_operands(plan.gpu(), &[DX], &mut bindings, fours),
            false => vec![&DX.buffer],
        });
        libs.extend([
            DISPATCH,
            live,
            access,
            CHUNK_SUMS,
            CHUNK_LANES,
            ROWS,
            self.kind.formulas,
        ]);
        plan.push(&Dispatch {
            label: pass.label,
            shader,
            variant: Variant {
                entry: pass.entry,
                libs: &libs,
                consts: &[
                    ("ACCUMULATE", Const::Bool(pass.accumulate)),
                    ("SUM_LANES", Const::U32(chunk_sum_lanes(plan.gpu()))),
                    ("ROWS", Const::U32(subgroup_rows(plan.gpu()) as u32)),
                ],
            },
            params: Params::of(&params),
            bindings: &bindings,
            workgroups: workgroups as u64,
            cost: pass.cost,
        })
    }

    fn params(&self) -> Result<NormParams> {
        let op = self.kind.op;
        to_u32(op, self.elements())?;
        Ok(NormParams {
            rows: self.rows.capacity_u32(op)?,
            rows_count: self.rows.field(),
            columns: to_u32(op, self.columns)?,
            eps: self.eps,
        })
    }
}
