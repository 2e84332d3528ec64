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
// Each thread owns ROW_BLOCKS x COL_BLOCKS blocks of 4 x 4 outputs, half a tile apart where there
// are two, so that neighbours read neighbouring words of workgroup memory. For every 4 STEPS steps
// along k each thread copies one 4 x 4 block of op(A) and one of op(B) there, read along the axis
// that is contiguous and written with k outermost. While it computes with one slice, it already
// loads its blocks of the next.
//
// Where results are too small to occupy a device otherwise, SPLIT groups of threads take turns along
// k, each with workgroup memory of its own, and the first adds up the sums of all in order. A thread
// then owns one block across (COL_BLOCKS 1).
//
// Drivers run this text without bounds checks: every index is within its array by what is written
// here.
const GROUPS: u32 = TILE / 4u;
const SLICE: u32 = 4u * STEPS;
const SIDE_X: u32 = GROUPS / COL_BLOCKS;
const SIDE_Y: u32 = GROUPS / ROW_BLOCKS;
// Of one group. Also STEPS * GROUPS: a block of each operand for each thread.
const THREADS: u32 = SIDE_X * SIDE_Y;
const SLICE_SIZE: u32 = SLICE * GROUPS;

// One row a step of k, of TILE rows of op(A) or columns of op(B) in groups of four.
var<workgroup> tile_a: array<vec4<f32>, SPLIT * SLICE_SIZE>;
var<workgroup> tile_b: array<vec4<f32>, SPLIT * SLICE_SIZE>;

// Where a group lies in the first of the four rows of `step`; the others follow GROUPS further on.
// Groups change places, eight by eight, from step to step: threads that write one group at all
// four steps would else meet in one bank of the memory.
fn place(step: u32, group: u32) -> u32 {
    return step * 4u * GROUPS + (group ^ (step * (8u / STEPS)));
}

// Step and group of a thread's block, so that threads side by side read along the contiguous axis.
fn block_of(thread: u32, along_k: bool) -> vec2<u32> {
    if (along_k) {
        return vec2<u32>(thread % STEPS, thread / STEPS);
    }
    return vec2<u32>(thread / GROUPS, thread % GROUPS);
}

// Four after `first`, none past the last of `count`.
fn four_of(first: u32, count: u32) -> vec4<u32> {
    return min(vec4<u32>(first, first + 1u, first + 2u, first + 3u), vec4<u32>(count - 1u));
}

// Four rows of op(A) at each of four steps from k on.
fn block_a(row: u32, k: u32, end: u32) -> mat4x4<f32> {
    if (row + 4u <= params.m && k + 4u <= end) {
        let first = select(row * params.a_stride + k, k * params.a_stride + row, TRANSPOSE_A);
        let at = (params.a_offset + first) / UNIT;
        let step = params.a_stride / UNIT;
        let block = mat4x4<f32>(a_at(at), a_at(at + step), a_at(at + 2u * step), a_at(at + 3u * step));
        if (TRANSPOSE_A) {
            return block;
        }
        return transpose(block);
    }
    return edge_a(row, k, end);
}

// Four columns of op(B) at each of four steps from k on.
fn block_b(col: u32, k: u32, end: u32) -> mat4x4<f32> {
    if (col + 4u <= params.n && k + 4u <= end) {
        let first = select(k * params.b_stride + col, col * params.b_stride + k, TRANSPOSE_B);
        let at = (params.b_offset + first) / UNIT;
        let step = params.b_stride / UNIT;
        let block = mat4x4<f32>(b_at(at), b_at(at + step), b_at(at + 2u * step), b_at(at + 3u * step));
        if (TRANSPOSE_B) {
            return transpose(block);
        }
        return block;
    }
    return edge_b(col, k, end);
}

// The same at the edges of the matrices. What lies past the end of k may be anything, infinity
// included, so it is replaced and not multiplied by zero.
fn edge_a(row: u32, k: u32, end: u32) -> mat4x4<f32> {
    if (k >= end) {
        return mat4x4<f32>();
    }
    if (TRANSPOSE_A) {
        let at = params.a_offset + four_of(k, params.k) * params.a_stride;
        return until(end - k, mat4x4<f32>(
            within_a(at.x, row, params.m), within_a(at.y, row, params.m),
            within_a(at.z, row, params.m), within_a(at.w, row, params.m),
        ));
    }
    let at = params.a_offset + four_of(row, params.m) * params.a_stride;
    return until(end - k, transpose(mat4x4<f32>(
        within_a(at.x, k, params.k), within_a(at.y, k, params.k),
        within_a(at.z, k, params.k), within_a(at.w, k, params.k),
    )));
}

fn edge_b(col: u32, k: u32, end: u32) -> mat4x4<f32> {
    if (k >= end) {
        return mat4x4<f32>();
    }
    if (TRANSPOSE_B) {
        let at = params.b_offset + four_of(col, params.n) * params.b_stride;
        return until(end - k, transpose(mat4x4<f32>(
            within_b(at.x, k, params.k), within_b(at.y, k, params.k),
            within_b(at.z, k, params.k), within_b(at.w, k, params.k),
        )));
    }
    let at = params.b_offset + four_of(k, params.k) * params.b_stride;
    return until(end - k, mat4x4<f32>(
        within_b(at.x, col, params.n), within_b(at.y, col, params.n),
        within_b(at.z, col, params.n), within_b(at.w, col, params.n),
    ));
}

// The first `steps` of four, the others zero.
fn until(steps: u32, block: mat4x4<f32>) -> mat4x4<f32> {
    if (steps >= 4u) {
        return block;
    }
    let zero = vec4<f32>();
    return mat4x4<f32>(
        block[0], select(zero, block[1], steps > 1u), select(zero, block[2], steps > 2u), zero,
    );
}

fn put_a(at: u32, block: mat4x4<f32>) {
    tile_a[at] = block[0];
    tile_a[at + GROUPS] = block[1];
    tile_a[at + 2u * GROUPS] = block[2];
    tile_a[at + 3u * GROUPS] = block[3];
}

fn put_b(at: u32, block: mat4x4<f32>) {
    tile_b[at] = block[0];
    tile_b[at + GROUPS] = block[1];
    tile_b[at + 2u * GROUPS] = block[2];
    tile_b[at + 3u * GROUPS] = block[3];
}

// Adds the 4 x 4 products of four rows and four columns at one step of k.
fn add_outer(sum: mat4x4<f32>, rows: vec4<f32>, columns: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(
        fma(vec4<f32>(rows.x), columns, sum[0]), fma(vec4<f32>(rows.y), columns, sum[1]),
        fma(vec4<f32>(rows.z), columns, sum[2]), fma(vec4<f32>(rows.w), columns, sum[3]),
    );
}

// Outputs of one thread: block row, then block column.
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
    (*sums).c00 = add_outer((*sums).c00, a0, b0);
    if (COL_BLOCKS == 2u) {
        let b1 = tile_b[b.y];
        (*sums).c01 = add_outer((*sums).c01, a0, b1);
        if (ROW_BLOCKS == 2u) {
            (*sums).c11 = add_outer((*sums).c11, tile_a[a.y], b1);
        }
    }
    if (ROW_BLOCKS == 2u) {
        (*sums).c10 = add_outer((*sums).c10, tile_a[a.y], b0);
    }
}

// `first` is where the slice lies in workgroup memory.
fn add_slice(sums: ptr<function, Sums>, first: u32, x: u32, y: u32) {
    // unroll
    for (var step = 0u; step < STEPS; step += 1u) {
        let a = first + vec2<u32>(place(step, y), place(step, y + GROUPS - SIDE_Y));
        let b = first + vec2<u32>(place(step, x), place(step, x + GROUPS - SIDE_X));
        add_step(sums, a, b);
        add_step(sums, a + GROUPS, b + GROUPS);
        add_step(sums, a + 2u * GROUPS, b + 2u * GROUPS);
        add_step(sums, a + 3u * GROUPS, b + 3u * GROUPS);
    }
}

// Adds the sums of all groups to those of the first. A slice's memory holds the outputs of its
// group's threads, THREADS apart.
fn add_up(sums: ptr<function, Sums>, team: u32, thread: u32) {
    let own = team * SLICE_SIZE + thread;
    for (var i = 0u; i < 4u; i++) {
        tile_a[own + i * THREADS] = (*sums).c00[i];
        tile_b[own + i * THREADS] = (*sums).c10[i];
    }
    workgroupBarrier();
    for (var other = 1u; other < SPLIT; other++) {
        let others = other * SLICE_SIZE + thread;
        for (var i = 0u; i < 4u; i++) {
            (*sums).c00[i] += tile_a[others + i * THREADS];
            (*sums).c10[i] += tile_b[others + i * THREADS];
        }
    }
}

@compute @workgroup_size(SPLIT * THREADS)
fn matmul_tiled(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index_in_group: u32,
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
    let team = index_in_group / THREADS;
    let thread = index_in_group % THREADS;
    let from_a = block_of(thread, !TRANSPOSE_A);
    let from_b = block_of(thread, TRANSPOSE_B);
    let row_a = tile_row + from_a.y * 4u;
    let col_b = tile_col + from_b.y * 4u;
    let ahead_a = team * SLICE + from_a.x * 4u;
    let ahead_b = team * SLICE + from_b.x * 4u;
    let slice = team * SLICE_SIZE;
    let to_a = slice + place(from_a.x, from_a.y);
    let to_b = slice + place(from_b.x, from_b.y);
    let x = thread % SIDE_X;
    let y = thread / SIDE_X;
    var sums = Sums();
    var next_a = block_a(row_a, first_k + ahead_a, end);
    var next_b = block_b(col_b, first_k + ahead_b, end);
    for (var i = first_k; i < end; i += SPLIT * SLICE) {
        put_a(to_a, next_a);
        put_b(to_b, next_b);
        // The slices are there.
        workgroupBarrier();
        next_a = block_a(row_a, i + SPLIT * SLICE + ahead_a, end);
        next_b = block_b(col_b, i + SPLIT * SLICE + ahead_b, end);
        add_slice(&sums, slice, x, y);
        // The slices have been read.
        workgroupBarrier();
    }
    if (SPLIT > 1u) {
        add_up(&sums, team, thread);
        if (team > 0u) {
            return;
        }
    }
    let below = part * params.m;
    let row = below + tile_row + y * 4u;
    let col = tile_col + x * 4u;
    let half = TILE / 2u;
    store_block(row, col, below + m, sums.c00);
    if (COL_BLOCKS == 2u) {
        store_block(row, col + half, below + m, sums.c01);
    }
    if (ROW_BLOCKS == 2u) {
        store_block(row + half, col, below + m, sums.c10);
    }
    if (ROW_BLOCKS == 2u && COL_BLOCKS == 2u) {
        store_block(row + half, col + half, below + m, sums.c11);
    }
}
