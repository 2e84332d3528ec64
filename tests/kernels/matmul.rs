//! Products with live sizes, windows of tensors, and what is refused.

use prefgrad::check::values;
use prefgrad::kernels::nn::matmul::{Epilogue, Layout, MatmulIo, MatmulSizes, Matrix, matmul};
use prefgrad::kernels::{Count, Size};
use prefgrad::{Error, Gpu, Plan, Tensor};

use crate::gpu::matmul_gpus;

fn tensor(gpu: &Gpu, label: &str, shape: &[usize], seed: u64) -> Tensor {
    let len = shape.iter().product();
    Tensor::from_slice(gpu, label, shape, &values(seed, len, 1.0)).unwrap()
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
            a: Matrix::whole(&a),
            b: Matrix::whole(&b),
            out: Matrix::whole(&out),
            epilogue: Epilogue::Store,
            counts: Some(&counts),
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
            a: Matrix::whole(&a),
            b: Matrix::whole(&b),
            out: Matrix::whole(&out),
            epilogue: Epilogue::Store,
            counts: Some(&counts),
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
            assert!((actual - expected).abs() < 1e-6, "{actual} {expected}");
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
        let io = MatmulIo {
            a: Matrix::whole(&a),
            b: Matrix::whole(&b),
            out: Matrix::whole(&out),
            epilogue: Epilogue::Store,
            counts: None,
        };
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

#[test]
fn shapes_that_do_not_agree_are_named() {
    for gpu in matmul_gpus() {
        let (a, b) = (
            tensor(gpu, "left", &[4, 5], 1),
            tensor(gpu, "right", &[6, 4], 2),
        );
        let out = tensor(gpu, "product", &[4, 4], 3);
        let mut plan = Plan::new(gpu);
        let io = MatmulIo {
            a: Matrix::whole(&a),
            b: Matrix::whole(&b),
            out: Matrix::whole(&out),
            epilogue: Epilogue::Store,
            counts: None,
        };
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
            a: Matrix::whole(&a),
            b: Matrix::whole(&b),
            out: Matrix::whole(&out),
            epilogue: Epilogue::Store,
            counts: Some(&counts),
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
            assert!((actual - expected).abs() < 1e-6, "{actual} {expected}");
        }
    }
}
