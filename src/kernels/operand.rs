//! Operands that kernels read as vectors of four, from a buffer or from a copy in a texture, which
//! software drivers read several times faster.

use crate::gpu::{Binding, Gpu, Lib, Tensor};

/// An operand `x` of a shader that reads its element number `at` by `load_x(at)`: the two ways to
/// declare it, at the same binding number.
pub(crate) struct Operand {
    pub slot: u32,
    pub buffer: Lib,
    pub staged: Lib,
}

impl Operand {
    /// The declaration and the binding for a tensor: staged where the device reads textures
    /// faster and the shader's elements are four wide.
    pub fn bind<'a>(
        &'static self,
        gpu: &Gpu,
        tensor: &'a Tensor,
        fours: bool,
    ) -> (&'static Lib, Binding<'a>) {
        match fours && gpu.stages() && gpu.can_stage(tensor) {
            true => (&self.staged, Binding::staged(self.slot, tensor)),
            false => (&self.buffer, Binding::read(self.slot, tensor)),
        }
    }
}

/// An [`Operand`]: its name in the shader, its binding number, and the type of its elements.
macro_rules! operand {
    ($name:literal, $slot:literal) => {
        operand!($name, $slot, "vec4<f32>")
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
                    ">;\n\nfn load_",
                    $name,
                    "(at: u32) -> ",
                    $element,
                    " {\n    return ",
                    $name,
                    "[at];\n}\n",
                ),
            },
            staged: crate::gpu::Lib {
                name: concat!("lib.operand.", $name, ".staged"),
                text: concat!(
                    "@group(0) @binding(",
                    $slot,
                    ") var ",
                    $name,
                    ": texture_storage_2d<rgba32float, read>;\n\nfn load_",
                    $name,
                    "(at: u32) -> vec4<f32> {\n    \
                     return textureLoad(",
                    $name,
                    ", vec2<u32>(at % 4096u, at / 4096u));\n}\n",
                ),
            },
        }
    };
}
pub(crate) use operand;
