//! The one place that touches wgpu: device, tensors, shaders and recorded plans.

mod adapter;
mod binding;
mod compiler;
mod cooperative;
mod design;
mod device;
mod layout;
mod matmul_tuning;
mod memory;
mod param_arena;
mod plan;
#[cfg(not(target_arch = "wasm32"))]
mod profile;
mod shader;
mod stage;
mod tensor;
mod unroll;

pub use binding::{Access, Binding};
#[cfg(test)]
pub(crate) use cooperative::WORKGROUP_BYTES as FRAGMENT_WORKGROUP_BYTES;
pub use design::{MatmulDesign, Tiling};
pub use device::{Activity, Gpu, GpuOptions};
pub(crate) use layout::device_struct;
pub use layout::{DeviceStruct, Field, Params};
pub use matmul_tuning::{MatmulTuning, Outputs, ProductClass, TuningRow};
pub use memory::{MemoryPlan, MemoryUse};
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use plan::all_ready;
pub use plan::{Cost, Dispatch, Plan, fold, submit_together};
#[cfg(not(target_arch = "wasm32"))]
pub use profile::{Profile, ProfileRow};
pub use shader::{Capability, Checks, CompiledShader, Const, Lib, Shader, Variant};
pub use tensor::{Element, Tensor};
