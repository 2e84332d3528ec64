// Matrix product C = op(A) op(B) with an epilogue, accumulated in f32.
//
//   op(A) is (M, K): A is stored (M, K), or (K, M) where TRANSPOSE_A
//   op(B) is (K, N): B is stored (K, N), or (N, K) where TRANSPOSE_B
//
// Bindings: 0 params, 1 counts (live sizes, where used), 2 a (read), 3 b (read), 4 out (written),
// then what the epilogue adds.
//
// Dispatch: one workgroup of 8 x 8 threads a tile of 64 x 64 outputs, each thread a block of 8 x 8
// in registers as four 4 x 4 matrices, without workgroup memory or barriers. Workgroups past the
// live rows return at once; nothing is written there.
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
