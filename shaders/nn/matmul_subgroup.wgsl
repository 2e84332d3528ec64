// Made by matmul_subgroup.py: change that, not this.
//
// Matrix product C = op(A) op(B) with an epilogue, accumulated in f32, for subgroups of 8 lanes
// or more, of any size. It asks little of memory loads and nothing of workgroup memory, which is
// what software drivers are slow at. They read textures faster than buffers: where the operands
// were copied into textures, the same text runs on those.
//
//   op(A) is (M, K): A is stored (M, K), or (K, M) where TRANSPOSE_A
//   op(B) is (K, N): B is stored (K, N), or (N, K) where TRANSPOSE_B
//
// Bindings: 0 params, 1 counts (live sizes, where used), 2 a (read), 3 b (read), 4 out (written),
// then what the epilogue adds.
//
// Dispatch: one workgroup of 8 threads a tile of 32 x 64 outputs, the number of tiles along n
// rounded up to a multiple of 4. Four tiles side by side come one after the other, then the next
// rows: what they read stays in a cache. Workgroups past the live rows or past n return at once;
// nothing is written there.
//
// Each thread owns 8 columns. For every four steps along k, each loads a 4 x 4 block of op(A), so
// that the 8 threads hold 32 rows, and broadcasts spread one row after the other.
@compute @workgroup_size(8)
fn matmul_subgroup(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let m = live_from(params.m, params.m_count, params.start);
    let k = live_from(params.k, params.k_count, params.start);
    let tile = linear_workgroup(group, groups);
    let tiles_m = max((m + 31u) / 32u, 1u);
    let row = tile / 4u % tiles_m * 32u;
    let tile_col = (tile / 4u / tiles_m * 4u + tile % 4u) * 64u;
    if (row >= m || tile_col >= params.n) {
        return;
    }
    let col = tile_col + thread * 8u;
    let own_row = row + lane * 4u;
    var c0_0 = vec4<f32>();
    var c0_1 = vec4<f32>();
    var c1_0 = vec4<f32>();
    var c1_1 = vec4<f32>();
    var c2_0 = vec4<f32>();
    var c2_1 = vec4<f32>();
    var c3_0 = vec4<f32>();
    var c3_1 = vec4<f32>();
    var c4_0 = vec4<f32>();
    var c4_1 = vec4<f32>();
    var c5_0 = vec4<f32>();
    var c5_1 = vec4<f32>();
    var c6_0 = vec4<f32>();
    var c6_1 = vec4<f32>();
    var c7_0 = vec4<f32>();
    var c7_1 = vec4<f32>();
    var c8_0 = vec4<f32>();
    var c8_1 = vec4<f32>();
    var c9_0 = vec4<f32>();
    var c9_1 = vec4<f32>();
    var c10_0 = vec4<f32>();
    var c10_1 = vec4<f32>();
    var c11_0 = vec4<f32>();
    var c11_1 = vec4<f32>();
    var c12_0 = vec4<f32>();
    var c12_1 = vec4<f32>();
    var c13_0 = vec4<f32>();
    var c13_1 = vec4<f32>();
    var c14_0 = vec4<f32>();
    var c14_1 = vec4<f32>();
    var c15_0 = vec4<f32>();
    var c15_1 = vec4<f32>();
    var c16_0 = vec4<f32>();
    var c16_1 = vec4<f32>();
    var c17_0 = vec4<f32>();
    var c17_1 = vec4<f32>();
    var c18_0 = vec4<f32>();
    var c18_1 = vec4<f32>();
    var c19_0 = vec4<f32>();
    var c19_1 = vec4<f32>();
    var c20_0 = vec4<f32>();
    var c20_1 = vec4<f32>();
    var c21_0 = vec4<f32>();
    var c21_1 = vec4<f32>();
    var c22_0 = vec4<f32>();
    var c22_1 = vec4<f32>();
    var c23_0 = vec4<f32>();
    var c23_1 = vec4<f32>();
    var c24_0 = vec4<f32>();
    var c24_1 = vec4<f32>();
    var c25_0 = vec4<f32>();
    var c25_1 = vec4<f32>();
    var c26_0 = vec4<f32>();
    var c26_1 = vec4<f32>();
    var c27_0 = vec4<f32>();
    var c27_1 = vec4<f32>();
    var c28_0 = vec4<f32>();
    var c28_1 = vec4<f32>();
    var c29_0 = vec4<f32>();
    var c29_1 = vec4<f32>();
    var c30_0 = vec4<f32>();
    var c30_1 = vec4<f32>();
    var c31_0 = vec4<f32>();
    var c31_1 = vec4<f32>();
    let untrue = params.out_stride == 0u;
    var touched = 0.0;
    for (var i = 0u; i < k; i += 4u) {
        var a = a_block(own_row, i);
        var b0 = b_block(i, col);
        var b1 = b_block(i, col + 4u);
        if (i + 4u > k) {
            a = mask_a(a, k - i);
            b0 = mask_b(b0, k - i);
            b1 = mask_b(b1, k - i);
        }
        // Operands that run across k lie a row apart, where no processor prefetches: one load
        // touches all that the next step reads, so that it waits once. The condition, which
        // the compiler can't know to be false, keeps the load alive and its value out.
        if (TOUCH_NEXT) {
            let next = i + 4u + lane % 4u;
            let half = lane / 4u % 2u * 16u;
            if (TRANSPOSE_A) {
                touched = select(touched, load_a(next, row + half).x, untrue);
            }
            if (!TRANSPOSE_B) {
                touched = select(touched, load_b(next, tile_col + half).x, untrue);
                touched = select(touched, load_b(next, tile_col + half + 32u).x, untrue);
            }
        }
        let a0 = subgroupBroadcast(a[0], 0u);
        c0_0 += b0 * a0;
        c0_1 += b1 * a0;
        let a1 = subgroupBroadcast(a[1], 0u);
        c1_0 += b0 * a1;
        c1_1 += b1 * a1;
        let a2 = subgroupBroadcast(a[2], 0u);
        c2_0 += b0 * a2;
        c2_1 += b1 * a2;
        let a3 = subgroupBroadcast(a[3], 0u);
        c3_0 += b0 * a3;
        c3_1 += b1 * a3;
        let a4 = subgroupBroadcast(a[0], 1u);
        c4_0 += b0 * a4;
        c4_1 += b1 * a4;
        let a5 = subgroupBroadcast(a[1], 1u);
        c5_0 += b0 * a5;
        c5_1 += b1 * a5;
        let a6 = subgroupBroadcast(a[2], 1u);
        c6_0 += b0 * a6;
        c6_1 += b1 * a6;
        let a7 = subgroupBroadcast(a[3], 1u);
        c7_0 += b0 * a7;
        c7_1 += b1 * a7;
        let a8 = subgroupBroadcast(a[0], 2u);
        c8_0 += b0 * a8;
        c8_1 += b1 * a8;
        let a9 = subgroupBroadcast(a[1], 2u);
        c9_0 += b0 * a9;
        c9_1 += b1 * a9;
        let a10 = subgroupBroadcast(a[2], 2u);
        c10_0 += b0 * a10;
        c10_1 += b1 * a10;
        let a11 = subgroupBroadcast(a[3], 2u);
        c11_0 += b0 * a11;
        c11_1 += b1 * a11;
        let a12 = subgroupBroadcast(a[0], 3u);
        c12_0 += b0 * a12;
        c12_1 += b1 * a12;
        let a13 = subgroupBroadcast(a[1], 3u);
        c13_0 += b0 * a13;
        c13_1 += b1 * a13;
        let a14 = subgroupBroadcast(a[2], 3u);
        c14_0 += b0 * a14;
        c14_1 += b1 * a14;
        let a15 = subgroupBroadcast(a[3], 3u);
        c15_0 += b0 * a15;
        c15_1 += b1 * a15;
        let a16 = subgroupBroadcast(a[0], 4u);
        c16_0 += b0 * a16;
        c16_1 += b1 * a16;
        let a17 = subgroupBroadcast(a[1], 4u);
        c17_0 += b0 * a17;
        c17_1 += b1 * a17;
        let a18 = subgroupBroadcast(a[2], 4u);
        c18_0 += b0 * a18;
        c18_1 += b1 * a18;
        let a19 = subgroupBroadcast(a[3], 4u);
        c19_0 += b0 * a19;
        c19_1 += b1 * a19;
        let a20 = subgroupBroadcast(a[0], 5u);
        c20_0 += b0 * a20;
        c20_1 += b1 * a20;
        let a21 = subgroupBroadcast(a[1], 5u);
        c21_0 += b0 * a21;
        c21_1 += b1 * a21;
        let a22 = subgroupBroadcast(a[2], 5u);
        c22_0 += b0 * a22;
        c22_1 += b1 * a22;
        let a23 = subgroupBroadcast(a[3], 5u);
        c23_0 += b0 * a23;
        c23_1 += b1 * a23;
        let a24 = subgroupBroadcast(a[0], 6u);
        c24_0 += b0 * a24;
        c24_1 += b1 * a24;
        let a25 = subgroupBroadcast(a[1], 6u);
        c25_0 += b0 * a25;
        c25_1 += b1 * a25;
        let a26 = subgroupBroadcast(a[2], 6u);
        c26_0 += b0 * a26;
        c26_1 += b1 * a26;
        let a27 = subgroupBroadcast(a[3], 6u);
        c27_0 += b0 * a27;
        c27_1 += b1 * a27;
        let a28 = subgroupBroadcast(a[0], 7u);
        c28_0 += b0 * a28;
        c28_1 += b1 * a28;
        let a29 = subgroupBroadcast(a[1], 7u);
        c29_0 += b0 * a29;
        c29_1 += b1 * a29;
        let a30 = subgroupBroadcast(a[2], 7u);
        c30_0 += b0 * a30;
        c30_1 += b1 * a30;
        let a31 = subgroupBroadcast(a[3], 7u);
        c31_0 += b0 * a31;
        c31_1 += b1 * a31;
    }
    c0_0.x += touched;
    // The store stands once: an epilogue written out for each row takes seconds to compile.
    let rows = min(m - row, 32u);
    for (var r = 0u; r < rows; r += 1u) {
        var left = c0_0;
        var right = c0_1;
        switch r {
            case 1u: { left = c1_0; right = c1_1; }
            case 2u: { left = c2_0; right = c2_1; }
            case 3u: { left = c3_0; right = c3_1; }
            case 4u: { left = c4_0; right = c4_1; }
            case 5u: { left = c5_0; right = c5_1; }
            case 6u: { left = c6_0; right = c6_1; }
            case 7u: { left = c7_0; right = c7_1; }
            case 8u: { left = c8_0; right = c8_1; }
            case 9u: { left = c9_0; right = c9_1; }
            case 10u: { left = c10_0; right = c10_1; }
            case 11u: { left = c11_0; right = c11_1; }
            case 12u: { left = c12_0; right = c12_1; }
            case 13u: { left = c13_0; right = c13_1; }
            case 14u: { left = c14_0; right = c14_1; }
            case 15u: { left = c15_0; right = c15_1; }
            case 16u: { left = c16_0; right = c16_1; }
            case 17u: { left = c17_0; right = c17_1; }
            case 18u: { left = c18_0; right = c18_1; }
            case 19u: { left = c19_0; right = c19_1; }
            case 20u: { left = c20_0; right = c20_1; }
            case 21u: { left = c21_0; right = c21_1; }
            case 22u: { left = c22_0; right = c22_1; }
            case 23u: { left = c23_0; right = c23_1; }
            case 24u: { left = c24_0; right = c24_1; }
            case 25u: { left = c25_0; right = c25_1; }
            case 26u: { left = c26_0; right = c26_1; }
            case 27u: { left = c27_0; right = c27_1; }
            case 28u: { left = c28_0; right = c28_1; }
            case 29u: { left = c29_0; right = c29_1; }
            case 30u: { left = c30_0; right = c30_1; }
            case 31u: { left = c31_0; right = c31_1; }
            default: {}
        }
        store_row(row + r, col, left);
        store_row(row + r, col + 4u, right);
    }
}
