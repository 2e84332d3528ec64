// Matrix product C = op(A) op(B) with an epilogue, accumulated in f32, through workgroup memory:
// for GPUs, which are quick at barriers and slow at memory.
//
//   op(A) is (M, K): A is stored (M, K), or (K, M) where TRANSPOSE_A
//   op(B) is (K, N): B is stored (K, N), or (N, K) where TRANSPOSE_B
//
// Bindings: 0 params, 1 counts (live sizes, where used), 2 a (read), 3 b (read), 4 out (written),
// then what the epilogue adds.
//
// Dispatch: one workgroup a tile of TILE x TILE outputs and a part of k, the tiles of one part
// after those of the part before. Part p adds up `params.part` steps of k from p * part on and
// stores its sums below those of part p - 1, as if `out` had M rows for each; matmul_total adds
// them. Workgroups past the live rows, or past the live k, return at once; nothing is written
// there.
//
// Each thread owns a 4 x 4 block of outputs, or four of them half a tile apart (BLOCKS 2), so that
// neighbours read neighbouring words of workgroup memory. For every SLICE steps along k the
// workgroup copies its rows of op(A) and columns of op(B), a 4 x 4 block a thread at a time, read
// along the axis that is contiguous and written with k outermost.
const SLICE: u32 = 16u;
const STEPS: u32 = SLICE / 4u;
const GROUPS: u32 = TILE / 4u;
const SIDE: u32 = GROUPS / BLOCKS;
const THREADS: u32 = SIDE * SIDE;

// One row a step of k, of TILE rows of op(A) or columns of op(B) in groups of four.
var<workgroup> tile_a: array<vec4<f32>, SLICE * GROUPS>;
var<workgroup> tile_b: array<vec4<f32>, SLICE * GROUPS>;

// Where a group lies in the first of the four rows of `step`; the others follow GROUPS further on.
// Groups change places from step to step: threads that write one group at all four steps would
// else meet in one bank of the memory.
fn place(step: u32, group: u32) -> u32 {
    return step * 4u * GROUPS + (group ^ (step * 2u));
}

// What lies past the end of k may be anything, infinity included, so it is replaced and not
// multiplied by zero.
fn part_of_a(row: u32, k: u32, end: u32) -> mat4x4<f32> {
    if (k >= end) {
        return mat4x4<f32>();
    }
    if (k + 4u > end) {
        return mask_a(a_block(row, k), end - k);
    }
    return a_block(row, k);
}

fn part_of_b(k: u32, col: u32, end: u32) -> mat4x4<f32> {
    if (k >= end) {
        return mat4x4<f32>();
    }
    if (k + 4u > end) {
        return mask_b(b_block(k, col), end - k);
    }
    return b_block(k, col);
}

// Step and group of a block, so that threads side by side read along the contiguous axis.
fn along_k(block: u32) -> vec2<u32> {
    return vec2<u32>(block % STEPS, block / STEPS);
}

fn along_groups(block: u32) -> vec2<u32> {
    return vec2<u32>(block / GROUPS, block % GROUPS);
}

fn copy_a(block: u32, first_row: u32, first_k: u32, end: u32) {
    let at = select(along_k(block), along_groups(block), TRANSPOSE_A);
    let rows = part_of_a(first_row + at.y * 4u, first_k + at.x * 4u, end);
    let columns = transpose(rows);
    let i = place(at.x, at.y);
    tile_a[i] = columns[0];
    tile_a[i + GROUPS] = columns[1];
    tile_a[i + 2u * GROUPS] = columns[2];
    tile_a[i + 3u * GROUPS] = columns[3];
}

fn copy_b(block: u32, first_col: u32, first_k: u32, end: u32) {
    let at = select(along_groups(block), along_k(block), TRANSPOSE_B);
    let rows = part_of_b(first_k + at.x * 4u, first_col + at.y * 4u, end);
    let i = place(at.x, at.y);
    tile_b[i] = rows[0];
    tile_b[i + GROUPS] = rows[1];
    tile_b[i + 2u * GROUPS] = rows[2];
    tile_b[i + 3u * GROUPS] = rows[3];
}

fn copy_slice(thread: u32, row: u32, col: u32, first_k: u32, end: u32) {
    for (var i = thread; i < 2u * TILE; i += THREADS) {
        if (i < TILE) {
            copy_a(i, row, first_k, end);
        } else {
            copy_b(i - TILE, col, first_k, end);
        }
    }
}

// The 4 x 4 products of four rows and four columns at one step of k.
fn outer(rows: vec4<f32>, columns: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(
        rows.x * columns, rows.y * columns, rows.z * columns, rows.w * columns,
    );
}

// Outputs of one thread: one block, or four.
struct Sums {
    c00: mat4x4<f32>,
    c01: mat4x4<f32>,
    c10: mat4x4<f32>,
    c11: mat4x4<f32>,
}

// Adds the products at one step of k, given the places of the thread's groups.
fn add_step(sums: ptr<function, Sums>, a: vec2<u32>, b: vec2<u32>) {
    let a0 = tile_a[a.x];
    let b0 = tile_b[b.x];
    (*sums).c00 += outer(a0, b0);
    if (BLOCKS == 2u) {
        let a1 = tile_a[a.y];
        let b1 = tile_b[b.y];
        (*sums).c01 += outer(a0, b1);
        (*sums).c10 += outer(a1, b0);
        (*sums).c11 += outer(a1, b1);
    }
}

fn add_slice(sums: ptr<function, Sums>, x: u32, y: u32) {
    for (var step = 0u; step < STEPS; step++) {
        let a = vec2<u32>(place(step, y), place(step, y + SIDE));
        let b = vec2<u32>(place(step, x), place(step, x + SIDE));
        add_step(sums, a, b);
        add_step(sums, a + GROUPS, b + GROUPS);
        add_step(sums, a + 2u * GROUPS, b + 2u * GROUPS);
        add_step(sums, a + 3u * GROUPS, b + 3u * GROUPS);
    }
}

@compute @workgroup_size(THREADS)
fn matmul_tiled(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let m = live_from(params.m, params.m_count, params.start);
    let k = live_from(params.k, params.k_count, params.start);
    let tiles_n = (params.n + TILE - 1u) / TILE;
    let tiles = (params.m + TILE - 1u) / TILE * tiles_n;
    let index = linear_workgroup(group, groups);
    let part = index / tiles;
    let tile_row = index % tiles / tiles_n * TILE;
    let tile_col = index % tiles_n * TILE;
    let first_k = part * params.part;
    if (tile_row >= m || (part > 0u && first_k >= k)) {
        return;
    }
    let end = min(k, first_k + params.part);
    let x = thread % SIDE;
    let y = thread / SIDE;
    var sums = Sums();
    for (var i = first_k; i < end; i += SLICE) {
        copy_slice(thread, tile_row, tile_col, i, end);
        // The slice is there.
        workgroupBarrier();
        add_slice(&sums, x, y);
        // The slice has been read.
        workgroupBarrier();
    }
    let below = part * params.m;
    let row = below + tile_row + y * 4u;
    let col = tile_col + x * 4u;
    store_block(row, col, below + m, sums.c00);
    if (BLOCKS == 2u) {
        let half = TILE / 2u;
        store_block(row, col + half, below + m, sums.c01);
        store_block(row + half, col, below + m, sums.c10);
        store_block(row + half, col + half, below + m, sums.c11);
    }
}
