//! Translation to what each backend's compiler reads.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

use naga::ShaderStage;
use naga::back::{glsl, hlsl, msl, spv};
use naga::valid::Capabilities;
use prefgrad::{Capability, CompiledShader};

use crate::inventory::{name, shaders};
use crate::module::{Parsed, parsed, validate, without_enable};

#[test]
fn each_text_needs_what_it_claims_and_no_more() {
    for shader in shaders() {
        let module = parsed(shader).module;
        if shader.capability != Capability::Core {
            let core = validate(&module, Capabilities::empty());
            assert!(core.is_err(), "{} needs nothing beyond core", name(shader));
        }
    }
}

#[test]
fn subgroups_are_enabled_in_the_text_that_browsers_get_and_only_there() {
    for shader in shaders() {
        let enabled = shader.wgsl.starts_with("enable subgroups;\n");
        let wanted = shader.capability == Capability::Subgroups;
        assert_eq!(enabled, wanted, "{}", name(shader));
        assert!(
            !without_enable(shader).contains("enable "),
            "{}",
            name(shader)
        );
    }
}

#[test]
fn naga_still_refuses_the_line_that_browsers_require() {
    // Once this succeeds, the loader need not remove the line any more.
    let text = "enable subgroups;\n@compute @workgroup_size(1) fn main() {}\n";
    assert!(naga::front::wgsl::parse_str(text).is_err());
}

fn spirv(shader: &CompiledShader, parsed: &Parsed) -> Result<Vec<u32>, String> {
    let lang_version = match shader.capability {
        Capability::Core => (1, 0),
        Capability::Subgroups => (1, 3),
        Capability::Cooperative => (1, 6),
    };
    let options = spv::Options {
        lang_version,
        ..Default::default()
    };
    let entry = spv::PipelineOptions {
        shader_stage: ShaderStage::Compute,
        entry_point: shader.entry.clone(),
    };
    spv::write_vec(&parsed.module, &parsed.info, &options, Some(&entry))
        .map_err(|error| error.to_string())
}

fn metal(shader: &CompiledShader, parsed: &Parsed) -> Result<String, String> {
    let options = msl::Options {
        lang_version: (2, 3),
        ..Default::default()
    };
    let entry = msl::PipelineOptions {
        entry_point: Some((ShaderStage::Compute, shader.entry.clone())),
        ..Default::default()
    };
    msl::write_string(&parsed.module, &parsed.info, &options, &entry)
        .map(|(text, _)| text)
        .map_err(|error| error.to_string())
}

fn direct_x(shader: &CompiledShader, parsed: &Parsed) -> Result<String, String> {
    let options = hlsl::Options {
        shader_model: hlsl::ShaderModel::V6_0,
        ..Default::default()
    };
    let entry = hlsl::PipelineOptions {
        entry_point: Some((ShaderStage::Compute, shader.entry.clone())),
    };
    let mut text = String::new();
    hlsl::Writer::new(&mut text, &options, &entry)
        .write(&parsed.module, &parsed.info, None)
        .map_err(|error| error.to_string())?;
    Ok(text)
}

fn open_gl(
    shader: &CompiledShader,
    parsed: &Parsed,
    version: glsl::Version,
) -> Result<String, String> {
    let options = glsl::Options {
        version,
        ..Default::default()
    };
    let entry = glsl::PipelineOptions {
        shader_stage: ShaderStage::Compute,
        entry_point: shader.entry.clone(),
        multiview: None,
    };
    let mut text = String::new();
    glsl::Writer::new(
        &mut text,
        &parsed.module,
        &parsed.info,
        &options,
        &entry,
        Default::default(),
    )
    .and_then(|mut writer| writer.write())
    .map_err(|error| error.to_string())?;
    Ok(text)
}

#[test]
fn every_variant_translates_to_every_target() {
    let mut refusals = BTreeSet::new();
    for shader in shaders() {
        let parsed = parsed(shader);
        let results = [
            ("SPIR-V", spirv(shader, &parsed).map(|words| words.len())),
            ("MSL 2.3", metal(shader, &parsed).map(|text| text.len())),
            ("HLSL 6.0", direct_x(shader, &parsed).map(|text| text.len())),
            (
                "GLSL ES 310",
                open_gl(shader, &parsed, glsl::Version::new_gles(310)).map(|text| text.len()),
            ),
            (
                "GLSL 430",
                open_gl(shader, &parsed, glsl::Version::Desktop(430)).map(|text| text.len()),
            ),
        ];
        for (target, result) in results {
            match result {
                Ok(len) => assert!(len > 0),
                Err(error) => {
                    refusals.insert(format!("{} to {target}: {error}", name(shader)));
                }
            }
        }
    }
    assert!(refusals.is_empty(), "{refusals:#?}");
}

#[test]
fn the_spirv_validator_accepts_every_variant() {
    if Command::new("spirv-val").arg("--version").output().is_err() {
        println!("skipped: spirv-val is not installed (Debian, Ubuntu: spirv-tools)");
        return;
    }
    let mut refusals = Vec::new();
    for shader in shaders() {
        let words = spirv(shader, &parsed(shader)).expect("translated by another test");
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let environment = match shader.capability {
            Capability::Core => "vulkan1.0",
            Capability::Subgroups => "vulkan1.1",
            Capability::Cooperative => "vulkan1.3",
        };
        if let Err(error) = spirv_val(environment, &bytes) {
            refusals.push(format!("{}: {error}", name(shader)));
        }
    }
    assert!(refusals.is_empty(), "{}", refusals.join("\n"));
}

fn spirv_val(environment: &str, bytes: &[u8]) -> Result<(), String> {
    let mut child = Command::new("spirv-val")
        .args(["--target-env", environment, "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("spirv-val starts");
    child
        .stdin
        .take()
        .expect("a pipe")
        .write_all(bytes)
        .expect("spirv-val reads");
    let output = child.wait_with_output().expect("spirv-val ends");
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}
