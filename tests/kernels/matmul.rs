//! Products with live sizes, windows of tensors, and what is refused.

use prefgrad::check::values;
use prefgrad::kernels::nn::matmul::{Epilogue, Layout, MatmulIo, MatmulSizes, Matrix, matmul};
use prefgrad::kernels::{Count, Size};
use prefgrad::{Error, Gpu, GpuOptions, MatmulDesign, MemoryPlan, Plan, Tensor, Tiling};

use crate::gpu::{gpu, host_gpu, matmul_gpus};

fn tensor(gpu: &Gpu, label: &str, shape: &[usize], seed: u64) -> Tensor {
    let len = shape.iter().product();
    Tensor::from_slice(gpu, label, shape, &values(seed, len, 1.0)).unwrap()
}

/// The error allowed where `exact` is for designs that do not round operands to f16.
fn allowed(gpu: &Gpu, exact: f64) -> f64 {
    match gpu.matmul_design() {
        MatmulDesign::Cooperative => 5e-3,
        _ => exact,
    }
}

#[test]
fn live_rows_stop_where_the_batch_ends() {
    for gpu in matmul_gpus() {
        let (a, b) = (
            tensor(gpu, "a", &[100, 12], 1),
            tensor(gpu, "b", &[12, 8], 2),
        );
        let out = Tensor::from_slice(gpu, "out", &[100, 8], &[9.0f32; 800]).unwrap();
        let counts = Tensor::from_slice(gpu, "counts", &[16], &[70u32; 16]).unwrap();
        let mut plan = Plan::new(gpu);
        let io = MatmulIo {
            counts: Some(&counts),
            ..MatmulIo::whole(&a, &b, &out)
        };
        let sizes = MatmulSizes {
            layout: Layout::Nn,
            m: Size::live(100, Count::Tokens),
            n: 8,
            k: Size::fixed(12),
        };
        matmul(&mut plan, &io, &sizes).unwrap();
        plan.submit();
        let result: Vec<f32> = out.read(gpu).unwrap();
        assert!(result[..70 * 8].iter().all(|&x| x.abs() < 9.0));
        assert!(result[70 * 8..].iter().all(|&x| x == 9.0));
    }
}

#[test]
fn live_depth_ignores_rows_past_the_batch_even_where_they_are_infinite() {
    for gpu in matmul_gpus() {
        // Aᵀ·B over the live 5 of 9 rows; the rest holds what an earlier batch left there.
        let (mut a, mut b) = (values(1, 9 * 4, 1.0), values(2, 9 * 4, 1.0));
        a[5 * 4..].fill(f32::INFINITY);
        b[5 * 4..].fill(f32::NAN);
        let expected: Vec<f32> = (0..16)
            .map(|i| (0..5).map(|k| a[k * 4 + i / 4] * b[k * 4 + i % 4]).sum())
            .collect();
        let a = Tensor::from_slice(gpu, "a", &[9, 4], &a).unwrap();
        let b = Tensor::from_slice(gpu, "b", &[9, 4], &b).unwrap();
        let out = Tensor::zeros::<f32>(gpu, "out", &[4, 4]).unwrap();
        let counts = Tensor::from_slice(gpu, "counts", &[16], &[5u32; 16]).unwrap();
        let mut plan = Plan::new(gpu);
        let io = MatmulIo {
            counts: Some(&counts),
            ..MatmulIo::whole(&a, &b, &out)
        };
        let sizes = MatmulSizes {
            layout: Layout::Tn,
            m: Size::fixed(4),
            n: 4,
            k: Size::live(9, Count::Tokens),
        };
        matmul(&mut plan, &io, &sizes).unwrap();
        plan.submit();
        let result: Vec<f32> = out.read(gpu).unwrap();
        for (actual, expected) in result.iter().zip(expected) {
            let error = f64::from((actual - expected).abs());
            assert!(error < allowed(gpu, 1e-6), "{actual} {expected}");
        }
    }
}

#[test]
fn columns_of_a_wider_matrix_are_written_alone() {
    for gpu in matmul_gpus() {
        let (a, b) = (tensor(gpu, "a", &[5, 8], 1), tensor(gpu, "b", &[6, 8], 2));
        let out = Tensor::from_slice(gpu, "out", &[5, 20], &[3.0f32; 100]).unwrap();
        let mut plan = Plan::new(gpu);
        let io = MatmulIo {
            a: Matrix::whole(&a),
            b: Matrix::whole(&b),
            out: Matrix::from_column(&out, 8),
            epilogue: Epilogue::Store,
            counts: None,
        };
        let sizes = MatmulSizes {
            layout: Layout::Nt,
            m: Size::fixed(5),
            n: 6,
            k: Size::fixed(8),
        };
        matmul(&mut plan, &io, &sizes).unwrap();
        plan.submit();
        let result: Vec<f32> = out.read(gpu).unwrap();
        for (i, value) in result.iter().enumerate() {
            let inside = (8..14).contains(&(i % 20));
            assert_eq!(inside, *value != 3.0, "column {} holds {value}", i % 20);
        }
    }
}

#[test]
fn the_same_inputs_give_the_same_bits() {
    for gpu in matmul_gpus() {
        let (a, b) = (
            tensor(gpu, "a", &[130, 90], 1),
            tensor(gpu, "b", &[90, 70], 2),
        );
        let out = Tensor::zeros::<f32>(gpu, "out", &[130, 70]).unwrap();
        let mut plan = Plan::new(gpu);
        let io = MatmulIo::whole(&a, &b, &out);
        let sizes = MatmulSizes {
            layout: Layout::Nn,
            m: Size::fixed(130),
            n: 70,
            k: Size::fixed(90),
        };
        matmul(&mut plan, &io, &sizes).unwrap();
        let mut runs = Vec::new();
        for _ in 0..3 {
            plan.submit();
            let bits: Vec<u32> = out
                .read::<f32>(gpu)
                .unwrap()
                .iter()
                .map(|x| x.to_bits())
                .collect();
            runs.push(bits);
        }
        assert!(runs.windows(2).all(|pair| pair[0] == pair[1]));
    }
}

/// Dot products that some designs split: live sizes far below the capacity, and past them what an
/// earlier batch left there.
#[test]
fn split_sums_end_where_the_batch_does() {
    let (rows, cols, depth) = (40, 24, 4000);
    let layouts = [Layout::Nn, Layout::Nt, Layout::Tn];
    for (gpu, live) in matmul_gpus().iter().flat_map(|gpu| {
        // In the middle of a part, of a slice and of a step; at the end of a part; nothing.
        [3001, 1152, 32, 7, 0].map(|live| (gpu, live))
    }) {
        for layout in layouts {
            let product = LiveProduct::new(gpu, layout, (rows, cols, depth), live);
            product.check(gpu, &format!("{layout:?} {live}"));
        }
    }
}

#[test]
fn dispatches_are_folded() {
    // More tiles than a device takes in two dimensions.
    let narrow = host_gpu(wgpu::Limits {
        max_compute_workgroups_per_dimension: 3,
        ..Default::default()
    });
    for (tiling, side) in [
        (Tiling::Small, 32),
        (Tiling::Medium, 64),
        (Tiling::Large, 128),
    ] {
        let gpu = narrow.with_matmul(MatmulDesign::Tiled(tiling));
        let product = LiveProduct::new(&gpu, Layout::Nn, (10 * side - 3, 2, 5), 5);
        product.check(&gpu, "10 tiles");
        let product = LiveProduct::new(&gpu, Layout::Tn, (side + 1, 2, 4099), 4001);
        product.check(&gpu, "2 tiles in 8 parts");
    }
}

/// A product with k live; past it, A is NaN and B infinite.
struct LiveProduct {
    plan: Plan,
    out: Tensor,
    expected: Vec<f64>,
}

impl LiveProduct {
    fn new(gpu: &Gpu, layout: Layout, (m, n, k): (usize, usize, usize), live: usize) -> Self {
        // (row, step) of op(A), (step, column) of op(B), and where they lie.
        let at_a = |row, step| match layout {
            Layout::Tn => step * m + row,
            _ => row * k + step,
        };
        let at_b = |step, col| match layout {
            Layout::Nt => col * k + step,
            _ => step * n + col,
        };
        let (mut a, mut b) = (values(1, m * k, 1.0), values(2, k * n, 1.0));
        for step in live..k {
            (0..m).for_each(|row| a[at_a(row, step)] = f32::NAN);
            (0..n).for_each(|col| b[at_b(step, col)] = f32::INFINITY);
        }
        let dot = |i: usize| -> f64 {
            let (row, col) = (i / n, i % n);
            let steps = 0..live;
            steps
                .map(|step| f64::from(a[at_a(row, step)]) * f64::from(b[at_b(step, col)]))
                .sum()
        };
        let expected = (0..m * n).map(dot).collect();
        let (a_shape, b_shape) = (
            if layout == Layout::Tn { [k, m] } else { [m, k] },
            if layout == Layout::Nt { [n, k] } else { [k, n] },
        );
        let a = Tensor::from_slice(gpu, "a", &a_shape, &a).unwrap();
        let b = Tensor::from_slice(gpu, "b", &b_shape, &b).unwrap();
        let out = Tensor::zeros::<f32>(gpu, "out", &[m, n]).unwrap();
        let counts = Tensor::from_slice(gpu, "counts", &[16], &[live as u32; 16]).unwrap();
        let mut plan = Plan::new(gpu);
        let io = MatmulIo {
            counts: Some(&counts),
            ..MatmulIo::whole(&a, &b, &out)
        };
        let sizes = MatmulSizes {
            layout,
            m: Size::fixed(m),
            n,
            k: Size::live(k, Count::Tokens),
        };
        matmul(&mut plan, &io, &sizes).unwrap();
        Self {
            plan,
            out,
            expected,
        }
    }

    /// Twice the same bits, near the expected values.
    fn check(&self, gpu: &Gpu, what: &str) {
        let first = self.run(gpu);
        assert_eq!(first, self.run(gpu), "{what}: other bits");
        let largest = self.expected.iter().fold(0.0f64, |max, x| max.max(x.abs()));
        for (actual, expected) in first.into_iter().map(f32::from_bits).zip(&self.expected) {
            let error = (f64::from(actual) - expected).abs();
            assert!(
                error <= allowed(gpu, 1e-5) * largest,
                "{what}: {actual} {expected}"
            );
        }
    }

    /// The bits of the result.
    fn run(&self, gpu: &Gpu) -> Vec<u32> {
        self.out
            .write(gpu, &vec![9.0f32; self.expected.len()])
            .unwrap();
        self.plan.submit();
        let result: Vec<f32> = self.out.read(gpu).unwrap();
        result.into_iter().map(f32::to_bits).collect()
    }
}

#[test]
fn split_products_share_one_scratch_buffer_that_a_memory_plan_counts() {
    let gpu = gpu().with_matmul(MatmulDesign::Tiled(Tiling::Small));
    let record = |gpu: &Gpu, products: usize| {
        let mut plan = Plan::new(gpu);
        let (a, b) = (
            Tensor::zeros::<f32>(gpu, "a", &[32, 2048])?,
            Tensor::zeros::<f32>(gpu, "b", &[2048, 32])?,
        );
        let out = Tensor::zeros::<f32>(gpu, "out", &[32, 32])?;
        for _ in 0..products {
            let io = MatmulIo::whole(&a, &b, &out);
            let sizes = MatmulSizes {
                layout: Layout::Nn,
                m: Size::fixed(32),
                n: 32,
                k: Size::fixed(2048),
            };
            matmul(&mut plan, &io, &sizes)?;
        }
        Ok::<_, Error>(plan)
    };
    let bytes = |products: usize| {
        let count = |gpu: &Gpu| record(gpu, products).map(|_| ());
        MemoryPlan::of(&gpu, count).unwrap().total()
    };
    // Four parts of 32 x 32 sums.
    assert_eq!(bytes(1), bytes(0) + 4 * 4 * 32 * 32);
    assert_eq!(bytes(3), bytes(1));
    assert_eq!(record(&gpu, 3).unwrap().len(), 6);
}

#[test]
fn a_design_can_be_forced_when_the_device_is_opened() {
    let design = MatmulDesign::Tiled(Tiling::Large);
    let forced = Gpu::with_options(GpuOptions {
        matmul: Some(design),
        ..GpuOptions::default()
    });
    let forced = forced.unwrap();
    assert_eq!(forced.matmul_design(), design);
    assert!(
        forced.variants().contains("tiled-large"),
        "{}",
        forced.variants()
    );
    let product = LiveProduct::new(&forced, Layout::Nn, (9, 9, 9), 9);
    product.run(&forced);
    let names: Vec<_> = forced.compiled().iter().map(|shader| shader.name).collect();
    assert_eq!(names, ["nn.matmul_tiled"]);
}

#[test]
fn shapes_that_do_not_agree_are_named() {
    for gpu in matmul_gpus() {
        let (a, b) = (
            tensor(gpu, "left", &[4, 5], 1),
            tensor(gpu, "right", &[6, 4], 2),
        );
        let out = tensor(gpu, "product", &[4, 4], 3);
        let mut plan = Plan::new(gpu);
        let io = MatmulIo::whole(&a, &b, &out);
        let sizes = MatmulSizes {
            layout: Layout::Nn,
            m: Size::fixed(4),
            n: 4,
            k: Size::fixed(6),
        };
        let error = matmul(&mut plan, &io, &sizes).unwrap_err();
        assert!(matches!(error, Error::Shape { .. }), "{error}");
        assert!(error.to_string().contains("left"), "{error}");
        assert!(plan.is_empty());
    }
}

#[test]
fn live_parts_of_a_list_start_where_they_are_told() {
    for gpu in matmul_gpus() {
        // Rows 6.. of a list of 10: four live rows of this part's seven, along m and then along k.
        let (a, b) = (tensor(gpu, "a", &[7, 4], 1), tensor(gpu, "b", &[4, 4], 2));
        let counts = Tensor::from_slice(gpu, "counts", &[16], &[10u32; 16]).unwrap();
        let part = Size::live_from(7, Count::Targets, 6);
        let out = Tensor::from_slice(gpu, "out", &[7, 4], &[9.0f32; 28]).unwrap();
        let squares = Tensor::zeros::<f32>(gpu, "squares", &[4, 4]).unwrap();
        let mut plan = Plan::new(gpu);
        let io = MatmulIo {
            counts: Some(&counts),
            ..MatmulIo::whole(&a, &b, &out)
        };
        let sizes = MatmulSizes {
            layout: Layout::Nn,
            m: part,
            n: 4,
            k: Size::fixed(4),
        };
        matmul(&mut plan, &io, &sizes).unwrap();
        let io = MatmulIo {
            b: Matrix::whole(&a),
            out: Matrix::whole(&squares),
            ..io
        };
        let sizes = MatmulSizes {
            layout: Layout::Tn,
            m: Size::fixed(4),
            k: part,
            ..sizes
        };
        matmul(&mut plan, &io, &sizes).unwrap();
        let error = matmul(
            &mut plan,
            &io,
            &MatmulSizes {
                m: Size::live(4, Count::Tokens),
                ..sizes
            },
        );
        assert!(matches!(error, Err(Error::Shape { .. })), "{error:?}");
        plan.submit();
        let result: Vec<f32> = out.read(gpu).unwrap();
        assert!(result[..16].iter().all(|&x| x.abs() < 9.0));
        assert!(result[16..].iter().all(|&x| x == 9.0));
        let a: Vec<f32> = a.read(gpu).unwrap();
        let result: Vec<f32> = squares.read(gpu).unwrap();
        for (i, actual) in result.iter().enumerate() {
            let expected: f32 = (0..4).map(|k| a[k * 4 + i / 4] * a[k * 4 + i % 4]).sum();
            let error = f64::from((actual - expected).abs());
            assert!(error < allowed(gpu, 1e-6), "{actual} {expected}");
        }
    }
}
