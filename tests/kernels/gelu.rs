//! GELU against PyTorch. Its place in a graph is tested with LayerNorm.

use prefgrad::Plan;
use prefgrad::kernels::Size;
use prefgrad::kernels::nn::gelu::{GeluBackwardIo, GeluIo, gelu_backward, gelu_forward};
use prefgrad::reference::compare::{difference, f32_bound};

use crate::gpu::gpu;
use crate::support::golden;
use crate::tools::{assert_close, random, zeros};

#[test]
fn pytorchs_figures() {
    let gpu = gpu();
    for case in golden::cases("act", "gelu_tanh") {
        let x = case.input("x").f32();
        let shape = [1, x.len()];
        let [x_tensor, dy] = ["x", "dy"].map(|name| zeros(gpu, name, &shape));
        let [y, dx] = ["y", "dx"].map(|name| zeros(gpu, name, &shape));
        x_tensor.write(gpu, &x).unwrap();
        dy.write(gpu, &case.cotangent("y").f32()).unwrap();
        let mut plan = Plan::new(gpu);
        let io = GeluIo {
            x: &x_tensor,
            y: &y,
            counts: None,
        };
        gelu_forward(&mut plan, &io, Size::fixed(1)).unwrap();
        let io = GeluBackwardIo {
            x: &x_tensor,
            dy: &dy,
            dx: &dx,
            counts: None,
        };
        gelu_backward(&mut plan, &io, Size::fixed(1)).unwrap();
        plan.submit();
        for (name, actual, expected) in [
            ("out.y", &y, case.output("y")),
            ("grad.x", &dx, case.gradient("x")),
        ] {
            let bound = f32_bound(case.torch_error(name).unwrap());
            assert_close(gpu, &case.name, actual, &expected.f64(), bound);
            // Some inputs are as large as 1e4: the others deserve a measure of their own.
            let actual: Vec<f32> = actual.read(gpu).unwrap();
            let ordinary = |i: &usize| x[*i].abs() < 10.0;
            let of_actual: Vec<f32> = (0..x.len()).filter(ordinary).map(|i| actual[i]).collect();
            let expected = expected.f64();
            let of_expected: Vec<f64> =
                (0..x.len()).filter(ordinary).map(|i| expected[i]).collect();
            let difference = difference(&of_actual, &of_expected);
            assert!(
                difference.error <= 1e-5,
                "{} {name}: {difference}",
                case.name
            );
        }
    }
}

#[test]
fn shapes_that_do_not_agree_are_named() {
    let gpu = gpu();
    let (x, y) = (random(gpu, "wide", &[3, 5], 1), zeros(gpu, "slim", &[3, 4]));
    let io = GeluIo {
        x: &x,
        y: &y,
        counts: None,
    };
    let mut plan = Plan::new(gpu);
    let error = gelu_forward(&mut plan, &io, Size::fixed(3)).unwrap_err();
    assert!(error.to_string().contains("slim"), "{error}");
    let error = gelu_forward(&mut plan, &io, Size::fixed(4)).unwrap_err();
    assert!(error.to_string().contains("wide"), "{error}");
    assert!(plan.is_empty());
}
