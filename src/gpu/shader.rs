//! [`Shader`]: WGSL text, its variants, and the pipelines compiled from them.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::compiler::guarded;
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

impl Capability {
    /// What stands before everything else in a text that needs it.
    fn enable(self) -> &'static str {
        match self {
            Self::Core => "",
            Self::Subgroups => "enable subgroups;\n",
            Self::Cooperative => "enable f16;\nenable wgpu_cooperative_matrix;\n",
        }
    }

    /// Of that, what naga 30 refuses although it knows what it enables.
    fn refused(self) -> &'static str {
        match self {
            Self::Subgroups if cfg!(not(target_arch = "wasm32")) => self.enable(),
            _ => "",
        }
    }
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

/// Which indices of a kernel are kept within their arrays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checks {
    /// All.
    All,
    /// Those into buffers, by the device itself where it can do that.
    Buffers,
    /// None.
    None,
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
    checks: Checks,
}

impl Shader {
    /// A kernel whose indices drivers keep in bounds.
    pub const fn new(name: &'static str, text: &'static str, capability: Capability) -> Self {
        Self {
            name,
            text,
            capability,
            checks: Checks::All,
        }
    }

    /// The same kernel with fewer bounds checks than wgpu would add: they keep a kernel's arrays
    /// out of registers and its addresses from being computed once.
    ///
    /// # Safety
    ///
    /// Whatever the parameters and the contents of its bindings, every index that is not checked
    /// must be within its array.
    pub const unsafe fn with_checks(self, checks: Checks) -> Self {
        Self { checks, ..self }
    }

    /// The complete WGSL text of a variant, as a browser, Dawn or an editor takes it.
    ///
    /// Prelude, libraries and kernel are concatenated, which WGSL allows since declarations at
    /// module scope may stand in any order. A loop behind a line `// unroll` is written out where
    /// its bound is one of the prelude's constants.
    pub fn wgsl(&self, variant: &Variant<'_>) -> String {
        let mut text = self.capability.enable().to_owned();
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
            let shader = CompiledShader {
                name: self.name,
                entry: variant.entry.to_owned(),
                capability: self.capability,
                wgsl: self.wgsl(variant),
                bindings: slots.to_vec(),
                params_size: params.bytes.len(),
                params: params.fields,
                checks: self.checks,
            };
            Pipeline::new(gpu, shader)
        })
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
    /// Which indices are checked.
    pub checks: Checks,
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct PipelineKey(String);

/// A shader variant that is or will be compiled.
pub(super) struct Pipeline {
    pub(super) shader: CompiledShader,
    pub(super) layout: wgpu::BindGroupLayout,
    made: OnceLock<std::result::Result<wgpu::ComputePipeline, String>>,
}

impl Pipeline {
    /// Makes the layout alone, which is all that bind groups need.
    fn new(gpu: &Gpu, shader: CompiledShader) -> Result<Self> {
        let label = shader.label();
        let entries: Vec<_> = shader.bindings.iter().copied().map(layout_entry).collect();
        let layout = gpu
            .guarded(wgpu::ErrorFilter::Validation, || {
                gpu.device()
                    .create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
                        label: Some(&label),
                        entries: &entries,
                    })
            })
            .map_err(|detail| shader.refused(detail))?;
        Ok(Self {
            shader,
            layout,
            made: OnceLock::new(),
        })
    }

    /// Compiles it and counts it, or waits for the thread that does.
    pub(super) fn compile(&self, device: &wgpu::Device, compiled: &AtomicU64) {
        self.made.get_or_init(|| {
            let kinds = [
                wgpu::ErrorFilter::OutOfMemory,
                wgpu::ErrorFilter::Internal,
                wgpu::ErrorFilter::Validation,
            ];
            let made = guarded(device, kinds, || self.shader.compile(device, &self.layout));
            // In here, so that whoever sees the pipeline sees it counted.
            compiled.fetch_add(u64::from(made.is_ok()), Ordering::Relaxed);
            made
        });
    }

    /// The compiled pipeline, where it is and was not refused.
    pub(super) fn made(&self) -> Option<&wgpu::ComputePipeline> {
        self.made.get()?.as_ref().ok()
    }

    /// Whether it was compiled in vain.
    pub(super) fn was_refused(&self) -> bool {
        self.made.get().is_some_and(|made| made.is_err())
    }

    /// The error, where it was compiled in vain.
    pub(super) fn outcome(&self) -> Result<()> {
        match self.made.get() {
            Some(Err(detail)) => Err(self.shader.refused(detail.clone())),
            Some(Ok(_)) | None => Ok(()),
        }
    }
}

impl CompiledShader {
    fn label(&self) -> String {
        format!("{}.{}", self.name, self.entry)
    }

    fn refused(&self, detail: String) -> Error {
        Error::Shader {
            shader: self.label(),
            detail,
        }
    }

    fn compile(
        &self,
        device: &wgpu::Device,
        layout: &wgpu::BindGroupLayout,
    ) -> wgpu::ComputePipeline {
        let label = self.label();
        let text = self
            .wgsl
            .strip_prefix(self.capability.refused())
            .unwrap_or(&self.wgsl);
        let mut checks = wgpu::ShaderRuntimeChecks::checked();
        checks.force_loop_bounding = false;
        checks.bounds_checks = match self.checks {
            Checks::All => true,
            // Vulkan's devices are opened with robust buffer access.
            Checks::Buffers => device.adapter_info().backend != wgpu::Backend::Vulkan,
            Checks::None => false,
        };
        // SAFETY: wgpu's counter that ends endless loops is off: each loop of the crate's shaders
        // counts upwards by a constant step to a bound that is read once before the loop, so it
        // ends. Bounds checks are off only as far as the caller of `with_checks` has promised that
        // they aren't needed.
        let module = unsafe {
            device.create_shader_module_trusted(
                wgpu::ShaderModuleDescriptor {
                    label: Some(&label),
                    source: wgpu::ShaderSource::Wgsl(text.into()),
                },
                checks,
            )
        };
        let layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(&label),
            bind_group_layouts: &[Some(layout)],
            immediate_size: 0,
        });
        device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(&label),
            layout: Some(&layout),
            module: &module,
            entry_point: Some(&self.entry),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &[],
                zero_initialize_workgroup_memory: false,
            },
            cache: None,
        })
    }
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
