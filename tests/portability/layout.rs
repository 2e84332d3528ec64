//! The Rust side against naga's reflection: bindings, parameter structs, structs in buffers.

use std::collections::BTreeMap;

use naga::{AddressSpace, Module, StorageAccess, StructMember, TypeInner};
use prefgrad::data::batch::{Answer, Pair, RowList, Segment, Target, Tile};
use prefgrad::kernels::nn::attention_decode::Sequence;
use prefgrad::kernels::nn::copy_rows::RowCopy;
use prefgrad::kernels::optim::adamw::AdamWHyper;
use prefgrad::kernels::policy::sample::{SampleSettings, Sampled};
use prefgrad::kernels::policy::{Experience, KlControl, Response, TokenGradient, TokenLogprob};
use prefgrad::{Access, CompiledShader, DeviceStruct, Field};

use crate::inventory::{name, shaders};
use crate::module::parsed;

/// Structs in buffers, by their names in the shaders.
fn buffer_structs() -> BTreeMap<&'static str, (&'static [Field], usize)> {
    fn entry<T: DeviceStruct>() -> (&'static [Field], usize) {
        (T::FIELDS, size_of::<T>())
    }
    BTreeMap::from([
        ("Segment", entry::<Segment>()),
        ("Tile", entry::<Tile>()),
        ("Answer", entry::<Answer>()),
        ("Pair", entry::<Pair>()),
        ("Target", entry::<Target>()),
        ("RowList", entry::<RowList>()),
        ("Sequence", entry::<Sequence>()),
        ("RowCopy", entry::<RowCopy>()),
        ("SampleSettings", entry::<SampleSettings>()),
        ("Sampled", entry::<Sampled>()),
        ("Hyper", entry::<AdamWHyper>()),
        ("TokenLogprob", entry::<TokenLogprob>()),
        ("TokenGradient", entry::<TokenGradient>()),
        ("Experience", entry::<Experience>()),
        ("Response", entry::<Response>()),
        ("KlControl", entry::<KlControl>()),
    ])
}

fn access_of(space: AddressSpace) -> Option<Access> {
    match space {
        AddressSpace::Uniform => Some(Access::Uniform),
        AddressSpace::Storage { access } if access.contains(StorageAccess::STORE) => {
            Some(Access::Write)
        }
        AddressSpace::Storage { .. } => Some(Access::Read),
        AddressSpace::Handle => Some(Access::Staged),
        _ => None,
    }
}

#[test]
fn each_binding_is_declared_and_used_as_it_is_bound() {
    let mut faults = Vec::new();
    for shader in shaders() {
        let parsed = parsed(shader);
        let index = parsed
            .module
            .entry_points
            .iter()
            .position(|entry| entry.name == shader.entry)
            .expect("an entry point");
        let used = parsed.info.get_entry_point(index);
        let mut bound: BTreeMap<u32, Access> = shader.bindings.iter().copied().collect();
        for (handle, global) in parsed.module.global_variables.iter() {
            let Some(binding) = global.binding else {
                continue;
            };
            assert_eq!(binding.group, 0, "{}", name(shader));
            if used[handle].is_empty() {
                continue;
            }
            let declared = access_of(global.space);
            let bound = bound.remove(&binding.binding);
            if declared != bound {
                faults.push(format!(
                    "{}: binding {} is declared {declared:?} but bound {bound:?}",
                    name(shader),
                    binding.binding
                ));
            }
        }
        for (binding, access) in bound {
            faults.push(format!(
                "{}: binding {binding} is bound {access:?} but never used",
                name(shader)
            ));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// What is wrong between members of a shader's struct and fields of a Rust one.
fn differences(module: &Module, members: &[StructMember], fields: &[Field]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut members = members.iter();
    for field in fields {
        for (name, kind, offset, size) in flat(field) {
            let Some(member) = members.next() else {
                wrong.push(format!("`{name}` is missing in the shader"));
                continue;
            };
            let inner = &module.types[member.ty].inner;
            let found = (
                member.name.clone().unwrap_or_default(),
                kind_of(inner),
                member.offset as usize,
                inner.size(module.to_ctx()) as usize,
            );
            let wanted = (name, kind, offset, size);
            if found != wanted {
                wrong.push(format!("the shader has {found:?}, Rust has {wanted:?}"));
            }
        }
    }
    wrong.extend(members.map(|member| format!("{:?} is missing in Rust", member.name)));
    wrong
}

/// A field as a shader declares it: an array `pad: [u32; 2]` is `pad0` and `pad1` there, since
/// arrays in uniform structs take 16 bytes an element.
fn flat(field: &Field) -> Vec<(String, String, usize, usize)> {
    let Some((kind, count)) = field
        .kind
        .strip_prefix('[')
        .and_then(|kind| kind.strip_suffix(']'))
        .and_then(|kind| kind.split_once("; "))
    else {
        return vec![(
            field.name.into(),
            field.kind.into(),
            field.offset,
            field.size,
        )];
    };
    let count: usize = count.parse().expect("the length of an array");
    let size = field.size / count;
    (0..count)
        .map(|i| {
            let name = format!("{}{i}", field.name);
            (name, kind.to_owned(), field.offset + i * size, size)
        })
        .collect()
}

fn kind_of(inner: &TypeInner) -> String {
    match inner {
        TypeInner::Scalar(scalar) => match scalar.kind {
            naga::ScalarKind::Uint => format!("u{}", 8 * scalar.width),
            naga::ScalarKind::Sint => format!("i{}", 8 * scalar.width),
            naga::ScalarKind::Float => format!("f{}", 8 * scalar.width),
            _ => "?".into(),
        },
        _ => format!("{inner:?}"),
    }
}

#[test]
fn parameter_structs_agree_with_the_shaders() {
    let mut faults = Vec::new();
    for shader in shaders() {
        let module = parsed(shader).module;
        let params = module.global_variables.iter().find(|(_, global)| {
            global.space == AddressSpace::Uniform
                && global.binding.is_some_and(|binding| binding.binding == 0)
        });
        let wrong = match params.map(|(_, global)| &module.types[global.ty].inner) {
            None if shader.params_size == 0 => vec![],
            None => vec!["parameters are bound that the shader has not".into()],
            Some(TypeInner::Struct { members, span }) => {
                let mut wrong = differences(&module, members, shader.params);
                if *span as usize != shader.params_size {
                    wrong.push(format!("{span} bytes, {} in Rust", shader.params_size));
                }
                wrong
            }
            Some(other) => vec![format!("{other:?} is not a struct")],
        };
        faults.extend(report(shader, wrong));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn structs_in_buffers_agree_with_the_shaders() {
    let known = buffer_structs();
    let mut seen = BTreeMap::new();
    let mut faults = Vec::new();
    for shader in shaders() {
        let module = parsed(shader).module;
        for (_, global) in module.global_variables.iter() {
            let Some((label, members, span)) = buffer_struct(&module, global) else {
                continue;
            };
            let wrong = match known.get(label) {
                None => vec![format!("no Rust struct is known for `{label}`")],
                Some((fields, size)) => {
                    seen.insert(label.to_owned(), ());
                    let mut wrong = differences(&module, members, fields);
                    if span as usize != *size {
                        wrong.push(format!("{span} bytes, {size} in Rust"));
                    }
                    wrong
                }
            };
            faults.extend(report(shader, wrong));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    let unseen: Vec<_> = known
        .keys()
        .filter(|name| !seen.contains_key(**name))
        .collect();
    assert!(unseen.is_empty(), "no shader has {unseen:?}");
}

/// The struct that a buffer other than the parameters holds, alone or as an array's elements.
fn buffer_struct<'a>(
    module: &'a Module,
    global: &naga::GlobalVariable,
) -> Option<(&'a str, &'a [StructMember], u32)> {
    if global.binding?.binding == 0 {
        return None;
    }
    let mut ty = &module.types[global.ty];
    while let TypeInner::Array { base, .. } = ty.inner {
        ty = &module.types[base];
    }
    match &ty.inner {
        TypeInner::Struct { members, span } => Some((ty.name.as_deref()?, members, *span)),
        _ => None,
    }
}

fn report(shader: &CompiledShader, wrong: Vec<String>) -> Vec<String> {
    wrong
        .into_iter()
        .map(|wrong| format!("{}: {wrong}", name(shader)))
        .collect()
}
