//! The value head: PyTorch's figures, finite differences between products and beside another head,
//! and what is refused.

use prefgrad::check::values;
use prefgrad::data::batch::{NONE, RowList, Target};
use prefgrad::kernels::nn::matmul::Layout;
use prefgrad::kernels::policy::value_head::{
    InputGradient, ValueHeadBackwardIo, ValueHeadIo, value_head_backward, value_head_forward,
};
use prefgrad::reference::gradient::numerical_gradient;
use prefgrad::reference::nn::matmul as reference_matmul;
use prefgrad::reference::preference::pooled_head as reference;
use prefgrad::{Error, Plan, Tensor};

use crate::gpu::gpu;
use crate::support::golden::cases;
use crate::tools::{assert_same_bits, assert_values, product};

struct Setup {
    hidden: Tensor,
    w: Tensor,
    targets: Tensor,
    lists: Tensor,
    values: Tensor,
    dvalues: Tensor,
    dhidden: Tensor,
    dw: Tensor,
}

impl Setup {
    /// `rows` are those of the targets, in order.
    fn new(hidden: &[f32], w: &[f32], rows: &[u32]) -> Self {
        let (width, count) = (w.len(), rows.len());
        let tokens = hidden.len() / width;
        let target = |&row: &u32| Target {
            row,
            token: NONE,
            answer: NONE,
            weight: 0.0,
        };
        let targets: Vec<Target> = rows.iter().map(target).collect();
        let mut lists: Vec<RowList> = Vec::new();
        for (n, &id) in (0..).zip(rows) {
            match lists.last_mut() {
                Some(list) if list.id == id => list.end = n + 1,
                _ => lists.push(RowList {
                    id,
                    start: n,
                    end: n + 1,
                    pad: 0,
                }),
            }
        }
        let tensor = |label: &str, shape: &[usize], values: &[f32]| {
            Tensor::from_slice(gpu(), label, shape, values).unwrap()
        };
        Self {
            hidden: tensor("hidden", &[tokens, width], hidden),
            w: tensor("w", &[width], w),
            targets: Tensor::from_slice(gpu(), "targets", &[count], &targets).unwrap(),
            lists: Tensor::from_slice(gpu(), "lists", &[lists.len()], &lists).unwrap(),
            values: tensor("values", &[count], &vec![7.0; count]),
            dvalues: tensor("dvalues", &[count], &values(3, count, 2.0)),
            dhidden: tensor("dhidden", &[tokens, width], &vec![7.0; hidden.len()]),
            dw: tensor("dw", &[width], &vec![0.0; width]),
        }
    }

    fn forward_io(&self) -> ValueHeadIo<'_> {
        ValueHeadIo {
            hidden: &self.hidden,
            w: &self.w,
            targets: &self.targets,
            values: &self.values,
            counts: None,
        }
    }

    fn backward_io(&self) -> ValueHeadBackwardIo<'_> {
        ValueHeadBackwardIo {
            hidden: &self.hidden,
            w: &self.w,
            targets: &self.targets,
            target_lists: &self.lists,
            dvalues: &self.dvalues,
            dhidden: &self.dhidden,
            dw: &self.dw,
            counts: None,
        }
    }

    fn push(&self, plan: &mut Plan, input: InputGradient) {
        value_head_forward(plan, &self.forward_io()).unwrap();
        value_head_backward(plan, &self.backward_io(), input).unwrap();
    }
}

fn read(tensor: &Tensor) -> Vec<f32> {
    tensor.read(gpu()).unwrap()
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&x| x.into()).collect()
}

#[test]
fn equals_pytorch() {
    for case in cases("value_head", "B") {
        let hidden = case.input("hidden");
        let length = hidden.shape[1];
        // A target at every row, and a second one where the case pools a reward.
        let index = case.output("index").u32();
        let pooled = |row: usize| index[row / length] as usize == row % length;
        let rows: Vec<u32> = (0..hidden.shape[0] * length)
            .flat_map(|row| vec![row as u32; 1 + usize::from(pooled(row))])
            .collect();
        let (dvalues, drewards) = (
            case.cotangent("values").f32(),
            case.cotangent("reward").f32(),
        );
        let mut seen = NONE;
        let mut gradient = |&row: &u32| {
            let again = row == seen;
            seen = row;
            let row = row as usize;
            if again {
                drewards[row / length]
            } else {
                dvalues[row]
            }
        };
        let dvalues: Vec<f32> = rows.iter().map(&mut gradient).collect();
        let setup = Setup::new(&hidden.f32(), &case.input("w").f32(), &rows);
        setup.dvalues.write(gpu(), &dvalues).unwrap();
        let mut plan = Plan::new(gpu());
        setup.push(&mut plan, InputGradient::Overwrite);
        plan.submit();
        // The case's values have a bias.
        let bias = case.input("b").scalar();
        let values = case.output("values").f64();
        let expected: Vec<f64> = rows
            .iter()
            .map(|&row| values[row as usize] - bias)
            .collect();
        let name = |what: &str| format!("{} {what}", case.name);
        assert_values(&name("values"), &read(&setup.values), &expected);
        let dhidden = case.gradient("hidden").f64();
        assert_values(&name("dhidden"), &read(&setup.dhidden), &dhidden);
        assert_values(&name("dw"), &read(&setup.dw), &case.gradient("w").f64());
    }
}

#[test]
fn gradients_through_a_product_beside_another_head_equal_finite_differences() {
    // Rows are shared: 0 serves three targets, 4 two; 2 and 5 none.
    let rows = [0, 0, 0, 1, 3, 4, 4];
    let (tokens, width) = (6, 5);
    let (x, m) = (
        values(1, tokens * width, 1.0),
        values(2, width * width, 1.0),
    );
    let w = values(4, width, 1.0);
    let first = Setup::new(&[0.0; 30], &w, &rows);
    let other_w = values(5, width, 1.0);
    // The second head shares hidden states and their gradient.
    let second = Setup {
        hidden: first.hidden.clone(),
        dhidden: first.dhidden.clone(),
        ..Setup::new(&[0.0; 30], &other_w, &rows[2..6])
    };
    let tensor =
        |label: &str, shape: &[usize], x: &[f32]| Tensor::from_slice(gpu(), label, shape, x);
    let x_tensor = tensor("x", &[tokens, width], &x).unwrap();
    let m_tensor = tensor("m", &[width, width], &m).unwrap();
    let dx = Tensor::zeros::<f32>(gpu(), "dx", &[tokens, width]).unwrap();
    let mut plan = Plan::new(gpu());
    product(&mut plan, Layout::Nn, [&x_tensor, &m_tensor, &first.hidden]);
    first.push(&mut plan, InputGradient::Overwrite);
    second.push(&mut plan, InputGradient::Add);
    product(&mut plan, Layout::Nt, [&first.dhidden, &m_tensor, &dx]);
    plan.submit();

    let (x, m, w, other_w) = (wide(&x), wide(&m), wide(&w), wide(&other_w));
    let weighted = |hidden: &[f64], rows: &[u32], w: &[f64]| -> f64 {
        let outputs = reference::pooled_head_forward(hidden, rows, w, 0.0);
        let gradients = wide(&values(3, rows.len(), 2.0));
        outputs.iter().zip(gradients).map(|(v, dv)| v * dv).sum()
    };
    let loss = |x: &[f64], w: &[f64]| {
        let layout = reference_matmul::Layout::NN;
        let hidden = reference_matmul::matmul(x, &m, layout, tokens, width, width);
        weighted(&hidden, &rows, w) + weighted(&hidden, &rows[2..6], &other_w)
    };
    let expected = numerical_gradient(|x| loss(x, &w), &x, 1e-5);
    assert_values("dx", &read(&dx), &expected);
    let expected = numerical_gradient(|w| loss(&x, w), &w, 1e-5);
    assert_values("dw", &read(&first.dw), &expected);
}

#[test]
fn the_same_inputs_give_the_same_bits() {
    let rows: Vec<u32> = (0..100).map(|n| n * 13 / 100).collect();
    let setup = Setup::new(&values(1, 13 * 37, 1.0), &values(2, 37, 1.0), &rows);
    let mut plan = Plan::new(gpu());
    setup.push(&mut plan, InputGradient::Overwrite);
    let outputs = [&setup.values, &setup.dhidden, &setup.dw];
    assert_same_bits(&plan, &outputs, || {
        setup.dw.write(gpu(), &[0.5; 37]).unwrap();
    });
}

#[test]
fn what_does_not_fit_is_refused() {
    let setup = Setup::new(&values(1, 12, 1.0), &values(2, 4, 1.0), &[0, 2]);
    let short = Tensor::zeros::<f32>(gpu(), "short", &[3]).unwrap();
    let mut plan = Plan::new(gpu());
    let message = |result: Result<(), Error>| result.unwrap_err().to_string();
    let forward = |plan: &mut Plan, io| message(value_head_forward(plan, &io));
    let io = setup.forward_io();
    let error = forward(&mut plan, ValueHeadIo { w: &short, ..io });
    assert!(error.contains("hidden"), "{error}");
    let values = &short;
    let error = forward(&mut plan, ValueHeadIo { values, ..io });
    assert!(error.contains("values"), "{error}");
    let targets = &setup.lists;
    let error = forward(&mut plan, ValueHeadIo { targets, ..io });
    assert!(error.contains("Target"), "{error}");
    let backward =
        |plan: &mut Plan, io| message(value_head_backward(plan, &io, InputGradient::Add));
    let io = setup.backward_io();
    let dvalues = &short;
    let error = backward(&mut plan, ValueHeadBackwardIo { dvalues, ..io });
    assert!(error.contains("gradient of values"), "{error}");
    let error = backward(&mut plan, ValueHeadBackwardIo { dw: &short, ..io });
    assert!(error.contains("dw"), "{error}");
    let dhidden = &short;
    let error = backward(&mut plan, ValueHeadBackwardIo { dhidden, ..io });
    assert!(error.contains("dhidden"), "{error}");
    let target_lists = &setup.targets;
    let error = backward(&mut plan, ValueHeadBackwardIo { target_lists, ..io });
    assert!(error.contains("RowList"), "{error}");
    assert!(plan.is_empty());
}
