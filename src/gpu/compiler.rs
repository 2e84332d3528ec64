//! [`Compiler`]: pipelines compile on threads of their own while plans are still being recorded.

use std::collections::HashMap;
#[cfg(not(target_arch = "wasm32"))]
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::Gpu;
use super::device::lock;
use super::shader::{CompiledShader, Pipeline, PipelineKey};
use crate::Result;

/// The pipelines of a device, each compiled once.
///
/// Whoever needs a pipeline first compiles it: a thread that takes it from the queue, or a plan
/// that is about to run and finds it untouched. Threads start on demand and end when the queue is
/// empty. Dropping the compiler empties the queue and waits for what is being compiled. On wasm32
/// there are no threads: pipelines compile while a plan is recorded.
pub(super) struct Compiler {
    pipelines: Mutex<HashMap<PipelineKey, Arc<Pipeline>>>,
    work: Arc<Work>,
    #[cfg(not(target_arch = "wasm32"))]
    threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
}

/// What the threads see; not the [`Gpu`], which would then end on one of its own threads.
struct Work {
    device: wgpu::Device,
    compiled: AtomicU64,
    #[cfg(not(target_arch = "wasm32"))]
    queue: Mutex<VecDeque<Arc<Pipeline>>>,
}

/// wgpu warns that shaders may nest deeper than a thread's usual stack holds.
#[cfg(not(target_arch = "wasm32"))]
const STACK_BYTES: usize = 8 << 20;

impl Compiler {
    pub(super) fn new(device: wgpu::Device) -> Self {
        Self {
            pipelines: Mutex::default(),
            work: Arc::new(Work {
                device,
                compiled: AtomicU64::new(0),
                #[cfg(not(target_arch = "wasm32"))]
                queue: Mutex::default(),
            }),
            #[cfg(not(target_arch = "wasm32"))]
            threads: Mutex::default(),
        }
    }

    /// The pipeline of `key`, which `describe` describes where it is new or was refused before.
    fn pipeline(
        &self,
        key: PipelineKey,
        describe: impl FnOnce() -> Result<Pipeline>,
    ) -> Result<Arc<Pipeline>> {
        let mut pipelines = lock(&self.pipelines);
        if let Some(found) = pipelines.get(&key).filter(|found| !found.was_refused()) {
            return Ok(found.clone());
        }
        let described = Arc::new(describe()?);
        pipelines.insert(key, described.clone());
        drop(pipelines);
        self.start(&described);
        Ok(described)
    }

    #[cfg(target_arch = "wasm32")]
    fn start(&self, pipeline: &Arc<Pipeline>) {
        self.work.compile(pipeline);
    }

    /// Leaves a pipeline to the threads. Where the system gives none, plans find it untouched.
    #[cfg(not(target_arch = "wasm32"))]
    fn start(&self, pipeline: &Arc<Pipeline>) {
        lock(&self.work.queue).push_back(pipeline.clone());
        let most = std::thread::available_parallelism().map_or(1, usize::from);
        let mut threads = lock(&self.threads);
        threads.retain(|thread| !thread.is_finished());
        if threads.len() < most {
            let work = self.work.clone();
            let thread = std::thread::Builder::new()
                .name("prefgrad compiler".into())
                .stack_size(STACK_BYTES)
                .spawn(move || work.run());
            threads.extend(thread);
        }
    }
}

impl Work {
    fn compile(&self, pipeline: &Pipeline) {
        pipeline.compile(&self.device, &self.compiled);
    }

    #[cfg(not(target_arch = "wasm32"))]
    fn run(&self) {
        let next = || lock(&self.queue).pop_front();
        while let Some(pipeline) = next() {
            self.compile(&pipeline);
        }
    }
}

#[cfg(not(target_arch = "wasm32"))]
impl Drop for Compiler {
    fn drop(&mut self) {
        lock(&self.work.queue).clear();
        for thread in lock(&self.threads).drain(..) {
            // A thread that panicked left its pipeline to whoever needs it.
            let _ = thread.join();
        }
    }
}

impl Gpu {
    /// The pipeline of `key`, soon to be compiled.
    pub(super) fn pipeline(
        &self,
        key: PipelineKey,
        describe: impl FnOnce() -> Result<Pipeline>,
    ) -> Result<Arc<Pipeline>> {
        self.compiler().pipeline(key, describe)
    }

    /// Waits until all these are compiled, and helps.
    pub(super) fn compile<'a>(
        &self,
        pipelines: impl DoubleEndedIterator<Item = &'a Pipeline>,
    ) -> Result<()> {
        let mut outcome = Ok(());
        // Threads begin at the front.
        for pipeline in pipelines.rev() {
            self.compiler().work.compile(pipeline);
            outcome = pipeline.outcome().and(outcome);
        }
        outcome
    }

    /// Pipelines compiled so far.
    pub(super) fn compiled_pipelines(&self) -> u64 {
        self.compiler().work.compiled.load(Ordering::Relaxed)
    }

    /// Every shader variant compiled for this device so far, by name and text; waits for those
    /// that plans have asked for.
    pub fn compiled(&self) -> Vec<CompiledShader> {
        let asked: Vec<_> = lock(&self.compiler().pipelines).values().cloned().collect();
        let compiled = |pipeline: &Arc<Pipeline>| {
            self.compiler().work.compile(pipeline);
            let outcome = pipeline.outcome();
            outcome.is_ok().then(|| pipeline.shader.clone())
        };
        let mut all: Vec<CompiledShader> = asked.iter().rev().filter_map(compiled).collect();
        all.sort_by(|a, b| (a.name, &a.entry, &a.wgsl).cmp(&(b.name, &b.entry, &b.wgsl)));
        all
    }

    /// Runs `make` and turns what wgpu would otherwise send to the uncaptured error handler into
    /// a value. On wasm32, where a scope's result can't be waited for, it goes to that handler.
    pub(super) fn guarded<T>(
        &self,
        filter: wgpu::ErrorFilter,
        make: impl FnOnce() -> T,
    ) -> std::result::Result<T, String> {
        guarded(self.device(), [filter], make)
    }
}

/// As [`Gpu::guarded`], for errors of several kinds. Scopes are the calling thread's own.
pub(super) fn guarded<T, const KINDS: usize>(
    device: &wgpu::Device,
    filters: [wgpu::ErrorFilter; KINDS],
    make: impl FnOnce() -> T,
) -> std::result::Result<T, String> {
    #[cfg(not(target_arch = "wasm32"))]
    {
        let scopes = filters.map(|filter| device.push_error_scope(filter));
        let value = make();
        let mut refused = Ok(value);
        for scope in scopes.into_iter().rev() {
            if let Some(error) = pollster::block_on(scope.pop()) {
                refused = Err(error.to_string());
            }
        }
        refused
    }
    #[cfg(target_arch = "wasm32")]
    {
        let _ = (device, filters);
        Ok(make())
    }
}
