//! The one place that touches wgpu: device, tensors, shaders and recorded plans.

mod arena;
mod device;
mod layout;
mod memory;
mod plan;
#[cfg(not(target_arch = "wasm32"))]
mod profile;
mod shader;
mod stage;
mod tensor;

pub use device::{Gpu, GpuOptions, MatmulDesign};
pub(crate) use layout::device_struct;
pub use layout::{DeviceStruct, Field, Params};
pub use memory::{MemoryPlan, MemoryUse};
pub use plan::{Access, Binding, Cost, Dispatch, Plan, fold, submit_together};
#[cfg(not(target_arch = "wasm32"))]
pub use profile::{Profile, ProfileRow};
pub use shader::{Capability, CompiledShader, Const, Lib, Shader, Variant};
pub use tensor::{Element, Tensor};
