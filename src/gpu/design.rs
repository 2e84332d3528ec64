//! [`MatmulDesign`]: how matrix products are computed, and who decides that.

use std::fmt;

/// How matrix products are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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
}

/// How [`MatmulDesign::Tiled`] cuts up a result, by workgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tiling {
    /// The largest tile of which the result has enough to occupy a GPU.
    BySize,
    /// 32x32 outputs, 64 threads with 4x4 each.
    Small,
    /// 64x64 outputs, 64 threads with 8x8 each.
    Medium,
    /// 128x128 outputs, 256 threads with 8x8 each.
    Large,
}

impl MatmulDesign {
    /// Every design.
    pub const ALL: [Self; 7] = [
        Self::Registers,
        Self::Subgroup,
        Self::Staged,
        Self::Tiled(Tiling::BySize),
        Self::Tiled(Tiling::Small),
        Self::Tiled(Tiling::Medium),
        Self::Tiled(Tiling::Large),
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
        }
    }

    /// The design of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|design| design.name() == name)
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

/// What of a device decides which designs it can run, and which is fastest.
#[derive(Debug, Clone, Copy)]
pub(super) struct DeviceCan {
    /// The design for software drivers, if it is one.
    software: Option<MatmulDesign>,
    subgroups: bool,
    /// WebGPU's own limits for threads and memory of a workgroup.
    workgroups: bool,
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
        }
    }

    fn run(self, design: MatmulDesign) -> bool {
        match design {
            MatmulDesign::Registers => true,
            MatmulDesign::Subgroup | MatmulDesign::Staged => self.subgroups,
            MatmulDesign::Tiled(_) => self.workgroups,
        }
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
}

impl MatmulChoice {
    /// The environment decides before `option`, and that before the kind of device.
    pub fn new(option: Option<MatmulDesign>, device: DeviceCan) -> Self {
        Self {
            device,
            forced: MatmulDesign::from_env().or(option),
        }
    }

    pub fn forced(&self, design: MatmulDesign) -> Self {
        Self {
            forced: Some(design),
            ..self.clone()
        }
    }

    pub fn design(&self) -> MatmulDesign {
        self.forced.unwrap_or(self.device.fastest())
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
        self.design().fmt(f)
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
    fn names_lead_back_to_their_designs() {
        for design in MatmulDesign::ALL {
            assert_eq!(MatmulDesign::from_name(design.name()), Some(design));
        }
        assert_eq!(MatmulDesign::from_name("fast"), None);
    }
}
