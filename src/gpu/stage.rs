//! Copies of operands in textures: software drivers read a texel of four values several times
//! faster than a vector of a buffer, which they load lane by lane. As storage textures, since a
//! sampled one looks for its levels with each load.

use std::collections::HashMap;

use super::device::lock;
use super::{Gpu, Tensor};

/// Texels in a row of a staging texture; `shaders/lib/matmul/access_staged.wgsl` knows it too.
const ROW_TEXELS: u32 = 4096;
/// A texel is four `f32`.
const TEXEL_BYTES: u64 = 16;
const ROW_BYTES: u64 = ROW_TEXELS as u64 * TEXEL_BYTES;

/// The staging textures of a device by place among the staged operands of a dispatch and by rows,
/// for all its plans: what a dispatch finds there was copied right before it.
pub(super) type StagingTextures = HashMap<(u32, u32), wgpu::Texture>;

/// A copy to make before a dispatch.
pub(super) struct Stage {
    buffer: wgpu::Buffer,
    offset: u64,
    texels: u32,
    texture: wgpu::Texture,
}

/// Rows of the texture for `bytes`: sizes are rounded up so that few textures serve all operands.
fn rows_for(bytes: u64) -> Option<u32> {
    let rows = u32::try_from(bytes.div_ceil(ROW_BYTES)).ok()?;
    Some(rows.max(1).next_power_of_two())
}

/// The bytes that are copied of a tensor: whole texels.
fn staged_bytes(tensor: &Tensor) -> u64 {
    tensor.bytes().next_multiple_of(TEXEL_BYTES)
}

/// Textures that a matrix product binds.
const MOST_IN_PRODUCTS: u32 = 2;

impl Gpu {
    /// Whether a tensor can be bound with [`Binding::staged`](super::Binding::staged).
    pub(crate) fn can_stage(&self, tensor: &Tensor) -> bool {
        let limits = self.limits();
        let largest = limits.max_texture_dimension_2d;
        // A tensor that is only counted has a buffer of a few bytes.
        let inside = tensor.offset_bytes() + staged_bytes(tensor) <= tensor.buffer().size();
        tensor
            .buffer()
            .usage()
            .contains(wgpu::BufferUsages::COPY_SRC)
            && tensor.offset_bytes().is_multiple_of(TEXEL_BYTES)
            && (inside || self.counts_only())
            && limits.max_storage_textures_per_shader_stage >= MOST_IN_PRODUCTS
            && largest >= ROW_TEXELS
            && rows_for(tensor.bytes()).is_some_and(|rows| rows <= largest)
    }

    /// Takes note of the texture that a tensor is staged in, where tensors are counted.
    pub(super) fn count_staged(&self, place: u32, tensor: &Tensor) {
        if let Some(rows) = rows_for(tensor.bytes()) {
            self.count_texture((place, rows), u64::from(rows) * ROW_BYTES);
        }
    }

    /// The copy of a tensor that [`Gpu::can_stage`] allows, and what it is bound as.
    pub(super) fn stage(&self, place: u32, tensor: &Tensor) -> (Stage, wgpu::TextureView) {
        let rows = rows_for(tensor.bytes()).unwrap_or(1);
        let texture = lock(self.staging_textures())
            .entry((place, rows))
            .or_insert_with(|| self.staging_texture(rows))
            .clone();
        let view = texture.create_view(&wgpu::TextureViewDescriptor::default());
        let stage = Stage {
            buffer: tensor.buffer().clone(),
            offset: tensor.offset_bytes(),
            texels: (staged_bytes(tensor) / TEXEL_BYTES) as u32,
            texture,
        };
        (stage, view)
    }

    fn staging_texture(&self, rows: u32) -> wgpu::Texture {
        self.note(|activity| activity.textures += 1);
        self.device().create_texture(&wgpu::TextureDescriptor {
            label: Some("staged operand"),
            size: wgpu::Extent3d {
                width: ROW_TEXELS,
                height: rows,
                depth_or_array_layers: 1,
            },
            mip_level_count: 1,
            sample_count: 1,
            dimension: wgpu::TextureDimension::D2,
            format: wgpu::TextureFormat::Rgba32Float,
            usage: wgpu::TextureUsages::STORAGE_BINDING | wgpu::TextureUsages::COPY_DST,
            view_formats: &[],
        })
    }
}

impl Stage {
    /// Copies whole rows of texels, then what is left.
    pub(super) fn encode(&self, encoder: &mut wgpu::CommandEncoder) {
        let (rows, rest) = (self.texels / ROW_TEXELS, self.texels % ROW_TEXELS);
        if rows > 0 {
            self.copy(encoder, 0, ROW_TEXELS, rows);
        }
        if rest > 0 {
            self.copy(encoder, rows, rest, 1);
        }
    }

    fn copy(&self, encoder: &mut wgpu::CommandEncoder, first: u32, width: u32, height: u32) {
        let source = wgpu::TexelCopyBufferInfo {
            buffer: &self.buffer,
            layout: wgpu::TexelCopyBufferLayout {
                offset: self.offset + u64::from(first) * ROW_BYTES,
                bytes_per_row: Some(ROW_BYTES as u32),
                rows_per_image: None,
            },
        };
        let target = wgpu::TexelCopyTextureInfo {
            origin: wgpu::Origin3d {
                x: 0,
                y: first,
                z: 0,
            },
            ..self.texture.as_image_copy()
        };
        encoder.copy_buffer_to_texture(
            source,
            target,
            wgpu::Extent3d {
                width,
                height,
                depth_or_array_layers: 1,
            },
        );
    }
}
