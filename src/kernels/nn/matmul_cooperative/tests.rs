//! The kernel's text on a device without cooperative matrices, fragments by plain code; and the text
//! as it is, as far as naga reads it.

use std::sync::{LazyLock, OnceLock};

use naga::back::spv;
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};

use super::{COOPERATIVE, FRAGMENTS};
use crate::check::{Case, Purpose, cases, values};
use crate::gpu::{
    Capability, CompiledShader, FRAGMENT_WORKGROUP_BYTES, Gpu, Lib, Plan, Shader, Tensor, Variant,
};
use crate::kernels::nn::matmul::{Epilogue, Layout, MatmulIo, MatmulSizes, Matrix, matmul};
use crate::kernels::{Count, Size};

const EMULATED_FRAGMENTS: &Lib = &Lib {
    name: "test.fragment_emulated",
    text: include_str!("fragment_emulated.wgsl"),
};

const SUBGROUP: &str = "    @builtin(subgroup_id) subgroup: u32,\n) {\n";
const EMULATED_SUBGROUP: &str = ") {\n    let subgroup = thread / 32u;\n    lane = thread % 32u;\n";

/// The kernel in core WGSL, with bounds checks: subgroups are 32 threads in a row.
pub(super) fn emulated() -> (Shader, &'static Lib) {
    static TEXT: LazyLock<String> =
        LazyLock::new(|| COOPERATIVE.text.replace(SUBGROUP, EMULATED_SUBGROUP));
    assert_ne!(*TEXT, COOPERATIVE.text);
    let shader = Shader::new("test.matmul_cooperative", &TEXT, Capability::Core);
    (shader, EMULATED_FRAGMENTS)
}

/// A device that runs all cases with emulated fragments, and has done so.
fn checked() -> &'static Gpu {
    static GPU: OnceLock<Gpu> = OnceLock::new();
    GPU.get_or_init(|| {
        let gpu = Gpu::new().expect("the tests need a GPU or the software driver");
        let gpu = gpu.with_emulated_fragments();
        run_cases(&gpu);
        gpu
    })
}

/// Runs the cases that do not take a software driver minutes.
fn run_cases(gpu: &Gpu) {
    let wanted = |case: &Case| {
        let quick = case.purpose == Purpose::Answer && !case.name.starts_with("nn 4194368x");
        case.kernel == "nn.matmul" && quick
    };
    let mut failures = Vec::new();
    let mut worst = 0.0f64;
    for case in cases().into_iter().filter(wanted) {
        for verdict in case.build(gpu).unwrap().run().unwrap() {
            worst = worst.max(verdict.error);
            if !verdict.passed() {
                failures.push(format!("{}: {verdict:?}", case.name));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    println!("worst error {worst:.1e}");
    // Operands were rounded, or something else ran.
    assert!(worst > 1e-4, "{worst:.1e}");
}

#[test]
fn cases_are_answered_within_the_bound_of_rounded_operands() {
    let gpu = checked();
    let names: Vec<_> = gpu.compiled().iter().map(|shader| shader.name).collect();
    // Rows that are not made of whole fours.
    assert!(names.contains(&"nn.matmul_tiled"), "{names:?}");
    assert!(names.contains(&"test.matmul_cooperative"), "{names:?}");
}

/// None so small that WGSL's own rounding to f16 may make it zero.
fn normal_values(seed: u64, len: usize) -> Vec<f32> {
    let normal = |x: f32| if x.abs() < 1e-4 { 0.5 } else { x };
    values(seed, len, 1.0).into_iter().map(normal).collect()
}

/// Rows of op(A), or columns of op(B), of `steps` each, in a window of a tensor.
struct Operand {
    count: usize,
    steps: usize,
    /// Whether they are stored one after the other.
    along_k: bool,
    values: Vec<f32>,
}

impl Operand {
    /// Past the live steps lies `past`.
    fn new(
        seed: u64,
        (count, steps): (usize, usize),
        along_k: bool,
        live: usize,
        past: f32,
    ) -> Self {
        let mut operand = Self {
            count,
            steps,
            along_k,
            values: normal_values(seed, count * steps),
        };
        for (i, step) in (0..count).flat_map(|i| (live..steps).map(move |step| (i, step))) {
            let at = operand.index(i, step);
            operand.values[at] = past;
        }
        operand
    }

    fn index(&self, i: usize, step: usize) -> usize {
        match self.along_k {
            true => i * self.steps + step,
            false => step * self.count + i,
        }
    }

    /// An element as f16 holds it.
    fn rounded(&self, i: usize, step: usize) -> f64 {
        half::f16::from_f32(self.values[self.index(i, step)]).to_f64()
    }

    /// Rows with `BEFORE` other elements before them and some after.
    fn tensor(&self, gpu: &Gpu) -> Tensor {
        let cols = if self.along_k { self.steps } else { self.count };
        let row = |values: &[f32]| [&[f32::NAN; BEFORE], values, &[f32::NAN; 8]].concat();
        let rows: Vec<f32> = self.values.chunks(cols).flat_map(row).collect();
        Tensor::from_slice(
            gpu,
            "operand",
            &[rows.len() / (cols + BEFORE + 8), cols + BEFORE + 8],
            &rows,
        )
        .unwrap()
    }
}

const BEFORE: usize = 4;

/// A product of windows with live rows and steps; past those, A is NaN and B infinite.
fn check_live(gpu: &Gpu, layout: Layout, sizes: (usize, usize, usize), live: (usize, usize)) {
    let (m, n, k) = sizes;
    let a = Operand::new(1, (m, k), layout != Layout::Tn, live.1, f32::NAN);
    let b = Operand::new(2, (n, k), layout == Layout::Nt, live.1, f32::INFINITY);
    let (a_tensor, b_tensor) = (a.tensor(gpu), b.tensor(gpu));
    let out = Tensor::from_slice(gpu, "out", &[m, n], &vec![9.0f32; m * n]).unwrap();
    let mut counts = [0u32; 16];
    counts[Count::Tokens as usize] = live.0 as u32;
    counts[Count::Targets as usize] = live.1 as u32;
    let counts = Tensor::from_slice(gpu, "counts", &[16], &counts).unwrap();
    let mut plan = Plan::new(gpu);
    let io = MatmulIo {
        a: Matrix::from_column(&a_tensor, BEFORE),
        b: Matrix::from_column(&b_tensor, BEFORE),
        out: Matrix::whole(&out),
        epilogue: Epilogue::Store,
        counts: Some(&counts),
    };
    let matmul_sizes = MatmulSizes {
        layout,
        m: Size::live(m, Count::Tokens),
        n,
        k: Size::live(k, Count::Targets),
    };
    matmul(&mut plan, &io, &matmul_sizes).unwrap();
    plan.submit();
    let result: Vec<f32> = out.read(gpu).unwrap();
    for (i, actual) in result.into_iter().enumerate() {
        let (row, col) = (i / n, i % n);
        let what = format!("{layout:?} {sizes:?} {live:?}, {row}, {col}");
        if row >= live.0 {
            assert_eq!(actual, 9.0, "{what} was written");
            continue;
        }
        let products = (0..live.1).map(|step| a.rounded(row, step) * b.rounded(col, step));
        let (sum, of_sizes) =
            products.fold((0.0, 1.0), |(sum, sizes), x| (sum + x, sizes + x.abs()));
        let error = (f64::from(actual) - sum).abs();
        assert!(error <= 1e-6 * of_sizes, "{what}: {actual} {sum}");
    }
}

#[test]
fn windows_and_live_sizes_are_kept_to() {
    let gpu = Gpu::new().expect("the tests need a GPU or the software driver");
    let gpu = gpu.with_emulated_fragments();
    for layout in [Layout::Nn, Layout::Nt, Layout::Tn] {
        // One tile, several; k ends in a slice, with one, at once.
        for (sizes, live) in [
            ((20, 36, 44), (3, 5)),
            ((132, 68, 72), (129, 64)),
            ((132, 68, 72), (65, 0)),
            ((196, 132, 40), (180, 33)),
        ] {
            check_live(&gpu, layout, sizes, live);
        }
    }
    let names: Vec<_> = gpu.compiled().iter().map(|shader| shader.name).collect();
    assert!(
        names.iter().all(|name| *name == "test.matmul_cooperative"),
        "{names:?}"
    );
}

#[test]
fn edges_are_left_out_where_there_are_none() {
    let compiled = checked().compiled();
    for edges in ["const EDGES: bool = true;", "const EDGES: bool = false;"] {
        assert!(
            compiled.iter().any(|shader| shader.wgsl.contains(edges)),
            "{edges}"
        );
    }
}

/// The text of a variant that ran emulated, as devices with cooperative matrices get it.
fn real_text(emulated: &CompiledShader) -> String {
    let nothing = Variant {
        entry: "",
        libs: &[],
        consts: &[],
    };
    let alone = COOPERATIVE.wgsl(&nothing);
    let (enable, _) = alone.split_once("//").expect("a comment after the lines");
    let text = emulated
        .wgsl
        .replace(EMULATED_FRAGMENTS.text, FRAGMENTS.text);
    let text = text.replace(EMULATED_SUBGROUP, SUBGROUP);
    assert!(text.contains("coopMultiplyAdd") && text.contains("subgroup_id"));
    format!("{enable}{text}")
}

fn validated(text: &str) -> (naga::Module, ModuleInfo) {
    let needs =
        Capabilities::SHADER_FLOAT16 | Capabilities::COOPERATIVE_MATRIX | Capabilities::SUBGROUP;
    let mut options = naga::front::wgsl::Options::new();
    options.capabilities = needs;
    let module = naga::front::wgsl::Frontend::new_with_options(options)
        .parse(text)
        .unwrap_or_else(|error| panic!("{}", error.emit_to_string(text)));
    let info = Validator::new(ValidationFlags::all(), needs)
        .validate(&module)
        .unwrap_or_else(|error| panic!("{}", error.emit_to_string(text)));
    (module, info)
}

fn workgroup_bytes(module: &naga::Module) -> u32 {
    let globals = module.global_variables.iter();
    let shared = globals.filter(|(_, global)| global.space == naga::AddressSpace::WorkGroup);
    let size = |ty| module.types[ty].inner.size(module.to_ctx());
    shared.map(|(_, global)| size(global.ty)).sum()
}

#[test]
fn the_real_text_is_translated_to_spirv() {
    let compiled = checked().compiled();
    let variants = compiled
        .iter()
        .filter(|shader| shader.name == "test.matmul_cooperative");
    let mut largest = 0;
    for shader in variants {
        let (module, info) = validated(&real_text(shader));
        largest = largest.max(workgroup_bytes(&module));
        let mut options = spv::Options {
            lang_version: (1, 6),
            force_loop_bounding: false,
            ..spv::Options::default()
        };
        let entry = spv::PipelineOptions {
            shader_stage: naga::ShaderStage::Compute,
            entry_point: shader.entry.clone(),
        };
        options.bounds_check_policies.index = naga::proc::BoundsCheckPolicy::Unchecked;
        options.bounds_check_policies.buffer = naga::proc::BoundsCheckPolicy::Unchecked;
        let words = spv::write_vec(&module, &info, &options, Some(&entry)).unwrap();
        assert!(words.len() > 100);
    }
    assert_eq!(largest, FRAGMENT_WORKGROUP_BYTES);
}
