//! Plans: limits, overlaps, replays, host devices.

use prefgrad::kernels::Size;
use prefgrad::kernels::nn::matmul::{Layout, MatmulIo, MatmulSizes, matmul};
use prefgrad::{Error, Gpu, GpuOptions, MatmulDesign, Plan, Tensor, fold};

use crate::gpu::{gpu, matmul_gpus};

fn product(plan: &mut Plan, a: &Tensor, b: &Tensor, out: &Tensor) -> Result<(), Error> {
    let [m, k] = a.shape() else {
        panic!("a matrix")
    };
    let io = MatmulIo::whole(a, b, out);
    let sizes = MatmulSizes {
        layout: Layout::Nn,
        m: Size::fixed(*m),
        n: b.shape()[1],
        k: Size::fixed(*k),
    };
    matmul(plan, &io, &sizes)
}

#[test]
fn two_replays_in_one_submission_both_run() {
    // x <- x·(2I), twice through a second buffer: the first replay's result feeds the second.
    let gpu = gpu();
    let double = Tensor::from_slice(gpu, "double", &[2, 2], &[2.0f32, 0.0, 0.0, 2.0]).unwrap();
    let one = Tensor::from_slice(gpu, "one", &[2, 2], &[1.0f32, 0.0, 0.0, 1.0]).unwrap();
    let x = Tensor::from_slice(gpu, "x", &[1, 2], &[3.0f32, 5.0]).unwrap();
    let y = Tensor::zeros::<f32>(gpu, "y", &[1, 2]).unwrap();
    let mut plan = Plan::new(gpu);
    product(&mut plan, &x, &double, &y).unwrap();
    product(&mut plan, &y, &one, &x).unwrap();
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    {
        let mut pass = encoder.begin_compute_pass(&Default::default());
        plan.encode(&mut pass).expect("fits a pass");
        plan.encode(&mut pass).expect("fits a pass");
    }
    gpu.queue().submit([encoder.finish()]);
    assert_eq!(x.read::<f32>(gpu).unwrap(), [12.0, 20.0]);
}

#[test]
fn staged_operands_are_copied_right_before_each_use() {
    let mut diagonal = [0.0f32; 16];
    for gpu in matmul_gpus() {
        // As above, four wide: each product reads what the one before it has just written.
        let mut times = |label, factor| {
            (0..4).for_each(|i| diagonal[5 * i] = factor);
            Tensor::from_slice(gpu, label, &[4, 4], &diagonal).unwrap()
        };
        let (double, one) = (times("double", 2.0), times("one", 1.0));
        let x = Tensor::from_slice(gpu, "x", &[1, 4], &[3.0f32, 5.0, 7.0, 11.0]).unwrap();
        let y = Tensor::zeros::<f32>(gpu, "y", &[1, 4]).unwrap();
        let mut plan = Plan::new(gpu);
        product(&mut plan, &x, &double, &y).unwrap();
        product(&mut plan, &y, &one, &x).unwrap();
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        plan.commands(&mut encoder);
        plan.commands_range(&mut encoder, 0..99);
        plan.commands_range(&mut encoder, 99..100);
        {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            let encoded = plan.encode(&mut pass);
            let staged = gpu.matmul_design() == MatmulDesign::Staged;
            assert_eq!(encoded.is_err(), staged, "{encoded:?}");
            if let Err(error) = encoded {
                assert!(error.to_string().contains("Plan::commands"), "{error}");
            } else {
                plan.encode(&mut pass).unwrap();
            }
        }
        if gpu.matmul_design() == MatmulDesign::Staged {
            plan.commands(&mut encoder);
            plan.commands(&mut encoder);
        }
        gpu.queue().submit([encoder.finish()]);
        assert_eq!(x.read::<f32>(gpu).unwrap(), [48.0, 80.0, 112.0, 176.0]);
    }
}

#[test]
fn parts_cover_the_plan_in_order() {
    let gpu = gpu();
    let square = Tensor::zeros::<f32>(gpu, "square", &[8, 8]).unwrap();
    let other = Tensor::zeros::<f32>(gpu, "other", &[8, 8]).unwrap();
    let out = Tensor::zeros::<f32>(gpu, "out", &[8, 8]).unwrap();
    let mut plan = Plan::new(gpu);
    for _ in 0..5 {
        product(&mut plan, &square, &other, &out).unwrap();
    }
    let each = (plan.cost().flops + plan.cost().bytes) / 5;
    assert_eq!(plan.parts(2 * each), [0..2, 2..4, 4..5]);
    assert_eq!(plan.parts(1), [0..1, 1..2, 2..3, 3..4, 4..5]);
    assert_eq!(plan.parts(u64::MAX), vec![0..5]);
}

#[test]
fn reading_and_writing_one_buffer_names_both_tensors() {
    let gpu = gpu();
    let pool = Tensor::zeros::<f32>(gpu, "pool", &[256]).unwrap();
    let read = pool.window("weights", 0, &[8, 8]).unwrap();
    let written = pool.window("activations", 128, &[8, 8]).unwrap();
    let other = Tensor::zeros::<f32>(gpu, "other", &[8, 8]).unwrap();
    let error = product(&mut Plan::new(gpu), &read, &other, &written).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Overlap { .. }), "{text}");
    assert!(
        text.contains("weights") && text.contains("activations"),
        "{text}"
    );
}

#[test]
fn a_window_off_the_devices_alignment_is_refused() {
    let gpu = gpu();
    let pool = Tensor::zeros::<f32>(gpu, "pool", &[256]).unwrap();
    let odd = pool.window("odd", 1, &[4, 4]).unwrap();
    let (other, out) = (
        Tensor::zeros::<f32>(gpu, "other", &[4, 4]).unwrap(),
        Tensor::zeros::<f32>(gpu, "out", &[4, 4]).unwrap(),
    );
    let error = product(&mut Plan::new(gpu), &odd, &other, &out).unwrap_err();
    assert!(error.to_string().contains("Alignment"), "{error}");
}

#[test]
fn a_tensor_over_the_devices_limits_is_refused_by_name() {
    let gpu = gpu();
    let over = gpu.limits().max_storage_buffer_binding_size as usize / 4 + 1;
    let error = Tensor::zeros::<f32>(gpu, "too large", &[over]).unwrap_err();
    assert!(error.to_string().contains("too large"), "{error}");
    assert!(matches!(error, Error::Limit { .. }), "{error}");
}

#[test]
fn workgroups_fold_into_three_dimensions() {
    let limit = u64::from(gpu().limits().max_compute_workgroups_per_dimension);
    for count in [
        1,
        limit - 1,
        limit,
        limit + 1,
        3 * limit + 7,
        limit * limit / 2,
    ] {
        let [x, y, z] = fold(gpu(), "test", count).unwrap();
        let total = u64::from(x) * u64::from(y) * u64::from(z);
        assert!(
            total >= count && u64::from(x.max(y).max(z)) <= limit,
            "{count}: {x} {y} {z}"
        );
    }
    assert!(fold(gpu(), "test", 1 << 40).is_err());
}

#[test]
fn a_hosts_device_with_default_limits_and_no_features_serves() {
    let host = pollster::block_on(async {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
        let adapter = instance.request_adapter(&Default::default()).await.unwrap();
        adapter.request_device(&Default::default()).await.unwrap()
    });
    let gpu = Gpu::from_device(host.0, host.1, GpuOptions::default());
    assert!(!gpu.subgroups() && !gpu.timestamps());
    let a = Tensor::from_slice(&gpu, "a", &[1, 1], &[3.0f32]).unwrap();
    let b = Tensor::from_slice(&gpu, "b", &[1, 1], &[4.0f32]).unwrap();
    let out = Tensor::zeros::<f32>(&gpu, "out", &[1, 1]).unwrap();
    let mut plan = Plan::new(&gpu);
    product(&mut plan, &a, &b, &out).unwrap();
    plan.submit();
    assert_eq!(out.read::<f32>(&gpu).unwrap(), [12.0]);
    assert!(plan.profile().is_err());
}

#[test]
fn a_profile_accounts_for_every_dispatch() {
    let gpu = gpu();
    if !gpu.timestamps() {
        println!("skipped: this device has no timestamps inside passes");
        return;
    }
    let square = Tensor::zeros::<f32>(gpu, "square", &[64, 64]).unwrap();
    let other = Tensor::zeros::<f32>(gpu, "other", &[64, 64]).unwrap();
    let out = Tensor::zeros::<f32>(gpu, "out", &[64, 64]).unwrap();
    let mut plan = Plan::new(gpu);
    for _ in 0..3 {
        product(&mut plan, &square, &other, &out).unwrap();
    }
    let profile = plan.profile().unwrap();
    assert_eq!(profile.rows.len(), 1);
    assert_eq!(profile.rows[0].calls, 3);
    assert_eq!(profile.rows[0].flops, 3 * 2 * 64u64.pow(3));
    let table = profile.to_string();
    assert!(
        table.contains("nn.matmul.nn") && table.contains("GFLOP/s"),
        "{table}"
    );
}
