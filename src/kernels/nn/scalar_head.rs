//! A head of one output on rows that entries name, for rewards and values:
//! `shaders/nn/scalar_head.wgsl`.

use super::InputGradient;
use super::zero_rows::zero_rows;
use crate::data::batch::RowList;
use crate::gpu::{
    Binding, Const, Cost, Dispatch, Element, Lib, Params, Plan, Shader, Tensor, Variant,
    device_struct,
};
use crate::kernels::{Count, DISPATCH, counts_lib, expect_shape, lib, shader, to_u32};
use crate::{Error, Result};

/// Forward and both backward entry points.
pub const SHADER: Shader = shader!("nn.scalar_head", "nn/scalar_head.wgsl", Core);

/// Entries are answers; the lists name them.
pub(crate) const ANSWERS: &Lib = lib!("lib.scalar_head.answers", "scalar_head/answers.wgsl");
/// Entries are targets, consecutive in a list.
pub(crate) const TARGETS: &Lib = lib!("lib.scalar_head.targets", "scalar_head/targets.wgsl");

device_struct! {
    struct ScalarHeadParams {
        entries: u32,
        entries_count: u32,
        lists: u32,
        lists_count: u32,
        width: u32,
    }
}

/// What differs between the heads: names, and what their entries are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ScalarHeadKind {
    /// Labels of the forward pass, of the gradient of the hidden states and of that of the weights.
    pub labels: [&'static str; 3],
    /// What an error calls entries, outputs and lists.
    pub names: [&'static str; 3],
    /// How the shader finds an entry's row and a list's entries.
    pub entries: &'static Lib,
    pub entries_count: Count,
    pub lists_count: Count,
}

/// A head, its rows and its tensors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ScalarHead<'a> {
    pub kind: &'static ScalarHeadKind,
    /// (T, C)
    pub hidden: &'a Tensor,
    /// (C)
    pub w: &'a Tensor,
    /// (N)
    pub entries: &'a Tensor,
    pub counts: Option<&'a Tensor>,
}

/// What the backward pass needs besides.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ScalarHeadGradients<'a> {
    /// (L)
    pub lists: &'a Tensor,
    /// Which entries the lists name; `None` for entries `start..end` themselves.
    pub list_rows: Option<&'a Tensor>,
    /// (N)
    pub dout: &'a Tensor,
    /// (T, C)
    pub dhidden: &'a Tensor,
    /// (C), added to.
    pub dw: &'a Tensor,
    pub input: InputGradient,
}

impl<'a> ScalarHead<'a> {
    /// `out[n] = hidden[row of n] · w`, for entries of type `E`.
    pub fn push_forward<E: Element>(&self, plan: &mut Plan, out: &'a Tensor) -> Result<()> {
        let label = self.kind.labels[0];
        let width = self.check::<E>(label)?;
        let entries = self.entries.len();
        expect_shape::<f32>(label, self.kind.names[1], out, &[entries])?;
        let pass = Pass {
            label,
            entry: "scalar_head_forward",
            add: false,
            workgroups: entries,
            elements: entries * width,
        };
        let bindings = vec![
            Binding::read(2, self.entries),
            Binding::read(3, self.hidden),
            Binding::read(4, self.w),
            Binding::write(5, out),
        ];
        self.push(plan, &pass, 0, bindings)
    }

    /// `dhidden[row] (+)= w Σ dout[n]` over the row's entries, `dw += Σ dout[n] hidden[row of n]`.
    pub fn push_backward<E: Element>(
        &self,
        plan: &mut Plan,
        gradients: &ScalarHeadGradients<'a>,
    ) -> Result<()> {
        let [_, label, _] = self.kind.labels;
        let width = self.check::<E>(label)?;
        self.check_gradients(label, gradients)?;
        let (entries, lists) = (self.entries.len(), gradients.lists.len());
        let add = gradients.input == InputGradient::Add;
        if !add {
            zero_rows(plan, gradients.dhidden, self.counts)?;
        }
        let pass = Pass {
            label,
            entry: "scalar_head_dhidden",
            add,
            workgroups: lists,
            elements: lists * width,
        };
        let mut bindings = vec![
            Binding::read(4, self.w),
            Binding::read(6, gradients.dout),
            Binding::read(7, gradients.lists),
            Binding::write(9, gradients.dhidden),
        ];
        bindings.extend(gradients.list_rows.map(|rows| Binding::read(8, rows)));
        self.push(plan, &pass, lists, bindings)?;
        let pass = Pass {
            label: self.kind.labels[2],
            entry: "scalar_head_dw",
            add: false,
            workgroups: width.div_ceil(16),
            elements: entries * width,
        };
        let bindings = vec![
            Binding::read(2, self.entries),
            Binding::read(3, self.hidden),
            Binding::read(6, gradients.dout),
            Binding::write(10, gradients.dw),
        ];
        self.push(plan, &pass, lists, bindings)
    }

    fn check<E: Element>(&self, op: &'static str) -> Result<usize> {
        let width = self.w.len();
        if width == 0 {
            return Err(Error::shape(op, "the head has no weights"));
        }
        let tokens = self.hidden.len() / width;
        expect_shape::<f32>(op, "w", self.w, &[width])?;
        expect_shape::<f32>(op, "hidden", self.hidden, &[tokens, width])?;
        let (name, entries) = (self.kind.names[0], self.entries.len());
        expect_shape::<E>(op, name, self.entries, &[entries])?;
        Ok(width)
    }

    fn check_gradients(&self, op: &'static str, gradients: &ScalarHeadGradients<'_>) -> Result<()> {
        let [_, out, lists_name] = self.kind.names;
        let (lists, rows) = (gradients.lists, gradients.list_rows);
        expect_shape::<RowList>(op, lists_name, lists, &[lists.len()])?;
        if let Some(rows) = rows {
            expect_shape::<u32>(op, "the lists' rows", rows, &[rows.len()])?;
        }
        let gradient = format!("gradient of {out}");
        expect_shape::<f32>(op, &gradient, gradients.dout, &[self.entries.len()])?;
        expect_shape::<f32>(op, "dhidden", gradients.dhidden, self.hidden.shape())?;
        expect_shape::<f32>(op, "dw", gradients.dw, self.w.shape())
    }

    fn push(
        &self,
        plan: &mut Plan,
        pass: &Pass,
        lists: usize,
        mut bindings: Vec<Binding<'a>>,
    ) -> Result<()> {
        let op = pass.label;
        let params = ScalarHeadParams {
            entries: to_u32(op, self.entries.len())?,
            entries_count: self.kind.entries_count as u32,
            lists: to_u32(op, lists)?,
            lists_count: self.kind.lists_count as u32,
            width: to_u32(op, self.w.len())?,
        };
        let (live, counts) = counts_lib(op, self.counts)?;
        bindings.extend(counts);
        plan.push(&Dispatch {
            label: pass.label,
            shader: &SHADER,
            variant: Variant {
                entry: pass.entry,
                libs: &[DISPATCH, live, self.kind.entries],
                consts: &[("ADD", Const::Bool(pass.add))],
            },
            params: Params::of(&params),
            bindings: &bindings,
            workgroups: pass.workgroups as u64,
            cost: Cost {
                flops: 2 * pass.elements as u64,
                bytes: 4 * pass.elements as u64,
            },
        })
    }
}

/// One of the kernel's dispatches.
struct Pass {
    label: &'static str,
    entry: &'static str,
    add: bool,
    workgroups: usize,
    /// Of `hidden` that are read or written.
    elements: usize,
}
