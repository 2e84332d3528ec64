//! The limits of a device that was opened with WebGPU's defaults.

use naga::AddressSpace;
use prefgrad::Access;

use crate::inventory::{name, shaders};
use crate::module::parsed;

/// WebGPU's default limits; wgpu does not enforce the one on workgroup memory.
const STORAGE_BUFFERS: usize = 8;
const UNIFORM_BUFFERS: usize = 12;
const WORKGROUP_BYTES: u32 = 16 << 10;
const INVOCATIONS: u32 = 256;
const WORKGROUP_SIZE: [u32; 3] = [256, 256, 64];
const UNIFORM_BYTES: usize = 64 << 10;

#[test]
fn buffers_fit_the_default_limits() {
    for shader in shaders() {
        let uniform = shader
            .bindings
            .iter()
            .filter(|(_, access)| *access == Access::Uniform)
            .count();
        let storage = shader.bindings.len() - uniform;
        assert!(storage <= STORAGE_BUFFERS, "{}: {storage}", name(shader));
        assert!(uniform <= UNIFORM_BUFFERS, "{}: {uniform}", name(shader));
        assert!(shader.params_size <= UNIFORM_BYTES, "{}", name(shader));
    }
}

#[test]
fn workgroups_fit_the_default_limits() {
    for shader in shaders() {
        let parsed = parsed(shader);
        let (index, entry) = parsed
            .module
            .entry_points
            .iter()
            .enumerate()
            .find(|(_, entry)| entry.name == shader.entry)
            .unwrap_or_else(|| panic!("{} has no such entry", name(shader)));
        let size = entry.workgroup_size;
        assert!(
            size.iter()
                .zip(WORKGROUP_SIZE)
                .all(|(size, limit)| *size <= limit)
                && size.iter().product::<u32>() <= INVOCATIONS,
            "{}: {size:?}",
            name(shader)
        );
        let used = parsed.info.get_entry_point(index);
        let bytes: u32 = parsed
            .module
            .global_variables
            .iter()
            .filter(|(handle, global)| {
                global.space == AddressSpace::WorkGroup && !used[*handle].is_empty()
            })
            .map(|(_, global)| {
                let size = parsed.module.types[global.ty]
                    .inner
                    .size(parsed.module.to_ctx());
                size.next_multiple_of(16)
            })
            .sum();
        assert!(bytes <= WORKGROUP_BYTES, "{}: {bytes}", name(shader));
    }
}
