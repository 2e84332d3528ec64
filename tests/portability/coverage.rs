//! The inventory is whole: every file of `shaders/` and every entry point is in it.

use std::path::{Path, PathBuf};
use std::process::Command;

use prefgrad::{Capability, CompiledShader};

use crate::inventory::shaders;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders")
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files(&path, found);
        } else if path
            .extension()
            .is_some_and(|extension| extension == "wgsl")
        {
            found.push(path);
        }
    }
}

fn entry_points(text: &str) -> Vec<&str> {
    text.split("@compute")
        .skip(1)
        .filter_map(|rest| rest.split_once("fn ")?.1.split_once('('))
        .map(|(name, _)| name)
        .collect()
}

#[test]
fn every_shader_file_and_entry_point_is_compiled_by_some_case() {
    let mut paths = Vec::new();
    files(&root(), &mut paths);
    assert!(paths.len() > 10, "{paths:?}");
    let subgroups = shaders()
        .iter()
        .any(|shader| shader.capability == Capability::Subgroups);
    for path in paths {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        if stem.ends_with("_cooperative") {
            // For one target: the kernel's own tests translate it.
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("a shader");
        if !subgroups && text.contains("subgroup") {
            println!("skipped: {} needs subgroups", path.display());
            continue;
        }
        // Loops behind such a mark are written out, so the text goes on differently.
        let head = text.split("// unroll").next().unwrap_or_default();
        let with: Vec<&CompiledShader> = shaders()
            .iter()
            .filter(|shader| shader.wgsl.contains(head))
            .collect();
        assert!(!with.is_empty(), "no case uses {}", path.display());
        for entry in entry_points(&text) {
            let compiled = with.iter().any(|shader| shader.entry == entry);
            assert!(compiled, "no case runs {entry} of {}", path.display());
        }
    }
}

#[test]
fn generated_texts_are_what_their_generators_write() {
    let folder = root().join("nn");
    let script = "import sys; sys.path.insert(0, sys.argv[1]); sys.dont_write_bytecode = True; \
                  import matmul_subgroup; sys.stdout.write(matmul_subgroup.text())";
    let output = Command::new("python3")
        .args(["-c", script])
        .arg(&folder)
        .output();
    let Ok(output) = output else {
        println!("skipped: there is no python3");
        return;
    };
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let checked_in = std::fs::read(folder.join("matmul_subgroup.wgsl")).expect("a shader");
    assert!(
        output.stdout == checked_in,
        "run python3 shaders/nn/matmul_subgroup.py"
    );
}
