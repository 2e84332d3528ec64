//! [`Gpu`]: a device and its queue, either made here or owned by a host application.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::adapter::pick_adapter;
use super::compiler::Compiler;
use super::cooperative;
use super::design::{DeviceCan, MatmulChoice, MatmulDesign};
use super::matmul_tuning::MatmulTuning;
use super::memory::{Ledger, MemoryUse};
use super::stage::StagingTextures;
use crate::{Error, Result};

/// What a [`Gpu`] may use; each switch is for comparison, the default takes what the device has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GpuOptions {
    /// Use kernels that exchange values inside a subgroup, where the device offers them with at
    /// least 8 lanes. `PREFGRAD_SUBGROUPS=0` in the environment switches them off as well.
    pub subgroups: bool,
    /// How all matrix products are computed; `None` is the faster design for the kind of device, and
    /// so is one that it can't run. `PREFGRAD_MATMUL` in the environment overrides it with a
    /// [`MatmulDesign::name`].
    pub matmul: Option<MatmulDesign>,
}

impl Default for GpuOptions {
    fn default() -> Self {
        Self {
            subgroups: true,
            matmul: None,
        }
    }
}

/// A device, its queue, and the pipelines compiled for it.
///
/// Cheap to clone: clones share everything. [`Gpu::new`] makes a device of its own;
/// [`Gpu::from_device`] works on a device that the host application owns, and then leaves the
/// host's error handler, lost-device callback and polling alone.
#[derive(Clone)]
pub struct Gpu {
    inner: Arc<Inner>,
    /// What tensors made through this handle are for.
    purpose: MemoryUse,
    /// Where tensors are counted in place of allocated.
    ledger: Option<Ledger>,
    pub(super) matmul: MatmulChoice,
}

struct Inner {
    device: wgpu::Device,
    queue: wgpu::Queue,
    info: wgpu::AdapterInfo,
    limits: wgpu::Limits,
    subgroups: bool,
    cooperative: bool,
    timestamps: bool,
    compiler: Compiler,
    staging: Mutex<StagingTextures>,
    activity: Mutex<Activity>,
    faults: Arc<Mutex<Faults>>,
}

/// What the crate has made and asked for on a device so far: for hosts, and the tests, to see that
/// a training step allocates nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Activity {
    /// Buffers made.
    pub buffers: u64,
    /// Textures made.
    pub textures: u64,
    /// Bind groups made.
    pub bind_groups: u64,
    /// Pipelines compiled.
    pub pipelines: u64,
    /// Times that tensors were read back.
    pub readbacks: u64,
    /// Submissions of plans.
    pub submissions: u64,
}

#[derive(Default)]
struct Faults {
    lost: Option<String>,
    /// The first one that was not reported yet.
    error: Option<Error>,
}

impl Faults {
    fn note(&mut self, error: Error) {
        self.error.get_or_insert(error);
    }
}

/// A poisoned lock only means that another thread panicked while holding it; every state kept
/// behind these locks is valid at each step, so the data is used as it is.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The machine's memory, where the system says.
fn machine_memory_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

impl Gpu {
    /// The best adapter of this machine: discrete before integrated before software.
    ///
    /// `WGPU_BACKEND` (`vulkan`, `metal`, `dx12`) and `WGPU_ADAPTER_NAME` (part of the name,
    /// any case) choose among several.
    ///
    /// # Errors
    ///
    /// [`Error::NoAdapter`] says what to install; [`Error::Device`] if the driver refuses.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn new() -> Result<Self> {
        pollster::block_on(Self::new_async(GpuOptions::default()))
    }

    /// [`Gpu::new`] with options.
    ///
    /// # Errors
    ///
    /// As [`Gpu::new`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn with_options(options: GpuOptions) -> Result<Self> {
        pollster::block_on(Self::new_async(options))
    }

    /// [`Gpu::new`] for hosts that must not block, and the only form on wasm32.
    ///
    /// # Errors
    ///
    /// As [`Gpu::new`].
    pub async fn new_async(options: GpuOptions) -> Result<Self> {
        let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
        descriptor.backends = wgpu::Backends::from_env().unwrap_or(wgpu::Backends::all());
        let instance = wgpu::Instance::new(descriptor);
        let adapter = pick_adapter(&instance).await?;
        let asked = MatmulDesign::asked(options.matmul);
        let cooperative =
            asked == Some(MatmulDesign::Cooperative) && cooperative::offered(&adapter);
        let mut wanted = wgpu::Features::SUBGROUP
            | wgpu::Features::TIMESTAMP_QUERY
            | wgpu::Features::TIMESTAMP_QUERY_INSIDE_ENCODERS
            | wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES;
        let mut experimental_features = wgpu::ExperimentalFeatures::disabled();
        if cooperative {
            wanted |= cooperative::FEATURES;
            // SAFETY: of what wgpu calls experimental, only cooperative matrices are used, by one
            // kernel and where the caller asks for it; it keeps to sizes that the adapter lists.
            experimental_features = unsafe { wgpu::ExperimentalFeatures::enabled() };
        }
        let (device, queue) = adapter
            .request_device(&wgpu::DeviceDescriptor {
                label: Some("prefgrad"),
                required_features: adapter.features() & wanted,
                required_limits: adapter.limits(),
                experimental_features,
                memory_hints: wgpu::MemoryHints::Performance,
                trace: wgpu::Trace::Off,
            })
            .await
            .map_err(|error| Error::Device {
                during: format!("opening {}", adapter.get_info().name),
                detail: error.to_string(),
            })?;
        let options = GpuOptions {
            matmul: asked,
            ..options
        };
        let gpu = Self::around(device, queue, options, MatmulDesign::Staged);
        gpu.watch_own_device();
        Ok(gpu)
    }

    /// Works on a device and queue that the host application made, with any limits and features.
    ///
    /// Kernel variants follow the features of this *device*, not of its adapter. Plans fit into a
    /// pass of the host's unless `options` ask for [`MatmulDesign::Staged`].
    pub fn from_device(device: wgpu::Device, queue: wgpu::Queue, options: GpuOptions) -> Self {
        let options = GpuOptions {
            matmul: MatmulDesign::asked(options.matmul),
            ..options
        };
        Self::around(device, queue, options, MatmulDesign::Subgroup)
    }

    /// `options` name the design that was asked for, the environment's before the caller's, and
    /// `software` is the one for software drivers.
    fn around(
        device: wgpu::Device,
        queue: wgpu::Queue,
        options: GpuOptions,
        software: MatmulDesign,
    ) -> Self {
        let info = device.adapter_info();
        let features = device.features();
        let allowed = options.subgroups
            && std::env::var("PREFGRAD_SUBGROUPS").map_or(true, |value| value != "0");
        let subgroups =
            allowed && features.contains(wgpu::Features::SUBGROUP) && info.subgroup_min_size >= 8;
        let cooperative = subgroups && cooperative::opened(&device, &info);
        let device_can = DeviceCan::new(info.device_type, subgroups, &device.limits(), software)
            .with_cooperative(cooperative);
        let matmul = MatmulChoice::new(options.matmul, device_can);
        let inner = Inner {
            subgroups,
            cooperative,
            timestamps: features.contains(
                wgpu::Features::TIMESTAMP_QUERY | wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES,
            ),
            limits: device.limits(),
            info,
            compiler: Compiler::new(device.clone()),
            device,
            queue,
            staging: Mutex::default(),
            activity: Mutex::default(),
            faults: Arc::default(),
        };
        let gpu = Self {
            inner: Arc::new(inner),
            purpose: MemoryUse::Workspace,
            ledger: None,
            matmul,
        };
        match MatmulTuning::from_env(&gpu) {
            Some(tuning) => gpu.with_tuning(tuning),
            None => gpu,
        }
    }

    /// The same device, for tensors that a [`MemoryPlan`](super::MemoryPlan) lists under
    /// `purpose`.
    pub fn for_use(&self, purpose: MemoryUse) -> Self {
        Self {
            purpose,
            ..self.clone()
        }
    }

    /// The same device, but tensors are only counted.
    pub(super) fn counting(&self, ledger: Ledger) -> Self {
        Self {
            ledger: Some(ledger),
            ..self.clone()
        }
    }

    /// Whether tensors are counted in place of allocated.
    pub(crate) fn counts_only(&self) -> bool {
        self.ledger.is_some()
    }

    /// Takes note of a tensor, where tensors are counted.
    pub(super) fn count(&self, bytes: u64) {
        if let Some(ledger) = &self.ledger {
            ledger.count(self.purpose, bytes);
        }
    }

    /// The device's own memory in bytes, where the system says: the largest heap that Vulkan lists.
    /// A software driver's heap is a made-up number; its memory is the machine's.
    pub fn memory_bytes(&self) -> Option<u64> {
        if self.is_software() {
            return machine_memory_bytes();
        }
        #[cfg(any(target_os = "linux", target_os = "windows", target_os = "android"))]
        {
            // SAFETY: the handles are only read, while `device` keeps them alive.
            unsafe {
                let device = self.device().as_hal::<wgpu::hal::api::Vulkan>()?;
                let instance = device.shared_instance().raw_instance();
                let memory =
                    instance.get_physical_device_memory_properties(device.raw_physical_device());
                memory.memory_heaps[..memory.memory_heap_count as usize]
                    .iter()
                    .map(|heap| heap.size)
                    .max()
            }
        }
        #[cfg(not(any(target_os = "linux", target_os = "windows", target_os = "android")))]
        None
    }

    /// Takes note of a texture that plans share, where tensors are counted.
    pub(super) fn count_texture(&self, key: (u32, u32), bytes: u64) {
        if let Some(ledger) = &self.ledger {
            ledger.count_texture(key, bytes);
        }
    }

    pub(super) fn staging_textures(&self) -> &Mutex<StagingTextures> {
        &self.inner.staging
    }

    fn watch_own_device(&self) {
        let faults = self.inner.faults.clone();
        self.device()
            .on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
                log::error!("wgpu: {error}");
                lock(&faults).note(Error::Device {
                    during: "running submitted work".into(),
                    detail: error.to_string(),
                });
            }));
        let faults = self.inner.faults.clone();
        self.device()
            .set_device_lost_callback(move |reason, detail| {
                lock(&faults).lost = Some(format!("{reason:?}: {detail}"));
            });
    }

    /// The wgpu device.
    pub fn device(&self) -> &wgpu::Device {
        &self.inner.device
    }

    /// The wgpu queue.
    pub fn queue(&self) -> &wgpu::Queue {
        &self.inner.queue
    }

    /// Name, driver and type of the adapter.
    pub fn info(&self) -> &wgpu::AdapterInfo {
        &self.inner.info
    }

    /// Whether the processor plays the device.
    pub(crate) fn is_software(&self) -> bool {
        self.info().device_type == wgpu::DeviceType::Cpu
    }

    /// The device's limits.
    pub fn limits(&self) -> &wgpu::Limits {
        &self.inner.limits
    }

    /// Whether kernels that use subgroups are chosen: the device has them, with 8 lanes or more.
    pub fn subgroups(&self) -> bool {
        self.inner.subgroups
    }

    /// Whether the device was opened for [`MatmulDesign::Cooperative`].
    pub(super) fn cooperative(&self) -> bool {
        self.inner.cooperative
    }

    /// Whether kernels read their operands from copies in textures.
    pub(crate) fn stages(&self) -> bool {
        self.matmul_design() == MatmulDesign::Staged
    }

    /// Whether [`crate::Plan::profile`] can time single dispatches.
    pub fn timestamps(&self) -> bool {
        self.inner.timestamps
    }

    /// What decides the last bits of results on this device, for checkpoints.
    pub fn variants(&self) -> String {
        let info = self.info();
        let subgroups = if self.subgroups() { "on" } else { "off" };
        format!(
            "{} ({:?}, {}), subgroups {subgroups}, matmul {}",
            info.name, info.backend, info.driver_info, self.matmul
        )
    }

    /// Waits until everything submitted so far is done, then reports any fault.
    ///
    /// # Errors
    ///
    /// As [`Gpu::check`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn wait(&self) -> Result<()> {
        let polled = self.device().poll(wgpu::PollType::wait_indefinitely());
        self.check()?;
        match polled {
            Ok(_) => Ok(()),
            Err(error) => Err(Error::Device {
                during: "waiting for submitted work".into(),
                detail: error.to_string(),
            }),
        }
    }

    /// Submits the writes queued so far and, where that is possible, waits for them: wgpu keeps a
    /// copy of what it has still to write.
    ///
    /// # Errors
    ///
    /// As [`Gpu::check`].
    pub(crate) fn flush_writes(&self) -> Result<()> {
        self.queue().submit([]);
        #[cfg(not(target_arch = "wasm32"))]
        return self.wait();
        #[cfg(target_arch = "wasm32")]
        self.check()
    }

    /// Reports the first fault since the last call: what the device has signalled, if it is our
    /// own, and a plan that could not be submitted.
    ///
    /// # Errors
    ///
    /// [`Error::DeviceLost`] and [`Error::Device`]; [`Error::Shader`] for a plan that was submitted
    /// although a shader of its was refused (see [`Plan::ready`](super::Plan::ready)).
    pub fn check(&self) -> Result<()> {
        let mut faults = lock(&self.inner.faults);
        if let Some(reason) = faults.lost.clone() {
            return Err(Error::DeviceLost { reason });
        }
        faults.error.take().map_or(Ok(()), Err)
    }

    /// Keeps an error for the next [`Gpu::check`].
    pub(super) fn fault(&self, error: Error) {
        lock(&self.inner.faults).note(error);
    }

    /// What was made and asked for on this device so far, through all clones of this handle.
    pub fn activity(&self) -> Activity {
        Activity {
            pipelines: self.compiled_pipelines(),
            ..*lock(&self.inner.activity)
        }
    }

    /// Takes note of something made or asked for.
    pub(crate) fn note(&self, note: impl FnOnce(&mut Activity)) {
        note(&mut lock(&self.inner.activity));
    }

    pub(super) fn compiler(&self) -> &Compiler {
        &self.inner.compiler
    }
}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gpu")
            .field("adapter", &self.inner.info.name)
            .field("backend", &self.inner.info.backend)
            .finish_non_exhaustive()
    }
}
