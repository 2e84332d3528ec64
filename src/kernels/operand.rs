//! Operands that kernels read as vectors of four, from a buffer or from a copy in a texture, which
//! software drivers read several times faster.

use std::ops::Range;

use crate::gpu::{Binding, Gpu, Lib, Tensor};

/// An operand `x` of a shader that reads its element number `at` by `load_x(at)`: the two ways to
/// declare it.
pub(crate) struct Operand {
    pub slot: u32,
    pub buffer: Lib,
    pub staged: Lib,
    /// Where the dispatch also writes the operand, the copy has a number of its own.
    pub copy_slot: Option<u32>,
}

/// Elements that kernels over whole parameters take at a time where they stage them, so that the
/// textures are of 4 MiB at most.
const WINDOW: usize = 1 << 20;

/// The declarations of all of a shader's operands, for a dispatch with these bindings: where the
/// device reads textures faster and the shader's elements are four wide (`fours`), those of operands
/// become staged ones, or are joined by staged ones where the dispatch writes them; the first of them,
/// where a shader may bind fewer textures.
pub(crate) fn bind_operands(
    gpu: &Gpu,
    operands: &[&'static Operand],
    bindings: &mut Vec<Binding<'_>>,
    fours: bool,
) -> Vec<&'static Lib> {
    let stages = |tensor: &Tensor| fours && gpu.stages() && gpu.can_stage(tensor);
    let mut room = gpu.limits().max_storage_textures_per_shader_stage;
    let mut libs = Vec::new();
    for operand in operands {
        let bound = bindings
            .iter_mut()
            .find(|bound| bound.slot() == operand.slot);
        let staged = bound.filter(|bound| room > 0 && stages(bound.tensor()));
        libs.push(match staged {
            None => &operand.buffer,
            Some(bound) => {
                room -= 1;
                let tensor = bound.tensor();
                match operand.copy_slot {
                    Some(slot) => bindings.push(Binding::staged_before(slot, tensor)),
                    None => *bound = Binding::staged(operand.slot, tensor),
                }
                &operand.staged
            }
        });
    }
    libs
}

/// The parts in which an elementwise kernel takes `len` elements: one, or several where it stages
/// them.
pub(crate) fn windows(gpu: &Gpu, len: usize) -> impl Iterator<Item = Range<usize>> + use<> {
    let step = if gpu.stages() { WINDOW } else { len.max(1) };
    (0..len)
        .step_by(step)
        .map(move |start| start..len.min(start + step))
}

/// An [`Operand`]: its name in the shader, its binding number, and the type of its elements. With
/// `before` and another number, of what the dispatch writes: the kernel declares it, and the copy,
/// at the other number, holds what was there before.
macro_rules! operand {
    ($name:literal, $slot:literal) => {
        operand!($name, $slot, "vec4<f32>")
    };
    ($name:literal, $slot:literal, before $copy:literal) => {
        operand!($name, $slot, before $copy, "vec4<f32>")
    };
    ($name:literal, $slot:literal, before $copy:literal, $element:literal) => {
        &crate::kernels::operand::Operand {
            slot: $slot,
            buffer: crate::gpu::Lib {
                name: concat!("lib.operand.", $name, ".own"),
                text: crate::kernels::operand::load_buffer!($name, $element),
            },
            staged: crate::gpu::Lib {
                name: concat!("lib.operand.", $name, ".before"),
                text: crate::kernels::operand::load_texture!($name, "_before", $copy),
            },
            copy_slot: Some($copy),
        }
    };
    ($name:literal, $slot:literal, $element:literal) => {
        &crate::kernels::operand::Operand {
            slot: $slot,
            buffer: crate::gpu::Lib {
                name: concat!("lib.operand.", $name, ".buffer"),
                text: concat!(
                    "@group(0) @binding(",
                    $slot,
                    ") var<storage, read> ",
                    $name,
                    ": array<",
                    $element,
                    ">;\n\n",
                    crate::kernels::operand::load_buffer!($name, $element)
                ),
            },
            staged: crate::gpu::Lib {
                name: concat!("lib.operand.", $name, ".staged"),
                text: crate::kernels::operand::load_texture!($name, "", $slot),
            },
            copy_slot: None,
        }
    };
}
pub(crate) use operand;

macro_rules! load_buffer {
    ($name:literal, $element:literal) => {
        concat!(
            "fn load_",
            $name,
            "(at: u32) -> ",
            $element,
            " {\n    return ",
            $name,
            "[at];\n}\n",
        )
    };
}
pub(crate) use load_buffer;

macro_rules! load_texture {
    ($name:literal, $suffix:literal, $slot:literal) => {
        concat!(
            "@group(0) @binding(",
            $slot,
            ") var ",
            $name,
            $suffix,
            ": texture_storage_2d<rgba32float, read>;\n\nfn load_",
            $name,
            "(at: u32) -> vec4<f32> {\n    return textureLoad(",
            $name,
            $suffix,
            ", vec2<u32>(at % 4096u, at / 4096u));\n}\n",
        )
    };
}
pub(crate) use load_texture;
