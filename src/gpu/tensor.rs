//! [`Tensor`]: a named, shaped window of a device buffer.

use std::sync::Arc;

use super::{DeviceStruct, Gpu};
use crate::{Error, Result};

/// What a tensor can hold: any plain struct whose layout equals the shader's.
///
/// Implemented for `f32`, `u32`, `i32` and for the crate's own batch structs.
pub trait Element: bytemuck::Pod {
    /// The name in messages, as in WGSL.
    const NAME: &'static str;
}

impl Element for f32 {
    const NAME: &'static str = "f32";
}
impl Element for u32 {
    const NAME: &'static str = "u32";
}
impl Element for i32 {
    const NAME: &'static str = "i32";
}

impl<T: DeviceStruct> Element for T {
    const NAME: &'static str = T::NAME;
}

/// The smallest buffer: an empty tensor still needs something to bind, one element at least.
pub(super) const MIN_BYTES: u64 = 64;

/// A named window of a device buffer: row-major, no gaps.
///
/// Cheap to clone; clones share the buffer.
#[derive(Clone)]
pub struct Tensor {
    label: Arc<str>,
    buffer: wgpu::Buffer,
    /// In bytes.
    offset: u64,
    shape: Arc<[usize]>,
    element: (&'static str, usize),
}

impl Tensor {
    /// A tensor of zeros in a buffer of its own.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`] where it exceeds the device's buffer or binding limit,
    /// [`Error::OutOfMemory`].
    pub fn zeros<T: Element>(gpu: &Gpu, label: &str, shape: &[usize]) -> Result<Self> {
        Self::allocate::<T>(gpu, label, shape, true)
    }

    /// As [`Tensor::zeros`], for buffers larger than one binding that are only ever bound through
    /// [`Tensor::window`].
    ///
    /// # Errors
    ///
    /// As [`Tensor::zeros`], less the binding limit.
    pub fn zeros_windowed<T: Element>(gpu: &Gpu, label: &str, shape: &[usize]) -> Result<Self> {
        Self::allocate::<T>(gpu, label, shape, false)
    }

    fn allocate<T: Element>(gpu: &Gpu, label: &str, shape: &[usize], bound: bool) -> Result<Self> {
        let size = size_of::<T>();
        let bytes = shape
            .iter()
            .try_fold(size as u64, |n, &dim| n.checked_mul(dim as u64))
            .ok_or_else(|| Error::shape("tensor", format!("`{label}` {shape:?} overflows")))?;
        let bytes = bytes.max(MIN_BYTES);
        let limits = gpu.limits();
        let (limit_name, limit) =
            if bound && limits.max_storage_buffer_binding_size < limits.max_buffer_size {
                (
                    "maxStorageBufferBindingSize",
                    limits.max_storage_buffer_binding_size,
                )
            } else {
                ("maxBufferSize", limits.max_buffer_size)
            };
        if bytes > limit {
            return Err(Error::Limit {
                what: label.into(),
                needed: bytes,
                limit_name,
                limit,
                hint: "use a smaller batch, context, vocabulary or width",
            });
        }
        let bytes = bytes.next_multiple_of(16);
        gpu.count(bytes);
        let allocated = match gpu.counts_only() {
            true => MIN_BYTES,
            false => bytes,
        };
        gpu.note(|activity| activity.buffers += 1);
        let buffer = gpu
            .guarded(wgpu::ErrorFilter::OutOfMemory, || {
                gpu.device().create_buffer(&wgpu::BufferDescriptor {
                    label: Some(label),
                    size: allocated,
                    usage: wgpu::BufferUsages::STORAGE
                        | wgpu::BufferUsages::UNIFORM
                        | wgpu::BufferUsages::COPY_SRC
                        | wgpu::BufferUsages::COPY_DST,
                    mapped_at_creation: false,
                })
            })
            .map_err(|_| Error::OutOfMemory {
                what: label.into(),
                bytes,
            })?;
        Ok(Self {
            label: label.into(),
            buffer,
            offset: 0,
            shape: shape.into(),
            element: (T::NAME, size),
        })
    }

    /// A tensor with the given values, row-major.
    ///
    /// # Errors
    ///
    /// As [`Tensor::zeros`]; [`Error::Shape`] if the number of values is not the shape's.
    pub fn from_slice<T: Element>(
        gpu: &Gpu,
        label: &str,
        shape: &[usize],
        values: &[T],
    ) -> Result<Self> {
        let tensor = Self::zeros::<T>(gpu, label, shape)?;
        tensor.write(gpu, values)?;
        Ok(tensor)
    }

    /// A window of a buffer that the host application made with `STORAGE` usage.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if the window passes the buffer's end or the usage is missing.
    pub fn from_buffer<T: Element>(
        label: &str,
        buffer: wgpu::Buffer,
        offset_bytes: u64,
        shape: &[usize],
    ) -> Result<Self> {
        let bytes = (shape.iter().product::<usize>() * size_of::<T>()) as u64;
        if offset_bytes.saturating_add(bytes) > buffer.size() {
            return Err(Error::shape(
                "tensor",
                format!(
                    "`{label}` {shape:?} at byte {offset_bytes} needs {bytes} bytes, the buffer has {}",
                    buffer.size()
                ),
            ));
        }
        if !buffer.usage().contains(wgpu::BufferUsages::STORAGE) {
            return Err(Error::shape(
                "tensor",
                format!("`{label}`: the buffer was made without STORAGE usage"),
            ));
        }
        Ok(Self {
            label: label.into(),
            buffer,
            offset: offset_bytes,
            shape: shape.into(),
            element: (T::NAME, size_of::<T>()),
        })
    }

    /// A window of this tensor that starts `start` elements into it.
    ///
    /// To be bound, `start` in bytes must keep to the device's offset alignment (256 at most).
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if the window passes the tensor's end.
    pub fn window(&self, label: &str, start: usize, shape: &[usize]) -> Result<Self> {
        let len: usize = shape.iter().product();
        if start + len > self.len() {
            return Err(Error::shape(
                "tensor",
                format!(
                    "window `{label}` {shape:?} at {start} passes the end of `{}` ({} elements)",
                    self.label,
                    self.len()
                ),
            ));
        }
        Ok(Self {
            label: label.into(),
            buffer: self.buffer.clone(),
            offset: self.offset + (start * self.element.1) as u64,
            shape: shape.into(),
            element: self.element,
        })
    }

    /// The same elements under another shape.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if the number of elements differs.
    pub fn reshape(&self, shape: &[usize]) -> Result<Self> {
        if shape.iter().product::<usize>() != self.len() {
            return Err(Error::shape(
                "tensor",
                format!("`{}` {:?} can't become {shape:?}", self.label, self.shape),
            ));
        }
        Ok(Self {
            shape: shape.into(),
            ..self.clone()
        })
    }

    /// The name in messages and debuggers.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The shape, outermost dimension first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The size in bytes.
    pub fn bytes(&self) -> u64 {
        (self.len() * self.element.1) as u64
    }

    /// The first byte within [`Tensor::buffer`].
    pub fn offset_bytes(&self) -> u64 {
        self.offset
    }

    /// The buffer this is a window of.
    pub fn buffer(&self) -> &wgpu::Buffer {
        &self.buffer
    }

    /// Queues a write of the first `values.len()` elements; it lands before the next submission.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if there are more values than elements, or of another type.
    pub fn write<T: Element>(&self, gpu: &Gpu, values: &[T]) -> Result<()> {
        self.expect_element::<T>()?;
        if values.len() > self.len() {
            return Err(Error::shape(
                "tensor",
                format!(
                    "{} values do not fit `{}` {:?}",
                    values.len(),
                    self.label,
                    self.shape
                ),
            ));
        }
        let bytes: &[u8] = bytemuck::cast_slice(values);
        if !bytes.is_empty() && !gpu.counts_only() {
            gpu.queue().write_buffer(&self.buffer, self.offset, bytes);
        }
        Ok(())
    }

    /// Copies the tensor back to the host and waits for it.
    ///
    /// # Errors
    ///
    /// [`Error::Device`], [`Error::DeviceLost`]; [`Error::Shape`] for another element type.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn read<T: Element>(&self, gpu: &Gpu) -> Result<Vec<T>> {
        pollster::block_on(self.read_async(gpu))
    }

    /// [`Tensor::read`] as a future. Outside browsers, where nothing else drives a device, it
    /// polls the device itself and so blocks until the work submitted before is done.
    ///
    /// # Errors
    ///
    /// As [`Tensor::read`].
    pub async fn read_async<T: Element>(&self, gpu: &Gpu) -> Result<Vec<T>> {
        self.expect_element::<T>()?;
        if self.is_empty() {
            return Ok(Vec::new());
        }
        if gpu.counts_only() {
            return Err(read_failed(&self.label, "its memory is only being planned"));
        }
        gpu.note(|activity| activity.readbacks += 1);
        let staging = gpu
            .guarded(wgpu::ErrorFilter::OutOfMemory, || {
                gpu.device().create_buffer(&wgpu::BufferDescriptor {
                    label: Some("readback"),
                    size: self.bytes(),
                    usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
                    mapped_at_creation: false,
                })
            })
            .map_err(|_| Error::OutOfMemory {
                what: format!("readback of {}", self.label),
                bytes: self.bytes(),
            })?;
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(&self.buffer, self.offset, &staging, 0, self.bytes());
        gpu.queue().submit([encoder.finish()]);
        map_for_reading(gpu, &staging, &self.label).await?;
        let view = staging
            .get_mapped_range(..)
            .map_err(|error| read_failed(&self.label, error))?;
        Ok(bytemuck::pod_collect_to_vec(&view[..]))
    }

    pub(crate) fn expect_element<T: Element>(&self) -> Result<()> {
        if self.element == (T::NAME, size_of::<T>()) {
            return Ok(());
        }
        Err(Error::shape(
            "tensor",
            format!("`{}` holds {}, not {}", self.label, self.element.0, T::NAME),
        ))
    }
}

fn read_failed(label: &str, error: impl std::fmt::Display) -> Error {
    Error::Device {
        during: format!("reading `{label}` back"),
        detail: error.to_string(),
    }
}

/// Maps a staging buffer; natively this waits for the device, since the caller asked to read.
pub(super) async fn map_for_reading(gpu: &Gpu, staging: &wgpu::Buffer, label: &str) -> Result<()> {
    let (sender, receiver) = mapped_channel();
    staging.map_async(wgpu::MapMode::Read, .., move |result| sender.send(result));
    #[cfg(not(target_arch = "wasm32"))]
    gpu.wait()?;
    receiver.await.map_err(|error| {
        gpu.check()
            .err()
            .unwrap_or_else(|| read_failed(label, error))
    })
}

type MapResult = std::result::Result<(), wgpu::BufferAsyncError>;

#[derive(Default)]
struct MapState {
    result: Option<MapResult>,
    waker: Option<std::task::Waker>,
}

struct MapSender(Arc<std::sync::Mutex<MapState>>);
struct MapReceiver(Arc<std::sync::Mutex<MapState>>);

fn mapped_channel() -> (MapSender, MapReceiver) {
    let state = Arc::default();
    (MapSender(Arc::clone(&state)), MapReceiver(state))
}

impl MapSender {
    fn send(self, result: MapResult) {
        let mut state = self
            .0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        state.result = Some(result);
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }
}

impl Future for MapReceiver {
    type Output = MapResult;

    fn poll(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<MapResult> {
        let mut state = self
            .0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        match state.result.take() {
            Some(result) => std::task::Poll::Ready(result),
            None => {
                state.waker = Some(context.waker().clone());
                std::task::Poll::Pending
            }
        }
    }
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?} {}", self.label, self.shape, self.element.0)
    }
}
