//! [`Binding`]: a tensor at one of a kernel's binding numbers, and how it is used there.

use super::tensor::MIN_BYTES;
use super::{Dispatch, Tensor};

/// How a kernel uses a binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// `var<uniform>`
    Uniform,
    /// `var<storage, read>`
    Read,
    /// `var<storage, read_write>`
    Write,
    /// `texture_storage_2d<rgba32float, read>` that a tensor is copied into before the dispatch, four
    /// elements a texel
    Staged,
}

/// A tensor at a binding number of group 0. Number 0 is the kernel's parameters.
#[derive(Debug, Clone, Copy)]
pub struct Binding<'a> {
    pub(super) slot: u32,
    pub(super) access: Access,
    pub(super) tensor: &'a Tensor,
    /// A copy of what the dispatch itself overwrites.
    pub(super) overwritten: bool,
}

impl<'a> Binding<'a> {
    fn new(slot: u32, access: Access, tensor: &'a Tensor) -> Self {
        Self {
            slot,
            access,
            tensor,
            overwritten: false,
        }
    }

    /// `var<uniform>` at `slot`.
    pub fn uniform(slot: u32, tensor: &'a Tensor) -> Self {
        Self::new(slot, Access::Uniform, tensor)
    }

    /// `var<storage, read>` at `slot`.
    pub fn read(slot: u32, tensor: &'a Tensor) -> Self {
        Self::new(slot, Access::Read, tensor)
    }

    /// `var<storage, read_write>` at `slot`.
    pub fn write(slot: u32, tensor: &'a Tensor) -> Self {
        Self::new(slot, Access::Write, tensor)
    }

    pub(crate) fn slot(&self) -> u32 {
        self.slot
    }

    pub(crate) fn tensor(&self) -> &'a Tensor {
        self.tensor
    }

    /// A texture at `slot` that holds a copy of the tensor.
    pub(crate) fn staged(slot: u32, tensor: &'a Tensor) -> Self {
        Self::new(slot, Access::Staged, tensor)
    }

    /// As [`Binding::staged`], of a tensor that the dispatch writes at another number: the copy
    /// holds what was there before.
    pub(crate) fn staged_before(slot: u32, tensor: &'a Tensor) -> Self {
        Self {
            overwritten: true,
            ..Self::staged(slot, tensor)
        }
    }
}

/// How each slot is used, and what is bound there; a binding that is staged has a view.
pub(super) fn bind<'a>(
    dispatch: &Dispatch<'a>,
    params: Option<&'a (wgpu::Buffer, u64)>,
    views: &'a [Option<wgpu::TextureView>],
) -> (Vec<(u32, Access)>, Vec<wgpu::BindGroupEntry<'a>>) {
    let buffer = |buffer, offset, bytes| {
        wgpu::BindingResource::Buffer(wgpu::BufferBinding {
            buffer,
            offset,
            size: wgpu::BufferSize::new(bytes),
        })
    };
    let params = params.map(|(arena, offset)| {
        let bytes = dispatch.params.bytes.len() as u64;
        (0, Access::Uniform, buffer(arena, *offset, bytes))
    });
    let bindings = dispatch.bindings.iter().zip(views).map(|(binding, view)| {
        let tensor = binding.tensor;
        let resource = match view {
            Some(view) => wgpu::BindingResource::TextureView(view),
            None => buffer(tensor.buffer(), tensor.offset_bytes(), bound_bytes(tensor)),
        };
        (binding.slot, binding.access, resource)
    });
    params
        .into_iter()
        .chain(bindings)
        .map(|(binding, access, resource)| {
            (
                (binding, access),
                wgpu::BindGroupEntry { binding, resource },
            )
        })
        .unzip()
}

/// A binding must hold one element, so short tensors bind some of what follows in their buffer.
pub(super) fn bound_bytes(tensor: &Tensor) -> u64 {
    tensor
        .bytes()
        .max(MIN_BYTES)
        .min(tensor.buffer().size() - tensor.offset_bytes())
}
