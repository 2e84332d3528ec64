// What all forms of the matrix product share: its parameters. Offsets and strides are in elements; `part` is how much of k one workgroup adds up, all of it but for split products.
struct Params {
    m: u32,
    n: u32,
    k: u32,
    m_count: u32,
    k_count: u32,
    a_offset: u32,
    a_stride: u32,
    b_offset: u32,
    b_stride: u32,
    out_offset: u32,
    out_stride: u32,
    start: u32,
    part: u32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
