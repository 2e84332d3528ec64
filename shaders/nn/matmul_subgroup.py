"""Writes matmul_subgroup.wgsl, beside this file: python3 shaders/nn/matmul_subgroup.py

The lane of `subgroupBroadcast` must be a constant, and software drivers don't unroll a loop of
this size, so the 32 rows of a tile are written out.
"""

from pathlib import Path

ROWS = 32

HEAD = """\
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
"""

LOOP = """\
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
"""

STORE = """\
    c0_0.x += touched;
    // The store stands once: an epilogue written out for each row takes seconds to compile.
    let rows = min(m - row, 32u);
    for (var r = 0u; r < rows; r += 1u) {
        var left = c0_0;
        var right = c0_1;
        switch r {
"""

TAIL = """\
            default: {}
        }
        store_row(row + r, col, left);
        store_row(row + r, col + 4u, right);
    }
}
"""


def text():
    out = HEAD
    for r in range(ROWS):
        out += f"    var c{r}_0 = vec4<f32>();\n    var c{r}_1 = vec4<f32>();\n"
    out += LOOP
    for r in range(ROWS):
        out += f"        let a{r} = subgroupBroadcast(a[{r % 4}], {r // 4}u);\n"
        out += f"        c{r}_0 += b0 * a{r};\n        c{r}_1 += b1 * a{r};\n"
    out += "    }\n" + STORE
    for r in range(1, ROWS):
        out += f"            case {r}u: {{ left = c{r}_0; right = c{r}_1; }}\n"
    return out + TAIL


if __name__ == "__main__":
    Path(__file__).with_suffix(".wgsl").write_text(text())
