//! How structs lie in memory, so that tests can hold them against the shaders' own.

/// A member of a struct that a shader reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// The name, the same as in the shader.
    pub name: &'static str,
    /// The Rust type, as in `u32`.
    pub kind: &'static str,
    /// Bytes from the start of the struct.
    pub offset: usize,
    /// Its size in bytes.
    pub size: usize,
}

/// A struct that a shader declares with the same members.
pub trait DeviceStruct: bytemuck::Pod {
    /// The struct's name.
    const NAME: &'static str;
    /// The members in order.
    const FIELDS: &'static [Field];
}

/// The parameters of a dispatch: what its kernel finds at binding 0.
#[derive(Debug, Clone, Copy)]
pub struct Params<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) fields: &'static [Field],
}

impl<'a> Params<'a> {
    /// For a kernel without parameters.
    pub const NONE: Self = Self {
        bytes: &[],
        fields: &[],
    };

    /// The kernel's `struct Params`.
    pub fn of<T: DeviceStruct>(params: &'a T) -> Self {
        Self {
            bytes: bytemuck::bytes_of(params),
            fields: T::FIELDS,
        }
    }
}

/// Declares a struct as it lies on the device, with a [`DeviceStruct`] of its members.
macro_rules! device_struct {
    ($(#[$meta:meta])* $vis:vis struct $name:ident {
        $($(#[$field_meta:meta])* $field_vis:vis $field:ident: $type:ty,)*
    }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Debug, Clone, Copy, PartialEq, Default, bytemuck::Pod, bytemuck::Zeroable)]
        $vis struct $name {
            $($(#[$field_meta])* $field_vis $field: $type,)*
        }

        impl $crate::gpu::DeviceStruct for $name {
            const NAME: &'static str = stringify!($name);
            const FIELDS: &'static [$crate::gpu::Field] = &[
                $($crate::gpu::Field {
                    name: stringify!($field),
                    kind: stringify!($type),
                    offset: std::mem::offset_of!($name, $field),
                    size: size_of::<$type>(),
                },)*
            ];
        }
    };
}
pub(crate) use device_struct;
