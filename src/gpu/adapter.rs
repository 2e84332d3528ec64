//! The choice among a machine's adapters.

use crate::{Error, Result};

const NO_ADAPTER_HINT: &str = if cfg!(target_os = "linux") {
    "Install a Vulkan driver: for a GPU the vendor's own or Mesa's, without one the software driver \
     (Debian, Ubuntu: apt-get install libvulkan1 mesa-vulkan-drivers; Fedora: dnf install \
     vulkan-loader mesa-vulkan-drivers; Arch: pacman -S vulkan-icd-loader vulkan-swrast)"
} else if cfg!(target_os = "macos") {
    "Metal comes with macOS 10.13 and later: check `system_profiler SPDisplaysDataType`"
} else if cfg!(target_os = "windows") {
    "Update the graphics driver (DirectX 12 or Vulkan)"
} else {
    "Use a browser or system with WebGPU, Vulkan, Metal or DirectX 12"
};

/// The best adapter, among those that the environment leaves.
pub(super) async fn pick_adapter(instance: &wgpu::Instance) -> Result<wgpu::Adapter> {
    let wanted = std::env::var("WGPU_ADAPTER_NAME").ok();
    let mut adapters = instance.enumerate_adapters(wgpu::Backends::all()).await;
    let names: Vec<String> = adapters.iter().map(|a| a.get_info().name).collect();
    if let Some(part) = &wanted {
        let part = part.to_lowercase();
        adapters.retain(|a| a.get_info().name.to_lowercase().contains(&part));
    }
    let rank = |adapter: &wgpu::Adapter| match adapter.get_info().device_type {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    };
    // A browser lists no adapters: there, and only there, the request decides.
    let found = match adapters.into_iter().min_by_key(rank) {
        Some(adapter) => Some(adapter),
        None if wanted.is_none() => instance
            .request_adapter(&wgpu::RequestAdapterOptions {
                power_preference: wgpu::PowerPreference::HighPerformance,
                ..Default::default()
            })
            .await
            .ok(),
        None => None,
    };
    found.ok_or_else(|| Error::NoAdapter {
        detail: match wanted {
            Some(name) => format!("none of {names:?} contains WGPU_ADAPTER_NAME={name}"),
            None => "this system offers none through Vulkan, Metal, DirectX 12 or WebGPU".into(),
        },
        hint: NO_ADAPTER_HINT,
    })
}
