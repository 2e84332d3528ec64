// Matrix product C = op(A) op(B) with an epilogue, accumulated in f32.
//
//   op(A) is (M, K): A is stored (M, K), or (K, M) where TRANSPOSE_A
//   op(B) is (K, N): B is stored (K, N), or (N, K) where TRANSPOSE_B
//
// Bindings: 0 params, 1 counts (live sizes, where used), 2 a (read), 3 b (read), 4 out (written),
// then what the epilogue adds. Offsets and strides are in elements.
//
// Dispatch: one workgroup of 8 x 8 threads a tile of 64 x 64 outputs, each thread a block of 8 x 8
// in registers as four 4 x 4 matrices, without workgroup memory or barriers. Workgroups past the
// live rows return at once; nothing is written there.
//
// A block of four rows of op(A), four long in k, is held as a matrix whose *columns* are those
// rows; a block of op(B) as one whose columns run along n. Then `b * a` is the 4 x 4 product, its
// columns the rows of C.
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
}

@group(0) @binding(0) var<uniform> params: Params;

fn a_block(row: u32, k: u32) -> mat4x4<f32> {
    if (TRANSPOSE_A) {
        return transpose(mat4x4<f32>(
            load_a(k, row), load_a(k + 1u, row), load_a(k + 2u, row), load_a(k + 3u, row),
        ));
    }
    return mat4x4<f32>(
        load_a(row, k), load_a(row + 1u, k), load_a(row + 2u, k), load_a(row + 3u, k),
    );
}

fn b_block(k: u32, col: u32) -> mat4x4<f32> {
    if (TRANSPOSE_B) {
        return transpose(mat4x4<f32>(
            load_b(col, k), load_b(col + 1u, k), load_b(col + 2u, k), load_b(col + 3u, k),
        ));
    }
    return mat4x4<f32>(
        load_b(k, col), load_b(k + 1u, col), load_b(k + 2u, col), load_b(k + 3u, col),
    );
}

// The last, partial step along k: what lies past k may be anything, infinity included, so it is
// replaced and not multiplied by zero.
fn mask_a(block: mat4x4<f32>, rest: u32) -> mat4x4<f32> {
    let keep = vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(rest);
    let zero = vec4<f32>(0.0);
    return mat4x4<f32>(
        select(zero, block[0], keep), select(zero, block[1], keep),
        select(zero, block[2], keep), select(zero, block[3], keep),
    );
}

fn mask_b(block: mat4x4<f32>, rest: u32) -> mat4x4<f32> {
    let zero = vec4<f32>(0.0);
    return mat4x4<f32>(
        block[0], select(zero, block[1], rest > 1u),
        select(zero, block[2], rest > 2u), zero,
    );
}

fn store_row(row: u32, col: u32, m: u32, values: vec4<f32>) {
    if (row >= m) {
        return;
    }
    if (col < params.n) {
        store(row, col, values.x);
    }
    if (col + 1u < params.n) {
        store(row, col + 1u, values.y);
    }
    if (col + 2u < params.n) {
        store(row, col + 2u, values.z);
    }
    if (col + 3u < params.n) {
        store(row, col + 3u, values.w);
    }
}

fn store_block(row: u32, col: u32, m: u32, block: mat4x4<f32>) {
    store_row(row, col, m, block[0]);
    store_row(row + 1u, col, m, block[1]);
    store_row(row + 2u, col, m, block[2]);
    store_row(row + 3u, col, m, block[3]);
}

@compute @workgroup_size(8, 8)
fn matmul(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
) {
    let m = live_from(params.m, params.m_count, params.start);
    let k = live_from(params.k, params.k_count, params.start);
    let tiles_n = (params.n + 63u) / 64u;
    let tile = linear_workgroup(group, groups);
    let row = (tile / tiles_n) * 64u + local.y * 8u;
    let col = (tile % tiles_n) * 64u + local.x * 8u;
    if (row >= m || col >= params.n) {
        return;
    }
    var c00 = mat4x4<f32>();
    var c01 = mat4x4<f32>();
    var c10 = mat4x4<f32>();
    var c11 = mat4x4<f32>();
    let whole = k - k % 4u;
    for (var i = 0u; i < whole; i += 4u) {
        let a0 = a_block(row, i);
        let a1 = a_block(row + 4u, i);
        let b0 = b_block(i, col);
        let b1 = b_block(i, col + 4u);
        c00 += b0 * a0;
        c01 += b1 * a0;
        c10 += b0 * a1;
        c11 += b1 * a1;
    }
    if (whole < k) {
        let rest = k - whole;
        let a0 = mask_a(a_block(row, whole), rest);
        let a1 = mask_a(a_block(row + 4u, whole), rest);
        let b0 = mask_b(b_block(whole, col), rest);
        let b1 = mask_b(b_block(whole, col + 4u), rest);
        c00 += b0 * a0;
        c01 += b1 * a0;
        c10 += b0 * a1;
        c11 += b1 * a1;
    }
    store_block(row, col, m, c00);
    store_block(row, col + 4u, m, c01);
    store_block(row + 4u, col, m, c10);
    store_block(row + 4u, col + 4u, m, c11);
}
