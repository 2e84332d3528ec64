//! The uniform buffers that a plan's parameter structs lie in.

use super::Gpu;

/// Parameter structs of a plan, in few uniform buffers.
#[derive(Default)]
pub(super) struct ParamArena {
    chunk: Option<wgpu::Buffer>,
    used: u64,
}

impl ParamArena {
    const CHUNK_BYTES: u64 = 1 << 14;

    pub(super) fn push(&mut self, gpu: &Gpu, bytes: &[u8]) -> (wgpu::Buffer, u64) {
        let alignment = u64::from(gpu.limits().min_uniform_buffer_offset_alignment);
        let offset = self.used.next_multiple_of(alignment);
        let end = offset + bytes.len() as u64;
        let (buffer, offset) = match &self.chunk {
            Some(chunk) if end <= Self::CHUNK_BYTES => (chunk.clone(), offset),
            _ => (self.new_chunk(gpu), 0),
        };
        self.used = offset + bytes.len() as u64;
        gpu.queue().write_buffer(&buffer, offset, bytes);
        (buffer, offset)
    }

    fn new_chunk(&mut self, gpu: &Gpu) -> wgpu::Buffer {
        let buffer = gpu.device().create_buffer(&wgpu::BufferDescriptor {
            label: Some("kernel parameters"),
            size: Self::CHUNK_BYTES,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        self.chunk = Some(buffer.clone());
        buffer
    }
}
