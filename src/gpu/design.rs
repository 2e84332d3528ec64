//! [`MatmulDesign`]: how matrix products are computed, and who decides that.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Gpu;
use super::matmul_tuning::{MatmulTuning, ProductClass};

/// How matrix products are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum MatmulDesign {
    /// A block of outputs a thread, in registers: for software drivers without subgroups, and where
    /// a device's limits are below WebGPU's.
    Registers,
    /// Rows spread inside a subgroup: for software drivers, which are slow at loads.
    Subgroup,
    /// As `Subgroup`, with operands copied into textures first, which software drivers read
    /// several times faster than buffers. Copies stand between passes, so such a plan cannot be
    /// encoded into one pass of the host's ([`Plan::encode`](super::Plan::encode)).
    Staged,
    /// Tiles of both operands in workgroup memory: for GPUs.
    Tiled(Tiling),
    /// Tiles by cooperative matrices, several times the arithmetic rate in exchange for precision:
    /// **operands are rounded to f16**, products and sums are in f32. Never chosen unasked.
    ///
    /// A product's relative error is up to 2^-10, and a sum's that of the sum of its products' sizes.
    /// Operands, gradients among them, must be in f16's range: beyond 65,504 they become infinite,
    /// below 6e-5 they lose digits, and below 3e-8 they vanish.
    ///
    /// For Vulkan devices that multiply 16x16x16 matrices of f16 with sums of f32, with subgroups of
    /// 32 lanes and 15 KiB of workgroup memory. [`Gpu::new`] asks for wgpu's experimental features
    /// only where [`GpuOptions`](super::GpuOptions) or `PREFGRAD_MATMUL` name this design. A host
    /// opens its device with `SHADER_F16` and `EXPERIMENTAL_COOPERATIVE_MATRIX` for it, after it has
    /// found the size among its adapter's `cooperative_matrix_properties`.
    ///
    /// Products whose operands are not made of whole fours are computed as by `Tiled`.
    Cooperative,
}

/// How [`MatmulDesign::Tiled`] cuts up a result, by workgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tiling {
    /// The one with the most outputs a thread of which the result has enough tiles to occupy a GPU.
    BySize,
    /// 32x32 outputs, four times 32 threads with 8x4 each, which take turns along k.
    Small,
    /// 64x64 outputs, 128 threads with 8x4 each.
    Medium,
    /// 64x64 outputs, 64 threads with 8x8 each.
    Large,
}

impl MatmulDesign {
    /// Every design.
    pub const ALL: [Self; 8] = [
        Self::Registers,
        Self::Subgroup,
        Self::Staged,
        Self::Tiled(Tiling::BySize),
        Self::Tiled(Tiling::Small),
        Self::Tiled(Tiling::Medium),
        Self::Tiled(Tiling::Large),
        Self::Cooperative,
    ];

    /// The name, as in `PREFGRAD_MATMUL=tiled`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Registers => "registers",
            Self::Subgroup => "subgroup",
            Self::Staged => "staged",
            Self::Tiled(Tiling::BySize) => "tiled",
            Self::Tiled(Tiling::Small) => "tiled-small",
            Self::Tiled(Tiling::Medium) => "tiled-medium",
            Self::Tiled(Tiling::Large) => "tiled-large",
            Self::Cooperative => "cooperative",
        }
    }

    /// The design of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|design| design.name() == name)
    }

    /// What is asked for, by the environment before `option`.
    pub(super) fn asked(option: Option<Self>) -> Option<Self> {
        Self::from_env().or(option)
    }

    /// What the environment asks for.
    fn from_env() -> Option<Self> {
        let name = std::env::var("PREFGRAD_MATMUL").ok()?;
        let design = Self::from_name(&name);
        if design.is_none() {
            let names = Self::ALL.map(Self::name).join("`, `");
            log::warn!("PREFGRAD_MATMUL={name} is none of `{names}`");
        }
        design
    }
}

impl fmt::Display for MatmulDesign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl From<MatmulDesign> for String {
    fn from(design: MatmulDesign) -> Self {
        design.name().into()
    }
}

impl TryFrom<String> for MatmulDesign {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        Self::from_name(&name).ok_or_else(|| format!("`{name}` is no design of matrix product"))
    }
}

/// What of a device decides which designs it can run, and which is fastest.
#[derive(Debug, Clone, Copy)]
pub(super) struct DeviceCan {
    /// The design for software drivers, if it is one.
    software: Option<MatmulDesign>,
    subgroups: bool,
    /// WebGPU's own limits for threads and memory of a workgroup.
    workgroups: bool,
    /// Opened for matrices that subgroups multiply.
    cooperative: bool,
}

impl DeviceCan {
    /// `software` is the design for software drivers with subgroups.
    pub fn new(
        device: wgpu::DeviceType,
        subgroups: bool,
        limits: &wgpu::Limits,
        software: MatmulDesign,
    ) -> Self {
        Self {
            software: (device == wgpu::DeviceType::Cpu).then_some(software),
            subgroups,
            workgroups: limits.max_compute_workgroup_storage_size >= 16 << 10
                && limits.max_compute_invocations_per_workgroup >= 256
                && limits.max_compute_workgroup_size_x >= 256,
            cooperative: false,
        }
    }

    pub fn with_cooperative(self, cooperative: bool) -> Self {
        Self {
            cooperative,
            ..self
        }
    }

    fn run(self, design: MatmulDesign) -> bool {
        match design {
            MatmulDesign::Registers => true,
            MatmulDesign::Subgroup | MatmulDesign::Staged => self.subgroups,
            MatmulDesign::Tiled(_) => self.workgroups,
            // Some products fall back to tiles.
            MatmulDesign::Cooperative => self.cooperative && self.workgroups,
        }
    }

    /// The design asked for, if the device can run it.
    fn check(self, design: MatmulDesign) -> Option<MatmulDesign> {
        if !self.run(design) {
            log::warn!(
                "matrix products: this device can't run `{design}`, or was not opened for it; it \
                 runs `{}` instead",
                self.fastest()
            );
        }
        Some(design).filter(|design| self.run(*design))
    }

    fn fastest(self) -> MatmulDesign {
        match (self.software, self.subgroups, self.workgroups) {
            (Some(design), true, _) => design,
            (Some(_), false, _) | (None, _, false) => MatmulDesign::Registers,
            (None, _, true) => MatmulDesign::Tiled(Tiling::BySize),
        }
    }
}

/// Who decides how a product is computed.
#[derive(Debug, Clone)]
pub(super) struct MatmulChoice {
    device: DeviceCan,
    /// By the environment or the caller.
    forced: Option<MatmulDesign>,
    tuning: Option<Arc<MatmulTuning>>,
}

impl MatmulChoice {
    /// What was asked for decides before the kind of device.
    pub fn new(asked: Option<MatmulDesign>, device: DeviceCan) -> Self {
        Self {
            device,
            forced: asked.and_then(|design| device.check(design)),
            tuning: None,
        }
    }

    pub fn forced(&self, design: MatmulDesign) -> Self {
        Self {
            forced: self.device.check(design),
            ..self.clone()
        }
    }

    pub fn tuned(&self, tuning: MatmulTuning) -> Self {
        Self {
            tuning: Some(Arc::new(tuning)),
            ..self.clone()
        }
    }

    pub fn design(&self) -> MatmulDesign {
        self.forced.unwrap_or(self.device.fastest())
    }

    /// What was decided, then what was measured for the class, then the design for the device.
    pub fn design_for(&self, class: ProductClass) -> MatmulDesign {
        let to_tune = self.to_tune();
        let can_run = |design| to_tune.contains(&design);
        let measured = || self.tuning()?.fastest(class, can_run);
        self.forced
            .or_else(measured)
            .unwrap_or(self.device.fastest())
    }

    /// The table in force.
    pub fn tuning(&self) -> Option<&MatmulTuning> {
        self.tuning.as_deref().filter(|_| self.forced.is_none())
    }

    /// Designs worth comparing, all of the same precision: copies into textures only where the
    /// device's owner has allowed plans that do not fit into one pass.
    pub fn to_tune(&self) -> Vec<MatmulDesign> {
        let staged = self.device.fastest() == MatmulDesign::Staged;
        let all = self.runnable().into_iter();
        all.filter(|design| match design {
            MatmulDesign::Staged => staged,
            MatmulDesign::Cooperative => false,
            _ => true,
        })
        .collect()
    }

    /// Designs that the device can run, each tiling by itself.
    pub fn runnable(&self) -> Vec<MatmulDesign> {
        let all = MatmulDesign::ALL.into_iter();
        let single = all.filter(|design| *design != MatmulDesign::Tiled(Tiling::BySize));
        single.filter(|design| self.device.run(*design)).collect()
    }
}

impl fmt::Display for MatmulChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.design().fmt(f)?;
        match self.tuning() {
            Some(tuning) => write!(f, ", tuned ({})", tuning.summary()),
            None => Ok(()),
        }
    }
}

impl Gpu {
    /// The same device with another design for all its matrix products, its own where it can't run
    /// that one.
    pub fn with_matmul(&self, design: MatmulDesign) -> Self {
        let mut gpu = self.clone();
        gpu.matmul = self.matmul.forced(design);
        gpu
    }

    /// The same device with [`MatmulDesign::Cooperative`], for which tests have a text of their own.
    #[cfg(test)]
    pub(crate) fn with_emulated_fragments(&self) -> Self {
        let mut gpu = self.clone();
        gpu.matmul.device = self.matmul.device.with_cooperative(true);
        gpu.with_matmul(MatmulDesign::Cooperative)
    }

    /// The same device, whose matrix products follow what was measured on it, unless the
    /// environment or [`GpuOptions`](super::GpuOptions) name a design.
    pub fn with_tuning(&self, tuning: MatmulTuning) -> Self {
        let mut gpu = self.clone();
        gpu.matmul = self.matmul.tuned(tuning);
        gpu
    }

    /// The table that matrix products follow.
    pub fn matmul_tuning(&self) -> Option<&MatmulTuning> {
        self.matmul.tuning()
    }

    /// How matrix products of a class are computed.
    pub fn matmul_design_for(&self, class: ProductClass) -> MatmulDesign {
        self.matmul.design_for(class)
    }

    /// The designs that [`MatmulTuning::measure`] compares.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn matmul_designs_to_tune(&self) -> Vec<MatmulDesign> {
        self.matmul.to_tune()
    }

    /// How matrix products are computed on this device where nothing was measured.
    pub fn matmul_design(&self) -> MatmulDesign {
        self.matmul.design()
    }

    /// The designs of matrix product that this device can run, each tiling by itself.
    pub fn matmul_designs(&self) -> Vec<MatmulDesign> {
        self.matmul.runnable()
    }
}

#[cfg(test)]
mod tests {
    use super::{DeviceCan, MatmulChoice, MatmulDesign, Tiling};

    fn device(kind: wgpu::DeviceType, subgroups: bool, limits: &wgpu::Limits) -> DeviceCan {
        DeviceCan::new(kind, subgroups, limits, MatmulDesign::Staged)
    }

    #[test]
    fn the_kind_of_device_decides() {
        let limits = wgpu::Limits::default();
        let tiled = MatmulDesign::Tiled(Tiling::BySize);
        let of = |kind, subgroups| device(kind, subgroups, &limits).fastest();
        assert_eq!(of(wgpu::DeviceType::Cpu, true), MatmulDesign::Staged);
        assert_eq!(of(wgpu::DeviceType::Cpu, false), MatmulDesign::Registers);
        assert_eq!(of(wgpu::DeviceType::DiscreteGpu, true), tiled);
        assert_eq!(of(wgpu::DeviceType::IntegratedGpu, false), tiled);
        // A browser does not say what kind of device it has.
        assert_eq!(of(wgpu::DeviceType::Other, true), tiled);
    }

    #[test]
    fn small_workgroups_rule_tiles_out() {
        let limits = wgpu::Limits {
            max_compute_invocations_per_workgroup: 128,
            ..Default::default()
        };
        let device = device(wgpu::DeviceType::DiscreteGpu, false, &limits);
        assert_eq!(device.fastest(), MatmulDesign::Registers);
        let runnable = MatmulChoice::new(None, device).runnable();
        assert_eq!(runnable, [MatmulDesign::Registers]);
    }

    #[test]
    fn a_design_that_the_device_cannot_run_gives_way_to_its_own() {
        let limits = wgpu::Limits::default();
        let plain = device(wgpu::DeviceType::DiscreteGpu, true, &limits);
        let tiled = MatmulDesign::Tiled(Tiling::BySize);
        let asked = Some(MatmulDesign::Cooperative);
        assert_eq!(MatmulChoice::new(asked, plain).design(), tiled);
        let able = plain.with_cooperative(true);
        assert_eq!(
            MatmulChoice::new(asked, able).design(),
            MatmulDesign::Cooperative
        );
        let unasked = MatmulChoice::new(None, able);
        assert_eq!(unasked.design(), tiled);
        assert_eq!(
            unasked.forced(MatmulDesign::Cooperative).design(),
            MatmulDesign::Cooperative
        );
        assert!(unasked.runnable().contains(&MatmulDesign::Cooperative));
        assert!(!unasked.to_tune().contains(&MatmulDesign::Cooperative));
    }

    #[test]
    fn names_lead_back_to_their_designs() {
        for design in MatmulDesign::ALL {
            assert_eq!(MatmulDesign::from_name(design.name()), Some(design));
        }
        assert_eq!(MatmulDesign::from_name("fast"), None);
    }
}
