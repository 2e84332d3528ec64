//! What [`MatmulDesign::Cooperative`](super::MatmulDesign::Cooperative) needs of a device.

use wgpu::CooperativeScalarType::{F16, F32};

/// The features of a device that multiplies matrices of f16.
pub(super) const FEATURES: wgpu::Features =
    wgpu::Features::SHADER_F16.union(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX);

/// Lanes of a subgroup that the kernel counts on.
const LANES: u32 = 32;

/// Workgroup memory in bytes that the kernel takes.
pub(crate) const WORKGROUP_BYTES: u32 = 15_360;

/// Whether an adapter multiplies 16x16x16 matrices of f16 with sums of f32.
pub(super) fn offered(adapter: &wgpu::Adapter) -> bool {
    let sizes = adapter.cooperative_matrix_properties();
    let found = sizes.iter().any(|size| {
        [size.m_size, size.n_size, size.k_size] == [16; 3]
            && (size.ab_type, size.cr_type) == (F16, F32)
    });
    found && adapter.features().contains(FEATURES)
}

/// Whether a device was opened for it. wgpu says nothing of the sizes of matrices once a device is
/// open: a host that opens one with these features has asked its adapter.
pub(super) fn opened(device: &wgpu::Device, info: &wgpu::AdapterInfo) -> bool {
    device.features().contains(FEATURES)
        && info.backend == wgpu::Backend::Vulkan
        && (info.subgroup_min_size, info.subgroup_max_size) == (LANES, LANES)
        && device.limits().max_compute_workgroup_storage_size >= WORKGROUP_BYTES
}
