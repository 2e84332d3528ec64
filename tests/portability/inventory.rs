//! The variants under test: whatever gets compiled for the known-answer cases and for a model.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use prefgrad::check::{Case, Purpose, cases};
use prefgrad::data::Capacity;
use prefgrad::kernels::preference::pairwise_loss::PairwiseLossOptions;
use prefgrad::model::{Gpt2Config, ModelConfig, RewardModel};
use prefgrad::train::{AdamW, Optimizer};
use prefgrad::{CompiledShader, Gpu, GpuOptions, MatmulDesign, Tiling};

/// Every variant, each text once.
pub fn shaders() -> &'static [CompiledShader] {
    static ALL: OnceLock<Vec<CompiledShader>> = OnceLock::new();
    ALL.get_or_init(|| {
        let mut gpus = devices();
        gpus.iter().for_each(build_everything);
        for design in gpus[0].matmul_designs() {
            if matches!(design, MatmulDesign::Tiled(_)) {
                build_products(&gpus[0].with_matmul(design));
            }
        }
        gpus.push(with_default_limits());
        for tiling in [Tiling::Small, Tiling::Medium] {
            let gpu = gpus
                .last()
                .map(|gpu| gpu.with_matmul(MatmulDesign::Tiled(tiling)));
            gpu.iter()
                .for_each(|gpu| build_cases(gpu, |case| case.kernel == "nn.attention"));
        }
        let mut all = BTreeMap::new();
        for shader in gpus.iter().flat_map(Gpu::compiled) {
            let key = (shader.wgsl.clone(), shader.entry.clone());
            all.entry(key).or_insert(shader);
        }
        all.into_values().collect()
    })
}

/// What a variant is called in messages.
pub fn name(shader: &CompiledShader) -> String {
    let consts: Vec<&str> = shader
        .wgsl
        .lines()
        .take_while(|line| line.starts_with("const ") || line.starts_with("enable "))
        .collect();
    format!("{}.{} [{}]", shader.name, shader.entry, consts.join(" "))
}

fn devices() -> Vec<Gpu> {
    let by = |subgroups, matmul| {
        Gpu::with_options(GpuOptions {
            subgroups,
            matmul: Some(matmul),
        })
        .expect("the tests need a GPU or the software driver")
    };
    let mut devices = vec![by(false, MatmulDesign::Registers)];
    let default = Gpu::new().expect("the tests need a GPU or the software driver");
    if default.subgroups() {
        devices.push(by(true, MatmulDesign::Subgroup));
        devices.push(by(true, MatmulDesign::Staged));
    } else {
        println!("this device has no subgroups: variants that need them are not tested");
    }
    devices
}

/// Attention through workgroup memory takes as much of that as there is.
fn with_default_limits() -> Gpu {
    let (device, queue) = pollster::block_on(async {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
        let adapter = instance.request_adapter(&Default::default()).await;
        let adapter = adapter.expect("the tests need a GPU or the software driver");
        adapter.request_device(&Default::default()).await
    })
    .expect("a device with WebGPU's default limits");
    Gpu::from_device(device, queue, GpuOptions::default())
}

fn build_everything(gpu: &Gpu) {
    build_cases(gpu, |_| true);
    build_model(gpu);
}

/// Matrix products of one design, those with live sizes among them.
fn build_products(gpu: &Gpu) {
    build_cases(gpu, |case| case.kernel == "nn.matmul");
    build_model(gpu);
}

fn build_cases(gpu: &Gpu, wanted: impl Fn(&Case) -> bool) {
    let cases = cases();
    let wanted = |case: &&Case| case.purpose == Purpose::Answer && wanted(case);
    for case in cases.iter().filter(wanted) {
        if let Err(error) = case.build(gpu) {
            panic!("{} {}: {error}", case.kernel, case.name);
        }
    }
}

fn build_model(gpu: &Gpu) {
    let config: ModelConfig = Gpt2Config {
        vocab_size: 40,
        n_positions: 32,
        n_embd: 32,
        n_layer: 1,
        n_head: 2,
        n_inner: None,
        layer_norm_epsilon: 1e-5,
        eos_token_id: None,
        pad_token_id: None,
        tie_word_embeddings: true,
    }
    .into();
    let capacity = Capacity {
        tokens: 64,
        segments: 8,
        answers: 8,
        pairs: 4,
        targets: 64,
    };
    let model = RewardModel::to_train(gpu, &config, capacity, &PairwiseLossOptions::default())
        .expect("a small model fits");
    Optimizer::new(gpu, model.parameters(), AdamW::default()).expect("its optimiser fits");
}
