//! A variant as naga sees it.

use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use prefgrad::{Capability, CompiledShader};

use crate::inventory::name;

/// A parsed and validated text.
pub struct Parsed {
    pub module: naga::Module,
    pub info: ModuleInfo,
}

const ENABLE: &str = "enable subgroups;\n";

/// The text without the line that browsers require and naga 30 refuses.
pub fn without_enable(shader: &CompiledShader) -> &str {
    shader.wgsl.strip_prefix(ENABLE).unwrap_or(&shader.wgsl)
}

/// What a text may need, by what it claims.
pub fn claimed(shader: &CompiledShader) -> Capabilities {
    match shader.capability {
        Capability::Core => Capabilities::empty(),
        Capability::Subgroups => Capabilities::SUBGROUP,
        Capability::Cooperative => {
            Capabilities::SUBGROUP | Capabilities::SHADER_FLOAT16 | Capabilities::COOPERATIVE_MATRIX
        }
    }
}

/// Validates a module with no more than these capabilities.
pub fn validate(
    module: &naga::Module,
    capabilities: Capabilities,
) -> Result<ModuleInfo, Box<dyn std::error::Error>> {
    Ok(Validator::new(ValidationFlags::all(), capabilities).validate(module)?)
}

/// The module, validated with the capabilities that the variant claims.
pub fn parsed(shader: &CompiledShader) -> Parsed {
    let text = without_enable(shader);
    let module = naga::front::wgsl::parse_str(text)
        .unwrap_or_else(|error| panic!("{}: {}", name(shader), error.emit_to_string(text)));
    let info = validate(&module, claimed(shader))
        .unwrap_or_else(|error| panic!("{}: {error:?}", name(shader)));
    Parsed { module, info }
}
