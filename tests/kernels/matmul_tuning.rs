//! What was measured of matrix products: kept on disk, followed, and left alone where it does not
//! fit.

use prefgrad::check::values;
use prefgrad::kernels::Size;
use prefgrad::kernels::nn::matmul::{Layout, MatmulIo, MatmulSizes, matmul};
use prefgrad::{
    Error, Gpu, MatmulDesign, MatmulTuning, Outputs, Plan, ProductClass, Tensor, Tiling, TuningRow,
};

use crate::gpu::{gpu, gpu_without_subgroups};

const FEW: ProductClass = ProductClass {
    transpose_a: false,
    transpose_b: true,
    outputs: Outputs::Few,
};
const MANY: ProductClass = ProductClass {
    outputs: Outputs::Many,
    ..FEW
};
const MEDIUM: MatmulDesign = MatmulDesign::Tiled(Tiling::Medium);

fn table(gpu: &Gpu) -> MatmulTuning {
    let row = |design, gflops| TuningRow {
        class: FEW,
        design,
        gflops,
    };
    let rows = vec![
        row(MatmulDesign::Registers, 7.5),
        row(MEDIUM, 20.25),
        row(MatmulDesign::Subgroup, 31.5),
    ];
    MatmulTuning::new(gpu, rows)
}

#[test]
fn products_follow_what_was_fastest_among_what_the_device_can_run() {
    let gpu = gpu_without_subgroups();
    let tuned = gpu.with_tuning(table(gpu));
    assert_eq!(tuned.matmul_design_for(FEW), MEDIUM);
    assert_eq!(tuned.matmul_design_for(MANY), gpu.matmul_design());
    assert!(
        tuned.variants().contains("nt, few outputs"),
        "{}",
        tuned.variants()
    );
    let forced = tuned.with_matmul(MatmulDesign::Registers);
    assert_eq!(forced.matmul_design_for(FEW), MatmulDesign::Registers);
    assert!(forced.matmul_tuning().is_none());

    let a = Tensor::from_slice(gpu, "a", &[3, 5], &values(1, 15, 1.0)).unwrap();
    let out = Tensor::zeros::<f32>(gpu, "out", &[3, 3]).unwrap();
    let mut plan = Plan::new(&tuned);
    let b = Tensor::from_slice(gpu, "b", &[3, 5], &values(2, 15, 1.0)).unwrap();
    let io = MatmulIo::whole(&a, &b, &out);
    let sizes = MatmulSizes {
        layout: Layout::Nt,
        m: Size::fixed(3),
        n: 3,
        k: Size::fixed(5),
    };
    let before = gpu.compiled().len();
    matmul(&mut plan, &io, &sizes).unwrap();
    let tile = |wgsl: &str| wgsl.contains("const TILE: u32 = 64u;");
    let compiled = gpu.compiled();
    assert!(compiled.len() >= before);
    assert!(compiled.iter().any(|shader| tile(&shader.wgsl)));
}

#[test]
fn a_table_comes_back_from_disk_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("new");
    assert_eq!(MatmulTuning::load(&inside, gpu()).unwrap(), None);
    let table = table(gpu());
    let path = table.save(&inside, gpu()).unwrap();
    assert_eq!(path, MatmulTuning::path(&inside, gpu()));
    assert_eq!(MatmulTuning::load(&inside, gpu()).unwrap(), Some(table));
}

#[test]
fn a_table_of_another_device_driver_or_version_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = table(gpu()).save(folder.path(), gpu()).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    for key in ["adapter", "driver", "version"] {
        let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
        json[key] = "another".into();
        std::fs::write(&path, json.to_string()).unwrap();
        assert_eq!(
            MatmulTuning::load(folder.path(), gpu()).unwrap(),
            None,
            "{key}"
        );
    }
}

#[test]
fn a_damaged_table_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = table(gpu()).save(folder.path(), gpu()).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let damaged = [
        text[..text.len() / 2].to_owned(),
        text.replace("registers", "fast"),
        text.replace("7.5", "-7.5"),
        text.replace("7.5", "null"),
        text.replace("rows", "lines"),
    ];
    for text in damaged {
        std::fs::write(&path, text).unwrap();
        let error = MatmulTuning::load(folder.path(), gpu()).unwrap_err();
        assert!(matches!(error, Error::Data { .. }), "{error}");
        let said = error.to_string();
        assert!(said.contains(&path.display().to_string()), "{said}");
        assert!(said.contains("measure again"), "{said}");
    }
}

#[test]
fn measuring_compares_every_design_and_prints_a_table() {
    let gpu = gpu_without_subgroups();
    let tuning = MatmulTuning::measure(gpu).unwrap();
    let first = tuning.rows()[0].class;
    let designs: Vec<MatmulDesign> = tuning
        .rows()
        .iter()
        .filter(|row| row.class == first)
        .map(|row| row.design)
        .collect();
    assert_eq!(designs, gpu.matmul_designs());
    assert!(tuning.rows().iter().all(|row| row.gflops > 0.0));
    let fastest = gpu.with_tuning(tuning.clone()).matmul_design_for(first);
    let best = tuning.rows()[..designs.len()]
        .iter()
        .max_by(|a, b| a.gflops.total_cmp(&b.gflops));
    assert_eq!(Some(fastest), best.map(|row| row.design));
    let printed = tuning.to_string();
    assert_eq!(printed.lines().count(), 1 + tuning.rows().len());
    assert!(printed.contains("nn, few outputs"), "{printed}");
    assert!(printed.contains("fastest"), "{printed}");
}
