//! Embeddings and the bias gradient against PyTorch, inside a graph, in windows, and what is
//! refused.

use prefgrad::data::batch::RowList;
use prefgrad::kernels::Size;
use prefgrad::kernels::nn::bias_gradient::{
    BiasGradientIo, bias_gradient, bias_gradient_partials_len,
};
use prefgrad::kernels::nn::embedding::{
    EmbeddingBackwardIo, EmbeddingIo, Positions, Window, embedding_backward, embedding_forward,
};
use prefgrad::kernels::nn::gelu::{GeluBackwardIo, gelu_backward};
use prefgrad::kernels::nn::matmul::{Epilogue, Layout, MatmulIo, MatmulSizes, Matrix, matmul};
use prefgrad::reference;
use prefgrad::reference::compare::f32_bound;
use prefgrad::reference::gradient::numerical_gradient;
use prefgrad::reference::nn::embedding::embedding_forward as embedding_twin;
use prefgrad::reference::nn::gelu::{Gelu, gelu_forward};
use prefgrad::{Error, Gpu, Plan, Tensor};

use crate::gpu::gpu;
use crate::support::golden;
use crate::tools::{assert_close, assert_same_bits, exact, from_f64, random, zeros};

/// Lists of the rows that hold each id, ids and rows ascending.
struct Lists {
    lists: Tensor,
    rows: Tensor,
    count: Size,
}

impl Lists {
    fn new(gpu: &Gpu, ids: &[u32]) -> Self {
        let mut distinct = ids.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        let (mut lists, mut rows) = (Vec::new(), Vec::new());
        for id in distinct {
            let start = rows.len() as u32;
            rows.extend((0..ids.len() as u32).filter(|&row| ids[row as usize] == id));
            lists.push(RowList {
                id,
                start,
                end: rows.len() as u32,
                pad: 0,
            });
        }
        Self {
            lists: Tensor::from_slice(gpu, "lists", &[lists.len()], &lists).unwrap(),
            rows: indices(gpu, "list rows", &rows),
            count: Size::fixed(lists.len()),
        }
    }

    fn push(&self, plan: &mut Plan, dout: &Tensor, dtable: &Tensor, window: Window) {
        let io = EmbeddingBackwardIo {
            lists: &self.lists,
            list_rows: &self.rows,
            dout,
            dtable,
            counts: None,
        };
        embedding_backward(plan, &io, self.count, window).unwrap();
    }
}

fn indices(gpu: &Gpu, label: &str, values: &[u32]) -> Tensor {
    Tensor::from_slice(gpu, label, &[values.len()], values).unwrap()
}

#[test]
fn pytorchs_figures() {
    let gpu = gpu();
    for case in golden::cases("embedding", "") {
        let ids = case.input("ids").u32();
        let [vocabulary, width] = case.input("w").shape[..] else {
            panic!("{}: w is not a matrix", case.name)
        };
        let rows = ids.len();
        let table = zeros(gpu, "w", &[vocabulary, width]);
        table.write(gpu, &case.input("w").f32()).unwrap();
        let (out, dtable) = (
            zeros(gpu, "out", &[rows, width]),
            zeros(gpu, "dw", &[vocabulary, width]),
        );
        let dout = zeros(gpu, "dout", &[rows, width]);
        dout.write(gpu, &case.cotangent("y").f32()).unwrap();
        let io = EmbeddingIo {
            tokens: &indices(gpu, "tokens", &ids),
            token_table: &table,
            positions: None,
            out: &out,
            counts: None,
        };
        let mut plan = Plan::new(gpu);
        let window = Window::whole(vocabulary);
        embedding_forward(&mut plan, &io, Size::fixed(rows), window).unwrap();
        Lists::new(gpu, &ids).push(&mut plan, &dout, &dtable, window);
        plan.submit();
        assert_close(gpu, &case.name, &out, &case.output("y").f64(), 0.0);
        let bound = f32_bound(case.torch_error("grad.w").unwrap());
        assert_close(gpu, &case.name, &dtable, &case.gradient("w").f64(), bound);
    }
}

const ROWS: usize = 70;
const WIDTH: usize = 6;
const OUTPUTS: usize = 5;
const VOCABULARY: usize = 9;
const CONTEXTS: usize = 14;

/// `loss = Σ d gelu(x A + b)` with `x` the embeddings.
fn loss(tokens: &[u32], positions: &[u32], [wte, wpe, a, b, d]: [&[f64]; 5]) -> f64 {
    let positions = reference::nn::embedding::Positions {
        ids: positions,
        table: wpe,
    };
    let x = embedding_twin(tokens, wte, Some(positions), WIDTH);
    let layout = reference::nn::matmul::Layout::NN;
    let mut z = reference::nn::matmul::matmul(&x, a, layout, ROWS, OUTPUTS, WIDTH);
    reference::nn::matmul::add_bias(&mut z, b);
    let out = gelu_forward(&z, Gelu::Tanh);
    out.iter().zip(d).map(|(out, d)| out * d).sum()
}

#[test]
fn gradients_in_the_middle_of_a_graph() {
    let gpu = gpu();
    let tokens: Vec<u32> = (0..ROWS as u32).map(|i| i * i % 7 + i % 2).collect();
    let positions: Vec<u32> = (0..ROWS as u32).map(|i| i % CONTEXTS as u32).collect();
    let (wte, wpe) = (
        exact(1, VOCABULARY * WIDTH, 1.0),
        exact(2, CONTEXTS * WIDTH, 1.0),
    );
    let (a, b) = (exact(3, WIDTH * OUTPUTS, 1.0), exact(4, OUTPUTS, 1.0));
    let d = exact(5, ROWS * OUTPUTS, 3.0);
    let x = zeros(gpu, "x", &[ROWS, WIDTH]);
    let io = EmbeddingIo {
        tokens: &indices(gpu, "tokens", &tokens),
        token_table: &from_f64(gpu, "wte", &[VOCABULARY, WIDTH], &wte),
        positions: Some(Positions {
            ids: &indices(gpu, "positions", &positions),
            table: &from_f64(gpu, "wpe", &[CONTEXTS, WIDTH], &wpe),
        }),
        out: &x,
        counts: None,
    };
    let a_tensor = from_f64(gpu, "a", &[WIDTH, OUTPUTS], &a);
    let b_tensor = from_f64(gpu, "b", &[OUTPUTS], &b);
    let [z, dz] = ["z", "dz"].map(|name| zeros(gpu, name, &[ROWS, OUTPUTS]));
    let dout = from_f64(gpu, "d", &[ROWS, OUTPUTS], &d);
    let dx = zeros(gpu, "dx", &[ROWS, WIDTH]);
    let (dwte, dwpe) = (
        zeros(gpu, "dwte", &[VOCABULARY, WIDTH]),
        zeros(gpu, "dwpe", &[CONTEXTS, WIDTH]),
    );
    let db = zeros(gpu, "db", &[OUTPUTS]);
    let mut plan = Plan::new(gpu);
    let rows = Size::fixed(ROWS);
    embedding_forward(&mut plan, &io, rows, Window::whole(VOCABULARY)).unwrap();
    let bias = Epilogue::Bias { bias: &b_tensor };
    product(&mut plan, Layout::Nn, [&x, &a_tensor, &z], bias);
    let activation = GeluBackwardIo {
        x: &z,
        dy: &dout,
        dx: &dz,
        counts: None,
    };
    gelu_backward(&mut plan, &activation, rows).unwrap();
    let io = BiasGradientIo {
        dy: &dz,
        dbias: &db,
        partials: &zeros(
            gpu,
            "partials",
            &[bias_gradient_partials_len(ROWS, OUTPUTS)],
        ),
        counts: None,
    };
    bias_gradient(&mut plan, &io, rows, OUTPUTS).unwrap();
    product(
        &mut plan,
        Layout::Nt,
        [&dz, &a_tensor, &dx],
        Epilogue::Store,
    );
    Lists::new(gpu, &tokens).push(&mut plan, &dx, &dwte, Window::whole(VOCABULARY));
    Lists::new(gpu, &positions).push(&mut plan, &dx, &dwpe, Window::whole(CONTEXTS));
    plan.submit();
    let loss = |inputs: [&[f64]; 5]| loss(&tokens, &positions, inputs);
    let of_wte = numerical_gradient(|wte| loss([wte, &wpe, &a, &b, &d]), &wte, 1e-5);
    let of_wpe = numerical_gradient(|wpe| loss([&wte, wpe, &a, &b, &d]), &wpe, 1e-5);
    let of_b = numerical_gradient(|b| loss([&wte, &wpe, &a, b, &d]), &b, 1e-5);
    assert_close(gpu, "graph", &dwte, &of_wte, 1e-5);
    assert_close(gpu, "graph", &dwpe, &of_wpe, 1e-5);
    assert_close(gpu, "graph", &db, &of_b, 1e-5);
}

fn product(plan: &mut Plan, layout: Layout, [a, b, out]: [&Tensor; 3], epilogue: Epilogue<'_>) {
    let io = MatmulIo {
        a: Matrix::whole(a),
        b: Matrix::whole(b),
        out: Matrix::whole(out),
        epilogue,
        counts: None,
    };
    let sizes = MatmulSizes {
        layout,
        m: Size::fixed(out.shape()[0]),
        n: out.shape()[1],
        k: Size::fixed(a.shape()[1]),
    };
    matmul(plan, &io, &sizes).unwrap();
}

#[test]
fn windows_cover_each_row_once_and_keep_to_the_alignment() {
    let gpu = gpu();
    let alignment = gpu.limits().min_storage_buffer_offset_alignment as usize;
    for columns in [1, 3, 4, 6, 33, 64, 768] {
        for rows in [1, 100, 5000] {
            let limit = (rows * columns) as u64 + 4 * 64 * columns as u64;
            let windows = Window::cover_within(gpu, rows, columns, limit).unwrap();
            let mut next = 0;
            for window in &windows {
                assert_eq!(window.first_row, next);
                assert_eq!(window.first_row * columns * 4 % alignment, 0);
                assert!(window.rows > 0 && (window.rows * columns * 4) as u64 <= limit);
                next += window.rows;
            }
            assert_eq!(next, rows);
            assert!(rows < 5000 || windows.len() > 2, "{rows}x{columns}");
        }
    }
    let error = Window::cover_within(gpu, 10, 768, 1000).unwrap_err();
    assert!(matches!(error, Error::Limit { .. }), "{error}");
}

/// GPT-2's own table is 147 MiB: more than a binding of many devices, the software driver among
/// them.
#[test]
fn a_table_larger_than_a_binding() {
    let gpu = gpu();
    let (vocabulary, width) = (50_257, 768);
    let table = Tensor::zeros_windowed::<f32>(gpu, "wte", &[vocabulary, width]).unwrap();
    let dtable = Tensor::zeros_windowed::<f32>(gpu, "dwte", &[vocabulary, width]).unwrap();
    let ids = [0, 50_256, 1000, 43_000, 50_256, 49_999];
    for &id in &ids {
        let row = table.window("row", id as usize * width, &[width]).unwrap();
        let values: Vec<f32> = (0..width).map(|c| id as f32 + c as f32 / 1024.0).collect();
        row.write(gpu, &values).unwrap();
    }
    let out = zeros(gpu, "out", &[ids.len(), width]);
    let dout = random(gpu, "dout", &[ids.len(), width], 1);
    let io = EmbeddingIo {
        tokens: &indices(gpu, "tokens", &ids),
        token_table: &table,
        positions: None,
        out: &out,
        counts: None,
    };
    let lists = Lists::new(gpu, &ids);
    let mut plan = Plan::new(gpu);
    let windows = Window::cover(gpu, vocabulary, width).unwrap();
    let limit = gpu.limits().max_storage_buffer_binding_size;
    assert_eq!(windows.len() > 1, limit < table.bytes());
    for &window in &windows {
        embedding_forward(&mut plan, &io, Size::fixed(ids.len()), window).unwrap();
        lists.push(&mut plan, &dout, &dtable, window);
    }
    plan.submit();
    let out: Vec<f32> = out.read(gpu).unwrap();
    let dout: Vec<f32> = dout.read(gpu).unwrap();
    for (row, &id) in ids.iter().enumerate() {
        let expected = |c: usize| id as f32 + c as f32 / 1024.0;
        assert!(
            (0..width).all(|c| out[row * width + c] == expected(c)),
            "{id}"
        );
        let gradient = dtable.window("row", id as usize * width, &[width]);
        let gradient: Vec<f32> = gradient.unwrap().read(gpu).unwrap();
        let twin = if id == 50_256 { 5 - row } else { row };
        let (first, second) = (row.min(twin), row.max(twin));
        let sum = |c: usize| match first == second {
            true => dout[row * width + c],
            false => dout[first * width + c] + dout[second * width + c],
        };
        assert!((0..width).all(|c| gradient[c] == sum(c)), "{id}");
    }
}

#[test]
fn the_same_inputs_give_the_same_bits() {
    let gpu = gpu();
    let ids: Vec<u32> = (0..3000).map(|i| i % 3 * (i % 2)).collect();
    let dout = random(gpu, "dout", &[3000, 33], 1);
    let (dtable, dbias) = (zeros(gpu, "dtable", &[3, 33]), zeros(gpu, "dbias", &[33]));
    let mut plan = Plan::new(gpu);
    Lists::new(gpu, &ids).push(&mut plan, &dout, &dtable, Window::whole(3));
    let io = BiasGradientIo {
        dy: &dout,
        dbias: &dbias,
        partials: &zeros(gpu, "partials", &[bias_gradient_partials_len(3000, 33)]),
        counts: None,
    };
    bias_gradient(&mut plan, &io, Size::fixed(3000), 33).unwrap();
    assert_same_bits(&plan, &[&dtable, &dbias], || {
        dtable.write(gpu, &[0.0f32; 99]).unwrap();
        dbias.write(gpu, &[0.0f32; 33]).unwrap();
    });
}

#[test]
fn what_does_not_fit_is_named() {
    let gpu = gpu();
    let tokens = indices(gpu, "tokens", &[0, 1, 2]);
    let (table, out) = (random(gpu, "table", &[5, 8], 1), zeros(gpu, "out", &[3, 8]));
    let io = EmbeddingIo {
        tokens: &tokens,
        token_table: &table,
        positions: None,
        out: &out,
        counts: None,
    };
    let rows = Size::fixed(3);
    let mut plan = Plan::new(gpu);
    let past = Window {
        first_row: 4,
        rows: 2,
    };
    let error = embedding_forward(&mut plan, &io, rows, past).unwrap_err();
    assert!(error.to_string().contains("4..6"), "{error}");
    let floats = zeros(gpu, "floats", &[3]);
    let of_floats = EmbeddingIo {
        tokens: &floats,
        ..io
    };
    let error = embedding_forward(&mut plan, &of_floats, rows, Window::whole(5)).unwrap_err();
    assert!(error.to_string().contains("floats"), "{error}");
    let slim = zeros(gpu, "slim", &[5, 7]);
    let of_slim = EmbeddingIo {
        positions: Some(Positions {
            ids: &tokens,
            table: &slim,
        }),
        ..io
    };
    let error = embedding_forward(&mut plan, &of_slim, rows, Window::whole(5)).unwrap_err();
    assert!(error.to_string().contains("slim"), "{error}");
    let of_floats = EmbeddingIo {
        positions: Some(Positions {
            ids: &floats,
            table: &table,
        }),
        ..io
    };
    let error = embedding_forward(&mut plan, &of_floats, rows, Window::whole(5)).unwrap_err();
    assert!(error.to_string().contains("floats"), "{error}");
    let io = BiasGradientIo {
        dy: &out,
        dbias: &slim,
        partials: &table,
        counts: None,
    };
    let error = bias_gradient(&mut plan, &io, rows, 8).unwrap_err();
    assert!(error.to_string().contains("slim"), "{error}");
    assert!(plan.is_empty());
}
