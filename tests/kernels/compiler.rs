//! Pipelines that compile while plans are recorded: refusals, sharing, plans that are dropped.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use prefgrad::{
    Binding, Capability, Const, Cost, Dispatch, Error, Gpu, GpuOptions, Params, Plan, Result,
    Shader, Tensor, Variant, submit_together,
};

const ADD: Shader = Shader::new(
    "test.add",
    "
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@compute @workgroup_size(64)
fn add(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x < arrayLength(&x)) { x[id.x] += f32(AMOUNT); }
}
",
    Capability::Core,
);

/// The text does not parse.
const BROKEN: Shader = Shader::new(
    "test.broken",
    "@compute @workgroup_size(64) fn add() { let amount: u32 = AMOUNT + 0.5; }",
    Capability::Core,
);

/// The text is right, but binds what no dispatch here offers.
const UNBOUND: Shader = Shader::new(
    "test.unbound",
    "
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@group(0) @binding(7) var<storage, read> y: array<f32>;
@compute @workgroup_size(64)
fn add(@builtin(global_invocation_id) id: vec3<u32>) { x[id.x] += y[id.x] + f32(AMOUNT); }
",
    Capability::Core,
);

fn push(plan: &mut Plan, shader: &Shader, amount: u32, x: &Tensor) -> Result<()> {
    plan.push(&Dispatch {
        label: "test",
        shader,
        variant: Variant {
            entry: "add",
            libs: &[],
            consts: &[("AMOUNT", Const::U32(amount))],
        },
        params: Params::NONE,
        bindings: &[Binding::write(1, x)],
        workgroups: 1,
        cost: Cost::default(),
    })
}

fn zeros(gpu: &Gpu) -> Tensor {
    Tensor::zeros::<f32>(gpu, "x", &[4]).unwrap()
}

fn assert_refused(result: Result<()>, name: &str) {
    match result {
        Err(Error::Shader { shader, detail }) => {
            assert_eq!(shader, format!("{name}.add"));
            assert!(detail.len() > 20, "{detail}");
        }
        other => panic!("{other:?}"),
    }
}

/// A host's device, which stays, and how many errors have reached the host.
struct Host {
    device: wgpu::Device,
    queue: wgpu::Queue,
    errors: Arc<AtomicUsize>,
}

fn host() -> &'static Host {
    static HOST: OnceLock<Host> = OnceLock::new();
    HOST.get_or_init(|| {
        let (device, queue) = pollster::block_on(open());
        let errors = Arc::new(AtomicUsize::new(0));
        let seen = errors.clone();
        device.on_uncaptured_error(Arc::new(move |_| {
            seen.fetch_add(1, Ordering::SeqCst);
        }));
        Host {
            device,
            queue,
            errors,
        }
    })
}

async fn open() -> (wgpu::Device, wgpu::Queue) {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapter = instance.request_adapter(&Default::default()).await.unwrap();
    let wanted = wgpu::Features::TIMESTAMP_QUERY | wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES;
    let descriptor = wgpu::DeviceDescriptor {
        required_features: adapter.features() & wanted,
        ..Default::default()
    };
    adapter.request_device(&descriptor).await.unwrap()
}

/// A handle that shares no pipelines, faults or counts with those of other tests.
fn gpu() -> Gpu {
    let host = host();
    Gpu::from_device(
        host.device.clone(),
        host.queue.clone(),
        GpuOptions::default(),
    )
}

#[test]
fn a_refused_shader_is_named_wherever_its_plan_is_used() {
    for refused in [BROKEN, UNBOUND] {
        let gpu = gpu();
        let x = zeros(&gpu);
        let (mut good, mut plan) = (Plan::new(&gpu), Plan::new(&gpu));
        push(&mut good, &ADD, 3, &x).unwrap();
        push(&mut plan, &ADD, 1, &x).unwrap();
        push(&mut plan, &refused, 1, &x).unwrap();
        push(&mut plan, &ADD, 2, &x).unwrap();
        // Whoever asks gets the error from there,
        good.ready().unwrap();
        assert_refused(plan.ready(), refused.name);
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        assert_refused(plan.encode(&mut pass), refused.name);
        drop(pass);
        gpu.check().unwrap();
        // and who does not gets it with the results, once.
        plan.commands(&mut encoder);
        gpu.queue().submit([encoder.finish()]);
        assert_refused(gpu.check(), refused.name);
        gpu.check().unwrap();
        plan.submit();
        assert_refused(x.read::<f32>(&gpu).map(drop), refused.name);
        submit_together(&[&good, &plan]);
        assert_refused(gpu.wait(), refused.name);
        // Nothing of the plan has run, others do, and the host has heard nothing.
        good.submit();
        assert_eq!(x.read::<f32>(&gpu).unwrap(), [3.0; 4]);
        assert_eq!(host().errors.load(Ordering::SeqCst), 0);
        assert_eq!(gpu.activity().pipelines, 3);
        assert!(gpu.compiled().iter().all(|shader| shader.name == ADD.name));
    }
}

#[test]
fn a_plan_that_nobody_waited_for_tells_with_its_results() {
    let gpu = gpu();
    let x = zeros(&gpu);
    let mut plan = Plan::new(&gpu);
    push(&mut plan, &BROKEN, 1, &x).unwrap();
    plan.submit();
    assert_refused(x.read::<f32>(&gpu).map(drop), BROKEN.name);
    if gpu.timestamps() {
        assert_refused(plan.profile().map(drop), BROKEN.name);
    }
}

#[test]
fn a_mended_shader_compiles_under_its_old_name() {
    let gpu = gpu();
    let x = zeros(&gpu);
    let mut plan = Plan::new(&gpu);
    push(&mut plan, &BROKEN, 1, &x).unwrap();
    assert_refused(plan.ready(), BROKEN.name);
    let mended = Shader::new(BROKEN.name, ADD.text, BROKEN.capability);
    let mut plan = Plan::new(&gpu);
    push(&mut plan, &mended, 1, &x).unwrap();
    plan.submit();
    assert_eq!(x.read::<f32>(&gpu).unwrap(), [1.0; 4]);
}

#[test]
fn plans_of_two_threads_share_what_they_compile() {
    const AMOUNTS: u32 = 12;
    let gpu = gpu();
    let tensors = [zeros(&gpu), zeros(&gpu)];
    let together = std::sync::Barrier::new(tensors.len());
    std::thread::scope(|scope| {
        for x in &tensors {
            scope.spawn(|| {
                let mut plan = Plan::new(&gpu);
                together.wait();
                for amount in 0..AMOUNTS {
                    push(&mut plan, &ADD, amount, x).unwrap();
                }
                plan.submit();
            });
        }
    });
    let sum = (0..AMOUNTS).sum::<u32>() as f32;
    for x in &tensors {
        assert_eq!(x.read::<f32>(&gpu).unwrap(), [sum; 4]);
    }
    assert_eq!(gpu.activity().pipelines, u64::from(AMOUNTS));
    assert_eq!(gpu.compiled().len(), AMOUNTS as usize);
}

#[test]
fn compiled_lists_what_was_asked_for_before_it_is_used() {
    let gpu = gpu();
    let x = zeros(&gpu);
    let mut plan = Plan::new(&gpu);
    for amount in 0..5 {
        push(&mut plan, &ADD, amount, &x).unwrap();
    }
    assert_eq!(gpu.compiled().len(), 5);
}

#[test]
fn plans_and_devices_may_go_before_their_pipelines_are_done() {
    let gpu = gpu();
    let x = zeros(&gpu);
    let record = |amounts: std::ops::Range<u32>| {
        let mut plan = Plan::new(&gpu);
        for amount in amounts {
            push(&mut plan, &ADD, amount, &x).unwrap();
        }
        plan
    };
    drop(record(0..20));
    let plan = record(10..12);
    plan.submit();
    assert_eq!(x.read::<f32>(&gpu).unwrap(), [21.0; 4]);
    let plan = record(20..60);
    drop((plan, gpu));
    // The device works on, for another handle.
    let gpu = self::gpu();
    let mut plan = Plan::new(&gpu);
    push(&mut plan, &ADD, 20, &x).unwrap();
    plan.submit();
    assert_eq!(x.read::<f32>(&gpu).unwrap(), [41.0; 4]);
}
