//! Gradient norm and AdamW: whole steps against PyTorch's, skipped steps, and what is refused.

use prefgrad::check::values;
use prefgrad::kernels::optim::adamw::{AdamWHyper, AdamWIo, AdamWOptions, adamw};
use prefgrad::kernels::optim::grad_norm::{GradNormIo, grad_norm, partial_rows};
use prefgrad::{Plan, Tensor};

use crate::gpu::gpu;
use crate::support::golden::{Case, cases};
use crate::tools::{assert_values, bits};

/// Every parameter starts at a multiple of 64 elements, as a model's do.
const PAD: usize = 64;

struct Setup {
    params: Tensor,
    grads: Tensor,
    m: Tensor,
    v: Tensor,
    partials: Tensor,
    stats: Tensor,
    hyper: Tensor,
}

impl Setup {
    fn new(len: usize) -> Self {
        let zeros = |label: &str| Tensor::zeros::<f32>(gpu(), label, &[len]).unwrap();
        Self {
            params: zeros("params"),
            grads: zeros("grads"),
            m: zeros("m"),
            v: zeros("v"),
            partials: Tensor::zeros::<f32>(gpu(), "partials", &[partial_rows(len), 4]).unwrap(),
            stats: Tensor::zeros::<f32>(gpu(), "stats", &[4]).unwrap(),
            hyper: Tensor::zeros::<AdamWHyper>(gpu(), "hyper", &[1]).unwrap(),
        }
    }

    fn plan(&self, max_norm: Option<f32>, decayed: usize) -> Plan {
        let mut plan = Plan::new(gpu());
        let io = GradNormIo {
            grads: &[&self.grads],
            partials: &self.partials,
            stats: &self.stats,
        };
        grad_norm(&mut plan, &io, max_norm).unwrap();
        adamw(&mut plan, &self.adamw_io(), decayed).unwrap();
        plan
    }

    fn adamw_io(&self) -> AdamWIo<'_> {
        AdamWIo {
            params: &self.params,
            grads: &self.grads,
            m: &self.m,
            v: &self.v,
            stats: &self.stats,
            hyper: &self.hyper,
        }
    }

    fn step(&self, plan: &Plan, options: &AdamWOptions, step: u64, grads: &[f32]) {
        let hyper = AdamWHyper::new(options, step);
        self.hyper.write(gpu(), &[hyper]).unwrap();
        self.grads.write(gpu(), grads).unwrap();
        plan.submit();
    }
}

fn read(tensor: &Tensor) -> Vec<f32> {
    tensor.read(gpu()).unwrap()
}

fn options(case: &Case) -> AdamWOptions {
    AdamWOptions {
        lr: case.number("lr"),
        beta1: case.number("beta1"),
        beta2: case.number("beta2"),
        eps: case.number("eps"),
        weight_decay: case.number("weight_decay"),
    }
}

#[test]
fn steps_with_clipping_equal_pytorch() {
    for case in cases("adamw", "") {
        let mut lens = Vec::new();
        while case.has_input(&format!("p{}", lens.len())) {
            lens.push(case.input(&format!("p{}", lens.len())).f32().len());
        }
        let padded = |name: &dyn Fn(usize) -> String| -> Vec<f32> {
            let mut all = Vec::new();
            for i in 0..lens.len() {
                all.extend(case.input(&name(i)).f32());
                all.resize(all.len().next_multiple_of(PAD), 0.0);
            }
            all
        };
        let params = padded(&|i| format!("p{i}"));
        let setup = Setup::new(params.len());
        setup.params.write(gpu(), &params).unwrap();
        let max_norm = case.attribute("max_grad_norm").map(|norm| norm as f32);
        let plan = setup.plan(max_norm, params.len());
        let part = |tensor: &Tensor, i: usize| -> Vec<f32> {
            let first: usize = lens[..i].iter().map(|len| len.next_multiple_of(PAD)).sum();
            read(tensor)[first..first + lens[i]].to_vec()
        };
        let steps = case.number("steps") as u64;
        for step in 0..steps {
            setup.step(
                &plan,
                &options(&case),
                step + 1,
                &padded(&|i| format!("g{step}_{i}")),
            );
            let norm = case.output(&format!("norm{step}")).f64();
            assert_values(
                &format!("{} norm{step}", case.name),
                &read(&setup.stats)[..1],
                &norm,
            );
            if step == 0 || step + 1 == steps {
                for i in 0..lens.len() {
                    let name = format!("p{i}_step{}", step + 1);
                    let expected = case.output(&name).f64();
                    assert_values(&name, &part(&setup.params, i), &expected);
                }
            }
        }
        for i in 0..lens.len() {
            for (name, tensor) in [("m", &setup.m), ("v", &setup.v)] {
                let name = format!("{name}{i}");
                let expected = case.output(&name).f64();
                assert_values(
                    &format!("{} {name}", case.name),
                    &part(tensor, i),
                    &expected,
                );
            }
        }
        assert!(read(&setup.grads).iter().all(|&g| g == 0.0));
    }
}

#[test]
fn a_gradient_that_is_not_finite_skips_the_step_and_is_counted() {
    let options = AdamWOptions {
        lr: 0.1,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: 0.5,
    };
    let setup = Setup::new(256);
    setup.params.write(gpu(), &values(1, 256, 1.0)).unwrap();
    let plan = setup.plan(Some(1.0), 128);
    let good = values(2, 256, 1.0);
    setup.step(&plan, &options, 1, &good);
    let state = || [&setup.params, &setup.m, &setup.v].map(|tensor| bits(gpu(), tensor));
    let before = state();
    for (skipped, bad) in [(1.0, f32::NAN), (2.0, f32::NEG_INFINITY)] {
        let mut grads = good.clone();
        grads[77] = bad;
        setup.step(&plan, &options, 2, &grads);
        assert_eq!(state(), before);
        assert!(read(&setup.grads).iter().all(|&g| g == 0.0));
        assert_eq!(read(&setup.stats)[2..], [1.0, skipped]);
    }
    setup.step(&plan, &options, 2, &good);
    assert_ne!(state(), before);
    assert_eq!(read(&setup.stats)[2..], [0.0, 2.0]);
}

#[test]
fn a_norm_over_the_largest_float_skips_the_step() {
    let setup = Setup::new(256);
    let plan = setup.plan(Some(1.0), 0);
    let options = AdamWOptions {
        lr: 0.1,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: 0.0,
    };
    setup.step(&plan, &options, 1, &[3e38; 256]);
    assert_eq!(read(&setup.stats)[2..], [1.0, 1.0]);
    assert!(read(&setup.params).iter().all(|&x| x == 0.0));
}

#[test]
fn moments_that_have_decayed_to_next_to_nothing_become_zero() {
    let options = AdamWOptions {
        lr: 0.1,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: 0.0,
    };
    let setup = Setup::new(8);
    let m = [9e-31, -9e-31, 1e-40, -1e-45, 2e-30, -2e-30, 0.0, 1.0];
    let v = [9e-36, 1e-40, 1e-45, 0.0, 2e-35, 1e-30, 0.0, 1.0];
    setup.m.write(gpu(), &m).unwrap();
    setup.v.write(gpu(), &v).unwrap();
    setup.step(&setup.plan(None, 0), &options, 5, &[0.0; 8]);
    let kept = |values: Vec<f32>| values.iter().map(|&x| x != 0.0).collect::<Vec<_>>();
    let (none, some) = (false, true);
    assert_eq!(
        kept(read(&setup.m)),
        [none, none, none, none, some, some, none, some]
    );
    assert_eq!(
        kept(read(&setup.v)),
        [none, none, none, none, some, some, none, some]
    );
}

#[test]
fn the_same_inputs_give_the_same_bits() {
    let options = AdamWOptions {
        lr: 0.01,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.1,
    };
    let run = || {
        let setup = Setup::new(40_000);
        let plan = setup.plan(Some(1.0), 20_000);
        for step in 1..4 {
            setup.step(&plan, &options, step, &values(step, 40_000, 1.0));
        }
        [&setup.params, &setup.m, &setup.v, &setup.stats].map(|tensor| bits(gpu(), tensor))
    };
    assert_eq!(run(), run());
}

#[test]
fn what_does_not_fit_is_refused() {
    let setup = Setup::new(64);
    let odd = Tensor::zeros::<f32>(gpu(), "odd", &[62]).unwrap();
    let longer = Tensor::zeros::<f32>(gpu(), "longer", &[68]).unwrap();
    let mut plan = Plan::new(gpu());
    for tensor in [&odd, &longer] {
        let io = AdamWIo {
            m: tensor,
            ..setup.adamw_io()
        };
        let error = adamw(&mut plan, &io, 0).unwrap_err();
        assert!(error.to_string().contains(tensor.label()), "{error}");
    }
    for decayed in [30, 68] {
        assert!(adamw(&mut plan, &setup.adamw_io(), decayed).is_err());
    }
    let io = |grads| GradNormIo {
        grads,
        partials: &setup.partials,
        stats: &setup.stats,
    };
    let grads = [&odd];
    let error = grad_norm(&mut plan, &io(&grads), None).unwrap_err();
    assert!(error.to_string().contains("odd"), "{error}");
    let grads = [&setup.grads, &setup.grads];
    let error = grad_norm(&mut plan, &io(&grads), None).unwrap_err();
    assert!(error.to_string().contains("partials"), "{error}");
    let grads = [&setup.grads];
    for max_norm in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        assert!(grad_norm(&mut plan, &io(&grads), Some(max_norm)).is_err());
    }
    assert!(plan.is_empty());
}
