//! [`Shader`]: WGSL text, its variants, and the pipelines compiled from them.

use super::unroll::unrolled;
use super::{Access, Field, Gpu, Params};
use crate::{Error, Result};

/// What a kernel's text needs beyond core WebGPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capability {
    /// Nothing: runs on every WebGPU device.
    Core,
    /// Subgroup operations, with subgroups of 8 lanes or more.
    Subgroups,
    /// Numbers in f16 and matrices of 16x16x16 that subgroups of 32 lanes multiply together, with
    /// sums in f32. WGSL has no words for that; the texts are in wgpu's extension of it.
    Cooperative,
}

/// A library file of `shaders/`: functions or declarations without an entry point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lib {
    /// The name, as in `lib.reduce`.
    pub name: &'static str,
    /// The WGSL text.
    pub text: &'static str,
}

/// The value of a `const` line in a variant's prelude.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Const {
    /// `u32`
    U32(u32),
    /// `bool`
    Bool(bool),
}

/// One way to complete a kernel's text: which libraries, which constants, which entry point.
#[derive(Debug, Clone, Copy)]
pub struct Variant<'a> {
    /// The entry point.
    pub entry: &'a str,
    /// The library files to add.
    pub libs: &'a [&'a Lib],
    /// `const` lines of the prelude.
    pub consts: &'a [(&'a str, Const)],
}

/// A kernel file of `shaders/`.
#[derive(Debug, Clone, Copy)]
pub struct Shader {
    /// The name, as in `nn.matmul`: folder and stem.
    pub name: &'static str,
    /// The kernel's own text, without prelude and libraries.
    pub text: &'static str,
    /// What the text needs.
    pub capability: Capability,
    checked: bool,
}

impl Shader {
    /// A kernel whose indices drivers keep in bounds.
    pub const fn new(name: &'static str, text: &'static str, capability: Capability) -> Self {
        Self {
            name,
            text,
            capability,
            checked: true,
        }
    }

    /// The same kernel without the bounds checks that wgpu would add, which keep a kernel's arrays
    /// out of registers and its addresses from being computed once.
    ///
    /// # Safety
    ///
    /// Whatever the parameters and the contents of its bindings, every index that the text computes
    /// must be within its array.
    pub const unsafe fn without_bounds_checks(self) -> Self {
        Self {
            checked: false,
            ..self
        }
    }

    /// The complete WGSL text of a variant, as a browser, Dawn or an editor takes it.
    ///
    /// Prelude, libraries and kernel are concatenated, which WGSL allows since declarations at
    /// module scope may stand in any order. A loop behind a line `// unroll` is written out where
    /// its bound is one of the prelude's constants.
    pub fn wgsl(&self, variant: &Variant<'_>) -> String {
        let enable = match self.capability {
            Capability::Core | Capability::Cooperative => "",
            Capability::Subgroups => "enable subgroups;\n",
        };
        format!("{enable}{}", self.native_text(variant))
    }

    /// naga 30 knows the subgroup built-ins but refuses the line that browsers require for them.
    fn native_text(&self, variant: &Variant<'_>) -> String {
        let mut text = match self.capability {
            Capability::Core | Capability::Subgroups => String::new(),
            Capability::Cooperative => "enable f16;\nenable wgpu_cooperative_matrix;\n".into(),
        };
        for (name, value) in variant.consts {
            text += &match value {
                Const::U32(value) => format!("const {name}: u32 = {value}u;\n"),
                Const::Bool(value) => format!("const {name}: bool = {value};\n"),
            };
        }
        for lib in variant.libs {
            text += lib.text;
            text += "\n";
        }
        text += self.text;
        unrolled(&text, variant.consts)
    }

    fn key(&self, variant: &Variant<'_>, slots: &[(u32, Access)]) -> PipelineKey {
        let libs: Vec<&str> = variant.libs.iter().map(|lib| lib.name).collect();
        PipelineKey(format!(
            "{} {} {libs:?} {:?} {slots:?}",
            self.name, variant.entry, variant.consts
        ))
    }

    pub(super) fn pipeline(
        &self,
        gpu: &Gpu,
        variant: &Variant<'_>,
        slots: &[(u32, Access)],
        params: Params<'_>,
    ) -> Result<std::sync::Arc<Pipeline>> {
        let lacking = match self.capability {
            Capability::Subgroups if !gpu.subgroups() => "subgroups",
            Capability::Cooperative if !gpu.cooperative() => "cooperative matrices",
            _ => "",
        };
        if !lacking.is_empty() {
            return Err(Error::Shader {
                shader: self.name.into(),
                detail: format!(
                    "it needs {lacking}, which this device lacks or which are switched off"
                ),
            });
        }
        gpu.pipeline(self.key(variant, slots), || {
            gpu.guarded(wgpu::ErrorFilter::Validation, || {
                self.compile(gpu, variant, slots, params)
            })
            .map_err(|detail| Error::Shader {
                shader: format!("{}.{}", self.name, variant.entry),
                detail,
            })
        })
    }

    fn compile(
        &self,
        gpu: &Gpu,
        variant: &Variant<'_>,
        slots: &[(u32, Access)],
        params: Params<'_>,
    ) -> Pipeline {
        let device = gpu.device();
        let label = format!("{}.{}", self.name, variant.entry);
        let text = if cfg!(target_arch = "wasm32") {
            self.wgsl(variant)
        } else {
            self.native_text(variant)
        };
        let mut checks = wgpu::ShaderRuntimeChecks::checked();
        checks.force_loop_bounding = false;
        checks.bounds_checks = self.checked;
        // SAFETY: wgpu's counter that ends endless loops is off: each loop of the crate's shaders
        // counts upwards by a constant step to a bound that is read once before the loop, so it
        // ends. Bounds checks are off only where `without_bounds_checks` was promised that.
        let module = unsafe {
            device.create_shader_module_trusted(
                wgpu::ShaderModuleDescriptor {
                    label: Some(&label),
                    source: wgpu::ShaderSource::Wgsl(text.into()),
                },
                checks,
            )
        };
        let entries: Vec<_> = slots.iter().map(|&slot| layout_entry(slot)).collect();
        let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: Some(&label),
            entries: &entries,
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(&label),
            layout: Some(
                &device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                    label: Some(&label),
                    bind_group_layouts: &[Some(&layout)],
                    immediate_size: 0,
                }),
            ),
            module: &module,
            entry_point: Some(variant.entry),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &[],
                zero_initialize_workgroup_memory: false,
            },
            cache: None,
        });
        Pipeline {
            compiled: CompiledShader {
                name: self.name,
                entry: variant.entry.to_owned(),
                capability: self.capability,
                wgsl: self.wgsl(variant),
                bindings: slots.to_vec(),
                params_size: params.bytes.len(),
                params: params.fields,
            },
            pipeline,
            layout,
        }
    }
}

/// A shader variant that a [`Gpu`] has compiled, and how it is bound.
#[derive(Debug, Clone, PartialEq)]
pub struct CompiledShader {
    /// The kernel, as in `nn.matmul`.
    pub name: &'static str,
    /// The entry point.
    pub entry: String,
    /// What the text needs beyond core WebGPU.
    pub capability: Capability,
    /// The complete text, as [`Shader::wgsl`] gives it.
    pub wgsl: String,
    /// Binding numbers of group 0 and their use.
    pub bindings: Vec<(u32, Access)>,
    /// The size in bytes of the parameter struct at binding 0; 0 without one.
    pub params_size: usize,
    /// Its members.
    pub params: &'static [Field],
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct PipelineKey(String);

pub(super) struct Pipeline {
    pub(super) compiled: CompiledShader,
    pub(super) pipeline: wgpu::ComputePipeline,
    pub(super) layout: wgpu::BindGroupLayout,
}

fn layout_entry((binding, access): (u32, Access)) -> wgpu::BindGroupLayoutEntry {
    let buffer = |ty| wgpu::BindingType::Buffer {
        ty,
        has_dynamic_offset: false,
        min_binding_size: None,
    };
    wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: match access {
            Access::Uniform => buffer(wgpu::BufferBindingType::Uniform),
            Access::Read => buffer(wgpu::BufferBindingType::Storage { read_only: true }),
            Access::Write => buffer(wgpu::BufferBindingType::Storage { read_only: false }),
            Access::Staged => wgpu::BindingType::StorageTexture {
                access: wgpu::StorageTextureAccess::ReadOnly,
                format: wgpu::TextureFormat::Rgba32Float,
                view_dimension: wgpu::TextureViewDimension::D2,
            },
        },
        count: None,
    }
}
